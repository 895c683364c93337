//! Long runs on real parts: two daemons beside a vendor that never rests, and a daemon for half an hour through outages.
//! `./test` has the short form of the first; `./test long` has all of both.
//!
//! What the database went through is written down by triggers in the order of the commits (`history.rs`), and judged from there:
//! not only the end has to be right, but every moment.
#![cfg(unix)]

mod history;
mod journals;
mod judge;
mod pair;
#[allow(dead_code)]
#[path = "../it/pg.rs"]
mod pg;
#[allow(dead_code)]
#[path = "../it/site.rs"]
mod site;
#[allow(dead_code)]
#[path = "../it/smtp.rs"]
mod smtp;
#[cfg(target_os = "linux")]
mod soak;
mod vendor;

/// Seconds of the epoch, as the database and the mail server write them down.
#[cfg(target_os = "linux")]
fn now() -> f64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// As the program stores it.
fn stored(pin: &str) -> String {
    use md5::{Digest, Md5};
    let hash: String = Md5::digest(pin.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("PIN{hash}")
}

/// The value below which this share of `sorted` lies.
#[cfg(target_os = "linux")]
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}
