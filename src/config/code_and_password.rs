//! `policies.card_assignment_code` and `policies.password`.

use std::time::Duration;

use super::policies::Around;
use super::read::Field;
use crate::domain::{Alphabet, CodeLength, PasswordLength};
use crate::policy::{CodeRule, PasswordRule, Rewrite};

const DAY: Duration = Duration::from_secs(86_400);
const REWRITES: [(&str, Rewrite); 2] = [("never", Rewrite::Never), ("always", Rewrite::Always)];

/// Refused without a cipher: what the print system cannot decrypt is no code, and there is no cipher to guess (R14).
pub(super) fn code(field: &Field<'_>, around: &Around<'_>) -> Option<CodeRule> {
    let mut section = field.section("a mapping with length, such as {length: 6}")?;
    let digits = section.required("length", "how many digits, 1 to 16");
    let digits = digits.and_then(|length| length.whole(CodeLength::MIN.into()..=CodeLength::MAX.into()));
    let rewrite = section.or("rewrite", Rewrite::Never, |rewrite| rewrite.choice(&REWRITES));
    section.finish();
    match around.puk_verified {
        None => field.problem("schema_map.users.puk names no column, so that there is nowhere to store a code; name it there"),
        Some(false) => field.problem(
            "a code is written into a column whose name is a guess of the profile; compare schema_map.users.puk with the database, then \
             say puk: {column: NAME, verified: true} there",
        ),
        Some(true) => {}
    }
    if !around.has_cipher {
        field.problem(
            "needs cac_cipher in databases, which says how the print system encrypts codes; there is no default, and \
             `credkeeper doctor --cac-pair` proves a setting",
        );
    }
    Some(CodeRule { length: CodeLength::new(u8::try_from(digits?).ok()?)?, rewrite })
}

pub(super) fn password(field: &Field<'_>, around: &Around<'_>) -> Option<PasswordRule> {
    let mut section = field.section("a mapping with length, such as {length: 12}")?;
    let length_field = section.required("length", "how many characters, 4 to 64");
    let length = length_field.as_ref().and_then(|length| length.whole(PasswordLength::MIN.into()..=PasswordLength::MAX.into()));
    let alphabet = section.field("alphabet").map_or_else(|| Some(Alphabet::unambiguous()), |field| alphabet(&field));
    let rewrite = section.or("rewrite", Rewrite::Never, |rewrite| rewrite.choice(&REWRITES));
    let rotate_every = section.field("rotate_every").filter(|field| !field.is_off()).map(|field| field.duration(DAY..=Duration::MAX));
    section.finish();
    if !around.has_password_column {
        field.problem("schema_map.users.password names no column, so that there is nowhere to store a password; name it there");
    }
    if let (Some(length), Some(field)) = (length.filter(|length| *length < 8), &length_field) {
        field.reader.warn(format!("{}: a password of {length} characters is soon guessed", field.key));
    }
    Some(PasswordRule {
        length: PasswordLength::new(u8::try_from(length?).ok()?)?,
        alphabet: alphabet?,
        rewrite,
        rotate_every: rotate_every.map_or(Some(None), |span| span.map(Some))?,
    })
}

/// `unambiguous`, or the characters themselves.
fn alphabet(field: &Field<'_>) -> Option<Alphabet> {
    match field.text("unambiguous, or the characters themselves in quotes")? {
        "unambiguous" => Some(Alphabet::unambiguous()),
        characters => Alphabet::new(characters).map_err(|problem| field.problem(problem.to_string())).ok(),
    }
}
