//! Taking back what was issued: in batches like everything else, each user only where our values still stand.
//!
//! Each batch ends as `commit.rs` says. With its `committed`, or when recovery has found it in the database, the issuance has
//! ended and its user is on hold.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tracing::{debug, info, warn};

use super::commit::commit;
use super::halves::Halves;
use super::{PassError, with_facts};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{IssuanceId, PassId, StoredValue, Timestamp, UserId, WallClock, pin};
use crate::fault::{self, Point};
use crate::inventory::{Back, Facts, Returned, StoredPin, User};
use crate::journal::{Again, Because, Journal, Lane, NewIssuance, State, TakesBack, Undo, UndoOf};
use crate::logging::chain;
use crate::plan::back::{self, Left};
use crate::report::{ChangeKind, ChangeOutcome, Problem, Report};
use crate::store::{Leadership, Move, NewPin, Outcome, PinChange, PinTarget, RoleChange, Store, StoreError, UserChange, ValueChange};

/// Where no policy says how long a freed PIN goes to nobody.
const QUARANTINE: Duration = Duration::from_secs(90 * 86_400);

/// What became of one that was to be taken back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Taken {
    /// As far as it was still ours; the rest is named.
    Back {
        left: Vec<Left>,
        /// The user had a PIN, and has none any more.
        leaves_pinless: bool,
    },
    /// Nothing of it stood any more.
    Gone(Vec<Left>),
    /// The user has another change whose mail is still to be sent.
    Open,
    /// The rows changed under it: to be tried again.
    ChangedMeanwhile,
    /// The database refused it.
    Failed(String),
}

/// What taking back works with.
pub struct TakeBack<'a> {
    pub store: &'a Store,
    pub lead: &'a Leadership,
    pub journal: &'a Journal,
    pub config: &'a Config,
    pub database: &'a DatabaseConfig,
    /// Asked between batches.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Under which the take-back stands in the journal.
    pub pass: PassId,
    pub utc: Timestamp,
}

/// How one try at a batch ended.
enum Tried {
    Done,
    /// These fell out after something of theirs was written.
    Torn(BTreeSet<UserId>),
    Refused(StoreError),
}

/// Takes back what could not be delivered, where the configuration says so (R32), and tells the report.
///
/// # Errors
/// When the database or the journal failed; what was not taken back yet is looked at again in the next pass.
pub async fn undeliverable(taking: &TakeBack<'_>, report: &mut Report) -> Result<(), PassError> {
    let counts = taking.journal.reader().counts().await?;
    let any = counts.iter().any(|(state, n)| *state == State::Undeliverable && *n > 0);
    if !taking.config.mail.take_back || !any {
        return Ok(());
    }
    let (undos, unreadable) = taking.journal.reader().undoable(UndoOf::Undeliverable).await?;
    if unreadable > 0 {
        debug!(unreadable, "What stood before {unreadable} undeliverable issuances cannot be read: they are not taken back");
    }
    taking.run(undos, &Because::Undeliverable, &mut |undo, taken| tell(undo, taken, report)).await
}

fn tell(undo: &Undo, taken: &Taken, report: &mut Report) {
    let Some(told) = report.policies.iter_mut().find(|told| told.policy == undo.policy) else { return };
    match taken {
        Taken::Back { left, leaves_pinless } => {
            told.lost += u64::from(*leaves_pinless);
            told.count(ChangeKind::TakenBack, ChangeOutcome::Applied, 1);
            let mut sentence = "the mail could not be delivered: what was issued is taken back, and the user is on hold until released, or until the address changes".to_owned();
            left.iter().for_each(|left| sentence.push_str(&format!("; {}", left.sentence())));
            let (login, policy) = (undo.login.clone(), undo.policy.clone());
            report.problem(Problem { user: undo.user, login, policy, code: ChangeKind::TakenBack.as_str(), sentence, is_failure: false });
        }
        Taken::ChangedMeanwhile | Taken::Open => told.count(ChangeKind::TakenBack, ChangeOutcome::ChangedMeanwhile, 1),
        Taken::Gone(_) => {}
        Taken::Failed(why) => {
            told.count(ChangeKind::TakenBack, ChangeOutcome::Failed, 1);
            told.failed += 1;
            let sentence = format!("what was issued cannot be taken back: {why}");
            let (login, policy) = (undo.login.clone(), undo.policy.clone());
            report.problem(Problem { user: undo.user, login, policy, code: ChangeKind::TakenBack.as_str(), sentence, is_failure: true });
        }
    }
}

