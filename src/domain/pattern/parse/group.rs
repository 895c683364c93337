//! What parentheses can mean: groups, flags, look-around, conditionals, comments.

use std::sync::LazyLock;

use regex::Regex;

use super::super::tree::{Node, Width};
use super::{Fallible, Flags, Group, Parser, Token, error};

const UNCLOSED: &str = "the parenthesis is never closed";
const NO_GROUP: &str = "a conditional names its group by number or by name";
const UNKNOWN: &str = "unknown form of group or flag; known are `(?:`, `(?P<name>`, `(?P=name)`, `(?=`, `(?!`, `(?<=`, `(?<!`, `(?>`, \
                       `(?(1)`, `(?#`, and the flags a i m s u x";

/// What flags in parentheses are for.
enum Scope {
    /// `(?i)`
    Whole,
    /// `(?i:…)`
    Group,
}

impl Parser {
    /// The flags of the whole pattern, which stand at its start only.
    pub(super) fn leading_flags(&mut self) -> Fallible<Flags> {
        let mut flags = Flags::default();
        let (mut ascii, mut unicode) = (false, false);
        loop {
            let start = self.at;
            match self.next() {
                Some('(') if self.take('?') => match self.peek() {
                    Some('#') => {
                        self.at += 1;
                        self.comment(start + 1)?;
                    }
                    Some(c) if c.is_ascii_lowercase() => {
                        let before = flags;
                        let Scope::Whole = self.flags(&mut flags)? else {
                            self.at = start;
                            return Ok(before);
                        };
                        let said = &self.chars[start..self.at];
                        (ascii, unicode) = (ascii || said.contains(&'a'), unicode || said.contains(&'u'));
                        if ascii && unicode {
                            return Err(error(start + 1, "the flags `a` and `u` exclude each other"));
                        }
                    }
                    _ => break self.at = start,
                },
                Some(c) if flags.verbose && self.skip_blank(c)? => {}
                _ => break self.at = start,
            }
        }
        Ok(flags)
    }

    /// After `(`; `None` for a comment.
    pub(super) fn group(&mut self, start: usize, flags: Flags) -> Fallible<Option<Node>> {
        let column = start + 1;
        if !self.take('?') {
            return self.capture(column, None, flags).map(Some);
        }
        let node = match self.next() {
            None => return Err(error(column, UNCLOSED)),
            Some('#') => {
                self.comment(column)?;
                return Ok(None);
            }
            Some(':') => self.enclosed(column, flags)?,
            Some('>') => Node::Atomic(Box::new(self.enclosed(column, flags)?)),
            Some('P') => match self.next() {
                Some('<') => {
                    let name = self.name(column, '>')?;
                    self.capture(column, Some(name), flags)?
                }
                Some('=') => {
                    let name = self.name(column, ')')?;
                    let group = self.named(&name, column)?;
                    self.reference(group, column, flags)?
                }
                _ => return Err(error(column, "`(?P` is followed by `<name>` or `=name`")),
            },
            Some(c @ ('=' | '!')) => Node::Look { behind: None, negative: c == '!', body: Box::new(self.enclosed(column, flags)?) },
            Some('<') => match self.next() {
                Some(c @ ('=' | '!')) => self.look_behind(column, c == '!', flags)?,
                _ => return Err(error(column, "`(?<` is followed by `=` or `!`; a group with a name is `(?P<name>…)`")),
            },
            Some('(') => self.conditional(column, flags)?,
            Some(_) => {
                self.at -= 1;
                let mut inner = flags;
                match self.flags(&mut inner)? {
                    Scope::Group => self.enclosed(column, inner)?,
                    Scope::Whole => return Err(error(column, "flags for the whole pattern stand at its start only")),
                }
            }
        };
        Ok(Some(node))
    }

    /// What the group holds, and its closing parenthesis.
    fn enclosed(&mut self, column: usize, flags: Flags) -> Fallible<Node> {
        let node = self.alternatives(flags)?;
        self.close(column)?;
        Ok(node)
    }

    fn close(&mut self, column: usize) -> Fallible<()> {
        if self.take(')') { Ok(()) } else { Err(error(column, UNCLOSED)) }
    }

    fn capture(&mut self, column: usize, name: Option<String>, flags: Flags) -> Fallible<Node> {
        if name.is_some() && self.groups.iter().any(|group| group.name == name) {
            return Err(error(column, "this group's name is taken by an earlier group"));
        }
        self.groups.push(Group { name, width: None });
        let number = self.groups.len();
        let node = self.enclosed(column, flags)?;
        self.groups[number - 1].width = Some(self.width(&node));
        Ok(Node::Group(number, Box::new(node)))
    }

    fn width(&self, node: &Node) -> Width {
        node.width(&|group| self.closed(group))
    }

    /// The width of a group that is closed.
    fn closed(&self, group: usize) -> Option<Width> {
        group.checked_sub(1).and_then(|index| self.groups.get(index)).and_then(|group| group.width)
    }

