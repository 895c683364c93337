//! `policies.notify.reminders`: how long before a PIN lapses its owner is reminded.

use std::time::Duration;

use super::read::Field;
use crate::domain::Template;
use crate::domain::time::span;
use crate::policy::{PinRewrite, PinRule, Recipient};

/// Full comparisons may be an hour apart.
const SHORTEST: Duration = Duration::from_secs(3600);
/// More than that is a nuisance.
const MOST: usize = 10;

/// What of the rest of its policy, and of the mail, the list is judged by. What is wrong itself is absent.
pub(super) struct Beside<'a> {
    /// `None`: there is none.
    pub(super) pin: Option<Option<&'a PinRule>>,
    pub(super) to: Option<&'a Recipient>,
    /// The template that is named; `None`: none is.
    pub(super) template: Option<Option<&'a Template>>,
    pub(super) transport_is_none: bool,
}

/// The longest first, each once.
pub(super) fn reminders(field: &Field<'_>, beside: &Beside<'_>) -> Option<Vec<Duration>> {
    let items = field.list("durations before the end of a PIN, such as [7d, 1d]")?;
    if items.is_empty() {
        return Some(Vec::new());
    }
    let before = field.reader.count();
    if items.len() > MOST {
        field.problem(format!("at most {MOST} reminders before one end, found {}", items.len()));
    }
    match beside.pin {
        None => field.problem("the policy gives no PIN, so there is none whose end it could remind of; remove the key"),
        Some(Some(rule)) => of_rule(field, rule),
        Some(None) => {}
    }
    if beside.to == Some(&Recipient::Nobody) {
        field.problem("to is none, so that nobody would be reminded; remove the key, or say who is told");
    }
    match beside.template {
        None => field.problem("no template is named, whose reminder would be sent; name one with template"),
        Some(Some(template)) if template.reminder.is_none() => {
            field.problem("the template has no reminder; add reminder: {subject: …, parts: […]} to it");
        }
        Some(_) => {}
    }
    let life = beside.pin.flatten().and_then(|rule| Some((rule.valid_for?, rule.spread)));
    let mut windows: Vec<Duration> = Vec::new();
    for item in &items {
        let Some(window) = item.duration(SHORTEST..=Duration::MAX) else { continue };
        match life {
            Some((valid_for, spread)) if window >= valid_for.saturating_sub(spread) => {
                let less = if spread.is_zero() { String::new() } else { format!(" less its spread of {}", span(spread)) };
                item.problem(format!(
                    "expected less than pin.valid_for, which is {}{less}: else a new PIN would be reminded of at once",
                    span(valid_for)
                ));
            }
            _ => windows.push(window),
        }
    }
    if field.reader.count() > before {
        return None;
    }
    if beside.transport_is_none {
        field.reader.warn(format!("{}: nobody is reminded, because mail.transport is none", field.key));
        return Some(Vec::new());
    }
    windows.sort_unstable_by_key(|window| std::cmp::Reverse(*window));
    windows.dedup();
    Some(windows)
}

fn of_rule(field: &Field<'_>, rule: &PinRule) {
    match rule.rewrite {
        PinRewrite::Extend => field.problem("with pin.rewrite: extend, PINs do not lapse: they get a new end; remove the key"),
        PinRewrite::Always => field.problem("with pin.rewrite: always, PINs are replaced long before they lapse; remove the key"),
        PinRewrite::Never | PinRewrite::Expired if rule.valid_for.is_none() => {
            field.reader.warn(format!("{}: without pin.valid_for, only PINs that somebody else gave an end are reminded of", field.key))
        }
        PinRewrite::Never | PinRewrite::Expired => {}
    }
}
