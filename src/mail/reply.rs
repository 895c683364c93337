//! Reads SMTP replies. Bounded in every direction, since the other side may be anything that listens on a port.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use super::delivery::Enhanced;

/// RFC 5321 allows 512 octets; real servers exceed it.
const LINE_BYTES: u64 = 4096;
const LINES: usize = 100;

/// A reply, of one line or several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The lines without code and separator.
    pub lines: Vec<String>,
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum ReplyError {
    /// Closed or broken.
    Lost(io::Error),
    /// Something came, but not a reply.
    Garbled,
}

impl Reply {
    pub(crate) async fn read<R: AsyncBufRead + Unpin>(reader: &mut R) -> Result<Reply, ReplyError> {
        let mut code = None;
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            reader.take(LINE_BYTES).read_until(b'\n', &mut line).await.map_err(ReplyError::Lost)?;
            if line.pop() != Some(b'\n') {
                // Nothing at all, or a line cut off: the other side has gone, or never ends its line.
                let endless = line.len() as u64 >= LINE_BYTES - 1;
                return Err(if endless { ReplyError::Garbled } else { ReplyError::Lost(io::ErrorKind::UnexpectedEof.into()) });
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let (this, last, text) = split(&line).ok_or(ReplyError::Garbled)?;
            if *code.get_or_insert(this) != this || lines.len() == LINES {
                return Err(ReplyError::Garbled);
            }
            lines.push(String::from_utf8_lossy(text).into_owned());
            if last {
                return Ok(Reply { code: this, lines });
            }
        }
    }

    /// The enhanced status code that the first line begins with, if its class agrees with the code (RFC 2034).
    pub(crate) fn enhanced(&self) -> Option<Enhanced> {
        let word = self.lines.first()?.split_ascii_whitespace().next()?;
        let mut numbers = word.split('.');
        let mut number = || numbers.next().filter(|n| n.len() <= 3 && n.bytes().all(|b| b.is_ascii_digit()))?.parse::<u16>().ok();
        let (class, subject, detail) = (number()?, number()?, number()?);
        if numbers.next().is_some() || class != self.code / 100 {
            return None;
        }
        Some(Enhanced { class: class as u8, subject, detail })
    }

    /// The first line for logs and the journal: no addresses, no controls, at most 100 characters.
    pub(crate) fn masked(&self) -> String {
        let line = self.lines.first().map(String::as_str).unwrap_or_default();
        let words = line.split_whitespace().map(|word| if word.contains('@') { "…" } else { word });
        let joined = words.collect::<Vec<_>>().join(" ");
        joined.chars().filter(|c| !c.is_control()).take(100).collect()
    }
}

/// A line as code, whether it is the last one, and text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Reply, ReplyError> {
        let mut reader = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(Reply::read(&mut reader))
    }

    fn reply(text: &str) -> Reply {
        read(text.as_bytes()).unwrap()
    }

    #[test]
    fn replies_of_one_line_and_of_several_are_read() {
        assert_eq!(reply("250 ok\r\n"), Reply { code: 250, lines: vec!["ok".into()] });
        assert_eq!(reply("250\n").lines, [""]);
        assert_eq!(reply("250-a\r\n250-b\r\n250 c\r\n").lines, ["a", "b", "c"]);
        assert_eq!(reply("550 jm\u{e9}no\r\n").lines, ["jm\u{e9}no"]);
        assert_eq!(read(b"550 jm\xe9no\r\n").unwrap().lines, ["jm\u{fffd}no"]);
    }

    #[test]
    fn what_is_no_reply_is_garbled_and_what_ends_early_is_lost() {
        for text in ["HTTP/1.1 400 Bad Request\r\n", "25 ok\r\n", "150 ok\r\n", "600 ok\r\n", "250_ok\r\n", "250-a\r\n251 b\r\n", "\r\n"] {
            assert!(matches!(read(text.as_bytes()), Err(ReplyError::Garbled)), "{text:?}");
        }
        for text in ["", "250 ok", "250-a\r\n", "250-a\r\n250"] {
            assert!(matches!(read(text.as_bytes()), Err(ReplyError::Lost(_))), "{text:?}");
        }
        assert!(matches!(read(&vec![b'2'; 5000]), Err(ReplyError::Garbled)));
        assert!(matches!(read("250-a\r\n".repeat(200).as_bytes()), Err(ReplyError::Garbled)));
    }

    #[test]
    fn an_enhanced_code_is_believed_only_if_it_agrees_with_the_code() {
        let enhanced = |text: &str| reply(text).enhanced().map(|e| (e.class, e.subject, e.detail));
        assert_eq!(enhanced("550 5.1.1 no such user\r\n"), Some((5, 1, 1)));
        assert_eq!(enhanced("550-5.7.1 a\r\n550 5.1.1 b\r\n"), Some((5, 7, 1)));
        for text in
            ["550 4.1.1 x\r\n", "550 5.1 x\r\n", "550 5.1.1.1 x\r\n", "550 5.1.1000 x\r\n", "550 5.+1.1\r\n", "550 user\r\n", "550\r\n"]
        {
            assert_eq!(enhanced(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_kept_of_a_reply_names_no_address() {
        assert_eq!(reply("250 2.1.5 <jan.novak@example.com> ok id=7\u{7}\r\n").masked(), "2.1.5 … ok id=7");
        assert_eq!(reply(&format!("250 {}\r\n", "é".repeat(300))).masked().chars().count(), 100);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(reply) = read(&bytes) {
                prop_assert!((200..600).contains(&reply.code));
                reply.enhanced();
                reply.masked();
            }
        }
    }
}
