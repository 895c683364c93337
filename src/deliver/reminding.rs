//! Reminders on their way: after all credentials, a few at a time, each read again first. Whoever has got another PIN meanwhile,
//! or may not be served any more, is not reminded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::Instant;
use tracing::{debug, info};

use super::served::{Looked, Served};
use super::trouble::Trouble;
use super::{AFTER_FAILURE, Found, InHand, Loop, Mode, Told};
use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::domain::template::Values;
use crate::domain::translation::Reader;
use crate::domain::{Secret, UserId, WallClock};
use crate::inventory::{Facts, Lapse, Now, User};
use crate::journal::{BookId, PendingReminder};
use crate::mail::Outgoing;
use crate::metrics::ReminderOutcome;
use crate::plan::{Planner, rules};
use crate::reconcile::wanted;
use crate::store::{DueFilter, Filter};

/// Of each database. They wait behind every credential, so that many at a time would only grow stale.
const AT_A_TIME: usize = 16;

/// A reminder that is still to be sent, or no more.
pub(super) struct Ready {
    reminder: PendingReminder,
    mail: Option<Outgoing>,
    late: Late,
}

/// How long after its window had opened a reminder was read again.
#[derive(Clone, Copy)]
pub(super) struct Late {
    window: Duration,
    by: Duration,
    since: Instant,
}

impl Loop {
    /// Takes reminders from the journal, while no credential waits for the courier. `books` are free to be looked into.
    pub(super) async fn take_reminders(&mut self, books: &[BookId]) -> Result<(), Trouble> {
        if !self.to_give.is_empty() || !self.to_remind.is_empty() {
            return Ok(());
        }
        let not: Vec<_> = self.in_hand.keys().chain(self.aside.keys()).copied().chain(self.noted()).collect();
        let due = self.desk.journal.due_reminders(books, clock::now(), AT_A_TIME, &not).await?;
        let mut by_book: HashMap<BookId, Vec<PendingReminder>> = HashMap::new();
        due.into_iter().for_each(|reminder| by_book.entry(reminder.book).or_default().push(reminder));
        let served = self.served.all();
        for (book, reminders) in by_book {
            let Some(served) = served.get(&book).cloned() else { continue };
            let (config, count) = (self.desk.config.clone(), reminders.len());
            self.looks.begin(book, count, async move {
                let found = Found::Reminders(read_again(&served, &config, reminders).await);
                Looked { database: served.database, book, found }
            });
        }
        Ok(())
    }

    pub(super) fn read_reminders(&mut self, database: &Arc<str>, book: BookId, ready: Result<Vec<Ready>, Trouble>) {
        let ready = match ready {
            Ok(ready) => ready,
            Err(trouble) => {
                if let Trouble::Users { source, .. } = &trouble {
                    self.desk.metrics.database_error(database, source.kind());
                }
                self.rests(&trouble);
                let again = (self.mode == Mode::Daemon).then(|| Instant::now() + AFTER_FAILURE);
                return self.looks.rest(book, again);
            }
        };
        for Ready { reminder, mail, late } in ready {
            let PendingReminder { id, user, policy, attempts, .. } = reminder;
            let Some(mail) = mail else {
                info!(user.id = %user, %database, outcome = "overtaken", "No reminder to user {user}: there is nothing to remind of any more");
                self.desk.metrics.reminder(database, ReminderOutcome::Overtaken);
                self.note_reminder(id, Told::Gone);
                continue;
            };
            let in_hand = InHand { book, database: database.clone(), policy, due_since: clock::now(), attempts, reminds: Some(late) };
            self.in_hand.insert(id, in_hand);
            self.to_remind.push_back(mail);
        }
    }

    /// A credential has come: what waits for it is read again later.
    pub(super) fn put_reminders_back(&mut self) {
        for mail in self.to_remind.drain(..) {
            self.in_hand.remove(&mail.id);
        }
    }

