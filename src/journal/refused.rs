//! Plans that a limit refused, kept as their steps, so that an operator can let just these through (R23).

use rusqlite::{OptionalExtension, Row, params};

use super::error::{Doing, JournalError};
use super::issue::immediate;
use super::{BookId, Journal, JournalReader, View, Writer};
use crate::domain::{PolicyName, Timestamp};

/// For how long an approval lets a plan through, in seconds.
const APPROVED_FOR: i64 = 86_400;
/// A plan that was not refused again for so long is forgotten, in seconds.
const KEPT_FOR: i64 = 7 * 86_400;
/// So many of a policy: its id changes with each user that is served by another way, and the one that was told to somebody must
/// still be known.
const KEPT: i64 = 5;
/// It is written down again after so long, in seconds.
const NEWS: i64 = 600;

const WHAT: &str = "refused plans";

/// A plan that a limit refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedPlan {
    /// The first 12 hex digits of the SHA-256 over its steps.
    pub plan: String,
    pub policy: PolicyName,
    /// The limit's key.
    pub limit: String,
    pub users: u64,
    /// When it was refused last.
    pub refused_at: Timestamp,
    /// Until when it may be done; `None`: nobody has approved it.
    pub approved_until: Option<Timestamp>,
}

impl Writer {
    fn refuse(&mut self, book: BookId, refused: &RefusedPlan, steps: &[u8]) -> Result<(), JournalError> {
        let RefusedPlan { plan, policy, limit, users, refused_at, approved_until: _ } = refused;
        let tx = immediate(&mut self.view.db, WHAT)?;
        // Polls refuse the same plan every few seconds.
        let known = tx
            .prepare_cached("SELECT refused_at FROM refused WHERE database = ?1 AND plan = ?2")
            .and_then(|mut s| s.query_row(params![book.0, plan], |r| r.get::<_, i64>(0)).optional())
            .reading(WHAT)?;
        if known.is_some_and(|at| at > refused_at.0 - NEWS) {
            return Ok(());
        }
        let written = match known {
            Some(_) => {
                tx.execute("UPDATE refused SET refused_at = ?3 WHERE database = ?1 AND plan = ?2", params![book.0, plan, refused_at.0])
            }
            None => tx
                .execute(
                    "DELETE FROM refused WHERE database = ?1 AND (refused_at < ?3 OR (policy = ?2 AND plan NOT IN \
                     (SELECT plan FROM refused WHERE database = ?1 AND policy = ?2 ORDER BY refused_at DESC, rowid DESC LIMIT ?4)))",
                    params![book.0, policy.0, refused_at.0 - KEPT_FOR, KEPT - 1],
                )
                .and_then(|_| {
                    tx.execute(
                        "INSERT INTO refused (database, plan, policy, cap, users, refused_at, steps) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                        params![book.0, plan, policy.0, limit, *users as i64, refused_at.0, steps],
                    )
                }),
        };
        written.writing(WHAT)?;
        tx.commit().writing(WHAT)
    }

    fn approve(&mut self, book: BookId, plan: &str, now: Timestamp) -> Result<Option<RefusedPlan>, JournalError> {
        self.view
            .db
            .prepare_cached(
                "UPDATE refused SET approved_until = ?3 WHERE database = ?1 AND plan = ?2 \
                 RETURNING plan, policy, cap, users, refused_at, approved_until",
            )
            .and_then(|mut s| s.query_row(params![book.0, plan, now.0 + APPROVED_FOR], told).optional())
            .writing(WHAT)
    }

    fn refusals_over(&mut self, book: BookId, policies: &[PolicyName]) -> Result<(), JournalError> {
        let any = self.view.db.prepare_cached("SELECT 1 FROM refused LIMIT 1").and_then(|mut s| s.exists([])).reading(WHAT)?;
        for policy in policies.iter().filter(|_| any) {
            self.view
                .db
                .prepare_cached("DELETE FROM refused WHERE database = ?1 AND policy = ?2")
                .and_then(|mut s| s.execute(params![book.0, policy.0]))
                .writing(WHAT)?;
        }
        Ok(())
    }

