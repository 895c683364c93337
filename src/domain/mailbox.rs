//! A mail address that can be delivered to, by a rule narrow enough that it can never smuggle a header or a second
//! recipient into a mail (product rules R4 and R31).

use std::fmt;

/// A checked address: dot-atom local part, one `@`, a domain with a dot. `Debug` and `Display` mask it, because logs and
/// reports are read by more people than mail is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mailbox(String);

/// Why a text is no deliverable address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAMailbox {
    #[error("is empty")]
    Empty,
    #[error("has no @, or more than one")]
    At,
    #[error("has a local part that is not a dot-atom (letters, digits, !#$%&'*+-/=?^_`{{|}}~ and single dots between them)")]
    LocalPart,
    #[error("has a domain that is not a host name with a dot")]
    Domain,
    #[error("is too long (at most 64 octets before the @, 254 in all)")]
    TooLong,
    #[error("has characters outside ASCII, which is not yet supported")]
    NotAscii,
}

impl Mailbox {
    /// # Errors
    /// What is wrong with `text`, never repeating it.
    pub fn parse(text: &str) -> Result<Mailbox, NotAMailbox> {
        if text.is_empty() {
            return Err(NotAMailbox::Empty);
        }
        let (local, domain) = text.split_once('@').ok_or(NotAMailbox::At)?;
        if domain.contains('@') {
            return Err(NotAMailbox::At);
        }
        if !text.is_ascii() {
            return Err(NotAMailbox::NotAscii);
        }
        if local.len() > 64 || text.len() > 254 {
            return Err(NotAMailbox::TooLong);
        }
        let atom = |a: &str| !a.is_empty() && a.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b));
        if !local.split('.').all(atom) {
            return Err(NotAMailbox::LocalPart);
        }
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !domain.contains('.') || !domain.split('.').all(label) {
            return Err(NotAMailbox::Domain);
        }
        Ok(Mailbox(text.to_owned()))
    }

    /// The address in full: for the envelope and the To header only.
    pub fn address(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Mailbox {
    /// `visitor@example.org` as `v…@example.org`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (local, domain) = self.0.split_once('@').unwrap_or((&self.0, ""));
        write!(f, "{}…@{domain}", local.chars().next().unwrap_or('?'))
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailbox({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_addresses_pass() {
        for good in ["a@b.cz", "first.last+tag@sub.example.com", "o'neil@example.org", "x@1.example"] {
            assert_eq!(Mailbox::parse(good).map(|m| m.address().to_owned()).as_deref(), Ok(good));
        }
    }

    #[test]
    fn whatever_could_mean_something_else_is_refused() {
        for bad in [
            "",
            "a",
            "a@",
            "@b.cz",
            "a@b",
            "a@b@c.cz",
            "a b@c.cz",
            "a@b.cz\r\nBcc: x@y.cz",
            "\"a b\"@c.cz",
            "a,b@c.cz",
            "a@b.cz,c@d.cz",
            "a(comment)@b.cz",
            "<a@b.cz>",
            "a@b..cz",
            ".a@b.cz",
            "a.@b.cz",
            "a..b@c.cz",
            "a@[127.0.0.1]",
            "a@-b.cz",
            "a@b.cz ",
            "a\0@b.cz",
            "ž@b.cz",
            "a@b.cz.",
        ] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Mailbox::parse(&format!("{}@b.cz", "a".repeat(65))), Err(NotAMailbox::TooLong));
    }

    #[test]
    fn printing_masks_the_person() {
        let m = Mailbox::parse("visitor@example.org").unwrap();
        assert_eq!(format!("{m} {m:?}"), "v…@example.org Mailbox(v…@example.org)");
    }
}
