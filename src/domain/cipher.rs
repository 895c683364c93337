//! Card assignment codes as the print system stores them: encrypted, and the whole in Base64.
//!
//! Cipher, mode and key are not published and differ between products and releases, so that nothing here is a default:
//! `doctor --cac-pair` proves a setting on a code that the print system itself has encrypted. Padding is PKCS#7 throughout.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use aes::{Aes128, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use des::TdesEde3;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::secret::{Code, StoredValue};

/// What makes the stored form of a code.
#[derive(Clone, Debug)]
pub enum CodeCipher {
    BuiltIn(Cipher),
    Command(CipherCommand),
}

/// A program of the administrator's: one code on its standard input, its stored form on its standard output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CipherCommand {
    /// Absolute.
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// For one code; whoever takes longer is killed.
    pub timeout: Duration,
}

/// An algorithm with its key.
#[derive(Clone)]
pub struct Cipher {
    key: CipherKey,
    iv: Iv,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    Aes128Cbc,
    Aes256Cbc,
    Aes128Ecb,
    DesEde3Cbc,
}

/// Where the initialisation vector of a chained mode comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IvKind<'a> {
    /// Drawn for each code, and put before the ciphertext.
    Prefix,
    /// The same for every code, and not stored: one block.
    Fixed(&'a [u8]),
}

/// Why a key or an initialisation vector does not fit the algorithm. Lengths are in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CipherProblem {
    #[error("a key of {found} bytes does not fit {}, which takes {}", algorithm.as_str(), algorithm.key_bytes())]
    Key { algorithm: Algorithm, found: usize },
    #[error("an initialisation vector of {found} bytes does not fit {}, which takes {}", algorithm.as_str(), algorithm.block_bytes())]
    Iv { algorithm: Algorithm, found: usize },
    #[error("{} takes no initialisation vector", algorithm.as_str())]
    NoIv { algorithm: Algorithm },
    #[error("{} takes an initialisation vector", algorithm.as_str())]
    IvMissing { algorithm: Algorithm },
}

/// Why a stored value is not a code that this cipher made. Holds nothing of the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    NotBase64,
    /// What there is to decrypt, in bytes, without the initialisation vector: no whole number of blocks, or none.
    Blocks {
        bytes: usize,
        block: usize,
    },
    /// What comes out does not end as PKCS#7 does.
    Padding,
    /// What comes out is not digits.
    NotDigits,
}

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
enum CipherKey {
    Aes128Cbc([u8; 16]),
    Aes256Cbc([u8; 32]),
    Aes128Ecb([u8; 16]),
    DesEde3Cbc([u8; 24]),
}

/// One block is the first bytes of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
enum Iv {
    /// The mode has none.
    Absent,
    Prefix,
    Fixed([u8; LARGEST_BLOCK]),
}

const LARGEST_BLOCK: usize = 16;
const DES_BLOCK: usize = 8;

impl Algorithm {
    pub const ALL: [Algorithm; 4] = [Algorithm::Aes128Cbc, Algorithm::Aes256Cbc, Algorithm::Aes128Ecb, Algorithm::DesEde3Cbc];

    /// The word for it in the configuration, which is OpenSSL's too.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Aes128Cbc => "aes-128-cbc",
            Algorithm::Aes256Cbc => "aes-256-cbc",
            Algorithm::Aes128Ecb => "aes-128-ecb",
            Algorithm::DesEde3Cbc => "des-ede3-cbc",
        }
    }

    pub fn key_bytes(self) -> usize {
        match self {
            Algorithm::Aes128Cbc | Algorithm::Aes128Ecb => 16,
            Algorithm::Aes256Cbc => 32,
            Algorithm::DesEde3Cbc => 24,
        }
    }

    pub fn block_bytes(self) -> usize {
        match self {
            Algorithm::Aes128Cbc | Algorithm::Aes256Cbc | Algorithm::Aes128Ecb => LARGEST_BLOCK,
            Algorithm::DesEde3Cbc => DES_BLOCK,
        }
    }

    /// Whether blocks are chained, so that an initialisation vector begins the chain.
    pub fn takes_iv(self) -> bool {
        self != Algorithm::Aes128Ecb
    }
}

