//! `doctor --cac-pair` at work: every way in which a setting, a code and its stored form can disagree, and nothing of them shown.
#![cfg(unix)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use credkeeper::domain::cipher::{Algorithm, IvKind};
use credkeeper::domain::{Cipher, Code};

use crate::bounded::Bounded;

const CREDKEEPER: &str = env!("CARGO_BIN_EXE_credkeeper");
const CODE: &str = "0047110815";
const KEY: &str = "07070707070707070707070707070707";

fn config(folder: &Path, cipher: &str) {
    std::fs::write(folder.join("cac.key"), format!("{KEY}\n")).unwrap();
    std::fs::write(folder.join("long.key"), KEY.repeat(2)).unwrap();
    std::fs::write(folder.join("other.key"), KEY.replace('7', "8")).unwrap();
    let text = format!(
        "databases: [{{name: main, url: sqlite:absent.db, profile: sandbox, cac_cipher: {cipher}}}]
policies: [{{name: a, pin: {{length: 6, rewrite: never}}, notify: {{template: t}}}}]
mail: {{transport: directory, from: print@example.com}}
templates: {{t: {{subject: s, parts: ['{{{{ pin }}}}']}}}}\n"
    );
    std::fs::write(folder.join("config.yaml"), text).unwrap();
}

/// Exit code, and all that was said.
fn prove(cipher: &str, input: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), cipher);
    let mut child = Command::new(CREDKEEPER)
        .arg("--config")
        .arg(folder.path().join("config.yaml"))
        .args(["doctor", "--cac-pair"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may have ended before
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for line in input.lines().map(str::trim).filter(|line| line.len() > 5) {
        assert!(!said.contains(line), "shows {line}: {said}");
    }
    (output.status.code().unwrap(), said)
}

fn stored(algorithm: Algorithm, iv: Option<IvKind<'_>>, code: &str) -> String {
    let key = vec![7; algorithm.key_bytes()];
    Cipher::new(algorithm, &key, iv).unwrap().encrypt(&Code::new(code.to_owned()), [3; 16]).expose().to_owned()
}

const CBC: &str = "{algorithm: aes-128-cbc, key: {file: cac.key}, iv: prefix}";
const ECB: &str = "{algorithm: aes-128-ecb, key: {file: cac.key}}";
const FIXED: &str = "{algorithm: aes-128-cbc, key: {file: cac.key}, iv: '09090909090909090909090909090909'}";

#[test]
fn a_setting_that_is_right_is_said_to_be() {
    let (prefix, fixed) = (Some(IvKind::Prefix), Some(IvKind::Fixed(&[9; 16])));
    for (cipher, form, said) in [
        (CBC, stored(Algorithm::Aes128Cbc, prefix, CODE), "each new form begins with a vector of its own"),
        (FIXED, stored(Algorithm::Aes128Cbc, fixed, CODE), "makes the stored form of the code"),
        (ECB, stored(Algorithm::Aes128Ecb, None, CODE), "makes the stored form of the code"),
    ] {
        for input in [format!("{CODE}\n{form}\n"), format!("  {CODE}\r\n\r\n{form} \r\n")] {
            let (code, told) = prove(cipher, &input);
            assert!(code == 0 && told.starts_with("ok ") && told.contains(said), "{cipher}: {code} {told}");
        }
    }
}

#[test]
fn each_mismatch_is_told_with_what_to_do() {
    let (prefix, fixed) = (Some(IvKind::Prefix), Some(IvKind::Fixed(&[9; 16])));
    let of_other = stored(Algorithm::Aes128Cbc, prefix, "9999999999");
    let good = stored(Algorithm::Aes128Cbc, prefix, CODE);
    let triple = stored(Algorithm::DesEde3Cbc, prefix, CODE);
    for (cipher, form, found, advice) in [
        (CBC, of_other, "but as another code", "from one and the same user"),
        (CBC, good.replace('=', ""), "is not Base64", "copy all of it, without quotes"),
        (CBC, format!("'{good}'"), "is not Base64", "without quotes"),
        (CBC, "AAAA".to_owned(), "too short for aes-128-cbc", "copy all of it"),
        (CBC, triple, "works on blocks of 16 bytes, and there are 8", "would fit des-ede3-cbc"),
        (CBC, stored(Algorithm::Aes128Ecb, None, CODE), "too short for aes-128-cbc", "the same key reads it with algorithm: aes-128-ecb"),
        (ECB, good.clone(), "", "the same key reads it with algorithm: aes-128-cbc, iv: prefix"),
        (FIXED, good.clone(), "what comes out is not digits", "the same key reads it with algorithm: aes-128-cbc, iv: prefix"),
        // Of one block only.
        (FIXED, stored(Algorithm::Aes128Cbc, Some(IvKind::Fixed(&[0; 16])), CODE), "", "the same key reads it with algorithm: aes-128-ecb"),
        (ECB, stored(Algorithm::Aes128Cbc, fixed, CODE), "does not read the stored form", "the key or the algorithm is another one"),
        (
            "{algorithm: aes-128-cbc, key: {file: other.key}, iv: prefix}",
            good.clone(),
            "does not read the stored form",
            "the key or the algorithm is another one",
        ),
        (
            "{algorithm: aes-256-cbc, key: {file: long.key}, iv: prefix}",
            good.clone(),
            "does not read the stored form",
            "the key or the algorithm is another one",
        ),
    ] {
        let (code, told) = prove(cipher, &format!("{CODE}\n{form}\n"));
        assert!(
            code == 1 && told.starts_with("FAILED ") && told.contains(found) && told.contains(advice),
            "{cipher} {form}: {code} {told}"
        );
    }
}

#[test]
fn what_cannot_be_compared_is_told_before_anything_is_tried() {
    let good = stored(Algorithm::Aes128Ecb, None, CODE);
    for (cipher, input, said) in [
        ("null", format!("{CODE}\n{good}\n"), "the database main has no cac_cipher"),
        (ECB, String::new(), "two lines were expected"),
        (ECB, format!("{CODE}\n"), "two lines were expected"),
        (ECB, format!("{good}\n{CODE}\n"), "the code is not made of digits"),
        (ECB, "1".repeat(20_000), "longer than 16 KiB"),
    ] {
        let (code, told) = prove(cipher, &input);
        assert!(code == 64 && told.contains(said), "{cipher} {said}: {code} {told}");
    }
}

#[test]
fn a_command_is_run_and_compared() {
    let shell = |script: &str| format!("{{algorithm: command, command: [/bin/sh, -c, '{script}']}}");
    let openssl = shell(&format!("openssl enc -aes-128-ecb -K {KEY} -a -A"));
    let good = stored(Algorithm::Aes128Ecb, None, CODE);
    let input = format!("{CODE}\n{good}\n");
    for (cipher, status, said) in [
        (openssl.clone(), 0, "ok       cac_cipher         the command makes the stored form of the code"),
        (openssl.replace("-K 07", "-K 08"), 1, "the command makes another stored form of the code"),
        (shell("cat >/dev/null; echo $$"), 0, "another stored form each time"),
        (shell("cat; exit 7"), 1, "the cipher's command /bin/sh ended with exit code 7"),
    ] {
        let (code, told) = prove(&cipher, &input);
        assert!(code == status && told.contains(said), "{cipher}: {code} {told}");
    }
}

/// Answers two questions at a terminal once the echo is off, and prints what was shown there.
const TYPIST: &str = r#"
import os, pty, sys, termios, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown, answers, asked = b"", os.environb[b"TYPED"].split(b","), 0
while True:
    try:
        some = os.read(terminal, 1000)
    except OSError:
        break
    if not some:
        break
    shown += some
    while asked < len(answers) and shown.count(b"(is not shown): ") > asked:
        until = time.monotonic() + 30
        while termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < until:
            time.sleep(0.001)
        os.write(terminal, answers[asked] + b"\n")
        asked += 1
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn at_a_terminal_both_are_asked_for_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    config(folder.path(), ECB);
    let form = stored(Algorithm::Aes128Ecb, None, CODE);
    let output = Command::new("python3")
        .args(["-c", TYPIST, CREDKEEPER, "--config"])
        .arg(folder.path().join("config.yaml"))
        .args(["doctor", "--cac-pair"])
        .env("TYPED", format!("{CODE},{form}"))
        .output_in_time();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{shown} {}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("Card assignment code (is not shown):") && shown.contains("makes the stored form of the code"), "{shown}");
    assert!(!shown.contains(CODE) && !shown.contains(&form), "{shown}");
}

#[test]
fn doctor_says_what_md5_passwords_need() {
    let folder = tempfile::tempdir().unwrap();
    for (encoding, warned) in [("md5", true), ("md5_ldap", true), ("bcrypt", false)] {
        config(folder.path(), &format!("null, password_encoding: {encoding}"));
        let output = Command::new(CREDKEEPER).arg("--config").arg(folder.path().join("config.yaml")).arg("doctor").output_in_time();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said.contains("allowMD5PasswordEncoder must be on"), warned, "{said}");
    }
}
