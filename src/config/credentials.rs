//! `databases.cac_cipher` and `databases.password_encoding`: how the print system stores codes and passwords.

use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use super::read::{Field, Section};
use super::secrets::{SHAPE, secret};
use crate::domain::cipher::{Algorithm, CipherCommand, IvKind};
use crate::domain::encoding::BcryptCost;
use crate::domain::{Cipher, CodeCipher, PasswordEncoding};

/// The word beside the algorithms.
const COMMAND: &str = "command";
/// Below this cost a stolen table is guessed through too soon.
const LOW_COST: u8 = 10;

/// `None` where the key is absent or, once the problem is noted, cannot be used: there is no default, since codes that the
/// print system cannot read are worse than none.
pub(super) fn cac_cipher(section: &mut Section<'_>) -> Option<CodeCipher> {
    let field = section.field("cac_cipher")?;
    let mut section = field.section("{algorithm: aes-256-cbc, key: {file: PATH}, iv: prefix}")?;
    let mut choices: Vec<(&str, Option<Algorithm>)> = Algorithm::ALL.iter().map(|known| (known.as_str(), Some(*known))).collect();
    choices.push((COMMAND, None));
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let algorithm = section.required("algorithm", super::read::one_of(&words)).and_then(|word| word.choice(&choices));
    let cipher = match algorithm {
        Some(Some(algorithm)) => built_in(&mut section, algorithm).map(CodeCipher::BuiltIn),
        Some(None) => command(&mut section).map(CodeCipher::Command),
        None => {
            // Known, whichever algorithm is meant.
            ["key", "iv", "command", "timeout"].into_iter().for_each(|name| drop(section.field(name)));
            None
        }
    };
    section.finish();
    cipher
}

fn built_in(section: &mut Section<'_>, algorithm: Algorithm) -> Option<Cipher> {
    for name in ["command", "timeout"] {
        if let Some(field) = section.field(name) {
            field.problem(format!("has a meaning with algorithm: {COMMAND} only; remove the key"));
        }
    }
    let key_field = section.required("key", format!("{SHAPE}, holding {} hex digits", 2 * algorithm.key_bytes()));
    let iv_field = section.field("iv");
    let key = key_field.as_ref().and_then(|field| key(field, algorithm));
    let iv = match &iv_field {
        Some(field) => iv(field, algorithm)?,
        None if algorithm.takes_iv() => Iv::Prefix,
        None => Iv::Absent,
    };
    let kind = match &iv {
        Iv::Absent => None,
        Iv::Prefix => Some(IvKind::Prefix),
        Iv::Fixed(bytes) => Some(IvKind::Fixed(bytes)),
    };
    // Lengths were judged where the key stands.
    Cipher::new(algorithm, &key?, kind).map_err(|problem| section.problem(problem.to_string())).ok()
}

fn key(field: &Field<'_>, algorithm: Algorithm) -> Option<Zeroizing<Vec<u8>>> {
    let secret = secret(field)?;
    let wanted = 2 * algorithm.key_bytes();
    let Some(key) = hex(secret.expose()) else {
        field.problem(format!("the key is not written in hex digits (0 to 9, a to f); {} takes {wanted} of them", algorithm.as_str()));
        return None;
    };
    fits(field, "the key", &key, algorithm, algorithm.key_bytes()).then_some(key)
}

enum Iv {
    Absent,
    Prefix,
    Fixed(Zeroizing<Vec<u8>>),
}

fn iv(field: &Field<'_>, algorithm: Algorithm) -> Option<Iv> {
    if !algorithm.takes_iv() {
        field.problem(format!("{} takes no initialisation vector; remove the key", algorithm.as_str()));
        return None;
    }
    let wanted = 2 * algorithm.block_bytes();
    match field.scalar() {
        Some("prefix") => Some(Iv::Prefix),
        text => match text.and_then(hex) {
            Some(bytes) => fits(field, "the vector", &bytes, algorithm, algorithm.block_bytes()).then_some(Iv::Fixed(bytes)),
            None => {
                // Not shown: a key may have been put there by mistake.
                field.problem(format!(
                    "expected prefix (drawn for each code, and put before the ciphertext) or {wanted} hex digits (the same for every code)"
                ));
                None
            }
        },
    }
}

