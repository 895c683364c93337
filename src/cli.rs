//! The command line: what may be asked for, and what the exit code says.
//!
//! Options of the loop stand at the top level, so that `credkeeper --once` works; everything else is a subcommand. What
//! leaves this room has been checked: [`Mode`] cannot express `--user` without `--once`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::domain::{Limit, Mailbox, Share};
use crate::report::Report;

mod request;
#[cfg(test)]
mod tests;

pub use request::Request;

/// What was asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Cli {
    /// As given: relative to the working directory.
    pub config: PathBuf,
    /// The only database that it is about; `None`: all.
    pub database: Option<String>,
    pub mode: Mode,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Mode {
    /// Until stopped.
    Daemon,
    /// One full pass, or with `dry_run` its preview.
    Once(Once),
    Explain {
        login: String,
    },
    /// What the running daemon is asked to do, if there is one.
    Operate(Request),
    /// What that would take back; changes nothing.
    Preview(Request),
    Doctor {
        /// Who is sent a mail without any credential.
        mail_test: Option<Mailbox>,
    },
    /// Whether the configured cipher makes what the print system made of a code.
    CacPair,
    CheckConfig,
    /// Encrypt a secret for the configuration.
    Seal,
    Sandbox {
        dir: PathBuf,
        users: u32,
    },
    JournalList,
    /// The journal takes this database as it is.
    JournalAdopt {
        name: String,
        /// Only tell what that would mean.
        dry_run: bool,
    },
    Status,
    Completions(Shell),
}

/// `--once` and its options; `plan` is the same with `dry_run` set.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Once {
    pub dry_run: bool,
    pub user: Option<String>,
    /// How long to wait for the user's row to appear; only with `user`.
    pub wait: Option<Duration>,
    /// Instead of every policy's `users_per_pass`.
    pub max_users: Option<Limit<u64>>,
    /// Instead of every policy's `replace_percent`.
    pub max_replace: Option<Limit<Share>>,
    /// Where the report goes as JSON, besides the standard output.
    pub report: Option<PathBuf>,
    pub format: Format,
    pub metrics_file: Option<PathBuf>,
    /// Exit with [`ExitStatus::Pending`] when changes are due; only with `dry_run`.
    pub exit_code: bool,
}

/// How a report is printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// For a person.
    #[default]
    Text,
    /// For a program; the keys are described in docs/report.md.
    Json,
}

/// What the exit code says. The numbers are a promise to scripts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ExitStatus {
    /// Done, nothing wrong; skipped users are not failures.
    Done = 0,
    /// The database, the journal or a file failed.
    Failed = 1,
    /// Changes are due; only with `--dry-run --exit-code`.
    Pending = 2,
    /// A limit, a tripwire or a missing cost center stopped at least one policy.
    Refused = 3,
    /// Done, but some users failed or have not got their mail, or the `--user` was not found.
    Partial = 4,
    /// Wrong usage or configuration; nothing was tried.
    Usage = 64,
    /// Another instance holds the lock.
    Locked = 75,
}

impl ExitStatus {
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What several databases amount to: the worst of 1, 3, 75, 4, 2, 0. [`ExitStatus::Usage`] is worse than all,
    /// because nothing was tried.
    pub fn worst(all: impl IntoIterator<Item = ExitStatus>) -> ExitStatus {
        use ExitStatus::{Done, Failed, Locked, Partial, Pending, Refused, Usage};
        const ORDER: [ExitStatus; 7] = [Done, Pending, Partial, Locked, Refused, Failed, Usage];
        let rank = |status: &ExitStatus| ORDER.iter().position(|s| s == status);
        all.into_iter().max_by_key(rank).unwrap_or(Done)
    }

    /// As another instance has said it; what is no code of ours is a failure.
    pub fn from_code(code: u8) -> ExitStatus {
        let all = [
            ExitStatus::Done,
            ExitStatus::Failed,
            ExitStatus::Pending,
            ExitStatus::Refused,
            ExitStatus::Partial,
            ExitStatus::Usage,
            ExitStatus::Locked,
        ];
        all.into_iter().find(|status| status.code() == code).unwrap_or(ExitStatus::Failed)
    }

    /// What one pass amounts to. `pending` is `--exit-code`.
    pub fn of(report: &Report, pending: bool) -> ExitStatus {
        if report.error.is_some() {
            ExitStatus::Failed
        } else if report.is_refused() {
            ExitStatus::Refused
        } else if report.failed() > 0 || (!report.dry_run && report.is_undelivered()) {
            ExitStatus::Partial
        } else if pending && report.dry_run && report.due() > 0 {
            ExitStatus::Pending
        } else {
            ExitStatus::Done
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status.code())
    }
}

/// The command line asked for help or the version, or was wrong: what to print, and how to exit.
#[derive(Debug)]
pub struct Stop(Box<clap::Error>);