impl TakeBack<'_> {
    /// Newest first, a user once in a batch; `told` hears of each.
    ///
    /// # Errors
    /// As [`undeliverable`]; also where it was stopped.
    pub async fn run(
        &self,
        mut undos: Vec<Undo>,
        because: &Because,
        told: &mut (dyn FnMut(&Undo, &Taken) + Send),
    ) -> Result<(), PassError> {
        undos.sort_unstable_by_key(|undo| std::cmp::Reverse(undo.issuance));
        while !undos.is_empty() {
            let mut users = BTreeSet::new();
            let (mut batch, mut later) = (Vec::new(), Vec::new());
            for undo in undos {
                let fits = batch.len() < self.config.limits.batch_size && users.insert(undo.user);
                if fits { &mut batch } else { &mut later }.push(undo);
            }
            self.stage(batch, because, told).await?;
            undos = later;
        }
        Ok(())
    }

    /// Halves a batch that is refused, down to the one user at fault.
    async fn stage(&self, batch: Vec<Undo>, because: &Because, told: &mut (dyn FnMut(&Undo, &Taken) + Send)) -> Result<(), PassError> {
        let mut halves = Halves::of(batch);
        let mut roles = true;
        while let Some(mut batch) = halves.next() {
            if (self.stop)() {
                return Err(PassError::Stopped);
            }
            match self.attempt(&batch, because, roles, told).await? {
                Tried::Done => {}
                Tried::Torn(fallen) => {
                    batch.iter().filter(|undo| fallen.contains(&undo.user)).for_each(|undo| told(undo, &Taken::ChangedMeanwhile));
                    batch.retain(|undo| !fallen.contains(&undo.user));
                    halves.again(batch);
                }
                // To give a role is a right that nothing else needs.
                Tried::Refused(error) if error.kind() == "permission" && roles && batch.iter().any(|undo| undo.past.role.is_some()) => {
                    warn!(error.kind = error.kind(), "Roles are not given back: {}", chain(&error));
                    roles = false;
                    halves.again(batch);
                }
                // Nor does it help to halve the batch where the role may not do it for anybody.
                Tried::Refused(error) if error.kind() == "permission" => {
                    batch.iter().for_each(|undo| told(undo, &Taken::Failed(chain(&error))));
                }
                Tried::Refused(error) => {
                    if let Some((only, error)) = halves.refused(&batch, error)? {
                        told(&only, &Taken::Failed(chain(&error)));
                    }
                }
            }
        }
        Ok(())
    }

    async fn attempt(
        &self,
        batch: &[Undo],
        because: &Because,
        roles: bool,
        told: &mut (dyn FnMut(&Undo, &Taken) + Send),
    ) -> Result<Tried, PassError> {
        if batch.is_empty() {
            return Ok(Tried::Done);
        }
        self.lead.verify().await?;
        // What still waits must not be told while it is taken back.
        let waiting: Vec<IssuanceId> = batch.iter().filter(|undo| undo.state == State::Committed).map(|undo| undo.issuance).collect();
        if !waiting.is_empty() {
            self.journal.withhold(waiting, self.utc).await?;
        }
        let ids: Vec<UserId> = batch.iter().map(|undo| undo.user).collect();
        let (mut transaction, users) = self.store.begin(&ids).await?;
        fault::at(Point::BatchBegun).await;
        let (mut running, gone, mut verdicts) = self.planned(batch, because, users, roles).await?;
        loop {
            let (turn, changes): (Vec<usize>, Vec<UserChange>) =
                running.iter().enumerate().filter_map(|(n, undoing)| Some((n, undoing.next()?))).unzip();
            if changes.is_empty() {
                break;
            }
            let outcomes = match transaction.write(&changes).await {
                Ok(outcomes) => outcomes,
                Err(error) if error.is_about_rows() || error.kind() == "permission" => return Ok(Tried::Refused(error)),
                Err(error) => return Err(error.into()),
            };
            let torn: BTreeSet<UserId> = turn
                .iter()
                .zip(&outcomes)
                .filter(|(n, outcome)| match outcome {
                    Outcome::Torn => true,
                    Outcome::ChangedMeanwhile => running[**n].begun,
                    Outcome::Applied | Outcome::PinTaken | Outcome::CodeTaken => false,
                })
                .map(|(n, _)| running[*n].user.id)
                .collect();
            if !torn.is_empty() {
                return Ok(Tried::Torn(torn)); // dropping the transaction rolls it back
            }
            turn.into_iter().zip(outcomes).for_each(|(n, outcome)| running[n].heard(outcome));
        }
        let (standing, fallen): (Vec<Undoing<'_>>, Vec<Undoing<'_>>) = running.into_iter().partition(|undoing| !undoing.fallen);
        if !standing.is_empty() {
            let issuances = standing.iter().map(|undoing| self.issuance(undoing, because)).collect();
            if let Err(refused) = commit(transaction, self.journal, &self.pass, issuances, self.utc).await? {
                return Ok(Tried::Refused(refused));
            }
        }
        self.journal.gone(gone, self.utc).await?;
        for undoing in standing {
            info!(user.id = %undoing.user.id, change.kind = ChangeKind::TakenBack.as_str(), outcome = "applied", pass.id = %self.pass,
                policy = %undoing.undo.policy, "User {}: {because}", undoing.user.id);
            let leaves_pinless = undoing.leaves_pinless();
            verdicts.push((undoing.undo, Taken::Back { left: undoing.left, leaves_pinless }));
        }
        verdicts.extend(fallen.into_iter().map(|undoing| (undoing.undo, Taken::ChangedMeanwhile)));
        verdicts.iter().for_each(|(undo, taken)| told(undo, taken));
        Ok(Tried::Done)
    }

    /// What is to be done for each; those of which nothing stands, and the verdicts that are known already.
    async fn planned<'u>(
        &self,
        batch: &'u [Undo],
        because: &Because,
        users: Vec<User>,
        roles: bool,
    ) -> Result<(Vec<Undoing<'u>>, Vec<IssuanceId>, Vec<(&'u Undo, Taken)>), PassError> {
        let mut there: HashMap<UserId, (User, Facts)> = HashMap::new();
        for (user, facts) in with_facts(Some(self.journal.reader()), users).await? {
            there.insert(user.id, (user, facts));
        }
        let (mut pairs, mut gone, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
        for undo in batch {
            match there.remove(&undo.user) {
                Some((_, facts)) if facts.open => verdicts.push((undo, Taken::Open)),
                Some((user, _)) => pairs.push((undo, user)),
                None => {
                    gone.push(undo.issuance);
                    verdicts.push((undo, Taken::Gone(Vec::new())));
                }
            }
        }
        let asked = pairs.iter().map(|(undo, user)| ((*undo).clone(), user.clone())).collect();
        let matched = self.journal.reader().matched(asked).await?;
        let mut running = Vec::new();
        for ((undo, _), (known, user)) in pairs.into_iter().zip(matched) {
            let mut made = if *because == Because::Revoked { back::all(&user) } else { back::back(&known.past, &user) };
            if !roles && made.back.role.take().is_some() {
                made.leave(Left::RoleStays);
            }
            if made.back.is_nothing() {
                gone.push(undo.issuance);
                verdicts.push((undo, Taken::Gone(made.left)));
            } else {
                running.push(Undoing::new(undo, user, made));
            }
        }
        Ok((running, gone, verdicts))
    }

    fn issuance(&self, undoing: &Undoing<'_>, because: &Because) -> NewIssuance {
        let rule = self.database.policies.iter().find(|policy| policy.name == undoing.undo.policy).and_then(|policy| policy.pin.as_ref());
        let of = (*because != Because::Revoked).then_some(undoing.undo.issuance);
        let takes_back =
            TakesBack { of, because: because.clone(), changes: undoing.back.clone(), leaves_pinless: undoing.leaves_pinless() };
        NewIssuance {
            user: undoing.user.id,
            login: undoing.user.login.clone(),
            policy: undoing.undo.policy.clone(),
            pin: None,
            code: None,
            password: None,
            existing: None,
            again: Again::default(),
            moved: undoing.back.moved.clone(),
            role_removed: None,
            takes_back: Some(Box::new(takes_back)),
            announcement: None,
            due_since: self.utc,
            lane: Lane::Backlog,
            replaced_unexpected: Default::default(),
            quarantine: rule.map_or(QUARANTINE, |rule| rule.quarantine),
        }
    }
}

