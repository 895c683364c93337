//! Sets of characters: `[a-z\d]`, `\w`, and letters whose case does not matter.

use std::sync::LazyLock;

use regex::Regex;

use super::case::Case;

/// Characters of which one is taken.
#[derive(Clone, Debug)]
pub(super) struct Set {
    negated: bool,
    /// Sorted, apart from each other.
    ranges: Vec<(char, char)>,
    classes: Vec<Class>,
}

/// `\d`, `\w`, `\s` and their opposites.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class {
    pub kind: Kind,
    pub negated: bool,
    pub ascii: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Digit,
    Word,
    Space,
}

/// What stands between the brackets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Member {
    Range(char, char),
    Class(Class),
}

impl Set {
    pub fn new(negated: bool, members: &[Member], case: Case) -> Set {
        let mut ranges = Vec::new();
        let mut classes = Vec::new();
        for member in members {
            match *member {
                Member::Range(low, high) => ranges.extend(case.relatives(low, high)),
                Member::Class(class) if classes.contains(&class) => {}
                Member::Class(class) => classes.push(class),
            }
        }
        Set { negated, ranges: apart(ranges), classes }
    }

    /// The one character that this set takes, if there is but one.
    pub fn single(&self) -> Option<char> {
        match (self.negated, self.classes.as_slice(), self.ranges.as_slice()) {
            (false, [], [(low, high)]) if low == high => Some(*low),
            _ => None,
        }
    }

    pub fn contains(&self, c: char) -> bool {
        let after = self.ranges.partition_point(|(low, _)| *low <= c);
        let in_range = after > 0 && c <= self.ranges[after - 1].1;
        (in_range || self.classes.iter().any(|class| class.contains(c))) != self.negated
    }

    /// In the syntax of the `regex` crate.
    pub fn write(&self, out: &mut String) {
        out.push('[');
        if self.negated {
            out.push('^');
        }
        for (low, high) in &self.ranges {
            write_char(out, *low);
            if low != high {
                out.push('-');
                write_char(out, *high);
            }
        }
        self.classes.iter().for_each(|class| out.push_str(class.written()));
        out.push(']');
    }
}

fn apart(mut ranges: Vec<(char, char)>) -> Vec<(char, char)> {
    ranges.sort_unstable();
    let mut merged: Vec<(char, char)> = Vec::new();
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(last) if low <= last.1 => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    merged
}

fn write_char(out: &mut String, c: char) {
    if c.is_alphanumeric() {
        out.push(c);
    } else {
        out.push_str(&format!(r"\x{{{:x}}}", c as u32));
    }
}

/// Python's `\w`: `str.isalnum()` or `_`. No combining marks, unlike the `regex` crate's.
static WORD: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{N}_]$").ok());
static DIGIT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{Nd}$").ok());

impl Class {
    pub fn contains(self, c: char) -> bool {
        let found = match self.kind {
            Kind::Digit if self.ascii || c.is_ascii() => c.is_ascii_digit(),
            Kind::Word if self.ascii || c.is_ascii() => c.is_ascii_alphanumeric() || c == '_',
            Kind::Space if self.ascii => matches!(c, '\x09'..='\x0d' | ' '),
            Kind::Space => c.is_whitespace() || matches!(c, '\x1c'..='\x1f'),
            Kind::Digit => matches(&DIGIT, c),
            Kind::Word => matches(&WORD, c),
        };
        found != self.negated
    }

    /// Written so that it stands in a set as well as alone.
    fn written(self) -> &'static str {
        match (self.kind, self.ascii, self.negated) {
            (Kind::Digit, false, false) => r"\d",
            (Kind::Digit, false, true) => r"\D",
            (Kind::Word, false, false) => r"[\p{L}\p{N}_]",
            (Kind::Word, false, true) => r"[^\p{L}\p{N}_]",
            (Kind::Space, false, false) => r"[\s\x1c-\x1f]",
            (Kind::Space, false, true) => r"[^\s\x1c-\x1f]",
            (Kind::Digit, true, false) => r"[0-9]",
            (Kind::Digit, true, true) => r"[^0-9]",
            (Kind::Word, true, false) => r"[0-9A-Za-z_]",
            (Kind::Word, true, true) => r"[^0-9A-Za-z_]",
            (Kind::Space, true, false) => r"[\x09-\x0d\x20]",
            (Kind::Space, true, true) => r"[^\x09-\x0d\x20]",
        }
    }
}

fn matches(regex: &Option<Regex>, c: char) -> bool {
    regex.as_ref().is_some_and(|regex| regex.is_match(c.encode_utf8(&mut [0; 4])))
}