impl Cipher {
    /// `iv` is for the modes that take one, and `None` for the others.
    ///
    /// # Errors
    /// What does not fit the algorithm.
    pub fn new(algorithm: Algorithm, key: &[u8], iv: Option<IvKind<'_>>) -> Result<Cipher, CipherProblem> {
        let wrong_key = |_| CipherProblem::Key { algorithm, found: key.len() };
        let key = match algorithm {
            Algorithm::Aes128Cbc => CipherKey::Aes128Cbc(key.try_into().map_err(wrong_key)?),
            Algorithm::Aes256Cbc => CipherKey::Aes256Cbc(key.try_into().map_err(wrong_key)?),
            Algorithm::Aes128Ecb => CipherKey::Aes128Ecb(key.try_into().map_err(wrong_key)?),
            Algorithm::DesEde3Cbc => CipherKey::DesEde3Cbc(key.try_into().map_err(wrong_key)?),
        };
        let iv = match iv {
            None if algorithm.takes_iv() => return Err(CipherProblem::IvMissing { algorithm }),
            Some(_) if !algorithm.takes_iv() => return Err(CipherProblem::NoIv { algorithm }),
            None => Iv::Absent,
            Some(IvKind::Prefix) => Iv::Prefix,
            Some(IvKind::Fixed(bytes)) if bytes.len() != algorithm.block_bytes() => {
                return Err(CipherProblem::Iv { algorithm, found: bytes.len() });
            }
            Some(IvKind::Fixed(bytes)) => {
                let mut block = [0; LARGEST_BLOCK];
                block[..bytes.len()].copy_from_slice(bytes);
                Iv::Fixed(block)
            }
        };
        Ok(Cipher { key, iv })
    }

    pub fn algorithm(&self) -> Algorithm {
        match self.key {
            CipherKey::Aes128Cbc(_) => Algorithm::Aes128Cbc,
            CipherKey::Aes256Cbc(_) => Algorithm::Aes256Cbc,
            CipherKey::Aes128Ecb(_) => Algorithm::Aes128Ecb,
            CipherKey::DesEde3Cbc(_) => Algorithm::DesEde3Cbc,
        }
    }

    /// Whether a code has one stored form only, which can be looked for.
    pub fn is_deterministic(&self) -> bool {
        !matches!(self.iv, Iv::Prefix)
    }

    /// The other ciphers that the same key fits, as the configuration writes them: one of them may be what is meant.
    pub fn with_the_same_key(&self) -> Vec<(&'static str, Cipher)> {
        let zeros = Iv::Fixed([0; LARGEST_BLOCK]);
        let other = |written, key: &CipherKey, iv: &Iv| (written, Cipher { key: key.clone(), iv: iv.clone() });
        match &self.key {
            CipherKey::Aes128Cbc(key) | CipherKey::Aes128Ecb(key) => {
                let (cbc, ecb) = (CipherKey::Aes128Cbc(*key), CipherKey::Aes128Ecb(*key));
                vec![
                    other("algorithm: aes-128-cbc, iv: prefix", &cbc, &Iv::Prefix),
                    // Of a code that fits into one block these two make the same.
                    other("algorithm: aes-128-ecb", &ecb, &Iv::Absent),
                    other("algorithm: aes-128-cbc, iv: 32 zeros", &cbc, &zeros),
                ]
            }
            CipherKey::Aes256Cbc(_) => vec![
                other("algorithm: aes-256-cbc, iv: prefix", &self.key, &Iv::Prefix),
                other("algorithm: aes-256-cbc, iv: 32 zeros", &self.key, &zeros),
            ],
            CipherKey::DesEde3Cbc(_) => vec![
                other("algorithm: des-ede3-cbc, iv: prefix", &self.key, &Iv::Prefix),
                other("algorithm: des-ede3-cbc, iv: 16 zeros", &self.key, &zeros),
            ],
        }
    }

