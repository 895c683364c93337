//! `policies.pin`: what PINs are like, and when they are renewed.

use std::time::Duration;

use super::read::Field;
use crate::domain::time::span;
use crate::domain::{PinFormat, PinLength};
use crate::policy::{OnLeave, PinRewrite, PinRule};

/// There are too many longer ones to look through.
const LONGEST_RECOVERED: u64 = 8;
const DAY: Duration = Duration::from_secs(86_400);

/// `format` is what the database stores them as, where that is known.
pub(super) fn pin(field: &Field<'_>, format: Option<PinFormat>) -> Option<PinRule> {
    let mut section = field.section("a mapping with length and rewrite")?;
    let length_field = section.required("length", "how many digits, 1 to 16");
    let length = length_field.as_ref().and_then(|length| length.whole(PinLength::MIN.into()..=PinLength::MAX.into()));
    let rewrite = section.required("rewrite", "never, expired, extend or always").and_then(|rewrite| self::rewrite(&rewrite));
    let valid_for = section.field("valid_for").map(|field| field.duration(Duration::from_secs(1)..=Duration::MAX));
    let rotate_every = section.field("rotate_every").filter(|field| !field.is_off()).map(|field| field.duration(DAY..=Duration::MAX));
    let spread_field = section.field("spread");
    let spread = spread_field.as_ref().map_or(Some(Duration::ZERO), Field::any_duration);
    let cap_field = section.field("cap_unlimited");
    let cap_unlimited = cap_field.as_ref().and_then(Field::boolean).unwrap_or(false);
    let allow_trivial = section.or("allow_trivial", false, Field::boolean);
    let allow_dense = section.or("allow_dense", false, Field::boolean);
    let send_field = section.field("send_existing");
    let send_existing = send_field.as_ref().and_then(Field::boolean).unwrap_or(false);
    let leaves = [("keep", OnLeave::Keep), ("expire", OnLeave::Expire), ("delete", OnLeave::Delete)];
    let on_leave = section.or("on_leave", OnLeave::Keep, |leave| leave.choice(&leaves));
    let quarantine = section.or("quarantine", DAY * 90, Field::any_duration);
    section.finish();

    if let (Some(1), false, Some(field)) = (length, allow_trivial, &length_field) {
        field.problem("every PIN of one digit is trivial; take more digits or set allow_trivial: true");
    }
    if let (Some(digits), Some(PinFormat::Plain { max_length }), Some(field)) = (length, format, &length_field)
        && digits > max_length.into()
    {
        field.problem(format!(
            "with pin_format: plain, what has more than {max_length} digits is a card; take fewer digits, or raise plain_max_length"
        ));
    }
    if let Some(digits) = length.filter(|digits| !(4..=8).contains(digits)) {
        let how = if digits < 4 { "is soon guessed" } else { "cannot be typed at a hardware terminal, which takes 2 to 8 digits" };
        field.reader.warn(format!("{}.length: a PIN of {digits} digits {how}", field.key));
    }
    let hashed = matches!(format, Some(PinFormat::Md5 | PinFormat::Md5WithoutPrefix));
    if let (true, true, Some(field)) = (send_existing && hashed, length.is_some_and(|digits| digits > LONGEST_RECOVERED), &send_field) {
        field.problem(format!(
            "a PIN of more than {LONGEST_RECOVERED} digits cannot be recovered from its hash; remove the key, or take fewer digits"
        ));
    }
    let valid_for = valid_for.map_or(Some(None), |span| span.map(Some));
    let rotate_every = rotate_every.map_or(Some(None), |span| span.map(Some));
    if valid_for == Some(None) {
        let needs = "needs valid_for, which says when the new end is";
        if rewrite == Some(PinRewrite::Extend) {
            field.problem(format!("rewrite: extend {needs}"));
        }
        if let (true, Some(field)) = (cap_unlimited, &cap_field) {
            field.problem(needs);
        }
    }
    if let (Some(spread), Some(field)) = (spread.filter(|spread| !spread.is_zero()), &spread_field) {
        for (name, whole) in [("valid_for", valid_for.flatten()), ("rotate_every", rotate_every.flatten())] {
            if whole.is_some_and(|whole| whole <= spread) {
                field.problem(format!(
                    "expected less than {name}, which is {}: else a new PIN would be due at once",
                    span(whole.unwrap_or_default())
                ));
            }
        }
    }
    Some(PinRule {
        length: PinLength::new(u8::try_from(length?).ok()?)?,
        rewrite: rewrite?,
        valid_for: valid_for?,
        spread: spread?,
        rotate_every: rotate_every?,
        cap_unlimited,
        allow_trivial,
        allow_dense,
        quarantine,
        on_leave,
        send_existing,
    })
}

fn rewrite(field: &Field<'_>) -> Option<PinRewrite> {
    field.choice(&[
        ("never", PinRewrite::Never),
        ("expired", PinRewrite::Expired),
        ("extend", PinRewrite::Extend),
        ("always", PinRewrite::Always),
    ])
}
