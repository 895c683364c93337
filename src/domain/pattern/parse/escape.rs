//! Backslashes and sets: which characters one item of a pattern stands for.

use super::super::set::{Class, Kind, Member, Set};
use super::super::tree::{Node, Place};
use super::{Fallible, Flags, Parser, error, literal};

impl Parser {
    /// After a backslash outside a set.
    pub(super) fn escape(&mut self, start: usize, flags: Flags) -> Fallible<Node> {
        let Some(c) = self.peek() else { return Err(error(start + 1, "a backslash stands at the end")) };
        let place = match c {
            'A' => Some(Place::Start),
            'Z' | 'z' => Some(Place::End),
            'b' | 'B' => Some(Place::WordEdge { negated: c == 'B', ascii: flags.ascii }),
            _ => None,
        };
        if let Some(place) = place {
            self.at += 1;
            return Ok(Node::At(place));
        }
        if matches!(c, '1'..='9') && !self.octal_ahead() {
            return self.numbered(start, flags);
        }
        Ok(match self.escaped(start, flags)? {
            Escaped::Class(class) => Node::Set(Set::new(false, &[Member::Class(class)], flags.case())),
            Escaped::Char(c) => literal(c, flags),
        })
    }

    /// Whether the digits ahead are a character by its octal number: three octal digits.
    fn octal_ahead(&self) -> bool {
        (0..3).all(|n| self.chars.get(self.at + n).is_some_and(|c| matches!(c, '0'..='7')))
    }

    /// A back-reference of one or two digits.
    fn numbered(&mut self, start: usize, flags: Flags) -> Fallible<Node> {
        let mut group = 0;
        for _ in 0..2 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) else { break };
            group = group * 10 + digit as usize;
            self.at += 1;
        }
        self.reference(group, start + 1, flags)
    }

    /// After a backslash, in a set or outside: what means the same in both.
    fn escaped(&mut self, start: usize, flags: Flags) -> Fallible<Escaped> {
        let column = start + 1;
        let Some(c) = self.next() else { return Err(error(column, "a backslash stands at the end")) };
        let kind = match c.to_ascii_lowercase() {
            'd' => Some(Kind::Digit),
            'w' => Some(Kind::Word),
            's' => Some(Kind::Space),
            _ => None,
        };
        if let Some(kind) = kind {
            return Ok(Escaped::Class(Class { kind, negated: c.is_ascii_uppercase(), ascii: flags.ascii }));
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
            'N' => {
                return Err(error(
                    column,
                    "characters are not known by their names; write the character itself, or its number as `\\u00e9`",
                ));
            }
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
    pub(super) fn set(&mut self, start: usize, flags: Flags) -> Fallible<Node> {
        let negated = self.take('^');
        let mut members = Vec::new();
        loop {
            let column = self.at + 1;
            if !members.is_empty() && self.take(']') {
                break;
            }
            let low = self.set_item(start, flags)?;
            if self.peek() == Some('-') && self.chars.get(self.at + 1) != Some(&']') {
                self.at += 1;
                let high = self.set_item(start, flags)?;
                members.push(match (low, high) {
                    (Escaped::Char(low), Escaped::Char(high)) if low <= high => Member::Range(low, high),
                    (Escaped::Char(_), Escaped::Char(_)) => return Err(error(column, "the range runs backwards")),
                    _ => return Err(error(column, "a range goes from a character to a character; write a plain `-` last in the set")),
                });
                continue;
            }
            members.push(match low {
                Escaped::Char(c) => Member::Range(c, c),
                Escaped::Class(class) => Member::Class(class),
            });
        }
        let set = Set::new(negated, &members, flags.case());
        Ok(set.single().map_or(Node::Set(set), Node::Char))
    }

    fn set_item(&mut self, set: usize, flags: Flags) -> Fallible<Escaped> {
        let start = self.at;
        match self.next() {
            None => Err(error(set + 1, "the set is never closed with `]`")),
            Some('\\') if self.take('b') => Ok(Escaped::Char('\x08')),
            Some('\\') if self.peek().is_none() => Err(error(set + 1, "the set is never closed with `]`")),
            Some('\\') => self.escaped(start, flags),
            Some(c) => Ok(Escaped::Char(c)),
        }
    }
}

enum Escaped {
    Class(Class),
    Char(char),
}
