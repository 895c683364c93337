//! The exit code.

use std::process::ExitCode;

use crate::report::Report;

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
