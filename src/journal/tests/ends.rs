//! PINs that get another end, that go, and that nobody may have for a while.

use super::*;

const DAY: i64 = 86_400;

fn pins(pins: &[(&str, Option<i64>)]) -> Vec<StoredPin> {
    pins.iter().map(|(pin, end)| StoredPin::found(stored(pin), end.map(WallClock))).collect()
}

fn changed(user: i64, pin: PinWritten) -> NewIssuance {
    NewIssuance { pin: Some(pin), announcement: None, ..announced(user, "0000") }
}

fn extended(user: i64, before: &[(&str, Option<i64>)], to: i64) -> NewIssuance {
    changed(user, PinWritten::Extended { pins: pins(before), to: WallClock(to) })
}

fn deleted(user: i64, before: &[(&str, Option<i64>)]) -> NewIssuance {
    changed(user, PinWritten::Deleted { pins: pins(before) })
}

/// When each PIN was issued by us, and whether its end is known to be ours.
async fn known(journal: &Journal, user: i64, standing: &[(&str, Option<i64>)]) -> Vec<(Option<i64>, bool)> {
    let user = User { pins: pins(standing), ..person(user, None) };
    let (user, _) = facts_of(journal.reader(), user).await;
    user.pins.iter().map(|p| (p.issued.map(|at| at.0 - NOW.0), p.foreseen)).collect()
}

#[tokio::test]
async fn what_got_another_end_is_foreseen_and_what_we_issued_stays_ours() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![silent(1, "1357")]).await;
    committed(&journal, vec![extended(1, &[("1357", Some(5000)), ("8642", Some(10))], 9000)]).await;
    committed(&journal, vec![extended(2, &[("2468", None)], 9000)]).await;
    assert_eq!(counts(&bed, &journal).await, [("unannounced", 3)], "nobody is told");
    assert_eq!(known(&journal, 1, &[("1357", Some(9000)), ("8642", Some(9000))]).await, [(Some(0), true), (None, true)]);
    assert_eq!(known(&journal, 1, &[("1357", Some(5000))]).await, [(Some(0), false)], "that end is of yesterday");
    assert_eq!(known(&journal, 2, &[("2468", Some(9000))]).await, [(None, true)]);
    assert_eq!(known(&journal, 2, &[("1357", Some(9000))]).await, [(None, false)], "the PIN of another user");
    let (_, facts) = facts_of(journal.reader(), person(2, None)).await;
    assert_eq!((facts.keeper, facts.last_generated), (Some(policy("visitors")), None), "nothing was generated");
    let history = journal.reader().user_history(UserId(1), 9).await.unwrap();
    assert_eq!(history.iter().map(|row| row.changes.clone()).collect::<Vec<_>>(), [["PIN extended"], ["PIN issued"]]);
}

#[tokio::test]
async fn what_a_crash_left_of_ends_and_removals_can_be_looked_up() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let mut with_move = deleted(3, &[("9753", None)]);
    with_move.moved = renewed(3, "", "").moved;
    with_move.role_removed = Some(Role { id: RoleId(31), name: "Visitor".to_owned() });
    journal
        .planned(&pass(), vec![extended(1, &[("1357", None), ("2468", Some(4))], 9000), deleted(2, &[("8642", None)]), with_move], NOW)
        .await
        .unwrap();
    let left = bed.crashed();
    let journal = left.open().await;
    let found = journal.unresolved().await.unwrap();
    let written = &found[0].written;
    let end = Some(WallClock(9000));
    assert_eq!(written[0].pins, [(stored("1357"), end), (stored("2468"), end)]);
    assert_eq!((written[1].pins.len(), &written[1].gone), (0, &vec![stored("8642")]));
    assert_eq!((&written[2].gone, written[2].cost_center.as_ref().map(|c| c.number)), (&vec![stored("9753")], Some(60)));
    assert_eq!((written[1].role_gone, written[2].role_gone), (None, Some(RoleId(31))));
    journal.resolve(found[0].batch, &[true, true, false], at(5)).await.unwrap();
    assert_eq!(counts(&left, &journal).await, [("unannounced", 2), ("abandoned", 1)]);
    assert_eq!(journal.reader().quarantined(vec![stored("8642"), stored("9753")], at(6)).await.unwrap(), [true, false]);
}

