//! What became of mails: counted, and told to the journal in groups.

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{AFTER_FAILURE, Delivered, GROUP_WAIT, InHand, Loop, Mode, STEP_ASIDE, STOP_WITHIN, Told, Verdict};
use crate::clock;
use crate::domain::IssuanceId;
use crate::fault::{self, Point};
use crate::journal::JournalError;
use crate::logging::chain;
use crate::mail::{Answer, Courier, Stage};
use crate::metrics::MailOutcome;

use super::served::Served;
use super::trouble::Trouble;

impl Loop {
    pub(super) fn answered(&mut self, answer: Answer) {
        let Answer { id, delivery, took } = answer;
        let Some(mail) = self.in_hand.remove(&id) else { return };
        if matches!(delivery, Verdict::NotTried) {
            return; // it stays due in the journal
        }
        if let Some(outcome) = counted_as(&delivery) {
            self.desk.metrics.mail(outcome, took.as_secs_f64());
        }
        let told = told(&delivery);
        self.count(&mail, told);
        self.hopeless = match &delivery {
            Verdict::ConnectError(error) => !error.is_transient() && !delivery.broke_amid(),
            Verdict::SiteFault(refusal) => refusal.stage == Stage::MailFrom,
            _ => false,
        };
        if matches!(told, Some(Told::Accepted)) {
            debug!(mail.outcome = delivery.outcome(), attempts = mail.attempts, "Mail accepted: {delivery}");
        } else if !matches!(delivery, Verdict::ConnectError(_)) {
            self.set_aside(id);
            warn!(mail.outcome = delivery.outcome(), policy = %mail.policy, "Mail not accepted: {delivery}");
        } // else the courier has said why all mail waits; the journal queues it up behind the others
        match (told, &mail.reminds) {
            (Some(told), None) => self.note(id, told),
            (Some(told), Some(_)) => self.note_reminder(id, told),
            (None, _) => {}
        }
        let done = self.counted.values().map(|counted| {
            let (mails, reminders) = (&counted.totals, &counted.reminders);
            mails.accepted + mails.rejected + mails.deferred + reminders.accepted + reminders.rejected + reminders.deferred
        });
        self.progress.send_replace(done.sum());
    }

    fn count(&mut self, mail: &InHand, told: Option<Told>) {
        if let Some(late) = &mail.reminds {
            return self.count_reminder(mail, late, told);
        }
        let totals = &mut self.counted.entry(mail.book).or_default().totals;
        match told {
            Some(Told::Accepted) => {
                totals.accepted += 1;
                self.desk.metrics.delivered(&mail.database, &mail.policy, clock::now().since(mail.due_since).as_secs_f64());
            }
            Some(Told::Rejected { .. }) => totals.rejected += 1,
            Some(Told::Deferred { .. }) => totals.deferred += 1,
            Some(Told::Gone | Told::NoVerdict) | None => {}
        }
    }

    pub(super) fn set_aside(&mut self, id: IssuanceId) {
        let until = (self.mode == Mode::Daemon).then(|| Instant::now() + fault::hastened(STEP_ASIDE));
        self.aside.insert(id, until);
    }

    pub(super) fn note(&mut self, id: IssuanceId, told: Told) {
        self.answers.push((id, told));
        self.flush_at.get_or_insert_with(|| Instant::now() + GROUP_WAIT);
    }

    pub(super) fn note_reminder(&mut self, id: IssuanceId, told: Told) {
        self.reminded.push((id, told));
        self.flush_at.get_or_insert_with(|| Instant::now() + GROUP_WAIT);
    }

    /// Tells the journal. What it cannot take now is told again: until then these mails are not sent once more.
    pub(super) async fn flush(&mut self) {
        self.flush_at = None;
        let (now, give_up_after) = (clock::now(), self.desk.config.mail.give_up_after);
        let journal = self.desk.journal.clone();
        let mut failed = None;
        if !self.answers.is_empty() {
            fault::at(Point::MailAnswered).await;
            match journal.attempted(self.answers.clone(), now, give_up_after).await {
                Ok(_) => {
                    self.answers.clear();
                    fault::at(Point::MailNoted).await;
                }
                Err(e) => failed = Some(e),
            }
        }
        if !self.reminded.is_empty() && failed.is_none() {
            match journal.reminded_of(self.reminded.clone(), now, give_up_after).await {
                Ok(()) => self.reminded.clear(),
                Err(e) => failed = Some(e),
            }
        }
        self.untold = if failed.is_some() { self.untold.saturating_add(1) } else { 0 };
        if let Some(e) = failed {
            self.rests(&e.into());
            self.flush_at = Some(Instant::now() + AFTER_FAILURE);
        }
    }

    /// Ends the courier, and tells the journal what is known.
    pub(super) async fn close(mut self, courier: Courier) -> Delivered {
        for answer in courier.shutdown(STOP_WITHIN).await {
            self.answered(answer);
        }
        self.flush().await;
        let mails = self.answers.len() + self.reminded.len();
        if mails > 0 {
            error!(mails, "The journal did not take the answers to {mails} mails: those that were accepted will be sent again");
        }
        for (book, served) in self.served.all() {
            let waiting = waiting(&served).await;
            if let Err(e) = &waiting {
                self.rests_for_journal(e);
            }
            let counted = self.counted.entry(book).or_default();
            (counted.totals.waiting, counted.reminders.waiting) = waiting.unwrap_or_default();
        }
        self.counted
    }

    fn rests_for_journal(&self, error: &JournalError) {
        self.desk.metrics.journal_write_error();
        warn!(error.kind = error.kind(), "Delivery cannot ask the journal what waits: {}", chain(error));
    }

    pub(super) fn rests(&self, trouble: &Trouble) {
        if matches!(trouble, Trouble::Journal(_)) {
            self.desk.metrics.journal_write_error();
        }
        warn!(error.kind = trouble.kind(), "Delivery rests for a moment: {}", chain(trouble));
    }

    /// Those that are noted and not yet told.
    pub(super) fn noted(&self) -> impl Iterator<Item = IssuanceId> {
        self.answers.iter().chain(&self.reminded).map(|(id, _)| *id)
    }
}

/// Mails and reminders that wait.
async fn waiting(served: &Served) -> Result<(u64, u64), JournalError> {
    let journal = served.journal.reader();
    let mails = journal.counts().await?.iter().filter(|(state, _)| state.is_open()).map(|(_, n)| n).sum();
    Ok((mails, journal.reminders_waiting().await?))
}

/// `None`: it was not tried. Where the site is at fault (R32) the try does not count, the mail stays due, and the courier pauses.
fn told(delivery: &Verdict) -> Option<Told> {
    match delivery {
        Verdict::Accepted { .. } => Some(Told::Accepted),
        Verdict::RecipientRejected(refusal) => Some(Told::Rejected { code: refusal.code }),
        Verdict::AddressUnsupported => Some(Told::Rejected { code: Verdict::NOT_UTF8 }),
        Verdict::Deferred(_) | Verdict::Unknown => Some(Told::Deferred { code: delivery.code() }),
        Verdict::SiteFault(_) | Verdict::ConnectError(_) => Some(Told::NoVerdict),
        Verdict::NotTried => None,
    }
}

fn counted_as(delivery: &Verdict) -> Option<MailOutcome> {
    MailOutcome::ALL.iter().copied().find(|outcome| outcome.as_str() == delivery.outcome())
}
