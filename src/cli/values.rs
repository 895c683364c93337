//! The values that options take.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{Limit, Mailbox, Share};

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let number_ends = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let ms = unit_ms.and_then(|unit| number.parse::<u64>().ok()?.checked_mul(unit));
    ms.map(Duration::from_millis).ok_or_else(|| "a whole number and a unit is wanted, such as 500ms, 30s, 5m, 2h or 1d".to_owned())
}

pub(super) fn mailbox(text: &str) -> Result<Mailbox, String> {
    Mailbox::parse(text).map_err(|why| format!("the mail address {why}"))
}

pub(crate) fn max_users(text: &str) -> Result<Limit<u64>, String> {
    match text {
        "unlimited" => Ok(Limit::Unlimited),
        _ => text.parse().map(Limit::At).map_err(|_| "a whole number or `unlimited` is wanted".to_owned()),
    }
}

pub(crate) fn max_replace(text: &str) -> Result<Limit<Share>, String> {
    let percent = |digits: &str| Share::percent(digits.trim_end().parse().ok()?);
    match (text, text.strip_suffix('%').and_then(percent)) {
        ("unlimited", _) => Ok(Limit::Unlimited),
        (_, Some(share)) => Ok(Limit::At(share)),
        _ => Err("a share from 0% to 100% with its percent sign, or `unlimited`, is wanted".to_owned()),
    }
}

pub(super) fn report_file(text: &str) -> Result<PathBuf, String> {
    match extension(text).as_str() {
        "json" => Ok(PathBuf::from(text)),
        "html" | "csv" => Err("this form is not yet supported: use .json".to_owned()),
        _ => Err("the name must end in .json".to_owned()),
    }
}

/// The textfile collector reads `*.prom` and nothing else.
pub(super) fn metrics_file(text: &str) -> Result<PathBuf, String> {
    if extension(text) == "prom" { Ok(PathBuf::from(text)) } else { Err("the name must end in .prom".to_owned()) }
}

fn extension(text: &str) -> String {
    PathBuf::from(text).extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}
