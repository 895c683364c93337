//! All PINs of one length, and which of them are free: for when drawing at random keeps hitting PINs that somebody has.
//!
//! One bit a PIN. What the database holds as digits is marked at once; what it holds as a digest is found by hashing every
//! PIN of that length, which takes a few hundredths of a second for six digits on one core and a hundred times that for eight.
//! From then on a draw is exact: uniform over what is free, down to the last one, and then a clear no.

use std::ops::ControlFlow;
use std::thread;

use rand::rngs::SysError;
use rand::rngs::SysRng;
use zeroize::Zeroizing;

use super::below;
use super::cores::cores;
use super::search::{Digests, search};
use crate::domain::pin::{Trace, is_trivial, trace};
use crate::domain::{Pin, PinLength, StoredValue};

/// Longer PINs are never looked through: of 10^9, no site uses so many that drawing at random keeps failing.
pub const LONGEST: u8 = 8;

/// The stored values that matter for one length, while they are read.
pub struct Survey {
    length: PinLength,
    bits: Vec<u64>,
    digests: Vec<u128>,
}

/// Which PINs of one length nobody has.
pub struct Space {
    length: PinLength,
    /// Set: taken, or drawn from here.
    bits: Vec<u64>,
    /// Set: too easy.
    trivial: Vec<u64>,
    /// Drawn, and not yet known to stand in the database.
    drawn: Vec<u64>,
    /// How many were closed since, because nobody may have them yet.
    closed: u64,
}

impl Survey {
    /// `None` where the length is more than [`LONGEST`].
    pub fn new(length: PinLength) -> Option<Survey> {
        (length.digits() <= LONGEST.into()).then(|| Survey { length, bits: blank(length), digests: Vec::new() })
    }

    /// One value of the card column, in whatever form.
    pub fn add(&mut self, stored: &StoredValue) {
        match trace(stored.expose()) {
            Some(Trace::Digits(digits)) if digits.len() == self.length.digits() => {
                if let Ok(number) = digits.parse() {
                    set(&mut self.bits, number);
                }
            }
            Some(Trace::Digest(digest)) => self.digests.push(digest),
            Some(Trace::Digits(_)) | None => {}
        }
    }

    /// Looks which PINs the digests are of, on all cores. Blocks for as long as the module says.
    pub fn finish(self) -> Space {
        let Survey { length, mut bits, digests } = self;
        let digests = Digests::new(digests);
        if !digests.is_empty() {
            let taken = search(length, &digests, &|_| ControlFlow::Continue(())).unwrap_or_default();
            taken.into_iter().for_each(|(_, number)| set(&mut bits, number));
        }
        let mut trivial = blank(length);
        let part = trivial.len().div_ceil(cores()).max(1);
        thread::scope(|scope| {
            for (n, trivial) in trivial.chunks_mut(part).enumerate() {
                scope.spawn(move || mark_trivial(length, (n * part * 64) as u64, trivial));
            }
        });
        Space { length, bits, trivial, drawn: Vec::new(), closed: 0 }
    }
}

/// Marks what is trivial among the PINs from `first` on.
fn mark_trivial(length: PinLength, first: u64, trivial: &mut [u64]) {
    let end = length.space().min(first + 64 * trivial.len() as u64);
    let mut text = Zeroizing::new(format!("{first:0width$}", width = length.digits()).into_bytes());
    for place in 0..end.saturating_sub(first) {
        if is_trivial(&text) {
            set(trivial, place);
        }
        // The next number, as one counts on paper.
        for digit in text.iter_mut().rev() {
            *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
            if *digit != b'0' {
                break;
            }
        }
    }
}

