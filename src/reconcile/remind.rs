//! Who is to be reminded that a PIN is about to lapse: found on the way of a full look, and handed to the journal after all
//! changes were made.

use super::{PassError, Watch};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{Timestamp, UserId};
use crate::fault::{self, Point};
use crate::inventory::{Facts, User};
use crate::journal::{Journal, JournalError, JournalReader, NewReminder};
use crate::mint;
use crate::plan::Planner;
use crate::plan::reminders::{Reminder, is_news};

/// How many are written to the journal in one step, so that it need not wait for long.
const AT_A_TIME: usize = 1000;

/// Those of `users` who are to be reminded and have not been.
pub(super) async fn news(
    planner: &Planner<'_>,
    journal: Option<&JournalReader>,
    users: &[(User, Facts)],
) -> Result<Vec<Reminder>, JournalError> {
    let mut due: Vec<Reminder> = users.iter().filter_map(|(user, facts)| planner.reminder(user, facts)).collect();
    if let Some(journal) = journal.filter(|_| !due.is_empty()) {
        let asked: Vec<UserId> = due.iter().map(|reminder| reminder.user).collect();
        let last = journal.reminded(asked).await?;
        due.retain(|reminder| is_news(reminder.lapse, last.get(&reminder.user).copied()));
    }
    Ok(due)
}

/// Writes them down; from then on delivery sends them.
pub(super) async fn note(
    journal: &Journal,
    config: &Config,
    database: &DatabaseConfig,
    reminders: &[Reminder],
    utc: Timestamp,
    watch: &Watch<'_>,
) -> Result<(), PassError> {
    let Some(sender) = &config.mail.from else { return Ok(()) };
    for some in reminders.chunks(AT_A_TIME) {
        if (watch.stop)() {
            return Err(PassError::Stopped);
        }
        let new = some.iter().map(|reminder| NewReminder {
            user: reminder.user,
            policy: database.policies[reminder.policy].name.clone(),
            lapse: reminder.lapse,
            message_id: mint::message_id(&sender.address),
        });
        journal.remind(new.collect(), utc).await?;
        fault::at(Point::RemindersNoted).await;
        watch.committed.notify_one();
    }
    Ok(())
}
