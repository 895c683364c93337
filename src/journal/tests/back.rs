//! Taking back, on the journal's side.

use super::*;
use crate::inventory::{Back, Past, PastPins};

fn takes_back(of: IssuanceId, because: Because, changes: Back, was: NewIssuance) -> NewIssuance {
    let takes_back = Some(Box::new(TakesBack { of: Some(of), because, changes, leaves_pinless: false }));
    NewIssuance { pin: None, code: None, password: None, moved: None, announcement: None, takes_back, ..was }
}

async fn undeliverable(journal: &Journal, new: NewIssuance) -> IssuanceId {
    let batch = journal.planned(&PassId("p".into()), vec![new], NOW).await.unwrap();
    journal.committed(batch, NOW).await.unwrap();
    let mail = journal.due_mail(&[journal.book()], NOW, 9, &[]).await.unwrap().remove(0);
    journal.attempted(vec![(mail.id, Answer::Rejected { code: 550 })], NOW, TWO_DAYS).await.unwrap();
    mail.id
}

#[tokio::test]
async fn what_is_taken_back_has_ended_and_its_user_is_on_hold_for_that_address() {
    let bed = Bed::new();
    let journal = bed.try_open().await.unwrap();
    let new = renewed(7, "123456", "PINold");
    let recipient = new.announcement.as_ref().unwrap().recipient.clone();
    let of = undeliverable(&journal, new.clone()).await;

    let (undos, lost) = journal.reader().undoable(UndoOf::Undeliverable).await.unwrap();
    assert_eq!((undos.len(), lost, undos[0].issuance, undos[0].state), (1, 0, of, State::Undeliverable));
    let stands = person(7, Some("123456"));
    let matched = journal.reader().matched(vec![(undos[0].clone(), stands)]).await.unwrap().remove(0);
    let old = StoredPin::found(StoredValue::new("PINold".to_owned()), Some(WallClock(1000)));
    assert_eq!(
        matched.0.past,
        Past { pins: PastPins::Issued { replaced: vec![old.clone()] }, moved: new.moved.clone(), ours: vec![true], ..Past::default() }
    );
    let other = person(7, Some("765432"));
    assert_eq!(journal.reader().matched(vec![(undos[0].clone(), other)]).await.unwrap()[0].0.past.ours, [false]);

    let ours = matched.1.pins[0].clone();
    let changes = Back { gone: vec![ours.clone()], came: vec![old], ..Back::default() };
    let back = takes_back(of, Because::Undeliverable, changes, new);
    let batch = journal.planned(&PassId("q".into()), vec![back], at(5)).await.unwrap();
    let facts = facts_of(journal.reader(), person(7, None)).await.1;
    assert!(facts.open && !facts.held, "nothing has happened yet: {facts:?}");
    let written = journal.unresolved().await.unwrap().remove(0).written.remove(0);
    assert!(written.takes_back && written.gone == [ours.value.clone()] && written.pins.len() == 1, "{written:?}");

    journal.committed(batch, at(5)).await.unwrap();
    let facts = facts_of(journal.reader(), person(7, None)).await.1;
    assert!(facts.held && !facts.open, "{facts:?}");
    assert_eq!((facts.held_for, facts.keeper), (Some(recipient), None), "whoever is told elsewhere is on hold no longer");
    let history = journal.reader().user_history(UserId(7), 9).await.unwrap();
    let states: Vec<_> = history.iter().map(|row| (row.state, row.changes.clone())).collect();
    assert_eq!(states, [(State::Unannounced, vec!["taken back"]), (State::TakenBack, vec!["PIN issued", "moved"])]);
    assert!(journal.reader().undoable(UndoOf::Undeliverable).await.unwrap().0.is_empty());
    assert_eq!(journal.reader().quarantined(vec![ours.value], at(9)).await.unwrap(), [true], "it goes to nobody for a while");
    assert_eq!(states_of(&journal).await, [(State::Unannounced, 1), (State::TakenBack, 1)]);
}

#[tokio::test]
async fn a_take_back_that_never_landed_changes_nothing() {
    let bed = Bed::new();
    let journal = bed.try_open().await.unwrap();
    let of = undeliverable(&journal, announced(7, "123456")).await;
    let back = takes_back(of, Because::Undeliverable, Back::default(), announced(7, "123456"));
    let batch = journal.planned(&PassId("q".into()), vec![back], NOW).await.unwrap();
    journal.resolve(batch, &[false], NOW).await.unwrap();
    assert!(!facts_of(journal.reader(), person(7, None)).await.1.held);
    assert_eq!(states_of(&journal).await, [(State::Undeliverable, 1), (State::Abandoned, 1)]);
    assert!(journal.retry(of, NOW).await.unwrap(), "its secret is still there");
}

#[tokio::test]
async fn a_pass_is_undone_and_whom_that_put_on_hold_is_released_together() {
    let bed = Bed::new();
    let journal = bed.try_open().await.unwrap();
    let pass = PassId("p".into());
    let batch = journal.planned(&pass, vec![announced(1, "111222"), announced(2, "222333")], NOW).await.unwrap();
    journal.committed(batch, NOW).await.unwrap();
    let in_hand = journal.due_mail(&[journal.book()], NOW, 1, &[]).await.unwrap().remove(0);
    journal.withhold(vec![in_hand.id, IssuanceId(in_hand.id.0 + 1)], NOW).await.unwrap();
    assert!(journal.due_mail(&[journal.book()], NOW, 9, &[]).await.unwrap().is_empty(), "nothing is sent any more");
    journal.attempted(vec![(in_hand.id, Answer::Accepted)], NOW, TWO_DAYS).await.unwrap();
    assert_eq!(states_of(&journal).await, [(State::Delivered, 1), (State::Undeliverable, 1)], "what was on its way has arrived");

    let (undos, _) = journal.reader().undoable(UndoOf::Pass(pass.clone())).await.unwrap();
    let backs =
        undos.iter().map(|undo| takes_back(undo.issuance, Because::Undone(pass.clone()), Back::default(), announced(undo.user.0, "9")));
    let batch = journal.planned(&PassId("q".into()), backs.collect(), NOW).await.unwrap();
    journal.committed(batch, NOW).await.unwrap();
    let facts = facts_of(journal.reader(), person(1, None)).await.1;
    assert!(facts.held && facts.held_for.is_none(), "only a release ends this one");
    assert_eq!(journal.reader().undoable(UndoOf::Pass(pass.clone())).await.unwrap().0.len(), 0);
    journal.hold(UserId(3), "c", "by hand", NOW).await.unwrap();
    assert_eq!(journal.release_all(&pass).await.unwrap(), 2);
    assert_eq!(journal.reader().holds(9).await.unwrap().len(), 1, "the other hold stays");
}

/// Those that are not 0.
async fn states_of(journal: &Journal) -> Vec<(State, u64)> {
    journal.reader().counts().await.unwrap().into_iter().filter(|(_, n)| *n > 0).collect()
}