    /// After `(?<=` or `(?<!`.
    fn look_behind(&mut self, column: usize, negative: bool, flags: Flags) -> Fallible<Node> {
        let outer = self.groups_before_look_behind;
        self.groups_before_look_behind = outer.or(Some(self.groups.len()));
        let body = self.enclosed(column, flags)?;
        self.groups_before_look_behind = outer;
        let width = self.width(&body);
        if width.least != width.most {
            return Err(error(
                column,
                "a look-behind takes a fixed number of characters; write one for each length, as `(?:(?<=a)|(?<=bc))`",
            ));
        }
        let behind = u32::try_from(width.least).ok().and_then(|width| usize::try_from(width).ok());
        match behind {
            Some(width) => Ok(Node::Look { behind: Some(width), negative, body: Box::new(body) }),
            None => Err(error(column, "the look-behind takes too many characters")),
        }
    }

    /// After `(?(`.
    fn conditional(&mut self, column: usize, flags: Flags) -> Fallible<Node> {
        let begin = self.at;
        let group = match self.digits() {
            digits if digits.is_empty() => match self.name(column, ')') {
                Ok(name) => self.named(&name, column)?,
                Err(_) => return Err(error(begin + 1, NO_GROUP)),
            },
            digits if self.take(')') => match digits.parse() {
                Ok(0) => return Err(error(begin + 1, "groups count from 1")),
                Ok(group) => group,
                Err(_) => return Err(error(begin + 1, format!("there is no group {digits}"))),
            },
            _ => return Err(error(begin + 1, NO_GROUP)),
        };
        self.asked.push((group, begin + 1));
        if self.groups_before_look_behind.is_some() {
            self.reference_is_possible(group, column)?;
        }
        self.deeper()?;
        let yes = self.sequence(flags)?;
        let no = if self.take('|') { self.sequence(flags)? } else { Node::Sequence(Vec::new()) };
        self.depth -= 1;
        if self.peek() == Some('|') {
            return Err(error(self.at + 1, "a conditional has two branches at most"));
        }
        self.close(column)?;
        Ok(Node::Conditional { group, yes: Box::new(yes), no: Box::new(no) })
    }

    pub(super) fn reference(&mut self, group: usize, column: usize, flags: Flags) -> Fallible<Node> {
        if group > self.groups.len() {
            return Err(error(column, format!("there is no group {group} before this place")));
        }
        self.reference_is_possible(group, column)?;
        Ok(Node::Reference { group, case: flags.case() })
    }

    fn reference_is_possible(&self, group: usize, column: usize) -> Fallible<()> {
        if self.closed(group).is_none() {
            return Err(error(column, format!("group {group} is not closed before this place")));
        }
        match self.groups_before_look_behind {
            Some(before) if group > before => Err(error(column, format!("group {group} belongs to the same look-behind"))),
            _ => Ok(()),
        }
    }

    fn named(&self, name: &str, column: usize) -> Fallible<usize> {
        let index = self.groups.iter().position(|group| group.name.as_deref() == Some(name));
        index.map(|index| index + 1).ok_or_else(|| error(column, "no group of this name stands before this place"))
    }

    /// After `(?#`.
    fn comment(&mut self, column: usize) -> Fallible<()> {
        loop {
            match self.token()? {
                Some(Token::Plain(')')) => return Ok(()),
                Some(_) => {}
                None => return Err(error(column, "the comment is never closed")),
            }
        }
    }

    fn name(&mut self, column: usize, end: char) -> Fallible<String> {
        let mut name = String::new();
        loop {
            match self.next() {
                Some(c) if c == end => break,
                Some(c) => name.push(c),
                None => return Err(error(column, format!("the group's name has no closing `{end}`"))),
            }
        }
        match NAME.as_ref() {
            Some(pattern) if pattern.is_match(&name) => Ok(name),
            _ => Err(error(column, "a group's name is made of letters, digits and `_`, and begins with no digit")),
        }
    }

    /// After `(?`, at the first flag.
    fn flags(&mut self, flags: &mut Flags) -> Fallible<Scope> {
        let (mut on, mut off) = (String::new(), String::new());
        let mut negative = false;
        loop {
            let column = self.at + 1;
            let Some(c) = self.next() else { return Err(error(column, UNCLOSED)) };
            let any = !if negative { &off } else { &on }.is_empty();
            match c {
                'i' => flags.ignore_case = !negative,
                'm' => flags.multiline = !negative,
                's' => flags.dot_takes_newline = !negative,
                'x' => flags.verbose = !negative,
                'a' if !negative => flags.ascii = true,
                'u' if !negative => flags.ascii = false,
                'L' => return Err(error(column, "the flag `L` is for bytes, not for text")),
                '-' if !negative => {
                    negative = true;
                    continue;
                }
                ')' if any && !negative => return Ok(Scope::Whole),
                ':' if any => return Ok(Scope::Group),
                _ => return Err(error(column, UNKNOWN)),
            }
            if negative { &mut off } else { &mut on }.push(c);
            if on.contains('a') && on.contains('u') {
                return Err(error(column, "the flags `a` and `u` exclude each other"));
            }
            if off.chars().any(|c| on.contains(c)) {
                return Err(error(column, "this flag is turned on and off at once"));
            }
        }
    }
}

/// Python's `str.isidentifier()`.
static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\A[_\p{XID_Start}]\p{XID_Continue}*\z").ok());
