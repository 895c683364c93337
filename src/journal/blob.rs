//! What the journal seals, and how: two values a row, JSON inside, each bound to its row and user.

use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use super::book::Book;
use super::error::JournalError;
use super::{Again, Announcement, ExistingPin, NewIssuance, TakesBack};
use crate::domain::pin::digest_of;
use crate::domain::{
    Code, CostCenter, CostCenterId, IssuanceId, Key, Mailbox, Password, Pin, Role, RoleId, StoredValue, UserId, WallClock,
};
use crate::inventory::{Membership, StoredPin};
use crate::seal::{Fingerprints, SealError, Sealer, derive};

/// The journal's keys at work.
pub(super) struct Seals {
    sealer: Sealer,
    prints: Fingerprints,
}

/// Wiped once the mail is accepted.
#[derive(Default)]
pub(super) struct Secret {
    pub(super) pin: Option<Pin>,
    pub(super) stored: Option<StoredValue>,
    pub(super) code: Option<(Code, StoredValue)>,
    pub(super) password: Option<(Password, StoredValue)>,
    pub(super) existing: Option<ExistingPin>,
    pub(super) again: Again,
    pub(super) announcement: Option<Announcement>,
}

/// What stood there before.
#[derive(Default)]
pub(super) struct Before {
    /// The PINs that the change was about.
    pub(super) pins: Vec<StoredPin>,
    pub(super) moved: Option<(Membership, CostCenter)>,
    /// What the issued ones took the place of; the inner `None`: of none.
    pub(super) code: Option<Option<StoredValue>>,
    pub(super) password: Option<Option<StoredValue>>,
    /// The role that was taken away.
    pub(super) role: Option<Role>,
    /// Of a take-back: what stands since.
    pub(super) after: After,
}

/// What a take-back leaves.
#[derive(Default)]
pub(super) struct After {
    /// PINs that are there again, or have their old ends.
    pub(super) pins: Vec<StoredPin>,
    pub(super) code: Option<Option<StoredValue>>,
    pub(super) password: Option<Option<StoredValue>>,
}

const SECRET: &[u8] = b"credkeeper journal secret";
const BEFORE: &[u8] = b"credkeeper journal before-image";
const RECIPIENT: &[u8] = b"credkeeper journal hold";
const CHECK: &[u8] = b"credkeeper journal check";

impl Seals {
    pub(super) fn new(master: &Key) -> Seals {
        Seals {
            sealer: Sealer::new(derive(master, "credkeeper journal: sealed values, 1")),
            prints: Fingerprints::new(&derive(master, "credkeeper journal: fingerprints, 1")),
        }
    }

    pub(super) fn fingerprint(&self, book: &Book, user: UserId, stored: &StoredValue) -> [u8; 16] {
        self.prints.of(&book.salt, user, stored)
    }

    /// The fingerprint of a freed PIN: of no user of that database, and the same in every stored form. `None` for a card.
    pub(super) fn freed_print(&self, book: &Book, stored: &StoredValue) -> Option<[u8; 16]> {
        let digest = digest_of(stored)?;
        // No user has this id: ids of a database are not negative, and a fingerprint with one is another.
        let nobody = UserId(i64::MIN);
        Some(self.prints.of(&book.salt, nobody, &StoredValue::new(format!("freed {digest:032x}"))))
    }

    /// A sealed value that only says whether the key is the right one.
    pub(super) fn check_value(&self) -> Result<Vec<u8>, JournalError> {
        self.sealer.seal(CHECK, CHECK).map_err(JournalError::Seal)
    }

    pub(super) fn fits(&self, check_value: &[u8]) -> bool {
        self.sealer.open(CHECK, check_value).is_ok()
    }

