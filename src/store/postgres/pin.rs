//! What a PIN looks like to PostgreSQL. Every full pass asks this of every card, more than once.

use crate::domain::PinFormat;

/// Exactly [`PinFormat::is_pin`], never NULL. `value` must be text.
///
/// Bytes are trimmed, not characters: `rtrim` on text takes 3 times as long, and a regular expression 5 times. `btrim` trims the
/// front too, which is why the prefix is asked for by itself; beside it only the right number of digits can be left over.
/// In any encoding that a server may have, an ASCII byte is that character. The collation is named, because a database may have one
/// that thinks `pin` the same as `PIN`, or that LIKE refuses.
pub(super) fn is_pin(format: PinFormat, value: &str) -> String {
    let bytes = format!("octet_length({value})");
    let left = |set: &str| format!("octet_length(btrim(textsend({value}), '{set}'::bytea))");
    let prefixed = format!("{value} COLLATE \"C\" LIKE 'PIN%'");
    const HEX: &str = "0123456789abcdef";
    const DIGITS: &str = "0123456789";
    let test = match format {
        PinFormat::Md5 => format!("{bytes} = 35 AND {prefixed} AND {} = 3", left(HEX)),
        PinFormat::Md5WithoutPrefix => format!("{bytes} = 32 AND {} = 0", left(HEX)),
        PinFormat::Prefix => format!("{bytes} > 3 AND {prefixed} AND {} = 3", left(DIGITS)),
        PinFormat::Plain { max_length } => format!("{bytes} BETWEEN 1 AND {max_length} AND {} = 0", left(DIGITS)),
    };
    format!("coalesce({test}, false)")
}
