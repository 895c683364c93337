//! The queue of mails.

use super::*;

async fn due_of(journal: &Journal, limit: usize, in_flight: &[i64]) -> Vec<i64> {
    let in_flight: Vec<_> = in_flight.iter().copied().map(IssuanceId).collect();
    journal.due_mail(&[journal.book()], NOW, limit, &in_flight).await.unwrap().iter().map(|m| m.id.0).collect()
}

#[tokio::test]
async fn a_mail_has_all_that_rendering_and_looking_up_need() {
    let bed = Bed::new();
    let journal = bed.open().await;
    let new = renewed(7, "0042", "PINold");
    let batch = journal.planned(&pass(), vec![new.clone()], NOW).await.unwrap();
    journal.committed(batch, at(3)).await.unwrap();
    let mail = journal.due_mail(&[journal.book()], at(3), 10, &[]).await.unwrap().remove(0);
    assert_eq!(Some(&mail.announcement), new.announcement.as_ref());
    assert_eq!((mail.id.0, mail.user.0, mail.policy, mail.attempts), (1, 7, policy("visitors"), 0));
    assert_eq!(mail.pin.as_ref().map(|p| p.expose()), Some("0042"));
    assert_eq!((mail.expires, mail.due_since, mail.committed_at), (Some(WallClock(5000)), NOW, at(3)));
    assert_eq!(mail.written.pins, [(stored("0042"), Some(WallClock(5000)))]);
    assert_eq!(mail.written.cost_center, None, "a user who was moved on still needs the PIN");
}

#[tokio::test]
async fn the_lanes_take_turns_each_oldest_first() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, (1..=4).map(|u| announced(u, "1357")).collect()).await;
    committed(&journal, (5..=6).map(|u| polled(announced(u, "1357"))).collect()).await;
    assert_eq!(due_of(&journal, 10, &[]).await, [5, 1, 6, 2, 3, 4]);
    assert_eq!(due_of(&journal, 10, &[5, 1, 6]).await, [2, 3, 4]);
    // One at a time, as a slow relay asks: the turn is remembered.
    let mut taken = Vec::new();
    for _ in 0..6 {
        taken.push(due_of(&journal, 1, &taken).await[0]);
    }
    taken.sort();
    assert_eq!(taken, [1, 2, 3, 4, 5, 6]);
    let first = due_of(&journal, 1, &[]).await;
    let second = due_of(&journal, 1, &first).await;
    assert_ne!(first[0] > 4, second[0] > 4, "{first:?} and {second:?} are of the same lane");
    assert_eq!(due_of(&journal, 0, &[]).await, [0; 0]);
    assert_eq!(due_of(&journal, 10, &[1, 2, 3, 4, 5, 6]).await, [0; 0]);
}

#[tokio::test]
async fn a_mail_put_off_comes_back_later_and_behind_those_that_waited() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357"), announced(2, "2468")]).await;
    assert_eq!(answer(&journal, 1, Answer::Deferred { code: Some(451) }, at(0)).await, State::Committed);
    assert_eq!(due(&journal, at(11)).await, [2]);
    assert_eq!(due(&journal, at(18)).await, [2, 1]);
    let mail = journal.due_mail(&[journal.book()], at(18), 10, &[IssuanceId(2)]).await.unwrap().remove(0);
    assert_eq!((mail.attempts, mail.pin.unwrap().expose().to_owned()), (1, "1357".to_owned()));
    assert_eq!(counts(&bed, &journal).await, [("committed", 2)]);
    assert_eq!(journal.next_mail_at(&[journal.book()], &[]).await.unwrap(), Some(NOW));
    let next = journal.next_mail_at(&[journal.book()], &[IssuanceId(2)]).await.unwrap().unwrap();
    assert!((12..=18).contains(&(next.0 - NOW.0)), "{next}");
    assert_eq!(journal.next_mail_at(&[journal.book()], &[IssuanceId(1), IssuanceId(2)]).await.unwrap(), None);
}

/// Who is refused for the site's sake each time must not be each time the first who finds out whether the site is well.
#[tokio::test]
async fn a_mail_without_a_verdict_stays_due_behind_those_that_waited_and_was_not_tried() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357"), announced(2, "2468"), announced(3, "9753")]).await;
    assert_eq!(answer(&journal, 1, Answer::NoVerdict, at(5)).await, State::Committed);
    assert_eq!(due(&journal, at(5)).await, [2, 3, 1]);
    assert_eq!(answer(&journal, 2, Answer::NoVerdict, at(20)).await, State::Committed);
    assert_eq!(due(&journal, at(20)).await, [3, 1, 2]);
    let mail = journal.due_mail(&[journal.book()], at(20), 1, &[IssuanceId(2), IssuanceId(3)]).await.unwrap().remove(0);
    assert_eq!(mail.attempts, 0, "such a try does not count");
    // Nor does the time begin after which a mail is given up.
    assert_eq!(answer(&journal, 1, Answer::NoVerdict, at(400_000)).await, State::Committed);
    assert_eq!(answer(&journal, 1, Answer::Deferred { code: Some(451) }, at(400_001)).await, State::Committed);
    assert_eq!(answer(&journal, 3, Answer::Accepted, at(400_002)).await, State::Delivered);
}

