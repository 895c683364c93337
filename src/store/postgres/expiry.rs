//! The expiry column in SQL: seconds of its own wall clock on our side, one of five types on the other.
//!
//! `timestamp` and `date` are taken as they stand; `zone` then only says what time it is now on their clock. The other three
//! hold a moment, and `zone` says on whose clock it is read. In the hour that a local clock repeats in autumn two moments have
//! one reading; what is written then means the later one.

use crate::config::schema_map::{ExpiresKind, ExpiresMap, Zone};

/// `'-infinity'`: long expired.
const LONG_AGO: i64 = -62_135_596_800;

/// The value of `column` as seconds; NULL is never, and so is `'infinity'`.
pub(super) fn read(map: &ExpiresMap, column: &str) -> String {
    // Beyond these ends `to_timestamp` fails, and with it the read of everybody: a column with a wild number stays readable.
    // (Not least and greatest: they pass over NULL, and never would become the year 69.)
    let moment = |seconds: String| {
        format!(
            "to_timestamp((CASE WHEN {seconds} > 9000000000000 THEN 9000000000000
                                WHEN {seconds} < -60000000000 THEN -60000000000 ELSE {seconds} END)::double precision)"
        )
    };
    let naive = match (map.kind, map.zone) {
        (ExpiresKind::Timestamp, _) => column.to_owned(),
        (ExpiresKind::Date | ExpiresKind::Timestamptz, Zone::Local) | (ExpiresKind::Date, Zone::Utc) => format!("{column}::timestamp"),
        (ExpiresKind::Timestamptz, Zone::Utc) => format!("({column} AT TIME ZONE 'UTC')"),
        (ExpiresKind::EpochSeconds, Zone::Utc) => return format!("{column}::bigint"),
        (ExpiresKind::EpochMillis, Zone::Utc) => return format!("floor({column} / 1000.0)::bigint"),
        (ExpiresKind::EpochSeconds, Zone::Local) => format!("{}::timestamp", moment(column.to_owned())),
        (ExpiresKind::EpochMillis, Zone::Local) => format!("{}::timestamp", moment(format!("floor({column} / 1000.0)"))),
    };
    format!(
        "(CASE WHEN isfinite({column_or_naive}) THEN floor(date_part('epoch', {naive}))::bigint WHEN {column_or_naive} < timestamp '1970-01-01' THEN {LONG_AGO}::bigint END)",
        column_or_naive = naive
    )
}

/// The column's value for `seconds`, a bigint expression. A date is rounded up: a PIN is valid at least as long as was said,
/// and one for a few hours is not born expired.
pub(super) fn write(map: &ExpiresMap, seconds: &str) -> String {
    let naive = naive(seconds);
    match (map.kind, map.zone) {
        (ExpiresKind::Timestamp, _) => naive,
        (ExpiresKind::Date, _) => format!("({naive} + interval '86399 seconds')::date"),
        (ExpiresKind::Timestamptz, Zone::Local) => format!("{naive}::timestamptz"),
        (ExpiresKind::Timestamptz, Zone::Utc) => format!("({naive} AT TIME ZONE 'UTC')"),
        (ExpiresKind::EpochSeconds, Zone::Utc) => format!("({seconds})::bigint"),
        (ExpiresKind::EpochMillis, Zone::Utc) => format!("(({seconds}) * 1000)::bigint"),
        (ExpiresKind::EpochSeconds, Zone::Local) => format!("floor(date_part('epoch', {naive}::timestamptz))::bigint"),
        (ExpiresKind::EpochMillis, Zone::Local) => format!("(floor(date_part('epoch', {naive}::timestamptz)) * 1000)::bigint"),
    }
}

/// Whether `column` is at or before `seconds`. On a timestamp this is a bare comparison, cheap and fit for an index; whole
/// seconds are compared, so up to the end of that second.
pub(super) fn expired(map: &ExpiresMap, column: &str, seconds: &str) -> String {
    match map.kind {
        ExpiresKind::Timestamp => format!("{column} < ({} + interval '1 second')", naive(seconds)),
        _ => format!("{} <= {seconds}", read(map, column)),
    }
}

fn naive(seconds: &str) -> String {
    format!("(timestamp '1970-01-01' + ({seconds}) * interval '1 second')")
}
