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

/// JSON as a terminal can be shown it: `json` is the text of a value, in which everything unprintable but the line breaks
/// of its layout stands inside of strings, and becomes `\u001b` there. The value stays the same.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let unprintable = |c| c != '\n' && is_unprintable(c);
    if !json.contains(unprintable) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            // All of them are in the basic plane: four digits do.
            c if unprintable(c) => _ = write!(out, "\\u{:04x}", u32::from(c)),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
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

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({"login": "a\u{9b}1m\u{202e}b\n\u{7f}ž"});
        let text = format!("{value:#}");
        let shown = printable_json(&text);
        assert!(!shown.chars().any(|c| c != '\n' && is_unprintable(c)), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(value));
    }
}
