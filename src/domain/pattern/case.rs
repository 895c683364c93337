//! Which letters are one and the same under `(?i)`, by Python's rules.
//!
//! Python turns both sides into lower case, letter by letter, and besides takes small letters for one another that have the
//! same capital: `ı` and `i`, `ſ` and `s`, `ς` and `σ`. That is more than the case folding of the `regex` crate, which knows
//! nothing of `İ` and `ı`; therefore patterns are given to it with each letter's relatives written out. A back-reference
//! compares in lower case only.
//!
//! One slip of CPython is not repeated: there `(?i)[𐐀x]` does not match `𐐀`, as no set with a capital from beyond U+FFFF does.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// How letters are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Case {
    Exact,
    /// `(?i)`
    Ignored,
    /// `(?ai)`: only A to Z have a small letter.
    IgnoredInAscii,
}

impl Case {
    /// One character for one: of `İ` only the `i` without its dot.
    pub fn lower(self, c: char) -> char {
        match self {
            Case::Exact => c,
            Case::Ignored => lower(c),
            Case::IgnoredInAscii => c.to_ascii_lowercase(),
        }
    }

    /// All characters that a range stands for, as ranges; the given one first.
    pub fn relatives(self, low: char, high: char) -> Vec<(char, char)> {
        let mut all = vec![(low, high)];
        let mut add = |families: &mut dyn Iterator<Item = &[char]>| {
            for family in families.filter(|family| family.iter().any(|c| (low..=high).contains(c))) {
                all.extend(family.iter().map(|c| (*c, *c)));
            }
        };
        match self {
            Case::Exact => {}
            Case::IgnoredInAscii => {
                let pairs: Vec<[char; 2]> = ('a'..='z').map(|c| [c, c.to_ascii_uppercase()]).collect();
                add(&mut pairs.iter().map(|pair| pair.as_slice()));
            }
            Case::Ignored if low == high => add(&mut FAMILIES.of.get(&low).map(|n| FAMILIES.all[*n].as_slice()).into_iter()),
            Case::Ignored => add(&mut FAMILIES.all.iter().map(Vec::as_slice)),
        }
        all
    }
}

fn lower(c: char) -> char {
    if c.is_ascii() { c.to_ascii_lowercase() } else { c.to_lowercase().next().unwrap_or(c) }
}

/// Letters that are the same but for their case.
struct Families {
    all: Vec<Vec<char>>,
    of: HashMap<char, usize>,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let mut by_capital: BTreeMap<String, Vec<char>> = BTreeMap::new();
    for c in '\0'..LAST_WITH_CASE {
        let small = lower(c);
        let capital: String = small.to_uppercase().collect();
        if small != c || !capital.chars().eq([c]) {
            by_capital.entry(capital).or_default().push(c);
        }
    }
    let all: Vec<Vec<char>> = by_capital.into_values().filter(|family| family.len() > 1).collect();
    let of = all.iter().enumerate().flat_map(|(n, family)| family.iter().map(move |c| (*c, n))).collect();
    Families { all, of }
});

/// No script beyond has capitals and small letters: ideographs, private use, tags.
const LAST_WITH_CASE: char = '\u{20000}';

#[cfg(test)]
mod tests {
    use super::*;

    fn family(c: char) -> Vec<char> {
        let mut all: Vec<char> = Case::Ignored.relatives(c, c).into_iter().map(|(c, _)| c).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn letters_with_the_same_capital_are_one_family() {
        assert_eq!(family('I'), ['I', 'i', 'İ', 'ı']);
        assert_eq!(family('ſ'), ['S', 's', 'ſ']);
        assert_eq!(family('k'), ['K', 'k', '\u{212a}']);
        assert_eq!(family('ß'), ['ß', 'ẞ']);
        assert_eq!(family('Σ'), ['Σ', 'ς', 'σ']);
        assert_eq!(family('-'), ['-']);
    }

    #[test]
    fn nothing_beyond_the_last_letter_with_case_has_one() {
        assert!((LAST_WITH_CASE..=char::MAX).all(|c| c.to_lowercase().eq([c]) && c.to_uppercase().eq([c])));
    }
}
