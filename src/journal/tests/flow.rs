//! Around COMMIT, and what the plan is told.

use super::*;

#[tokio::test]
async fn an_issuance_goes_from_planned_to_delivered() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let batch = journal.planned(&pass(), vec![announced(1, "1357"), announced(2, "2468")], NOW).await.unwrap();
    assert_eq!(counts(&bed, &journal).await, [("planned", 2)]);
    assert_eq!(due(&journal, at(9)).await, [0; 0], "no mail before COMMIT (I1)");
    journal.committed(batch, at(1)).await.unwrap();
    assert_eq!(counts(&bed, &journal).await, [("committed", 2)]);
    assert_eq!(due(&journal, at(1)).await, [1, 2]);
    assert_eq!(answer(&journal, 1, Answer::Accepted, at(2)).await, State::Delivered);
    assert_eq!(counts(&bed, &journal).await, [("committed", 1), ("delivered", 1)]);
    assert_eq!(due(&journal, at(3)).await, [2]);
    assert_eq!(journal.reader().oldest_open().await.unwrap(), Some(NOW));
    answer(&journal, 2, Answer::Accepted, at(3)).await;
    assert_eq!(journal.reader().oldest_open().await.unwrap(), None);
}

#[tokio::test]
async fn a_refused_commit_leaves_nothing_to_mail_and_nothing_secret() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let batch = journal.planned(&pass(), vec![renewed(1, "1357", "PINold")], NOW).await.unwrap();
    journal.abandoned(batch, at(1)).await.unwrap();
    assert_eq!(counts(&bed, &journal).await, [("abandoned", 1)]);
    assert_eq!(due(&journal, at(9)).await, [0; 0]);
    let left: i64 = bed
        .raw()
        .query_row("SELECT count(*) FROM issuance WHERE secret NOT NULL OR before NOT NULL OR open NOT NULL", [], |r| r.get(0))
        .unwrap();
    assert_eq!(left, 0);
    let (user, facts) = facts_of(journal.reader(), person(1, Some("1357"))).await;
    assert_eq!((facts, user.pins[0].foreseen), (Facts::default(), false));
    // The user may be planned again at once, under a new id.
    committed(&journal, vec![announced(1, "2468")]).await;
    assert_eq!(due(&journal, NOW).await, [2]);
}

#[tokio::test]
async fn where_nobody_is_told_commit_ends_it() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![silent(1, "1357"), announced(2, "2468"), NewIssuance { pin: None, ..renewed(3, "", "") }]).await;
    let mut moved = renewed(4, "", "");
    moved.pin = None;
    moved.announcement = None;
    committed(&journal, vec![moved]).await;
    assert_eq!(counts(&bed, &journal).await, [("committed", 2), ("unannounced", 2)]);
    let secrets: Vec<i64> = bed
        .raw()
        .prepare("SELECT id FROM issuance WHERE secret NOT NULL")
        .unwrap()
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(secrets, [2, 3]);
    assert!(facts_of(journal.reader(), person(1, Some("1357"))).await.0.pins[0].foreseen);
}

#[tokio::test]
async fn a_user_has_one_open_issuance_at_most() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357")]).await;
    let again = journal.planned(&pass(), vec![announced(2, "2468"), announced(1, "9753")], at(1)).await;
    assert!(matches!(again, Err(JournalError::AlreadyOpen { user: UserId(1) })), "{again:?}");
    assert_eq!(counts(&bed, &journal).await, [("committed", 1)], "the whole batch is refused");
    let twice = journal.planned(&pass(), vec![announced(3, "2468"), announced(3, "9753")], at(1)).await;
    assert!(matches!(twice, Err(JournalError::AlreadyOpen { user: UserId(3) })));
    answer(&journal, 1, Answer::Rejected { code: 550 }, at(2)).await;
    committed(&journal, vec![announced(1, "9753"), announced(2, "2468")]).await;
    assert_eq!(counts(&bed, &journal).await, [("committed", 2), ("undeliverable", 1)]);
}