    pub(super) fn count_reminder(&mut self, mail: &InHand, late: &Late, told: Option<Told>) {
        let totals = &mut self.counted.entry(mail.book).or_default().reminders;
        let (count, outcome) = match told {
            Some(Told::Accepted) => (&mut totals.accepted, ReminderOutcome::Accepted),
            Some(Told::Deferred { .. }) => (&mut totals.deferred, ReminderOutcome::Deferred),
            Some(Told::Rejected { .. }) => (&mut totals.rejected, ReminderOutcome::Rejected),
            Some(Told::Gone | Told::NoVerdict) | None => return,
        };
        *count += 1;
        self.desk.metrics.reminder(&mail.database, outcome);
        if outcome == ReminderOutcome::Accepted {
            debug!(policy = %mail.policy, "Reminder accepted");
            self.desk.metrics.reminded(&mail.database, late.window, late.by + late.since.elapsed());
        }
    }
}

/// Asks the database whether each is still due, and makes its mail of what stands there now.
async fn read_again(served: &Served, config: &Config, reminders: Vec<PendingReminder>) -> Result<Vec<Ready>, Trouble> {
    let trouble = |source| Trouble::Users { database: served.database.clone(), source };
    let Some(database) = config.databases.iter().find(|database| *database.name == *served.database) else { return Ok(Vec::new()) };
    let reader = served.store.reader();
    let now = Now { utc: clock::now(), wall: reader.clock().await.map_err(trouble)? };
    let places = reader.places(&wanted(config, database)).await.map_err(trouble)?;
    let planner = Planner::new(&database.policies, &places, now).with_pilot(config.pilot.as_ref());
    let mut users: Vec<UserId> = reminders.iter().map(|reminder| reminder.user).collect();
    users.sort_unstable();
    let filter = Filter { due: Some(DueFilter { users, ..DueFilter::default() }), ..Filter::default() };
    let mut found: HashMap<UserId, (User, Facts)> = HashMap::new();
    let mut chunks = reader.read(&filter);
    while let Some(chunk) = chunks.next().await {
        let known = served.journal.reader().facts(chunk.map_err(trouble)?).await?;
        found.extend(known.into_iter().map(|(user, facts)| (user.id, (user, facts))));
    }
    let ready = reminders.into_iter().map(|reminder| {
        let mail = found.get(&reminder.user).and_then(|(user, facts)| {
            let due = planner.reminder(user, facts).filter(|due| due.lapse == reminder.lapse)?;
            mail(config, database, &planner, user, due.policy, &reminder)
        });
        let late = Late { window: reminder.lapse.window, by: open_for(reminder.lapse, now.wall), since: Instant::now() };
        Ready { reminder, mail, late }
    });
    Ok(ready.collect())
}

fn mail(
    config: &Config,
    database: &DatabaseConfig,
    planner: &Planner<'_>,
    user: &User,
    policy: usize,
    reminder: &PendingReminder,
) -> Option<Outgoing> {
    let policy = &database.policies[policy];
    let place = planner.place_of(user);
    let reader = Reader {
        username: &user.login,
        email: &user.email,
        cost_center: place.map(|place| place.name.as_str()),
        cost_center_number: place.map(|place| place.number).or_else(|| planner.number_of(user)),
    };
    let text = config.templates.get(policy.notify.template.as_ref()?)?.reminder_for(&reader)?;
    let rendered = text.render(&Values {
        pin: None,
        code: None,
        password: None,
        username: &user.login,
        name: &user.name,
        surname: &user.surname,
        cost_center: reader.cost_center.unwrap_or_default(),
        expires: Some(reminder.lapse.end.to_string()),
        policy: &policy.name.0,
    });
    Some(Outgoing {
        id: reminder.id,
        recipient: rules::recipient(policy, user).ok().flatten()?,
        message_id: reminder.message_id.clone(),
        subject: rendered.subject,
        text: Secret::new(rendered.text),
        html: None,
        not_after: None,
    })
}

fn open_for(lapse: Lapse, now: WallClock) -> Duration {
    let opened = lapse.end.minus(lapse.window);
    Duration::from_secs(now.0.saturating_sub(opened.0).max(0).unsigned_abs())
}
