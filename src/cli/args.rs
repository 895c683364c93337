//! The arguments as clap reads them, with the texts of `--help`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::Format;
use super::values::{duration, mailbox, max_replace, max_users, metrics_file, report_file};
use crate::domain::{Limit, Mailbox, Share};

pub(super) const EXIT_CODES: &str = "\
Exit codes:
   0  done, nothing wrong (skipped users are not failures)
   1  failed: the database, the journal or a file
   2  changes are due (only with --dry-run --exit-code)
   3  refused: a limit, a tripwire or a missing cost center stopped at least one policy
   4  done, but some users failed or have not got their mail, or --user was not found
  64  wrong usage or configuration; nothing was tried
  75  another instance holds the lock";

/// Keeps the print-release PINs of Dispatcher Paragon and YSoft SafeQ 6 users right, unattended.
///
/// Without --once and without a command it is the daemon: it looks for new users every few seconds, compares everybody with the
/// policies every few minutes, changes what differs, and mails the users whom it gave a PIN. It runs until it is stopped.
///
/// Something is wrong and it is the middle of the night? `credkeeper doctor` names what is broken and what to do about it;
/// `credkeeper status` says what is waiting; `credkeeper plan` shows what a pass would do and cannot write.
#[derive(Parser, Debug)]
#[command(name = "credkeeper", version, after_help = EXIT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub(super) struct RawCli {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = "config.yaml")]
    pub(super) config: PathBuf,

    /// Only this database of the configuration, by its name; without it, all of them
    #[arg(long, global = true, value_name = "NAME")]
    pub(super) database: Option<String>,

    /// Do one full pass with delivery, print the report, and exit
    ///
    /// For audits and for schedulers such as cron and the Windows Task Scheduler. Each due mail is tried once; what could not be
    /// sent stays in the journal for the next pass.
    #[arg(long)]
    pub(super) once: bool,

    /// With --once: say what would be done and write nothing, not even a journal
    #[arg(long)]
    pub(super) dry_run: bool,

    #[command(flatten)]
    pub(super) pass: PassArgs,

    #[command(subcommand)]
    pub(super) command: Option<RawCommand>,
}

/// Options of one pass, on the top level and of `plan`.
#[derive(Args, Clone, PartialEq, Debug)]
pub(super) struct PassArgs {
    /// Only this user; the login as in the print system
    #[arg(long, value_name = "LOGIN")]
    pub(super) user: Option<String>,

    /// With --user: how long to wait for the user to appear in the database, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) wait: Option<Duration>,

    /// Instead of limits.users_per_pass of every policy, for this pass: a number or `unlimited`
    ///
    /// Look at `credkeeper plan` first: the limit is there to stop a mistake in a policy before it reaches everybody.
    #[arg(long, value_name = "N|unlimited", value_parser = max_users)]
    pub(super) max_users: Option<Limit<u64>>,

    /// Instead of limits.replace_percent of every policy, for this pass: a share such as 10%, or `unlimited`
    #[arg(long, value_name = "P%|unlimited", value_parser = max_replace)]
    pub(super) max_replace: Option<Limit<Share>>,

    /// Write the report to this file too; the name must end in .json
    #[arg(long, value_name = "FILE", value_parser = report_file)]
    pub(super) report: Option<PathBuf>,

    /// How the report is printed [default: text]
    #[arg(long, value_enum)]
    pub(super) format: Option<Format>,

    /// Write the metrics of this pass to a file for the node exporter's textfile collector; the name must end in .prom
    #[arg(long, value_name = "FILE.prom", value_parser = metrics_file)]
    pub(super) metrics_file: Option<PathBuf>,

    /// With --dry-run or `plan`: exit with 2 when changes are due
    #[arg(long)]
    pub(super) exit_code: bool,
}

