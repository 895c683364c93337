//! Whether the database is older than the journal: restored from a backup, or failed over to a copy that lagged. Then users hold
//! PINs, by mail, that the database has never heard of; and the next pass would mail all of them at once.
//!
//! A single PIN that is gone says nothing: administrators delete and replace them. What tells is the pattern: from some moment
//! on all, or nearly all, of what was issued is gone, beginning with the newest. Fewer than [`LEAST`] are an everyday matter, and
//! are served by the next pass like any other user without a PIN.

use crate::inventory::Trace;

/// How many of the newest issuances have to be gone.
pub const LEAST: u64 = 10;
/// Of a hundred since the moment of the backup, so many must be gone: an administrator may have put one or the other back by hand.
const MOST_OF_100: u64 = 90;

/// Where the database stops knowing what the journal knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The oldest issuance that is gone, as its place among the `traces`.
    pub at: usize,
    /// How many are gone, of how many back to there of which something can be told.
    pub gone: u64,
    pub of: u64,
}

/// `traces` begin with the newest. `None`: nothing speaks for an older database.
pub fn cut(traces: impl IntoIterator<Item = Trace>) -> Option<Cut> {
    let (mut gone, mut of, mut cut) = (0, 0, None);
    for (at, trace) in traces.into_iter().enumerate() {
        match trace {
            Trace::Stands => of += 1,
            Trace::Gone => {
                (gone, of) = (gone + 1, of + 1);
                if gone >= LEAST && gone * 100 >= of * MOST_OF_100 {
                    cut = Some(Cut { at, gone, of });
                }
            }
            Trace::NoUser | Trace::Untold => {}
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the newest: `+` stands, `-` is gone, `0` there is no such user, `?` nobody can tell.
    fn of(picture: &str) -> Option<Cut> {
        cut(picture.chars().map(|c| match c {
            '+' => Trace::Stands,
            '-' => Trace::Gone,
            '0' => Trace::NoUser,
            _ => Trace::Untold,
        }))
    }

    #[test]
    fn a_backup_is_known_by_what_it_lacks_from_some_moment_on() {
        let many = |picture: &str, times: usize| picture.repeat(times);
        #[rustfmt::skip]
        let table = [
            ("nothing was issued", String::new(), None),
            ("all stands", many("+", 100), None),
            ("the newest ten are gone", many("-", 10) + &many("+", 90), Some((9, 10, 10))),
            ("the newest nine are an everyday matter", many("-", 9) + &many("+", 90), None),
            ("all are gone, however old the backup is", many("-", 100), Some((99, 100, 100))),
            ("a small site lost all that it has", many("-", 12), Some((11, 12, 12))),
            ("one in ten may have been put back by hand", "+".to_owned() + &many("-", 12), Some((12, 12, 13))),
            ("even if that was the first thing done", "+".to_owned() + &many("-", 9), None),
            ("old ones that an administrator removed are no backup", many("+", 20) + &many("-", 80), None),
            ("nor are some here and there", many("--+", 33), None),
            ("nor every other one", many("+-", 50), None),
            ("visitors whose rows are gone say nothing", many("0", 100), None),
            ("nor hide what the others say", many("0-", 10), Some((19, 10, 10))),
            ("what nobody can tell says nothing", many("?", 50) + &many("-", 10), Some((59, 10, 10))),
            ("one that went before the backup is left alone", many("-", 10) + &many("+", 9) + "-", Some((9, 10, 10))),
        ];
        for (sentence, picture, expected) in table {
            assert_eq!(of(&picture).map(|cut| (cut.at, cut.gone, cut.of)), expected, "{sentence}");
        }
    }
}
