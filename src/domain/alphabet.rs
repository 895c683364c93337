//! The characters that a password is made of.

use std::collections::BTreeSet;

/// At least two different characters, all of them printable ASCII and no blank: what every keyboard has and every encoding
/// stores in one byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alphabet(Vec<u8>);

/// Why a text is no alphabet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAnAlphabet {
    #[error("a password cannot be made of {0:?}: only printable ASCII characters without the blank can be typed everywhere")]
    Character(char),
    #[error("{0:?} is there twice, which would make it likelier than the others")]
    Twice(char),
    #[error("an alphabet needs two characters or more")]
    TooFew,
}

impl Alphabet {
    /// Letters and digits without 0, O, o, 1, l and I, which are taken for one another.
    pub fn unambiguous() -> Alphabet {
        Alphabet((b'0'..=b'z').filter(|b| b.is_ascii_alphanumeric() && !b"0Oo1lI".contains(b)).collect())
    }

    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Alphabet, NotAnAlphabet> {
        let mut seen = BTreeSet::new();
        for character in text.chars() {
            if !character.is_ascii_graphic() {
                return Err(NotAnAlphabet::Character(character));
            }
            if !seen.insert(character) {
                return Err(NotAnAlphabet::Twice(character));
            }
        }
        if seen.len() < 2 { Err(NotAnAlphabet::TooFew) } else { Ok(Alphabet(text.bytes().collect())) }
    }

    /// ASCII, each once.
    pub fn characters(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unambiguous_one_has_what_nobody_misreads() {
        let alphabet = Alphabet::unambiguous();
        assert_eq!(alphabet.characters().len(), 62 - 6);
        assert!(!alphabet.characters().iter().any(|b| b"0Oo1lI".contains(b)));
    }

    #[test]
    fn what_cannot_be_typed_or_would_be_likelier_is_refused() {
        assert_eq!(Alphabet::parse("abc").unwrap().characters(), b"abc");
        for (text, why) in
            [("aé", NotAnAlphabet::Character('é')), ("a b", NotAnAlphabet::Character(' ')), ("aba", NotAnAlphabet::Twice('a')), ("a", NotAnAlphabet::TooFew), ("", NotAnAlphabet::TooFew)]
        {
            assert_eq!(Alphabet::parse(text), Err(why), "{text}");
        }
    }
}