#[tokio::test]
async fn a_batch_ends_once() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let batch = committed(&journal, vec![announced(1, "1357")]).await;
    for result in [journal.committed(batch, NOW).await, journal.abandoned(batch, NOW).await, journal.resolve(batch, &[true], NOW).await] {
        assert!(matches!(result, Err(JournalError::Illegal(_))), "{result:?}");
    }
    assert!(matches!(journal.committed(BatchId(99), NOW).await, Err(JournalError::NoSuchBatch { batch: 99 })));
    assert_eq!(counts(&bed, &journal).await, [("committed", 1)]);
}

#[tokio::test]
async fn what_a_crash_left_is_looked_up_and_settled() {
    let bed = Bed::new();
    let journal = bed.open().await;
    journal.planned(&pass(), vec![renewed(1, "1357", "PINold"), silent(2, "2468"), announced(3, "9753")], NOW).await.unwrap();
    journal.planned(&pass(), vec![announced(4, "8642")], NOW).await.unwrap();
    let left = bed.crashed();
    let journal = left.open().await;
    let found = journal.unresolved().await.unwrap();
    let [first, second] = found.as_slice() else { panic!("{found:?}") };
    let all: Vec<_> =
        first.written.iter().map(|w| (w.issuance.0, w.user.0, w.pins.first().cloned(), w.cost_center.as_ref().map(|c| c.number))).collect();
    let pin = |pin| Some((stored(pin), Some(WallClock(5000))));
    assert_eq!(all, [(1, 1, pin("1357"), Some(60)), (2, 2, pin("2468"), None), (3, 3, pin("9753"), None)]);
    assert!(!format!("{found:?}").contains("PIN1"));

    let wrong = journal.resolve(first.batch, &[true], at(5)).await;
    assert!(matches!(wrong, Err(JournalError::VerdictsDoNotFit { expected: 3, given: 1 })));
    journal.resolve(first.batch, &[true, true, false], at(5)).await.unwrap();
    journal.resolve(second.batch, &[false], at(5)).await.unwrap();
    assert_eq!(counts(&left, &journal).await, [("committed", 1), ("unannounced", 1), ("abandoned", 2)]);
    assert_eq!(journal.unresolved().await.unwrap().len(), 0);
    let mails = journal.due_mail(&[journal.book()], at(5), 10, &[]).await.unwrap();
    assert_eq!(mails.iter().map(|m| (m.id.0, m.committed_at)).collect::<Vec<_>>(), [(1, at(5))]);
    let kept: i64 = left.raw().query_row("SELECT count(*) FROM issuance WHERE secret NOT NULL", [], |r| r.get(0)).unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test]
async fn the_facts_tell_what_the_plan_asks() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let unknown = facts_of(journal.reader(), person(9, Some("1357"))).await;
    assert_eq!((unknown.1, unknown.0.pins[0].foreseen), (Facts::default(), false));

    let batch = journal.planned(&pass(), vec![announced(1, "1357"), announced(2, "2468")], NOW).await.unwrap();
    let (user, planned) = facts_of(journal.reader(), person(1, Some("1357"))).await;
    assert_eq!(planned, Facts { open: true, held: false, held_for: None, keeper: None, last_generated: Some(NOW) });
    assert!(!user.pins[0].foreseen, "not ours before COMMIT");

    journal.committed(batch, at(1)).await.unwrap();
    bed.raw().execute("INSERT INTO hold (database, user, login, since, reason) VALUES (1, 2, 'user2', 0, 'revoked')", []).unwrap();
    let known = journal.reader().facts(vec![person(2, None), person(9, None), person(1, Some("1357"))]).await.unwrap();
    assert_eq!(known.iter().map(|(u, _)| u.id.0).collect::<Vec<_>>(), [2, 9, 1], "in the order asked");
    assert_eq!(known[0].1, Facts { open: true, held: true, held_for: None, keeper: Some(policy("visitors")), last_generated: Some(NOW) });
    assert_eq!(known[1].1, Facts::default());
    assert!(known[2].0.pins[0].foreseen);

    answer(&journal, 1, Answer::Accepted, at(2)).await;
    let (_, delivered) = facts_of(journal.reader(), person(1, None)).await;
    assert_eq!(delivered, Facts { open: false, held: false, held_for: None, keeper: Some(policy("visitors")), last_generated: Some(NOW) });
    answer(&journal, 2, Answer::Gone, at(2)).await;
    let (user, gone) = facts_of(journal.reader(), person(2, Some("2468"))).await;
    assert_eq!((gone.keeper, gone.last_generated, user.pins[0].foreseen), (None, None, false), "superseded counts for nothing");
}

