//! `templates`: the texts of mails.

use std::collections::BTreeMap;

use super::read::{Field, Section};
use crate::domain::Template;
use crate::domain::template::Text;

/// By name; `None` stands for one that is there but wrong, so that a policy that names it is not blamed as well.
pub(super) type Templates = BTreeMap<String, Option<Template>>;

/// Without a section there are none.
pub(super) fn templates(section: &Section<'_>) -> Templates {
    section.all().map(|(name, field)| (name.to_owned(), field.section("a mapping of subject and parts").and_then(template))).collect()
}

fn template(mut section: Section<'_>) -> Option<Template> {
    let subject = section.required("subject", "a line of text").and_then(|field| subject(&field));
    let text_parts = section.required("parts", "a list of texts").and_then(|field| parts(&field));
    let html_parts = section.field("html_parts").map(|field| html_parts(&field, text_parts.as_deref()));
    section.later("translations", "translations");
    section.later("reminder", "reminders");
    section.finish();
    Some(Template { subject: subject?, parts: text_parts?, html_parts: html_parts.map_or(Some(None), |parts| parts.map(Some))? })
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
