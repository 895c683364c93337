//! Recovers PINs that exist from their stored form, to mail them to those who have them (product rule R16).
//!
//! Where the digits are stored, they are read. Where their digest is stored, all PINs of a length are hashed and looked up among
//! the digests of the whole batch: one pass, whether one PIN is wanted or a hundred thousand.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::cores::Watch;
use super::search::{Digests, search};
use super::space::digits;
use crate::domain::pin::{Trace, trace};
use crate::domain::{Pin, PinFormat, PinLength, StoredValue};

/// Nobody is told what was found up to then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the recovery of PINs was stopped")]
pub struct Stopped;

/// PINs of so many digits are looked for whatever the policy's length: hashing all of them takes a hundredth of a second.
pub const SHORT: u8 = 6;

/// The lengths to look for: the policies' own, and the short ones, which cost nothing. A PIN may be older than its policy.
pub fn lengths(own: impl IntoIterator<Item = PinLength>) -> Vec<PinLength> {
    (1..=SHORT).filter_map(PinLength::new).chain(own).collect()
}

/// Which PIN each stored value is, in their order; `None` for a card, and for the digest of a PIN that has none of the `lengths`.
/// Lengths of more than [`LONGEST`](super::space::LONGEST) digits are not looked through.
///
/// Blocks, on all cores: a hundredth of a second for six digits, a second or two for eight. `watch` hears how many parts of the
/// pass in hand are done, and can stop it every few milliseconds.
///
/// # Errors
/// When it was stopped.
pub fn recover(format: PinFormat, stored: &[StoredValue], lengths: &[PinLength], watch: Watch<'_>) -> Result<Vec<Option<Pin>>, Stopped> {
    match format {
        PinFormat::Prefix => Ok(stored.iter().map(|value| read(format, value.expose(), "PIN")).collect()),
        PinFormat::Plain { .. } => Ok(stored.iter().map(|value| read(format, value.expose(), "")).collect()),
        PinFormat::Md5 | PinFormat::Md5WithoutPrefix => {
            let digests: Vec<Option<u128>> = stored.iter().map(|value| digest(format, value.expose())).collect();
            let pins = pins(digests.iter().flatten().copied().collect(), lengths, watch)?;
            Ok(digests.iter().map(|digest| digest.and_then(|digest| pins.get(&digest).cloned())).collect())
        }
    }
}

fn read(format: PinFormat, stored: &str, before: &str) -> Option<Pin> {
    let digits = stored.strip_prefix(before).filter(|_| format.is_pin(stored))?;
    Some(Pin::new(digits.to_owned()))
}

fn digest(format: PinFormat, stored: &str) -> Option<u128> {
    match trace(stored).filter(|_| format.is_pin(stored))? {
        Trace::Digest(digest) => Some(digest),
        Trace::Digits(_) => None,
    }
}