impl Space {
    /// One of the free PINs, each as likely as any other; it is not free from then on. `None`: there is none.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn draw(&mut self, allow_trivial: bool) -> Result<Option<Pin>, SysError> {
        let free = self.free(allow_trivial);
        if free == 0 {
            return Ok(None);
        }
        let mut rank = below(&mut SysRng, free)?;
        for word in 0..self.bits.len() {
            let open = !self.shut(word, allow_trivial);
            let here = u64::from(open.count_ones());
            if rank >= here {
                rank -= here;
                continue;
            }
            // Without its lowest bits, one for each rank below ours.
            let rest = (0..rank).fold(open, |open, _| open & (open - 1));
            let number = word as u64 * 64 + u64::from(rest.trailing_zeros());
            set(&mut self.bits, number);
            self.drawn.push(number);
            return Ok(Some(digits(self.length, number)));
        }
        Ok(None)
    }

    /// How many can still be drawn.
    pub fn free(&self, allow_trivial: bool) -> u64 {
        (0..self.bits.len()).map(|word| u64::from((!self.shut(word, allow_trivial)).count_ones())).sum()
    }

    /// How many somebody has, those included that were drawn.
    pub fn taken(&self) -> u64 {
        self.bits.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() - self.closed
    }

    /// What was drawn stands in the database.
    pub fn keep(&mut self) {
        self.drawn.clear();
    }

    /// What was drawn and not kept stands nowhere.
    pub fn reopen(&mut self) {
        for number in self.drawn.drain(..) {
            if let Some(word) = self.bits.get_mut((number / 64) as usize) {
                *word &= !(1 << (number % 64));
            }
        }
    }

    /// How many were closed.
    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// The next `most` PINs from the number `from` on that can still be drawn, trivial ones too, and the number to go on from;
    /// none at the end.
    pub fn open(&self, from: u64, most: usize) -> (Vec<Pin>, u64) {
        let mut pins = Vec::new();
        let mut number = from;
        while number < self.length.space() && pins.len() < most {
            if self.bits[(number / 64) as usize] & (1 << (number % 64)) == 0 {
                pins.push(digits(self.length, number));
            }
            number += 1;
        }
        (pins, number)
    }

    /// Takes a PIN out that nobody may have yet.
    pub fn close(&mut self, pin: &Pin) {
        if let Ok(number) = pin.expose().parse() {
            set(&mut self.bits, number);
            self.closed += 1;
        }
    }

    fn shut(&self, word: usize, allow_trivial: bool) -> u64 {
        // The last word of all may reach beyond the space; there no PIN is open.
        let beyond = (word as u64 + 1) * 64;
        let outside = match beyond.saturating_sub(self.length.space()) {
            0 => 0,
            too_many => u64::MAX << (64 - too_many.min(64)).min(63),
        };
        self.bits[word] | outside | if allow_trivial { 0 } else { self.trivial[word] }
    }
}

fn blank(length: PinLength) -> Vec<u64> {
    vec![0; (length.space() as usize).div_ceil(64)]
}

fn set(bits: &mut [u64], number: u64) {
    if let Some(word) = bits.get_mut((number / 64) as usize) {
        *word |= 1 << (number % 64);
    }
}

