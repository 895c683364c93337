//! What one user needs, in 16 bytes.

use super::{PinAction, Reason};
use crate::domain::{Credential, UserId};

/// What one user needs. The target of a move is the policy's, and so is the new end of a PIN.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Step {
    pub user: UserId,
    pub(super) policy: u16,
    pub pin: Option<PinStep>,
    pub(super) also: Also,
    /// Stored PINs that the step replaces, removes or gives another end; 255 stands for more.
    pub touched: u8,
    /// Those of them whose change our own ledger did not foresee: only these count towards limits (R23).
    pub unexpected: u8,
}

/// What is done to the PINs of one user, and why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PinStep {
    pub action: PinAction,
    pub reason: Reason,
}

// What is held for each due user between the read and his batch.
const _: () = assert!(size_of::<Step>() == 16);

/// All that is not about issuing PINs, in one byte: a first pass over a million users holds a million of these.
///
/// | bits | what | values |
/// |---|---|---|
/// | 0–1 | card assignment code | none, missing, rewritten |
/// | 2–4 | password | none, missing, rewritten, aged as foreseen, aged |
/// | 5 | moved to the policy's cost center | |
/// | 6 | the policy's role removed | |
/// | 7 | the PIN that is there already is told | |
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Also(u8);

const CODE: [Option<Reason>; 3] = [None, Some(Reason::CodeMissing), Some(Reason::CodeRewritten)];
const PASSWORD: [Option<Reason>; 5] =
    [None, Some(Reason::PasswordMissing), Some(Reason::PasswordRewritten), Some(Reason::PasswordAged), Some(Reason::PasswordAged)];
const AGED_AS_FORESEEN: u8 = 3;
const MOVES: u8 = 1 << 5;
const REMOVES_ROLE: u8 = 1 << 6;
const TELLS_EXISTING: u8 = 1 << 7;

impl Also {
    pub(super) fn of(need: &super::Need, tells_existing: bool) -> Also {
        let place = |table: &[Option<Reason>], reason: Option<Reason>| table.iter().position(|known| *known == reason).unwrap_or(0) as u8;
        let password = match need.password {
            Some(aged) if aged.reason == Reason::PasswordAged => AGED_AS_FORESEEN + u8::from(!aged.foreseen),
            other => place(&PASSWORD, other.map(|password| password.reason)),
        };
        let moves = if need.cost_center.is_some() { MOVES } else { 0 };
        let removes = if need.role.is_some() { REMOVES_ROLE } else { 0 };
        let tells = if tells_existing { TELLS_EXISTING } else { 0 };
        Also(place(&CODE, need.code) | password << 2 | moves | removes | tells)
    }

    fn password(self) -> u8 {
        self.0 >> 2 & 0b111
    }
}

impl Step {
    /// The index of the owning policy.
    pub fn policy(&self) -> usize {
        self.policy.into()
    }

    /// Why a card assignment code is issued.
    pub fn code(&self) -> Option<Reason> {
        CODE.get(usize::from(self.also.0 & 0b11)).copied().flatten()
    }

    /// Why a password is issued.
    pub fn password(&self) -> Option<Reason> {
        PASSWORD.get(usize::from(self.also.password())).copied().flatten()
    }

    /// Why the user is moved to the policy's cost center.
    pub fn cost_center(&self) -> Option<Reason> {
        (self.also.0 & MOVES != 0).then_some(Reason::CostCenterDiffers)
    }

    /// Why the policy's role is taken from the user.
    pub fn role(&self) -> Option<Reason> {
        (self.also.0 & REMOVES_ROLE != 0).then_some(Reason::RoleHeld)
    }

    /// Whether a valid PIN that is there already is told with the rest (R16).
    pub fn tells_existing(&self) -> bool {
        self.also.0 & TELLS_EXISTING != 0
    }

    /// Whether a new PIN is made.
    pub fn issues_pin(&self) -> bool {
        self.pin.is_some_and(|pin| pin.action == PinAction::Issue)
    }

    /// The kinds of credential that are made.
    pub fn issues(&self) -> impl Iterator<Item = Credential> + use<> {
        let made = [self.issues_pin(), self.code().is_some(), self.password().is_some()];
        Credential::ALL.into_iter().zip(made).filter(|(_, made)| *made).map(|(kind, _)| kind)
    }

    /// Whether there is something that the user has to be told.
    pub fn is_told(&self) -> bool {
        self.tells_existing() || self.issues().next().is_some()
    }

    /// Renewal at the moment that our own ledger wrote, and nothing else: counts towards no limit (R23).
    pub fn is_expected(&self) -> bool {
        let pin = self.pin.is_none() || (self.touched > 0 && self.unexpected == 0);
        let password = matches!(self.also.password(), 0 | AGED_AS_FORESEEN);
        let renews = self.pin.is_some() || self.password().is_some();
        renews && pin && password && self.code().is_none() && self.cost_center().is_none() && self.role().is_none()
    }