    /// `None`: there is no secret in it.
    pub(super) fn secret(&self, id: IssuanceId, new: &NewIssuance) -> Result<Option<Vec<u8>>, JournalError> {
        let issued = new.issued();
        let nothing_issued = issued.is_none() && new.code.is_none() && new.password.is_none();
        if nothing_issued && new.announcement.is_none() {
            return Ok(None);
        }
        let mail = new.announcement.as_ref().map(|a| MailOut {
            to: a.recipient.address(),
            template: &a.template,
            username: &a.username,
            name: &a.name,
            surname: &a.surname,
            email: &a.email,
            cost_center: a.cost_center.as_deref(),
            cost_center_number: a.cost_center_number,
        });
        let room = mail.as_ref().map_or(0, |m| {
            m.to.len()
                + m.template.len()
                + m.username.len()
                + m.name.len()
                + m.surname.len()
                + m.email.len()
                + m.cost_center.map_or(0, str::len)
        });
        let out = SecretOut {
            pin: issued.map(|p| p.pin.expose()),
            stored: issued.map(|p| p.stored.expose()),
            code: new.code.as_ref().map(|c| (c.code.expose(), c.stored.expose())),
            password: new.password.as_ref().map(|p| (p.password.expose(), p.stored.expose())),
            existing: new.existing.as_ref().map(|p| (p.pin.expose(), p.stored.expose(), p.expires.map(|at| at.0))),
            code_again: new.again.code.as_ref().map(|(code, stored)| (code.expose(), stored.expose())),
            password_again: new.again.password.as_ref().map(|(password, stored)| (password.expose(), stored.expose())),
            mail,
        };
        self.sealed(SECRET, id, new.user, room + 512, &out).map(Some)
    }

    /// What stood there before, what was moved and which role went, kept after delivery so that a pass can be undone (R28); of a
    /// take-back also what it leaves. `None`: nothing was there, nothing was moved and no role went.
    pub(super) fn before(&self, id: IssuanceId, new: &NewIssuance) -> Result<Option<Vec<u8>>, JournalError> {
        fn text(value: &Option<StoredValue>) -> Option<&str> {
            value.as_ref().map(StoredValue::expose)
        }
        fn pair(pin: &StoredPin) -> (&str, Option<i64>) {
            (pin.value.expose(), pin.expires.map(|end| end.0))
        }
        let replaced = new.before();
        let mut code = new.code.as_ref().map(|code| text(&code.replaced));
        let mut password = new.password.as_ref().map(|password| text(&password.replaced));
        let back = new.takes_back.as_deref();
        if let Some(TakesBack { changes, .. }) = back {
            code = changes.code.as_ref().map(|code| Some(code.was.expose()));
            password = changes.password.as_ref().map(|password| Some(password.was.expose()));
        }
        let nothing = replaced.is_empty() && new.moved.is_none() && new.role_removed.is_none() && code.is_none() && password.is_none();
        if nothing && back.is_none() {
            return Ok(None);
        }
        let after = back.map(|TakesBack { changes, .. }| AfterOut {
            pins: changes
                .came
                .iter()
                .map(pair)
                .chain(changes.ended.iter().map(|(pin, end)| (pin.value.expose(), end.map(|end| end.0))))
                .collect(),
            code: changes.code.as_ref().map(|code| text(&code.is)),
            password: changes.password.as_ref().map(|password| text(&password.is)),
        });
        let out = BeforeOut {
            replaced: replaced.iter().map(pair).collect(),
            after,
            moved: new.moved.as_ref().map(|(from, to)| (from.id.0, from.number, to.id.0, to.number, to.name.as_str())),
            code,
            password,
            role: new.role_removed.as_ref().map(|role| (role.id.0, role.name.as_str())),
        };
        let room =
            new.moved.as_ref().map_or(0, |(_, to)| to.name.len() + 64) + new.role_removed.as_ref().map_or(0, |role| role.name.len() + 32);
        self.sealed(BEFORE, id, new.user, room + 128 * (replaced.len() + 3), &out).map(Some)
    }

    /// Of a hold that ends when the recipient changes.
    pub(super) fn recipient(&self, user: UserId, recipient: &Mailbox) -> Result<Vec<u8>, JournalError> {
        self.sealer.seal(&place(RECIPIENT, IssuanceId(0), user), recipient.address().as_bytes()).map_err(JournalError::Seal)
    }

