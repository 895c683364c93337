//! `resend`: what an operator does for one user who has lost a mail. Nothing is changed in the database.
//!
//! | the user's last mail | what is sent |
//! |---|---|
//! | waits, or could not be delivered | the same once more, under its own Message-ID |
//! | could not be delivered, and the user has another address now | what it told and still stands, to that address |
//! | was delivered, or there was none | what stands in the database: the PIN recovered, the code decrypted; a password stays unknown |
//!
//! The last two are an issuance of their own in the journal, so that a crash loses nothing and the history tells of it.

use std::ops::ControlFlow;

use tokio::task::spawn_blocking;
use tracing::info;

use super::perform::Work;
use super::{OperateError, find};
use crate::cli::ExitStatus;
use crate::clock;
use crate::config::{Config, DatabaseConfig, Mode, TransportConfig};
use crate::domain::mailbox::NotAMailbox;
use crate::domain::template::Variable;
use crate::domain::{Code, CodeCipher, IssuanceId, Pin, PinLength, StoredValue, WallClock, printable};
use crate::inventory::{Facts, Now, StoredPin, User};
use crate::journal::{Again, Announcement, Answer, ExistingPin, HistoryRow, Journal, JournalError, Lane, NewIssuance, PendingMail, State};
use crate::mint::{self, recovery};
use crate::plan::{Planner, rules};
use crate::policy::Policy;
use crate::reconcile::{self, wanted};
use crate::store::StoreError;

/// How many issuances are looked through for the last mail.
const LOOKED_AT: usize = 50;

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    #[error("mode: observe stands in the configuration: no mail is sent")]
    Observing,
    #[error("mail.transport is none: no mail is sent")]
    NoTransport,
    #[error("the pilot in the configuration does not name {login}: no mail is sent")]
    OutsidePilot { login: String },
    #[error("no policy owns {login}, or one that gives no credential; `credkeeper explain` tells why")]
    NoPolicy { login: String },
    #[error("policy {policy}, which owns {login}, tells nobody (notify.to, notify.template)")]
    ToldToNobody { login: String, policy: String },
    #[error("{login} has no address to send to: what stands where policy {policy} looks for one {why}")]
    NoAddress { login: String, policy: String, why: NotAMailbox },
    /// What there is, and why each cannot be sent.
    #[error("nothing of {login} can be sent again: {why}")]
    Nothing { login: String, why: String },
    #[error("the database failed")]
    Store(#[from] StoreError),
    #[error("the journal failed")]
    Journal(#[from] JournalError),
}

impl ResendError {
    pub(super) fn status(&self) -> ExitStatus {
        match self {
            ResendError::Store(_) | ResendError::Journal(_) => ExitStatus::Failed,
            _ => ExitStatus::Partial,
        }
    }
}

/// Mails a user the credentials that he has (R26).
pub(super) async fn send(work: &Work<'_>, login: &str) -> Result<(String, ExitStatus), OperateError> {
    let (config, database, store) = (work.config, work.database, work.store);
    if config.mode == Mode::Observe {
        return Err(ResendError::Observing.into());
    }
    if matches!(config.mail.transport, TransportConfig::None) {
        return Err(ResendError::NoTransport.into());
    }
    work.lead()?;
    let user = find(store.reader(), login).await?;
    let now = Now { utc: clock::now(), wall: store.reader().clock().await? };
    let places = store.reader().places(&wanted(config, database)).await?;
    let planner = Planner::new(&database.policies, &places, now).with_pilot(config.pilot.as_ref());
    let (user, facts) = work.journal.reader().facts(vec![user]).await?.remove(0);
    Ok(Sending { work, config, database, journal: work.journal, planner, user, facts }.send().await?)
}

/// What one mail can tell, and what is missing in it.
#[derive(Default)]
struct Tellable {
    existing: Option<ExistingPin>,
    again: Again,
    /// In sentences.
    missing: Vec<&'static str>,
}

struct Sending<'a> {
    work: &'a Work<'a>,
    config: &'a Config,
    database: &'a DatabaseConfig,
    journal: &'a Journal,
    planner: Planner<'a>,
    user: User,
    facts: Facts,
}

