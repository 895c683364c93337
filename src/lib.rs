//! Credkeeper keeps the print-release credentials of Dispatcher Paragon and YSoft SafeQ 6 users right.
//!
//! Two programs in one: a pure one that decides ([`plan`]) and a dull one that acts ([`reconcile`]).
//!
//! ```text
//! config ─► store.read ─► inventory ─► plan ─► limits ─► store.begin ─► plan again ─► mint ─► store.write
//!        journal's facts ──┘        (pure)   (pure)                                              │
//!        preview, explain and report stop after the plan    journal.committed ◄─ COMMIT ◄─ journal.planned
//!                                                                  └─► courier ─► mail ─► journal.delivered
//! ```
//!
//! # Rooms, in the order that data crosses them
//!
//! | room | holds | never sees |
//! |---|---|---|
//! | [`domain`] | values with a rule: ids, mailboxes, wall-clock times, patterns, templates, sealed secrets, PIN forms | I/O, the clock, chance |
//! | [`policy`] | what the administrator asks for | |
//! | [`inventory`] | what is known: users as read, and what the journal knows of them | |
//! | [`plan`] | who is due, why, within which limits | tokio, tracing, the clock, chance |
//! | [`mint`] | draws new credentials, makes their stored forms, recovers PINs that exist | the database |
//! | [`config`] | `config.yaml`, checked | |
//! | [`seal`] | encryption at rest, keyed fingerprints | |
//! | [`tls`] | what an encrypted connection trusts, and why one failed | what is said over it |
//! | [`store`] | the seam to the print system's database: SQL and binding, no rules | the journal, mail |
//! | [`journal`] | the local file that makes delivery crash-safe | the store, mail |
//! | [`mail`] | rendering, transports, the courier | the store, the journal |
//! | [`reconcile`], [`recover`], [`daemon`] | the only places that see store, journal and mail together | |
//! | [`digest`] | what administrators are mailed about | the store, the journal |
//! | [`report`], [`explain`], [`doctor`], [`metrics`], [`http`], [`logging`], [`complaint`] | what a person or a monitor sees | |
//!
//! # Invariants
//!
//! - I1 no mail for a credential that is not committed.
//! - I2 a committed credential is mailed at least once or is visibly something else; never silently lost.
//! - I3 all mails of one issuance carry the same credential, recipient and Message-ID.
//! - I4 at most one open issuance for a user.
//! - I5 plaintext exists only sealed, from planned to its end state.
//! - I6 no database lock is held while waiting for anything but the database and one journal fsync.
//! - I7 a skipped or failing user never keeps another from being served.
//! - I8 an empty or shrunken read is never taken for the desired state: nothing is ever removed because a row is absent.
//! - I9 applying a plan and planning again gives nothing to do.
//!
//! # Deliberately absent
//!
//! Tables, triggers or indexes of our own in the print system's database; bounces that arrive later as mail;
//! deleting users; one-time links; commands over HTTP; a hook in the print system's rule engine.

pub mod adopt;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod complaint;
pub mod config;
pub mod daemon;
pub mod deliver;
pub mod digest;
pub mod doctor;
pub mod domain;
pub mod explain;
pub mod fault;
pub mod http;
pub mod inventory;
pub mod journal;
pub mod logging;
pub mod mail;
pub mod metrics;
pub mod mint;
pub mod once;
pub mod operate;
pub mod plan;
pub mod policy;
pub mod reconcile;
pub mod recover;
pub mod report;
pub mod sandbox;
pub mod seal;
pub mod service;
pub mod store;
pub mod tls;
