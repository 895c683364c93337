//! `policies`: who gets what, and who is told.

use std::collections::BTreeMap;

use super::code_and_password::{code, password};
use super::limits;
use super::mail::checked;
use super::pin::pin;
use super::read::{Field, Section};
use super::templates::Templates;
use crate::domain::template::Variable;
use crate::domain::{CostCenterRef, Pattern, PinFormat, PolicyName, RoleId, RoleRef};
use crate::policy::{Notify, Placement, Policy, PolicyLimits, Recipient, Rule, Selector};

/// What of the rest of the configuration a policy is judged by.
pub(super) struct Around<'a> {
    /// Whether the map's names of cost centers are known to be right.
    pub(super) cost_centers_verified: bool,
    /// The same of roles; `None`: the map has none.
    pub(super) roles_verified: Option<bool>,
    /// The same of the column of card assignment codes; `None`: the map names none.
    pub(super) puk_verified: Option<bool>,
    /// Whether `cac_cipher` is given.
    pub(super) has_cipher: bool,
    pub(super) has_password_column: bool,
    pub(super) transport_is_none: bool,
    /// What the database stores PINs as; absent where that is wrong itself.
    pub(super) pin_format: Option<PinFormat>,
    pub(super) templates: &'a Templates,
    pub(super) limits: PolicyLimits,
}

/// In the order given.
pub(super) fn policies(field: &Field<'_>, around: &Around<'_>) -> Option<Vec<Policy>> {
    let items = field.list("policies, each with a name")?;
    if items.is_empty() {
        return field.misfit("one policy or more");
    }
    let mut names = BTreeMap::new();
    let mut read = Vec::new();
    for item in &items {
        let Some(section) = item.section("a policy: a mapping with a name") else { continue };
        if let Some(policy) = policy(section, around, &mut names) {
            read.push(policy);
        }
    }
    Some(read)
}

fn policy(mut section: Section<'_>, around: &Around<'_>, names: &mut BTreeMap<String, String>) -> Option<Policy> {
    let name_field = section.required("name", "a name of its own");
    let name = name_field.as_ref().and_then(|name| name.line("a name"));
    if let (Some(field), Some(name)) = (name_field, &name)
        && let Some(first) = names.insert(name.clone(), section.key().to_owned())
    {
        field.problem(format!("`{name}` is the name of {first} already"));
    }
    let selector = section.field("match").map_or_else(|| Some(Selector::default()), |field| selector(&field, around));
    let pin_field = section.field("pin");
    let pin = pin_field.as_ref().map(|field| pin(field, around.pin_format));
    let code = section.field("card_assignment_code").map(|field| code(&field, around));
    let password = section.field("password").map(|field| password(&field, around));
    let placement = section.field("cost_center").map(|field| placement(&field, around));
    let remove_role = section.field("remove_role").map(|field| remove_role(&field, around));
    let given =
        [(pin_field.is_some(), Variable::Pin), (code.is_some(), Variable::CardAssignmentCode), (password.is_some(), Variable::Password)];
    let made: Vec<Variable> = given.into_iter().filter(|(given, _)| *given).map(|(_, credential)| credential).collect();
    let notify = notify(&mut section, around, &made);
    let limits = section.field("limits").map_or(around.limits, |field| limits::of_policy(&field, around.limits));
    section.finish();
    Some(Policy {
        name: PolicyName(name?),
        selector: selector?,
        pin: pin.map_or(Some(None), |pin| pin.map(Some))?,
        code: code.map_or(Some(None), |code| code.map(Some))?,
        password: password.map_or(Some(None), |password| password.map(Some))?,
        placement: placement.map_or(Some(None), |placement| placement.map(Some))?,
        remove_role: remove_role.map_or(Some(None), |role| role.map(Some))?,
        notify: notify?,
        limits,
    })
}

