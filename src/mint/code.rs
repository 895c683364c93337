//! Draws card assignment codes. None is too easy to give out: whoever types one also has a card in his hand, and each code is
//! one user's.

use std::collections::HashSet;

use rand::rngs::{SysError, SysRng};

use super::{TRIES, digits};
use crate::domain::{Code, CodeLength};

/// Why no code could be drawn.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    #[error("no unused card assignment code of {digits} digits was found in {tries} tries; a greater length gives more room")]
    Crowded { digits: usize, tries: u32 },
    #[error("drawing random digits failed")]
    Random(#[source] SysError),
}

/// Draws codes, none of them twice.
#[derive(Default)]
pub struct Codes {
    /// Somebody has them.
    taken: HashSet<Code>,
    /// In the batch in hand.
    drawn: HashSet<Code>,
}

impl Codes {
    pub fn new() -> Codes {
        Codes::default()
    }

    /// Never draws this one: somebody has it.
    pub fn avoid(&mut self, code: Code) {
        self.taken.insert(code);
    }

    /// From here on codes that were drawn before may be drawn again, unless they are to be [avoided](Codes::avoid).
    pub fn next_batch(&mut self) {
        self.drawn.clear();
    }

    /// What was drawn since the last batch stands in the database now.
    pub fn keep_drawn(&mut self) {
        self.taken.extend(self.drawn.drain());
    }

    /// # Errors
    /// Where hardly any code of this length is free, or the operating system gives no random numbers.
    pub fn draw(&mut self, length: CodeLength) -> Result<Code, CodeError> {
        for _ in 0..TRIES {
            let code = Code::new(digits(&mut SysRng, length.digits()).map_err(CodeError::Random)?);
            if !self.taken.contains(&code) && self.drawn.insert(code.clone()) {
                return Ok(code);
            }
        }
        Err(CodeError::Crowded { digits: length.digits(), tries: TRIES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(digits: u8) -> CodeLength {
        CodeLength::new(digits).unwrap()
    }

    #[test]
    fn codes_have_their_length_and_none_comes_twice_or_is_taken() {
        let mut codes = Codes::new();
        let taken: HashSet<String> = (0..300).map(|n| format!("{n:03}")).collect();
        taken.iter().for_each(|code| codes.avoid(Code::new(code.clone())));
        let drawn: HashSet<String> = (0..400).map(|_| codes.draw(length(3)).unwrap().expose().to_owned()).collect();
        assert_eq!(drawn.len(), 400);
        assert!(drawn.iter().all(|code| code.len() == 3 && !taken.contains(code)));
    }

    fn rest(codes: &mut Codes) -> HashSet<String> {
        std::iter::from_fn(|| codes.draw(length(1)).ok()).map(|code| code.expose().to_owned()).collect()
    }

    #[test]
    fn what_was_rolled_back_is_free_again_and_what_was_kept_is_not() {
        // A hundred tries miss two free ones of ten once in five thousand million.
        let mut codes = Codes::new();
        assert!(rest(&mut codes).len() > 8, "each digit alone is easy, and is drawn");
        codes.next_batch();
        let kept: HashSet<String> = (0..4).map(|_| codes.draw(length(1)).unwrap().expose().to_owned()).collect();
        codes.keep_drawn();
        codes.next_batch();
        let rest = rest(&mut codes);
        assert!(rest.len() > 4 && rest.is_disjoint(&kept), "{} {}", rest.len(), kept.len());
        codes.keep_drawn();
        (0..10).for_each(|n| codes.avoid(Code::new(n.to_string())));
        let told = codes.draw(length(1)).unwrap_err().to_string();
        assert!(told.starts_with("no unused card assignment code of 1 digits"), "{told}");
    }
}
