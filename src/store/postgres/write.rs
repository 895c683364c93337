//! The writing half: one session, one transaction at a time, under the write lock.
//!
//! Every look-up of a batch is a join with the batch, the batch MATERIALIZED and the selective tests outside the join: `= ANY`
//! of an array of ids, or NOT EXISTS, did not end on tables without an index or with stale statistics (measured).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_postgres::Client;

use crate::domain::UserId;
use crate::inventory::User;
use crate::store::error::{Cause, StoreError, refused};
use crate::store::sql::{self, Arg, Binder, LOCK_TIMEOUT, LOOK_UP, is_pin, quoted};
use crate::store::{AfterImage, Committed, Outcome, PinTarget, RoleChange, UserChange};

use super::{GRACE, Layout, Postgres, Shared, expiry, within};

mod places;
mod statements;
mod values;

/// The one writing session, opened when it is first needed and again after it broke.
pub(in crate::store) struct Writer {
    postgres: Shared,
    session: Arc<Mutex<Option<Client>>>,
}

impl Writer {
    pub(in crate::store) fn new(postgres: Shared) -> Writer {
        Writer { postgres, session: Arc::new(Mutex::new(None)) }
    }

    pub(in crate::store) async fn begin(&self, users: &[UserId]) -> Result<(Transaction, Vec<User>), StoreError> {
        let transaction = self.open().await?;
        let layout = self.postgres.layout(transaction.client()?).await?;
        let users = self.postgres.read_again(transaction.client()?, layout, users).await?;
        Ok((transaction, users))
    }

    pub(in crate::store) async fn landed(&self, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        let mut all = Vec::with_capacity(images.len());
        // Each part in a transaction of its own, so that the vendor's and our own writers get in between.
        for part in images.chunks(LOOK_UP) {
            let transaction = self.open().await?;
            let layout = self.postgres.layout(transaction.client()?).await?;
            all.extend(self.postgres.look_up(transaction.client()?, layout, part).await?);
            // Nothing was written: whatever COMMIT says, the lock is gone and the answer stands.
            let _ = transaction.commit().await;
        }
        Ok(all)
    }

    /// A transaction that holds the write lock.
    async fn open(&self) -> Result<Transaction, StoreError> {
        let wait = LOCK_TIMEOUT + GRACE;
        let mut guard =
            tokio::time::timeout(wait, self.session.clone().lock_owned()).await.map_err(|_| StoreError::WriteLock { after: wait })?;
        // A session that broke while it idled shows here, before anything was done: it is replaced once.
        let fresh = guard.as_ref().is_none_or(Client::is_closed);
        if fresh {
            *guard = Some(self.postgres.connect_alone().await?);
        }
        let mut transaction = Transaction { postgres: self.postgres.clone(), session: guard, broken: false, ended: false };
        match transaction.start().await {
            Err(error) if !fresh && error.kind() == "connect" => {
                *transaction.session = Some(self.postgres.connect_alone().await?);
                transaction.start().await?;
            }
            started => started?,
        }
        transaction.lock().await?;
        Ok(transaction)
    }
}

pub(in crate::store) struct Transaction {
    postgres: Shared,
    session: OwnedMutexGuard<Option<Client>>,
    /// A statement failed, was cut off, or tore a user: COMMIT must not be sent (PostgreSQL would answer it politely with a
    /// rollback).
    broken: bool,
    /// COMMIT was answered with yes: the session can be used again.
    ended: bool,
}

impl Drop for Transaction {
    /// The session is given up, which makes the server roll back; whoever asks for the lock next waits until it has.
    fn drop(&mut self) {
        if !self.ended
            && let Some(client) = self.session.take()
            && self.broken
        {
            self.postgres.connector.cancel(&client);
        }
    }
}

impl Transaction {
    fn client(&self) -> Result<&Client, StoreError> {
        self.session.as_ref().ok_or(StoreError::Incomplete)
    }

