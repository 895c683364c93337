//! kill -9 at random moments: no credential may be lost, and none be mailed that is not the one in the database.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use rand::RngExt;

use crate::site::Site;

const USERS: i64 = 8_000;
const KILLS: usize = 20;
/// The kinds of people who are given a PIN, see `tests/data/sql/people.sql`.
const DUE: &str = "(0, 1, 6, 8, 10, 11, 12)";

#[tokio::test(flavor = "multi_thread")]
async fn after_twenty_kills_every_pin_is_the_one_of_the_last_mail() {
    let site = Site::with_people(USERS).await.with_config(|yaml| yaml.replace("batch_size: 1000", "batch_size: 50"));
    let served = format!(
        "SELECT count(*) FROM users_cards WHERE card LIKE 'PIN%' AND pin_expiration_date > localtimestamp + interval '20 days' AND user_id % 16 IN {DUE}"
    );
    let (mut cut, mut finished, mut progress) = (0, 0, Vec::new());
    for kill in 0..KILLS {
        // Every other kill may fall anywhere; the others fall into writing and mailing, however slow the machine is.
        let run = site.start(&["--once"]);
        if kill % 2 == 1 {
            let before = progress.last().copied().unwrap_or_default();
            let until = Instant::now() + Duration::from_secs(30);
            while site.number(&served).await == before && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..400))).await;
        if run.kill() {
            cut += 1;
        } else {
            finished += 1;
        }
        progress.push(site.number(&served).await);
    }
    println!("{cut} runs were cut, {finished} had ended before; users served after each: {progress:?}");
    assert!(cut >= KILLS / 2, "most kills must hit a living process: {cut}");
    let during = progress.windows(2).filter(|w| w[1] > w[0]).count();
    assert!(during >= 5, "too few kills fell into writing: {progress:?}");
    let last = site.once(&[]);
    assert_eq!(last.code, 0, "{}", last.all());

    everybody_knows_the_pin(&site, USERS).await;
    let again = site.once(&["--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&again.stdout).expect("the report is JSON");
    assert_eq!(report["outcome"], "unchanged", "{report:#}");
}

/// A batch that is planned in the journal and stands in the database, as a crash between the COMMIT and its note leaves it.
/// Then people move, and ends change: a PIN that opens doors has to be told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_landed_before_a_crash_is_told_though_the_rows_changed_meanwhile() {
    let site = Site::with_people(160).await;
    site.stop_mail_server();
    assert_eq!(site.once(&[]).code, 4);
    let journal = rusqlite::Connection::open(site.folder().join("journal.db")).unwrap();
    let batches = journal.execute("UPDATE batch SET state = 'planned', settled_at = NULL WHERE state = 'committed'", []).unwrap();
    assert!(batches > 0);
    drop(journal);
    site.sql(
        "UPDATE users SET ou_id = 11, ou_number = 100 WHERE id % 32 < 16;
         UPDATE users_cards SET pin_expiration_date = pin_expiration_date - interval '1 day' WHERE user_id % 32 >= 16;
         DELETE FROM users_cards WHERE user_id = 12 AND card LIKE 'PIN%'",
    )
    .await;
    site.start_mail_server();
    let again = site.once(&[]);
    assert_eq!(again.code, 0, "{}", again.all());
    everybody_knows_the_pin(&site, 160).await;
}

/// Each PIN in the database is the one of the last mail to its user.
pub async fn everybody_knows_the_pin(site: &Site, users: i64) {
    let stored = site
        .rows(&format!(
            "SELECT CASE u.id % 16 WHEN 12 THEN login ELSE email END, card FROM users u JOIN users_cards c ON c.user_id = u.id
                        WHERE card LIKE 'PIN%' AND u.id % 16 IN {DUE} AND u.id <= {users}"
        ))
        .await;
    assert_eq!(stored.len(), (users / 16 * 7) as usize, "exactly one PIN each");
    let last_mail: HashMap<String, String> = site.mails().into_iter().map(|m| (m.to.clone(), m.pin())).collect();
    for (who, card) in &stored {
        let pin = last_mail.get(who).unwrap_or_else(|| panic!("{who} has a PIN and was never told"));
        let hash: String = Md5::digest(pin.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(*card, format!("PIN{hash}"), "{who} was told another PIN");
    }
}