impl Stop {
    pub fn status(&self) -> ExitStatus {
        if self.0.use_stderr() { ExitStatus::Usage } else { ExitStatus::Done }
    }

    /// Help and version on the standard output, a complaint on the standard error. A reader that went away is no reason
    /// to fail.
    pub fn print(&self) -> ExitStatus {
        let _ = self.0.print();
        self.status()
    }
}

/// # Errors
/// Help, the version, or what is wrong with the arguments. `args` begin with the program's name.
pub fn parse_from(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, Stop> {
    RawCli::try_parse_from(args).and_then(RawCli::check).map_err(|e| Stop(Box::new(e)))
}

/// The completion script for `shell`.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut RawCli::command(), "credkeeper", &mut script);
    script
}

const EXIT_CODES: &str = "\
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
struct RawCli {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = "config.yaml")]
    config: PathBuf,

    /// Only this database of the configuration, by its name; without it, all of them
    #[arg(long, global = true, value_name = "NAME")]
    database: Option<String>,

    /// Do one full pass with delivery, print the report, and exit
    ///
    /// For audits and for schedulers such as cron and the Windows Task Scheduler. Each due mail is tried once; what could not be
    /// sent stays in the journal for the next pass.
    #[arg(long)]
    once: bool,

    /// With --once: say what would be done and write nothing, not even a journal
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    pass: PassArgs,

    #[command(subcommand)]
    command: Option<RawCommand>,
}

/// Options of one pass, on the top level and of `plan`.
#[derive(Args, Clone, PartialEq, Debug)]
struct PassArgs {
    /// Only this user; the login as in the print system
    #[arg(long, value_name = "LOGIN")]
    user: Option<String>,

    /// With --user: how long to wait for the user to appear in the database, such as 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,

    /// Instead of limits.users_per_pass of every policy, for this pass: a number or `unlimited`
    ///
    /// Look at `credkeeper plan` first: the limit is there to stop a mistake in a policy before it reaches everybody.
    #[arg(long, value_name = "N|unlimited", value_parser = max_users)]
    max_users: Option<Limit<u64>>,

    /// Instead of limits.replace_percent of every policy, for this pass: a share such as 10%, or `unlimited`
    #[arg(long, value_name = "P%|unlimited", value_parser = max_replace)]
    max_replace: Option<Limit<Share>>,

    /// Write the report to this file too; the name must end in .json
    #[arg(long, value_name = "FILE", value_parser = report_file)]
    report: Option<PathBuf>,

    /// How the report is printed [default: text]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Write the metrics of this pass to a file for the node exporter's textfile collector; the name must end in .prom
    #[arg(long, value_name = "FILE.prom", value_parser = metrics_file)]
    metrics_file: Option<PathBuf>,

    /// With --dry-run or `plan`: exit with 2 when changes are due
    #[arg(long)]
    exit_code: bool,
}