    /// `None`: it cannot be read any more, and only a release ends the hold.
    pub(super) fn open_recipient(&self, user: UserId, blob: &[u8]) -> Option<Mailbox> {
        let plain = self.sealer.open(&place(RECIPIENT, IssuanceId(0), user), blob).ok()?;
        Mailbox::parse(std::str::from_utf8(&plain).ok()?).ok()
    }

    pub(super) fn open_secret(
        &self,
        id: IssuanceId,
        user: UserId,
        message_id: Option<String>,
        blob: &[u8],
    ) -> Result<Secret, JournalError> {
        let plain = self.opened(SECRET, id, user, blob)?;
        let back: SecretIn = serde_json::from_slice(&plain).map_err(|_| JournalError::NotUnderstood { what: "a sealed secret" })?;
        let announcement = match (back.mail, message_id) {
            (Some(m), Some(message_id)) => Some(Announcement {
                recipient: Mailbox::parse(&m.to).map_err(|_| JournalError::NotUnderstood { what: "a sealed recipient" })?,
                template: m.template,
                message_id,
                username: m.username,
                name: m.name,
                surname: m.surname,
                email: m.email,
                cost_center: m.cost_center,
                cost_center_number: m.cost_center_number,
            }),
            (None, None) => None,
            _ => return Err(JournalError::NotUnderstood { what: "a message identity" }),
        };
        let existing = back.existing.map(|(pin, stored, expires)| ExistingPin {
            pin: Pin::new(pin),
            stored: StoredValue::new(stored),
            expires: expires.map(WallClock),
        });
        Ok(Secret {
            pin: back.pin,
            stored: back.stored,
            code: back.code.map(|(code, stored)| (Code::new(code), StoredValue::new(stored))),
            password: back.password.map(|(password, stored)| (Password::new(password), StoredValue::new(stored))),
            existing,
            again: Again {
                code: back.code_again.map(|(code, stored)| (Code::new(code), StoredValue::new(stored))),
                password: back.password_again.map(|(password, stored)| (Password::new(password), StoredValue::new(stored))),
            },
            announcement,
        })
    }

    /// Only which template the mail is written by; `None`: there is no mail, or nobody can tell any more.
    pub(super) fn template(&self, id: IssuanceId, user: UserId, blob: &[u8]) -> Option<String> {
        let plain = self.opened(SECRET, id, user, blob).ok()?;
        serde_json::from_slice::<TemplateIn>(&plain).ok()?.mail.map(|mail| mail.template)
    }

    pub(super) fn open_before(&self, id: IssuanceId, user: UserId, blob: &[u8]) -> Result<Before, JournalError> {
        let plain = self.opened(BEFORE, id, user, blob)?;
        let back: BeforeIn = serde_json::from_slice(&plain).map_err(|_| JournalError::NotUnderstood { what: "a sealed before-image" })?;
        Ok(Before {
            pins: pins(back.replaced),
            moved: back.moved.map(|(from, from_number, to, number, name)| {
                let from = Membership { id: CostCenterId(from), number: from_number };
                (from, CostCenter { id: CostCenterId(to), number, name })
            }),
            code: back.code.map(|code| code.map(StoredValue::new)),
            password: back.password.map(|password| password.map(StoredValue::new)),
            role: back.role.map(|(id, name)| Role { id: RoleId(id), name }),
            after: back.after.map_or_else(After::default, |after| After {
                pins: pins(after.pins),
                code: after.code.map(|code| code.map(StoredValue::new)),
                password: after.password.map(|password| password.map(StoredValue::new)),
            }),
        })
    }