#[tokio::test]
async fn after_two_days_of_later_it_is_undeliverable_and_keeps_its_secret() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357")]).await;
    let mut now = at(1000);
    let mut tries = 0;
    while answer(&journal, 1, Answer::Deferred { code: None }, now).await == State::Committed {
        now = journal.next_mail_at(&[journal.book()], &[]).await.unwrap().unwrap();
        assert_eq!(due(&journal, now).await, [1]);
        tries += 1;
    }
    assert_eq!(now, at(1000 + 48 * 3600), "the last try falls on the deadline, which counts from the first try");
    assert!((180..240).contains(&tries), "{tries} tries");
    assert_eq!(counts(&bed, &journal).await, [("undeliverable", 1)]);
    assert_eq!(journal.next_mail_at(&[journal.book()], &[]).await.unwrap(), None);
    let secret: Option<Vec<u8>> = bed.raw().query_row("SELECT secret FROM issuance", [], |r| r.get(0)).unwrap();
    assert!(secret.is_some());
}

#[tokio::test]
async fn answers_of_a_group_are_written_together_and_one_that_does_not_fit_holds_up_none() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, (1..=4).map(|u| announced(u, "1357")).collect()).await;
    let answers = [
        (1, Answer::Accepted),
        (2, Answer::Rejected { code: 550 }),
        (1, Answer::Accepted),
        (77, Answer::Accepted),
        (3, Answer::Gone),
        (4, Answer::Deferred { code: Some(450) }),
    ];
    let answered = journal.attempted(answers.into_iter().map(|(id, a)| (IssuanceId(id), a)).collect(), at(1), TWO_DAYS).await.unwrap();
    let states: Vec<_> = answered.iter().map(|a| a.state).collect();
    let twice = IllegalTransition { state: State::Delivered, event: Event::Accepted };
    assert_eq!(
        states,
        [
            Some(Ok(State::Delivered)),
            Some(Ok(State::Undeliverable)),
            Some(Err(twice)),
            None,
            Some(Ok(State::Superseded)),
            Some(Ok(State::Committed))
        ]
    );
    assert_eq!(counts(&bed, &journal).await, [("committed", 1), ("delivered", 1), ("undeliverable", 1), ("superseded", 1)]);
    let kept: Vec<i64> = bed
        .raw()
        .prepare("SELECT id FROM issuance WHERE secret NOT NULL ORDER BY id")
        .unwrap()
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(kept, [2, 4], "wiped in the same step, but for what may be retried");
}

#[tokio::test]
async fn a_damaged_mail_holds_up_no_other_and_does_not_vanish() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, (1..=3).map(|u| announced(u, "1357")).collect()).await;
    let raw = bed.raw();
    raw.execute("UPDATE issuance SET secret = (SELECT secret FROM issuance WHERE id = 3) WHERE id = 1", []).unwrap();
    raw.execute("UPDATE issuance SET secret = NULL WHERE id = 2", []).unwrap();
    assert_eq!(due(&journal, NOW).await, [3]);
    assert_eq!(counts(&bed, &journal).await, [("committed", 1), ("undeliverable", 2)]);
}

#[tokio::test]
async fn waiting_mail_outlives_a_crash_unchanged() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(1, "1357"), announced(2, "2468")]).await;
    answer(&journal, 1, Answer::Accepted, at(1)).await;
    let before = journal.due_mail(&[journal.book()], at(1), 10, &[]).await.unwrap().remove(0);
    let left = bed.crashed();
    let journal = left.open().await;
    assert_eq!(counts(&left, &journal).await, [("committed", 1), ("delivered", 1)]);
    let after = journal.due_mail(&[journal.book()], at(1), 10, &[]).await.unwrap().remove(0);
    assert_eq!((after.id, after.announcement, after.pin), (before.id, before.announcement, before.pin), "I3");
    committed(&journal, vec![announced(9, "9753")]).await;
    assert_eq!(due(&journal, NOW).await, [2, 3], "numbers go on");
}

#[tokio::test]
async fn the_queue_is_read_in_the_order_of_its_index() {
    let bed = Bed::new();
    let _journal = bed.open().await;
    let db = bed.raw();
    let plan: Vec<String> = db
        .prepare(
            "EXPLAIN QUERY PLAN SELECT i.id FROM issuance i INDEXED BY issuance_queue CROSS JOIN batch b ON b.id = i.batch \
             WHERE i.open = 1 AND i.database = 1 AND i.lane = 0 AND i.next_attempt <= 5 AND coalesce(i.state, b.state) = 'committed' \
             ORDER BY i.next_attempt, i.id LIMIT 5",
        )
        .unwrap()
        .query_map([], |r| r.get(3))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(!plan.iter().any(|step| step.contains("B-TREE") || step.contains("SCAN")), "{plan:?}");
}
