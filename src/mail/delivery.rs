//! The verdict on one mail, and who is to blame for a refusal (product rule R32).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::domain::printable;
use crate::tls::{Explanation, TlsError};

use super::token::TokenError;

/// What became of one mail.
#[derive(Debug)]
pub enum Delivery {
    /// The server took responsibility for it.
    Accepted {
        code: u16,
        /// The first line of the server's answer without addresses: usually its queue number, which support asks for.
        text: String,
    },
    /// The server will never take mail for this recipient: counts against the user.
    RecipientRejected(Refusal),
    /// The recipient's address has letters outside of ASCII, and the server does not take such (no SMTPUTF8): counts
    /// against the user, whom this server can never reach.
    AddressUnsupported,
    /// 4xx: the same mail may be taken later.
    Deferred(Refusal),
    /// Refused for a reason that is the site's (sender, policy, login, storage): says nothing about the user.
    SiteFault(Refusal),
    /// No answer after the message had been handed over: it may or may not have been sent. It is given again with the
    /// same Message-ID.
    Unknown,
    /// The mail did not get as far as a verdict; surely not sent.
    ConnectError(MailError),
    /// Not attempted: the courier is paused or shutting down. Counts as no attempt.
    NotTried,
}

impl Delivery {
    /// What a server answers to an address that it cannot take without SMTPUTF8 (RFC 6531, 3.5).
    pub const NOT_UTF8: u16 = 553;

    /// Closed set: metric label (`mails_total`) and log field. `NotTried` is not to be counted.
    pub fn outcome(&self) -> &'static str {
        match self {
            Delivery::Accepted { .. } => "accepted",
            Delivery::RecipientRejected(_) | Delivery::AddressUnsupported | Delivery::SiteFault(_) => "rejected",
            Delivery::Deferred(_) => "deferred",
            Delivery::Unknown => "unknown",
            Delivery::ConnectError(error) => error.outcome(),
            Delivery::NotTried => "not_tried",
        }
    }

    /// The server's reply code, for the journal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Delivery::Accepted { code, .. } => Some(*code),
            Delivery::RecipientRejected(refusal) | Delivery::Deferred(refusal) | Delivery::SiteFault(refusal) => Some(refusal.code),
            Delivery::AddressUnsupported => Some(Delivery::NOT_UTF8),
            Delivery::ConnectError(MailError::Refused(refusal) | MailError::NoTls(refusal) | MailError::Login(refusal)) => {
                Some(refusal.code)
            }
            Delivery::Unknown | Delivery::ConnectError(_) | Delivery::NotTried => None,
        }
    }

    /// Whether the connection broke while this mail was told of: the server, or something between, may do so for this mail alone.
    pub fn broke_amid(&self) -> bool {
        let Delivery::ConnectError(MailError::Timeout(stage) | MailError::Lost(stage, _) | MailError::Protocol(stage)) = self else {
            return false;
        };
        matches!(stage, Stage::MailFrom | Stage::Recipient | Stage::Data)
    }

    /// What this verdict tells about the mail server as a whole.
    pub(crate) fn health(&self) -> Health {
        match self {
            Delivery::Accepted { .. } | Delivery::RecipientRejected(_) | Delivery::AddressUnsupported => Health::Well,
            // 421 closes the channel for whoever comes, and what is refused at MAIL FROM is refused for everybody.
            Delivery::Deferred(refusal) if refusal.code == 421 || refusal.stage == Stage::MailFrom => Health::Ill,
            Delivery::Deferred(_) => Health::Well,
            Delivery::ConnectError(MailError::Login(refusal)) if refusal.code >= 500 => Health::LockedOut,
            Delivery::ConnectError(MailError::Token(error)) if matches!(**error, TokenError::Denied { .. }) => Health::LockedOut,
            Delivery::SiteFault(_) | Delivery::ConnectError(_) => Health::Ill,
            Delivery::Unknown | Delivery::NotTried => Health::Unsure,
        }
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Delivery::Accepted { code, text } => write!(f, "accepted ({code} {text})"),
            Delivery::RecipientRejected(refusal) => write!(f, "recipient rejected {refusal}"),
            Delivery::AddressUnsupported => {
                f.write_str("the mail server takes no addresses with letters outside of ASCII (it has no SMTPUTF8)")
            }
            Delivery::Deferred(refusal) => write!(f, "deferred {refusal}"),
            Delivery::SiteFault(refusal) => write!(f, "refused for the site {refusal}"),
            Delivery::Unknown => f.write_str("no answer after the message was handed over"),
            Delivery::ConnectError(error) => error.fmt(f),
            Delivery::NotTried => f.write_str("not tried"),
        }
    }
}

/// A negative reply. Holds no text of the server's: that may repeat the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    pub stage: Stage,
    /// 400 to 599.
    pub code: u16,
    pub enhanced: Option<Enhanced>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} ", self.code)?;
        if let Some(Enhanced { class, subject, detail }) = self.enhanced {
            write!(f, "{class}.{subject}.{detail} ")?;
        }
        write!(f, "at {})", self.stage.as_str())
    }
}

