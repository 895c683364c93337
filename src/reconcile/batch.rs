//! Acting: the judged steps in batches, each one transaction.
//!
//! The order within a batch is what makes a crash harmless: write, then the journal's `planned` with an fsync, then
//! COMMIT, then `committed`. A batch whose COMMIT was refused is abandoned; one whose COMMIT was not answered stays
//! planned, and recovery looks what became of it under the write lock.

use std::collections::{HashMap, HashSet};

use tracing::{debug, info, warn};

use super::{Looked, PassError, Watch, kinds, step_codes, with_facts};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{PassId, PinFormat, Timestamp, UserId};
use crate::inventory::User;
use crate::journal::{Announcement, IssuedPin, Journal, Lane, NewIssuance};
use crate::logging::chain;
use crate::mint::{self, Mint, MintError};
use crate::plan::{Planner, Step, Verdict, rules};
use crate::report::{ChangeKind, ChangeOutcome, Line, PassKind, Problem, Report};
use crate::store::{Committed, Leadership, Move, Outcome, PinChange, Store, StoreError, UserChange};

/// Draws for users whose PIN turned out to be taken, before they are left to the next pass.
const ROUNDS: usize = 3;

pub(super) struct Batches<'a> {
    pub store: &'a Store,
    pub lead: &'a Leadership,
    pub journal: &'a Journal,
    pub config: &'a Config,
    pub database: &'a DatabaseConfig,
    pub watch: &'a Watch<'a>,
    pub looked: &'a Looked,
    pub pass: PassId,
    pub kind: PassKind,
    pub utc: Timestamp,
}

/// How one try at a batch ended.
enum Tried {
    Done,
    /// These users fell out after something of theirs was written: rolled back, to be staged again without them.
    Torn(HashSet<UserId>),
    /// The database refused the rows as a whole: to be halved.
    Refused(StoreError),
}

/// A user for whom no free PIN was found, and the login.
type Crowded = (Step, String);

/// A user with all that will be written, journaled and told of him.
struct Staged {
    step: Step,
    user: User,
    change: UserChange,
    issuance: NewIssuance,
}

