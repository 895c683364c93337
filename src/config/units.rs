//! Quantities as they are written: `500ms 10s 5m 2h 30d`, `5%`, `8MiB`.

use std::time::Duration;

use crate::domain::Share;

/// What is accepted, for messages.
pub(super) const DURATION_SHAPE: &str = "a duration such as 500ms, 10s, 5m, 2h or 30d";
pub(super) const SHARE_SHAPE: &str = "a share such as 5% or 12.5%, from 0% to 100%";
pub(super) const SIZE_SHAPE: &str = "a size such as 65536, 512KiB, 8MiB or 1GiB";

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

/// Bytes: a whole number, and KiB, MiB or GiB or nothing behind it.
pub(super) fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let each = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(each)
}

/// As a message shows it, in the largest unit that fits.
pub(super) fn written_size(bytes: u64) -> String {
    let fits = |each: &u64| bytes >= *each && bytes.is_multiple_of(*each);
    match [1 << 30, 1 << 20, 1 << 10].iter().zip(["GiB", "MiB", "KiB"]).find(|(each, _)| fits(each)) {
        Some((each, unit)) => format!("{}{unit}", bytes / each),
        None => bytes.to_string(),
    }
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

    #[test]
    fn sizes_are_bytes_with_or_without_a_unit() {
        for (text, bytes) in [("65536", 65_536), ("0", 0), ("512KiB", 524_288), ("8MiB", 8_388_608), ("2GiB", 2_147_483_648)] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(size(&written_size(bytes)), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "8 MiB", "8MB", "8M", "8mib", "-1", "1.5MiB", "99999999999GiB", "٣"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
