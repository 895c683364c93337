//! Acting: the judged steps in batches, each one transaction.
//!
//! Each is locked, planned again from what stands, written, and ended as `commit.rs` says.

use std::collections::{BTreeSet, HashMap, HashSet};

use tracing::{debug, info, warn};

use super::commit::commit;
use super::draw::{self, MOST_ATTEMPTS};
use super::halves::Halves;
use super::making::{self, Made, Making};
use super::prepare::{Preparing, Staged};
use super::{Looked, PassError, Watch, changes, step_codes, with_facts};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{PassId, PinLength, StoredValue, Timestamp, UserId};
use crate::fault::{self, Point};
use crate::inventory::User;
use crate::journal::{Journal, Lane};
use crate::logging::chain;
use crate::mint::{Mint, MintError};
use crate::plan::{Failure, PinAction, Planner, Step, Verdict};
use crate::report::{ChangeOutcome, Line, PassKind, Problem, Report};
use crate::store::{Leadership, Outcome, Store, StoreError, UserChange};

/// Draws for users whose PIN turned out to be taken, before they are put off to the end of the pass.
const ROUNDS: usize = 3;
/// The same for PINs that were freed lately.
const QUARANTINE_ROUNDS: usize = 50;

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
    /// Who is to be tried again at the end of the pass.
    Done(Vec<Step>),
    /// These users fell out after something of theirs was written: rolled back, to be staged again without them.
    Torn(HashSet<UserId>),
    /// The database refused the rows as a whole: to be halved.
    Refused(StoreError),
}

/// Who of a batch got no credential.
#[derive(Default)]
struct Without {
    /// Draws hit what somebody has: to be tried again at the end of the pass.
    crowded: Vec<Step>,
    /// For whom there is none: the login where it is known, why, and the figures.
    failed: Vec<(Step, String, Failure, String)>,
}

