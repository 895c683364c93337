//! How an issuance is taken back: all that it changed becomes as it was, each only where what we wrote still stands. What was
//! changed meanwhile stays, and is named.

use super::codes;
use crate::domain::{CostCenter, StoredValue};
use crate::inventory::{Back, Membership, Past, PastPins, PastValue, Returned, StoredPin, User};

codes!(
    /// What of an issuance stays, because it is no longer ours to take back.
    Left {
        PinChanged = "pin_changed", "the PIN that was issued is not there any more";
        OtherPin = "other_pin", "the user has another PIN by now, so that the old one does not come back";
        OldPinTaken = "old_pin_taken", "another user has the old PIN by now, so that it does not come back";
        EndChanged = "end_changed", "the end of the PIN was changed since";
        CodeChanged = "code_changed", "the card assignment code was changed since";
        OldCodeTaken = "old_code_taken", "another user has the old card assignment code by now, so that it does not come back";
        PasswordChanged = "password_changed", "the password was changed since";
        Moved = "moved", "the user was moved since";
        RoleStays = "role_stays", "the role that was taken away does not come back: the user has it again, or it may not be given";
    }
);

/// How a user is taken back, and what stays.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Return {
    pub back: Back,
    pub left: Vec<Left>,
}

/// Of a user as he stands now.
pub fn back(past: &Past, user: &User) -> Return {
    let mut made = Return::default();
    let (ours, others): (Vec<_>, Vec<_>) =
        user.pins.iter().zip(past.ours.iter().copied().chain(std::iter::repeat(false))).partition(|(_, ours)| *ours);
    let ours: Vec<&StoredPin> = ours.into_iter().map(|(pin, _)| pin).collect();
    match &past.pins {
        PastPins::Untouched => {}
        PastPins::Issued { .. } if ours.is_empty() => made.left.push(Left::PinChanged),
        PastPins::Issued { replaced } => {
            made.back.gone = ours.into_iter().cloned().collect();
            made.restore(replaced, others.is_empty());
        }
        PastPins::Deleted { pins } => made.restore(pins, user.pins.is_empty()),
        PastPins::Ended { pins, to } => {
            for before in pins {
                match ours.iter().find(|pin| pin.value == before.value && pin.expires == *to) {
                    Some(pin) => made.back.ended.push(((*pin).clone(), before.expires)),
                    None => made.leave(Left::EndChanged),
                }
            }
        }
    }
    made.back.code = made.value(past.code.as_ref(), user.code.as_ref(), Left::CodeChanged);
    made.back.password = made.value(past.password.as_ref(), user.password.as_ref().map(|password| &password.value), Left::PasswordChanged);
    match &past.moved {
        None => {}
        // Of several at once only the smallest is known.
        Some((from, to)) if user.cost_center == (Membership { id: to.id, number: to.number }) && from.number != Membership::SEVERAL => {
            let there = CostCenter { id: from.id, number: from.number, name: String::new() };
            made.back.moved = Some((user.cost_center, there));
        }
        Some(_) => made.left.push(Left::Moved),
    }
    match &past.role {
        None => {}
        Some(role) if !user.roles.contains(&role.id) => made.back.role = Some(role.clone()),
        Some(_) => made.left.push(Left::RoleStays),
    }
    made
}

/// All that the user has goes, whoever made it, and nothing comes in its place.
pub fn all(user: &User) -> Return {
    let gone = |was: &StoredValue| Returned { was: was.clone(), is: None };
    let back = Back {
        gone: user.pins.clone(),
        code: user.code.as_ref().map(gone),
        password: user.password.as_ref().map(|password| gone(&password.value)),
        ..Back::default()
    };
    Return { back, left: Vec::new() }
}

impl Return {
    /// A user who has a PIN of somebody else's making keeps that one alone.
    fn restore(&mut self, pins: &[StoredPin], alone: bool) {
        if alone {
            self.back.came = pins.to_vec();
        } else if !pins.is_empty() {
            self.left.push(Left::OtherPin);
        }
    }

    fn value(&mut self, past: Option<&PastValue>, now: Option<&StoredValue>, changed: Left) -> Option<Returned> {
        let past = past?;
        match now.filter(|_| past.stands) {
            Some(now) => Some(Returned { was: now.clone(), is: past.replaced.clone() }),
            None => {
                self.left.push(changed);
                None
            }
        }
    }

