//! Python regular expressions, matched against the whole string as `re.fullmatch` does (product rule R2).

/// A pattern that has been translated and compiled.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
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
        Ok(Pattern { source: python.to_owned() })
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, _text: &str) -> bool {
        todo!()
    }

    /// The pattern as configured.
    pub fn source(&self) -> &str {
        &self.source
    }
}
