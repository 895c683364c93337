//! Draws passwords, and hashes a whole batch of them on all cores: bcrypt takes a quarter of a second for each, on purpose.

use rand::rngs::{SysError, SysRng};
use rand::{TryCryptoRng, TryRng};
use zeroize::Zeroizing;

pub use super::cores::Watch;
use super::cores::on_all_cores;
use crate::domain::encoding::TooLong;
use crate::domain::{Alphabet, Password, PasswordEncoding, PasswordLength, StoredValue};

/// Why passwords were not hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("drawing a random salt failed")]
    Random(#[source] SysError),
    #[error("a password cannot be hashed")]
    TooLong(#[from] TooLong),
    #[error("the hashing of passwords was stopped")]
    Stopped,
}

/// A password of this length, each character as likely as any other of the alphabet.
///
/// # Errors
/// When the operating system gives no random numbers.
pub fn draw(length: PasswordLength, alphabet: &Alphabet) -> Result<Password, SysError> {
    characters(&mut SysRng, length, alphabet)
}

fn characters<R: TryRng + TryCryptoRng>(random: &mut R, length: PasswordLength, alphabet: &Alphabet) -> Result<Password, R::Error> {
    let all = alphabet.characters();
    // Bytes of a last, incomplete round over the alphabet are thrown away, since they would favour its begin.
    let even = 256 - 256 % all.len();
    let mut text = String::with_capacity(length.characters());
    let mut bytes = Zeroizing::new([0u8; 64]);
    while text.len() < length.characters() {
        random.try_fill_bytes(&mut bytes[..])?;
        let wanted = length.characters() - text.len();
        let fair = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < even);
        text.extend(fair.take(wanted).map(|byte| char::from(all[byte % all.len()])));
    }
    Ok(Password::new(text))
}

/// The stored forms, in the order of the passwords, each with a salt of its own. Blocks, with bcrypt for a quarter of a second
/// a password and core: the place for it is a thread where blocking is allowed. `watch` hears how many are done and can stop it.
///
/// # Errors
/// When it was stopped, when one is too long for bcrypt, or when the operating system gives no random numbers.
pub fn encode_all(encoding: PasswordEncoding, passwords: &[Password], watch: Watch<'_>) -> Result<Vec<StoredValue>, HashError> {
    let one = |piece: u64| {
        let mut salt = [0; 16];
        SysRng.try_fill_bytes(&mut salt).map_err(HashError::Random)?;
        Ok(encoding.encode(&passwords[piece as usize], salt)?)
    };
    on_all_cores(passwords.len() as u64, watch, one).ok_or(HashError::Stopped)?.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};
    use std::ops::ControlFlow;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::domain::encoding::BcryptCost;

    fn length(characters: u8) -> PasswordLength {
        PasswordLength::new(characters).unwrap()
    }

    const CHEAP: u8 = 4;

    fn bcrypt() -> PasswordEncoding {
        PasswordEncoding::Bcrypt { cost: BcryptCost::new(CHEAP).unwrap() }
    }

    #[test]
    fn passwords_have_their_length_and_come_from_the_alphabet() {
        let alphabet = Alphabet::new("ab7!").unwrap();
        for wanted in [4, 12, 64] {
            let password = draw(length(wanted), &alphabet).unwrap();
            assert_eq!(password.expose().len(), usize::from(wanted));
            assert!(password.expose().chars().all(|c| "ab7!".contains(c)));
        }
        let many: HashSet<Password> = (0..1000).map(|_| draw(length(12), &Alphabet::unambiguous()).unwrap()).collect();
        assert_eq!(many.len(), 1000);
    }

    #[test]
    fn every_character_is_equally_likely() {
        // With 94 characters two rounds fit into a byte, with 56 four, with 2 all: each begin would be favoured by a remainder.
        let every: String = ('!'..='~').collect();
        for alphabet in [Alphabet::new(&every).unwrap(), Alphabet::unambiguous(), Alphabet::new("ab").unwrap()] {
            let mut counts = BTreeMap::<char, f64>::new();
            const ROUNDS: usize = 4000;
            for _ in 0..ROUNDS {
                draw(length(64), &alphabet).unwrap().expose().chars().for_each(|c| *counts.entry(c).or_default() += 1.0);
            }
            let n = alphabet.characters().len() as f64;
            let expected = ROUNDS as f64 * 64.0 / n;
            let chi: f64 = counts.values().map(|seen| (seen - expected).powi(2) / expected).sum();
            assert_eq!(counts.len() as f64, n);
            // Six standard deviations above the mean; for one degree of freedom once in a hundred million.
            assert!(chi < n - 1.0 + 6.0 * (2.0 * n).sqrt() + 20.0, "chi-square {chi} with {n} characters");
        }
    }

    #[test]
    fn a_batch_comes_back_in_its_order_with_a_salt_for_each() {
        let passwords: Vec<Password> = (0..40).map(|n| Password::new(format!("secret-{}", n / 2))).collect();
        let done = AtomicU64::new(0);
        let watch = |_| {
            done.fetch_add(1, Ordering::Relaxed);
            ControlFlow::Continue(())
        };
        let stored = encode_all(bcrypt(), &passwords, &watch).unwrap();
        assert_eq!((stored.len(), done.into_inner()), (40, 40));
        assert_eq!(stored.iter().collect::<HashSet<_>>().len(), 40, "equal passwords have different forms");
        for (password, stored) in passwords.iter().zip(&stored) {
            assert_eq!(bcrypt::verify(password.expose(), stored.expose()).ok(), Some(true));
        }
    }

    #[test]
    fn a_batch_can_be_stopped_and_one_that_is_too_long_is_told() {
        let passwords = vec![Password::new("hunter2".to_owned()); 500];
        let stop = |done| if done >= 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        assert!(matches!(encode_all(bcrypt(), &passwords, &stop), Err(HashError::Stopped)));
        let long = [Password::new("x".repeat(72))];
        assert!(matches!(encode_all(bcrypt(), &long, &|_| ControlFlow::Continue(())), Err(HashError::TooLong(_))));
    }
}
