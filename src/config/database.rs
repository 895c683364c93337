//! `databases`: where the print system's database is, and how to talk to it.

use std::time::Duration;

use super::conninfo::{self, Server};
use super::credentials;
use super::encryption::{self, Wanted};
use super::read::{Field, Section};
use super::schema_map::{self, Profile};
use super::secrets::{refuse_foreign, secret};
use super::url::{self, Url, is_loopback};
use super::yaml::{Data, Place};
use super::{DatabaseConfig, DatabaseTarget};
use crate::domain::{PinFormat, Secret};
use crate::policy::Needs;
use crate::tls::Verify;

const PROFILES: [(&str, Profile); 4] =
    [("safeq6", Profile::SafeQ6), ("safeq5", Profile::SafeQ5), ("sandbox", Profile::Sandbox), ("custom", Profile::Custom)];

/// An entry of `databases`, before its policies are read.
pub(super) struct Entry<'a> {
    pub(super) at: Place,
    /// As `databases[0]`.
    pub(super) key: String,
    /// Policies of its own.
    pub(super) policies: Option<Field<'a>>,
    /// Without policies yet; `None` where something is wrong with it.
    pub(super) config: Option<DatabaseConfig>,
}

/// One or more, with different names, and none twice.
pub(super) fn databases<'a>(field: &Field<'a>) -> Option<Vec<Entry<'a>>> {
    let items = field.list("databases, each with name and url")?;
    if items.is_empty() {
        field.problem("expected one database or more, each with name and url");
        return None;
    }
    let sections = items.iter().filter_map(|item| item.section("a database: a mapping with name and url"));
    let entries: Vec<Entry<'a>> = sections.map(database).collect();
    for (index, later) in entries.iter().enumerate() {
        let Some(config) = &later.config else { continue };
        let before = entries[..index].iter().filter_map(|entry| Some((&entry.key, entry.config.as_ref()?)));
        for (key, earlier) in before {
            if earlier.name == config.name {
                field.reader.problem(later.at, &format!("{}.name", later.key), format!("`{}` is the name of {key} already", config.name));
            } else if is_same(earlier, config) {
                field.reader.problem(
                    later.at,
                    &later.key,
                    format!(
                        "is the same as {key}: two entries for one schema would serve its users twice; name another schema, or remove one"
                    ),
                );
            }
        }
    }
    (!entries.is_empty()).then_some(entries)
}

/// Whether both mean the same tables, as far as the configuration tells.
fn is_same(one: &DatabaseConfig, other: &DatabaseConfig) -> bool {
    let at_one_server = match (&one.target, &other.target) {
        (DatabaseTarget::Postgres { hosts: these, .. }, DatabaseTarget::Postgres { hosts: those, .. }) => {
            these.iter().any(|(host, port)| those.iter().any(|(other, its)| port == its && host.eq_ignore_ascii_case(other)))
        }
        _ => true, // a file is known by its path
    };
    at_one_server && one.identity() == other.identity()
}