#[tokio::test]
async fn ours_is_the_newest_value_with_the_expiry_that_we_wrote() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357"), announced(2, "1357")]).await;
    answer(&journal, 1, Answer::Rejected { code: 550 }, NOW).await;
    let ours = async |user: User| facts_of(journal.reader(), user).await.0.pins.iter().map(|p| p.foreseen).collect::<Vec<_>>();
    assert_eq!(ours(person(1, Some("1357"))).await, [true], "an undeliverable one stands in the database");
    assert_eq!(ours(person(3, Some("1357"))).await, [false], "another user's");
    let mut extended = person(1, Some("1357"));
    extended.pins[0].expires = Some(WallClock(5001));
    assert_eq!(ours(extended).await, [false], "somebody has changed the expiry");
    let mut endless = person(1, Some("1357"));
    endless.pins[0].expires = None;
    assert_eq!(ours(endless).await, [false]);
    let mut two = person(1, Some("1357"));
    two.pins.insert(0, StoredPin { foreseen: true, ..StoredPin::found(stored("8642"), Some(WallClock(5000))) });
    assert_eq!(ours(two).await, [false, true]);

    let mut newer = silent(1, "2468");
    newer.policy = policy("staff");
    committed(&journal, vec![newer]).await;
    assert_eq!(ours(person(1, Some("1357"))).await, [false], "replaced since");
    assert_eq!(ours(person(1, Some("2468"))).await, [true]);
    assert_eq!(facts_of(journal.reader(), person(1, None)).await.1.keeper, Some(policy("staff")));
    // A move after that changes the keeper, not whose PIN it is.
    let moved = NewIssuance { pin: None, announcement: None, policy: policy("movers"), ..renewed(1, "", "") };
    let batch = journal.planned(&pass(), vec![moved], at(50)).await.unwrap();
    journal.committed(batch, at(50)).await.unwrap();
    assert_eq!(ours(person(1, Some("2468"))).await, [true]);
    let (_, facts) = facts_of(journal.reader(), person(1, None)).await;
    assert_eq!((facts.keeper, facts.last_generated), (Some(policy("movers")), Some(NOW)));
}

#[tokio::test]
async fn fingerprints_outlive_a_new_label_of_the_database() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![silent(1, "1357")]).await;
    journal.close().await.unwrap();
    let renamed = open_as(&bed.config, owner("renamed", "cluster 1"), Duration::ZERO).await.unwrap();
    assert!(facts_of(renamed.reader(), person(1, Some("1357"))).await.0.pins[0].foreseen);
}

