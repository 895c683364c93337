//! Makes the bytes of a mail. Pure: the date is an argument, the boundary of nothing is random.
//!
//! Header injection is impossible by construction: an address is a [`Mailbox`] (dot-atoms only), every other text goes
//! through [`phrase`] or [`unstructured`], which leave only printable ASCII behind.

use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

use lettre::message::header::{ContentTransferEncoding, ContentType, Date, Header, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Body, MultiPart, MultiPartKind, SinglePart};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::config::Sender;
use crate::domain::{IssuanceId, Mailbox, Secret, Timestamp};

/// One mail, rendered. All mails of one issuance carry the same recipient and Message-ID (invariant I3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    pub id: IssuanceId,
    pub recipient: Mailbox,
    /// Without angle brackets: `local@domain`.
    pub message_id: String,
    pub subject: String,
    /// The whole text; any kind of line ends. Holds credentials.
    pub text: Secret,
    /// The same as HTML, for programs that show it.
    pub html: Option<Secret>,
    /// From then on it is not begun, but handed back: what it tells must be looked up again. `None`: it does not grow stale.
    pub not_after: Option<Instant>,
}

impl Outgoing {
    pub fn is_stale(&self, now: Instant) -> bool {
        self.not_after.is_some_and(|at| at <= now)
    }
}

/// The message as it goes over the wire: lines ended by CRLF and at most 998 octets long, and ASCII only, but for the To
/// header of a recipient with SMTPUTF8.
///
/// The body is the text with its trailing blank lines reduced to one line end; with HTML, both as alternatives.
///
/// `redirect_to` is who gets it instead of its recipient, in a rehearsal. Whom it was meant for then stands in it masked:
/// who watches a rehearsal must recognise the user, and need not get a list of addresses with their credentials.
pub fn compose(from: &Sender, outgoing: &Outgoing, redirect_to: Option<&Mailbox>, date: Timestamp) -> Zeroizing<Vec<u8>> {
    let sender = match from.name.as_deref().map(phrase).filter(|name| !name.is_empty()) {
        Some(name) => format!("{name} <{}>", from.address.address()),
        None => from.address.address().to_owned(),
    };
    // The two builders of lettre have no common trait.
    macro_rules! with_headers {
        ($builder:expr) => {{
            let builder = $builder
                .header(date_header(date))
                .header(Ready::<FROM>(sender))
                .header(Ready::<TO>(redirect_to.unwrap_or(&outgoing.recipient).address().to_owned()))
                .header(Ready::<SUBJECT>(unstructured(&outgoing.subject)))
                .header(Ready::<MESSAGE_ID>(message_id(&outgoing.message_id)))
                .header(Ready::<AUTO_SUBMITTED>("auto-generated".to_owned()));
            let builder = match redirect_to {
                Some(_) => builder.header(Ready::<ORIGINAL_TO>(unstructured(&outgoing.recipient.to_string()))),
                None => builder,
            };
            builder.header(MIME_VERSION_1_0)
        }};
    }
    let text = outgoing.text.expose();
    Zeroizing::new(match &outgoing.html {
        None => with_headers!(SinglePart::builder()).content_type(ContentType::TEXT_PLAIN).body(body(text)).formatted(),
        Some(html) => {
            let boundary = boundary(&outgoing.message_id, [text, html.expose()]);
            let part = |content_type, text| SinglePart::builder().header(content_type).body(body(text));
            with_headers!(MultiPart::builder())
                .kind(MultiPartKind::Alternative)
                .boundary(boundary)
                .singlepart(part(ContentType::TEXT_PLAIN, text))
                .singlepart(part(ContentType::TEXT_HTML, html.expose()))
                .formatted()
        }
    })
}

/// What stands between the parts and in none of them: the encodings cannot express `=_`, plain text is searched. Of one
/// mail always the same, so that a mail repeated is the same mail.
fn boundary(message_id: &str, parts: [&str; 2]) -> String {
    let mut attempt = 0u64;
    loop {
        let digest = Sha256::new().chain_update(message_id).chain_update(attempt.to_be_bytes()).finalize();
        let hex: String = digest.iter().take(12).map(|b| format!("{b:02x}")).collect();
        let boundary = format!("=_{hex}");
        if !parts.iter().any(|part| part.contains(&boundary)) {
            return boundary;
        }
        attempt += 1;
    }
}

