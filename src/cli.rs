//! The command line: what may be asked for, and what the exit code says.
//!
//! Options of the loop stand at the top level, so that `credkeeper --once` works; everything else is a subcommand. What
//! leaves this room has been checked: [`Mode`] cannot express `--user` without `--once`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use clap_complete::Shell;

use crate::domain::{Limit, Mailbox, Share};

mod args;
mod exit;
mod request;
#[cfg(test)]
mod tests;
mod values;

pub use exit::ExitStatus;
pub use request::Request;
pub(crate) use values::{max_replace, max_users};

use args::{PassArgs, RawCli, RawCommand, RawJournal};

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
