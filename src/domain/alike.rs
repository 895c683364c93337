//! Names that somebody may have meant by one that does not exist.

/// Those of `among` that differ from `name` in case, blanks and punctuation only, else those that begin with it or are a few
/// letters away: at most three, the nearest first.
pub fn alike<'w>(name: &str, among: impl IntoIterator<Item = &'w str>) -> Vec<&'w str> {
    let bare = bare(name);
    if bare.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<(usize, &str)> = among.into_iter().filter_map(|other| Some((distance(&bare, &self::bare(other))?, other))).collect();
    found.sort();
    if found.first().is_some_and(|(distance, _)| *distance == 0) {
        found.retain(|(distance, _)| *distance == 0);
    }
    found.into_iter().map(|(_, other)| other).take(3).collect()
}

fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// `None`: too far away.
fn distance(name: &str, other: &str) -> Option<usize> {
    let steps = strsim::damerau_levenshtein(name, other);
    let contained = name.len().min(other.len()) >= 3 && (name.starts_with(other) || other.starts_with(name));
    let near = steps <= name.chars().count() / 4 || contained;
    near.then_some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spelled_nearly_so_is_found_nearest_first() {
        let columns = ["id", "login", "e_mail", "emailing", "card_no", "card_no_2", "dual_pin", "cart", "valid_until"];
        for (name, found) in [
            ("email", &["e_mail"][..]),
            ("card", &["cart", "card_no", "card_no_2"]),
            ("logn", &["login"]),
            ("pin_expiration_date", &[]),
            ("ID", &["id"]),
            ("x", &[]),
            ("", &[]),
            ("--", &[]),
        ] {
            assert_eq!(alike(name, columns), found, "{name}");
        }
        assert_eq!(alike("Needs PIN", ["needs  Pin", "NeedsPIN", "Needs PINs", "Has PIN"]), ["NeedsPIN", "needs  Pin"]);
        assert_eq!(alike("Müller", ["MÜLLER", "Muller"]), ["MÜLLER"]);
    }
}