/// An enhanced status code as in `550 5.1.1` (RFC 3463).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Enhanced {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

/// How far a mail had come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    Greeting,
    Hello,
    StartTls,
    Handshake,
    Login,
    MailFrom,
    Recipient,
    Data,
    /// The message itself, up to the answer to its final dot.
    Message,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Greeting => "greeting",
            Stage::Hello => "EHLO",
            Stage::StartTls => "STARTTLS",
            Stage::Handshake => "the TLS handshake",
            Stage::Login => "AUTH",
            Stage::MailFrom => "MAIL FROM",
            Stage::Recipient => "RCPT TO",
            Stage::Data => "DATA",
            Stage::Message => "the message",
        }
    }
}

/// Why a mail got no verdict.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("the mail server's name has no address")]
    Resolve(#[source] io::Error),
    #[error("the mail server cannot be reached")]
    Connect(#[source] io::Error),
    #[error("the mail server turned the connection away {0}")]
    Refused(Refusal),
    #[error("the mail server did not answer in time at {}", .0.as_str())]
    Timeout(Stage),
    #[error("the mail server closed the connection at {}", .0.as_str())]
    Lost(Stage, #[source] io::Error),
    #[error("the mail server answered what is not SMTP at {}", .0.as_str())]
    Protocol(Stage),
    #[error("TLS to the mail server cannot be prepared")]
    TlsFiles(#[source] TlsError),
    #[error("{}; {}", .0.what, .0.remedy)]
    Handshake(Explanation),
    #[error(
        "the mail server offers no encryption (no STARTTLS), so it was told nothing; it may have none, or something between takes the offer away"
    )]
    TlsNotOffered,
    #[error("the mail server refused to encrypt {0}, so it was told nothing")]
    NoTls(Refusal),
    #[error("something was said unencrypted after the answer to STARTTLS; somebody may stand between, so the mail server was told nothing")]
    Injected,
    #[error("the mail server refused the login {0}")]
    Login(Refusal),
    #[error("the mail server offers no login by {wanted} ({})", offers(offered))]
    NoLogin { wanted: &'static str, offered: Vec<String> },
    /// Shared by all connections that need one.
    #[error(transparent)]
    Token(Arc<TokenError>),
    #[error("the mail cannot be written into {}", directory.display())]
    Write { directory: PathBuf, source: io::Error },
    #[error("no mail transport is configured")]
    NoTransport,
}

impl MailError {
    /// Closed set: metric label and log field.
    pub fn kind(&self) -> &'static str {
        match self {
            MailError::Resolve(_) => "resolve",
            MailError::Connect(_) => "connect",
            MailError::Refused(_) => "refused",
            MailError::Timeout(_) => "timeout",
            MailError::Lost(..) => "lost",
            MailError::Protocol(_) => "protocol",
            MailError::TlsFiles(error) => error.kind(),
            MailError::Handshake(_) => "tls_handshake",
            MailError::TlsNotOffered | MailError::NoTls(_) => "tls_not_offered",
            MailError::Injected => "tls_injected",
            MailError::Login(_) => "login",
            MailError::NoLogin { .. } => "login_not_offered",
            MailError::Token(error) => error.kind(),
            MailError::Write { .. } => "write",
            MailError::NoTransport => "no_transport",
        }
    }

    /// Closed set: metric label (`mails_total`). A broken connection while TLS begins is TLS's: that is where to look.
    fn outcome(&self) -> &'static str {
        match self {
            MailError::TlsFiles(_) | MailError::Handshake(_) | MailError::TlsNotOffered | MailError::NoTls(_) | MailError::Injected => {
                "tls_error"
            }
            MailError::Timeout(stage) | MailError::Lost(stage, _) | MailError::Protocol(stage)
                if matches!(stage, Stage::StartTls | Stage::Handshake) =>
            {
                "tls_error"
            }
            MailError::Login(_) | MailError::NoLogin { .. } => "auth_error",
            MailError::Token(error) => match error.as_ref() {
                TokenError::TlsFiles(_) | TokenError::Handshake(_) => "tls_error",
                TokenError::Denied { .. } => "auth_error",
                _ => "connect_error",
            },
            _ => "connect_error",
        }
    }

    /// Whether the same mail may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            MailError::Protocol(_) | MailError::NoTransport | MailError::TlsFiles(_) | MailError::Handshake(_) => false,
            MailError::TlsNotOffered | MailError::Injected | MailError::NoLogin { .. } => false,
            MailError::Login(refusal) | MailError::NoTls(refusal) => refusal.code < 500,
            MailError::Token(error) => error.is_transient(),
            MailError::Write { source, .. } => !matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
            _ => true,
        }
    }
}

