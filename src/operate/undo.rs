//! `undo`, `journal take-back` and `revoke`: what was issued is taken back, and its users are on hold.

use std::collections::BTreeMap;

use tracing::info;

use super::perform::Work;
use super::{OperateError, find};
use crate::cli::ExitStatus;
use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::domain::{IssuanceId, PolicyName, UserId, printable};
use crate::journal::{Because, JournalReader, State, Undo, UndoOf};
use crate::mint;
use crate::plan::back::Left;
use crate::policy::Needs;
use crate::reconcile::take_back::{TakeBack, Taken};
use crate::store::Store;

/// How many users are named of each kind.
const NAMED: usize = 20;

/// Takes back a pass, or one issuance.
pub(super) async fn undo(work: &Work<'_>, of: UndoOf) -> Result<(String, ExitStatus), OperateError> {
    let (undos, lost) = work.journal.reader().undoable(of.clone()).await?;
    if undos.is_empty() {
        return Err(nothing(&of, lost));
    }
    let database = reading_all(work.database, &undos);
    let store = Store::connect(&database).await?;
    let pass = mint::pass_id();
    let stop = || false;
    let taking = TakeBack {
        store: &store,
        lead: work.lead()?,
        journal: work.journal,
        config: work.config,
        database: &database,
        stop: &stop,
        pass: pass.clone(),
        utc: clock::now(),
    };
    let total = undos.len();
    let mut outcome = Outcome::default();
    let ended = taking.run(undos, &of.because(), &mut |undo, taken| outcome.hears(undo, taken)).await;
    let said = outcome.told(&of, total, lost);
    let status = if outcome.is_whole() && lost == 0 { ExitStatus::Done } else { ExitStatus::Partial };
    if let Err(e) = ended {
        info!("{}", said.trim_end());
        return Err(OperateError::Unfinished { said, source: Box::new(e) });
    }
    info!(pass.id = %pass, "{}", said.trim_end());
    Ok((said, status))
}

/// What a take-back would be about; changes nothing.
pub(super) async fn preview(
    config: &Config,
    database: &DatabaseConfig,
    reader: &JournalReader,
    of: UndoOf,
) -> Result<String, OperateError> {
    let (undos, lost) = reader.undoable(of.clone()).await?;
    if undos.is_empty() {
        return Err(nothing(&of, lost));
    }
    let mut policies: BTreeMap<&PolicyName, u64> = BTreeMap::new();
    let mut states: BTreeMap<State, u64> = BTreeMap::new();
    for undo in &undos {
        *policies.entry(&undo.policy).or_default() += 1;
        *states.entry(undo.state).or_default() += 1;
    }
    let place = if config.has_several() { format!(" in database {}", printable(&database.name)) } else { String::new() };
    let mut said =
        format!("{} users would be taken back{place}, each as far as what was written still stands, and put on hold:\n", undos.len());
    policies.iter().for_each(|(policy, n)| said.push_str(&format!("  policy {}: {n}\n", printable(&policy.0))));
    states.iter().for_each(|(state, n)| said.push_str(&format!("  {state}: {n}\n")));
    undos.iter().take(NAMED).for_each(|undo| said.push_str(&format!("  user {} “{}”\n", undo.user, printable(&undo.login))));
    if undos.len() > NAMED {
        said.push_str(&format!("  … and {} more\n", undos.len() - NAMED));
    }
    said.push_str(&beyond(lost));
    Ok(said)
}

/// The user's PINs stop to work, whoever made them, and so do a code and a password where policies give these; nothing comes in
/// their place.
pub(super) async fn revoke(work: &Work<'_>, login: &str) -> Result<(String, ExitStatus), OperateError> {
    let user = find(work.store.reader(), login).await?;
    let facts = work.journal.reader().facts(vec![user.clone()]).await?.remove(0).1;
    let now = clock::now();
    // First of all nothing more comes, whatever happens after.
    work.journal.hold(user.id, login, "revoked by an operator", now).await?;
    let history = work.journal.reader().user_history(user.id, NAMED).await?;
    let waiting: Vec<IssuanceId> = history.iter().filter(|row| row.state == State::Committed).map(|row| row.issuance).collect();
    work.journal.withhold(waiting.clone(), now).await?;
    let whole = Undo::whole(user.id, login, facts.keeper.unwrap_or(PolicyName(String::new())));
    let stop = || false;
    let taking = TakeBack {
        store: work.store,
        lead: work.lead()?,
        journal: work.journal,
        config: work.config,
        database: work.database,
        stop: &stop,
        pass: mint::pass_id(),
        utc: now,
    };
    let mut outcome = Outcome::default();
    taking.run(vec![whole], &Because::Revoked, &mut |undo, taken| outcome.hears(undo, taken)).await?;
    work.journal.gone(waiting, now).await?;
    let (id, name) = (user.id, printable(login));
    let (how, status) = match (outcome.back, outcome.gone.len(), outcome.failed.first()) {
        (1, ..) => (revoked(work.database.needs), ExitStatus::Done),
        (_, 1, _) => ("has no credential that could be taken away".to_owned(), ExitStatus::Done),
        (.., Some((_, why))) => (format!("still has the credentials, and the database says why: {why}"), ExitStatus::Failed),
        _ => ("was changed by somebody else in this moment: ask again".to_owned(), ExitStatus::Partial),
    };
    let said = format!("User {id} “{name}” {how}. The user is on hold until `credkeeper release` ends that.\n");
    info!(user.id = %id, "{}", said.trim_end());
    Ok((said, status))
}

