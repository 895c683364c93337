//! Reads Python's syntax, as the module `re` of Python 3.11 and later does.

use super::PatternError;
use super::case::Case;
use super::set::{Member, Set};
use super::tree::{Bounds, Manner, Node, Place, Tree, Width};

mod escape;
mod group;

/// How deep parentheses may stand in each other: what follows a pattern's shape must not exhaust the stack.
pub(super) const DEEPEST: usize = 100;

/// # Errors
/// What Python refuses, and the little that is not carried out here.
pub(super) fn parse(python: &str) -> Result<Tree, PatternError> {
    let mut parser =
        Parser { chars: python.chars().collect(), at: 0, depth: 0, groups: Vec::new(), asked: Vec::new(), groups_before_look_behind: None };
    let flags = parser.leading_flags()?;
    let node = parser.alternatives(flags)?;
    if parser.at < parser.chars.len() {
        return Err(error(parser.at + 1, "this parenthesis was never opened"));
    }
    match parser.asked.iter().find(|(group, _)| *group > parser.groups.len()) {
        Some((group, column)) => Err(error(*column, format!("there is no group {group}"))),
        None => Ok(Tree { node, groups: parser.groups.len() }),
    }
}

type Fallible<T> = Result<T, PatternError>;

#[derive(Clone, Copy, Default)]
struct Flags {
    ascii: bool,
    ignore_case: bool,
    multiline: bool,
    dot_takes_newline: bool,
    verbose: bool,
}

impl Flags {
    fn case(self) -> Case {
        match (self.ignore_case, self.ascii) {
            (false, _) => Case::Exact,
            (true, false) => Case::Ignored,
            (true, true) => Case::IgnoredInAscii,
        }
    }
}

/// What stands right before the place where a repetition could follow.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    /// Nothing, or `^`, `$`, `\b`: Python repeats none of these.
    Nothing,
    Item,
    Repetition,
}

/// A capturing group that has been opened.
struct Group {
    name: Option<String>,
    /// `None` until it closes.
    width: Option<Width>,
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    groups: Vec<Group>,
    /// Groups that conditionals ask for, with the column. They may stand later in the pattern.
    asked: Vec<(usize, usize)>,
    /// Within a look-behind: how many groups were opened before the outermost.
    groups_before_look_behind: Option<usize>,
}

impl Parser {
    /// Up to a `)` or the end.
    fn alternatives(&mut self, flags: Flags) -> Fallible<Node> {
        self.deeper()?;
        let first = self.sequence(flags)?;
        let mut all = vec![first];
        while self.take('|') {
            all.push(self.sequence(flags)?);
        }
        self.depth -= 1;
        Ok(if all.len() == 1 { all.swap_remove(0) } else { Node::Alternatives(all) })
    }

    fn deeper(&mut self) -> Fallible<()> {
        self.depth += 1;
        if self.depth <= DEEPEST {
            return Ok(());
        }
        Err(error(self.at, format!("parentheses stand more than {DEEPEST} deep in each other; write it in a simpler way")))
    }

    /// Up to a `|`, a `)` or the end.
    fn sequence(&mut self, flags: Flags) -> Fallible<Node> {
        let mut items = Vec::new();
        let mut before = Before::Nothing;
        while let Some(c) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            let start = self.at;
            self.at += 1;
            if flags.verbose && self.skip_blank(c)? {
                continue;
            }
            let item = match c {
                '*' => self.repeat(start, Bounds { least: 0, most: None }, before, &mut items)?,
                '+' => self.repeat(start, Bounds { least: 1, most: None }, before, &mut items)?,
                '?' => self.repeat(start, Bounds { least: 0, most: Some(1) }, before, &mut items)?,
                '{' => match self.bounds(start)? {
                    Some(bounds) => self.repeat(start, bounds, before, &mut items)?,
                    None => literal('{', flags),
                },
                '(' => match self.group(start, flags)? {
                    Some(group) => {
                        items.push(group);
                        before = Before::Item;
                        continue;
                    }
                    None => continue,
                },
                '^' if flags.multiline => Node::At(Place::LineStart),
                '^' => Node::At(Place::Start),
                '$' if flags.multiline => Node::At(Place::LineEnd),
                '$' => Node::At(Place::EndOrLastNewline),
                '.' => Node::Any { newline: flags.dot_takes_newline },
                '[' => self.set(start, flags)?,
                '\\' => self.escape(start, flags)?,
                _ => literal(c, flags),
            };
            before = match item {
                Node::At(_) => Before::Nothing,
                Node::Repeat { .. } => Before::Repetition,
                _ => Before::Item,
            };
            items.push(item);
        }
        Ok(if items.len() == 1 { items.swap_remove(0) } else { Node::Sequence(items) })
    }

    /// Under `(?x)`, whether `c` and what follows it means nothing.
    fn skip_blank(&mut self, c: char) -> Fallible<bool> {
        if c == '#' {
            while self.token()?.is_some_and(|token| token != Token::Plain('\n')) {}
            return Ok(true);
        }
        Ok(matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c'))
    }

    /// After `{`: the bounds of a repetition, or `None` where Python takes the brace as it stands.
    fn bounds(&mut self, start: usize) -> Fallible<Option<Bounds>> {
        let begin = self.at;
        if self.peek() == Some('}') {
            return Ok(None);
        }
        let low = self.digits();
        let comma = self.take(',');
        let high = if comma { self.digits() } else { low.clone() };
        if !self.take('}') || (low.is_empty() && !comma) {
            self.at = begin;
            return Ok(None);
        }
        let number = |text: &str| {
            let number = text.parse::<u32>().ok().filter(|n| *n < u32::MAX);
            number.ok_or_else(|| error(start + 1, "the number of repetitions is too large"))
        };
        let least = if low.is_empty() { 0 } else { number(&low)? };
        let most = if high.is_empty() { None } else { Some(number(&high)?) };
        if most.is_some_and(|most| most < least) {
            return Err(error(start + 1, "the least number of repetitions is greater than the most"));
        }
        Ok(Some(Bounds { least, most }))
    }

    fn digits(&mut self) -> String {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.chars[begin..self.at].iter().collect()
    }

    /// After the sign that repeats the last of `items`.
    fn repeat(&mut self, start: usize, bounds: Bounds, before: Before, items: &mut Vec<Node>) -> Fallible<Node> {
        let body = match before {
            Before::Repetition => return Err(error(start + 1, "a repetition cannot be repeated; put it in parentheses")),
            Before::Nothing => None,
            Before::Item => items.pop(),
        };
        let Some(body) = body else { return Err(error(start + 1, "there is nothing to repeat here")) };
        let manner = match self.peek() {
            Some('?') => Manner::Lazy,
            Some('+') => Manner::Possessive,
            _ => Manner::Greedy,
        };
        self.at += usize::from(manner != Manner::Greedy);
        Ok(Node::Repeat { bounds, manner, body: Box::new(body) })
    }

    /// What Python reads at once: a character, or a backslash together with the one after it.
    fn token(&mut self) -> Fallible<Option<Token>> {
        match self.next() {
            Some('\\') if self.next().is_some() => Ok(Some(Token::Escaped)),
            Some('\\') => Err(error(self.at, "a backslash stands at the end")),
            other => Ok(other.map(Token::Plain)),
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Token {
    Plain(char),
    Escaped,
}

fn literal(c: char, flags: Flags) -> Node {
    let set = Set::new(false, &[Member::Range(c, c)], flags.case());
    if set.single().is_some() { Node::Char(c) } else { Node::Set(set) }
}

fn error(column: usize, message: impl Into<String>) -> PatternError {
    PatternError { column, message: message.into() }
}