#[derive(Subcommand, Debug)]
pub(super) enum RawCommand {
    /// Show what a full pass would do; writes nothing (the same as --once --dry-run)
    #[command(after_help = EXIT_CODES)]
    Plan(PassArgs),
    /// Explain what happens to one user, policy by policy and rule by rule, and why
    Explain {
        /// The login as in the print system
        login: String,
    },
    /// Put one user on hold: no pass changes anything of the user until `release`
    ///
    /// A running daemon is asked to do it; without one the command does it by itself.
    Hold {
        /// The login as in the print system
        login: String,
    },
    /// End the hold of one user; the next pass looks at the user again
    Release {
        /// The login as in the print system
        #[arg(required_unless_present = "pass")]
        login: Option<String>,

        /// Instead: of all whom `undo PASS` put on hold
        #[arg(long, value_name = "PASS", conflicts_with = "login")]
        pass: Option<String>,
    },
    /// Take away all PINs of one user at once, and a code or password where policies give these, and put the user on hold
    ///
    /// For a lost phone or a stolen note: nothing comes in their place until `release`. Cards are never touched.
    Revoke {
        /// The login as in the print system
        login: String,
    },
    /// Let a plan through that a limit refused, once, within 24 hours; `status` and the log name its id
    Approve {
        /// The id of the plan: 12 hexadecimal digits
        #[arg(value_name = "ID")]
        plan: String,
    },
    /// Take back what a pass changed, as far as it still stands, and put its users on hold
    ///
    /// PINs, codes and passwords of before come back, users go back to where they were, and mails that still wait are not sent. What
    /// somebody else has changed since stays, and is named. Possible for journal.undo_for (7 days).
    Undo {
        /// The id of the pass, as the report, `status` and `explain` tell it
        pass: String,

        /// Say what would be taken back, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Send one user the credentials again that he has: the mail that was not delivered, or what can be read back from the database
    ///
    /// Changes nothing in the database. A PIN is recovered from its stored form, a card assignment code decrypted where the cipher is
    /// built in; a password cannot be.
    Resend {
        /// The login as in the print system
        login: String,
    },
    /// Check everything that credkeeper needs, and say what to do about what is wrong
    ///
    /// Configuration, database (connection, schema, columns, PIN formats seen), cost centers, mail server and journal. Writes nothing
    /// and takes no lock, so it may run beside the daemon. Exits with 1 when a check failed.
    Doctor {
        /// Send a mail to this address too, without any credential, as the configuration says, and tell what the mail server said
        #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
        mail_test: Option<Mailbox>,

        /// Instead of all that, prove cac_cipher: asks for a card assignment code and for its stored form from the database
        ///
        /// Make a code in the print system, and read what it has stored for it. Both are asked for without being shown, or read from the
        /// standard input, one a line. Nothing is connected to.
        #[arg(long, conflicts_with = "mail_test")]
        cac_pair: bool,
    },
    /// Check the configuration file alone, without connecting anywhere; exits with 64 when it is wrong
    CheckConfig,
    /// Encrypt a secret, so that it can stand in the configuration file
    ///
    /// Asks for it without showing it, or reads it from the standard input, and prints a value that begins with sealed:v1: to write in
    /// its place, also inside of a url or a connection string. The key is in a file of its own (seal_key, else credkeeper.key beside
    /// the configuration), which is made at the first use.
    Seal,
    /// Make a sandbox to try things out: a database with sample users, a config.yaml, and a directory that mails go to
    Sandbox {
        /// Made if it is not there; must be empty
        dir: PathBuf,
        /// How many sample users
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        users: u32,
    },
    /// Look into the journal, the local file that remembers what has been issued and which mails are still to be sent
    #[command(subcommand)]
    Journal(RawJournal),
    /// Say what the last pass did, what waits for delivery, and what stopped it
    Status,
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Subcommand, Debug)]
pub(super) enum RawJournal {
    /// List the issuances that are not finished: no secret is shown
    List,
    /// Send an undelivered mail now, as if it had never been tried; without an id, all of them
    Retry {
        /// The number of the issuance, as `journal list` shows it
        #[arg(value_name = "ID")]
        issuance: Option<i64>,
    },
    /// Take one issuance back, as far as it still stands, and put its user on hold
    TakeBack {
        /// The number of the issuance, as `journal list` and `explain` show it
        #[arg(value_name = "ID")]
        issuance: i64,

        /// Say what would be taken back, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Take a database as it is that was restored from an older backup, or that is another one than the journal knows
    ///
    /// Names the users whose mailed PIN is gone with it; the next pass looks at them again, within the limits. Nothing is changed in the
    /// database. Works without a daemon only, and ends with 75 beside one.
    Adopt {
        /// The database's name in the configuration
        name: String,
        /// Only tell what would be adopted
        #[arg(id = "adopt_dry_run", long = "dry-run")]
        dry_run: bool,
    },
}