    /// READ COMMITTED is named: under REPEATABLE READ the snapshot would be older than the lock. The timeouts are the
    /// transaction's own, so that a client which is cut off cannot hold the lock for long.
    ///
    /// The planner is told that pages are in memory and that nothing is worth a sort: else it would scan or sort a table of
    /// 100,000 cards for each batch of a thousand instead of looking into its index, and a pass over N users would cost N².
    /// Where there is no index, one scan and a hash stay the plan.
    async fn start(&self) -> Result<(), StoreError> {
        let sql = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {};
             SET LOCAL idle_in_transaction_session_timeout = 30000; SET LOCAL random_page_cost = 1; SET LOCAL enable_mergejoin = off",
            LOCK_TIMEOUT.as_millis(),
            self.postgres.db.statement_timeout.as_millis()
        );
        within("begin", self.limit(), self.client()?.batch_execute(&sql)).await
    }

    /// In a statement of its own, so that whatever follows sees what stood when the lock was granted.
    async fn lock(&self) -> Result<(), StoreError> {
        let client = self.client()?;
        let key = self.postgres.layout(client).await?.write_lock();
        let mut binder = Binder::postgres();
        let sql = format!("SELECT pg_advisory_xact_lock({})", binder.int(key));
        match self.postgres.rows(client, "take the write lock", &sql, &binder.args).await {
            Err(error) if error.kind() == "lock_timeout" => Err(StoreError::WriteLock { after: LOCK_TIMEOUT }),
            answer => answer.map(drop),
        }
    }

    fn limit(&self) -> Duration {
        self.postgres.db.statement_timeout + GRACE
    }

    pub(in crate::store) async fn write(&mut self, changes: &[UserChange]) -> Result<Vec<Outcome>, StoreError> {
        if self.broken {
            return Err(StoreError::Incomplete);
        }
        self.broken = true;
        let outcomes = self.write_all(changes).await?;
        self.broken = outcomes.contains(&Outcome::Torn);
        Ok(outcomes)
    }

    async fn write_all(&self, changes: &[UserChange]) -> Result<Vec<Outcome>, StoreError> {
        let client = self.client()?;
        let layout = self.postgres.layout(client).await?;
        let mut verdicts = sql::settle_within_batch(changes);
        let pending = |verdicts: &[Option<Outcome>], wanted: &dyn Fn(&UserChange) -> bool| -> Vec<usize> {
            (0..changes.len()).filter(|&i| verdicts[i].is_none() && wanted(&changes[i])).collect()
        };
        let coded = pending(&verdicts, &|c| c.code.as_ref().is_some_and(|code| code.new.is_some()));
        for i in self.standing_codes(client, layout, changes, &coded).await? {
            verdicts[i] = Some(Outcome::CodeTaken);
        }
        for kind in [Kind::Insert, Kind::Replace, Kind::Beside, Kind::End, Kind::Delete] {
            let chosen = pending(&verdicts, &|c| Kind::of(c) == Some(kind));
            for (i, outcome) in self.run(client, layout, kind, changes, &chosen).await? {
                verdicts[i] = (outcome != Outcome::Applied).then_some(outcome);
            }
        }
        let of_values = |c: &UserChange| c.code.is_some() || c.password.is_some();
        let holds = |kind: Kind, c: &UserChange| match kind {
            Kind::Values => of_values(c),
            Kind::Move => c.cost_center.is_some(),
            Kind::RemoveRole => matches!(c.role, Some(RoleChange::Remove(_))),
            Kind::GiveRole => matches!(c.role, Some(RoleChange::Give(_))),
            _ => c.pin.is_some(),
        };
        let later = [Kind::Values, Kind::Move, Kind::RemoveRole, Kind::GiveRole];
        for (n, kind) in later.into_iter().enumerate() {
            let chosen = pending(&verdicts, &|c| holds(kind, c));
            for (i, outcome) in self.run(client, layout, kind, changes, &chosen).await? {
                let begun = changes[i].pin.is_some() || later[..n].iter().any(|before| holds(*before, &changes[i]));
                verdicts[i] = match outcome {
                    Outcome::Applied => None,
                    _ if begun => Some(Outcome::Torn),
                    missed => Some(missed),
                };
            }
        }
        Ok(verdicts.into_iter().map(|v| v.unwrap_or(Outcome::Applied)).collect())
    }

    /// Those of the chosen whose new code somebody has, by their place in `changes`.
    async fn standing_codes(
        &self,
        client: &Client,
        layout: &Layout,
        changes: &[UserChange],
        chosen: &[usize],
    ) -> Result<Vec<usize>, StoreError> {
        const STEP: &str = "look for card assignment codes";
        let batch: Vec<&UserChange> = chosen.iter().map(|&i| &changes[i]).collect();
        let mut binder = Binder::postgres();
        let statement = self.postgres.codes_standing(layout, &batch, &mut binder).filter(|_| !chosen.is_empty());
        let Some(statement) = statement else { return Ok(Vec::new()) };
        let rows = self.postgres.rows(client, STEP, &statement, &binder.args).await?;
        let ids: Result<std::collections::HashSet<i64>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let ids = ids.map_err(|e| StoreError::query(STEP, e))?;
        Ok(chosen.iter().copied().filter(|&i| ids.contains(&changes[i].user.0)).collect())
    }

    /// The verdicts on the chosen changes, by their place in `changes`. A user of whom the answer says nothing was not there.
    async fn run(
        &self,
        client: &Client,
        layout: &Layout,
        kind: Kind,
        changes: &[UserChange],
        chosen: &[usize],
    ) -> Result<Vec<(usize, Outcome)>, StoreError> {
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let batch: Vec<&UserChange> = chosen.iter().map(|&i| &changes[i]).collect();
        let mut binder = Binder::postgres();
        let (step, statement) = match kind {
            Kind::Insert => ("insert PINs", self.postgres.insert(layout, &batch, false, &mut binder)),
            Kind::Beside => ("insert PINs beside others", self.postgres.insert(layout, &batch, true, &mut binder)),
            Kind::Replace => ("replace PINs", self.postgres.replace(layout, &batch, &mut binder)),
            Kind::End => ("end PINs", self.postgres.adjust(layout, &batch, false, &mut binder)),
            Kind::Delete => ("delete PINs", self.postgres.adjust(layout, &batch, true, &mut binder)),
            Kind::Values => match self.postgres.write_values(layout, &batch, &mut binder) {
                Some(statement) => ("write codes and passwords", statement),
                None => return Ok(chosen.iter().map(|&i| (i, Outcome::ChangedMeanwhile)).collect()),
            },
            Kind::Move => ("move users", self.postgres.move_users(layout, &batch, &mut binder)),
            Kind::RemoveRole | Kind::GiveRole => match self.postgres.change_roles(layout, &batch, kind == Kind::GiveRole, &mut binder) {
                Some(statement) => ("change roles", statement),
                None => return Ok(chosen.iter().map(|&i| (i, Outcome::ChangedMeanwhile)).collect()),
            },
        };
        let rows = self.postgres.rows(client, step, &statement, &binder.args).await?;
        let mut answers = std::collections::HashMap::with_capacity(rows.len());
        for row in &rows {
            let field = |i: usize| row.try_get::<_, i64>(i).map_err(|e| StoreError::query(step, e));
            answers.insert(field(0)?, field(1)?);
        }
        let verdict = |&i: &usize| {
            let outcome = match answers.get(&changes[i].user.0) {
                Some(&statements::APPLIED) => Outcome::Applied,
                Some(&statements::PIN_TAKEN) => Outcome::PinTaken,
                Some(&statements::TORN) => Outcome::Torn,
                _ => Outcome::ChangedMeanwhile,
            };
            (i, outcome)
        };
        Ok(chosen.iter().map(verdict).collect())
    }

    pub(in crate::store) async fn commit(mut self) -> Committed {
        if self.broken {
            return Committed::Refused(StoreError::Incomplete);
        }
        self.broken = true;
        let client = match self.client() {
            Ok(client) => client,
            Err(error) => return Committed::Refused(error),
        };
        // Never sent together with anything else: it leaves only after every verdict has been read.
        let start = Instant::now();
        let answer = tokio::time::timeout(self.limit(), client.batch_execute("COMMIT")).await;
        let duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(query = "commit", duration_ms, ok = matches!(answer, Ok(Ok(()))), "Asked the database");
        match answer {
            Ok(Ok(())) => {
                self.ended = true;
                Committed::Yes
            }
            Ok(Err(error)) if refused(&error) => Committed::Refused(StoreError::query("commit", error)),
            Ok(Err(error)) => Committed::Unknown(StoreError::query("commit", Cause::from(error))),
            Err(_) => Committed::Unknown(StoreError::Deadline { step: "commit", after: self.limit() }),
        }
    }
}

