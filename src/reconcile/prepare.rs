//! From a step to what will be written, journaled and told of one user.

use crate::config::schema_map::{ExpiresKind, ExpiresMap};
use crate::config::{Config, DatabaseConfig};
use crate::domain::{CostCenter, Credential, Each, PinFormat, Timestamp, WallClock};
use crate::inventory::{StoredPin, User};
use crate::journal::{Again, Announcement, ExistingPin, IssuedCode, IssuedPassword, IssuedPin, Lane, NewIssuance, PinWritten};
use crate::mint::{self, Mint, MintError};
use crate::plan::{PinAction, Planner, Step, rules};
use crate::policy::{PinRule, Policy};
use crate::store::{Move, NewPin, PinChange, PinTarget, RoleChange, UserChange, ValueChange};

use super::making::Made;

const DAY: i64 = 86_400;

/// A user with all that will be written, journaled and told of him.
pub(super) struct Staged {
    pub step: Step,
    pub user: User,
    pub change: UserChange,
    pub issuance: NewIssuance,
}

/// What is the same for all users of a batch.
pub(super) struct Preparing<'a> {
    pub config: &'a Config,
    pub database: &'a DatabaseConfig,
    pub planner: Planner<'a>,
    pub utc: Timestamp,
    pub lane: Lane,
}