    /// The stored form of a code. `drawn` has to be drawn anew for each; only a cipher that is not
    /// [deterministic](Cipher::is_deterministic) looks at it.
    pub fn encrypt(&self, code: &Code, drawn: [u8; LARGEST_BLOCK]) -> StoredValue {
        let iv = match self.iv {
            Iv::Fixed(iv) => iv,
            Iv::Absent | Iv::Prefix => drawn,
        };
        let text = code.expose().as_bytes();
        let sealed = match &self.key {
            CipherKey::Aes128Cbc(key) => cbc::Encryptor::<Aes128>::new(key.into(), &iv.into()).encrypt_padded_vec::<Pkcs7>(text),
            CipherKey::Aes256Cbc(key) => cbc::Encryptor::<Aes256>::new(key.into(), &iv.into()).encrypt_padded_vec::<Pkcs7>(text),
            CipherKey::Aes128Ecb(key) => ecb::Encryptor::<Aes128>::new(key.into()).encrypt_padded_vec::<Pkcs7>(text),
            CipherKey::DesEde3Cbc(key) => {
                cbc::Encryptor::<TdesEde3>::new(key.into(), &first_half(iv).into()).encrypt_padded_vec::<Pkcs7>(text)
            }
        };
        let before: &[u8] = if self.is_deterministic() { &[] } else { &iv[..self.algorithm().block_bytes()] };
        StoredValue::new(STANDARD.encode([before, &sealed].concat()))
    }

    /// The code of a stored value; `None` where this cipher did not make it of digits.
    pub fn decrypt(&self, stored: &StoredValue) -> Option<Code> {
        self.open(stored).ok()
    }

    /// # Errors
    /// How far it got, for somebody who looks for the right setting.
    pub fn open(&self, stored: &StoredValue) -> Result<Code, Unreadable> {
        let bytes = STANDARD.decode(stored.expose()).map_err(|_| Unreadable::NotBase64)?;
        let block = self.algorithm().block_bytes();
        let (iv, sealed) = match self.iv {
            Iv::Absent => ([0; LARGEST_BLOCK], &bytes[..]),
            Iv::Fixed(iv) => (iv, &bytes[..]),
            Iv::Prefix => {
                let (before, sealed) = bytes.split_at_checked(block).ok_or(Unreadable::Blocks { bytes: 0, block })?;
                let mut iv = [0; LARGEST_BLOCK];
                iv[..block].copy_from_slice(before);
                (iv, sealed)
            }
        };
        if sealed.is_empty() || sealed.len() % block != 0 {
            return Err(Unreadable::Blocks { bytes: sealed.len(), block });
        }
        let opened = match &self.key {
            CipherKey::Aes128Cbc(key) => cbc::Decryptor::<Aes128>::new(key.into(), &iv.into()).decrypt_padded_vec::<Pkcs7>(sealed),
            CipherKey::Aes256Cbc(key) => cbc::Decryptor::<Aes256>::new(key.into(), &iv.into()).decrypt_padded_vec::<Pkcs7>(sealed),
            CipherKey::Aes128Ecb(key) => ecb::Decryptor::<Aes128>::new(key.into()).decrypt_padded_vec::<Pkcs7>(sealed),
            CipherKey::DesEde3Cbc(key) => {
                cbc::Decryptor::<TdesEde3>::new(key.into(), &first_half(iv).into()).decrypt_padded_vec::<Pkcs7>(sealed)
            }
        };
        let opened = Zeroizing::new(opened.map_err(|_| Unreadable::Padding)?);
        let digits = !opened.is_empty() && opened.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(&opened).ok().filter(|_| digits).ok_or(Unreadable::NotDigits)?;
        Ok(Code::new(text.to_owned()))
    }
}

impl CodeCipher {
    /// `None`: a command's can only be found out by trying.
    pub fn is_deterministic(&self) -> Option<bool> {
        match self {
            CodeCipher::BuiltIn(cipher) => Some(cipher.is_deterministic()),
            CodeCipher::Command(_) => None,
        }
    }

    /// The word for it in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            CodeCipher::BuiltIn(cipher) => cipher.algorithm().as_str(),
            CodeCipher::Command(_) => "command",
        }
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher({}, …)", self.algorithm().as_str())
    }
}

