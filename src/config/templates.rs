//! `templates`: the texts of mails.

use std::collections::{BTreeMap, BTreeSet};

use super::policies::{cost_centers, pattern};
use super::read::{Field, Section};
use crate::domain::Template;
use crate::domain::template::{Reminder, Text, Variable};
use crate::domain::translation::{Readers, Translation};

/// By name; `None` stands for one that is there but wrong, so that a policy that names it is not blamed as well.
pub(super) type Templates = BTreeMap<String, Option<Template>>;

/// Without a section there are none.
pub(super) fn templates(section: &Section<'_>) -> Templates {
    section.all().map(|(name, field)| (name.to_owned(), field.section("a mapping of subject and parts").and_then(template))).collect()
}

fn template(mut section: Section<'_>) -> Option<Template> {
    let base = texts(&mut section);
    let translations = section.field("translations").map_or(Some(Vec::new()), |field| translations(&field, base.as_ref()));
    section.finish();
    Some(Template { translations: translations?, ..base? })
}

/// The texts in one language.
fn texts(section: &mut Section<'_>) -> Option<Template> {
    let subject = section.required("subject", "a line of text").and_then(|field| subject(&field));
    let text_parts = section.required("parts", "a list of texts").and_then(|field| parts(&field));
    let html_parts = section.field("html_parts").map(|field| html_parts(&field, text_parts.as_deref()));
    let reminder = section.field("reminder").map_or(Some(None), |field| reminder(&field).map(Some));
    let html_parts = html_parts.map_or(Some(None), |parts| parts.map(Some));
    Some(Template { subject: subject?, parts: text_parts?, html_parts: html_parts?, translations: Vec::new(), reminder: reminder? })
}

fn translations(field: &Field<'_>, base: Option<&Template>) -> Option<Vec<Translation>> {
    let items = field.list("translations, each with language, match, subject and parts")?;
    let mut taken: Vec<Translation> = Vec::new();
    for item in &items {
        let Some(section) = item.section("{language: de, match: {username: '.*[.]de'}, subject: …, parts: […]}") else { continue };
        if let Some(before) = taken.iter().find(|before| before.readers.is_everybody()) {
            item.reader.warn(format!("{}: is never used, because {} before it is for everybody", item.key, before.language));
        }
        taken.extend(translation(section, base));
    }
    (taken.len() == items.len()).then_some(taken)
}

fn translation(mut section: Section<'_>, base: Option<&Template>) -> Option<Translation> {
    let language = section.required("language", "what the language is called, such as de").and_then(|field| field.line("a language"));
    let readers = section.required("match", READERS).and_then(|field| readers(&field));
    let template = texts(&mut section);
    if let (Some(template), Some(base)) = (&template, base)
        && let Some(parts) = section.field("parts")
        && let Some(wrong) = unlike(template, base)
    {
        parts.problem(wrong);
        return None;
    }
    section.finish();
    Some(Translation { language: language?, readers: readers?, template: template? })
}

const READERS: &str = "whom it is for, such as {username: '.*[.]de'}, {email: …} or {cost_center: […]}";

fn readers(field: &Field<'_>) -> Option<Readers> {
    let mut section = field.section(READERS)?;
    let given = |key: &'static str, section: &mut Section<'_>| {
        let field = section.field(key)?;
        Some(pattern(&field))
    };
    let (username, email) = (given("username", &mut section), given("email", &mut section));
    let cost_center = section.field("cost_center");
    if username.is_none() && email.is_none() && cost_center.is_none() {
        section.problem(format!("expected {READERS}"));
    }
    section.finish();
    let cost_center = cost_center.map_or_else(Vec::new, |field| cost_centers(&field));
    Some(Readers { username: username.flatten(), email: email.flatten(), cost_center })
}

/// A part is left out with its credential. So each language must tell them in the same parts together, or somebody would learn
/// less than others; how many parts there are besides, and in which order, is the language's.
fn unlike(translation: &Template, base: &Template) -> Option<String> {
    let told = |template: &Template| -> BTreeSet<BTreeSet<Variable>> {
        template.parts.iter().map(Text::credentials).filter(|credentials| !credentials.is_empty()).collect()
    };
    let (ours, theirs) = (told(translation), told(base));
    let named = |credentials: &BTreeSet<Variable>| {
        credentials.iter().map(|credential| format!("{{{{ {credential} }}}}")).collect::<Vec<_>>().join(" and ")
    };
    if let Some(missing) = theirs.difference(&ours).next() {
        let besides = if missing.len() == 1 { " and no other credential" } else { "" };
        return Some(format!("tell less than the template's own: no part has {}{besides} in it", named(missing)));
    }
    ours.difference(&theirs).next().map(|more| format!("tell more than the template's own, which have no part with {}", named(more)))
}

fn reminder(field: &Field<'_>) -> Option<Reminder> {
    let mut section = field.section("{subject: a line of text, parts: a list of texts}")?;
    let subject = section.required("subject", "a line of text").and_then(|field| subject(&field));
    let parts_field = section.required("parts", "a list of texts");
    let parts = parts_field.as_ref().and_then(parts);
    section.finish();
    for (part, item) in parts.iter().flatten().zip(parts_field.and_then(|field| field.list("texts"))?) {
        if let Some(credential) = part.credentials().first() {
            item.problem(format!("a reminder comes long after the credential, and tells none: remove `{{{{ {credential} }}}}`"));
            return None;
        }
    }
    Some(Reminder { subject: subject?, parts: parts? })
}

/// The same parts once more, so that whoever reads either form learns the same. `fellows` are the `parts`, if they are right.
fn html_parts(field: &Field<'_>, fellows: Option<&[Text]>) -> Option<Vec<Text>> {
    let html = parts(field)?;
    let Some(fellows) = fellows else { return Some(html) };
    if html.len() != fellows.len() {
        let (found, wanted) = (html.len(), fellows.len());
        field.problem(format!("expected as many as there are parts, in the same order: {wanted}, found {found}"));
        return None;
    }
    for ((part, fellow), item) in html.iter().zip(fellows).zip(field.list("texts")?) {
        if part.credentials() != fellow.credentials() {
            item.problem("names other credentials than the same one of the parts: who sees only one of the two would learn less");
            return None;
        }
    }
    Some(html)
}

fn subject(field: &Field<'_>) -> Option<Text> {
    let subject = text(field, &field.line("a line of text")?)?;
    if let Some(credential) = subject.variables().find(|variable| variable.is_credential()) {
        // Subjects show in notifications, and mail servers write them to their logs.
        field.problem(format!("a subject is read by more than the recipient: `{{{{ {credential} }}}}` belongs in the parts"));
        return None;
    }
    Some(subject)
}

fn parts(field: &Field<'_>) -> Option<Vec<Text>> {
    let items = field.list("texts")?;
    if items.is_empty() {
        return field.misfit("one text or more");
    }
    let part = |item: &Field<'_>| text(item, item.text("a text; in quotes where it begins with {{")?);
    items.iter().map(part).collect::<Vec<_>>().into_iter().collect()
}

fn text(field: &Field<'_>, text: &str) -> Option<Text> {
    Text::parse(text).map_err(|error| field.problem(error.to_string())).ok()
}
