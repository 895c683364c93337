//! Everything that a full run leaves behind is searched for every PIN that it issued: plain, as its hash, in hex and Base64.
//! PINs of twelve digits, so that no timestamp or size can look like one.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::site::{Mail, Site, Step};

#[tokio::test(flavor = "multi_thread")]
async fn no_log_report_journal_error_or_metric_holds_a_pin_or_its_hash() {
    let site = Site::with_people(1_600).await.with_config(|yaml| {
        yaml.replace("length: 6", "length: 12").replace("level: info", "level: trace").replace("batch_size: 1000", "batch_size: 100")
    });
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    let mut keep = |name: &str, text: &str| texts.push((name.to_owned(), text.as_bytes().to_vec()));

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
    keep("--once that delivers", &site.once(&["--format", "json"]).all());
    let daemon = site.start(&[]);
    daemon.until(Step::Ready).await;
    site.add_visitor("late@visitors.example").await;
    site.mail_to("late@visitors.example", Duration::from_secs(30)).await;
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
    let needles = Needles::of(&mails);
    assert!(needles.found_in(mails[0].raw.as_bytes()), "the search itself must be able to find");
    for (name, text) in &texts {
        assert!(text.len() > 20, "{name} is empty");
        assert!(!needles.found_in(text), "{name} holds a PIN or a hash");
    }
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

/// What must not be found, by length.
struct Needles(Vec<(usize, HashSet<Vec<u8>>)>);

impl Needles {
    fn of(mails: &[Mail]) -> Needles {
        let mut by_length: Vec<(usize, HashSet<Vec<u8>>)> = Vec::new();
        for mail in mails {
            let pin = mail.pin();
            assert_eq!(pin.len(), 12);
            let digest = Md5::digest(pin.as_bytes()).to_vec();
            let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
            let pin_hex: String = pin.bytes().map(|b| format!("{b:02x}")).collect();
            // Base64 loses its padding, so that it is found inside of longer values too.
            let base64 = |bytes: &[u8]| base64(bytes).trim_end_matches('=').to_owned();
            for needle in [
                pin.clone().into_bytes(),
                hex.clone().into_bytes(),
                hex.to_uppercase().into_bytes(),
                pin_hex.into_bytes(),
                digest.clone(),
                base64(pin.as_bytes()).into_bytes(),
                base64(hex.as_bytes()).into_bytes(),
                base64(&digest).into_bytes(),
                base64(format!("PIN{hex}").as_bytes()).into_bytes(),
            ] {
                match by_length.iter_mut().find(|(length, _)| *length == needle.len()) {
                    Some((_, set)) => drop(set.insert(needle)),
                    None => by_length.push((needle.len(), HashSet::from([needle]))),
                }
            }
        }
        Needles(by_length)
    }

    fn found_in(&self, text: &[u8]) -> bool {
        self.0.iter().any(|(length, set)| text.windows(*length).any(|window| set.contains(window)))
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
