//! From the tree to a [`Config`]: the sections in turn, then what they must agree on.

use std::path::Path;

use super::admin::admin;
use super::database::{self, Entry};
use super::limits::limits;
use super::local::{http, journal};
use super::log::log;
use super::mail::mail;
use super::policies::{Around, policies};
use super::read::{Field, Reader, Section};
use super::schedule::schedule;
use super::templates::templates;
use super::yaml::{NOTHING, Node};
use super::{Config, DatabaseConfig, DatabaseTarget, JournalConfig, mode};
use crate::policy::Needs;

/// Notes every problem in `reader`; `None`, or a configuration not to be used, if there is one.
pub(super) fn validate(tree: &Node, reader: &Reader, path: &Path) -> Option<Config> {
    let mut root = Section::new(reader, "", tree);
    let (mode, pilot) = mode::mode_and_pilot(&mut root);
    root.field("seal_key"); // looked at before all others
    let databases = root.required("databases", "a list of databases, each with name and url").and_then(|field| database::databases(&field));
    let schedule = schedule(part(&mut root, "schedule"));
    let limits = limits(part(&mut root, "limits"));
    let mail = mail(part(&mut root, "mail"));
    let admin = root.field("admin").map_or(Some(None), |field| admin(&field, mail.transport_is_none).map(Some));
    let templates = templates(&part(&mut root, "templates"));
    let around = |database: Option<&DatabaseConfig>| Around {
        // A map that could not be read has problems enough.
        cost_centers_verified: database.is_none_or(|database| database.map.cost_centers.verified),
        roles_verified: database.map_or(Some(true), |database| database.map.roles.as_ref().map(|roles| roles.verified)),
        puk_verified: database.map_or(Some(true), |database| database.map.users.puk.as_ref().map(|puk| puk.verified)),
        has_cipher: database.is_none_or(|database| database.cac_cipher.is_some()),
        has_password_column: database.is_none_or(|database| database.map.users.password.is_some()),
        transport_is_none: mail.transport_is_none,
        pin_format: database.map(|database| database.pin_format),
        templates: &templates,
        limits: limits.policy,
    };
    let databases = with_policies(&mut root, databases, around);
    let journal_field = root.field("journal");
    let journal = journal(section_or_nothing(reader, "journal", journal_field.as_ref()));
    if let (Some(databases), Some(journal)) = (&databases, &journal) {
        apart(reader, databases, journal, journal_field.as_ref());
    }
    let http = http(&mut root);
    let log_field = root.field("log");
    let log = log(section_or_nothing(reader, "log", log_field.as_ref()));
    if let (Some(journal), Some(file)) = (&journal, &log.file) {
        let sqlite = databases.iter().flatten().filter_map(|database| match &database.target {
            DatabaseTarget::Sqlite { path } => Some(path.as_path()),
            DatabaseTarget::Postgres { .. } => None,
        });
        if sqlite.chain([path, &journal.path, &journal.key]).any(|other| other == file.path) {
            let at = log_field.and_then(|field| field.node.at);
            reader.problem(at, "log.file.path", "the file serves something else already; give the log one of its own");
        }
    }
    root.later("external_auth", "external authentication services");
    root.finish();

    let mut databases = databases?;
    let by_place = templates.values().flatten().any(|template| template.cost_centers().next().is_some());
    for database in &mut databases {
        let needs = Needs::of(&database.policies, pilot.as_ref());
        database.needs = Needs { cost_centers: needs.cost_centers || by_place, ..needs };
    }
    Some(Config {
        path: path.to_owned(),
        mode,
        pilot,
        databases,
        only: None,
        schedule,
        limits: limits.global,
        mail: mail.config?,
        admin: admin?,
        templates: templates.into_iter().filter_map(|(name, template)| Some((name, template?))).collect(),
        journal: journal?,
        http,
        log,
        // Taken from the reader once nothing can be added.
        secret_in_file: false,
        warnings: Vec::new(),
    })
}

/// Gives each database the policies that stand in its entry, or those of the top level. A list is judged once for each
/// database that it serves; the same problem is noted once.
fn with_policies<'a>(
    root: &mut Section<'_>,
    databases: Option<Vec<Entry<'_>>>,
    around: impl Fn(Option<&DatabaseConfig>) -> Around<'a>,
) -> Option<Vec<DatabaseConfig>> {
    const SHAPE: &str = "a list of policies, each with a name";
    let shared = root.field("policies");
    let Some(entries) = databases else {
        root.required("policies", SHAPE).and_then(|field| policies(&field, &around(None)));
        return None;
    };
    let own = entries.iter().filter(|entry| entry.policies.is_some()).count();
    if let Some(field) = shared.as_ref().filter(|_| own == entries.len()) {
        field.problem("no database uses these, because each has policies of its own; remove this list, or those of the databases");
    }
    if own == 0 {
        root.required("policies", SHAPE);
    }
    let mut read = Vec::new();
    for entry in entries {
        let field = entry.policies.as_ref().or(shared.as_ref());
        if field.is_none() && own > 0 {
            root.reader.problem(entry.at, &format!("{}.policies", entry.key), format!("is required: {SHAPE}, here or at the top level"));
        }
        let policies = field.and_then(|field| policies(field, &around(entry.config.as_ref())));
        if let (Some(database), Some(policies)) = (entry.config, policies) {
            read.push(DatabaseConfig { policies, ..database });
        }
    }
    Some(read)
}

/// A section of the top level, or an empty one in its place: every key in it then has its default.
fn part<'a>(root: &mut Section<'a>, name: &'static str) -> Section<'a> {
    let field = root.field(name);
    section_or_nothing(root.reader, name, field.as_ref())
}

fn section_or_nothing<'a>(reader: &'a Reader, name: &str, field: Option<&Field<'a>>) -> Section<'a> {
    let given = field.and_then(|field| field.section("a mapping"));
    given.unwrap_or_else(|| Section::new(reader, name, &NOTHING))
}

fn apart(reader: &Reader, databases: &[DatabaseConfig], journal: &JournalConfig, field: Option<&Field<'_>>) {
    for database in databases {
        if let DatabaseTarget::Sqlite { path } = &database.target
            && (*path == journal.path || *path == journal.key)
        {
            let at = field.and_then(|field| field.node.at);
            reader.problem(
                at,
                "journal",
                format!("the database {} is the same file; give the journal and its key one each", database.name),
            );
        }
    }
}