    /// `room` is about how long the JSON gets: a buffer that never grows leaves no copies behind that nobody wipes.
    fn sealed(&self, purpose: &[u8], id: IssuanceId, user: UserId, room: usize, value: &impl Serialize) -> Result<Vec<u8>, JournalError> {
        let mut plain = Zeroizing::new(Vec::with_capacity(room * 2));
        serde_json::to_writer(&mut *plain, value).map_err(|_| JournalError::Seal(SealError::TooLong))?;
        self.sealer.seal(&place(purpose, id, user), &plain).map_err(JournalError::Seal)
    }

    fn opened(&self, purpose: &[u8], id: IssuanceId, user: UserId, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, JournalError> {
        self.sealer.open(&place(purpose, id, user), blob).map_err(|source| JournalError::Unseal { issuance: id, source })
    }
}

fn place(purpose: &[u8], id: IssuanceId, user: UserId) -> Vec<u8> {
    [purpose, &id.0.to_be_bytes(), &user.0.to_be_bytes()].concat()
}

// The JSON inside. Writing borrows, so that no copy of a secret is made; reading moves texts straight into the secret types.
// A new field must have a default: old journals are read by newer versions.

#[derive(Serialize)]
struct SecretOut<'a> {
    pin: Option<&'a str>,
    stored: Option<&'a str>,
    /// Plain and stored; left out where there is none, as most issuances have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<(&'a str, &'a str)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<(&'a str, &'a str)>,
    /// Plain, stored, end.
    #[serde(skip_serializing_if = "Option::is_none")]
    existing: Option<(&'a str, &'a str, Option<i64>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_again: Option<(&'a str, &'a str)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_again: Option<(&'a str, &'a str)>,
    mail: Option<MailOut<'a>>,
}

#[derive(Serialize)]
struct MailOut<'a> {
    to: &'a str,
    template: &'a str,
    username: &'a str,
    name: &'a str,
    surname: &'a str,
    email: &'a str,
    cost_center: Option<&'a str>,
    cost_center_number: Option<i64>,
}