fn database(mut section: Section<'_>) -> Entry<'_> {
    // An empty list of its own is none: the list at the top level serves.
    let policies = section.field("policies").filter(|field| !matches!(&field.node.data, Data::List(items) if items.is_empty()));
    let (at, key) = (section.at(), section.key().to_owned());
    Entry { at, key, policies, config: settings(section) }
}

/// All but the policies.
fn settings(mut section: Section<'_>) -> Option<DatabaseConfig> {
    let name = section.required("name", "a short label for metrics and log").and_then(|name| name.line("a short label"));
    let target = target(&mut section);
    let profile = section.or("profile", Profile::SafeQ6, |profile| profile.choice(&PROFILES));
    let schema = schema(&mut section, profile, target.as_ref());
    let overrides = section.field("schema_map");
    let map = schema_map::resolve(section.reader, profile, overrides.as_ref(), &section.key_of("schema_map"));

    let pool_size = section.or("pool_size", 4, |size| size.whole(1..=64));
    let wait = Duration::from_millis(100)..=Duration::from_secs(3_600);
    let connect_timeout = section.or("connect_timeout", Duration::from_secs(10), |timeout| timeout.duration(wait.clone()));
    let statement_timeout = section.or("statement_timeout", Duration::from_secs(60), |timeout| timeout.duration(wait));
    let pin_format = pin_format(&mut section);
    let cac_cipher = credentials::cac_cipher(&mut section);
    let password_encoding = credentials::password_encoding(&mut section);
    let template_user = section.or("template_user", "template".to_owned(), |user| user.text("a login").map(str::to_owned));
    section.finish();

    Some(DatabaseConfig {
        name: name?,
        policies: Vec::new(),
        target: target?,
        schema: schema?,
        map: map?,
        pool_size: usize::try_from(pool_size).ok()?,
        connect_timeout,
        statement_timeout,
        pin_format,
        cac_cipher,
        password_encoding,
        needs: Needs::default(), // the policies come later
        template_user: Some(template_user).filter(|user| !user.is_empty()),
    })
}

const URL: &str = "postgres://USER@HOST:PORT/DATABASE or sqlite:FILE";

/// From `url` or `connection_string`, `password` and `tls`.
fn target(section: &mut Section<'_>) -> Option<DatabaseTarget> {
    let string = section.field("connection_string");
    let url = section.required_unless(string.is_some(), "url", URL);
    let password = section.field("password");
    let tls = section.field("tls");
    let beside = Beside { password: password.as_ref().and_then(secret), password_field: password, tls };
    if let (Some(string), Some(_)) = (&string, &url) {
        string.problem("url is given too; keep one of the two");
        return None;
    }
    let field = url.or(string)?;
    let Some(text) = field.scalar() else {
        field.problem(format!("expected {URL}"));
        return None;
    };
    if !refuse_foreign(&field, text) {
        return None;
    }
    let is_string = field.key.ends_with("connection_string");
    let settings = if is_string && !text.contains("://") && !text.starts_with("sqlite:") {
        let driver = text.split(';').any(|part| part.trim_start().get(..7).is_some_and(|key| key.eq_ignore_ascii_case("driver=")));
        if driver || text.split(';').any(|part| part.trim_start().get(..7).is_some_and(|key| key.eq_ignore_ascii_case("server="))) {
            field.problem("connection strings of SQL Server are not yet supported; use PostgreSQL's, host=… dbname=… user=…");
            return None;
        }
        conninfo::parse(text)
    } else {
        match url::parse(text) {
            Ok(Url::Postgres(settings)) => Ok(settings),
            Ok(Url::Sqlite(path)) => {
                for (field, what) in [(&beside.password_field, "password"), (&beside.tls, "tls")] {
                    if let Some(field) = field {
                        field.problem(format!("an SQLite file takes no {what}; remove the key"));
                    }
                }
                return Some(DatabaseTarget::Sqlite { path: section.reader.path(&path) });
            }
            Err(message) => Err(message),
        }
    };
    // No part may be told of an address that was sealed whole, however it is written there.
    let reader = section.reader;
    let is_sealed = |part: &str| reader.is_part_of_secret(text) || reader.is_secret(part);
    settings.iter().flatten().flat_map(conninfo::told).filter(|told| is_sealed(told)).for_each(|told| reader.conceal(told));
    match settings.map_err(|message| vec![message]).and_then(|settings| conninfo::judge(&settings)) {
        Ok(server) => postgres(section, &field, server, beside),
        Err(problems) => {
            problems.into_iter().for_each(|problem| field.problem(problem));
            None
        }
    }
}

/// The keys beside the address.
struct Beside<'a> {
    password_field: Option<Field<'a>>,
    password: Option<Secret>,
    tls: Option<Field<'a>>,
}

