//! What goes with time, and what stays.

use super::*;

const DAY: i64 = 86_400;
const KEEP: Duration = Duration::from_secs(400 * DAY as u64);

async fn ids(bed: &Bed) -> Vec<i64> {
    bed.raw().prepare("SELECT id FROM issuance ORDER BY id").unwrap().query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
}

fn expiring(mut new: NewIssuance, expires: Option<i64>) -> NewIssuance {
    if let Some(PinWritten::Issued(pin)) = new.pin.as_mut() {
        pin.expires = expires.map(WallClock);
    }
    new
}

#[tokio::test]
async fn old_issuances_go_but_not_what_the_ledger_or_the_mail_needs() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let now = at(401 * DAY);
    committed(
        &journal,
        vec![
            expiring(silent(1, "1357"), Some(NOW.0)), // 1: expired long ago: goes
            expiring(silent(2, "1357"), None),        // 2: valid for ever: stays
            expiring(silent(3, "1357"), Some(now.0)), // 3: may be valid in some time zone: stays
            announced(4, "1357"),                     // 4: still to be mailed: stays
            expiring(silent(5, "1357"), None),        // 5: replaced by 7: goes
            expiring(announced(6, "1357"), None),     // 6: never landed in the database after all: goes
        ],
    )
    .await;
    answer(&journal, 6, Answer::Gone, NOW).await;
    committed(&journal, vec![expiring(silent(5, "2468"), None)]).await;
    let refused = journal.planned(&pass(), vec![announced(8, "1357")], NOW).await.unwrap();
    journal.abandoned(refused, NOW).await.unwrap();
    let batch = journal.planned(&pass(), vec![expiring(silent(9, "1357"), Some(0))], at(200 * DAY)).await.unwrap();
    journal.committed(batch, at(200 * DAY)).await.unwrap(); // 9: ended less than 400 days ago: stays

    assert_eq!(journal.forget_old(keep(KEEP), at(399 * DAY)).await.unwrap(), 0);
    assert_eq!(journal.forget_old(keep(KEEP), now).await.unwrap(), 4);
    assert_eq!(ids(&bed).await, [2, 3, 4, 7, 9]);
    assert_eq!(counts(&bed, &journal).await, [("committed", 1), ("unannounced", 4)]);
    let batches: i64 = bed.raw().query_row("SELECT count(*) FROM batch", [], |r| r.get(0)).unwrap();
    assert_eq!(batches, 3, "an empty batch goes with its rows");
    assert!(
        facts_of(journal.reader(), {
            let mut p = person(5, Some("2468"));
            p.pins[0].expires = None;
            p
        })
        .await
        .0
        .pins[0]
            .foreseen
    );
    assert_eq!(journal.forget_old(keep(KEEP), now).await.unwrap(), 0);
}

#[tokio::test]
async fn many_rows_are_forgotten_step_by_step() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let rows = i64::from(FORGET_ROWS) * 2 + 3;
    committed(&journal, (0..rows).map(|u| expiring(silent(u, "1357"), Some(0))).collect()).await;
    assert_eq!(journal.forget_old(keep(KEEP), at(401 * DAY)).await.unwrap(), rows as u64);
    assert_eq!(ids(&bed).await, [0; 0]);
    committed(&journal, vec![silent(1, "1357")]).await;
    assert_eq!(ids(&bed).await, [rows + 1], "a number is never used twice");
}

#[tokio::test]
async fn before_images_go_after_a_week() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![NewIssuance { announcement: None, ..renewed(1, "1357", "PINold") }, renewed(2, "1357", "PINold")]).await;
    let kept = || -> Vec<i64> {
        let raw = bed.raw();
        let mut rows = raw.prepare("SELECT id FROM issuance WHERE before NOT NULL ORDER BY id").unwrap();
        rows.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect()
    };
    journal.forget_old(keep(KEEP), at(6 * DAY)).await.unwrap();
    assert_eq!(kept(), [1, 2]);
    journal.forget_old(keep(KEEP), at(8 * DAY)).await.unwrap();
    assert_eq!(kept(), [2], "an open one keeps all");
}
