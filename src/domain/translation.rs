//! The same mail in other languages, chosen by who is to read it (product rule R30).

use super::ids::CostCenterRef;
use super::pattern::Pattern;
use super::template::{Reminder, Template};

/// A template's texts in another language, and for whom.
#[derive(Clone, Debug)]
pub struct Translation {
    /// What the configuration calls it, for people.
    pub language: String,
    pub readers: Readers,
    /// Without translations of its own.
    pub template: Template,
}

/// Whom a translation is for: all conditions that are given must hold, and there is one.
#[derive(Clone, Default, Debug)]
pub struct Readers {
    pub username: Option<Pattern>,
    pub email: Option<Pattern>,
    /// None stands for every one.
    pub cost_center: Vec<CostCenterRef>,
}

/// Who is to read a mail.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub username: &'a str,
    /// The column of that name, wherever the mail goes.
    pub email: &'a str,
    /// Absent where nobody knows it.
    pub cost_center: Option<&'a str>,
    pub cost_center_number: Option<i64>,
}

impl Readers {
    pub fn is_everybody(&self) -> bool {
        self.username.is_none() && self.email.is_none() && self.cost_center.is_empty()
    }

    /// A pattern that needs too many steps holds for nobody: the mail goes in another language, but goes.
    fn include(&self, reader: &Reader<'_>) -> bool {
        let matches = |pattern: &Option<Pattern>, text| pattern.as_ref().is_none_or(|pattern| pattern.matches(text) == Ok(true));
        let placed = |wanted: &CostCenterRef| match wanted {
            CostCenterRef::Number(number) => reader.cost_center_number == Some(*number),
            CostCenterRef::Name(name) => reader.cost_center == Some(name),
        };
        (self.cost_center.is_empty() || self.cost_center.iter().any(placed))
            && matches(&self.username, reader.username)
            && matches(&self.email, reader.email)
    }
}

impl Template {
    /// The texts for this reader: of the first translation that is for such readers, else its own.
    pub fn read_by(&self, reader: &Reader<'_>) -> &Template {
        let translation = self.translations.iter().find(|translation| translation.readers.include(reader));
        translation.map_or(self, |translation| &translation.template)
    }

    /// The reminder for this reader; one that is not translated is better than none.
    pub fn reminder_for(&self, reader: &Reader<'_>) -> Option<&Reminder> {
        self.read_by(reader).reminder.as_ref().or(self.reminder.as_ref())
    }

    /// Every cost center that a translation asks for.
    pub fn cost_centers(&self) -> impl Iterator<Item = &CostCenterRef> {
        self.translations.iter().flat_map(|translation| &translation.readers.cost_center)
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::Text;
    use super::*;

    fn template(subject: &str, translations: Vec<Translation>) -> Template {
        let text = |text: &str| Text::parse(text).unwrap();
        Template { subject: text(subject), parts: vec![text("p")], html_parts: None, translations, reminder: None }
    }

    fn for_readers(language: &str, readers: Readers) -> Translation {
        Translation { language: language.to_owned(), readers, template: template(language, Vec::new()) }
    }

    #[test]
    fn the_first_translation_for_such_readers_is_taken_and_else_the_base() {
        let pattern = |python: &str| Some(Pattern::parse(python).unwrap());
        let in_cs = || vec![CostCenterRef::Name("Praha".to_owned()), CostCenterRef::Number(12)];
        let all = template(
            "base",
            vec![
                for_readers("cs", Readers { cost_center: in_cs(), ..Readers::default() }),
                for_readers("de", Readers { username: pattern(r".*\.de"), ..Readers::default() }),
                for_readers("at", Readers { username: pattern(r".*\.at"), email: pattern(r".*\.at"), ..Readers::default() }),
                for_readers("never", Readers { email: pattern(r"(?=(x+x+)+y).*"), ..Readers::default() }),
                for_readers("fr", Readers { email: pattern(r".*\.fr"), ..Readers::default() }),
            ],
        );
        let endless = format!("{}@b.fr", "x".repeat(60));
        for (username, email, cost_center, number, wanted) in [
            ("a@b.de", "", None, None, "de"),
            ("a@b.de", "", Some("Praha"), None, "cs"),
            ("a@b.de", "", Some("Brno"), Some(12), "cs"),
            ("a@b.de.com", "", Some("12"), Some(13), "base"),
            ("a@b.at", "a@b.fr", None, None, "fr"),
            ("a@b.at", "a@b.at", None, None, "at"),
            ("a", &endless, None, None, "fr"),
        ] {
            let reader = Reader { username, email, cost_center, cost_center_number: number };
            assert_eq!(all.read_by(&reader).subject, Text::parse(wanted).unwrap(), "{reader:?}");
        }
    }

    #[test]
    fn a_reminder_that_is_not_translated_is_better_than_none() {
        let text = |text: &str| Text::parse(text).unwrap();
        let reminder = |subject: &str| Some(Reminder { subject: text(subject), parts: vec![text("p")] });
        let german = Readers { username: Some(Pattern::parse(".*[.]de").unwrap()), ..Readers::default() };
        let mut all = Template { reminder: reminder("base"), ..template("base", vec![for_readers("de", german)]) };
        let reader = Reader { username: "a@b.de", email: "", cost_center: None, cost_center_number: None };
        assert_eq!(all.reminder_for(&reader).unwrap().subject, text("base"));
        all.translations[0].template.reminder = reminder("de");
        assert_eq!(all.reminder_for(&reader).unwrap().subject, text("de"));
    }
}
