//! Values that have a rule. No I/O, no clock, no chance: everything here is a function of its arguments.

pub mod alike;
pub mod cipher;
pub mod code;
pub mod credential;
pub mod encoding;
pub mod ids;
pub mod mailbox;
pub mod password;
pub mod pattern;
pub mod pin;
pub mod printable;
pub mod scatter;
pub mod secret;
pub mod share;
pub mod template;
pub mod time;
pub mod translation;

pub use alike::alike;
pub use cipher::{Cipher, CodeCipher};
pub use code::CodeLength;
pub use credential::{Credential, Each};
pub use encoding::PasswordEncoding;
pub use ids::{CostCenter, CostCenterId, CostCenterRef, IssuanceId, PassId, PolicyName, Role, RoleId, RoleRef, UserId};
pub use mailbox::Mailbox;
pub use password::{Alphabet, PasswordLength};
pub use pattern::{Pattern, TooManySteps};
pub use pin::{PinFormat, PinLength};
pub use printable::printable;
pub use secret::{Code, Key, Password, Pin, Secret, StoredValue};
pub use share::{Limit, Share};
pub use template::Template;
pub use time::{Timestamp, WallClock};
