//! Passwords as the print system stores them.
//!
//! What is known of the layouts: bcrypt stands bare, as `$2a$12$…`, in the vendor's own installation scripts. **The layouts with
//! MD5 are guesses**: that the print system takes MD5 where `allowMD5PasswordEncoder` is on is documented, what it expects then
//! is not. [`Md5`](PasswordEncoding::Md5) is the best reading, since the stored PINs are lower-case hex too; the others are
//! what else is in use. Before it is relied on, one user has to log in with it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bcrypt::Version;
use md5::{Digest, Md5};

use super::secret::{Password, StoredValue};

/// How a password stands in the users' table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PasswordEncoding {
    /// `$2a$`, the cost, 22 characters of salt, 31 of the hash.
    Bcrypt { cost: BcryptCost },
    /// Lower-case hex, no salt, no marker.
    Md5,
    /// Upper-case hex.
    Md5Upper,
    /// Base64 of the 16 bytes.
    Md5Base64,
    /// `{MD5}` and the Base64, as in directories (RFC 2307).
    Md5Ldap,
}

/// The work of one bcrypt hash: 2^cost rounds. 4 to 15; at 12 a quarter of a second on one core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BcryptCost(u8);

impl BcryptCost {
    pub const MIN: u8 = 4;
    pub const MAX: u8 = 15;
    /// What the print system itself uses.
    pub const DEFAULT: BcryptCost = BcryptCost(12);

    pub fn new(cost: u8) -> Option<BcryptCost> {
        (Self::MIN..=Self::MAX).contains(&cost).then_some(BcryptCost(cost))
    }

    pub fn get(self) -> u8 {
        self.0
    }
}

/// bcrypt would look at the first 72 bytes only, of which one ends the text: two passwords would be as good as one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a password of {bytes} bytes is longer than the 71 that bcrypt looks at")]
pub struct TooLong {
    bytes: usize,
}

impl Default for PasswordEncoding {
    fn default() -> PasswordEncoding {
        PasswordEncoding::Bcrypt { cost: BcryptCost::DEFAULT }
    }
}

impl PasswordEncoding {
    /// The word for it in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            PasswordEncoding::Bcrypt { .. } => "bcrypt",
            PasswordEncoding::Md5 => "md5",
            PasswordEncoding::Md5Upper => "md5_upper",
            PasswordEncoding::Md5Base64 => "md5_base64",
            PasswordEncoding::Md5Ldap => "md5_ldap",
        }
    }

    /// Whether the print system takes it only once it is told to, by `allowMD5PasswordEncoder`.
    pub fn is_md5(self) -> bool {
        !matches!(self, PasswordEncoding::Bcrypt { .. })
    }

    /// The stored form. Only bcrypt takes the `salt`, which has to be drawn for each password.
    ///
    /// # Errors
    /// [`TooLong`] for bcrypt; no password of a [`PasswordLength`](super::PasswordLength) is.
    pub fn encode(self, password: &Password, salt: [u8; 16]) -> Result<StoredValue, TooLong> {
        let text = password.expose();
        let md5 = || Md5::digest(text.as_bytes());
        let base64 = || STANDARD.encode(md5());
        Ok(StoredValue::new(match self {
            PasswordEncoding::Bcrypt { cost } => bcrypt::non_truncating_hash_with_salt(text, cost.0.into(), salt)
                .map_err(|_| TooLong { bytes: text.len() })?
                .format_for_version(Version::TwoA),
            PasswordEncoding::Md5 => format!("{:032x}", u128::from_be_bytes(md5().into())),
            PasswordEncoding::Md5Upper => format!("{:032X}", u128::from_be_bytes(md5().into())),
            PasswordEncoding::Md5Base64 => base64(),
            PasswordEncoding::Md5Ldap => format!("{{MD5}}{}", base64()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by other programs, with the command that stands over each.
    const VECTORS: &str = include_str!("../../tests/data/credentials/passwords.txt");

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[test]
    fn passwords_are_stored_as_other_programs_hash_them() {
        let mut seen = 0;
        for row in VECTORS.lines().filter(|line| !line.starts_with('#')) {
            let [encoding, text, expected] = row.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let mut salt = [0; 16];
            let encoding = match encoding.split_once(' ') {
                Some((_, cost)) => {
                    salt = expected.parse::<bcrypt::HashParts>().unwrap().get_salt_raw();
                    PasswordEncoding::Bcrypt { cost: BcryptCost::new(cost.parse().unwrap()).unwrap() }
                }
                None => *[PasswordEncoding::Md5, PasswordEncoding::Md5Upper, PasswordEncoding::Md5Base64, PasswordEncoding::Md5Ldap]
                    .iter()
                    .find(|known| known.as_str() == encoding)
                    .unwrap(),
            };
            assert_eq!(encoding.encode(&password(text), salt).unwrap().expose(), expected, "{row}");
            seen += 1;
        }
        assert_eq!(seen, 25);
    }

    #[test]
    fn a_password_that_bcrypt_would_cut_is_refused() {
        let cheap = PasswordEncoding::Bcrypt { cost: BcryptCost::new(4).unwrap() };
        assert!(cheap.encode(&password(&"a".repeat(71)), [0; 16]).is_ok());
        let told = cheap.encode(&password(&"a".repeat(72)), [0; 16]).unwrap_err();
        assert_eq!(told.to_string(), "a password of 72 bytes is longer than the 71 that bcrypt looks at");
        assert!(usize::from(super::super::PasswordLength::MAX) <= 71);
    }

    #[test]
    fn the_salt_is_what_makes_two_forms_differ() {
        let cheap = PasswordEncoding::Bcrypt { cost: BcryptCost::new(4).unwrap() };
        let encode = |n| cheap.encode(&password("hunter2"), [n; 16]).unwrap();
        assert_ne!(encode(1), encode(2));
        assert_eq!(encode(1), encode(1));
        assert!(BcryptCost::new(3).is_none() && BcryptCost::new(16).is_none());
        assert_eq!(PasswordEncoding::default(), PasswordEncoding::Bcrypt { cost: BcryptCost::new(12).unwrap() });
    }
}
