//! What is slow is made for a batch before its transaction is opened, so that no lock is held meanwhile (I6): codes drawn,
//! encrypted and looked up, passwords drawn and hashed, existing PINs recovered. What turns out not to be needed is wiped.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use super::{PassError, Watch};
use crate::config::DatabaseConfig;
use crate::domain::{Code, CodeCipher, Password, PasswordEncoding, Pin, StoredValue, UserId};
use crate::logging::chain;
use crate::mint::{Mint, MintError, cipher, code, cores, password, recovery};
use crate::plan::{Failure, Step};
use crate::policy::Policy;
use crate::store::{DueFilter, Filter, Reader, StoreError};

/// Draws for one code before none counts as free; from this one on, every stored code is known.
const ROUNDS: usize = 20;
const LEARN_AT: usize = 3;
/// bcrypt takes a quarter of a second for each password: so many for each core are a batch, which shows progress, lets those
/// who are done be told, and ends soon when the daemon is stopped.
const HASHES_A_CORE: usize = 16;
/// The same of codes that a program encrypts, one process each.
const PROCESSES_A_CORE: usize = 32;
/// How often it is asked whether to stop.
const ASK: Duration = Duration::from_millis(100);

/// What a batch needs beside PINs.
#[derive(Default)]
pub(super) struct Made {
    pub codes: HashMap<UserId, (Code, StoredValue)>,
    pub passwords: HashMap<UserId, (Password, StoredValue)>,
    /// PINs that exist, by their stored form.
    pub existing: HashMap<StoredValue, Pin>,
    /// For whom it could not be made, and why.
    pub failed: Vec<(Step, Failure, String)>,
}

impl Made {
    /// Whether it holds all that the step needs.
    pub(super) fn serves(&self, step: &Step) -> bool {
        (step.code().is_none() || self.codes.contains_key(&step.user))
            && (step.password().is_none() || self.passwords.contains_key(&step.user))
    }
}

pub(super) struct Making<'a> {
    pub reader: &'a Reader,
    pub database: &'a DatabaseConfig,
    pub watch: &'a Watch<'a>,
}

/// How many of `steps` are a batch, of `batch_size` at most.
pub(super) fn batch_size(steps: &[Step], database: &DatabaseConfig, batch_size: usize) -> usize {
    let slow = matches!(database.password_encoding, PasswordEncoding::Bcrypt { .. });
    let hashed = slow && steps.iter().any(|step| step.password().is_some());
    let run = matches!(database.cac_cipher, Some(CodeCipher::Command(_))) && steps.iter().any(|step| step.code().is_some());
    let most = |a_core: usize, holds: bool| if holds { a_core * cores::cores() } else { usize::MAX };
    batch_size.min(most(HASHES_A_CORE, hashed)).min(most(PROCESSES_A_CORE, run))
}