    fn approval_used(&mut self, book: BookId, plans: &[String]) -> Result<(), JournalError> {
        for plan in plans {
            self.view
                .db
                .prepare_cached("DELETE FROM refused WHERE database = ?1 AND plan = ?2")
                .and_then(|mut s| s.execute(params![book.0, plan]))
                .writing(WHAT)?;
        }
        Ok(())
    }
}

impl View {
    fn refused(&self, book: BookId) -> Result<Vec<RefusedPlan>, JournalError> {
        let sql =
            "SELECT plan, policy, cap, users, refused_at, approved_until FROM refused WHERE database = ?1 ORDER BY refused_at DESC, plan";
        let mut rows = self.db.prepare_cached(sql).reading(WHAT)?;
        rows.query_map([book.0], told).and_then(Iterator::collect).reading(WHAT)
    }

    /// Of a policy that refuses a plan after the other, each of them is kept: it waits once.
    fn refused_policies(&self, book: BookId, now: Timestamp) -> Result<u64, JournalError> {
        let sql = "SELECT count(DISTINCT policy) FROM refused WHERE database = ?1 AND refused_at > ?2 AND policy NOT IN \
             (SELECT policy FROM refused WHERE database = ?1 AND approved_until > ?3)";
        let counted = self
            .db
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([book.0, now.0 - KEPT_FOR, now.0], |r| r.get::<_, i64>(0)))
            .reading(WHAT)?;
        Ok(counted.max(0).unsigned_abs())
    }

    fn approved(&self, book: BookId, policy: &PolicyName, now: Timestamp) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        let sql = "SELECT plan, steps FROM refused WHERE database = ?1 AND policy = ?2 AND approved_until > ?3";
        let mut rows = self.db.prepare_cached(sql).reading(WHAT)?;
        rows.query_map(params![book.0, policy.0, now.0], |r| Ok((r.get(0)?, r.get(1)?))).and_then(Iterator::collect).reading(WHAT)
    }
}

fn told(row: &Row<'_>) -> Result<RefusedPlan, rusqlite::Error> {
    Ok(RefusedPlan {
        plan: row.get(0)?,
        policy: PolicyName(row.get(1)?),
        limit: row.get(2)?,
        users: row.get::<_, i64>(3)?.max(0).unsigned_abs(),
        refused_at: Timestamp(row.get(4)?),
        approved_until: row.get::<_, Option<i64>>(5)?.map(Timestamp),
    })
}

impl Journal {
    /// A limit refused this plan; `steps` is the caller's.
    pub async fn refuse(&self, refused: RefusedPlan, steps: Vec<u8>) -> Result<(), JournalError> {
        self.write_in(move |w, book| w.refuse(book.id, &refused, &steps)).await
    }

    /// Lets it through for a day. `None`: there is no such plan.
    pub async fn approve(&self, plan: &str, now: Timestamp) -> Result<Option<RefusedPlan>, JournalError> {
        let plan = plan.to_owned();
        self.write_in(move |w, book| w.approve(book.id, &plan, now)).await
    }

    /// A full pass has done all that these policies ask for: whatever was refused of them before is of no interest any more.
    pub async fn refusals_over(&self, policies: Vec<PolicyName>) -> Result<(), JournalError> {
        self.write_in(move |w, book| w.refusals_over(book.id, &policies)).await
    }

    /// These have been done: an approval lets a plan through once.
    pub async fn approval_used(&self, plans: Vec<String>) -> Result<(), JournalError> {
        if plans.is_empty() {
            return Ok(());
        }
        self.write_in(move |w, book| w.approval_used(book.id, &plans)).await
    }
}

impl JournalReader {
    /// Plans that wait for an approval, or have one; the newest first.
    pub async fn refused(&self) -> Result<Vec<RefusedPlan>, JournalError> {
        self.look(|view, book| view.refused(book.id)).await
    }

    /// Of how many policies a limit has refused a plan, and none is approved.
    pub async fn refused_policies(&self, now: Timestamp) -> Result<u64, JournalError> {
        self.look(move |view, book| view.refused_policies(book.id, now)).await
    }

    /// The ids and the steps of the plans of this policy that may be done.
    pub async fn approved(&self, policy: &PolicyName, now: Timestamp) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        let policy = policy.clone();
        self.look(move |view, book| view.approved(book.id, &policy, now)).await
    }
}
