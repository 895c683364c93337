//! Reminders: each once, repeated after a crash at most, and forgotten with their PIN.

use std::collections::BTreeMap;

use super::*;
use crate::inventory::Lapse;

const WEEK: Duration = Duration::from_secs(7 * 86_400);
const DAY: Duration = Duration::from_secs(86_400);

fn reminder(user: i64, end: i64, window: Duration) -> NewReminder {
    let lapse = Lapse { end: WallClock(end), window };
    NewReminder { user: UserId(user), policy: policy("visitors"), lapse, message_id: format!("r-{user}-{end}@example.org") }
}

/// The users whose turn it is, with the ids of their reminders.
async fn due(journal: &Journal, now: Timestamp) -> Vec<(i64, IssuanceId)> {
    let due = journal.due_reminders(&[journal.book()], now, 10, &[]).await.unwrap();
    due.into_iter().map(|reminder| (reminder.user.0, reminder.id)).collect()
}

async fn last(journal: &Journal, user: i64) -> Option<Lapse> {
    journal.reader().reminded(vec![UserId(user), UserId(99)]).await.unwrap().remove(&UserId(user))
}

#[tokio::test]
async fn a_reminder_is_sent_once_and_remembered() {
    let bed = Bed::new();
    let journal = bed.open().await;
    committed(&journal, vec![announced(5, "1357")]).await;
    let new = reminder(1, NOW.0 + 1000, WEEK);
    journal.remind(vec![new.clone(), reminder(2, NOW.0 + 1000, WEEK)], NOW).await.unwrap();
    assert_eq!(journal.reader().reminders_waiting().await.unwrap(), 2);
    assert_eq!(journal.next_reminder_at(&[journal.book()], &[]).await.unwrap(), Some(NOW));
    let waiting = due(&journal, NOW).await;
    let mail = journal.due_mail(&[journal.book()], at(1), 10, &[]).await.unwrap().remove(0);
    assert!(waiting.iter().all(|(_, id)| *id != mail.id), "one number names one mail, whichever it is");
    let pending = journal.due_reminders(&[journal.book()], NOW, 10, &[waiting[1].1]).await.unwrap().remove(0);
    assert_eq!(
        (pending.user, pending.lapse, pending.policy.clone(), pending.message_id, pending.attempts),
        (new.user, new.lapse, new.policy, new.message_id, 0)
    );
    // Nothing is lost by a crash before the answer is known, and nothing repeated after it.
    assert_eq!(due(&bed.crashed().open().await, NOW).await, waiting);
    journal.reminded_of(vec![(waiting[0].1, Answer::Accepted)], at(1), TWO_DAYS).await.unwrap();
    let after = bed.crashed().open().await;
    assert_eq!(due(&after, at(9000)).await, [waiting[1]]);
    assert_eq!(last(&after, 1).await, Some(new.lapse), "what was said is known, sent or not");
    assert_eq!(last(&after, 3).await, None);
}

#[tokio::test]
async fn what_cannot_be_sent_is_tried_again_and_given_up_at_last() {
    let bed = Bed::new();
    let journal = bed.open().await;
    journal.remind((1..=3).map(|user| reminder(user, NOW.0 + 900_000, WEEK)).collect(), NOW).await.unwrap();
    let ids: BTreeMap<i64, IssuanceId> = due(&journal, NOW).await.into_iter().collect();
    let later = Answer::Deferred { code: Some(451) };
    let answers = vec![(ids[&1], later), (ids[&2], Answer::Rejected { code: 550 }), (ids[&3], Answer::Gone)];
    journal.reminded_of(answers, NOW, TWO_DAYS).await.unwrap();
    assert_eq!(due(&journal, NOW).await, [], "a pause");
    let again = journal.next_reminder_at(&[journal.book()], &[]).await.unwrap().unwrap();
    assert!((12..=18).contains(&(again.0 - NOW.0)));
    assert_eq!(due(&journal, again).await, [(1, ids[&1])]);
    assert!(last(&journal, 2).await.is_some(), "refused for good: not said again");
    assert_eq!(last(&journal, 3).await, None, "not due any more: if it is again, it is news");
    journal.reminded_of(vec![(ids[&1], later)], NOW.plus(TWO_DAYS), TWO_DAYS).await.unwrap();
    assert_eq!(due(&journal, NOW.plus(TWO_DAYS * 2)).await, []);
    assert_eq!(journal.reader().reminders_waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn the_next_window_takes_the_place_of_one_that_waits() {
    let bed = Bed::new();
    let journal = bed.open().await;
    journal.remind(vec![reminder(1, NOW.0 + 1000, WEEK)], NOW).await.unwrap();
    let first = due(&journal, NOW).await[0].1;
    journal.remind(vec![reminder(1, NOW.0 + 1000, DAY)], at(5)).await.unwrap();
    journal.reminded_of(vec![(first, Answer::Accepted)], at(6), TWO_DAYS).await.unwrap();
    let second = due(&journal, at(6)).await;
    assert!(second.len() == 1 && second[0].1 != first, "the answer to the first is not the second's: {second:?}");
    assert_eq!(last(&journal, 1).await.map(|lapse| lapse.window), Some(DAY));
}

#[tokio::test]
async fn reminders_are_forgotten_once_their_pin_has_surely_lapsed() {
    let bed = Bed::new();
    let journal = bed.open().await;
    journal.remind(vec![reminder(1, NOW.0 - 4 * 86_400, WEEK), reminder(2, NOW.0 - 86_400, WEEK)], NOW).await.unwrap();
    journal.forget_old(keep(WEEK), NOW).await.unwrap();
    assert_eq!((last(&journal, 1).await, last(&journal, 2).await.is_some()), (None, true));
}

#[tokio::test]
async fn two_databases_remind_users_of_the_same_id() {
    let bed = Bed::new();
    let owners = vec![owner("one", "cluster 1"), owner("two", "cluster 2")];
    let file = JournalFile::open(&bed.config, owners, Duration::ZERO).await.unwrap();
    let (one, two) = (file.of("one").await.unwrap(), file.of("two").await.unwrap());
    one.remind(vec![reminder(1, NOW.0 + 1000, WEEK)], NOW).await.unwrap();
    assert_eq!(last(&two, 1).await, None);
    two.remind(vec![reminder(1, NOW.0 + 2000, DAY)], NOW).await.unwrap();
    assert_eq!((due(&one, NOW).await.len(), due(&two, NOW).await.len()), (1, 1));
    assert_eq!(file.due_reminders(&[one.book(), two.book()], NOW, 10, &[]).await.unwrap().len(), 2);
    assert_eq!(last(&one, 1).await.map(|lapse| lapse.end), Some(WallClock(NOW.0 + 1000)));
}
