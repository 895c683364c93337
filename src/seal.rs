//! Encryption at rest and keyed fingerprints.
//!
//! One master key lies in a file of its own, away from what it protects. Each purpose gets a key derived from it, so that a
//! value sealed for one purpose never opens for another. Sealed values are XChaCha20-Poly1305 (a random 24-byte nonce is
//! safe for any number of messages) and bound to the place where they stand: whoever can write the file but has no key
//! cannot move a value from one row to another.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::domain::{Key, StoredValue, UserId};

/// First byte of a sealed value: which construction it is, so that a later one can live beside it.
const XCHACHA20_POLY1305: u8 = 1;
const NONCE: usize = 24;
const TAG: usize = 16;

/// Seals and opens values under one key.
#[derive(Clone)]
pub(crate) struct Sealer(XChaCha20Poly1305);

/// Why a value could not be sealed or opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SealError {
    #[error("the operating system gave no random numbers")]
    NoRandomness,
    #[error("the value is too long to be sealed")]
    TooLong,
    /// Wrong key, wrong place, or changed bytes: these cannot be told apart, on purpose.
    #[error("a sealed value does not open: wrong key, or the value was altered or moved")]
    DoesNotOpen,
}

impl Sealer {
    pub(crate) fn new(key: Key) -> Sealer {
        Sealer(XChaCha20Poly1305::new(&(*key.expose()).into()))
    }

    /// `aad` names the place where the value will stand; only there does it open.
    ///
    /// # Errors
    /// No randomness for the nonce.
    pub(crate) fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        SysRng.try_fill_bytes(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let mut sealed = Vec::with_capacity(1 + NONCE + plaintext.len() + TAG);
        sealed.push(XCHACHA20_POLY1305);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        match self.0.encrypt_inout_detached(&XNonce::from(nonce), aad, (&mut sealed[1 + NONCE..]).into()) {
            Ok(tag) => {
                sealed.extend_from_slice(&tag);
                Ok(sealed)
            }
            Err(_) => {
                sealed.zeroize();
                Err(SealError::TooLong)
            }
        }
    }

    /// # Errors
    /// The value was sealed with another key or for another place, or is damaged.
    pub(crate) fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let [XCHACHA20_POLY1305, rest @ ..] = sealed else { return Err(SealError::DoesNotOpen) };
        let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(SealError::DoesNotOpen)?;
        let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(SealError::DoesNotOpen)?;
        let mut plaintext = Zeroizing::new(body.to_vec());
        self.0
            .decrypt_inout_detached(&XNonce::from(*nonce), aad, plaintext.as_mut_slice().into(), &Tag::from(*tag))
            .map_err(|_| SealError::DoesNotOpen)?;
        Ok(plaintext)
    }
}

/// A key of its own for each purpose: HMAC-SHA256 of the purpose under the master key.
pub(crate) fn derive(master: &Key, purpose: &str) -> Key {
    let mut bytes: [u8; 32] = keyed(master).chain_update(purpose.as_bytes()).finalize().into_bytes().into();
    let key = Key::new(bytes);
    bytes.zeroize();
    key
}

/// Says whether two stored values are the same without holding either: HMAC-SHA256 over database, user and value, cut to 128
/// bits. Without the key, not even a four-digit PIN can be found by trying all of them.
#[derive(Clone)]
pub(crate) struct Fingerprints(Hmac<Sha256>);

impl Fingerprints {
    pub(crate) fn new(key: &Key) -> Fingerprints {
        Fingerprints(keyed(key))
    }

    /// `database` is any text that names the database for good.
    pub(crate) fn of(&self, database: &str, user: UserId, stored: &StoredValue) -> [u8; 16] {
        // The length in front keeps two different triples from running together into the same bytes.
        let mac = self
            .0
            .clone()
            .chain_update((database.len() as u64).to_be_bytes())
            .chain_update(database.as_bytes())
            .chain_update(user.0.to_be_bytes())
            .chain_update(stored.expose().as_bytes());
        let whole: [u8; 32] = mac.finalize().into_bytes().into();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        half
    }
}

fn keyed(key: &Key) -> Hmac<Sha256> {
    // HMAC takes keys of any length; 32 bytes are exactly half a block.
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key.expose());
    Hmac::<Sha256>::new(&(*block).into())
}

/// Why a key file is of no use. Never holds what was in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("cannot read the key file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the key file {} does not hold 64 hexadecimal digits", path.display())]
    Malformed { path: PathBuf },
    #[error("cannot write the key file {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot make a key, because the operating system gave no random numbers")]
    NoRandomness,
}

/// Reads a key file: 64 hexadecimal digits, blanks around them allowed. `None` if there is no such file.
pub(crate) fn read_key(path: &Path) -> Result<Option<Key>, KeyFileError> {
    let text = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(KeyFileError::Read { path: path.to_owned(), source }),
    };
    key_from_hex(text.trim_ascii()).map(Some).ok_or_else(|| KeyFileError::Malformed { path: path.to_owned() })
}

/// Makes a key and its file, readable by the owner only. The file appears whole or not at all: it is written under another
/// name, flushed, and renamed. The caller has made sure that nobody else does the same.
pub(crate) fn make_key(path: &Path) -> Result<Key, KeyFileError> {
    let mut bytes = Zeroizing::new([0; 32]);
    SysRng.try_fill_bytes(bytes.as_mut_slice()).map_err(|_| KeyFileError::NoRandomness)?;
    let mut text = Zeroizing::new(Vec::with_capacity(65));
    for byte in bytes.iter() {
        for nibble in [byte >> 4, byte & 15] {
            text.push(b"0123456789abcdef"[usize::from(nibble)]);
        }
    }
    text.push(b'\n');
    let unfinished = suffixed(path, ".new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = create_private(&unfinished)?;
        file.write_all(&text)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&unfinished, path)?;
        sync_directory(path)
    };
    write().map_err(|source| KeyFileError::Write { path: path.to_owned(), source })?;
    Ok(Key::new(*bytes))
}

