//! Card assignment codes: what a user types at a terminal, once, to make a card his own.

/// How many digits a card assignment code has: 1 to 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CodeLength(u8);

impl CodeLength {
    pub const MIN: u8 = 1;
    pub const MAX: u8 = 16;

    pub fn new(digits: u8) -> Option<CodeLength> {
        (Self::MIN..=Self::MAX).contains(&digits).then_some(CodeLength(digits))
    }

    pub fn digits(self) -> usize {
        self.0.into()
    }
}
