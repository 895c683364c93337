//! Everything that a full run leaves behind is searched for every PIN, code and password that it issued, for their stored forms,
//! and for the keys: as they are, as their hash, in hex and in Base64. PINs and codes of twelve digits, so that no timestamp or
//! size can look like one.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::site::{Mail, Site, Step};

/// Of the cipher; not digits only, or a time could look like it.
const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

#[tokio::test(flavor = "multi_thread")]
async fn no_log_report_journal_error_or_metric_holds_a_credential_or_its_stored_form() {
    let site = Site::with_people(1_600).await.with_config(|yaml| {
        yaml.replace("length: 6", "length: 12")
            .replace("level: info", "level: trace")
            .replace("batch_size: 1000", "batch_size: 100")
            .replace("cost_centers: {verified: true}", "cost_centers: {verified: true}\n      users: {puk: {column: puk, verified: true}}")
            .replace(
                "schedule:",
                &format!(
                    "    cac_cipher: {{algorithm: aes-128-cbc, key: '{KEY}'}}\n    password_encoding: {{bcrypt: {{cost: 4}}}}\nschedule:"
                ),
            )
            .replace(
                "      valid_for: 365d\n",
                "      valid_for: 365d\n    card_assignment_code: {length: 12}\n    password: {length: 16}\n",
            )
            .replace("      - 'your PIN", "      - 'CODE {{ card_assignment_code }}'\n      - 'PASSWORD {{ password }}'\n      - 'your PIN")
    });
    site.sql("UPDATE users SET pass = '' WHERE id % 4 <> 3").await;
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    let mut keep = |name: &str, text: &str| texts.push((name.to_owned(), text.as_bytes().to_vec()));

    keep("check-config", &site.run(&["check-config"]).all());
    keep("plan", &site.run(&["plan", "--format", "json"]).all());
    // The mail server is away: everything is committed, and nothing delivered. The journal holds the secrets, sealed.
    site.stop_mail_server();
    let report = site.folder().join("report.json");
    let metrics = site.folder().join("once.prom");
    let paths = ["--report", report.to_str().unwrap(), "--metrics-file", metrics.to_str().unwrap()];
    keep("--once without a mail server", &site.once(&paths).all());
    let undelivered = journal_bytes(site.folder());
    keep("journal list", &site.run(&["journal", "list"]).all());
    keep("explain", &site.run(&["explain", "user16"]).all());
    keep("status", &site.run(&["status"]).all());
    keep("doctor", &site.run(&["doctor"]).all());
    site.start_mail_server();
    // A database that refuses every write: error texts.
    site.sql("UPDATE users_cards SET pin_expiration_date = localtimestamp - interval '1 hour' WHERE user_id % 16 = 7").await;
    site.sql("ALTER TABLE users_cards ADD CONSTRAINT refuse CHECK (id < 0) NOT VALID").await;
    keep("--once that the database refuses", &site.once(&[]).all());
    site.sql("ALTER TABLE users_cards DROP CONSTRAINT refuse").await;
    // The same of codes and passwords.
    site.sql("UPDATE users SET pass = '', puk = NULL WHERE id % 32 = 9").await;
    site.sql("ALTER TABLE users ADD CONSTRAINT refuse CHECK (id < 0) NOT VALID").await;
    keep("--once that the database refuses passwords", &site.once(&[]).all());
    site.sql("ALTER TABLE users DROP CONSTRAINT refuse").await;
    keep("--once that delivers", &site.once(&["--format", "json"]).all());
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.add_visitor("late@visitors.example").await;
    site.mail_to("late@visitors.example", Duration::from_secs(60)).await;
    keep("/metrics", &site.http("/metrics").await);
    keep("/", &site.http("/").await);
    keep("daemon", &daemon.stop().all());
    for file in [&report, &metrics] {
        keep(&file.display().to_string(), &std::fs::read_to_string(file).unwrap());
    }
    texts.push(("journal before delivery".to_owned(), undelivered));
    texts.push(("journal after delivery".to_owned(), journal_bytes(site.folder())));

    let mails = site.mails();
    assert!(mails.len() > 700, "{} mails", mails.len());
    let mut needles = Needles::default();
    for secret in mails.iter().flat_map(told) {
        needles.of_text(secret.as_bytes());
        needles.of_text(&Md5::digest(secret.as_bytes()));
    }
    let stored = site.rows("SELECT coalesce(puk, ''), coalesce(pass, '') FROM users WHERE puk <> '' AND pass <> ''").await;
    assert!(stored.len() > 100, "{} users with code and password", stored.len());
    stored.iter().for_each(|(code, password)| [code, password].into_iter().for_each(|value| needles.of_text(value.as_bytes())));
    let cards = site.rows("SELECT card, '' FROM users_cards WHERE card LIKE 'PIN%'").await;
    cards.iter().for_each(|(card, _)| needles.of_text(card.as_bytes()));
    needles.of_text(std::fs::read_to_string(site.folder().join("journal.key")).unwrap().trim().as_bytes());
    needles.of_text(KEY.as_bytes());
    needles.of_text(&(0..16).map(|i| u8::from_str_radix(&KEY[2 * i..2 * i + 2], 16).unwrap()).collect::<Vec<u8>>());
    assert!(needles.found_in(mails[0].raw.as_bytes()), "the search itself must be able to find");
    for (name, text) in &texts {
        assert!(text.len() > 20, "{name} is empty");
        assert!(!needles.found_in(text), "{name} holds a credential, its stored form, or a key");
    }
}

/// The credentials that a mail tells.
fn told(mail: &Mail) -> Vec<String> {
    let found = |pattern: &str| regex::Regex::new(pattern).unwrap().captures(&mail.text).map(|found| found[1].to_owned());
    [found(r"PIN (\d{12})"), found(r"CODE (\d{12})"), found(r"PASSWORD (\S{16})")].into_iter().flatten().collect()
}

/// All files of the journal, the key excepted.
fn journal_bytes(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("journal.db") {
            bytes.extend(std::fs::read(path).unwrap());
        }
    }
    bytes
}

/// What must not be found.
#[derive(Default)]
struct Needles {
    all: HashSet<Vec<u8>>,
    lengths: BTreeSet<usize>,
    /// Their first bytes: hardly a place in a text has any of these.
    heads: HashSet<[u8; 8]>,
}

impl Needles {
    /// The bytes, in hex of both cases, and in Base64, which loses its padding so that it is found inside of longer values too.
    fn of_text(&mut self, bytes: &[u8]) {
        assert!(bytes.len() >= 12, "anything could look like it");
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let base64 = |bytes: &[u8]| base64(bytes).trim_end_matches('=').to_owned().into_bytes();
        let upper = hex.to_uppercase().into_bytes();
        for needle in [bytes.to_vec(), base64(hex.as_bytes()), hex.into_bytes(), upper, base64(bytes)] {
            self.lengths.insert(needle.len());
            self.heads.extend(needle.first_chunk::<8>());
            self.all.insert(needle);
        }
    }

    fn found_in(&self, text: &[u8]) -> bool {
        let at =
            |place: usize| self.lengths.iter().any(|length| text.get(place..place + length).is_some_and(|part| self.all.contains(part)));
        text.windows(8).enumerate().any(|(place, head)| head.first_chunk::<8>().is_some_and(|head| self.heads.contains(head)) && at(place))
    }
}

pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let six = (word >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}
