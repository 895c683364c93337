//! Text that others wrote, made safe to show. A login, a name or a server's answer may hold line breaks, terminal
//! commands or marks that turn the reading direction: shown as they are, they could forge a log line or hide half of it.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// `text` with everything that a terminal or a reader would not show as itself written as an escape: `\n`, `\u{1b}`.
///
/// A backslash stays as it is, because `DOMAIN\user` is an everyday login.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let _ = Printable(&mut out).write_str(text);
    Cow::Owned(out)
}

/// Passes text on in its [`printable`] form.
pub struct Printable<W>(pub W);

impl<W: Write> Write for Printable<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| is_unprintable(*c)) {
            self.0.write_str(&rest[..at])?;
            write!(self.0, "{}", c.escape_default())?;
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Control characters, line and paragraph separators, and the marks that change the reading direction.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyday_text_is_left_alone() {
        for text in ["novak", r"DOMAIN\user", "Žofie Nováková", "王小明", "a b", ""] {
            assert!(matches!(printable(text), Cow::Borrowed(t) if t == text));
        }
    }

    #[test]
    fn what_could_forge_a_line_is_spelled_out() {
        assert_eq!(printable("a\r\nb\tc"), r"a\r\nb\tc");
        assert_eq!(printable("\u{1b}[2Jx\u{9b}1m"), r"\u{1b}[2Jx\u{9b}1m");
        assert_eq!(printable("x\u{202e}nimda\u{2028}"), r"x\u{202e}nimda\u{2028}");
        assert_eq!(printable("\0\u{7f}"), r"\u{0}\u{7f}");
    }
}
