//! Whether codes and passwords are stored as the print system expects them.

use crate::domain::cipher::Unreadable;
use crate::domain::{Cipher, Code, CodeCipher, PasswordEncoding, StoredValue};
use crate::mint::cipher::{EncryptError, encrypt, is_deterministic};
use crate::store::Check;

const CAC: &str = "cac_cipher";

/// What has to be known of passwords stored by this encoding, if anything.
pub(super) fn md5_passwords(encoding: PasswordEncoding) -> Option<Check> {
    let found = format!("stored as {}, a layout that the vendor does not publish", encoding.as_str());
    let advice = "allowMD5PasswordEncoder must be on in the print system, or nobody can log in; try one user first, or take bcrypt";
    encoding.is_md5().then(|| Check::warning("passwords", found, advice))
}

/// Whether `cipher` makes of `code` what the print system made of it. What is said shows neither.
pub async fn cac_pair(cipher: &CodeCipher, code: &Code, stored: &StoredValue) -> Check {
    match cipher {
        CodeCipher::BuiltIn(cipher) => built_in(cipher, code, stored),
        CodeCipher::Command(_) => command(cipher, code, stored).await.unwrap_or_else(|error| {
            Check::failed(CAC, error.to_string(), "see cac_cipher.command in the configuration; try the command by hand")
        }),
    }
}

fn built_in(cipher: &Cipher, code: &Code, stored: &StoredValue) -> Check {
    let name = cipher.algorithm().as_str();
    let (found, advice) = match cipher.open(stored) {
        Ok(opened) if opened != *code => (
            format!("{name} with this key reads the stored form, but as another code"),
            "the cipher is right: take the code and the stored form from one and the same user".to_owned(),
        ),
        Ok(_) if !cipher.is_deterministic() => {
            return Check::ok(
                CAC,
                format!("{name} with this key reads the stored form, and it is the code; each new form begins with a vector of its own"),
            );
        }
        Ok(_) if cipher.encrypt(code, [0; 16]) == *stored => {
            return Check::ok(CAC, format!("{name} with this key makes the stored form of the code, and the code of the stored form"));
        }
        Ok(_) => (
            format!("{name} with this key reads the code, but writes its stored form in another way"),
            "use algorithm: command, with a program that writes as the print system does".to_owned(),
        ),
        Err(unreadable) => {
            let (found, advice) = explained(name, unreadable);
            let reads = |(_, other): &(&str, Cipher)| other.decrypt(stored).as_ref() == Some(code);
            match cipher.with_the_same_key().into_iter().find(reads) {
                Some((written, _)) => (found, format!("the same key reads it with {written}: write that in cac_cipher")),
                None => (found, advice),
            }
        }
    };
    Check::failed(CAC, found, advice)
}

fn explained(name: &str, unreadable: Unreadable) -> (String, String) {
    match unreadable {
        Unreadable::NotBase64 => (
            "the stored form is not Base64".to_owned(),
            "copy all of it, without quotes; if the print system writes it like that, only algorithm: command can make it".to_owned(),
        ),
        Unreadable::Blocks { bytes: 0, .. } => (
            format!("the stored form is too short for {name}: nothing is left to decrypt"),
            "copy all of it; if a vector is expected before it (iv: prefix), it may be a fixed one".to_owned(),
        ),
        Unreadable::Blocks { bytes, block } => {
            let other = if block > 8 && bytes % 8 == 0 { "its length would fit des-ede3-cbc" } else { "another algorithm may be meant" };
            (
                format!("{name} works on blocks of {block} bytes, and there are {bytes}"),
                format!("copy all of the stored form; else {other}"),
            )
        }
        Unreadable::Padding => (
            format!("{name} with this key does not read the stored form: what comes out does not end as PKCS#7 does"),
            "the key or the algorithm is another one, or the fixed vector is".to_owned(),
        ),
        Unreadable::NotDigits => (
            format!("{name} with this key reads the stored form, but what comes out is not digits"),
            "the fixed vector is another one (or the print system puts one before it: iv: prefix); if not, the key is".to_owned(),
        ),
    }
}

async fn command(cipher: &CodeCipher, code: &Code, stored: &StoredValue) -> Result<Check, EncryptError> {
    if encrypt(cipher, code).await? == *stored {
        return Ok(Check::ok(CAC, "the command makes the stored form of the code"));
    }
    Ok(if is_deterministic(cipher).await? {
        let advice = "its algorithm, key or vector is another one, or the code and the stored form are not of one user";
        Check::failed(CAC, "the command makes another stored form of the code", advice)
    } else {
        let advice = "let it issue one code and try that at a terminal; only the print system can read what it makes";
        Check::warning(CAC, "the command makes another stored form each time, so that they cannot be compared", advice)
    })
}
