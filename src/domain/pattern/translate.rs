//! From Python's regular-expression syntax to that of the `regex` crate.

use super::PatternError;

mod escape;

/// The pattern in the syntax of the `regex` crate. Groups do not capture: nobody asks what they matched.
///
/// # Errors
/// What Python refuses, and what the engine cannot do.
pub(super) fn translate(python: &str) -> Result<String, PatternError> {
    let mut t = Translator {
        chars: python.chars().collect(),
        at: 0,
        out: String::with_capacity(python.len() + 16),
        flags: Flags::default(),
        levels: vec![Level::default()],
        names: Vec::new(),
        only_flags_so_far: true,
    };
    t.run()?;
    Ok(t.out)
}

type Fallible<T> = Result<T, PatternError>;

/// Those flags that change how Python's text is read; `i`, `m` and `s` are also handed to the engine.
#[derive(Clone, Copy, Default)]
struct Flags {
    ascii: bool,
    ignore_case: bool,
    multiline: bool,
    verbose: bool,
}

/// What stands right before the place where a repetition could follow.
#[derive(Clone, Copy, Default, PartialEq)]
enum Before {
    /// Nothing, or `^`, `$`, `\b`: Python repeats none of these.
    #[default]
    Nothing,
    Item,
    /// A group in which a `$` may end the match: it may be optional, but not repeated.
    GroupWithEnd(usize),
    Repetition,
}

/// The top of the pattern, or a group that is open.
#[derive(Default)]
struct Level {
    /// Column of the parenthesis.
    column: usize,
    /// To be restored when the group closes.
    outer: Flags,
    before: Before,
    /// Column of a `$` in the branch being read, after which nothing may consume a character.
    end_here: Option<usize>,
    /// The same in an earlier branch.
    end_earlier: Option<usize>,
}

struct Translator {
    chars: Vec<char>,
    at: usize,
    out: String,
    flags: Flags,
    levels: Vec<Level>,
    names: Vec<String>,
    /// `(?i)` and its like stand at the start only.
    only_flags_so_far: bool,
}

