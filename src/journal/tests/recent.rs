//! What the ledger says stands, held against what does.

use super::*;
use crate::inventory::Trace;

const WALL: WallClock = WallClock(4000);

async fn trace_of(journal: &Journal, users: Vec<User>, wall: WallClock, kinds_read: (bool, bool)) -> Vec<(i64, Trace)> {
    let newest = journal.reader().newest_credentials(NOW, 100).await.unwrap();
    let traces = journal.reader().traces(newest, users, wall, kinds_read).await.unwrap();
    traces.into_iter().map(|(recent, trace)| (recent.user.0, trace)).collect()
}

#[tokio::test]
async fn each_issuance_stands_is_gone_or_says_nothing() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1111"), renewed(2, "2222", "PINold"), silent(3, "3333")]).await;
    let back = |user: i64| {
        let mut user = person(user, None);
        user.pins.push(StoredPin::found(StoredValue::new("PINold".to_owned()), Some(WallClock(1000))));
        user
    };
    let moved = |user: User| User { cost_center: Membership { id: CostCenterId(6), number: 60 }, ..user };
    let later = |user: User| {
        let pins = user.pins.iter().map(|pin| StoredPin { expires: Some(WallClock(9000)), ..pin.clone() }).collect();
        User { pins, ..user }
    };
    let nobody = (false, false);
    #[rustfmt::skip]
    let table: Vec<(&str, i64, Option<User>, WallClock, Trace)> = vec![
        ("the PIN stands", 1, Some(person(1, Some("1111"))), WALL, Trace::Stands),
        ("whatever its end is by now", 1, Some(later(person(1, Some("1111")))), WALL, Trace::Stands),
        ("another one is none", 1, Some(person(1, Some("9999"))), WALL, Trace::Gone),
        ("none at all", 1, Some(person(1, None)), WALL, Trace::Gone),
        ("nor one that another user has", 1, Some(person(1, Some("3333"))), WALL, Trace::Gone),
        ("the user is gone", 1, None, WALL, Trace::NoUser),
        ("it has lapsed, and may have been cleared away", 1, Some(person(1, None)), WallClock(5000), Trace::Untold),
        ("the user is back, and so is the old PIN", 2, Some(back(2)), WALL, Trace::Gone),
        ("the old PIN has not come back: somebody has removed the new one", 2, Some(person(2, None)), WALL, Trace::Stands),
        ("nor has the user moved back", 2, Some(moved(back(2))), WALL, Trace::Stands),
        ("what nobody was told counts too", 3, Some(person(3, None)), WALL, Trace::Gone),
    ];
    for (sentence, user, found, wall, expected) in table {
        let traces = trace_of(&journal, found.into_iter().collect(), wall, nobody).await;
        assert!(traces.contains(&(user, expected)), "{sentence}: {traces:?}");
        assert_eq!(traces.iter().map(|(user, _)| *user).collect::<Vec<_>>(), [3, 2, 1], "newest first");
    }
}

#[tokio::test]
async fn only_the_newest_word_on_a_user_counts_and_only_lately() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1111"), announced(2, "2222")]).await;
    for id in [1, 2] {
        answer(&journal, id, Answer::Accepted, NOW).await;
    }
    committed(&journal, vec![announced(1, "1212")]).await;
    let deleted = PinWritten::Deleted { pins: vec![StoredPin::found(stored("2222"), None)] };
    committed(&journal, vec![NewIssuance { pin: Some(deleted), ..silent(2, "2222") }]).await;
    let newest = journal.reader().newest_credentials(NOW, 100).await.unwrap();
    assert_eq!(newest.iter().map(|recent| recent.issuance.0).collect::<Vec<_>>(), [3], "what we removed ourselves is not missed");
    assert!(journal.reader().newest_credentials(at(1), 100).await.unwrap().is_empty());
    let all = journal.reader().in_force(IssuanceId(1), None, 2).await.unwrap();
    assert_eq!(all.iter().map(|recent| recent.issuance.0).collect::<Vec<_>>(), [3, 2]);
    let rest = journal.reader().in_force(IssuanceId(1), Some(IssuanceId(2)), 2).await.unwrap();
    assert_eq!(rest.iter().map(|recent| recent.issuance.0).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn codes_and_passwords_that_nobody_reads_say_nothing() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let code = IssuedCode { code: Code::new("004711".to_owned()), stored: StoredValue::new("sealed code".to_owned()), replaced: None };
    committed(&journal, vec![NewIssuance { pin: None, code: Some(code), ..announced(1, "") }]).await;
    for (read, expected) in [((false, false), Trace::Untold), ((false, true), Trace::Untold), ((true, false), Trace::Gone)] {
        assert_eq!(trace_of(&journal, vec![person(1, None)], WALL, read).await, [(1, expected)]);
    }
    let holder = User { code: Some(StoredValue::new("sealed code".to_owned())), ..person(1, None) };
    assert_eq!(trace_of(&journal, vec![holder], WALL, (true, false)).await, [(1, Trace::Stands)]);
}

#[tokio::test]
async fn what_is_adopted_ends_in_one_step_and_is_counted_once() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1111"), announced(2, "2222"), silent(3, "3333"), announced(4, "4444")]).await;
    answer(&journal, 1, Answer::Accepted, NOW).await;
    answer(&journal, 4, Answer::Accepted, NOW).await;
    journal.keep_baseline(Baseline { users: 9, pinless: Some(1) }).await.unwrap();
    journal.adopt("cluster 1".to_owned(), [1, 2, 3, 99].map(IssuanceId).to_vec(), at(5)).await.unwrap();
    assert_eq!(counts(&bed, &journal).await, [("delivered", 1), ("superseded", 3)]);
    assert!(journal.reader().baseline().await.unwrap().is_none());
    assert!(due(&journal, at(9_999)).await.is_empty(), "what is gone is not mailed");
    let secrets: i64 = bed.raw().query_row("SELECT count(*) FROM issuance WHERE secret IS NOT NULL", [], |row| row.get(0)).unwrap();
    assert_eq!(secrets, 0);
    // Twice is once.
    journal.adopt("cluster 1".to_owned(), vec![IssuanceId(1)], at(6)).await.unwrap();
    assert_eq!((journal.take_lost().await.unwrap(), journal.take_lost().await.unwrap()), (1, 0));
    assert!(facts_of(journal.reader(), person(1, None)).await.1.keeper.is_none(), "nobody keeps the user because of it");
}

#[tokio::test]
async fn another_database_takes_over_its_book() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1111")]).await;
    journal.close().await.unwrap();
    let other = owner("main", "cluster 2");
    let file = JournalFile::open(&bed.config, vec![other.clone()], Duration::ZERO).await.unwrap();
    let (journal, recorded) = file.to_adopt("main").await.unwrap();
    assert_eq!(recorded.as_deref(), Some("cluster 1"));
    assert!(matches!(file.of("main").await, Err(JournalError::OtherDatabase { .. })), "looking adopts nothing");
    journal.adopt("cluster 2".to_owned(), Vec::new(), NOW).await.unwrap();
    assert!(file.to_adopt("main").await.unwrap().1.is_none());
    let journal = file.of("main").await.unwrap();
    assert_eq!(journal.reader().user_history(UserId(1), 9).await.unwrap().len(), 1, "it is the same book");
    file.close().await.unwrap();
    assert!(bed.try_open().await.is_err(), "and that of the old one no more");
}