fn first_half(iv: [u8; LARGEST_BLOCK]) -> [u8; DES_BLOCK] {
    std::array::from_fn(|at| iv[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with the OpenSSL command that stands over each.
    const VECTORS: &str = include_str!("../../tests/data/credentials/openssl.txt");

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    fn algorithm(word: &str) -> Algorithm {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == word).unwrap()
    }

    fn code(digits: &str) -> Code {
        Code::new(digits.to_owned())
    }

    fn stored(text: &str) -> StoredValue {
        StoredValue::new(text.to_owned())
    }

    fn aes(iv: IvKind<'_>) -> Cipher {
        Cipher::new(Algorithm::Aes128Cbc, &[7; 16], Some(iv)).unwrap()
    }

    #[test]
    fn codes_are_stored_as_openssl_encrypts_them() {
        let rows = VECTORS.lines().filter(|line| !line.starts_with('#'));
        let mut seen = 0;
        for row in rows {
            let [word, key, kind, iv, digits, expected] = row.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let (iv, mut drawn) = (bytes(iv.trim_matches('-')), [0; 16]);
            drawn[..iv.len()].copy_from_slice(&iv);
            let kind = match kind {
                "prefix" => Some(IvKind::Prefix),
                "fixed" => Some(IvKind::Fixed(&iv)),
                _ => None,
            };
            let cipher = Cipher::new(algorithm(word), &bytes(key), kind).unwrap();
            assert_eq!(cipher.encrypt(&code(digits), drawn).expose(), expected, "{row}");
            assert_eq!(cipher.decrypt(&stored(expected)), Some(code(digits)), "{row}");
            assert_eq!(cipher.is_deterministic(), kind != Some(IvKind::Prefix));
            seen += 1;
        }
        assert_eq!(seen, 35);
    }

    #[test]
    fn a_fixed_vector_gives_a_code_one_form_and_a_drawn_one_many() {
        let forms = |cipher: Cipher| [1, 2].map(|n| cipher.encrypt(&code("004711"), [n; 16]));
        let [first, second] = forms(aes(IvKind::Fixed(&[9; 16])));
        assert_eq!(first, second);
        let [first, second] = forms(aes(IvKind::Prefix));
        assert_ne!(first, second);
    }

    #[test]
    fn what_the_cipher_did_not_make_is_no_code_and_says_how_far_it_got() {
        let prefix = aes(IvKind::Prefix);
        let made = prefix.encrypt(&code("004711"), [3; 16]);
        let whole = STANDARD.decode(made.expose()).unwrap();
        let told = |cipher: &Cipher, bytes: &[u8]| cipher.open(&stored(&STANDARD.encode(bytes))).unwrap_err();
        assert_eq!(prefix.open(&stored("not base64")), Err(Unreadable::NotBase64));
        assert_eq!(prefix.open(&stored(made.expose().trim_end_matches('='))), Err(Unreadable::NotBase64));
        for (bytes, left) in [(0, 0), (7, 0), (16, 0), (31, 15)] {
            assert_eq!(told(&prefix, &whole[..bytes]), Unreadable::Blocks { bytes: left, block: 16 });
        }
        // The vector taken for ciphertext too: two blocks, of which the second decrypts as before.
        assert_eq!(told(&aes(IvKind::Fixed(&[0; 16])), &whole), Unreadable::NotDigits);
        let other = Cipher::new(Algorithm::Aes128Cbc, &[8; 16], Some(IvKind::Prefix)).unwrap();
        assert!(matches!(told(&other, &whole), Unreadable::Padding | Unreadable::NotDigits));
        assert_eq!(other.decrypt(&made), None);
        let letters = prefix.encrypt(&code("00471a"), [3; 16]);
        assert_eq!(prefix.open(&letters), Err(Unreadable::NotDigits));
        assert_eq!(prefix.open(&prefix.encrypt(&code(""), [3; 16])), Err(Unreadable::NotDigits));
    }

    #[test]
    fn a_key_or_a_vector_that_does_not_fit_is_told_with_what_does() {
        let said = |word, key: usize, iv| Cipher::new(algorithm(word), &vec![1; key], iv).unwrap_err().to_string();
        assert_eq!(said("aes-256-cbc", 16, Some(IvKind::Prefix)), "a key of 16 bytes does not fit aes-256-cbc, which takes 32");
        assert_eq!(
            said("des-ede3-cbc", 24, Some(IvKind::Fixed(&[0; 16]))),
            "an initialisation vector of 16 bytes does not fit des-ede3-cbc, which takes 8"
        );
        assert_eq!(said("aes-128-ecb", 16, Some(IvKind::Prefix)), "aes-128-ecb takes no initialisation vector");
        assert_eq!(said("aes-128-cbc", 16, None), "aes-128-cbc takes an initialisation vector");
    }

    #[test]
    fn no_key_is_shown() {
        let cipher = CodeCipher::BuiltIn(aes(IvKind::Fixed(&[9; 16])));
        assert_eq!(format!("{cipher:?}"), "BuiltIn(Cipher(aes-128-cbc, …))");
    }
}