fn pins(mut wanted: HashSet<u128>, lengths: &[PinLength], watch: Watch<'_>) -> Result<HashMap<u128, Pin>, Stopped> {
    let mut pins = HashMap::new();
    // The short ones first: they cost nothing.
    let lengths: BTreeSet<PinLength> = lengths.iter().copied().collect();
    for length in lengths {
        if wanted.is_empty() {
            break;
        }
        let digests = Digests::new(wanted.iter().copied());
        for (digest, number) in search(length, &digests, watch).ok_or(Stopped)? {
            wanted.remove(&digest);
            pins.insert(digest, digits(length, number));
        }
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn go_on(_: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn length(digits: u8) -> PinLength {
        PinLength::new(digits).unwrap()
    }

    fn value(text: &str) -> StoredValue {
        StoredValue::new(text.to_owned())
    }

    fn recovered(format: PinFormat, stored: &[StoredValue], lengths: &[u8]) -> Vec<Option<String>> {
        let lengths: Vec<PinLength> = lengths.iter().map(|digits| length(*digits)).collect();
        let pins = recover(format, stored, &lengths, &go_on).unwrap();
        pins.into_iter().map(|pin| pin.map(|pin| pin.expose().to_owned())).collect()
    }

    #[test]
    fn every_pin_of_a_batch_is_found_whatever_its_length() {
        let pins = ["0", "07", "471", "0815", "00000", "004711", "999999", "0000123", "000000", "004711"];
        for format in [PinFormat::Md5, PinFormat::Md5WithoutPrefix, PinFormat::Prefix, PinFormat::Plain { max_length: 8 }] {
            let stored: Vec<StoredValue> = pins.iter().map(|pin| format.encode(&Pin::new((*pin).to_owned()))).collect();
            let found = recovered(format, &stored, &[1, 2, 3, 4, 5, 6, 7, 6]);
            assert_eq!(found, pins.iter().map(|pin| Some((*pin).to_owned())).collect::<Vec<_>>(), "{}", format.as_str());
        }
    }

    #[test]
    fn the_last_pin_of_eight_digits_is_found() {
        let stored = [PinFormat::Md5.encode(&Pin::new("99999999".to_owned()))];
        // Of the hundred million only the end: all of them take a debug build too long.
        let digests = Digests::new([digest(PinFormat::Md5, stored[0].expose()).unwrap()]);
        let hasher = crate::mint::lanes::Hasher::new(length(8), crate::mint::lanes::Width::widest()).unwrap();
        let mut found = Vec::new();
        hasher.block(hasher.blocks() - 1, |number, words| found.extend(digests.has(words).then_some(number)));
        assert_eq!(found, [99_999_999]);
    }

    #[test]
    fn what_is_no_pin_of_these_lengths_stays_unknown() {
        let six = PinFormat::Md5.encode(&Pin::new("004711".to_owned()));
        let stored = [six, value("04A1B2C3D4"), value(""), value("PIN1234"), value("PIN00000000000000000000000000000000")];
        let found = recovered(PinFormat::Md5, &stored, &[4, 6]);
        assert_eq!(found, [Some("004711".to_owned()), None, None, None, None]);
        assert_eq!(recovered(PinFormat::Md5, &stored, &[4, 5, 9, 16]), vec![None; 5]);
        assert_eq!(recovered(PinFormat::Md5WithoutPrefix, &stored, &[6]), vec![None; 5], "with a prefix it is a card there");
        assert_eq!(
            recovered(PinFormat::Plain { max_length: 6 }, &[value("1234567"), value("123456")], &[]),
            [None, Some("123456".to_owned())]
        );
        // 32 digits read as a digest too; in this form they are digits.
        let many = "1".repeat(32);
        assert_eq!(recovered(PinFormat::Prefix, &[value(&format!("PIN{many}"))], &[]), [Some(many)]);
        assert!(recovered(PinFormat::Md5, &[], &[6]).is_empty());
    }

    #[test]
    fn a_pass_can_be_stopped_and_ends_early_once_all_are_found() {
        let absent = [value("PIN00000000000000000000000000000000")];
        let looks = AtomicU64::new(0);
        let stop = |_| {
            looks.fetch_add(1, Ordering::Relaxed);
            ControlFlow::Break(())
        };
        assert_eq!(recover(PinFormat::Md5, &absent, &[length(8)], &stop), Err(Stopped));
        assert!(looks.into_inner() <= std::thread::available_parallelism().unwrap().get() as u64);
        // A hundred million would take a debug build minutes.
        let first = [PinFormat::Md5.encode(&Pin::new("00000001".to_owned()))];
        assert_eq!(recovered(PinFormat::Md5, &first, &[8]), [Some("00000001".to_owned())]);
    }

    #[test]
    fn twenty_thousand_are_found_in_one_pass() {
        let pins: Vec<String> = (0..20_000u64).map(|n| format!("{:06}", n * 7_919 % 1_000_000)).collect();
        let stored: Vec<StoredValue> = pins.iter().map(|pin| PinFormat::Md5.encode(&Pin::new(pin.clone()))).collect();
        let parts = AtomicU64::new(0);
        let watch = |_| {
            parts.fetch_add(1, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        let found = recover(PinFormat::Md5, &stored, &[length(6)], &watch).unwrap();
        assert!(found.iter().zip(&pins).all(|(found, pin)| found.as_ref().is_some_and(|found| found.expose() == pin)));
        assert_eq!(parts.into_inner(), 10, "a tenth of the space a part, and each once");
    }
}