pub(super) fn digits(length: PinLength, number: u64) -> Pin {
    Pin::new(format!("{number:0width$}", width = length.digits()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::PinFormat;

    fn length(digits: u8) -> PinLength {
        PinLength::new(digits).unwrap()
    }

    fn pin(text: &str) -> Pin {
        Pin::new(text.to_owned())
    }

    fn draw_all(space: &mut Space, allow_trivial: bool) -> BTreeSet<String> {
        let mut drawn = BTreeSet::new();
        while let Some(pin) = space.draw(allow_trivial).unwrap() {
            assert!(drawn.insert(pin.expose().to_owned()), "drawn twice");
        }
        drawn
    }

    #[test]
    fn what_stands_in_any_form_is_not_drawn_and_all_else_is_to_the_last() {
        let mut survey = Survey::new(length(3)).unwrap();
        let held = ["042", "137", "958", "604"];
        for (n, held) in held.iter().enumerate() {
            survey.add(&PinFormat::every_form(&pin(held))[n]);
        }
        // Of other lengths, or cards.
        for other in ["0042", "PIN42", "04A1B2C3", "PINEAPPLE"] {
            survey.add(&StoredValue::new(other.to_owned()));
        }
        survey.add(&PinFormat::Md5.encode(&pin("0501")));
        let mut space = survey.finish();
        assert_eq!((space.taken(), space.free(true)), (4, 996));
        let drawn = draw_all(&mut space, true);
        assert_eq!(drawn.len(), 996);
        assert!(held.iter().all(|held| !drawn.contains(*held)));
        assert!(drawn.contains("501") && drawn.contains("000"));
        assert_eq!(space.free(true), 0);
    }

    #[test]
    fn trivial_pins_are_left_where_they_are_refused() {
        let mut space = Survey::new(length(2)).unwrap().finish();
        let drawn = draw_all(&mut space, false);
        assert!(drawn.iter().all(|pin| !is_trivial(pin.as_bytes())));
        let trivial = (0..100).filter(|n| is_trivial(format!("{n:02}").as_bytes())).count();
        assert_eq!(drawn.len(), 100 - trivial);
        assert_eq!(draw_all(&mut space, true).len(), trivial, "whoever allows them gets the rest");
    }

    #[test]
    fn draws_are_uniform_over_what_is_free() {
        // 100 PINs of which 40 are free: each is drawn first as often as any other.
        let mut counts = std::collections::BTreeMap::<String, f64>::new();
        const ROUNDS: usize = 8000;
        let mut survey = Survey::new(length(2)).unwrap();
        (0..60).for_each(|n| survey.add(&PinFormat::Md5.encode(&pin(&format!("{:02}", n * 37 % 100)))));
        let looked = survey.finish();
        for _ in 0..ROUNDS {
            let mut space = Space { bits: looked.bits.clone(), trivial: looked.trivial.clone(), drawn: Vec::new(), ..looked };
            let drawn = space.draw(true).unwrap().unwrap();
            *counts.entry(drawn.expose().to_owned()).or_default() += 1.0;
        }
        assert_eq!(counts.len(), 40);
        let expected = ROUNDS as f64 / 40.0;
        let chi: f64 = counts.values().map(|n| (n - expected).powi(2) / expected).sum();
        assert!(chi < 100.0, "chi-square {chi} with 39 degrees of freedom: above 100 once in ten million");
    }

    #[test]
    fn what_was_drawn_in_vain_can_be_drawn_again_and_what_was_kept_cannot() {
        let mut space = Survey::new(length(1)).unwrap().finish();
        (0..6).for_each(|_| assert!(space.draw(true).unwrap().is_some()));
        space.keep();
        assert_eq!(draw_all(&mut space, true).len(), 4);
        assert_eq!((space.free(true), space.taken()), (0, 10));
        space.reopen();
        assert_eq!((space.free(true), space.taken()), (4, 6));
        space.reopen();
        assert_eq!(draw_all(&mut space, true).len(), 4);
    }

    #[test]
    fn what_is_closed_is_not_drawn() {
        let mut space = Survey::new(length(2)).unwrap().finish();
        let (first, next) = space.open(0, 60);
        assert_eq!((first.len(), first[0].expose(), next), (60, "00", 60));
        first.iter().for_each(|pin| space.close(pin));
        let (rest, next) = space.open(next, 60);
        assert_eq!((rest.len(), next, space.open(next, 60).0.len(), space.closed()), (40, 100, 0, 60));
        assert_eq!(draw_all(&mut space, true), rest.iter().map(|pin| pin.expose().to_owned()).collect());
    }

    #[test]
    fn a_length_that_is_no_multiple_of_a_word_has_no_pins_beyond_its_end() {
        let mut space = Survey::new(length(1)).unwrap().finish();
        assert_eq!(space.free(true), 10);
        assert_eq!(draw_all(&mut space, true).len(), 10);
        assert!(Survey::new(length(9)).is_none());
    }
}
