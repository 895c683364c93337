use super::*;
use crate::domain::WallClock;
use crate::inventory::Foreign;

fn percent(percent: f64) -> Limit<Share> {
    Share::percent(percent).map_or(Limit::Unlimited, Limit::At)
}

fn limits() -> Tripwires {
    Tripwires::default()
}

fn off() -> Tripwires {
    Tripwires {
        users_shrunk: Limit::Unlimited,
        unexplained_pins: Limit::Unlimited,
        pinless_rise: Limit::Unlimited,
        clock_skew: Limit::Unlimited,
        delivery_down: Limit::Unlimited,
    }
}

fn people(users: u64, pinless: u64) -> Pinless {
    Pinless { users, pinless }
}

fn before(users: u64, pinless: u64) -> Option<Pinless> {
    Some(people(users, pinless))
}

fn sprung(stops: &[Stop]) -> Vec<&'static str> {
    stops.iter().map(|stop| stop.tripwire().as_str()).collect()
}

/// Sentence, limits, what was before, what is now, the tripwires that spring.
type OfFigures<'a> = (&'a str, Tripwires, Option<Pinless>, Pinless, &'a [&'a str]);
/// Sentence, limits, what the database says, how far its clock is ahead, the tripwires that spring.
type OfPulse<'a> = (&'a str, Tripwires, Option<ReadOnly>, i64, &'a [&'a str]);

#[test]
fn full_reads_are_compared_with_the_last_successful_one() {
    #[rustfmt::skip]
    let table: &[OfFigures<'_>] = &[
        ("a first pass has nothing to compare with", limits(), None, people(0, 0), &[]),
        ("a first pass of a new site finds everybody without a PIN", limits(), None, people(1000, 1000), &[]),
        ("nothing has changed", limits(), before(1000, 20), people(1000, 20), &[]),
        ("a fifth of the users may go", limits(), before(1000, 0), people(800, 0), &[]),
        ("more than a fifth may not", limits(), before(1000, 0), people(799, 0), &["users_shrunk"]),
        ("an emptied table is no site without users", limits(), before(1000, 0), people(0, 0), &["users_shrunk"]),
        ("not even where all may go", Tripwires { users_shrunk: percent(100.0), ..limits() }, before(1, 0), people(0, 0), &["users_shrunk"]),
        ("an empty site stays one", limits(), before(0, 0), people(0, 0), &[]),
        ("the first user of an empty site", limits(), before(0, 0), people(1, 1), &[]),
        ("with 0% not one user may go", Tripwires { users_shrunk: percent(0.0), ..limits() }, before(9, 0), people(8, 0), &["users_shrunk"]),
        ("a tenth may lose their PINs", limits(), before(1000, 50), people(1000, 150), &[]),
        ("more than a tenth may not", limits(), before(1000, 50), people(1000, 151), &["pinless_rise"]),
        ("all PINs are gone", limits(), before(1000, 0), people(1000, 1000), &["pinless_rise"]),
        ("all PINs were never there", limits(), before(1000, 1000), people(1000, 1000), &[]),
        ("an import of users without PINs is no loss of PINs", limits(), before(1000, 0), people(5000, 4000), &[]),
        ("an import does not hide a loss beside it", limits(), before(1000, 0), people(1500, 601), &["pinless_rise"]),
        ("new users who come with PINs hide as many", limits(), before(1000, 0), people(1500, 600), &[]),
        ("users with PINs leave, the share of the others rises", limits(), before(1000, 100), people(850, 100), &[]),
        ("half leaves, and the other half has no PIN", limits(), before(1000, 500), people(500, 500), &["users_shrunk", "pinless_rise"]),
        ("switched off", off(), before(1000, 0), people(1, 1), &[]),
    ];
    for (sentence, limits, before, now, expected) in table {
        let counts = Counts { users: now.users, pins: now.users - now.pinless, ..Counts::default() };
        let baseline = before.map(|Pinless { users, pinless }| Baseline { users, pinless: Some(pinless) });
        let mut stops = of_figures(limits, PinFormat::Md5, baseline, &counts);
        stops.extend(before.and_then(|before| of_pinless(limits, before, *now)));
        assert_eq!(sprung(&stops), *expected, "{sentence}");
    }
}