#[tokio::test]
async fn a_freed_pin_is_in_quarantine_in_every_form_until_its_time_is_over() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(
        &journal,
        vec![renewed(1, "1357", stored("2468").expose()), deleted(2, &[("9753", None)]), extended(3, &[("1122", None)], 9)],
    )
    .await;
    let never = NewIssuance { quarantine: Duration::ZERO, ..deleted(4, &[("3344", None)]) };
    committed(&journal, vec![never]).await;
    let refused = journal.planned(&pass(), vec![deleted(5, &[("5566", None)])], NOW).await.unwrap();
    journal.abandoned(refused, NOW).await.unwrap();

    let is_held = async |value: StoredValue, now| journal.reader().quarantined(vec![value], now).await.unwrap()[0];
    for form in PinFormat::every_form(&Pin::new("2468".to_owned())) {
        assert!(is_held(form, at(89 * DAY)).await);
    }
    assert!(is_held(stored("9753"), NOW).await);
    assert!(!is_held(stored("9753"), at(90 * DAY)).await, "its time is over");
    for free in ["1357", "1122", "3344", "5566", "0000"] {
        assert!(!is_held(stored(free), at(1)).await, "{free}");
    }
    assert!(!is_held(StoredValue::new("04A1B2C3".to_owned()), at(1)).await, "a card");
    let bytes = bed.bytes();
    let digest = stored("2468").expose()[3..].to_owned();
    assert!(!bytes.windows(digest.len()).any(|w| w == digest.as_bytes()), "no PIN is kept");

    journal.forget_old(keep(Duration::from_secs(400 * DAY as u64)), at(91 * DAY)).await.unwrap();
    let left: i64 = bed.raw().query_row("SELECT count(*) FROM freed", [], |r| r.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_ledger_keeps_what_it_knows_of_a_pin_as_long_as_a_later_end_keeps_that_valid() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let now = at(401 * DAY);
    committed(&journal, vec![silent(1, "1357"), silent(2, "1357")]).await;
    committed(&journal, vec![extended(1, &[("1357", Some(5000))], now.0 + DAY)]).await;
    journal.forget_old(keep(Duration::from_secs(400 * DAY as u64)), now).await.unwrap();
    assert_eq!(known(&journal, 1, &[("1357", Some(now.0 + DAY))]).await, [(Some(0), true)]);
    assert_eq!(known(&journal, 2, &[("1357", Some(5000))]).await, [(None, false)], "expired long ago, and forgotten");
}

#[tokio::test]
async fn whose_pin_is_old_is_known_by_the_newest_one() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![silent(1, "1357"), silent(2, "1357"), extended(3, &[("1357", None)], 9)]).await;
    let batch = journal.planned(&pass(), vec![silent(2, "2468"), extended(1, &[("1357", None)], 9)], at(100)).await.unwrap();
    journal.committed(batch, at(100)).await.unwrap();
    let users = async |until| {
        let looked = async |above: Option<UserId>| journal.reader().issued_until(Credential::Pin, until, above).await.unwrap();
        let all = looked(None).await;
        assert_eq!(looked(Some(UserId(0))).await, all, "both ways of looking find the same");
        assert!(looked(Some(UserId(2))).await.iter().all(|user| user.0 > 2));
        all.iter().map(|u| u.0).collect::<Vec<_>>()
    };
    assert_eq!(users(at(-1)).await, [0; 0]);
    assert_eq!(users(at(50)).await, [1], "an extension makes nothing younger, and an issue does");
    assert_eq!(users(at(100)).await, [1, 2]);
}

#[tokio::test]
async fn a_hold_is_told_until_it_is_released() {
    let bed = Bed::new();
    let journal = bed.open().await;
    assert!(journal.hold(UserId(1), "jdoe", "for a test", NOW).await.unwrap());
    assert!(!journal.hold(UserId(1), "jdoe", "again", at(9)).await.unwrap(), "the first one stands");
    assert!(facts_of(journal.reader(), person(1, None)).await.1.held);
    let hold = Hold { user: UserId(1), login: "jdoe".to_owned(), since: NOW, reason: "for a test".to_owned() };
    assert_eq!(journal.reader().hold_of(UserId(1)).await.unwrap(), Some(hold.clone()));
    assert_eq!(journal.reader().holds(9).await.unwrap(), [hold]);
    assert!(journal.release(UserId(1)).await.unwrap());
    assert!(!journal.release(UserId(1)).await.unwrap());
    assert!(!facts_of(journal.reader(), person(1, None)).await.1.held);
}

#[tokio::test]
async fn a_journal_of_the_first_version_is_brought_up_to_date_by_its_writer() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![silent(1, "1357")]).await;
    journal.close().await.unwrap();
    bed.raw()
        .execute_batch(&format!(
            "{}; DROP TABLE freed; DROP TABLE hold; CREATE TABLE hold (user INTEGER PRIMARY KEY, since INTEGER, reason TEXT); PRAGMA user_version = 1",
            books::AS_VERSION_2
        ))
        .unwrap();
    let reading = JournalReader::open(&bed.config, vec![owner("main", "cluster 1")], "main").await;
    assert!(matches!(reading, Err(JournalError::Older { .. })), "a reader changes nothing");
    let journal = bed.open().await;
    assert_eq!(known(&journal, 1, &[("1357", Some(5000))]).await, [(Some(0), true)], "what was known is known");
    committed(&journal, vec![deleted(2, &[("9753", None)])]).await;
    assert!(bed.read().await.is_some());
}