fn key_from_hex(digits: &[u8]) -> Option<Key> {
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| (digit as char).to_digit(16).map(|v| v as u8);
    let mut bytes = Zeroizing::new([0; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(Key::new(*bytes))
}

/// Creates a file that must not exist yet, for the owner only. On Windows the directory's access list decides.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a new or renamed file's *name* durable; Windows does that with the file.
pub(crate) fn sync_directory(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()?;
    }
    let _ = file;
    Ok(())
}

/// `journal.db` and `.lock` give `journal.db.lock`.
pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(Key::new([byte; 32]))
    }

    fn stored(text: &str) -> StoredValue {
        StoredValue::new(text.to_owned())
    }

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let sealed = sealer(1).seal(b"row 7", b"123456").unwrap();
        assert_eq!(sealer(1).open(b"row 7", &sealed).unwrap().as_slice(), b"123456");
        assert_eq!(sealer(1).open(b"row 8", &sealed), Err(SealError::DoesNotOpen), "moved to another row");
        assert_eq!(sealer(2).open(b"row 7", &sealed), Err(SealError::DoesNotOpen), "another key");
    }

    #[test]
    fn no_bit_can_be_changed_and_no_byte_left_out() {
        let sealed = sealer(1).seal(b"a", b"123456").unwrap();
        for at in 0..sealed.len() * 8 {
            let mut changed = sealed.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(sealer(1).open(b"a", &changed), Err(SealError::DoesNotOpen), "bit {at}");
        }
        for length in 0..sealed.len() {
            assert_eq!(sealer(1).open(b"a", &sealed[..length]), Err(SealError::DoesNotOpen), "cut to {length}");
        }
    }

    #[test]
    fn the_same_text_is_never_sealed_twice_alike() {
        assert_ne!(sealer(1).seal(b"a", b"123456").unwrap(), sealer(1).seal(b"a", b"123456").unwrap());
    }

    #[test]
    fn sealing_follows_the_published_vector() {
        // draft-irtf-cfrg-xchacha-03, appendix A.3.1, with our version byte and nonce in front.
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + i as u8);
        let aad = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let plaintext: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                                 sunscreen would be it.";
        let tag = [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a, 0xcf, 0x49];
        let sealer = Sealer::new(Key::new(key));
        let mut body = plaintext.to_vec();
        let computed = sealer.0.encrypt_inout_detached(&XNonce::from(nonce), &aad, body.as_mut_slice().into()).unwrap();
        assert_eq!(computed.as_slice(), tag);
        let sealed = [&[XCHACHA20_POLY1305][..], &nonce, &body, &tag].concat();
        assert_eq!(sealer.open(&aad, &sealed).unwrap().as_slice(), plaintext);
    }

    #[test]
    fn each_purpose_has_its_own_key() {
        let master = Key::new([7; 32]);
        assert_ne!(derive(&master, "a").expose(), derive(&master, "b").expose());
        assert_eq!(derive(&master, "a").expose(), derive(&master, "a").expose());
    }

    #[test]
    fn keyed_hashing_follows_the_published_vector() {
        // RFC 4231, test case 1, whose key of 20 bytes is the same as one filled up with zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let expected = [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53, 0x5c, 0xa8, 0xaf, 0xce, 0xaf, 0x0b, 0xf1, 0x2b];
        assert_eq!(derive(&Key::new(key), "Hi There").expose()[..16], expected);
    }

    #[test]
    fn fingerprints_differ_by_database_user_value_and_key() {
        let prints = Fingerprints::new(&Key::new([1; 32]));
        let base = prints.of("main", UserId(1), &stored("PIN1"));
        assert_eq!(base, prints.of("main", UserId(1), &stored("PIN1")));
        let others = [
            prints.of("mai", UserId(1), &stored("PIN1")),
            prints.of("main", UserId(2), &stored("PIN1")),
            prints.of("main", UserId(1), &stored("PIN2")),
            Fingerprints::new(&Key::new([2; 32])).of("main", UserId(1), &stored("PIN1")),
        ];
        for other in others {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_key_file_is_made_whole_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.key");
        assert!(read_key(&path).unwrap().is_none());
        fs::write(suffixed(&path, ".new"), "left by a crash").unwrap();
        let made = make_key(&path).unwrap();
        assert_eq!(read_key(&path).unwrap().unwrap().expose(), made.expose());
        assert_ne!(made.expose(), make_key(&dir.path().join("other.key")).unwrap().expose());
        assert!(!suffixed(&path, ".new").exists());
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    }

    #[test]
    fn a_key_file_with_anything_else_in_it_is_refused_without_repeating_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.key");
        for bad in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            fs::write(&path, bad).unwrap();
            let error = read_key(&path).unwrap_err();
            assert!(matches!(error, KeyFileError::Malformed { .. }), "{bad:?}");
            assert!(bad.len() < 3 || !format!("{error:?} {error}").contains(bad));
        }
        fs::write(&path, format!("  {}\r\n", "Ab".repeat(32))).unwrap();
        assert_eq!(read_key(&path).unwrap().unwrap().expose(), &[0xab; 32]);
    }
}