#[test]
fn values_of_another_form_are_counted_against_those_of_the_configured_one() {
    let counts = |pins, md5, md5_without_prefix, prefix| Counts {
        users: 1000,
        pins,
        foreign: Foreign { md5, md5_without_prefix, prefix },
        ..Counts::default()
    };
    #[rustfmt::skip]
    let table: &[(&str, Limit<Share>, Counts, Option<&str>)] = &[
        ("no PINs at all", percent(50.0), counts(0, 0, 0, 0), None),
        ("all are of the configured form", percent(50.0), counts(900, 0, 0, 0), None),
        ("49 values prove nothing", percent(50.0), counts(0, 0, 0, 49), None),
        ("50 do", percent(50.0), counts(0, 0, 0, 50), Some("prefix")),
        ("the 50 may be of any form", percent(50.0), counts(20, 0, 31, 0), Some("md5_without_prefix")),
        ("half is not more than half", percent(50.0), counts(500, 100, 100, 300), None),
        ("the form that most have is named", percent(50.0), counts(400, 100, 300, 250), Some("md5_without_prefix")),
        ("a site that changes its form", percent(10.0), counts(800, 0, 0, 101), Some("prefix")),
        ("switched off", Limit::Unlimited, counts(0, 0, 0, 5000), None),
    ];
    for (sentence, limit, now, expected) in table {
        let stops = of_figures(&Tripwires { unexplained_pins: *limit, ..limits() }, PinFormat::Md5, None, now);
        let most = stops.iter().map(|stop| match stop {
            Stop::UnexplainedPins { most, .. } => most.as_str(),
            other => panic!("{other}"),
        });
        assert_eq!(most.collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>(), "{sentence}");
    }
}

#[test]
fn the_database_says_whether_it_takes_changes_and_what_time_it_is() {
    let pulse = |read_only| Pulse { wall: WallClock(0), utc: Timestamp(0), read_only };
    #[rustfmt::skip]
    let table: &[OfPulse<'_>] = &[
        ("all is well", limits(), None, 0, &[]),
        ("a minute may be between the clocks", limits(), None, 60, &[]),
        ("ahead by more", limits(), None, 61, &["clock_skew"]),
        ("behind by more", limits(), None, -61, &["clock_skew"]),
        ("by the whole calendar", limits(), None, i64::MIN, &["clock_skew"]),
        ("a standby", limits(), Some(ReadOnly::Standby), 0, &["read_only"]),
        ("a setting", limits(), Some(ReadOnly::Setting), 99, &["read_only", "clock_skew"]),
        ("only the skew can be switched off", off(), Some(ReadOnly::Setting), 9999, &["read_only"]),
    ];
    for (sentence, limits, read_only, skew, expected) in table {
        assert_eq!(sprung(&of_pulse(limits, &pulse(*read_only), *skew)), *expected, "{sentence}");
    }
}

#[test]
fn new_credentials_wait_while_nothing_can_be_delivered() {
    let now = Timestamp(100_000);
    #[rustfmt::skip]
    let table = [
        ("mail goes", limits(), None, 5, false),
        ("down for half an hour", limits(), Some(100_000 - 1800), 5, false),
        ("down for longer", limits(), Some(100_000 - 1801), 5, true),
        ("nobody waits for a credential", limits(), Some(0), 0, false),
        ("down from a moment that is still to come", limits(), Some(200_000), 5, false),
        ("switched off", off(), Some(0), 5, false),
    ];
    for (sentence, limits, since, users, expected) in table {
        let stop = of_delivery(&limits, since.map(Timestamp), now, users);
        assert_eq!(stop.is_some(), expected, "{sentence}");
        assert!(stop.is_none_or(|stop| !stop.ends_the_pass()), "{sentence}: moves go on");
    }
}

/// With figures, and with what to do.
#[test]
fn each_stop_says_what_was_found_and_what_to_do() {
    let share = Share::percent(20.0).unwrap();
    let (was, now) = (people(1000, 20), people(990, 500));
    for (stop, found, parts) in [
        (Stop::UsersShrunk { before: 1000, now: 700, allowed: share }, "30.0%", ["has 700 users", "found 1000", "users_shrunk allows 20%"]),
        (
            Stop::PinlessRise { before: was, now, allowed: share },
            "48.5%",
            ["500 of 990 users", "20 of 1000", "limits.pinless_rise: unlimited"],
        ),
        (
            Stop::UnexplainedPins { foreign: 60, of: 62, configured: PinFormat::Md5, most: PinFormat::Prefix, allowed: share },
            "96.8%",
            ["60 of 62 values", "not of the form md5", "set pin_format: prefix?"],
        ),
        (Stop::ReadOnly(ReadOnly::Standby), "standby", ["standby", "pg_is_in_recovery", "Name the primary"]),
        (Stop::ReadOnly(ReadOnly::Setting), "default_transaction_read_only", ["takes no changes", "ALTER DATABASE", "RESET"]),
        (Stop::ReadOnly(ReadOnly::File), "file", ["may not write the file", "Give the account", "its directory"]),
        (Stop::ClockSkew { seconds: -75, allowed: Duration::from_secs(60) }, "-75s", ["75 s behind", "clock_skew allows 1m", "NTP"]),
        (
            Stop::DeliveryDown { since: Timestamp(0), lasted: Duration::from_secs(2700), users: 12, allowed: Duration::from_secs(1800) },
            "45m",
            ["since 1970-01-01 00:00:00Z", "delivery_down allows 30m", "12 users"],
        ),
    ] {
        assert_eq!(stop.found(), found);
        let said = stop.to_string();
        parts.iter().for_each(|part| assert!(said.contains(part), "{part} is not in: {said}"));
        assert!(!said.contains('\n') && said.starts_with(|c: char| !c.is_ascii_uppercase()), "{said}");
    }
}
