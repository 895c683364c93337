//! Card assignment codes: one user's alone down to the last free one, whatever the cipher, and a cipher that fails.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::small_site::{Dialect, SmallSite};

const KEY: &str = "000102030405060708090a0b0c0d0e0f";

async fn site(dialect: Dialect, cipher: &str, users: usize, digits: u8) -> SmallSite {
    let rest = format!(
        "limits: {{mails_per_minute: unlimited, batch_size: 4, min_interval: 0s}}\n\
         policies: [{{name: p, card_assignment_code: {{length: {digits}}}, notify: {{template: t}}}}]\n"
    );
    let site = SmallSite::make(dialect, &format!("cac_cipher: {cipher}"), &rest).await;
    let rows: Vec<String> = (1..=users).map(|n| format!("({n}, 'user{n}@example.org', 1)")).collect();
    site.sql(&format!("INSERT INTO users (id, login, flag) VALUES {}", rows.join(","))).await;
    site
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut openssl = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is missing: install it with `apt-get install openssl`");
    openssl.stdin.take().unwrap().write_all(input).unwrap();
    openssl.wait_with_output().unwrap().stdout
}

/// The stored code in plain digits, by another program than ours.
fn opened(stored: &str, chained: bool) -> String {
    let plain = if chained {
        let bytes = openssl(&["enc", "-d", "-base64", "-A"], stored.as_bytes());
        // The initialisation vector stands before the ciphertext.
        let (iv, sealed) = bytes.split_at(16);
        let iv: String = iv.iter().map(|b| format!("{b:02x}")).collect();
        openssl(&["enc", "-d", "-aes-128-cbc", "-K", KEY, "-iv", &iv], sealed)
    } else {
        openssl(&["enc", "-d", "-aes-128-ecb", "-K", KEY, "-base64", "-A"], stored.as_bytes())
    };
    String::from_utf8(plain).unwrap()
}

#[tokio::test]
async fn the_last_free_code_is_found_and_whoever_is_left_is_told() {
    for dialect in [
        Dialect::Sqlite,
        #[cfg(unix)]
        Dialect::Postgres,
    ] {
        for (cipher, chained) in [("aes-128-ecb", false), ("aes-128-cbc", true)] {
            let site = site(dialect, &format!("{{algorithm: {cipher}, key: '{KEY}'}}"), 12, 1).await;
            let first = site.once().await;
            assert_eq!((first.failed(), first.error.as_deref()), (2, None), "{dialect:?}, {cipher}");
            assert!(first.problems.iter().all(|problem| problem.code == "code_space_full"), "{:?}", first.problems);
            let stored = site.column("SELECT puk FROM users WHERE puk <> ''").await;
            let codes: BTreeSet<String> = stored.iter().map(|value| opened(value, chained)).collect();
            assert_eq!((stored.len(), codes.len()), (10, 10), "{dialect:?}, {cipher}: every digit once");
            assert_eq!(site.mails().len(), 10);
            // One becomes free.
            site.sql("UPDATE users SET puk = NULL, login = 'nobody' WHERE id = (SELECT min(id) FROM users WHERE puk <> '')").await;
            let second = site.once().await;
            assert_eq!(second.applied(), 1, "{dialect:?}, {cipher}: the one that is free is found: {second:?}");
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_that_fails_fails_its_users_alone() {
    for (script, failed) in [("cat | openssl enc -aes-128-ecb -K KEY -base64 -A; echo", 0), ("exit 9", 3)] {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("cipher.sh");
        std::fs::write(&program, format!("#!/bin/sh\n{}\n", script.replace("KEY", KEY))).unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let cipher = format!("{{algorithm: command, command: ['{}']}}", program.display());
        let site = site(Dialect::Sqlite, &cipher, 3, 6).await;
        let report = site.once().await;
        assert_eq!((report.failed(), report.error.as_deref()), (failed, None), "{script}");
        assert!(report.problems.iter().all(|problem| problem.code == "cipher_failed"), "{:?}", report.problems);
        for value in site.column("SELECT puk FROM users WHERE puk <> ''").await {
            assert_eq!(opened(&value, false).len(), 6);
        }
        assert_eq!(site.mails().len() as u64, 3 - failed, "{script}");
    }
}
