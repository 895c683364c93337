//! Card assignment codes and passwords beside other programs that encrypt and hash: each checks what the other made.

use std::io::Write;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use credkeeper::domain::cipher::{Algorithm, IvKind};
use credkeeper::domain::encoding::BcryptCost;
use credkeeper::domain::{Cipher, Code, Password, PasswordEncoding, StoredValue};
use rand::RngExt;

/// What a program answers to `input`.
fn answer(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; ./test installs it"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn openssl(algorithm: Algorithm, key: &[u8], iv: &[u8], decrypt: bool, input: &[u8]) -> Vec<u8> {
    let (cipher, key, iv) = (format!("-{}", algorithm.as_str()), hex(key), hex(iv));
    let mut arguments = vec!["enc", &cipher, "-K", &key];
    if algorithm.takes_iv() {
        arguments.extend(["-iv", &iv]);
    }
    if decrypt {
        arguments.push("-d");
    }
    answer("openssl", &arguments, input)
}

#[test]
fn openssl_reads_our_codes_and_we_read_those_of_openssl() {
    let mut random = rand::rng();
    for algorithm in Algorithm::ALL {
        for prefix in [true, false].into_iter().filter(|prefix| algorithm.takes_iv() || !prefix) {
            // Less than a block, a whole block of each cipher, more than one.
            for length in [1, 6, 7, 8, 15, 16, 33] {
                let key: Vec<u8> = (0..algorithm.key_bytes()).map(|_| random.random()).collect();
                let drawn: [u8; 16] = random.random();
                let iv = &drawn[..algorithm.block_bytes()];
                let digits: String = (0..length).map(|_| char::from(random.random_range(b'0'..=b'9'))).collect();
                let code = Code::new(digits.clone());
                let kind = algorithm.takes_iv().then_some(if prefix { IvKind::Prefix } else { IvKind::Fixed(iv) });
                let cipher = Cipher::new(algorithm, &key, kind).unwrap();
                let about = format!("{} prefix {prefix} length {length}", algorithm.as_str());

                let ours = STANDARD.decode(cipher.encrypt(&code, drawn).expose()).unwrap();
                let (before, sealed) = ours.split_at(if prefix { iv.len() } else { 0 });
                let used = if prefix { before } else { iv };
                assert_eq!(openssl(algorithm, &key, used, true, sealed), digits.as_bytes(), "{about}");

                let before = if prefix { iv } else { &[] };
                let theirs = [before, &openssl(algorithm, &key, iv, false, digits.as_bytes())].concat();
                let theirs = StoredValue::new(STANDARD.encode(&theirs));
                assert_eq!(cipher.decrypt(&theirs), Some(code), "{about}");
                assert_eq!(cipher.encrypt(&Code::new(digits), drawn), theirs, "{about}");
            }
        }
    }
}

/// Perl's `crypt` is the system's: libxcrypt.
#[test]
fn libxcrypt_accepts_our_bcrypt_hashes() {
    let verify = r#"local $/; my ($password, $stored) = split /\n/, <STDIN>; print crypt($password, $stored)"#;
    let mut random = rand::rng();
    for (cost, text) in [(4, "hunter2"), (5, "7KmPq9RtVx2W"), (6, "ÿ£é"), (4, &"x".repeat(71)), (12, "7KmPq9RtVx2W")] {
        let bcrypt = PasswordEncoding::Bcrypt { cost: BcryptCost::new(cost).unwrap() };
        let stored = bcrypt.encode(&Password::new(text.to_owned()), random.random()).unwrap();
        assert!(stored.expose().starts_with(&format!("$2a${cost:02}$")) && stored.expose().len() == 60);
        let theirs = answer("perl", &["-e", verify], format!("{text}\n{}", stored.expose()).as_bytes());
        assert_eq!(String::from_utf8(theirs).unwrap(), stored.expose(), "cost {cost}");
        let wrong = answer("perl", &["-e", verify], format!("{text}x\n{}", stored.expose()).as_bytes());
        // Only where nothing is cut: of 72 bytes the last is the end of the text.
        assert_ne!(String::from_utf8(wrong).unwrap(), stored.expose(), "cost {cost}");
    }
}

#[test]
fn openssl_makes_the_same_md5_forms() {
    for text in ["hunter2", "7KmPq9RtVx2W", "ÿ£é"] {
        let digest = answer("openssl", &["dgst", "-md5", "-binary"], text.as_bytes());
        let ours = |encoding: PasswordEncoding| {
            let stored = encoding.encode(&Password::new(text.to_owned()), [0; 16]).unwrap();
            stored.expose().to_owned()
        };
        assert_eq!(ours(PasswordEncoding::Md5), hex(&digest));
        assert_eq!(ours(PasswordEncoding::Md5Upper), hex(&digest).to_uppercase());
        assert_eq!(ours(PasswordEncoding::Md5Base64), STANDARD.encode(&digest));
        assert_eq!(ours(PasswordEncoding::Md5Ldap), format!("{{MD5}}{}", STANDARD.encode(&digest)));
    }
}
