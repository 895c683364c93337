//! Draws new credentials from the operating system's generator, in batches: no query for each PIN. Whether a drawn PIN is
//! free is decided by the statement that inserts it; here it is made unpredictable, unbiased, not trivial and unique
//! within its batch (product rule R7).
//!
//! Drawing at random is all that is needed while most PINs are free. Once it has failed, [`space`] is asked which ones are
//! (R8).

use std::collections::{BTreeMap, HashSet};

use rand::rngs::SysError;
use rand::rngs::SysRng;
use rand::{TryCryptoRng, TryRng};

use crate::domain::pin::is_trivial;
use crate::domain::{Mailbox, PassId, Pin, PinLength};
use crate::policy::PinRule;

pub mod cipher;
pub mod code;
pub mod cores;
mod lanes;
pub mod password;
pub mod recovery;
mod search;
pub mod space;

use code::Codes;
use password::HashError;
use space::Space;

/// Why no PIN could be drawn.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// Nothing is known of the space yet: it may only seem to be full.
    #[error("no unused PIN of {digits} digits was found in {tries} tries")]
    Crowded { digits: usize, tries: u32 },
    /// All were looked at, and none is free.
    #[error(
        "none of the {space} PINs of {digits} digits is free: {taken} are taken, {quarantined} are in quarantine, and the others are too easy"
    )]
    Full { digits: usize, space: u64, taken: u64, quarantined: u64 },
    #[error("drawing random digits failed")]
    Random(#[source] SysError),
    #[error("no password could be made")]
    Password(#[source] HashError),
}

/// Draws PINs and codes for one pass, none of them twice in a batch, repeated draws after a collision included.
#[derive(Default)]
pub struct Mint {
    /// In the batch in hand.
    drawn: HashSet<Pin>,
    /// Of which lengths it is known what is free.
    spaces: BTreeMap<PinLength, Space>,
    pub codes: Codes,
    /// All stored codes are among those that `codes` avoids.
    pub knows_codes: bool,
}

/// Draws for one PIN before the space counts as crowded. With half of a space used up, all of them miss once in 10^30.
const TRIES: u32 = 100;

impl Mint {
    pub fn new() -> Mint {
        Mint::default()
    }

    /// From here on PINs that were drawn before may be drawn again, unless they were [kept](Mint::keep_drawn): the batch
    /// that they were drawn for was rolled back.
    pub fn next_batch(&mut self) {
        self.drawn.clear();
        self.codes.next_batch();
        self.spaces.values_mut().for_each(Space::reopen);
    }

    /// What was drawn since the last batch stands in the database now.
    pub fn keep_drawn(&mut self) {
        self.codes.keep_drawn();
        self.spaces.values_mut().for_each(Space::keep);
    }

    /// Draws PINs of this length from what is free, from now on.
    pub fn know(&mut self, length: PinLength, space: Space) {
        self.spaces.insert(length, space);
    }

    /// # Errors
    /// [`MintError::Full`] when there is none; [`MintError::Crowded`] when the batch alone nearly fills a space of which
    /// nothing is known.
    pub fn pin(&mut self, rule: &PinRule) -> Result<Pin, MintError> {
        if let Some(space) = self.spaces.get_mut(&rule.length) {
            let (digits, all) = (rule.length.digits(), rule.length.space());
            let full = MintError::Full { digits, space: all, taken: space.taken(), quarantined: space.closed() };
            return space.draw(rule.allow_trivial).map_err(MintError::Random)?.ok_or(full);
        }
        for _ in 0..TRIES {
            let digits = digits(&mut SysRng, rule.length.digits()).map_err(MintError::Random)?;
            if !rule.allow_trivial && is_trivial(digits.as_bytes()) {
                continue;
            }
            let pin = Pin::new(digits);
            if self.drawn.insert(pin.clone()) {
                return Ok(pin);
            }
        }
        Err(MintError::Crowded { digits: rule.length.digits(), tries: TRIES })
    }
}

/// A number below `bound`, each as likely: what does not fit a whole number of times into 2^64 is thrown away.
fn below<R: TryRng + TryCryptoRng>(random: &mut R, bound: u64) -> Result<u64, R::Error> {
    let bound = bound.max(1);
    let even = u64::MAX - u64::MAX % bound;
    loop {
        let number = random.try_next_u64()?;
        if number < even {
            return Ok(number % bound);
        }
    }
}

/// Decimal digits without bias: bytes of 250 and more are thrown away, since 256 is no multiple of 10.
fn digits<R: TryRng + TryCryptoRng>(random: &mut R, count: usize) -> Result<String, R::Error> {
    let mut digits = String::with_capacity(count);
    let mut bytes = [0u8; 24];
    while digits.len() < count {
        random.try_fill_bytes(&mut bytes)?;
        let wanted = count - digits.len();
        digits.extend(bytes.iter().filter(|b| **b < 250).take(wanted).map(|b| char::from(b'0' + b % 10)));
    }
    zeroize::Zeroize::zeroize(&mut bytes);
    Ok(digits)
}

/// The name of a new pass.
pub fn pass_id() -> PassId {
    PassId(format!("{:016x}", rand::random::<u64>()))
}

/// A Message-ID without its angle brackets, in the sender's domain: 128 random bits, never used twice.
pub fn message_id(sender: &Mailbox) -> String {
    let domain = sender.address().rsplit('@').next().unwrap_or_default();
    format!("{:032x}@{domain}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(length: u8, allow_trivial: bool) -> PinRule {
        PinRule { allow_trivial, ..crate::policy::samples::rule(length) }
    }

    #[test]
    fn pins_have_their_length_and_are_unique_in_a_batch() {
        let mut mint = Mint::new();
        let pins: Vec<Pin> = (0..600).map(|_| mint.pin(&rule(3, false)).unwrap()).collect();
        assert!(pins.iter().all(|p| p.expose().len() == 3 && !is_trivial(p.expose().as_bytes())));
        assert_eq!(pins.iter().collect::<HashSet<_>>().len(), 600);
    }

    #[test]
    fn a_batch_that_fills_its_space_is_told_so() {
        let mut mint = Mint::new();
        let drawn = (0..1000).map_while(|_| mint.pin(&rule(2, true)).ok()).count();
        assert!((80..=100).contains(&drawn), "{drawn}");
    }

    #[test]
    fn every_digit_is_equally_likely_at_every_place() {
        // Chi-square with 9 degrees of freedom: above 50 once in ten million, for each of the eight places.
        let mut counts = [[0f64; 10]; 8];
        for _ in 0..20_000 {
            for (place, digit) in digits(&mut SysRng, 8).unwrap().bytes().enumerate() {
                counts[place][usize::from(digit - b'0')] += 1.0;
            }
        }
        for place in counts {
            let chi: f64 = place.iter().map(|n| (n - 2000.0).powi(2) / 2000.0).sum();
            assert!(chi < 50.0, "{chi}");
        }
    }
}