impl Making<'_> {
    pub(super) async fn make(&self, steps: &[Step], mint: &mut Mint) -> Result<Made, PassError> {
        let mut made = Made::default();
        self.codes(steps, mint, &mut made).await?;
        self.passwords(steps, &mut made).await?;
        self.existing(steps, &mut made).await?;
        Ok(made)
    }

    fn policy(&self, step: &Step) -> &Policy {
        &self.database.policies[step.policy()]
    }

    async fn codes(&self, steps: &[Step], mint: &mut Mint, made: &mut Made) -> Result<(), PassError> {
        let mut open: Vec<Step> = steps.iter().filter(|step| step.code().is_some()).copied().collect();
        let Some(cipher) = self.database.cac_cipher.as_ref().filter(|_| !open.is_empty()) else { return Ok(()) };
        // Where the same code is stored differently each time, no look finds it: all codes are read instead.
        let looks = !matches!(cipher, CodeCipher::BuiltIn(built_in) if !built_in.is_deterministic());
        if !looks {
            self.learn(cipher, mint).await?;
        }
        for round in 0..ROUNDS {
            if open.is_empty() {
                return Ok(());
            }
            if round == LEARN_AT {
                self.learn(cipher, mint).await?;
            }
            let (mut asked, mut drawn) = (Vec::with_capacity(open.len()), Vec::with_capacity(open.len()));
            for step in open.drain(..) {
                let Some(rule) = self.policy(&step).code else { continue };
                match mint.codes.draw(rule.length) {
                    Ok(code) => {
                        asked.push(step);
                        drawn.push(code);
                    }
                    Err(error @ code::CodeError::Crowded { .. }) => made.failed.push((step, Failure::NoFreeCode, error.to_string())),
                    Err(code::CodeError::Random(error)) => return Err(MintError::Random(error).into()),
                }
            }
            // Dropping it ends the programs that it runs.
            let encrypted = tokio::select! {
                encrypted = cipher::encrypt_all(cipher, &drawn) => encrypted,
                () = self.stopped() => return Err(PassError::Stopped),
            };
            let mut ready = Vec::with_capacity(asked.len());
            for ((step, code), stored) in asked.into_iter().zip(drawn).zip(encrypted) {
                match stored {
                    Ok(stored) => ready.push((step, code, stored)),
                    Err(error) => made.failed.push((step, Failure::CipherFailed, chain(&error))),
                }
            }
            let taken = if looks {
                let values: Vec<StoredValue> = ready.iter().map(|(.., stored)| stored.clone()).collect();
                self.reader.codes_taken(&values).await?
            } else {
                vec![false; ready.len()]
            };
            for ((step, code, stored), taken) in ready.into_iter().zip(taken) {
                if taken {
                    open.push(step);
                } else {
                    made.codes.insert(step.user, (code, stored));
                }
            }
        }
        made.failed.extend(open.into_iter().map(|step| (step, Failure::NoFreeCode, Failure::NoFreeCode.sentence().to_owned())));
        Ok(())
    }

    async fn stopped(&self) {
        while !(self.watch.stop)() {
            sleep(ASK).await;
        }
    }

    /// Reads all stored codes, once a pass, so that none of them is drawn.
    async fn learn(&self, cipher: &CodeCipher, mint: &mut Mint) -> Result<(), PassError> {
        let CodeCipher::BuiltIn(cipher) = cipher else { return Ok(()) }; // a command only encrypts
        if std::mem::replace(&mut mint.knows_codes, true) {
            return Ok(());
        }
        let mut stored = self.reader.codes();
        while let Some(chunk) = stored.next().await {
            chunk?.iter().filter_map(|value| cipher.decrypt(value)).for_each(|code| mint.codes.avoid(code));
        }
        Ok(())
    }

    async fn passwords(&self, steps: &[Step], made: &mut Made) -> Result<(), PassError> {
        let (mut users, mut drawn) = (Vec::new(), Vec::new());
        for step in steps.iter().filter(|step| step.password().is_some()) {
            if let Some(rule) = &self.policy(step).password {
                users.push(step.user);
                drawn.push(password::draw(rule.length, &rule.alphabet).map_err(MintError::Random)?);
            }
        }
        if users.is_empty() {
            return Ok(());
        }
        let (encoding, hashed) = (self.database.password_encoding, drawn.clone());
        let stored = match self.on_all_cores(move |go_on| password::encode_all(encoding, &hashed, go_on)).await? {
            Ok(stored) => stored,
            Err(password::HashError::Stopped) => return Err(PassError::Stopped),
            Err(error) => return Err(MintError::Password(error).into()),
        };
        made.passwords = users.into_iter().zip(drawn.into_iter().zip(stored)).collect();
        Ok(())
    }

    /// Recovers the PINs that are to be told though they are not new, all in one pass over their digits (R16).
    async fn existing(&self, steps: &[Step], made: &mut Made) -> Result<(), PassError> {
        let told = || steps.iter().filter(|step| step.tells_existing());
        let users: BTreeSet<UserId> = told().map(|step| step.user).collect();
        if users.is_empty() {
            return Ok(());
        }
        let lengths = recovery::lengths(told().filter_map(|step| self.policy(step).pin.as_ref()).map(|rule| rule.length));
        let due = DueFilter { users: users.into_iter().collect(), ..DueFilter::default() };
        let filter = Filter { due: Some(due), ..Filter::default() };
        let mut stored: Vec<StoredValue> = Vec::new();
        let mut found = self.reader.read(&filter);
        while let Some(chunk) = found.next().await {
            stored.extend(chunk?.into_iter().flat_map(|user| user.pins).map(|pin| pin.value));
        }
        drop(found);
        let (format, values) = (self.database.pin_format, stored.clone());
        let Ok(pins) = self.on_all_cores(move |go_on| recovery::recover(format, &values, &lengths, go_on)).await? else {
            return Err(PassError::Stopped);
        };
        let unknown = pins.iter().filter(|pin| pin.is_none()).count();
        if unknown > 0 {
            warn!(
                pins = unknown,
                "{unknown} existing PINs cannot be recovered from their stored form, and are not told: they have neither as many digits as the policy asks for, nor up to {}",
                recovery::SHORT
            );
        }
        made.existing = stored.into_iter().zip(pins).filter_map(|(stored, pin)| Some((stored, pin?))).collect();
        Ok(())
    }

    /// Does what takes long where blocking is allowed. It is told to stop when the pass is.
    async fn on_all_cores<T: Send + 'static>(&self, work: impl FnOnce(cores::Watch<'_>) -> T + Send + 'static) -> Result<T, StoreError> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let go_on = move |_| if asked.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let mut working = spawn_blocking(move || work(&go_on));
        loop {
            tokio::select! {
                ended = &mut working => return ended.map_err(|_| StoreError::Task),
                () = sleep(ASK) => stop.store((self.watch.stop)(), Ordering::Relaxed),
            }
        }
    }
}