#[tokio::test]
async fn replaced_pins_are_counted_by_policy_and_time() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let replaced = |user, policy_name: &str, count| NewIssuance {
        policy: policy(policy_name),
        replaced_unexpected: Each::of(Credential::Pin, count),
        ..renewed(user, "1357", "PINold")
    };
    let old = journal.planned(&pass(), vec![replaced(1, "a", 1)], at(-100_000)).await.unwrap();
    journal.committed(old, at(-100_000)).await.unwrap();
    committed(&journal, vec![replaced(2, "a", 2), replaced(3, "b", 1), replaced(4, "a", 0)]).await;
    let refused = journal.planned(&pass(), vec![replaced(5, "a", 4)], NOW).await.unwrap();
    journal.abandoned(refused, NOW).await.unwrap();
    journal.planned(&pass(), vec![replaced(6, "a", 8)], NOW).await.unwrap();
    let since = async |name: &str, since| journal.reader().replaced_since(&policy(name), since).await.unwrap()[Credential::Pin];
    assert_eq!(since("a", at(-86_400)).await, 10, "the planned ones too: they may have been committed");
    assert_eq!(since("a", Timestamp(0)).await, 11);
    assert_eq!(since("b", at(-86_400)).await, 1);
    assert_eq!(since("c", Timestamp(0)).await, 0);
    assert_eq!(since("a", at(1)).await, 0);
}

#[tokio::test]
async fn history_and_passes_are_kept_for_people() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![renewed(1, "1357", "PINold")]).await;
    answer(&journal, 1, Answer::Deferred { code: Some(451) }, at(1)).await;
    answer(&journal, 1, Answer::Rejected { code: 550 }, at(30)).await;
    let role_removed = Some(Role { id: RoleId(31), name: "Visitor".to_owned() });
    committed(&journal, vec![NewIssuance { role_removed, ..announced(1, "2468") }]).await;
    let history = bed.read().await.unwrap().user_history(UserId(1), 10).await.unwrap();
    assert_eq!(history.iter().map(|h| (h.issuance.0, h.state)).collect::<Vec<_>>(), [(2, State::Committed), (1, State::Undeliverable)]);
    assert_eq!(history[0].changes, ["PIN issued", "role removed"]);
    let old = &history[1];
    assert_eq!((old.changes.as_slice(), old.attempts, old.last_reply), (&["PIN issued", "moved"][..], 2, Some(550)));
    assert_eq!((old.planned_at, old.committed_at, old.ended_at, old.next_attempt), (NOW, Some(NOW), Some(at(30)), None));
    assert_eq!(journal.reader().user_history(UserId(1), 1).await.unwrap().len(), 1);

    assert_eq!(journal.reader().last_pass().await.unwrap(), None);
    for number in 0..150 {
        journal.pass_started(&PassId(format!("poll{number}")), "poll", at(number)).await.unwrap();
    }
    let full = PassId("full".to_owned());
    journal.pass_started(&full, "resync", at(200)).await.unwrap();
    let cut_off = journal.reader().last_pass().await.unwrap().unwrap();
    assert_eq!((cut_off.pass.0.as_str(), cut_off.ended, cut_off.outcome), ("full", None, None));
    journal.pass_ended(&full, "changed", serde_json::json!({"users": 3}), at(210)).await.unwrap();
    let ended = journal.reader().last_pass().await.unwrap().unwrap();
    assert_eq!((ended.ended, ended.outcome.as_deref(), ended.totals["users"].as_i64()), (Some(at(210)), Some("changed"), Some(3)));
    assert_eq!(journal.reader().passes(&["poll"], 1).await.unwrap()[0].pass.0, "poll149");
    assert_eq!(journal.reader().passes(&[], 1000).await.unwrap().len(), 101, "old polls go");
}

#[tokio::test]
async fn a_full_disk_writes_nothing_and_says_so() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let limit = async |pages: i64| {
        let job = move |w: &mut Writer| {
            w.view.db.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
            Ok(())
        };
        journal.write(job).await.unwrap();
    };
    limit(1).await; // no more than there are
    let many: Vec<_> = (0..500).map(|user| announced(user, "1357")).collect();
    let error = journal.planned(&pass(), many.clone(), NOW).await.unwrap_err();
    assert!(matches!(error, JournalError::Write { .. }), "{error}");
    assert!(error.is_transient());
    assert_eq!(counts(&bed, &journal).await, []);
    limit(1 << 20).await;
    journal.planned(&pass(), many, NOW).await.unwrap();
    assert_eq!(counts(&bed, &journal).await, [("planned", 500)]);
}