fn revoked(needs: Needs) -> String {
    let kinds = [(true, "PIN"), (needs.codes, "card assignment code"), (needs.passwords, "password")];
    let kinds: Vec<&str> = kinds.iter().filter(|(asked, _)| *asked).map(|(_, kind)| *kind).collect();
    format!("has no {} any more", kinds.join(", no "))
}

fn nothing(of: &UndoOf, lost: u64) -> OperateError {
    let what = match of {
        UndoOf::Pass(pass) => format!("pass {}", printable(&pass.0)),
        UndoOf::One(issuance) => format!("issuance {issuance}"),
        UndoOf::Undeliverable => "what could not be delivered".to_owned(),
    };
    OperateError::NothingToTakeBack { what, lost }
}

fn beyond(lost: u64) -> String {
    match lost {
        0 => String::new(),
        n => format!("{n} cannot be taken back any more: what stood before is kept for journal.undo_for.\n"),
    }
}

/// The same database, read and written as the issuances need it, whatever the policies ask for by now.
fn reading_all(database: &DatabaseConfig, undos: &[Undo]) -> DatabaseConfig {
    let any = |of: fn(&Undo) -> bool| undos.iter().any(of);
    let mut database = with_needs(
        database,
        any(|undo| undo.past.code.is_some()),
        any(|undo| undo.past.password.is_some()),
        any(|undo| undo.past.role.is_some()),
    );
    if any(|undo| undo.past.moved.is_some()) {
        database.needs = Needs { cost_centers: true, moves: true, ..database.needs };
    }
    database
}

fn with_needs(database: &DatabaseConfig, codes: bool, passwords: bool, roles: bool) -> DatabaseConfig {
    let mut database = database.clone();
    let needs = database.needs;
    database.needs = Needs {
        codes: needs.codes || (codes && database.map.users.puk.is_some()),
        passwords: needs.passwords || (passwords && database.map.users.password.is_some()),
        roles: needs.roles || roles,
        role_removals: needs.role_removals || roles,
        ..needs
    };
    database
}

/// What became of all.
#[derive(Default)]
struct Outcome {
    back: usize,
    left: BTreeMap<Left, Vec<Named>>,
    gone: Vec<Named>,
    open: Vec<Named>,
    changed: Vec<Named>,
    failed: Vec<(Named, String)>,
}

type Named = (UserId, String);

impl Outcome {
    fn hears(&mut self, undo: &Undo, taken: &Taken) {
        let named = || (undo.user, undo.login.clone());
        match taken {
            Taken::Back { left, .. } => {
                self.back += 1;
                left.iter().for_each(|left| self.left.entry(*left).or_default().push(named()));
            }
            Taken::Gone(_) => self.gone.push(named()),
            Taken::Open => self.open.push(named()),
            Taken::ChangedMeanwhile => self.changed.push(named()),
            Taken::Failed(why) => self.failed.push((named(), why.clone())),
        }
    }

    fn is_whole(&self) -> bool {
        self.open.is_empty() && self.changed.is_empty() && self.failed.is_empty()
    }

    fn told(&self, of: &UndoOf, total: usize, lost: u64) -> String {
        let mut said = format!("{} of {total} are taken back, and on hold.\n", self.back);
        let mut list = |what: &str, users: &[Named]| {
            if !users.is_empty() {
                said.push_str(&format!("{}: {what}:\n", users.len()));
                users.iter().take(NAMED).for_each(|(id, login)| said.push_str(&format!("  user {id} “{}”\n", printable(login))));
                if users.len() > NAMED {
                    said.push_str(&format!("  … and {} more\n", users.len() - NAMED));
                }
            }
        };
        self.left.iter().for_each(|(left, users)| list(left.sentence(), users));
        list("nothing of what was written stands any more", &self.gone);
        list("a later change of the user is still to be mailed; ask again after that", &self.open);
        list("the rows were changed in this moment; ask again", &self.changed);
        self.failed.iter().take(NAMED).for_each(|((id, login), why)| {
            said.push_str(&format!("Not taken back: user {id} “{}”: {why}\n", printable(login)));
        });
        said.push_str(&beyond(lost));
        if let (UndoOf::Pass(pass), true) = (of, self.back > 0) {
            said.push_str(&format!(
                "No pass issues to them until they are released: `credkeeper release --pass {pass}`, when the policy is right.\n"
            ));
        }
        said
    }
}