fn postgres(section: &Section<'_>, field: &Field<'_>, server: Server, beside: Beside<'_>) -> Option<DatabaseTarget> {
    let reader = section.reader;
    if let Some(password) = &server.password {
        if !reader.is_secret(password.expose()) && !field.scalar().is_some_and(|text| reader.is_part_of_secret(text)) {
            let instead = section.key_of("password: {file: PATH}");
            reader.warn_of_secret(format!("{} holds its password in plain text; {instead}, or `credkeeper seal`, keeps it out", field.key));
        }
        if let Some(beside) = &beside.password_field {
            let name = if field.key.ends_with("url") { "url" } else { "connection string" };
            beside.problem(format!("the {name} holds a password too; keep one of the two"));
        }
    }
    if !server.idle.is_empty() {
        let hint = if server.idle.contains(&"connect_timeout") { "; the timeout that counts is the key beside it" } else { "" };
        reader.warn(format!("{}: these settings are not used: {}{hint}", field.key, server.idle.join(", ")));
    }
    let wanted = match &beside.tls {
        Some(tls) if !server.encryption.is_empty() => {
            tls.problem(format!("the address says {} already; keep it here or there", server.encryption.join(", ")));
            return None;
        }
        Some(tls) => encryption::section(tls)?,
        None => {
            let path = |written: &Option<String>| written.as_ref().map(|written| reader.path(written));
            Wanted {
                mode: server.mode,
                ca_file: path(&server.ca_file),
                client_cert: path(&server.client_cert),
                client_key: path(&server.client_key),
                server_name: None,
            }
        }
    };
    let mut tls = match encryption::settings(wanted, &server.hosts) {
        Ok(tls) => tls,
        Err(problems) => {
            for (key, problem) in problems {
                match &beside.tls {
                    Some(tls) => reader.problem(tls.node.at, &format!("{}.{key}", tls.key), problem),
                    None => field.problem(format!("{}: {problem}", conninfo::name_of(key))),
                }
            }
            return None;
        }
    };
    if let (Some(tls), Some(name)) = (&mut tls, server.server_name) {
        tls.server_name.get_or_insert(name);
    }
    let away: Vec<&str> = server.hosts.iter().map(|(host, _)| host.as_str()).filter(|host| !is_loopback(host)).collect();
    if let Some(host) = away.first() {
        match &tls {
            None => reader.warn(format!("{}: what is said to the database at {host} crosses the network unencrypted", section.key())),
            Some(tls) if tls.verify == Verify::Nothing => reader.warn(format!(
                "{}: the certificate of the database at {host} is not verified: whoever stands in between can read along. Name its authority in tls.ca_file, with mode: verify-full",
                section.key()
            )),
            Some(_) => {}
        }
    }
    let password = server.password.or(beside.password);
    Some(DatabaseTarget::Postgres { hosts: server.hosts, database: server.database?, user: server.user?, password, tls })
}

/// Absent: the profile's, where the product has schemas. Empty: the connection's default.
fn schema(section: &mut Section<'_>, profile: Profile, target: Option<&DatabaseTarget>) -> Option<Option<String>> {
    let in_file = matches!(target, Some(DatabaseTarget::Sqlite { .. }));
    let Some(field) = section.field("schema") else {
        return Some(profile.schema().filter(|_| !in_file).map(str::to_owned));
    };
    let name = field.text("the name of a schema")?;
    if name.is_empty() {
        return Some(None);
    }
    if in_file {
        field.problem("an SQLite file has no schemas; remove the key");
        return None;
    }
    schema_map::name(&field).map(Some)
}

/// `pin_format`, and `plain_max_length` with the one form that needs it.
fn pin_format(section: &mut Section<'_>) -> PinFormat {
    let longest = section.field("plain_max_length");
    let digits = longest.as_ref().and_then(|field| field.whole(1..=16)).and_then(|digits| u8::try_from(digits).ok());
    let plain = PinFormat::Plain { max_length: digits.unwrap_or(6) };
    let forms =
        [("md5", PinFormat::Md5), ("md5_without_prefix", PinFormat::Md5WithoutPrefix), ("prefix", PinFormat::Prefix), ("plain", plain)];
    let format = section.or("pin_format", PinFormat::Md5, |form| form.choice(&forms));
    match (&longest, format) {
        // The example shows it beside the default, and there it does no harm.
        (Some(field), PinFormat::Md5 | PinFormat::Md5WithoutPrefix | PinFormat::Prefix) if digits.is_some_and(|digits| digits != 6) => {
            field.problem("has a meaning with pin_format: plain only; remove the key");
        }
        (None, PinFormat::Plain { .. }) => section.reader.warn(format!(
            "{}: values of up to 6 digits are PINs and longer ones are cards, as plain_max_length is not given; a card with so few digits would be replaced",
            section.key()
        )),
        _ => {}
    }
    format
}