impl Sending<'_> {
    async fn send(&self) -> Result<(String, ExitStatus), ResendError> {
        let login = || printable(&self.user.login).into_owned();
        if self.planner.pilot_reaches(&self.user) == Some(false) {
            return Err(ResendError::OutsidePilot { login: login() });
        }
        let owner = self.planner.owner(&self.user, &self.facts).ok().flatten();
        let policy = owner.map(|owner| &self.database.policies[owner.policy]).filter(|policy| policy.credentials().next().is_some());
        let policy = policy.ok_or_else(|| ResendError::NoPolicy { login: login() })?;
        let named = || printable(&policy.name.0).into_owned();
        let recipient = match rules::recipient(policy, &self.user) {
            Ok(recipient) => recipient.filter(|_| policy.notify.template.is_some()),
            Err(why) => return Err(ResendError::NoAddress { login: login(), policy: named(), why }),
        };
        let recipient = recipient.ok_or_else(|| ResendError::ToldToNobody { login: login(), policy: named() })?;

        let last = self.last_mail().await?;
        let mut undelivered = None;
        if let Some((row, mail)) = last {
            if row.state == State::Committed || mail.announcement.recipient == recipient {
                self.journal.retry(row.issuance, clock::now()).await?;
                let ended = self.work.deliver(self.user.id, row.issuance).await?;
                if ended.state != State::Superseded {
                    return Ok(self.told(&ended, &mail.announcement, &of_mail(&mail), &[]));
                }
            } else {
                undelivered = Some((row.issuance, mail));
            }
        }
        let tellable = match &undelivered {
            Some((_, mail)) => self.standing(mail),
            None => self.recovered(policy).await?,
        };
        let tellable = self.named_in_template(policy, tellable);
        let kinds = of_tellable(&tellable);
        if kinds.is_empty() {
            let why = if tellable.missing.is_empty() { "there is none".to_owned() } else { tellable.missing.join("; ") };
            return Err(ResendError::Nothing { login: login(), why });
        }
        let announcement = reconcile::announcement(self.config, &self.planner, policy, &self.user, None);
        let announcement = announcement.ok_or_else(|| ResendError::ToldToNobody { login: login(), policy: named() })?;
        let issuance = self.note(policy, tellable.existing, tellable.again, announcement.clone()).await?;
        if let Some((old, _)) = undelivered {
            let gone = vec![(old, Answer::Gone)];
            self.journal.attempted(gone, clock::now(), self.config.mail.give_up_after).await?;
        }
        let ended = self.work.deliver(self.user.id, issuance).await?;
        Ok(self.told(&ended, &announcement, &kinds, &tellable.missing))
    }

    /// The last issuance that somebody was to be told of, if its mail is still to be sent.
    async fn last_mail(&self) -> Result<Option<(HistoryRow, PendingMail)>, ResendError> {
        let history = self.journal.reader().user_history(self.user.id, LOOKED_AT).await?;
        let mut told = history.into_iter().filter(|row| row.message_id.is_some());
        let Some(row) = told.find(|row| matches!(row.state, State::Committed | State::Undeliverable | State::Delivered)) else {
            return Ok(None);
        };
        Ok(self.journal.mail_of(row.issuance).await?.map(|mail| (row, mail)))
    }

    /// What an undelivered mail told and the user still has.
    fn standing(&self, mail: &PendingMail) -> Tellable {
        let (user, written) = (&self.user, &mail.written);
        let stored_pin = written.pins.first().map(|(stored, _)| stored);
        let pin = stored_pin.and_then(|stored| self.valid().find(|pin| pin.value == *stored)).zip(mail.pin.clone());
        let code = mail.code.clone().zip(written.code.clone()).filter(|(_, stored)| user.code.as_ref() == Some(stored));
        let stands = |stored: &StoredValue| user.password.as_ref().is_some_and(|password| password.value == *stored);
        let password = mail.password.clone().zip(written.password.clone()).filter(|(_, stored)| stands(stored));
        let mut tellable = Tellable::default();
        for (was, is, sentence) in [
            (mail.pin.is_some(), pin.is_some(), "the PIN is not there any more, or has expired"),
            (mail.code.is_some(), code.is_some(), "the card assignment code is not there any more"),
            (mail.password.is_some(), password.is_some(), "the password is not there any more"),
        ] {
            if was && !is {
                tellable.missing.push(sentence);
            }
        }
        tellable.existing = pin.map(|(stored, pin)| existing(stored, pin));
        tellable.again = Again { code, password };
        tellable
    }

    /// What can be read back from the database of all that the policy gives.
    async fn recovered(&self, policy: &Policy) -> Result<Tellable, ResendError> {
        let mut tellable = Tellable::default();
        if let Some(rule) = &policy.pin {
            let pins: Vec<&StoredPin> = self.valid().collect();
            let digits = self.digits(pins.iter().map(|pin| pin.value.clone()).collect(), recovery::lengths([rule.length])).await?;
            let known = pins.iter().zip(digits).filter_map(|(pin, digits)| Some((*pin, digits?)));
            tellable.existing = known.max_by_key(|(pin, _)| lasts(pin)).map(|(pin, digits)| existing(pin, digits));
            if tellable.existing.is_none() {
                tellable.missing.push(match (self.user.pins.is_empty(), pins.is_empty()) {
                    (true, _) => "there is no PIN",
                    (false, true) => "the PIN has expired",
                    (false, false) => "the PIN cannot be recovered from its stored form: it has other digits than the policy's",
                });
            }
        }
        if policy.code.is_some() {
            match self.code() {
                Ok(code) => tellable.again.code = Some(code),
                Err(why) => tellable.missing.push(why),
            }
        }
        if policy.password.is_some() {
            tellable.missing.push(match self.user.password {
                Some(_) => "the password cannot be read back from its stored form",
                None => "there is no password",
            });
        }
        Ok(tellable)
    }

    fn code(&self) -> Result<(Code, StoredValue), &'static str> {
        let stored = self.user.code.clone().ok_or("there is no card assignment code")?;
        match &self.database.cac_cipher {
            Some(CodeCipher::BuiltIn(cipher)) => {
                let code = cipher.decrypt(&stored).ok_or("the card assignment code cannot be decrypted with cac_cipher")?;
                Ok((code, stored))
            }
            _ => Err("the card assignment code cannot be read back: cac_cipher is a command, which only encrypts"),
        }
    }

    async fn digits(&self, stored: Vec<StoredValue>, lengths: Vec<PinLength>) -> Result<Vec<Option<Pin>>, StoreError> {
        let format = self.database.pin_format;
        let recovering = spawn_blocking(move || recovery::recover(format, &stored, &lengths, &|_| ControlFlow::Continue(())));
        Ok(recovering.await.map_err(|_| StoreError::Task)?.unwrap_or_default())
    }

    fn valid(&self) -> impl Iterator<Item = &StoredPin> {
        let now = self.planner.now().wall;
        self.user.pins.iter().filter(move |pin| pin.expires.is_none_or(|end| end > now))
    }

    /// A mail that says nothing of a credential does not tell it.
    fn named_in_template(&self, policy: &Policy, mut tellable: Tellable) -> Tellable {
        let template = policy.notify.template.as_ref().and_then(|name| self.config.templates.get(name));
        let tells = |credential| template.is_some_and(|template| template.tells(credential));
        if tellable.existing.is_some() && !tells(Variable::Pin) {
            tellable.existing = None;
            tellable.missing.push("the template has no part for the PIN alone");
        }
        if tellable.again.code.is_some() && !tells(Variable::CardAssignmentCode) {
            tellable.again.code = None;
            tellable.missing.push("the template has no part for the card assignment code alone");
        }
        if tellable.again.password.is_some() && !tells(Variable::Password) {
            tellable.again.password = None;
            tellable.missing.push("the template has no part for the password alone");
        }
        tellable
    }

    /// Writes down what is to be mailed. There is no transaction whose end could be in doubt.
    async fn note(
        &self,
        policy: &Policy,
        existing: Option<ExistingPin>,
        again: Again,
        announcement: Announcement,
    ) -> Result<IssuanceId, ResendError> {
        let now = clock::now();
        let message_id = announcement.message_id.clone();
        let new = NewIssuance {
            takes_back: None,
            role_removed: None,
            user: self.user.id,
            login: self.user.login.clone(),
            policy: policy.name.clone(),
            pin: None,
            code: None,
            password: None,
            existing,
            again,
            moved: None,
            announcement: Some(announcement),
            due_since: now,
            lane: Lane::Poll,
            replaced_unexpected: Default::default(),
            quarantine: Default::default(),
        };
        let batch = self.journal.planned(&mint::pass_id(), vec![new], now).await?;
        self.journal.committed(batch, now).await?;
        let rows = self.journal.reader().user_history(self.user.id, 1).await?;
        let row = rows.into_iter().find(|row| row.message_id.as_ref() == Some(&message_id));
        Ok(row.ok_or(JournalError::NotUnderstood { what: "an issuance" })?.issuance)
    }

    fn told(&self, ended: &HistoryRow, mail: &Announcement, kinds: &[String], missing: &[&str]) -> (String, ExitStatus) {
        let (id, login, to) = (self.user.id, printable(&self.user.login), &mail.recipient);
        let (kinds, server) = (kinds.join(", "), ended.last_reply.map_or("it gave no answer".to_owned(), |code| format!("it said {code}")));
        let (how, status) = match ended.state {
            State::Delivered => (format!("sent to {to}: {kinds}"), ExitStatus::Done),
            State::Committed => {
                (format!("not sent to {to} now, and waits in the journal for the next try ({server}): {kinds}"), ExitStatus::Partial)
            }
            State::Undeliverable => {
                (format!("not sent, because the mail server refused {to} for good ({server}): {kinds}"), ExitStatus::Partial)
            }
            state => (format!("not sent to {to} ({state}): {kinds}"), ExitStatus::Partial),
        };
        let mut said = format!("User {id} “{login}”: {how}.\n");
        missing.iter().for_each(|why| said.push_str(&format!("Left out: {why}.\n")));
        if self.facts.held {
            said.push_str("The user is on hold, and stays so.\n");
        }
        info!(user.id = %id, state = ended.state.as_str(), "Asked to send again what user {id} has: {}", ended.state);
        (said, status)
    }
}

fn existing(stored: &StoredPin, pin: Pin) -> ExistingPin {
    ExistingPin { pin, stored: stored.value.clone(), expires: stored.expires }
}

/// A PIN without an end lasts longest.
fn lasts(pin: &StoredPin) -> (bool, Option<WallClock>) {
    (pin.expires.is_none(), pin.expires)
}

fn of_tellable(tellable: &Tellable) -> Vec<String> {
    let Tellable { existing, again, .. } = tellable;
    said(existing.as_ref().map(|pin| pin.expires), again.code.is_some(), again.password.is_some())
}

fn of_mail(mail: &PendingMail) -> Vec<String> {
    said(mail.pin.as_ref().map(|_| mail.expires), mail.code.is_some(), mail.password.is_some())
}

/// `pin` is the end of the one that is told.
fn said(pin: Option<Option<WallClock>>, code: bool, password: bool) -> Vec<String> {
    let pin = pin.map(|end| end.map_or("the PIN, which never expires".to_owned(), |end| format!("the PIN, valid until {end}")));
    let code = code.then(|| "the card assignment code".to_owned());
    let password = password.then(|| "the password".to_owned());
    [pin, code, password].into_iter().flatten().collect()
}