#[derive(Serialize)]
struct BeforeOut<'a> {
    replaced: Vec<(&'a str, Option<i64>)>,
    moved: Option<(i64, i64, i64, i64, &'a str)>,
    /// What the issued one took the place of; null: of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Option<&'a str>>,
    /// Id and name.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<(i64, &'a str)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<AfterOut<'a>>,
}

/// What a take-back leaves; null: none.
#[derive(Serialize)]
struct AfterOut<'a> {
    pins: Vec<(&'a str, Option<i64>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<Option<&'a str>>,
}

#[derive(Deserialize)]
struct SecretIn {
    #[serde(deserialize_with = "pin")]
    pin: Option<Pin>,
    #[serde(deserialize_with = "stored")]
    stored: Option<StoredValue>,
    #[serde(default)]
    code: Option<(String, String)>,
    #[serde(default)]
    password: Option<(String, String)>,
    #[serde(default)]
    existing: Option<(String, String, Option<i64>)>,
    #[serde(default)]
    code_again: Option<(String, String)>,
    #[serde(default)]
    password_again: Option<(String, String)>,
    mail: Option<MailIn>,
}

#[derive(Deserialize)]
struct MailIn {
    to: String,
    template: String,
    username: String,
    name: String,
    surname: String,
    /// Absent in what an older version wrote.
    #[serde(default)]
    email: String,
    cost_center: Option<String>,
    #[serde(default)]
    cost_center_number: Option<i64>,
}

/// The rest of [`SecretIn`] is passed over, and no copy of it is made.
#[derive(Deserialize)]
struct TemplateIn {
    mail: Option<TemplateName>,
}

#[derive(Deserialize)]
struct TemplateName {
    template: String,
}

#[derive(Deserialize)]
struct BeforeIn {
    replaced: Vec<(String, Option<i64>)>,
    moved: Option<(i64, i64, i64, i64, String)>,
    #[serde(default, deserialize_with = "said")]
    code: Option<Option<String>>,
    #[serde(default, deserialize_with = "said")]
    password: Option<Option<String>>,
    #[serde(default)]
    role: Option<(i64, String)>,
    #[serde(default)]
    after: Option<AfterIn>,
}

#[derive(Deserialize)]
struct AfterIn {
    pins: Vec<(String, Option<i64>)>,
    #[serde(default, deserialize_with = "said")]
    code: Option<Option<String>>,
    #[serde(default, deserialize_with = "said")]
    password: Option<Option<String>>,
}

/// A null that stands there says something else than a field that does not.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

fn pins(of: Vec<(String, Option<i64>)>) -> Vec<StoredPin> {
    of.into_iter().map(|(value, end)| StoredPin::found(StoredValue::new(value), end.map(WallClock))).collect()
}

fn pin<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Pin>, D::Error> {
    Option::<String>::deserialize(from).map(|text| text.map(Pin::new))
}

fn stored<'de, D: Deserializer<'de>>(from: D) -> Result<Option<StoredValue>, D::Error> {
    Option::<String>::deserialize(from).map(|text| text.map(StoredValue::new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::{announced, renewed};

    #[test]
    fn both_sealed_values_open_in_their_own_row_for_their_own_user_only() {
        let seals = Seals::new(&Key::new([1; 32]));
        let (id, user) = (IssuanceId(4), UserId(7));
        let new = renewed(7, "123456", "PINold");
        let secret = seals.secret(id, &new).unwrap().unwrap();
        let before = seals.before(id, &new).unwrap().unwrap();
        let mid = || Some("m-7@example.org".to_owned());
        let opened = seals.open_secret(id, user, mid(), &secret).unwrap();
        assert_eq!((opened.pin, opened.announcement), (new.issued().map(|p| p.pin.clone()), new.announcement.clone()));
        assert_eq!(seals.open_before(id, user, &before).unwrap().moved, new.moved);
        let plain = seals.opened(BEFORE, id, user, &before).unwrap();
        assert_eq!(
            std::str::from_utf8(&plain).unwrap(),
            r#"{"replaced":[["PINold",1000]],"moved":[5,50,6,60,"Has \"PIN\""]}"#,
            "the before-image holds what undo needs"
        );
        let gone = Some(Role { id: RoleId(31), name: "Visitor".to_owned() });
        let with_role = seals.before(id, &NewIssuance { role_removed: gone, ..announced(7, "1357") }).unwrap().unwrap();
        assert_eq!(seals.open_before(id, user, &with_role).unwrap().role.map(|role| role.id), Some(RoleId(31)));
        let plain = seals.opened(BEFORE, id, user, &with_role).unwrap();
        assert_eq!(std::str::from_utf8(&plain).unwrap(), r#"{"replaced":[],"moved":null,"role":[31,"Visitor"]}"#);
        for (other_id, other_user) in [(IssuanceId(5), user), (id, UserId(8))] {
            assert!(matches!(seals.open_secret(other_id, other_user, mid(), &secret), Err(JournalError::Unseal { .. })));
            assert!(matches!(seals.open_before(other_id, other_user, &before), Err(JournalError::Unseal { .. })));
        }
        assert!(matches!(seals.open_secret(id, user, mid(), &before), Err(JournalError::Unseal { .. })), "the other purpose");
        let strange = Seals::new(&Key::new([2; 32]));
        assert!(matches!(strange.open_secret(id, user, mid(), &secret), Err(JournalError::Unseal { .. })), "another key");
    }

    #[test]
    fn texts_that_json_must_escape_come_back_as_they_were() {
        let seals = Seals::new(&Key::new([1; 32]));
        let mut new = announced(7, "0042");
        if let Some(a) = new.announcement.as_mut() {
            a.name = "Ž \"x\" \\ \u{1} \n".repeat(30);
            a.cost_center = Some("💡".to_owned());
        }
        let blob = seals.secret(IssuanceId(1), &new).unwrap().unwrap();
        let back = seals.open_secret(IssuanceId(1), UserId(7), Some("m-7@example.org".to_owned()), &blob).unwrap();
        assert_eq!(back.announcement, new.announcement);
        assert_eq!(back.pin.unwrap().expose(), "0042");
    }
}
