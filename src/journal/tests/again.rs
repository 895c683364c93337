//! Mails that are sent again: what waits or was refused, and what was there already.

use super::*;

fn code(plain: &str) -> (Code, StoredValue) {
    (Code::new(plain.to_owned()), StoredValue::new(format!("stored {plain}")))
}

async fn waiting(journal: &Journal, now: Timestamp) -> Vec<IssuanceId> {
    journal.due_mail(&[journal.book()], now, 10, &[]).await.unwrap().into_iter().map(|mail| mail.id).collect()
}

async fn state_of(journal: &Journal, id: i64) -> State {
    let rows = journal.reader().user_history(UserId(id), 1).await.unwrap();
    rows[0].state
}

#[tokio::test]
async fn what_waits_or_was_refused_is_tried_again_as_if_for_the_first_time() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, (1..=4).map(|user| announced(user, "1357")).collect()).await;
    let later = Answer::Deferred { code: Some(451) };
    assert_eq!(answer(&journal, 1, later, at(10)).await, State::Committed);
    assert_eq!(answer(&journal, 2, Answer::Rejected { code: 550 }, at(10)).await, State::Undeliverable);
    assert_eq!(answer(&journal, 3, Answer::Accepted, at(10)).await, State::Delivered);
    assert_eq!(answer(&journal, 4, Answer::Gone, at(10)).await, State::Superseded);
    assert_eq!(waiting(&journal, at(10)).await, []);

    let mut retried = Vec::new();
    for id in 1..=5 {
        let before = journal.mail_of(IssuanceId(id)).await.unwrap();
        let again = journal.retry(IssuanceId(id), at(20)).await.unwrap();
        assert_eq!(before.is_some(), again, "what can be read can be tried");
        retried.push(again);
    }
    assert_eq!(retried, [true, true, false, false, false]);
    let after = bed.crashed().open().await;
    assert_eq!(waiting(&after, at(20)).await, [IssuanceId(1), IssuanceId(2)], "after a crash too");
    let mail = after.mail_of(IssuanceId(2)).await.unwrap().unwrap();
    assert_eq!((mail.announcement.message_id.as_str(), mail.pin.unwrap().expose(), mail.attempts), ("m-2@example.org", "1357", 0));
    assert!(facts_of(after.reader(), person(2, Some("1357"))).await.1.open, "nothing is issued meanwhile");
    assert_eq!(after.reader().counts().await.unwrap(), journal.reader().counts().await.unwrap(), "counted as it is");
    assert_eq!(answer(&journal, 2, Answer::Accepted, at(30)).await, State::Delivered);
    assert_eq!(state_of(&journal, 2).await, State::Delivered);
}

#[tokio::test]
async fn what_was_there_is_told_again_and_taken_for_no_change() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357")]).await;
    answer(&journal, 1, Answer::Accepted, at(5)).await;
    let known = facts_of(journal.reader(), person(1, Some("1357"))).await;
    let password = (Password::new("Xy7pQ".to_owned()), StoredValue::new("$2a$stored".to_owned()));
    let again = Again { code: Some(code("778899")), password: Some(password) };
    let existing = ExistingPin { pin: Pin::new("1357".to_owned()), stored: stored("1357"), expires: Some(WallClock(5000)) };
    let new = NewIssuance { pin: None, existing: Some(existing), again, ..announced(1, "1357") };
    let batch = journal.planned(&pass(), vec![new], at(100)).await.unwrap();
    let written = journal.unresolved().await.unwrap().remove(0).written.remove(0);
    assert!(written.pins.is_empty() && written.code.is_none() && written.password.is_none(), "nothing of it was written anywhere");
    journal.committed(batch, at(100)).await.unwrap();

    let mail = journal.due_mail(&[journal.book()], at(100), 10, &[]).await.unwrap().remove(0);
    assert_eq!((mail.pin.unwrap().expose(), mail.code.unwrap().expose(), mail.password.unwrap().expose()), ("1357", "778899", "Xy7pQ"));
    assert_eq!(mail.written.code, Some(code("778899").1), "a late mail looks whether it still stands");
    let bytes = bed.bytes();
    assert!(!["778899", "Xy7pQ", "$2a$stored"].iter().any(|secret| bytes.windows(secret.len()).any(|w| w == secret.as_bytes())));
    answer(&journal, 2, Answer::Accepted, at(101)).await;
    assert_eq!(journal.reader().user_history(UserId(1), 1).await.unwrap()[0].changes, ["sent again"]);
    assert_eq!(facts_of(journal.reader(), person(1, Some("1357"))).await, known, "when it was issued, by whom, and who keeps the user");
    assert_eq!(journal.reader().replaced_since(&policy("visitors"), NOW).await.unwrap(), Each::default());
}