fn fits(field: &Field<'_>, what: &str, bytes: &[u8], algorithm: Algorithm, wanted: usize) -> bool {
    let (found, digits) = (2 * bytes.len(), 2 * wanted);
    if bytes.len() != wanted {
        field.problem(format!("{what} has {found} hex digits; {} takes {digits} ({wanted} bytes)", algorithm.as_str()));
    }
    bytes.len() == wanted
}

/// Bytes of hex digits, however they are written; the digits may be a secret.
fn hex(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits: Option<Zeroizing<Vec<u8>>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<Vec<u8>>>().map(Zeroizing::new);
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2))?;
    Some(Zeroizing::new(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
}

fn command(section: &mut Section<'_>) -> Option<CipherCommand> {
    for (name, whose) in [("key", "the program knows its key itself"), ("iv", "the program makes the whole stored form")] {
        if let Some(field) = section.field(name) {
            field.problem(format!("{whose}; remove the key"));
        }
    }
    let timeout =
        section.or("timeout", Duration::from_secs(5), |timeout| timeout.duration(Duration::from_millis(100)..=Duration::from_secs(60)));
    let shape = "[/PATH/OF/A/PROGRAM, ARGUMENT], which reads one code from its standard input and prints its stored form";
    let field = section.required("command", shape)?;
    let items = field.list("a program with its arguments: [/PATH/OF/A/PROGRAM, ARGUMENT]")?;
    let Some((program, arguments)) = items.split_first() else {
        field.problem(format!("expected {shape}"));
        return None;
    };
    let arguments: Option<Vec<String>> = arguments.iter().map(|argument| argument.text("an argument").map(str::to_owned)).collect();
    let path = program.line("the absolute path of a program")?;
    let path = Path::new(&path);
    if !path.is_absolute() {
        return program.misfit("the absolute path of a program, so that no other of its name is run");
    }
    if let Err(why) = may_run(path) {
        program.problem(format!("the program {} {why}", path.display()));
        return None;
    }
    Some(CipherCommand { program: path.to_owned(), arguments: arguments?, timeout })
}

/// Whether this account can run it, and what keeps it from that.
fn may_run(program: &Path) -> Result<(), String> {
    let kind = std::fs::metadata(program).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be looked at: {error}"),
    })?;
    if !kind.is_file() {
        return Err("is no file".to_owned());
    }
    #[cfg(unix)]
    if rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_err() {
        return Err("may not be run by this account; chmod +x, and the right to enter its folder, allow that".to_owned());
    }
    Ok(())
}

/// `bcrypt`, with its cost, or one of the layouts with MD5.
pub(super) fn password_encoding(section: &mut Section<'_>) -> PasswordEncoding {
    let Some(field) = section.field("password_encoding") else { return PasswordEncoding::default() };
    let md5 = [PasswordEncoding::Md5, PasswordEncoding::Md5Upper, PasswordEncoding::Md5Base64, PasswordEncoding::Md5Ldap];
    let known: Vec<(&str, PasswordEncoding)> =
        std::iter::once(PasswordEncoding::default()).chain(md5).map(|encoding| (encoding.as_str(), encoding)).collect();
    if field.scalar().is_some() {
        return field.choice(&known).unwrap_or_default();
    }
    with_cost(&field).map_or_else(PasswordEncoding::default, |cost| PasswordEncoding::Bcrypt { cost })
}