impl Translator {
    fn run(&mut self) -> Fallible<()> {
        while let Some(c) = self.peek() {
            let start = self.at;
            self.at += 1;
            if self.flags.verbose && is_blank(c) {
                continue;
            }
            if self.flags.verbose && c == '#' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
                continue;
            }
            if c == '(' {
                self.open(start)?;
                continue;
            }
            self.only_flags_so_far = false;
            match c {
                ')' => self.close(start)?,
                '|' => {
                    let level = self.level();
                    level.end_earlier = level.end_earlier.or(level.end_here.take());
                    level.before = Before::Nothing;
                    self.out.push('|');
                }
                '*' | '+' | '?' => self.repeat(start, 0, None, c)?,
                '{' => match self.bounds(start)? {
                    Some((low, high)) => self.repeat(start, low, high, '{')?,
                    None => self.literal('{')?,
                },
                '^' => {
                    self.level().before = Before::Nothing;
                    self.out.push('^');
                }
                '$' if self.flags.multiline => {
                    self.level().before = Before::Nothing;
                    self.out.push('$');
                }
                '$' => {
                    let level = self.level();
                    level.before = Before::Nothing;
                    level.end_here = level.end_here.or(Some(start + 1));
                    self.out.push_str(r"\z");
                }
                '.' => {
                    self.consume()?;
                    self.out.push('.');
                }
                '[' => self.set(start)?,
                '\\' => self.escape(start)?,
                _ => self.literal(c)?,
            }
        }
        match self.levels.get(1) {
            Some(open) => Err(error(open.column, "the parenthesis is never closed")),
            None => Ok(()),
        }
    }

    /// After `(`.
    fn open(&mut self, start: usize) -> Fallible<()> {
        let column = start + 1;
        let outer = self.flags;
        let mut inner = self.flags;
        let mut opening = "(?:".to_owned();
        if self.take('?') {
            let Some(c) = self.next() else { return Err(error(column, "the parenthesis is never closed")) };
            match c {
                ':' => {}
                '#' => return self.comment(column),
                'P' => self.named(column)?,
                '=' | '!' => return Err(later(column, "look-ahead, `(?=…)` and `(?!…)`,")),
                '<' if matches!(self.peek(), Some('=' | '!')) => return Err(later(column, "look-behind, `(?<=…)` and `(?<!…)`,")),
                '>' => return Err(later(column, "an atomic group, `(?>…)`,")),
                '(' => return Err(later(column, "a conditional, `(?(…)…)`,")),
                _ => {
                    self.at -= 1;
                    match self.read_flags(&mut inner)? {
                        FlagsEnd::Global(text) if self.only_flags_so_far && self.levels.len() == 1 => {
                            self.flags = inner;
                            self.out.push_str(&text);
                            return Ok(());
                        }
                        FlagsEnd::Global(_) => return Err(error(column, "flags for the whole pattern stand at its start only")),
                        FlagsEnd::Scoped(text) => opening = text,
                    }
                }
            }
        }
        self.only_flags_so_far = false;
        self.flags = inner;
        self.out.push_str(&opening);
        self.levels.push(Level { column, outer, ..Level::default() });
        Ok(())
    }

    fn close(&mut self, start: usize) -> Fallible<()> {
        if self.levels.len() == 1 {
            return Err(error(start + 1, "this parenthesis was never opened"));
        }
        let Some(group) = self.levels.pop() else { return Ok(()) };
        self.flags = group.outer;
        self.consume()?;
        self.out.push(')');
        let end = group.end_earlier.or(group.end_here);
        let level = self.level();
        level.end_here = end;
        level.before = end.map_or(Before::Item, Before::GroupWithEnd);
        Ok(())
    }

    /// After `(?#`.
    fn comment(&mut self, column: usize) -> Fallible<()> {
        while let Some(c) = self.next() {
            if c == ')' {
                return Ok(());
            }
        }
        Err(error(column, "the comment is never closed"))
    }

    /// After `(?P`.
    fn named(&mut self, column: usize) -> Fallible<()> {
        match self.next() {
            Some('<') => {}
            Some('=') => return Err(later(column, "a back-reference, `(?P=…)`,")),
            _ => return Err(error(column, "`(?P` is followed by `<name>`")),
        }
        let mut name = String::new();
        loop {
            match self.next() {
                Some('>') => break,
                Some(c) => name.push(c),
                None => return Err(error(column, "the group's name has no closing `>`")),
            }
        }
        let letter = |c: char| c == '_' || c.is_alphabetic();
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_numeric()) {
            return Err(error(column, "a group's name is made of letters, digits and `_`, and begins with no digit"));
        }
        if self.names.contains(&name) {
            return Err(error(column, "this group's name is taken by an earlier group"));
        }
        self.names.push(name);
        Ok(())
    }

    /// After `(?`, at the first flag.
    fn read_flags(&mut self, flags: &mut Flags) -> Fallible<FlagsEnd> {
        let (mut on, mut off, mut negative, mut any) = (String::new(), String::new(), false, false);
        let mut unicode = false;
        let mut ascii = false;
        loop {
            let column = self.at + 1;
            let Some(c) = self.next() else { return Err(error(column, "the parenthesis is never closed")) };
            let global = match c {
                'i' => {
                    flags.ignore_case = !negative;
                    None
                }
                'm' => {
                    flags.multiline = !negative;
                    None
                }
                's' => None,
                'x' => {
                    flags.verbose = !negative;
                    None
                }
                'a' if !negative => {
                    (flags.ascii, ascii) = (true, true);
                    None
                }
                'u' if !negative => {
                    (flags.ascii, unicode) = (false, true);
                    None
                }
                'L' => return Err(error(column, "the flag `L` is for bytes, not for text")),
                '-' if !negative => {
                    (negative, any) = (true, false);
                    continue;
                }
                ')' if any && !negative => Some(true),
                ':' if any => Some(false),
                _ => {
                    return Err(error(
                        column,
                        "unknown form of group or flag; known are `(?:`, `(?P<name>`, `(?#`, and the flags a i m s u x",
                    ));
                }
            };
            any = true;
            if matches!(c, 'i' | 'm' | 's') {
                if negative { &mut off } else { &mut on }.push(c);
            }
            if ascii && unicode {
                return Err(error(column, "the flags `a` and `u` exclude each other"));
            }
            if flags.ascii && flags.ignore_case {
                return Err(later(column, "the flag `a` together with `i`"));
            }
            let minus = if off.is_empty() { "" } else { "-" };
            match global {
                None => {}
                Some(true) if on.is_empty() => return Ok(FlagsEnd::Global(String::new())),
                Some(true) => return Ok(FlagsEnd::Global(format!("(?{on})"))),
                Some(false) => return Ok(FlagsEnd::Scoped(format!("(?{on}{minus}{off}:"))),
            }
        }
    }

    /// After `{`: the bounds of a repetition, or `None` where Python takes the brace as it stands.
    fn bounds(&mut self, start: usize) -> Fallible<Option<(u32, Option<u32>)>> {
        let begin = self.at;
        if self.peek() == Some('}') {
            return Ok(None);
        }
        let low = self.digits();
        let high = if self.take(',') { self.digits() } else { low.clone() };
        if !self.take('}') || (low.is_empty() && high.is_empty() && self.chars.get(begin) != Some(&',')) {
            self.at = begin;
            return Ok(None);
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| error(start + 1, "the number of repetitions is too large"));
        let least = if low.is_empty() { 0 } else { number(&low)? };
        let most = if high.is_empty() { None } else { Some(number(&high)?) };
        if most.is_some_and(|most| most < least) {
            return Err(error(start + 1, "the least number of repetitions is greater than the most"));
        }
        Ok(Some((least, most)))
    }

    fn digits(&mut self) -> String {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        self.chars[begin..self.at].iter().collect()
    }

    /// `sign` is `*`, `+`, `?`, or `{` with the bounds given.
    fn repeat(&mut self, start: usize, low: u32, high: Option<u32>, sign: char) -> Fallible<()> {
        let column = start + 1;
        match self.level().before {
            Before::Nothing => return Err(error(column, "there is nothing to repeat here")),
            Before::Repetition => return Err(error(column, "a repetition cannot be repeated; put it in parentheses")),
            Before::GroupWithEnd(end) if sign != '?' => return Err(end_in_the_middle(end)),
            Before::GroupWithEnd(_) | Before::Item => {}
        }
        match (sign, high) {
            ('{', Some(high)) if high == low => self.out.push_str(&format!("{{{low}}}")),
            ('{', Some(high)) => self.out.push_str(&format!("{{{low},{high}}}")),
            ('{', None) => self.out.push_str(&format!("{{{low},}}")),
            _ => self.out.push(sign),
        }
        if self.take('?') {
            self.out.push('?');
        } else if self.peek() == Some('+') {
            return Err(later(column, "a possessive repetition, such as `a++`,"));
        }
        self.level().before = Before::Repetition;
        Ok(())
    }

    fn literal(&mut self, c: char) -> Fallible<()> {
        self.consume()?;
        self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
        Ok(())
    }

    /// Notes that an item follows which can take characters: not after a `$`.
    fn consume(&mut self) -> Fallible<()> {
        let level = self.level();
        if let Some(end) = level.end_here {
            return Err(end_in_the_middle(end));
        }
        level.before = Before::Item;
        Ok(())
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
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

enum FlagsEnd {
    /// `(?i)`: what the engine is told.
    Global(String),
    /// `(?i:`: how the group opens.
    Scoped(String),
}

/// What `(?x)` skips.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn error(column: usize, message: impl Into<String>) -> PatternError {
    PatternError { column, message: message.into() }
}

fn later(column: usize, what: &str) -> PatternError {
    error(column, format!("{what} is not yet supported"))
}

fn end_in_the_middle(column: usize) -> PatternError {
    later(column, "`$` before more of the pattern")
}
