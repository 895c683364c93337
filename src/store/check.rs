//! What an inspection says.

/// One line of `doctor` and of the start-up inspection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    pub name: &'static str,
    pub verdict: CheckVerdict,
    /// What was found, one line.
    pub found: String,
    /// What to do about it; empty when ok.
    pub advice: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum CheckVerdict {
    Ok,
    Warning,
    Failed,
}

/// The check that the database takes changes.
pub(super) const WRITABLE: &str = "writable";
/// The check that the role may do what the policies need.
pub(super) const PRIVILEGES: &str = "privileges";
/// The checks of the tables that tie users to cost centers and to roles.
pub(super) const CENTER_LINKS: &str = "cost center links";
pub(super) const ROLE_LINKS: &str = "role links";

impl Check {
    /// Whether no pass can begin. That the database takes no changes is left to each pass (tripwire `read_only`): it may be over
    /// soon, after a failover.
    pub fn forbids_pass(&self) -> bool {
        self.verdict == CheckVerdict::Failed && self.name != WRITABLE
    }

    /// Whether no preview can begin: that needs no right to write. Where a right to read is missing, the reading says so.
    pub fn forbids_preview(&self) -> bool {
        self.forbids_pass() && self.name != PRIVILEGES
    }

    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, verdict: CheckVerdict::Ok, found: found.into(), advice: String::new() }
    }

    pub(crate) fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, verdict: CheckVerdict::Warning, found: found.into(), advice: advice.into() }
    }

    pub(crate) fn failed(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, verdict: CheckVerdict::Failed, found: found.into(), advice: advice.into() }
    }
}