/// The kinds of change, each one statement for a whole batch.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Insert,
    Replace,
    Beside,
    End,
    Delete,
    Values,
    Move,
    RemoveRole,
    GiveRole,
}

impl Kind {
    /// What is done to the PINs.
    fn of(change: &UserChange) -> Option<Kind> {
        let pin = change.pin.as_ref()?;
        Some(match pin.to {
            PinTarget::New(_) if pin.old.is_empty() => Kind::Insert,
            PinTarget::New(_) => Kind::Replace,
            PinTarget::Beside(_) => Kind::Beside,
            PinTarget::End { .. } => Kind::End,
            PinTarget::Gone { .. } => Kind::Delete,
        })
    }
}

impl Postgres {
    /// Which of these stand there, by one statement.
    pub(super) async fn look_up(&self, client: &Client, layout: &Layout, images: &[AfterImage]) -> Result<Vec<bool>, StoreError> {
        let mut binder = Binder::postgres();
        let statement = self.standing(layout, images, &mut binder);
        let mut found = vec![false; images.len()];
        for row in self.rows(client, "look up issuances", &statement, &binder.args).await? {
            let place: i64 = row.try_get(0).map_err(|e| StoreError::query("look up issuances", e))?;
            if let Some(found) = usize::try_from(place).ok().and_then(|i| found.get_mut(i)) {
                *found = true;
            }
        }
        Ok(found)
    }
}