    /// Stored credentials of this kind that stop to work by this step, expected renewals left out.
    pub fn replaces(&self, kind: Credential) -> u64 {
        match kind {
            Credential::Pin => match self.pin.map(|pin| pin.action) {
                Some(PinAction::Issue | PinAction::Expire | PinAction::Delete) => self.unexpected.into(),
                Some(PinAction::Extend) | None => 0,
            },
            Credential::Code => (self.code() == Some(Reason::CodeRewritten)).into(),
            Credential::Password => {
                let replaced = matches!(self.password(), Some(Reason::PasswordRewritten | Reason::PasswordAged));
                (replaced && self.also.password() != AGED_AS_FORESEEN).into()
            }
        }
    }

    /// Whether `again`, planned under the write lock, asks for no more than this judged step did.
    pub fn covers(&self, again: &Step) -> bool {
        let action = |step: &Step| step.pin.map(|pin| pin.action);
        self.user == again.user
            && self.policy == again.policy
            && (again.pin.is_none() || action(again) == action(self))
            && (again.code().is_none() || again.code() == self.code())
            && (again.password().is_none() || again.password() == self.password())
            && (again.cost_center().is_none() || self.cost_center().is_some())
            && (again.role().is_none() || self.role().is_some())
            && Credential::ALL.into_iter().all(|kind| again.replaces(kind) <= self.replaces(kind))
            && again.touched <= self.touched
            && again.unexpected <= self.unexpected
    }

    /// Smaller is served first: who has no credential waits at a printer, who needs only a move does not notice, and what is
    /// taken away can wait.
    pub fn urgency(&self) -> u8 {
        let missing = [self.pin.map(|pin| pin.reason), self.code(), self.password()];
        if missing.iter().flatten().any(|r| matches!(r, Reason::PinMissing | Reason::CodeMissing | Reason::PasswordMissing)) {
            return 0;
        }
        match self.pin.map(|pin| pin.action) {
            Some(PinAction::Issue | PinAction::Extend) => 1,
            _ if self.is_told() => 1,
            None => 2,
            Some(PinAction::Expire | PinAction::Delete) => 3,
        }
    }

    /// Why, in codes.
    pub fn reasons(&self) -> impl Iterator<Item = Reason> + use<> {
        [self.pin.map(|pin| pin.reason), self.code(), self.password(), self.cost_center(), self.role()].into_iter().flatten()
    }
}

/// How many bytes a step takes where it is kept.
const KEPT: usize = 13;

impl Step {
    /// As it is kept until somebody approves it: of which policy it is, stands elsewhere.
    pub fn kept(steps: &[Step]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(steps.len() * KEPT);
        for step in steps {
            let place = |all: usize| all as u8 + 1;
            let action = step.pin.map_or(0, |pin| place(pin.action as usize));
            let reason = step.pin.map_or(0, |pin| place(pin.reason as usize));
            bytes.extend(step.user.0.to_be_bytes());
            bytes.extend([action, reason, step.also.0, step.touched, step.unexpected]);
        }
        bytes
    }

    /// The same steps, of `policy`; what an older version kept in another way is left out.
    pub fn from_kept(bytes: &[u8], policy: usize) -> Vec<Step> {
        let (Ok(policy), (kept, [])) = (u16::try_from(policy), bytes.as_chunks::<KEPT>()) else { return Vec::new() };
        let step = |[user @ .., action, reason, also, touched, unexpected]: &[u8; KEPT]| {
            let user = UserId(i64::from_be_bytes(*user));
            let pin = match (action.checked_sub(1), reason.checked_sub(1)) {
                (None, None) => None,
                (Some(action), Some(reason)) => {
                    Some(PinStep { action: *PinAction::ALL.get(usize::from(action))?, reason: *Reason::ALL.get(usize::from(reason))? })
                }
                _ => return None,
            };
            Some(Step { user, policy, pin, also: Also(*also), touched: *touched, unexpected: *unexpected })
        };
        kept.iter().filter_map(step).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_as_it_was() {
        let pin = Some(PinStep { action: PinAction::Expire, reason: Reason::PolicyLeft });
        let steps = [
            Step { user: UserId(1), policy: 3, pin, also: Also::default(), touched: 2, unexpected: 1 },
            Step { user: UserId(i64::MAX), policy: 3, pin: None, also: Also(MOVES | 1), touched: 0, unexpected: 0 },
        ];
        let kept = Step::kept(&steps);
        assert_eq!((kept.len(), Step::from_kept(&kept, 3)), (2 * KEPT, steps.to_vec()));
        assert!(Step::from_kept(&kept[1..], 3).is_empty(), "cut off");
    }
}