impl Batches<'_> {
    pub(super) async fn run(&self, report: &mut Report) -> Result<(), PassError> {
        let total = self.looked.plan.steps.len() as u64;
        let mut done = 0;
        for steps in self.looked.plan.steps.chunks(self.config.limits.batch_size) {
            if (self.watch.stop)() {
                return Err(PassError::Stopped);
            }
            self.stage(steps, report).await?;
            done += steps.len() as u64;
            (self.watch.progress)(done, total);
        }
        Ok(())
    }

    /// Tries a batch; without whoever fell out, or halved, until each user is done or known to be the one at fault.
    async fn stage(&self, steps: &[Step], report: &mut Report) -> Result<(), PassError> {
        let mut waiting = vec![steps.to_vec()];
        while let Some(mut batch) = waiting.pop() {
            match self.attempt(&batch, report).await? {
                Tried::Done => {}
                Tried::Torn(fallen) => {
                    for step in batch.iter().filter(|s| fallen.contains(&s.user)) {
                        self.lost(step, report);
                    }
                    batch.retain(|s| !fallen.contains(&s.user));
                    waiting.push(batch);
                }
                Tried::Refused(error) => match batch.as_slice() {
                    [] => {}
                    [only] => self.failed(only, &error, report),
                    several => {
                        debug!(users = several.len(), error.kind = error.kind(), "The database refused a batch; trying its halves");
                        let (left, right) = several.split_at(several.len() / 2);
                        waiting.extend([right.to_vec(), left.to_vec()]);
                    }
                },
            }
        }
        Ok(())
    }

    async fn attempt(&self, steps: &[Step], report: &mut Report) -> Result<Tried, PassError> {
        if steps.is_empty() {
            return Ok(Tried::Done);
        }
        self.lead.verify().await?;
        let ids: Vec<UserId> = steps.iter().map(|s| s.user).collect();
        let (mut transaction, users) = self.store.begin(&ids).await?;
        let mut mint = Mint::new();
        // Counted only once the batch has ended well: a batch that is torn is staged and counted again.
        let mut fallen: Vec<Step> = Vec::new();
        let mut crowded: Vec<Crowded> = Vec::new();
        let mut staged = self.plan_again(steps, users, &mut mint, &mut fallen, &mut crowded).await?;
        let mut applied: Vec<Staged> = Vec::new();
        let mut torn = HashSet::new();
        for round in 1.. {
            let changes: Vec<UserChange> = staged.iter().map(|s| s.change.clone()).collect();
            let outcomes = match transaction.write(&changes).await {
                Ok(outcomes) => outcomes,
                Err(error) if error.is_about_rows() => return Ok(Tried::Refused(error)),
                Err(error) => return Err(error.into()),
            };
            let mut taken: Vec<Staged> = Vec::new();
            for (user, outcome) in staged.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Applied => applied.push(user),
                    Outcome::ChangedMeanwhile => fallen.push(user.step),
                    Outcome::PinTaken => taken.push(user),
                    Outcome::Torn => drop(torn.insert(user.step.user)),
                }
            }
            if !torn.is_empty() {
                return Ok(Tried::Torn(torn)); // dropping the transaction rolls it back
            }
            if taken.is_empty() {
                break;
            }
            report.collisions += taken.len() as u64;
            if round == ROUNDS {
                crowded.extend(taken.into_iter().map(|s| (s.step, s.user.login)));
                break;
            }
            staged = Vec::with_capacity(taken.len());
            for mut user in taken {
                match self.redraw(&mut user, &mut mint) {
                    Ok(()) => staged.push(user),
                    Err(MintError::Crowded { .. }) => crowded.push((user.step, user.user.login)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if !applied.is_empty() {
            let issuances = applied.iter().map(|s| s.issuance.clone()).collect();
            let batch = self.journal.planned(&self.pass, issuances, self.utc).await?;
            match transaction.commit().await {
                Committed::Yes => self.journal.committed(batch, self.utc).await?,
                Committed::Refused(error) => {
                    self.journal.abandoned(batch, self.utc).await?;
                    return Ok(Tried::Refused(error));
                }
                Committed::Unknown(error) => return Err(PassError::CommitUnknown(error)),
            }
            self.watch.committed.notify_one();
        }
        applied.iter().for_each(|s| self.done(s, report));
        fallen.iter().for_each(|s| self.lost(s, report));
        crowded.iter().for_each(|(step, login)| self.crowded(step, login, report));
        Ok(Tried::Done)
    }

    /// Plans the batch's users again from what stands under the lock, and draws for those who are still due. Who is no
    /// longer, or would need more than was judged, falls out.
    async fn plan_again(
        &self,
        steps: &[Step],
        users: Vec<User>,
        mint: &mut Mint,
        fallen: &mut Vec<Step>,
        crowded: &mut Vec<Crowded>,
    ) -> Result<Vec<Staged>, PassError> {
        let planner = Planner::new(&self.config.policies, &self.looked.places, self.looked.now).with_pilot(self.config.pilot.as_ref());
        let mut standing: HashMap<UserId, _> =
            with_facts(Some(self.journal.reader()), users).await?.into_iter().map(|(user, facts)| (user.id, (user, facts))).collect();
        let mut staged = Vec::with_capacity(steps.len());
        for judged in steps {
            match standing.remove(&judged.user).map(|(user, facts)| (planner.verdict(&user, &facts), user)) {
                Some((Verdict::Due(step), user)) if judged.covers(&step) => {
                    let login = user.login.clone();
                    match self.prepare(&planner, step, user, mint) {
                        Ok(ready) => staged.push(ready),
                        Err(MintError::Crowded { .. }) => crowded.push((step, login)),
                        Err(error) => return Err(error.into()),
                    }
                }
                _ => fallen.push(*judged),
            }
        }
        Ok(staged)
    }

    fn prepare(&self, planner: &Planner<'_>, step: Step, user: User, mint: &mut Mint) -> Result<Staged, MintError> {
        let policy = &self.config.policies[step.policy()];
        let target = step.cost_center.and_then(|_| planner.target(step.policy()));
        let mut change =
            UserChange { user: user.id, pin: None, cost_center: target.map(|to| Move { from: user.cost_center, to: to.clone() }) };
        let mut announcement = None;
        let mut issued = None;
        if let (Some(_), Some(rule)) = (step.pin, &policy.pin) {
            let pin = mint.pin(rule)?;
            let (new, forms) = (self.database.pin_format.encode(&pin), PinFormat::every_form(&pin));
            let expires = planner.expiry(step.policy());
            change.pin = Some(PinChange { old: user.pins.clone(), new: new.clone(), forms, expires });
            issued = Some(IssuedPin { pin, stored: new, expires, replaced: user.pins.clone() });
            if let (Ok(Some(recipient)), Some(template), Some(sender)) =
                (rules::recipient(policy, &user), &policy.notify.template, &self.config.mail.from)
            {
                announcement = Some(Announcement {
                    message_id: mint::message_id(&sender.address),
                    recipient,
                    template: template.clone(),
                    username: user.login.clone(),
                    name: user.name.clone(),
                    surname: user.surname.clone(),
                    cost_center: target.map(|place| place.name.clone()),
                });
            }
        }
        let issuance = NewIssuance {
            user: user.id,
            login: user.login.clone(),
            policy: policy.name.clone(),
            pin: issued,
            moved: change.cost_center.as_ref().map(|m| (m.from, m.to.clone())),
            replaced_unexpected: step.unexpected.into(),
            announcement,
            due_since: self.utc,
            lane: if self.kind == PassKind::Poll { Lane::Poll } else { Lane::Backlog },
        };
        Ok(Staged { step, user, change, issuance })
    }

    fn redraw(&self, staged: &mut Staged, mint: &mut Mint) -> Result<(), MintError> {
        let rule = self.config.policies[staged.step.policy()].pin.as_ref();
        if let (Some(rule), Some(change), Some(issued)) = (rule, &mut staged.change.pin, &mut staged.issuance.pin) {
            issued.pin = mint.pin(rule)?;
            issued.stored = self.database.pin_format.encode(&issued.pin);
            change.new = issued.stored.clone();
            change.forms = PinFormat::every_form(&issued.pin);
        }
        Ok(())
    }

    fn done(&self, staged: &Staged, report: &mut Report) {
        let told = &mut report.policies[staged.step.policy()];
        let (mut codes, mut done) = (Vec::new(), Vec::new());
        for kind in kinds(&staged.step) {
            told.count(kind, ChangeOutcome::Applied, 1);
            codes.push(kind.as_str());
            done.push(kind.done());
        }
        info!(user.id = %staged.user.id, change.kind = codes.join(","), outcome = "applied", pass.id = %self.pass,
            policy = %told.policy, reason = step_codes(&staged.step).join(","), "User {}: {}", staged.user.id, done.join(", "));
        let removed = staged.change.pin.as_ref().map_or(0, |p| p.old.len().saturating_sub(1) as u64);
        told.count(ChangeKind::PinDeleted, ChangeOutcome::Applied, removed);
        self.line(&staged.step, &staged.user.login, "applied");
    }

    /// No longer as planned: looked at again in the next pass.
    fn lost(&self, step: &Step, report: &mut Report) {
        let told = &mut report.policies[step.policy()];
        told.changed_meanwhile += 1;
        kinds(step).for_each(|kind| told.count(kind, ChangeOutcome::ChangedMeanwhile, 1));
        debug!(user.id = %step.user, outcome = "changed_meanwhile", "User {} is no longer as planned; the next pass looks again", step.user);
        self.line(step, "", "changed_meanwhile");
    }

    fn failed(&self, step: &Step, error: &StoreError, report: &mut Report) {
        warn!(user.id = %step.user, outcome = "failed", error.kind = error.kind(), "Could not change user {}: {}", step.user, chain(error));
        self.count_failed(step, "", "database_refused", format!("the database refused the change: {}", chain(error)), report);
    }

    /// This user's failure alone (I7): whoever found a PIN is served.
    fn crowded(&self, step: &Step, login: &str, report: &mut Report) {
        let sentence = "no PIN of this length was found that is free; a longer pin.length gives more room".to_owned();
        warn!(user.id = %step.user, outcome = "failed", error.kind = "pin_taken", "No PIN for user {}: {sentence}", step.user);
        self.count_failed(step, login, "pin_taken", sentence, report);
    }

    fn count_failed(&self, step: &Step, login: &str, code: &'static str, sentence: String, report: &mut Report) {
        let policy = self.config.policies[step.policy()].name.clone();
        let told = &mut report.policies[step.policy()];
        told.failed += 1;
        kinds(step).for_each(|kind| told.count(kind, ChangeOutcome::Failed, 1));
        report.problem(Problem { user: step.user, login: login.to_owned(), policy, code, sentence });
        self.line(step, login, "failed");
    }

    fn line(&self, step: &Step, login: &str, state: &'static str) {
        let policy = &self.config.policies[step.policy()].name.0;
        (self.watch.line)(Line { user: step.user, login, policy, state, codes: &step_codes(step) });
    }
}
