//! Python regular expressions, matched against the whole string as `re.fullmatch` does (product rule R2).
//!
//! Python's syntax is read here and written anew for the `regex` crate, which runs in linear time. The two look alike
//! and differ in what matters, so nothing is handed through unread:
//!
//! | Python | here |
//! |---|---|
//! | `\Z` | `\z` |
//! | `$` | `\z` where nothing follows; elsewhere refused, because there it may also stand before a last newline |
//! | `a{,3}` | `a{0,3}`; a brace that begins no repetition is a literal |
//! | `[[]`, `[a&&b]`, `[a--b]` | every sign in a set is a literal |
//! | `\w`, `\s` | Python's own sets: no combining marks, but `\x1c` to `\x1f` are blanks |
//! | `(?x)`, `(?#…)`, `(?a)` | carried out while translating |
//! | look-around, back-references, possessive and atomic forms, conditionals | refused: they need a backtracking engine |

use regex::{Regex, RegexBuilder};

use translate::translate;

mod translate;

/// Bytes that one compiled pattern may take: repeated Unicode classes are large, a slip such as `(\w{999}){999}` is larger.
const SIZE_LIMIT_BYTES: usize = 10 << 20;

/// A pattern that has been translated and compiled.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

/// Why a pattern cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct PatternError {
    /// 1-based, in characters of the Python source.
    pub column: usize,
    pub message: String,
}

impl Pattern {
    /// # Errors
    /// What Python would refuse, and what this engine cannot do, with the column.
    pub fn parse(python: &str) -> Result<Pattern, PatternError> {
        let whole = format!(r"\A(?:{})\z", translate(python)?);
        let regex = RegexBuilder::new(&whole).size_limit(SIZE_LIMIT_BYTES).build().map_err(|error| PatternError {
            column: 1,
            message: match error {
                regex::Error::CompiledTooBig(_) => "the pattern is too large once its repetitions are written out".to_owned(),
                _ => "the pattern cannot be translated; write it in a simpler way".to_owned(),
            },
        })?;
        Ok(Pattern { source: python.to_owned(), regex })
    }

    /// Whether a pattern stands for "everybody": empty, or `.*` (R2). Such a one is no condition at all, so that a name
    /// with a newline in it, which `.` does not match, is not left out by surprise.
    pub fn is_everybody(python: &str) -> bool {
        matches!(python, "" | ".*")
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern as configured.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[cfg(test)]
mod tests;