/// The server's words, safe to show.
fn offers(offered: &[String]) -> String {
    match offered {
        [] => "it offers none".to_owned(),
        some => format!("it offers {}", printable(&some.join(", "))),
    }
}

/// What one verdict says about the mail server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Health {
    Well,
    Ill,
    /// The login is wrong.
    LockedOut,
    Unsure,
}

/// Who is to blame for a negative reply (product rule R32).
///
/// | code | at | enhanced | verdict |
/// |---|---|---|---|
/// | 4xx | greeting, EHLO | | connect error: no mail would pass |
/// | 4xx | elsewhere | | deferred |
/// | 5xx | greeting, EHLO, MAIL FROM | | site |
/// | 5xx | MAIL FROM with SMTPUTF8 | x.6.7 or a complaint about parameters | recipient: see `smtp` |
/// | 5xx | later | 5.2.x, 5.7.x | site |
/// | 5xx | later | 5.1.7, 5.1.8 (the *sender's* address; Postfix says so at RCPT) | site |
/// | 5xx | later | other 5.1.x | recipient |
/// | 500, 502, 503, 530 | RCPT | none | site: order of commands, or a login is wanted |
/// | 5xx | RCPT | other or none | recipient |
/// | 5xx | DATA, message | other or none | site |
pub(crate) fn blame(refusal: Refusal) -> Delivery {
    let Refusal { stage, code, enhanced } = refusal;
    let opening = matches!(stage, Stage::Greeting | Stage::Hello);
    if code < 500 {
        return if opening { Delivery::ConnectError(MailError::Refused(refusal)) } else { Delivery::Deferred(refusal) };
    }
    if opening || stage == Stage::MailFrom {
        return Delivery::SiteFault(refusal);
    }
    let users = match enhanced {
        Some(Enhanced { subject: 2 | 7, .. } | Enhanced { subject: 1, detail: 7 | 8, .. }) => false,
        Some(Enhanced { subject: 1, .. }) => true,
        Some(_) => stage == Stage::Recipient,
        None => stage == Stage::Recipient && !matches!(code, 500 | 502 | 503 | 530),
    };
    if users { Delivery::RecipientRejected(refusal) } else { Delivery::SiteFault(refusal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(stage: Stage, code: u16, enhanced: Option<(u16, u16)>) -> &'static str {
        let class = if code < 500 { 4 } else { 5 };
        let enhanced = enhanced.map(|(subject, detail)| Enhanced { class, subject, detail });
        match blame(Refusal { stage, code, enhanced }) {
            Delivery::RecipientRejected(_) => "recipient",
            Delivery::SiteFault(_) => "site",
            Delivery::Deferred(_) => "deferred",
            Delivery::ConnectError(_) => "connect",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_recipient_command_or_an_address_code_counts_against_the_user() {
        use Stage::*;
        for (what, stage, code, enhanced, wanted) in [
            ("an unknown user", Recipient, 550, Some((1, 1)), "recipient"),
            ("an unknown user, no enhanced code", Recipient, 550, None, "recipient"),
            ("directory-based blocking of Exchange Online", Recipient, 550, Some((4, 1)), "recipient"),
            ("an unknown user found out after the message", Message, 550, Some((1, 1)), "recipient"),
            ("relaying denied", Recipient, 554, Some((7, 1)), "site"),
            ("a full mailbox", Recipient, 552, Some((2, 2)), "site"),
            ("the sender's domain, refused late", Recipient, 550, Some((1, 8)), "site"),
            ("the sender, refused early with an address code", MailFrom, 553, Some((1, 8)), "site"),
            ("the sender", MailFrom, 550, None, "site"),
            ("a login wanted", Recipient, 530, None, "site"),
            ("commands out of order", Recipient, 503, None, "site"),
            ("a message too large", Message, 552, Some((3, 4)), "site"),
            ("a content filter", Message, 554, None, "site"),
            ("DATA refused", Data, 554, Some((5, 1)), "site"),
            ("a greeting that refuses", Greeting, 554, None, "site"),
            ("a busy greeting", Greeting, 421, None, "connect"),
            ("greylisting", Recipient, 451, Some((7, 1)), "deferred"),
            ("greylisting that uses an address code", Recipient, 450, Some((1, 1)), "deferred"),
            ("a full spool", MailFrom, 452, Some((3, 1)), "deferred"),
            ("a busy content filter", Message, 451, None, "deferred"),
        ] {
            assert_eq!(verdict(stage, code, enhanced), wanted, "{what}");
        }
    }

    #[test]
    fn a_refusal_prints_its_code_and_no_text() {
        let refusal = Refusal { stage: Stage::Recipient, code: 550, enhanced: Some(Enhanced { class: 5, subject: 1, detail: 1 }) };
        assert_eq!(Delivery::RecipientRejected(refusal).to_string(), "recipient rejected (550 5.1.1 at RCPT TO)");
    }
}