fn selector(field: &Field<'_>, around: &Around<'_>) -> Option<Selector> {
    let mut section = field.section("a mapping of conditions")?;
    let [username, email] = ["username", "email"].map(|key| section.field(key).and_then(|field| pattern(&field)));
    let [cost_center, not_cost_center] =
        ["cost_center", "not_cost_center"].map(|key| section.field(key).map_or_else(Vec::new, |field| cost_centers(&field)));
    let [role, not_role] = ["role", "not_role"].map(|key| section.field(key).map_or_else(Vec::new, |field| roles(&field, around)));
    let has_card = section.field("has_card").and_then(|field| field.boolean());
    let source = section.field("source").map_or_else(Vec::new, |field| texts(&field, "sources, such as [INTERNAL_DATABASE]"));
    if let Some(both) = cost_center.iter().find(|one| not_cost_center.contains(one)) {
        section.problem(format!("no user can match: the cost center {both} is both demanded and excluded"));
    }
    if let Some(both) = role.iter().find(|one| not_role.contains(one)).filter(|_| role.iter().all(|one| not_role.contains(one))) {
        section.problem(format!("no user can match: the role {both} is both demanded and excluded"));
    }
    section.finish();
    Some(Selector { username, email, cost_center, not_cost_center, role, not_role, has_card, source })
}

/// A Python regular expression; `None` where it stands for everybody.
pub(super) fn pattern(field: &Field<'_>) -> Option<Pattern> {
    let python = field.text("a regular expression in single quotes")?;
    if Pattern::is_everybody(python) {
        return None;
    }
    Pattern::parse(python).map_err(|error| field.problem(error.to_string())).ok()
}

pub(super) fn cost_centers(field: &Field<'_>) -> Vec<CostCenterRef> {
    let items = field.list("cost centers by name or number, such as [Needs PIN, 12]").unwrap_or_default();
    items.iter().filter_map(cost_center).collect()
}

fn cost_center(field: &Field<'_>) -> Option<CostCenterRef> {
    let text = field.line("the name or number of a cost center")?;
    Some(number(&text).map_or(CostCenterRef::Name(text), CostCenterRef::Number))
}