/// One user on the way back: a change at a time, since one statement writes a PIN of a user once.
struct Undoing<'u> {
    undo: &'u Undo,
    user: User,
    /// All that is to be done, without what turned out to be taken.
    back: Back,
    left: Vec<Left>,
    /// The PINs as they stand after the changes so far.
    standing: Vec<StoredPin>,
    /// What is still to be done to PINs.
    gone: Vec<StoredPin>,
    came: Vec<StoredPin>,
    ended: Vec<(StoredPin, Option<WallClock>)>,
    begun: bool,
    fallen: bool,
}

impl<'u> Undoing<'u> {
    fn new(undo: &'u Undo, user: User, made: back::Return) -> Undoing<'u> {
        let back::Return { back, left } = made;
        let (gone, came, ended) = (back.gone.clone(), back.came.clone(), back.ended.clone());
        Undoing { undo, standing: user.pins.clone(), user, back, left, gone, came, ended, begun: false, fallen: false }
    }

    fn leaves_pinless(&self) -> bool {
        self.standing.is_empty() && !self.user.pins.is_empty()
    }

    /// The next change; `None`: all is done.
    fn next(&self) -> Option<UserChange> {
        let pin = self.next_of_pins().map(|to| PinChange { old: self.standing.clone(), to });
        if self.fallen || (self.begun && pin.is_none()) {
            return None;
        }
        let mut change = UserChange { pin, ..UserChange::of(self.user.id) };
        if !self.begun {
            let value = |returned: &Returned| ValueChange { old: Some(returned.was.clone()), new: returned.is.clone() };
            change.code = self.back.code.as_ref().map(value);
            change.password = self.back.password.as_ref().map(value);
            change.cost_center = self.back.moved.clone().map(|(from, to)| Move { from, to });
            change.role = self.back.role.clone().map(RoleChange::Give);
        }
        Some(change)
    }

    fn next_of_pins(&self) -> Option<PinTarget> {
        if !self.gone.is_empty() {
            // One row becomes the old PIN, so that columns that are not mapped live on.
            return Some(match self.came.first().filter(|_| self.gone.len() == self.standing.len()) {
                Some(old) => PinTarget::New(restored(old)),
                None => PinTarget::Gone { pins: self.gone.clone() },
            });
        }
        if let Some(old) = self.came.first() {
            return Some(PinTarget::Beside(restored(old)));
        }
        let (_, to) = self.ended.first()?;
        let pins = self.ended.iter().filter(|(_, end)| end == to).map(|(pin, _)| pin.clone()).collect();
        Some(PinTarget::End { pins, at: *to })
    }

    fn heard(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Applied => self.applied(),
            Outcome::PinTaken => {
                let taken = self.came.remove(0);
                self.back.came.retain(|pin| !same(pin, &taken));
                self.leave(Left::OldPinTaken);
            }
            Outcome::CodeTaken => {
                if let Some(code) = &mut self.back.code {
                    code.is = None;
                }
                self.leave(Left::OldCodeTaken);
            }
            Outcome::ChangedMeanwhile | Outcome::Torn => self.fallen = true,
        }
    }

    fn applied(&mut self) {
        match self.next_of_pins() {
            None => {}
            Some(PinTarget::New(_)) => {
                self.gone.clear();
                self.standing = vec![self.came.remove(0)];
            }
            Some(PinTarget::Gone { pins }) => {
                self.standing.retain(|pin| !pins.iter().any(|gone| same(gone, pin)));
                self.gone.clear();
            }
            Some(PinTarget::Beside(_)) => self.standing.push(self.came.remove(0)),
            Some(PinTarget::End { pins, at }) => {
                self.standing.iter_mut().filter(|pin| pins.iter().any(|ended| same(ended, pin))).for_each(|pin| pin.expires = at);
                self.ended.retain(|(_, to)| *to != at);
            }
        }
        self.begun = true;
    }

    fn leave(&mut self, what: Left) {
        if !self.left.contains(&what) {
            self.left.push(what);
        }
    }
}

fn same(one: &StoredPin, other: &StoredPin) -> bool {
    one.value == other.value && one.expires == other.expires
}

fn restored(old: &StoredPin) -> NewPin {
    let forms: [StoredValue; 4] = pin::forms_of(&old.value);
    NewPin { value: old.value.clone(), forms, expires: old.expires }
}