    /// Said once.
    pub fn leave(&mut self, what: Left) {
        if !self.left.contains(&what) {
            self.left.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CostCenterId, Role, RoleId, UserId, WallClock};
    use crate::inventory::{Standing, StoredPassword};

    fn pin(value: &str, end: Option<i64>) -> StoredPin {
        StoredPin::found(StoredValue::new(value.to_owned()), end.map(WallClock))
    }

    fn value(text: &str) -> StoredValue {
        StoredValue::new(text.to_owned())
    }

    fn user(pins: &[StoredPin]) -> User {
        User {
            id: UserId(1),
            login: "a".to_owned(),
            email: String::new(),
            name: String::new(),
            surname: String::new(),
            standing: Standing::Active,
            cost_center: Membership { id: CostCenterId(6), number: 60 },
            roles: Vec::new(),
            source: None,
            pins: pins.to_vec(),
            cards: 0,
            code: None,
            password: None,
        }
    }

    fn only(back: Back) -> Return {
        Return { back, left: Vec::new() }
    }

    fn issued(replaced: &[StoredPin], ours: &[bool]) -> Past {
        Past { pins: PastPins::Issued { replaced: replaced.to_vec() }, ours: ours.to_vec(), ..Past::default() }
    }

    #[test]
    fn pins_go_and_come_back() {
        let (ours, old, theirs) = (pin("ours", Some(9)), pin("old", Some(1)), pin("theirs", None));
        let of = |past: &Past, pins: &[StoredPin]| back(past, &user(pins));
        let first = of(&issued(&[], &[true]), std::slice::from_ref(&ours));
        assert_eq!(first, only(Back { gone: vec![ours.clone()], ..Back::default() }), "who had none has none again");
        let second = of(&issued(std::slice::from_ref(&old), &[true]), std::slice::from_ref(&ours));
        assert_eq!(second, only(Back { gone: vec![ours.clone()], came: vec![old.clone()], ..Back::default() }));
        let beside = of(&issued(std::slice::from_ref(&old), &[true, false]), &[ours.clone(), theirs.clone()]);
        assert_eq!(beside, Return { left: vec![Left::OtherPin], ..only(Back { gone: vec![ours.clone()], ..Back::default() }) });
        let gone = of(&issued(std::slice::from_ref(&old), &[false]), std::slice::from_ref(&theirs));
        assert!(gone.back.is_nothing() && gone.left == [Left::PinChanged], "{gone:?}");

        let deleted = Past { pins: PastPins::Deleted { pins: vec![old.clone()] }, ..Past::default() };
        assert_eq!(of(&deleted, &[]), only(Back { came: vec![old.clone()], ..Back::default() }));
        assert_eq!(of(&deleted, &[theirs]).left, [Left::OtherPin]);

        let ended =
            |ours| Past { pins: PastPins::Ended { pins: vec![pin("ours", None)], to: Some(WallClock(9)) }, ours, ..Past::default() };
        assert_eq!(of(&ended(vec![true]), std::slice::from_ref(&ours)).back.ended, [(ours, None)]);
        assert_eq!(of(&ended(vec![true]), &[pin("ours", Some(10))]).left, [Left::EndChanged]);
    }

    #[test]
    fn values_places_and_roles_come_back_where_ours_stand() {
        let visitor = Role { id: RoleId(31), name: "Visitor".to_owned() };
        let there = CostCenter { id: CostCenterId(6), number: 60, name: "Has PIN".to_owned() };
        let from = Membership { id: CostCenterId(5), number: 50 };
        let past = Past {
            code: Some(PastValue { replaced: None, stands: true }),
            password: Some(PastValue { replaced: Some(value("old")), stands: true }),
            moved: Some((from, there)),
            role: Some(visitor.clone()),
            ..Past::default()
        };
        let mut now = user(&[]);
        now.code = Some(value("code"));
        now.password = Some(StoredPassword::found(value("new")));
        let Return { back: all, left } = back(&past, &now);
        assert_eq!(all.code, Some(Returned { was: value("code"), is: None }));
        assert_eq!(all.password, Some(Returned { was: value("new"), is: Some(value("old")) }));
        assert_eq!(all.moved.as_ref().map(|(at, to)| (*at, to.id, to.number)), Some((now.cost_center, from.id, 50)));
        assert_eq!((all.role, left), (Some(visitor), vec![]));

        now.roles = vec![RoleId(31)];
        now.cost_center = from;
        let changed = Past {
            code: Some(PastValue { replaced: None, stands: false }),
            password: Some(PastValue { replaced: None, stands: false }),
            ..past
        };
        let none = back(&changed, &now);
        assert!(none.back.is_nothing(), "{none:?}");
        assert_eq!(none.left, [Left::CodeChanged, Left::PasswordChanged, Left::Moved, Left::RoleStays]);
    }
}
