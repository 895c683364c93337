//! The fault suite: the program as it is built for it (cargo feature `faults`), beside real servers, ended or cut off at named places.
//!
//! `cargo test --features faults --test faults`; with `CREDKEEPER_LONG=1` more cases, and with the program's own pauses. After each case
//! everything is brought to rest, and [`invariants`] looks at what the database, the mailbox and the journal say.
#![cfg(unix)]

mod cases;
mod crash;
mod database;
mod disk;
mod invariants;
mod phases;
mod proxy;
mod relay;
mod scenario;
mod scripted;
mod take_back;

// What the other integration tests use as well.
#[allow(dead_code)]
#[path = "../it/certificates.rs"]
mod certificates;
#[allow(dead_code)]
#[path = "../it/pg.rs"]
mod pg;
#[allow(dead_code)]
#[path = "../it/site.rs"]
mod site;
#[allow(dead_code)]
#[path = "../it/smtp.rs"]
mod smtp;