/// Readable as it is where it can be, so that a support person can read an .eml file; else quoted-printable while most
/// of it stays readable, else Base64.
fn body(text: &str) -> Body {
    let mut lines = text.replace("\r\n", "\n").replace('\r', "\n");
    lines.truncate(lines.trim_end_matches('\n').len());
    let lines = lines.replace('\n', "\r\n");
    if lines.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t' | b'\r' | b'\n')) {
        return Body::new(lines);
    }
    let escaped = lines.bytes().filter(|b| !b.is_ascii()).count();
    let encoding = if escaped * 2 > lines.len() { ContentTransferEncoding::Base64 } else { ContentTransferEncoding::QuotedPrintable };
    Body::new_with_encoding(lines, encoding).unwrap_or_else(|text| {
        // Neither encoding is ever refused; should that change, binary data always becomes Base64.
        Body::new(text)
    })
}

fn date_header(date: Timestamp) -> Date {
    /// The last second of the year 9999, the last that the header can express.
    const LAST: u64 = 253_402_300_799;
    let seconds = u64::try_from(date.0).unwrap_or(0).min(LAST);
    Date::new(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// `<id>`, whatever may not stand there replaced: what mail programs compare must not depend on quoting.
fn message_id(id: &str) -> String {
    let id = id.trim().trim_start_matches('<').trim_end_matches('>');
    let clean = id.bytes().take(250).map(|b| match b {
        b'!'..=b'~' if !b"<>()[]\\,;:\"".contains(&b) => char::from(b),
        _ => '_',
    });
    format!("<{}>", clean.collect::<String>())
}

/// Text for a header without grammar (Subject).
fn unstructured(text: &str) -> String {
    let text = one_line(text);
    if harmless(&text) { text } else { encoded_words(&text) }
}

/// Text for a place where a phrase is expected (the sender's display name): quoted, or encoded words.
fn phrase(text: &str) -> String {
    let text = one_line(text);
    if text.is_empty() {
        text
    } else if harmless(&text) && !text.contains(['"', '\\']) {
        format!("\"{text}\"")
    } else {
        encoded_words(&text)
    }
}

/// Controls, line ends among them, become blanks; runs of blanks become one.
fn one_line(text: &str) -> String {
    let blanks = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '\u{2028}' | '\u{2029}');
    text.split(blanks).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Whether a header may carry the text as it is: printable ASCII, short enough for one line, and nothing that a reader
/// would take for an encoded word.
fn harmless(text: &str) -> bool {
    text.len() <= 200 && text.bytes().all(|b| matches!(b, b' '..=b'~')) && !text.contains("=?")
}

/// RFC 2047, Q encoding, at most 75 characters a word, cut between characters, one word a line.
fn encoded_words(text: &str) -> String {
    const OPEN: &str = "=?utf-8?q?";
    let mut out = String::from(OPEN);
    let mut room = 75 - OPEN.len() - 2;
    for c in text.chars() {
        let mut piece = String::new();
        match c {
            ' ' => piece.push('_'),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '!' | '*' | '+' | '-' | '/' => piece.push(c),
            _ => c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| {
                // Writing into a String cannot fail.
                let _ = write!(piece, "={b:02X}");
            }),
        }
        if piece.len() > room {
            out.push_str("?=\r\n ");
            out.push_str(OPEN);
            room = 75 - OPEN.len() - 2;
        }
        room -= piece.len();
        out.push_str(&piece);
    }
    out.push_str("?=");
    out
}

const FROM: u8 = 0;
const TO: u8 = 1;
const SUBJECT: u8 = 2;
const MESSAGE_ID: u8 = 3;
const AUTO_SUBMITTED: u8 = 4;
const ORIGINAL_TO: u8 = 5;
const NAMES: [&str; 6] = ["From", "To", "Subject", "Message-ID", "Auto-Submitted", "X-Credkeeper-Original-To"];

/// A header whose value this module has encoded. Lettre's own `From` and `To` parse addresses by other rules than ours
/// and its `Subject` leaves long words on one endless line.
#[derive(Clone)]
struct Ready<const NAME: u8>(String);

impl<const NAME: u8> Header for Ready<NAME> {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str(NAMES[NAME as usize])
    }

    fn parse(text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Ready(text.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::dangerous_new_pre_encoded(Self::name(), self.0.clone(), self.0.clone())
    }
}

#[cfg(test)]
mod tests;