fn with_cost(field: &Field<'_>) -> Option<BcryptCost> {
    let mut outer = field.section("bcrypt, {bcrypt: {cost: 12}}, md5, md5_upper, md5_base64 or md5_ldap")?;
    let mut cost = None;
    if let Some(mut bcrypt) = outer.required("bcrypt", "{cost: 12}").and_then(|bcrypt| bcrypt.section("{cost: 12}")) {
        let field = bcrypt.field("cost");
        let number = field.as_ref().and_then(|field| field.whole(BcryptCost::MIN.into()..=BcryptCost::MAX.into()));
        cost = number.and_then(|number| u8::try_from(number).ok()).and_then(BcryptCost::new);
        if let Some(low) = cost.filter(|cost| cost.get() < LOW_COST) {
            let reader = bcrypt.reader;
            reader.warn(format!(
                "{}: passwords hashed at cost {} are guessed quickly by whoever gets the table; 12 is usual",
                outer.key(),
                low.get()
            ));
        }
        bcrypt.finish();
    }
    outer.finish();
    cost
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigProblems, parse};
    use crate::domain::cipher::{Algorithm, IvKind};
    use crate::domain::{Cipher, Code, CodeCipher, PasswordEncoding};

    const KEY: &str = "000102030405060708090a0b0c0d0e0f";

    fn read(keys: &str) -> Result<Config, ConfigProblems> {
        let text = format!(
            "databases: [{{name: main, url: sqlite:x.db, profile: sandbox, {keys}}}]
policies: [{{name: a, pin: {{length: 6, rewrite: never}}, notify: {{template: t}}}}]
mail: {{transport: directory, from: print@example.com}}
templates: {{t: {{subject: s, parts: ['{{{{ pin }}}}']}}}}"
        );
        let path = std::path::absolute("conf/config.yaml").unwrap();
        let environment = |name: &str| (name == "CAC_KEY").then(|| KEY.to_uppercase().into());
        parse(&text, &path, environment)
    }

    fn cipher(keys: &str) -> Option<CodeCipher> {
        read(&format!("cac_cipher: {keys}")).unwrap_or_else(|problems| panic!("{problems}")).databases.remove(0).cac_cipher
    }

    fn problems(keys: &str) -> Vec<String> {
        let problems = read(keys).err().map_or_else(Vec::new, |problems| problems.problems);
        let told = |problem: crate::config::Problem| format!("{}: {}", problem.key.replace("databases[0].", ""), problem.message);
        problems.into_iter().map(told).collect()
    }

    fn about_cipher(keys: &str) -> String {
        problems(&format!("cac_cipher: {keys}")).join("\n")
    }

    #[test]
    fn a_cipher_is_what_its_keys_say() {
        let key: Vec<u8> = (0..16).collect();
        let code = Code::new("004711".to_owned());
        for (keys, algorithm, iv) in [
            ("{algorithm: aes-128-cbc, key: {env: CAC_KEY}}", Algorithm::Aes128Cbc, Some(IvKind::Prefix)),
            ("{algorithm: aes-128-cbc, key: {env: CAC_KEY}, iv: prefix}", Algorithm::Aes128Cbc, Some(IvKind::Prefix)),
            (
                "{algorithm: aes-128-cbc, key: {env: CAC_KEY}, iv: 000102030405060708090A0B0C0D0E0F}",
                Algorithm::Aes128Cbc,
                Some(IvKind::Fixed(&key)),
            ),
            ("{algorithm: aes-128-ecb, key: {env: CAC_KEY}}", Algorithm::Aes128Ecb, None),
        ] {
            let Some(CodeCipher::BuiltIn(found)) = cipher(keys) else { panic!("{keys}") };
            let expected = Cipher::new(algorithm, &key, iv).unwrap();
            assert_eq!(found.encrypt(&code, [5; 16]), expected.encrypt(&code, [5; 16]), "{keys}");
        }
        assert!(cipher("null").is_none() && read("pool_size: 4").unwrap().databases[0].cac_cipher.is_none());
    }

    #[test]
    fn a_key_or_a_vector_that_does_not_fit_is_told_with_what_does_and_not_shown() {
        for (keys, expected) in [
            ("{algorithm: aes-256-cbc, key: {env: CAC_KEY}}", "cac_cipher.key: the key has 32 hex digits; aes-256-cbc takes 64 (32 bytes)"),
            (
                "{algorithm: des-ede3-cbc, key: {env: CAC_KEY}}",
                "cac_cipher.key: the key has 32 hex digits; des-ede3-cbc takes 48 (24 bytes)",
            ),
            (
                "{algorithm: aes-128-cbc, key: swordfish}",
                "cac_cipher.key: the key is not written in hex digits (0 to 9, a to f); aes-128-cbc takes 32 of them",
            ),
            (
                "{algorithm: aes-128-cbc, key: {env: CAC_KEY}, iv: c0ffee}",
                "cac_cipher.iv: the vector has 6 hex digits; aes-128-cbc takes 32 (16 bytes)",
            ),
            (
                "{algorithm: aes-128-cbc, key: {env: CAC_KEY}, iv: swordfish}",
                "cac_cipher.iv: expected prefix (drawn for each code, and put before the ciphertext) or 32 hex digits (the same for every code)",
            ),
            (
                "{algorithm: aes-128-ecb, key: {env: CAC_KEY}, iv: prefix}",
                "cac_cipher.iv: aes-128-ecb takes no initialisation vector; remove the key",
            ),
            (
                "{algorithm: aes-128-cbc}",
                "cac_cipher.key: is required: {file: PATH}, {env: NAME} or {credential: NAME}, holding 32 hex digits",
            ),
            ("{key: {env: CAC_KEY}}", "cac_cipher.algorithm: is required: aes-128-cbc, aes-256-cbc, aes-128-ecb, des-ede3-cbc or command"),
            (
                "{algorithm: aes-128-cbc, key: {env: CAC_KEY}, command: [/bin/sh]}",
                "cac_cipher.command: has a meaning with algorithm: command only; remove the key",
            ),
            ("aes-128-cbc", "cac_cipher: expected {algorithm: aes-256-cbc, key: {file: PATH}, iv: prefix}, found `aes-128-cbc`"),
        ] {
            assert_eq!(about_cipher(keys), expected, "{keys}");
        }
        let both = about_cipher("{algorithm: aes-256-cbc, key: {env: CAC_KEY}, iv: c0ffee}");
        assert_eq!(both.lines().count(), 2, "{both}");
    }

    #[cfg(unix)]
    #[test]
    fn a_command_has_to_be_there_and_to_be_runnable() {
        let Some(CodeCipher::Command(found)) = cipher("{algorithm: command, command: [/bin/sh, -c, 'cat | rev']}") else { panic!() };
        assert_eq!(found.program, Path::new("/bin/sh"));
        assert_eq!((found.arguments, found.timeout.as_secs()), (vec!["-c".to_owned(), "cat | rev".to_owned()], 5));
        let program = |program: &str| about_cipher(&format!("{{algorithm: command, command: ['{program}']}}"));
        let (folder, file) = (tempfile::tempdir().unwrap(), "cipher");
        let path = folder.path().join(file).display().to_string();
        std::fs::write(&path, b"").unwrap();
        let misfit = "expected the absolute path of a program, so that no other of its name is run, found `sh` in quotes";
        assert_eq!(program("sh"), format!("cac_cipher.command[0]: {misfit}"));
        assert_eq!(program("/nowhere/cipher"), "cac_cipher.command[0]: the program /nowhere/cipher does not exist");
        assert_eq!(program("/"), "cac_cipher.command[0]: the program / is no file");
        assert!(program(&path).contains("may not be run by this account; chmod +x"), "{}", program(&path));
        let nothing = about_cipher("{algorithm: command, command: []}");
        assert!(nothing.starts_with("cac_cipher.command: expected [/PATH/OF/A/PROGRAM, ARGUMENT]"), "{nothing}");
        let absent = about_cipher("{algorithm: command}");
        assert!(absent.starts_with("cac_cipher.command: is required: [/PATH/OF/A/PROGRAM"), "{absent}");
    }

    #[test]
    fn passwords_are_bcrypt_unless_something_else_is_written() {
        let encoding = |keys: &str| read(keys).unwrap_or_else(|problems| panic!("{problems}")).databases[0].password_encoding;
        let cost = |encoding| match encoding {
            PasswordEncoding::Bcrypt { cost } => cost.get(),
            other => panic!("{other:?}"),
        };
        for (keys, expected) in [
            ("pool_size: 4", 12),
            ("password_encoding: null", 12),
            ("password_encoding: bcrypt", 12),
            ("password_encoding: {bcrypt: {cost: 10}}", 10),
            ("password_encoding: {bcrypt: {}}", 12),
        ] {
            assert_eq!(cost(encoding(keys)), expected, "{keys}");
        }
        assert_eq!(encoding("password_encoding: md5"), PasswordEncoding::Md5);
        assert_eq!(encoding("password_encoding: md5_upper"), PasswordEncoding::Md5Upper);
        assert_eq!(encoding("password_encoding: md5_base64"), PasswordEncoding::Md5Base64);
        assert_eq!(encoding("password_encoding: md5_ldap"), PasswordEncoding::Md5Ldap);
        let wrong = problems("password_encoding: sha1").join("\n");
        assert_eq!(wrong, "password_encoding: expected bcrypt, md5, md5_upper, md5_base64 or md5_ldap, found `sha1`");
        let wrong = problems("password_encoding: {bcrypt: {cost: 31}}").join("\n");
        assert_eq!(wrong, "password_encoding.bcrypt.cost: expected a whole number from 4 to 15, found `31`");
        let low = read("password_encoding: {bcrypt: {cost: 4}}").unwrap().warnings.join("\n");
        assert!(low.contains("databases[0].password_encoding: passwords hashed at cost 4 are guessed quickly"), "{low}");
    }
}