impl Preparing<'_> {
    /// # Errors
    /// When no PIN can be drawn.
    pub(super) fn stage(&self, step: Step, user: User, mint: &mut Mint, made: &mut Made) -> Result<Staged, MintError> {
        let policy = &self.database.policies[step.policy()];
        let target = step.cost_center().and_then(|_| self.planner.target(step.policy(), &user));
        let (change, written) = match (step.pin, &policy.pin) {
            (Some(pin), Some(rule)) => self.pins(pin.action, &step, rule, &user, mint).map(Option::unzip)?,
            _ => (None, None),
        };
        let code = step.code().and_then(|_| made.codes.remove(&user.id));
        let password = step.password().and_then(|_| made.passwords.remove(&user.id));
        let code = code.map(|(code, stored)| IssuedCode { code, stored, replaced: user.code.clone() });
        let replaced = user.password.as_ref().map(|password| password.value.clone());
        let password = password.map(|(password, stored)| IssuedPassword { password, stored, replaced });
        let change = UserChange {
            user: user.id,
            pin: change,
            code: code.as_ref().map(|code| ValueChange { old: code.replaced.clone(), new: Some(code.stored.clone()) }),
            password: password.as_ref().map(|password| ValueChange { old: password.replaced.clone(), new: Some(password.stored.clone()) }),
            cost_center: target.map(|to| Move { from: user.cost_center, to: to.clone() }),
            role: step.role().and_then(|_| self.planner.removed_role(step.policy())).cloned().map(RoleChange::Remove),
        };
        let existing = step.tells_existing().then(|| self.existing(&step, &user, made)).flatten();
        // Where the PIN could not be recovered, there may be nothing to tell.
        let is_told = existing.is_some() || step.issues().next().is_some();
        let announcement = is_told.then(|| announcement(self.config, &self.planner, policy, &user, target)).flatten();
        let mut replaced_unexpected = Each::default();
        Credential::ALL.into_iter().for_each(|kind| replaced_unexpected[kind] = step.replaces(kind));
        let issuance = NewIssuance {
            user: user.id,
            login: user.login.clone(),
            policy: policy.name.clone(),
            pin: written,
            code,
            password,
            existing,
            again: Again::default(),
            moved: change.cost_center.as_ref().map(|m| (m.from, m.to.clone())),
            takes_back: None,
            role_removed: change.role.as_ref().map(|change| change.role().clone()),
            replaced_unexpected,
            quarantine: policy.pin.as_ref().map(|rule| rule.quarantine).unwrap_or_default(),
            announcement,
            due_since: self.utc,
            lane: self.lane,
        };
        Ok(Staged { step, user, change, issuance })
    }

    /// `None`: what the step was about is not there any more.
    fn pins(
        &self,
        action: PinAction,
        step: &Step,
        rule: &PinRule,
        user: &User,
        mint: &mut Mint,
    ) -> Result<Option<(PinChange, PinWritten)>, MintError> {
        let pins: Vec<StoredPin> = self.planner.touched(step, user).into_iter().cloned().collect();
        let end = |at, written: fn(Vec<StoredPin>, WallClock) -> PinWritten| {
            Some((PinTarget::End { pins: pins.clone(), at: Some(at) }, written(pins.clone(), at)))
        };
        let both = match action {
            PinAction::Issue => {
                let (new, issued) = self.new_pin(step, rule, user, mint)?;
                Some((PinTarget::New(new), PinWritten::Issued(issued)))
            }
            PinAction::Extend => self.end(step, user).and_then(|at| end(at, |pins, to| PinWritten::Extended { pins, to })),
            PinAction::Expire => {
                let at = ended(&self.database.map.cards.expires, self.planner.now().wall);
                end(at, |pins, to| PinWritten::Expired { pins, to })
            }
            PinAction::Delete => Some((PinTarget::Gone { pins: pins.clone() }, PinWritten::Deleted { pins: pins.clone() })),
        };
        Ok(both.map(|(to, written)| (PinChange { old: user.pins.clone(), to }, written)))
    }

    /// The end that the policy gives, as the column will hold it: what the journal keeps is compared with that later.
    fn end(&self, step: &Step, user: &User) -> Option<WallClock> {
        let at = self.planner.expiry(step.policy(), user)?;
        Some(match self.database.map.cards.expires.kind {
            ExpiresKind::Date => WallClock(at.0.saturating_add(DAY - 1).div_euclid(DAY) * DAY),
            _ => at,
        })
    }

    fn new_pin(&self, step: &Step, rule: &PinRule, user: &User, mint: &mut Mint) -> Result<(NewPin, IssuedPin), MintError> {
        let pin = mint.pin(rule)?;
        let expires = self.end(step, user);
        let value = self.database.pin_format.encode(&pin);
        let new = NewPin { value: value.clone(), forms: PinFormat::every_form(&pin), expires };
        Ok((new, IssuedPin { pin, stored: value, expires, replaced: user.pins.clone() }))
    }

    /// Of the user's valid PINs the one that lasts longest, with the end that it has once the step is done.
    fn existing(&self, step: &Step, user: &User, made: &Made) -> Option<ExistingPin> {
        let touched = self.planner.touched(step, user);
        let after = |pin: &StoredPin| if touched.contains(&pin) { self.end(step, user) } else { pin.expires };
        let valid = |end: Option<WallClock>| end.is_none_or(|end| end > self.planner.now().wall);
        let standing = user.pins.iter().map(|pin| (pin, after(pin))).filter(|(_, end)| valid(*end));
        let known = standing.filter_map(|(pin, end)| Some((pin, end, made.existing.get(&pin.value)?)));
        let (pin, expires, digits) = known.max_by_key(|(_, end, _)| (end.is_none(), *end))?;
        Some(ExistingPin { pin: digits.clone(), stored: pin.value.clone(), expires })
    }

    /// Another PIN in place of one that cannot be used.
    ///
    /// # Errors
    /// When no PIN can be drawn.
    pub(super) fn redraw(&self, staged: &mut Staged, mint: &mut Mint) -> Result<(), MintError> {
        let Staged { step, user, change, issuance } = staged;
        if let (Some(rule), Some(change)) = (&self.database.policies[step.policy()].pin, &mut change.pin) {
            let (new, issued) = self.new_pin(step, rule, user, mint)?;
            change.to = PinTarget::New(new);
            issuance.pin = Some(PinWritten::Issued(issued));
        }
        Ok(())
    }
}

/// Who is told, and all that the mail may say of the user, who is at `target` or where he was. `None`: nobody is told, or there
/// is no address to tell.
pub fn announcement(
    config: &Config,
    planner: &Planner<'_>,
    policy: &Policy,
    user: &User,
    target: Option<&CostCenter>,
) -> Option<Announcement> {
    let recipient = rules::recipient(policy, user).ok().flatten()?;
    let sender = config.mail.from.as_ref()?;
    let place = target.or_else(|| planner.place_of(user));
    Some(Announcement {
        recipient,
        template: policy.notify.template.clone()?,
        message_id: mint::message_id(&sender.address),
        username: user.login.clone(),
        name: user.name.clone(),
        surname: user.surname.clone(),
        email: user.email.clone(),
        cost_center: place.map(|place| place.name.clone()),
        cost_center_number: place.map(|place| place.number).or_else(|| planner.number_of(user)),
    })
}

/// The end of a PIN that ends now. A date is written rounded up, so that a PIN lives at least as long as was promised: here
/// the day has to have begun already.
fn ended(column: &ExpiresMap, now: WallClock) -> WallClock {
    match column.kind {
        ExpiresKind::Date => WallClock(now.0 - now.0.rem_euclid(DAY)),
        _ => now,
    }
}
