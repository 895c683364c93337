//! Quantities as they are written: `500ms 10s 5m 2h 30d`, `5%`.

use std::time::Duration;

use crate::domain::Share;

/// What is accepted, for messages.
pub(super) const DURATION_SHAPE: &str = "a duration such as 500ms, 10s, 5m, 2h or 30d";
pub(super) const SHARE_SHAPE: &str = "a share such as 5% or 12.5%, from 0% to 100%";

/// No span in a configuration is longer than this, so that adding one to a moment never leaves the calendar.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A whole number and a unit, nothing between them.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    let span = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        "d" => seconds(86_400),
        _ => None,
    }?;
    (span <= LONGEST).then_some(span)
}

pub(super) fn share(text: &str) -> Option<Share> {
    let number = text.strip_suffix('%')?;
    let written_plainly = number.starts_with(|c: char| c.is_ascii_digit()) && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    Share::percent(written_plainly.then(|| number.parse().ok())??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("30d", 2_592_000_000), ("0d", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "1.5h", "-1s", "10 s", "1w", "1h30m", "99999999999999999999d", "40000d", "1S", "٣s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        for (text, ratio) in [("5%", 0.05), ("0%", 0.0), ("100%", 1.0), ("12.5%", 0.125)] {
            assert_eq!(share(text).map(Share::ratio), Some(ratio), "{text}");
        }
        for text in ["", "5", "%", "101%", "-1%", "1e1%", "inf%", "NaN%", "5 %", ".5%", "1.2.3%"] {
            assert_eq!(share(text), None, "{text}");
        }
    }
}
