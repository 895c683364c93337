//! Python regular expressions, matched against the whole string as `re.fullmatch` does (product rule R2).
//!
//! Python's syntax is read into a tree. Whatever the `regex` crate can do is written anew for it, because it runs in linear time;
//! the rest runs on a backtracking machine that gives up after a number of steps. The syntaxes look alike and differ in what
//! matters, so nothing is handed through unread:
//!
//! | Python | linear | backtracking |
//! |---|---|---|
//! | `\Z` | `\z` | yes |
//! | `$` | `\z` where nothing follows | elsewhere, because there it may also stand before a last newline |
//! | `a{,3}` | `a{0,3}`; a brace that begins no repetition is a literal | yes |
//! | `[[]`, `[a&&b]`, `[a--b]` | every sign in a set is a literal | yes |
//! | `\w`, `\s` | Python's own sets: no combining marks, but `\x1c` to `\x1f` are blanks | yes |
//! | `\b`, `\B` | only `(?a)\b`: the engine's words are not Python's | yes |
//! | `(?i)` | each letter's relatives written out, as Python knows them | yes |
//! | `(?x)`, `(?#…)`, `(?a)`, `(?s)`, `(?m)` | carried out while reading | yes |
//! | look-around, back-references, possessive and atomic forms, conditionals | | yes |
//!
//! Refused although Python knows them: characters by name (`\N{…}`), halves of characters (`\ud800`), and parentheses more than
//! a hundred deep. Where versions of Python differ, the newest counts: `\z`, and `\B` in an empty text, are 3.14's.
//!
//! Why not the crate `fancy-regex` (0.20.2 was tried): its limit counts how often it goes back and not what it does in between,
//! so that one evaluation on a long text took eleven seconds within a limit of 100,000. Alternatives that are equally long are
//! tried once, so that `(?:a|(a))(?(1)b|c)` does not match `ab`. And in rounds that match nothing, in possessive forms, and in
//! letters without regard to case it is not Python.

use std::sync::Arc;

use regex::Regex;

use machine::STEPS;
use program::Program;

mod case;
mod linear;
mod machine;
mod parse;
mod program;
mod set;
mod tree;

/// A pattern that has been read and compiled.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    engine: Engine,
}

#[derive(Clone, Debug)]
enum Engine {
    Linear(Regex),
    Backtracking(Arc<Program>),
}

/// Why a pattern cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct PatternError {
    /// 1-based, in characters of the Python source.
    pub column: usize,
    pub message: String,
}

/// A text that this pattern neither accepts nor refuses within its steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the pattern needs more than {STEPS} steps for this text; write it in a simpler way, without repetitions in repetitions")]
pub struct TooManySteps;

impl Pattern {
    /// # Errors
    /// What Python would refuse, and the little that is not carried out here, with the column.
    pub fn parse(python: &str) -> Result<Pattern, PatternError> {
        let tree = parse::parse(python)?;
        let engine = match linear::compile(&tree) {
            Some(regex) => Engine::Linear(regex),
            None => Engine::Backtracking(Arc::new(program::compile(&tree))),
        };
        Ok(Pattern { source: python.to_owned(), engine })
    }

    /// Whether a pattern stands for "everybody": empty, or `.*` (R2). Such a one is no condition at all, so that a name
    /// with a newline in it, which `.` does not match, is not left out by surprise.
    pub fn is_everybody(python: &str) -> bool {
        matches!(python, "" | ".*")
    }

    /// Whether the whole of `text` matches.
    ///
    /// # Errors
    /// If the answer would take too long. Never for a pattern without look-around, back-references and the like.
    pub fn matches(&self, text: &str) -> Result<bool, TooManySteps> {
        match &self.engine {
            Engine::Linear(regex) => Ok(regex.is_match(text)),
            Engine::Backtracking(program) => machine::matches(program, text),
        }
    }

    /// The pattern as configured.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests;
