//! kill -9 at random moments: no credential may be lost, and none be mailed that is not the one in the database.

use std::collections::HashMap;
use std::time::Duration;

use md5::{Digest, Md5};
use rand::RngExt;

use crate::site::Site;

const USERS: i64 = 8_000;
const KILLS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn after_twenty_kills_every_pin_is_the_one_of_the_last_mail() {
    let site = Site::with_people(USERS).await.with_config(|yaml| yaml.replace("batch_size: 1000", "batch_size: 50"));
    let (mut cut, mut finished) = (0, 0);
    for kill in 0..KILLS {
        // Early kills fall into the start and the read, later ones into writing and mailing.
        let moment = Duration::from_millis(rand::rng().random_range(30..(200 + 60 * kill as u64)));
        let run = site.start(&["--once"]);
        tokio::time::sleep(moment).await;
        if run.kill() {
            cut += 1;
        } else {
            finished += 1;
        }
    }
    println!("{cut} runs were cut, {finished} had ended before");
    assert!(cut >= KILLS / 2, "most kills must hit a living process: {cut}");
    let last = site.once(&[]);
    assert_eq!(last.code, 0, "{}", last.all());

    let due = "(0, 1, 6, 8, 10, 11, 12)";
    let stored = site
        .rows(&format!("SELECT CASE u.id % 16 WHEN 12 THEN login ELSE email END, card FROM users u JOIN users_cards c ON c.user_id = u.id
                        WHERE card LIKE 'PIN%' AND u.id % 16 IN {due} AND u.id <= {USERS}"))
        .await;
    assert_eq!(stored.len(), (USERS / 16 * 7) as usize, "exactly one PIN each");
    let last_mail: HashMap<String, String> = site.mails().into_iter().map(|m| (m.to.clone(), m.pin())).collect();
    for (who, card) in &stored {
        let pin = last_mail.get(who).unwrap_or_else(|| panic!("{who} has a PIN and was never told"));
        let hash: String = Md5::digest(pin.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(*card, format!("PIN{hash}"), "{who} was told another PIN");
    }
    let again = site.once(&["--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&again.stdout).expect("the report is JSON");
    assert_eq!(report["outcome"], "unchanged", "{report:#}");
}
