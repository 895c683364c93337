//! `schedule`: how often the database is looked at.

use std::time::Duration;

use super::read::{Field, Section};
use super::units::DURATION_SHAPE;
use super::{Resync, Schedule};

const DAY: Duration = Duration::from_secs(86_400);

/// Without a section, everything has its default.
pub(super) fn schedule(mut section: Section<'_>) -> Schedule {
    let seconds = Duration::from_secs;
    let poll = section.or("poll", seconds(5), |poll| poll.duration(seconds(1)..=DAY));
    let resync = section.field("resync").and_then(|field| resync(&field)).unwrap_or(Resync::Every(seconds(600)));
    let jitter = section.or("jitter", 0.1, |jitter| jitter.share().map(crate::domain::Share::ratio));
    section.or("census", seconds(3_600), |census| census.duration(seconds(60)..=DAY * 365));
    section.finish();
    Schedule { poll, resync, jitter }
}

/// A duration, or, with blanks in it, a cron expression.
fn resync(field: &Field<'_>) -> Option<Resync> {
    let shape = format!("{DURATION_SHAPE}, or a cron expression of five fields such as \"*/10 * * * *\"");
    match field.scalar() {
        Some(text) if text.trim().contains(char::is_whitespace) => match cron(text) {
            Some(schedule) => Some(Resync::Cron(Box::new(schedule))),
            None => field.misfit("a cron expression: minute, hour, day of month, month, day of week; numbers run upwards (MON-FRI, 1-5)"),
        },
        Some(text) if super::units::duration(text).is_some() => field.duration(Duration::from_secs(10)..=DAY * 365).map(Resync::Every),
        _ => field.misfit(shape),
    }
}

/// The crate wants a field of seconds in front, and numbers the weekdays from Sunday = 1, where everybody else means
/// Monday by 1: they are handed on by name.
fn cron(text: &str) -> Option<cron::Schedule> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else { return None };
    let weekday = weekdays_by_name(weekday)?;
    format!("0 {minute} {hour} {day} {month} {weekday}").parse().ok()
}

fn weekdays_by_name(field: &str) -> Option<String> {
    const NAMES: [&str; 8] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"];
    let name = |word: &str| match word.parse::<usize>() {
        Ok(number) => NAMES.get(number).map(|name| (*name).to_owned()),
        Err(_) => Some(word.to_owned()),
    };
    let item = |item: &str| {
        let (days, step) = item.split_once('/').map_or((item, None), |(days, step)| (days, Some(step)));
        let days = days.split('-').map(name).collect::<Option<Vec<_>>>()?.join("-");
        Some(step.map_or(days.clone(), |step| format!("{days}/{step}")))
    };
    Some(field.split(',').map(item).collect::<Option<Vec<_>>>()?.join(","))
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone, Utc};

    use super::*;

    fn next(expression: &str) -> Option<String> {
        let after = Utc.with_ymd_and_hms(2027, 1, 1, 12, 0, 0).single()?; // a Friday
        cron(expression)?.after(&after).next().map(|at| at.format("%a %F %T").to_string())
    }

    #[test]
    fn five_fields_mean_what_cron_means_by_them() {
        for (expression, at) in [
            ("*/10 * * * *", "Fri 2027-01-01 12:10:00"),
            ("30 2 * * *", "Sat 2027-01-02 02:30:00"),
            ("0 6 * * 1", "Mon 2027-01-04 06:00:00"),
            ("0 6 * * MON", "Mon 2027-01-04 06:00:00"),
            ("0 6 * * 0", "Sun 2027-01-03 06:00:00"),
            ("0 6 * * 7", "Sun 2027-01-03 06:00:00"),
            ("0 6 * * 2-4", "Tue 2027-01-05 06:00:00"),
            ("0 6 * * 3,6", "Sat 2027-01-02 06:00:00"),
        ] {
            assert_eq!(next(expression).as_deref(), Some(at), "{expression}");
        }
    }

    #[test]
    fn what_is_no_cron_expression_is_refused() {
        for expression in ["* * * *", "0 * * * * *", "61 * * * *", "* * * * 8", "* * * * 5-1", "a b c d e"] {
            assert!(cron(expression).is_none(), "{expression}");
        }
    }
}
