//! Passwords: how long they are, and of which characters they are made.

/// How many characters a password has: 4 to 64. bcrypt looks at the first 72 bytes only; as each character of an
/// [`Alphabet`] is one byte, no password of ours is cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PasswordLength(u8);

impl PasswordLength {
    pub const MIN: u8 = 4;
    pub const MAX: u8 = 64;

    pub fn new(characters: u8) -> Option<PasswordLength> {
        (Self::MIN..=Self::MAX).contains(&characters).then_some(PasswordLength(characters))
    }

    pub fn characters(self) -> usize {
        self.0.into()
    }
}

/// The characters of a password: 2 to 94 different ones that can be seen and typed on every keyboard, ASCII without the space.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alphabet(Vec<u8>);

/// Why characters are no [`Alphabet`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AlphabetProblem {
    #[error("of one character only one password can be made; give at least two")]
    TooFew,
    #[error("the character {0:?} is not on every keyboard; letters without accents, digits and signs of ASCII can be used, no space")]
    NotTyped(char),
    #[error("the character {0} is given twice, which would make it more likely than the others")]
    Twice(char),
}

impl Alphabet {
    /// Letters and digits without those that look alike: 0 O o, 1 l I.
    const UNAMBIGUOUS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz";

    pub fn unambiguous() -> Alphabet {
        Alphabet(Self::UNAMBIGUOUS.to_vec())
    }

    /// # Errors
    /// What is wrong with these characters.
    pub fn new(characters: &str) -> Result<Alphabet, AlphabetProblem> {
        for (at, character) in characters.char_indices() {
            if !character.is_ascii_graphic() {
                return Err(AlphabetProblem::NotTyped(character));
            }
            if characters[..at].contains(character) {
                return Err(AlphabetProblem::Twice(character));
            }
        }
        if characters.len() < 2 { Err(AlphabetProblem::TooFew) } else { Ok(Alphabet(characters.as_bytes().to_vec())) }
    }

    /// Each one character.
    pub fn characters(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_every_letter_and_digit_that_no_other_looks_like() {
        let wanted: String = ('!'..='~').filter(|c| c.is_ascii_alphanumeric() && !"0Oo1lI".contains(*c)).collect();
        assert_eq!(Alphabet::new(&wanted), Ok(Alphabet::unambiguous()));
        assert_eq!(Alphabet::unambiguous().characters().len(), 56);
    }

    #[test]
    fn characters_that_cannot_be_typed_or_stand_there_twice_are_refused() {
        assert_eq!(Alphabet::new("abca"), Err(AlphabetProblem::Twice('a')));
        for (text, found) in [("ab c", ' '), ("abcé", 'é'), ("a\u{0}b", '\u{0}')] {
            assert_eq!(Alphabet::new(text), Err(AlphabetProblem::NotTyped(found)));
        }
        for text in ["", "a"] {
            assert_eq!(Alphabet::new(text), Err(AlphabetProblem::TooFew));
        }
        assert!(Alphabet::new("01").is_ok());
    }
}
