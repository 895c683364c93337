//! `databases`: where the print system's database is, and how to talk to it.

use std::time::Duration;

use super::read::{Field, Section};
use super::schema_map::{self, Profile};
use super::secrets::secret;
use super::url::{self, Url, is_loopback};
use super::{DatabaseConfig, DatabaseTarget};
use crate::domain::PinFormat;

const PROFILES: [(&str, Profile); 4] =
    [("safeq6", Profile::SafeQ6), ("safeq5", Profile::SafeQ5), ("sandbox", Profile::Sandbox), ("custom", Profile::Custom)];

/// Exactly one, so far.
pub(super) fn databases(field: &Field<'_>) -> Option<Vec<DatabaseConfig>> {
    let items = field.list("databases, each with name and url")?;
    if items.is_empty() {
        field.problem("expected one database with name and url");
    }
    for second in items.iter().skip(1) {
        second.problem("a second database is not yet supported; run one instance for each");
    }
    let first = items.first()?.section("a database: a mapping with name and url")?;
    database(first).map(|database| vec![database])
}

fn database(mut section: Section<'_>) -> Option<DatabaseConfig> {
    let name = section.required("name", "a short label for metrics and log").and_then(|name| name.line("a short label"));
    section.later("policies", "policies of one database");
    let target = target(&mut section);
    let profile = section.or("profile", Profile::SafeQ6, |profile| profile.choice(&PROFILES));
    let schema = schema(&mut section, profile, target.as_ref());
    let overrides = section.field("schema_map");
    let map = schema_map::resolve(section.reader, profile, overrides.as_ref(), &section.key_of("schema_map"));

    let pool_size = section.or("pool_size", 4, |size| size.whole(1..=64));
    let wait = Duration::from_millis(100)..=Duration::from_secs(3_600);
    let connect_timeout = section.or("connect_timeout", Duration::from_secs(10), |timeout| timeout.duration(wait.clone()));
    let statement_timeout = section.or("statement_timeout", Duration::from_secs(60), |timeout| timeout.duration(wait));
    let pin_format =
        section.or("pin_format", PinFormat::Md5, |form| form.word(&[("md5", PinFormat::Md5)], &["md5_without_prefix", "prefix", "plain"]));
    section.only("plain_max_length", &[("6", 6)], |length| length.whole(1..=16));
    section.later("cac_cipher", "card assignment codes");
    password_encoding(&mut section);
    let template_user = section.or("template_user", "template".to_owned(), |user| user.text("a login").map(str::to_owned));
    section.finish();

    Some(DatabaseConfig {
        name: name?,
        target: target?,
        schema: schema?,
        map: map?,
        pool_size: usize::try_from(pool_size).ok()?,
        connect_timeout,
        statement_timeout,
        pin_format,
        template_user: Some(template_user).filter(|user| !user.is_empty()),
    })
}

fn target(section: &mut Section<'_>) -> Option<DatabaseTarget> {
    let otherwise = section.later("connection_string", "connection strings");
    let url = section.required_unless(otherwise, "url", "postgres://USER@HOST:PORT/DATABASE or sqlite:FILE");
    let password_field = section.field("password");
    let password = password_field.as_ref().and_then(secret);
    let tls = section.field("tls");
    let encrypted = tls.as_ref().and_then(tls_mode);
    let url = url?;
    let Some(text) = url.scalar() else {
        url.problem("expected postgres://USER@HOST:PORT/DATABASE or sqlite:FILE");
        return None;
    };
    match url::parse(text) {
        Err(message) => {
            url.problem(message);
            None
        }
        Ok(Url::Sqlite(path)) => {
            if let Some(field) = password_field {
                field.problem("an SQLite file takes no password; remove the key");
            }
            Some(DatabaseTarget::Sqlite { path: section.reader.path(&path) })
        }
        Ok(Url::Postgres { host, port, database, user, password: in_url }) => {
            if in_url.is_some() {
                let warning =
                    format!("{} holds its password in plain text; {} keeps it out", url.key, section.key_of("password: {file: PATH}"));
                section.reader.warn(warning);
            }
            if let (Some(_), Some(field)) = (&in_url, &password_field) {
                field.problem("the url holds a password too; keep one of the two");
            }
            if tls.is_none() && !is_loopback(&host) {
                let advice = "TLS to the database is not yet supported, and it is the default for another machine; \
                              set tls: {mode: disable} if the network between is trusted";
                section.reader.problem(url.node.at, &section.key_of("tls"), advice);
            } else if encrypted == Some(false) && !is_loopback(&host) {
                section.reader.warn(format!("{}: what is said to the database at {host} crosses the network unencrypted", section.key()));
            }
            Some(DatabaseTarget::Postgres { hosts: vec![(host, port)], database, user, password: in_url.or(password) })
        }
    }
}

/// Whether TLS is wanted, once the refusal is noted.
fn tls_mode(field: &Field<'_>) -> Option<bool> {
    let mut section = field.section("{mode: disable}")?;
    let mode = section.required("mode", "disable (require, verify-ca, verify-full and strict are not yet supported)");
    for name in ["ca_file", "client_cert", "client_key", "server_name"] {
        section.later(name, "certificates for the database connection");
    }
    section.finish();
    let mode = mode?;
    match mode.scalar() {
        Some("require" | "verify-ca" | "verify-full" | "strict") => {
            mode.problem("TLS to the database is not yet supported; set mode: disable if the network between is trusted");
            Some(true)
        }
        _ => mode.choice(&[("disable", false)]),
    }
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

/// Checked, and not kept: no password is written yet.
fn password_encoding(section: &mut Section<'_>) {
    let Some(field) = section.field("password_encoding") else { return };
    if field.scalar().is_some() {
        field.word(&[("bcrypt", ())], &["md5", "md5_upper", "md5_base64", "md5_ldap"]);
    } else if let Some(mut inner) = field.section("bcrypt or {bcrypt: {cost: 12}}") {
        if let Some(mut bcrypt) = inner.required("bcrypt", "{cost: 12}").and_then(|bcrypt| bcrypt.section("{cost: 12}")) {
            bcrypt.or("cost", 12, |cost| cost.whole(4..=16));
            bcrypt.finish();
        }
        inner.finish();
    }
}