impl Without {
    fn sort(&mut self, step: Step, login: &str, error: MintError) -> Result<(), PassError> {
        match error {
            MintError::Crowded { .. } => self.crowded.push(step),
            MintError::Full { .. } => {
                let figures = format!("{error}; a longer pin.length gives more room");
                self.failed.push((step, login.to_owned(), Failure::SpaceFull, figures));
            }
            MintError::Random(_) | MintError::Password(_) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Batches<'_> {
    pub(super) async fn run(&self, report: &mut Report) -> Result<(), PassError> {
        let steps = &self.looked.plan.steps;
        let mut mint = Mint::new();
        let site = draw::Site { reader: self.store.reader(), journal: self.journal.reader(), utc: self.utc };
        if let Some(counts) = self.looked.counts {
            draw::look_ahead(&site, &self.lengths(steps), counts.pins, &mut mint).await?;
        }
        let total = steps.len() as u64;
        let mut done = 0;
        let mut put_off = self.all(steps, total, &mut done, &mut mint, report).await?;
        for attempt in 1..MOST_ATTEMPTS {
            if put_off.is_empty() {
                return Ok(());
            }
            draw::learn(&site, &self.lengths(&put_off), attempt, &mut mint).await?;
            put_off = self.all(&put_off, total, &mut done, &mut mint, report).await?;
        }
        for step in &put_off {
            let failure = if step.issues_pin() { Failure::SpaceFull } else { Failure::NoFreeCode };
            self.failed(step, "", failure, failure.sentence().to_owned(), report);
        }
        Ok(())
    }

    /// All of `steps` in batches; who is to be tried again.
    async fn all(&self, steps: &[Step], total: u64, done: &mut u64, mint: &mut Mint, report: &mut Report) -> Result<Vec<Step>, PassError> {
        let mut put_off = Vec::new();
        for batch in steps.chunks(making::batch_size(steps, self.database, self.config.limits.batch_size)) {
            if (self.watch.stop)() {
                return Err(PassError::Stopped);
            }
            let again = self.stage(batch, mint, report).await?;
            *done += (batch.len() - again.len()) as u64;
            put_off.extend(again);
            (self.watch.progress)(*done, total);
        }
        Ok(put_off)
    }

    /// The lengths of the PINs that these steps ask for.
    fn lengths(&self, steps: &[Step]) -> BTreeSet<PinLength> {
        let length = |step: &Step| self.database.policies[step.policy()].pin.as_ref().map(|rule| rule.length);
        steps.iter().filter(|step| step.issues_pin()).filter_map(length).collect()
    }

    /// Tries a batch; without whoever fell out, or halved, until each user is done, put off, or known to be the one at fault.
    async fn stage(&self, steps: &[Step], mint: &mut Mint, report: &mut Report) -> Result<Vec<Step>, PassError> {
        let mut halves = Halves::of(steps.to_vec());
        let mut put_off = Vec::new();
        while let Some(mut batch) = halves.next() {
            if (self.watch.stop)() {
                return Err(PassError::Stopped);
            }
            match self.attempt(&batch, mint, report).await? {
                Tried::Done(crowded) => put_off.extend(crowded),
                Tried::Torn(fallen) => {
                    for step in batch.iter().filter(|s| fallen.contains(&s.user)) {
                        self.lost(step, report);
                    }
                    batch.retain(|s| !fallen.contains(&s.user));
                    halves.again(batch);
                }
                Tried::Refused(error) => {
                    if let Some((only, error)) = halves.refused(&batch, error)? {
                        let sentence = format!("{}: {}", Failure::DatabaseRefused.sentence(), chain(&error));
                        self.failed(&only, "", Failure::DatabaseRefused, sentence, report);
                    }
                }
            }
        }
        Ok(put_off)
    }

    async fn attempt(&self, steps: &[Step], mint: &mut Mint, report: &mut Report) -> Result<Tried, PassError> {
        if steps.is_empty() {
            return Ok(Tried::Done(Vec::new()));
        }
        self.lead.verify().await?;
        mint.next_batch();
        let preparing = Preparing {
            config: self.config,
            database: self.database,
            planner: Planner::new(&self.database.policies, &self.looked.places, self.looked.now).with_pilot(self.config.pilot.as_ref()),
            utc: self.utc,
            lane: if self.kind == PassKind::Poll { Lane::Poll } else { Lane::Backlog },
        };
        let mut without = Without::default();
        let mut made = Making { reader: self.store.reader(), database: self.database, watch: self.watch }.make(steps, mint).await?;
        let unmade: HashSet<UserId> = made.failed.iter().map(|(step, ..)| step.user).collect();
        without.failed.extend(made.failed.drain(..).map(|(step, failure, why)| (step, String::new(), failure, why)));
        let steps: Vec<Step> = steps.iter().filter(|step| !unmade.contains(&step.user)).copied().collect();
        let ids: Vec<UserId> = steps.iter().map(|s| s.user).collect();
        let (mut transaction, users) = self.store.begin(&ids).await?;
        fault::at(Point::BatchBegun).await;
        // Counted only once the batch has ended well: a batch that is torn is staged and counted again.
        let mut fallen: Vec<Step> = Vec::new();
        let mut staged = self.plan_again(&preparing, &steps, users, (mint, &mut made), &mut fallen, &mut without).await?;
        // All PINs of the batch that may go: once written, nothing in the database or the journal tells of them any more.
        let freed: HashSet<StoredValue> = staged.iter().flat_map(|s| s.user.pins.iter().map(|pin| pin.value.clone())).collect();
        let mut applied: Vec<Staged> = Vec::new();
        let mut torn = HashSet::new();
        for round in 1.. {
            staged = self.out_of_quarantine(&preparing, staged, &freed, mint, &mut without).await?;
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
                    Outcome::CodeTaken => without.crowded.push(user.step),
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
                without.crowded.extend(taken.into_iter().map(|s| s.step));
                break;
            }
            staged = Vec::with_capacity(taken.len());
            for user in taken {
                staged.extend(redrawn(&preparing, user, mint, &mut without)?);
            }
        }
        if !applied.is_empty() {
            let issuances = applied.iter().map(|s| s.issuance.clone()).collect();
            if let Err(refused) = commit(transaction, self.journal, &self.pass, issuances, self.utc).await? {
                return Ok(Tried::Refused(refused));
            }
            mint.keep_drawn();
            self.watch.committed.notify_one();
        }
        applied.iter().for_each(|s| self.done(s, report));
        fallen.iter().for_each(|s| self.lost(s, report));
        for (step, login, failure, why) in without.failed {
            self.failed(&step, &login, failure, why, report);
        }
        Ok(Tried::Done(without.crowded))
    }

    /// Plans the batch's users again from what stands under the lock, and draws for those who are still due. Who is no
    /// longer, or would need more than was judged, falls out.
    async fn plan_again(
        &self,
        preparing: &Preparing<'_>,
        steps: &[Step],
        users: Vec<User>,
        (mint, made): (&mut Mint, &mut Made),
        fallen: &mut Vec<Step>,
        without: &mut Without,
    ) -> Result<Vec<Staged>, PassError> {
        let mut standing: HashMap<UserId, _> =
            with_facts(Some(self.journal.reader()), users).await?.into_iter().map(|(user, facts)| (user.id, (user, facts))).collect();
        let mut staged = Vec::with_capacity(steps.len());
        for judged in steps {
            match standing.remove(&judged.user).map(|(user, facts)| (preparing.planner.verdict(&user, &facts), user)) {
                Some((Verdict::Due(step), user)) if judged.covers(&step) && made.serves(&step) => {
                    let login = user.login.clone();
                    match preparing.stage(step, user, mint, made) {
                        Ok(ready) => staged.push(ready),
                        Err(error) => without.sort(step, &login, error)?,
                    }
                }
                _ => fallen.push(*judged),
            }
        }
        Ok(staged)
    }

    /// Draws again for whoever drew a PIN that was freed lately, in this batch or before it (R7).
    async fn out_of_quarantine(
        &self,
        preparing: &Preparing<'_>,
        staged: Vec<Staged>,
        freed: &HashSet<StoredValue>,
        mint: &mut Mint,
        without: &mut Without,
    ) -> Result<Vec<Staged>, PassError> {
        let (mut clear, mut doubtful) = (Vec::with_capacity(staged.len()), staged);
        for _ in 0..QUARANTINE_ROUNDS {
            if doubtful.is_empty() {
                break;
            }
            let new = |s: &Staged| s.issuance.issued().map_or_else(|| StoredValue::new(String::new()), |issued| issued.stored.clone());
            let values: Vec<StoredValue> = doubtful.iter().map(new).collect();
            let lately = self.journal.reader().quarantined(values.clone(), self.utc).await?;
            let mut again = Vec::new();
            for ((user, value), lately) in doubtful.into_iter().zip(values).zip(lately) {
                if lately || freed.contains(&value) {
                    again.extend(redrawn(preparing, user, mint, without)?);
                } else {
                    clear.push(user);
                }
            }
            doubtful = again;
        }
        without.crowded.extend(doubtful.into_iter().map(|user| user.step));
        Ok(clear)
    }

    fn done(&self, staged: &Staged, report: &mut Report) {
        let told = &mut report.policies[staged.step.policy()];
        let (mut codes, mut done) = (Vec::new(), Vec::new());
        for (kind, n) in changes(&staged.step) {
            told.count(kind, ChangeOutcome::Applied, n);
            codes.push(kind.as_str());
            done.push(kind.done());
        }
        info!(user.id = %staged.user.id, change.kind = codes.join(","), outcome = "applied", pass.id = %self.pass,
            policy = %told.policy, reason = step_codes(&staged.step).join(","), "User {}: {}", staged.user.id, done.join(", "));
        told.gained += u64::from(staged.step.issues_pin() && staged.step.touched == 0);
        told.lost += u64::from(staged.step.pin.is_some_and(|pin| pin.action == PinAction::Delete));
        self.line(&staged.step, &staged.user.login, "applied");
    }

    /// No longer as planned: looked at again in the next pass.
    fn lost(&self, step: &Step, report: &mut Report) {
        let told = &mut report.policies[step.policy()];
        told.changed_meanwhile += 1;
        changes(step).for_each(|(kind, n)| told.count(kind, ChangeOutcome::ChangedMeanwhile, n));
        debug!(user.id = %step.user, outcome = "changed_meanwhile", "User {} is no longer as planned; the next pass looks again", step.user);
        self.line(step, "", "changed_meanwhile");
    }

    /// This user's failure alone (I7).
    fn failed(&self, step: &Step, login: &str, failure: Failure, sentence: String, report: &mut Report) {
        warn!(user.id = %step.user, outcome = "failed", reason = failure.as_str(), "Could not change user {}: {sentence}", step.user);
        let policy = &self.database.policies[step.policy()].name;
        let told = &mut report.policies[step.policy()];
        told.failed += 1;
        changes(step).for_each(|(kind, n)| told.count(kind, ChangeOutcome::Failed, n));
        report.problem(Problem::failed(step.user, login, policy, failure, sentence));
        self.line(step, login, "failed");
    }

    fn line(&self, step: &Step, login: &str, state: &'static str) {
        let policy = &self.database.policies[step.policy()].name.0;
        (self.watch.line)(Line { user: step.user, login, policy, state, codes: &step_codes(step) });
    }
}

/// The user with another PIN; `None` where none was drawn.
fn redrawn(preparing: &Preparing<'_>, mut user: Staged, mint: &mut Mint, without: &mut Without) -> Result<Option<Staged>, PassError> {
    match preparing.redraw(&mut user, mint) {
        Ok(()) => Ok(Some(user)),
        Err(error) => without.sort(user.step, &user.user.login, error).map(|()| None),
    }
}
