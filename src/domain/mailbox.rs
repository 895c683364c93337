//! A mail address that can be delivered to, by a rule narrow enough that it can never smuggle a header or a second
//! recipient into a mail (product rules R4 and R31).

use std::fmt;
use std::sync::LazyLock;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use regex::Regex;

/// A checked address: dot-atom local part, one `@`, a domain with a dot. `Debug` and `Display` mask it, because logs and
/// reports are read by more people than mail is.
///
/// The local part may have letters of every script, which only servers with SMTPUTF8 take
/// ([`needs_smtputf8`](Mailbox::needs_smtputf8)). The domain is kept as the name server knows it, in ASCII (`xn--…`): so
/// a domain with letters of other scripts needs nothing of the mail server.
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
        if local.len() > 64 || text.len() > 254 {
            return Err(NotAMailbox::TooLong);
        }
        if !local.split('.').all(is_atom) {
            return Err(NotAMailbox::LocalPart);
        }
        let address = match domain.is_ascii() {
            true => text.to_owned(),
            false => format!("{local}@{}", in_ascii(domain).ok_or(NotAMailbox::Domain)?),
        };
        let domain = &address[local.len() + 1..];
        if !domain.contains('.') || !domain.split('.').all(is_label) {
            return Err(NotAMailbox::Domain);
        }
        if address.len() > 254 {
            return Err(NotAMailbox::TooLong);
        }
        Ok(Mailbox(address))
    }

    /// Whether only a server with SMTPUTF8 (RFC 6531) takes mail for it.
    pub fn needs_smtputf8(&self) -> bool {
        !self.0.is_ascii()
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

/// Letters, marks and digits of every script: no symbols, no blanks, nothing that has no shape of its own and could make
/// two addresses look alike.
static LETTERS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A[[\p{L}\p{M}\p{N}]--\p{Default_Ignorable_Code_Point}]+\z").ok());

fn is_atom(atom: &str) -> bool {
    let ascii = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    !atom.is_empty() && atom.bytes().all(|b| ascii(b) || !b.is_ascii()) && (atom.is_ascii() || are_letters(atom))
}

/// Whether all that is not ASCII is a letter, a mark or a digit.
fn are_letters(text: &str) -> bool {
    let others: String = text.chars().filter(|c| !c.is_ascii()).collect();
    LETTERS.as_ref().is_some_and(|letters| letters.is_match(&others))
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// The domain as the name server knows it (UTS 46). Letters only: other signs, such as a full-width dot, would become
/// something else than they look like.
fn in_ascii(domain: &str) -> Option<String> {
    if !are_letters(domain) {
        return None;
    }
    let ascii = Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Check, DnsLength::Verify);
    ascii.ok().map(|ascii| ascii.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_addresses_pass() {
        for good in ["a@b.cz", "first.last+tag@sub.example.com", "o'neil@example.org", "x@1.example"] {
            let mailbox = Mailbox::parse(good);
            assert!(mailbox.as_ref().is_ok_and(|mailbox| !mailbox.needs_smtputf8()));
            assert_eq!(mailbox.map(|m| m.address().to_owned()).as_deref(), Ok(good));
        }
    }

    #[test]
    fn letters_of_every_script_may_stand_before_the_at() {
        for good in ["žofie.nováková@example.org", "用户@example.org", "उपयोगकर्ता+1@example.org", "z\u{30c}@b.cz"]
        {
            let mailbox = Mailbox::parse(good).unwrap();
            assert_eq!((mailbox.address(), mailbox.needs_smtputf8()), (good, true));
            assert_eq!(Mailbox::parse(mailbox.address()), Ok(mailbox));
        }
        assert_eq!(Mailbox::parse("žofie@b.cz").map(|m| m.to_string()).as_deref(), Ok("ž…@b.cz"));
    }

    #[test]
    fn a_domain_is_kept_as_the_name_server_knows_it() {
        for (written, kept) in [
            ("eva@žluťoučký.example", "eva@xn--luouk-uva4it5a4g.example"),
            ("eva@BÜCHER.example", "eva@xn--bcher-kva.example"),
            ("eva@例え.テスト", "eva@xn--r8jz45g.xn--zckzah"),
            ("eva@xn--bcher-kva.example", "eva@xn--bcher-kva.example"),
        ] {
            let mailbox = Mailbox::parse(written).unwrap();
            assert_eq!((mailbox.address(), mailbox.needs_smtputf8()), (kept, false));
        }
        assert_eq!(Mailbox::parse("žofie@bücher.example").map(|m| m.0).as_deref(), Ok("žofie@xn--bcher-kva.example"));
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
            "a@b.cz.",
            // What looks like nothing, like a blank, like another sign, or turns the reading direction.
            "a\u{200b}b@c.cz",
            "a\u{a0}b@c.cz",
            "a\u{2028}b@c.cz",
            "a\u{85}b@c.cz",
            "a\u{202e}b@c.cz",
            "a\u{3164}b@c.cz",
            "a\u{ff20}b@c.cz",
            "a＠b.cz",
            "“a”@b.cz",
            "a@b。cz",
            "a@b．cz",
            "a@ž.b\u{200d}.cz",
            "a@-ž.cz",
            "a@xn--ž.cz",
            "a@\u{301}ž.cz",
            "a@ž",
            "a@ž@b.cz",
        ] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Mailbox::parse(&format!("{}@b.cz", "a".repeat(65))), Err(NotAMailbox::TooLong));
        assert_eq!(Mailbox::parse(&format!("{}@b.cz", "ž".repeat(33))), Err(NotAMailbox::TooLong));
    }

    #[test]
    fn printing_masks_the_person() {
        let m = Mailbox::parse("visitor@example.org").unwrap();
        assert_eq!(format!("{m} {m:?}"), "v…@example.org Mailbox(v…@example.org)");
    }
}