#[derive(Subcommand, Debug)]
enum RawCommand {
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
enum RawJournal {
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

impl RawCli {
    /// What clap's own rules cannot say.
    fn check(self) -> Result<Cli, clap::Error> {
        let wrong = |kind, message: &str| Err(RawCli::command().error(kind, message));
        let stray = self.once.then_some("--once").or(self.dry_run.then_some("--dry-run")).or(self.pass.given());
        let mode = match (self.command, stray) {
            (Some(_), Some(option)) => {
                return wrong(ErrorKind::ArgumentConflict, &format!("{option} cannot stand before a command"));
            }
            (Some(RawCommand::Plan(pass)), None) => Mode::Once(pass.once(true)?),
            (Some(RawCommand::Explain { login }), None) => Mode::Explain { login },
            (Some(RawCommand::Hold { login }), None) => Mode::Operate(Request::Hold { login }),
            (Some(RawCommand::Release { login: Some(login), .. }), None) => Mode::Operate(Request::Release { login }),
            (Some(RawCommand::Release { login: None, pass }), None) => {
                Mode::Operate(Request::ReleaseAll { pass: pass.unwrap_or_default() })
            }
            (Some(RawCommand::Revoke { login }), None) => Mode::Operate(Request::Revoke { login }),
            (Some(RawCommand::Resend { login }), None) => Mode::Operate(Request::Resend { login }),
            (Some(RawCommand::Approve { plan }), None) => Mode::Operate(Request::Approve { plan }),
            (Some(RawCommand::Undo { pass, dry_run: false }), None) => Mode::Operate(Request::Undo { pass }),
            (Some(RawCommand::Undo { pass, dry_run: true }), None) => Mode::Preview(Request::Undo { pass }),
            (Some(RawCommand::Journal(RawJournal::Retry { issuance })), None) => Mode::Operate(Request::Retry { issuance }),
            (Some(RawCommand::Journal(RawJournal::TakeBack { issuance, dry_run: false })), None) => {
                Mode::Operate(Request::TakeBack { issuance })
            }
            (Some(RawCommand::Journal(RawJournal::TakeBack { issuance, dry_run: true })), None) => {
                Mode::Preview(Request::TakeBack { issuance })
            }
            (Some(RawCommand::Doctor { cac_pair: true, .. }), None) => Mode::CacPair,
            (Some(RawCommand::Doctor { mail_test, .. }), None) => Mode::Doctor { mail_test },
            (Some(RawCommand::CheckConfig), None) => Mode::CheckConfig,
            (Some(RawCommand::Seal), None) => Mode::Seal,
            (Some(RawCommand::Sandbox { dir, users }), None) => Mode::Sandbox { dir, users },
            (Some(RawCommand::Journal(RawJournal::List)), None) => Mode::JournalList,
            (Some(RawCommand::Journal(RawJournal::Adopt { name, dry_run })), None) => Mode::JournalAdopt { name, dry_run },
            (Some(RawCommand::Status), None) => Mode::Status,
            (Some(RawCommand::Completions { shell }), None) => Mode::Completions(shell),
            (None, None) => Mode::Daemon,
            (None, Some(option)) if !self.once => {
                return wrong(ErrorKind::MissingRequiredArgument, &format!("{option} needs --once"));
            }
            (None, Some(_)) => Mode::Once(self.pass.once(self.dry_run)?),
        };
        if self.database.is_some() {
            match mode {
                Mode::Daemon => {
                    return wrong(
                        ErrorKind::MissingRequiredArgument,
                        "--database needs --once or a command: the daemon serves all databases",
                    );
                }
                Mode::JournalAdopt { .. } => {
                    return wrong(ErrorKind::ArgumentConflict, "`journal adopt` names its database itself, without --database");
                }
                Mode::CheckConfig | Mode::Seal | Mode::Sandbox { .. } | Mode::Completions(_) => {
                    return wrong(ErrorKind::ArgumentConflict, "--database has no meaning for this command");
                }
                _ => {}
            }
        }
        Ok(Cli { config: self.config, database: self.database, mode })
    }
}

impl PassArgs {
    /// The first option that was given.
    fn given(&self) -> Option<&'static str> {
        [
            ("--user", self.user.is_some()),
            ("--wait", self.wait.is_some()),
            ("--max-users", self.max_users.is_some()),
            ("--max-replace", self.max_replace.is_some()),
            ("--report", self.report.is_some()),
            ("--format", self.format.is_some()),
            ("--metrics-file", self.metrics_file.is_some()),
            ("--exit-code", self.exit_code),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }

    fn once(self, dry_run: bool) -> Result<Once, clap::Error> {
        let needs = |message| Err(RawCli::command().error(ErrorKind::MissingRequiredArgument, message));
        let PassArgs { user, wait, max_users, max_replace, report, format, metrics_file, exit_code } = self;
        if wait.is_some() && user.is_none() {
            return needs("--wait needs --user");
        }
        if exit_code && !dry_run {
            return needs("--exit-code needs --dry-run: a pass that made the changes has none left");
        }
        let format = format.unwrap_or_default();
        Ok(Once { dry_run, user, wait, max_users, max_replace, report, format, metrics_file, exit_code })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = unit_ms.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    ms.map(Duration::from_millis).ok_or_else(|| "a whole number and a unit is wanted, such as 500ms, 30s, 5m, 2h or 1d".to_owned())
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text).map_err(|why| format!("the mail address {why}"))
}

pub(crate) fn max_users(text: &str) -> Result<Limit<u64>, String> {
    match text {
        "unlimited" => Ok(Limit::Unlimited),
        _ => text.parse().map(Limit::At).map_err(|_| "a whole number or `unlimited` is wanted".to_owned()),
    }
}

pub(crate) fn max_replace(text: &str) -> Result<Limit<Share>, String> {
    let percent = |digits: &str| Share::percent(digits.trim_end().parse().ok()?);
    match (text, text.strip_suffix('%').and_then(percent)) {
        ("unlimited", _) => Ok(Limit::Unlimited),
        (_, Some(share)) => Ok(Limit::At(share)),
        _ => Err("a share from 0% to 100% with its percent sign, or `unlimited`, is wanted".to_owned()),
    }
}

fn report_file(text: &str) -> Result<PathBuf, String> {
    match extension(text).as_str() {
        "json" => Ok(PathBuf::from(text)),
        "html" | "csv" => Err("this form is not yet supported: use .json".to_owned()),
        _ => Err("the name must end in .json".to_owned()),
    }
}

/// The textfile collector reads `*.prom` and nothing else.
fn metrics_file(text: &str) -> Result<PathBuf, String> {
    if extension(text) == "prom" { Ok(PathBuf::from(text)) } else { Err("the name must end in .prom".to_owned()) }
}

fn extension(text: &str) -> String {
    PathBuf::from(text).extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}
