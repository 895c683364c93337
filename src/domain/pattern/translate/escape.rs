//! Backslashes and sets: which characters one item of a pattern stands for.

use super::{Before, Fallible, Translator, error, later};

impl Translator {
    /// After a backslash outside a set.
    pub(super) fn escape(&mut self, start: usize) -> Fallible<()> {
        let Some(c) = self.peek() else { return Err(error(start + 1, "a backslash stands at the end")) };
        let anchor = match c {
            'A' => Some(r"\A"),
            'Z' | 'z' => Some(r"\z"),
            'b' if self.flags.ascii => Some(r"(?-u:\b)"),
            'B' if self.flags.ascii => Some(r"(?-u:\B)"),
            'b' => Some(r"\b"),
            'B' => Some(r"\B"),
            _ => None,
        };
        if let Some(anchor) = anchor {
            self.at += 1;
            self.level().before = Before::Nothing;
            self.out.push_str(anchor);
            return Ok(());
        }
        if c.is_ascii_digit() && !self.octal_ahead() {
            return Err(later(start + 1, "a back-reference, such as `\\1`,"));
        }
        match self.escaped(start)? {
            Escaped::Class(class) => {
                self.consume()?;
                self.out.push_str(class);
                Ok(())
            }
            Escaped::Char(c) => self.literal(c),
        }
    }

    /// Whether the digits ahead are a character by its octal number: they begin with 0, or are three octal digits.
    fn octal_ahead(&self) -> bool {
        let octal = |n: usize| self.chars.get(self.at + n).is_some_and(|c| matches!(c, '0'..='7'));
        self.peek() == Some('0') || (octal(0) && octal(1) && octal(2))
    }

    /// After a backslash, in a set or outside: what means the same in both.
    fn escaped(&mut self, start: usize) -> Fallible<Escaped> {
        let column = start + 1;
        let Some(c) = self.next() else { return Err(error(column, "a backslash stands at the end")) };
        if let Some(class) = class(c, self.flags.ascii) {
            return Ok(Escaped::Class(class));
        }
        let char = match c {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'f' => '\x0c',
            'v' => '\x0b',
            'a' => '\x07',
            'x' => self.hex(column, 2)?,
            'u' => self.hex(column, 4)?,
            'U' => self.hex(column, 8)?,
            'N' => return Err(later(column, "a character by its name, `\\N{…}`,")),
            '0'..='7' => {
                let mut value = c as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    value = value * 8 + digit;
                    self.at += 1;
                }
                char::from_u32(value).filter(|_| value <= 0o377).ok_or_else(|| error(column, "an octal escape ends at `\\377`"))?
            }
            c if c.is_ascii_alphanumeric() => return Err(error(column, "this escape has no meaning")),
            c => c,
        };
        Ok(Escaped::Char(char))
    }

    fn hex(&mut self, column: usize, digits: usize) -> Fallible<char> {
        let mut value = 0u32;
        for _ in 0..digits {
            let digit = self.next().and_then(|c| c.to_digit(16));
            let digit = digit.ok_or_else(|| error(column, format!("this escape takes {digits} hex digits")))?;
            value = value.wrapping_mul(16).wrapping_add(digit);
        }
        char::from_u32(value).ok_or_else(|| error(column, "there is no character of this number"))
    }

    /// After `[`.
    pub(super) fn set(&mut self, start: usize) -> Fallible<()> {
        self.consume()?;
        self.out.push('[');
        if self.take('^') {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let column = self.at + 1;
            if !std::mem::take(&mut first) && self.take(']') {
                self.out.push(']');
                return Ok(());
            }
            let low = self.set_item(start)?;
            if self.peek() == Some('-') && !matches!(self.chars.get(self.at + 1), Some(']')) {
                self.at += 1;
                let high = self.set_item(start)?;
                match (low, high) {
                    (Escaped::Char(low), Escaped::Char(high)) if low <= high => {
                        self.push_in_set(low);
                        self.out.push('-');
                        self.push_in_set(high);
                    }
                    (Escaped::Char(_), Escaped::Char(_)) => return Err(error(column, "the range runs backwards")),
                    _ => return Err(error(column, "a range goes from a character to a character; write a plain `-` last in the set")),
                }
                continue;
            }
            match low {
                Escaped::Char(c) => self.push_in_set(c),
                Escaped::Class(class) => self.out.push_str(class),
            }
        }
    }

    fn set_item(&mut self, set: usize) -> Fallible<Escaped> {
        let start = self.at;
        match self.next() {
            None => Err(error(set + 1, "the set is never closed with `]`")),
            Some('\\') if self.take('b') => Ok(Escaped::Char('\x08')),
            Some('\\') if self.peek().is_none() => Err(error(set + 1, "the set is never closed with `]`")),
            Some('\\') => self.escaped(start),
            Some(c) => Ok(Escaped::Char(c)),
        }
    }

    fn push_in_set(&mut self, c: char) {
        if c.is_alphanumeric() {
            self.out.push(c);
        } else {
            self.out.push_str(&format!(r"\x{{{:x}}}", c as u32));
        }
    }
}

enum Escaped {
    Class(&'static str),
    Char(char),
}

/// Python's classes, each written so that it stands in a set as well as alone.
///
/// `str` patterns: `\d` is category Nd, `\w` is `str.isalnum()` or `_`, `\s` is `str.isspace()`.
fn class(letter: char, ascii: bool) -> Option<&'static str> {
    Some(match (letter, ascii) {
        ('d', false) => r"\d",
        ('D', false) => r"\D",
        ('w', false) => r"[\p{L}\p{N}_]",
        ('W', false) => r"[^\p{L}\p{N}_]",
        ('s', false) => r"[\s\x1c-\x1f]",
        ('S', false) => r"[^\s\x1c-\x1f]",
        ('d', true) => r"[0-9]",
        ('D', true) => r"[^0-9]",
        ('w', true) => r"[0-9A-Za-z_]",
        ('W', true) => r"[^0-9A-Za-z_]",
        ('s', true) => r"[\x09-\x0d\x20]",
        ('S', true) => r"[^\x09-\x0d\x20]",
        _ => return None,
    })
}