/// What is written in digits, with a minus in front of them or not.
fn number(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

fn roles(field: &Field<'_>, around: &Around<'_>) -> Vec<RoleRef> {
    let items = field.list("roles by name or number, such as [Visitors, 12]").unwrap_or_default();
    if !items.is_empty() {
        mapped(field, around);
    }
    items.iter().filter_map(role).collect()
}

fn role(field: &Field<'_>) -> Option<RoleRef> {
    let text = field.line("the name or number of a role")?;
    Some(number(&text).map_or(RoleRef::Name(text), |id| RoleRef::Id(RoleId(id))))
}

/// Notes it where the map has no roles.
fn mapped(field: &Field<'_>, around: &Around<'_>) {
    if around.roles_verified.is_none() {
        field.problem("the schema map has no roles; say in schema_map.roles where they are");
    }
}

fn remove_role(field: &Field<'_>, around: &Around<'_>) -> Option<RoleRef> {
    mapped(field, around);
    if around.roles_verified == Some(false) {
        field.problem(
            "a removal deletes through names that are a guess of the profile; compare schema_map.roles with the database, then say \
             roles: {verified: true} there",
        );
    }
    role(field)
}

pub(super) fn texts(field: &Field<'_>, of: &str) -> Vec<String> {
    field.list(of).unwrap_or_default().iter().filter_map(|item| item.line("a text")).collect()
}

fn placement(field: &Field<'_>, around: &Around<'_>) -> Option<Placement> {
    let mut section = field.section("{move_to: NAME or number}")?;
    let by_username = section.field("by_username");
    let move_to = section.required_unless(by_username.is_some(), "move_to", "the name or number of a cost center, or by_username instead");
    if let (Some(by), Some(_)) = (&by_username, &move_to) {
        by.problem("move_to is given too; keep one of the two");
    }
    section.finish();
    if !around.cost_centers_verified {
        field.problem(
            "a move writes through names that are a guess of the profile; compare schema_map.cost_centers with the database, \
             then say cost_centers: {verified: true} there",
        );
    }
    match (move_to, by_username) {
        (Some(field), None) => cost_center(&field).map(Placement::MoveTo),
        (None, Some(field)) => self::by_username(&field).map(Placement::ByUsername),
        _ => None,
    }
}

fn by_username(field: &Field<'_>) -> Option<Vec<Rule>> {
    let shape = "patterns with their cost centers, such as {pattern: '.*@example[.]com', name: Employees}";
    let items = field.list(shape)?;
    if items.is_empty() {
        return field.misfit("one pattern or more");
    }
    let mut rules: Vec<Rule> = Vec::new();
    for item in &items {
        let Some(mut section) = item.section("{pattern: '.*@example[.]com', name: Employees}") else { continue };
        let pattern_field = section.required("pattern", "a regular expression in single quotes, for the whole user name");
        let target = section.required("name", "the name or number of a cost center").and_then(|field| cost_center(&field));
        section.finish();
        if rules.iter().any(|rule| rule.pattern.is_none()) {
            field.reader.warn(format!("{}: never decides, because a pattern before it takes everybody", item.key));
        }
        if let (Some(pattern_field), Some(target)) = (pattern_field, target) {
            rules.push(Rule { pattern: pattern(&pattern_field), target });
        }
    }
    (rules.len() == items.len()).then_some(rules)
}

/// `made`: the credentials of the policy, each of which somebody must be told (product rule R30).
fn notify(policy: &mut Section<'_>, around: &Around<'_>, made: &[Variable]) -> Option<Notify> {
    let whole = policy.field("notify");
    let at = (policy.at(), policy.key_of("notify"));
    let mut section = match &whole {
        Some(field) => field.section("a mapping with to and template")?,
        None => Section::new(policy.reader, &at.1, &super::yaml::NOTHING),
    };
    let to = section.field("to").map_or(Some(Recipient::Username), |to| recipient(&to));
    let template_field = section.field("template");
    let template = template_field.as_ref().and_then(|field| field.line("the name of a template"));
    section.later("reminders", "reminders");
    let unannounced = section.or("unannounced", false, Field::boolean);
    section.finish();

    let named = template.as_ref().and_then(|name| around.templates.get(name));
    if let (Some(field), Some(name), None) = (&template_field, &template, named) {
        let known: Vec<&str> = around.templates.keys().map(String::as_str).collect();
        field.problem(match super::read::nearest(name, &known) {
            Some(near) => format!("there is no template `{name}`; did you mean `{near}`?"),
            None if known.is_empty() => format!("there is no template `{name}`, nor any other"),
            None => format!("there is no template `{name}`; there are {}", known.join(", ")),
        });
    }
    let to = to?;
    if !made.is_empty() && !unannounced {
        let lost = |credentials: &[Variable], why: &str| {
            let place = whole.as_ref().map_or(at.0, |field| field.node.at);
            let names: Vec<&str> = credentials.iter().map(|credential| credential.title()).collect();
            let message = format!("nobody would learn the {}: {why}. If that is meant, set unannounced: true", names.join(" and the "));
            policy.reader.problem(place, &at.1, message);
        };
        match named {
            _ if around.transport_is_none => lost(made, "mail.transport is none"),
            _ if to == Recipient::Nobody => lost(made, "to is none"),
            Some(Some(named)) => made.iter().filter(|credential| !named.tells(**credential)).for_each(|credential| {
                let variable = format!("{{{{ {credential} }}}}");
                let why = match named.parts.iter().any(|part| part.credentials().contains(credential)) {
                    true => {
                        format!("{variable} stands only beside another credential, and a part is left out when one of its own is not made")
                    }
                    false => format!("no part of the template has {variable} in it"),
                };
                lost(&[*credential], &why);
            }),
            None if template.is_none() => lost(made, "no template is named"),
            Some(None) | None => {}
        }
    }
    // Without a template there is nothing to send, and without a transport nowhere to.
    let to = if around.transport_is_none || (template.is_none() && !made.is_empty()) { Recipient::Nobody } else { to };
    Some(Notify { to, template })
}

fn recipient(field: &Field<'_>) -> Option<Recipient> {
    let shape = "username, email, none or a mail address";
    match field.text(shape)? {
        "username" => Some(Recipient::Username),
        "email" => Some(Recipient::Email),
        "none" => Some(Recipient::Nobody),
        address if address.contains('@') => checked(field, address).map(Recipient::Fixed),
        _ => field.misfit(shape),
    }
}
