//! Mail: from rendered text to an answer that the journal can keep.
//!
//! ```text
//! Outgoing ─► queue ─► worker: pace ─► gate ─► compose ─► transport ─► Delivery ─► Answer ─► the owner's journal
//! ```
//!
//! The owner (`reconcile`, `daemon`) gives mails to a [`Courier`] and takes answers from it. This room never sees the
//! store or the journal: it neither knows whether a credential still stands nor remembers a mail once answered, and it
//! retries nothing by itself; the owner decides from the [`Delivery`] when to give a mail again.
//!
//! - `message` makes the bytes; no text of a user or a database can become a header or a second recipient.
//! - `delivery` is the verdict on one mail and the rule of who is to blame (product rule R32); `remedy` is what to do about it.
//! - `smtp` and `directory` are the ways out, `transport` the choice between them. `wire` is one connection, in the clear or
//!   encrypted, `login` the login on it, `token` where access tokens for one come from, `certificate` what a monitor wants to know of the
//!   server's.
//! - `pace` spreads mails over time; `gate` stops them all while the site, not a recipient, is at fault.
//! - `courier` is the only part with tasks and a clock.
//!
//! Must not: log an address in full, a subject or a body; use a connection again after anything unexpected; say anything to
//! a server but EHLO and STARTTLS before a connection is encrypted that the configuration wants encrypted.

mod certificate;
mod courier;
mod delivery;
mod directory;
mod gate;
mod login;
mod message;
mod pace;
mod remedy;
mod reply;
mod smtp;
mod token;
mod transport;
mod wire;

pub use courier::{Answer, Courier, State, Timing};
pub use delivery::{Delivery, Enhanced, MailError, Refusal, Stage};
pub use login::Mechanism;
pub use message::{Outgoing, compose};
pub use remedy::{remedy, what, writing};
pub use smtp::{Deadlines, Greeted};
pub use token::{Denial, TokenError};
pub use transport::{probe, send_notice, send_test};
pub use wire::Secured;
