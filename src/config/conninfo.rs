//! PostgreSQL's connection settings, as libpq writes them: `host=db.example.com dbname=SQDB6 user=credkeeper`, and the part of a
//! url after `?`. A message names keys and columns, never a value: any of them may hold a password by mistake.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::domain::Secret;

use super::encryption::Mode;
use super::read::{nearest, one_of};

/// One `key=value` as written.
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
}

/// What the settings say, once judged.
#[derive(Default)]
pub(super) struct Server {
    pub(super) hosts: Vec<(String, u16)>,
    pub(super) database: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) mode: Option<Mode>,
    /// Paths as written. `None` for the authorities of the system, too.
    pub(super) ca_file: Option<String>,
    pub(super) client_cert: Option<String>,
    pub(super) client_key: Option<String>,
    /// The host as named, where an address stands beside it.
    pub(super) server_name: Option<String>,
    /// Keys about encryption that were given.
    pub(super) encryption: Vec<&'static str>,
    /// Keys that were given and do nothing here.
    pub(super) idle: Vec<&'static str>,
}

/// The keys that count.
const TAKEN: [&str; 11] =
    ["host", "hostaddr", "port", "dbname", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs"];

/// Keys that change nothing that matters.
const IDLE: [&str; 14] = [
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslcompression",
    "sslsni",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
];

/// Keys that would change what happens: the values that are as if they were not there, and what to do about others.
const REFUSED: [(&str, &[&str], &str); 19] = [
    ("passfile", &[], "write `password: {file: PATH}` beside it, a file with nothing but the password"),
    ("service", &[], "write here what the service file says"),
    ("servicefile", &[], "write here what the service file says"),
    ("options", &[], "take it out; a search_path is `schema`, and timeouts have keys of their own"),
    ("sslcrl", &[], "take it out; lists of revoked certificates are not looked at"),
    ("sslcrldir", &[], "take it out; lists of revoked certificates are not looked at"),
    ("sslpassword", &[], "write the key into a file without a passphrase"),
    ("requiressl", &[], "write sslmode=require"),
    ("sslcertmode", &["allow"], "take it out: a certificate is shown when sslcert names one"),
    ("sslnegotiation", &["postgres"], "only the usual negotiation is supported: take it out"),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"], "TLS 1.2 is the least: set the server to more, and take it out"),
    ("ssl_max_protocol_version", &["TLSv1.3"], "it cannot be bounded: take it out"),
    ("gssencmode", &["disable", "prefer"], "GSSAPI is not supported: take it out"),
    ("channel_binding", &["disable", "prefer"], "it is used where it can be, and cannot be required: take it out"),
    ("require_auth", &[], "it cannot be chosen: take it out"),
    ("requirepeer", &[], "Unix sockets are not supported: take it out"),
    ("load_balance_hosts", &["disable"], "the one read-write host is used: take it out"),
    ("replication", &["false", "off", "no", "0"], "take it out"),
    ("sslkeylogfile", &[], "take it out"),
];

/// Takes a string apart, with libpq's rules: blanks between the pairs and around `=`, `'…'` around a value with blanks, `\`
/// before a `'` or a `\`.
///
/// # Errors
/// What is wrong, at which column.
pub(super) fn parse(text: &str) -> Result<Vec<Setting>, String> {
    let mut chars = text.chars().enumerate().peekable();
    let mut settings = Vec::new();
    loop {
        while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
        let Some(&(start, _)) = chars.peek() else { return Ok(settings) };
        let column = start + 1;
        let mut key = String::new();
        while let Some((_, c)) = chars.next_if(|(_, c)| *c != '=' && !c.is_ascii_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
        if chars.next_if(|(_, c)| *c == '=').is_none() || key.is_empty() {
            return Err(format!(
                "column {column}: expected KEY=VALUE; a value with blanks or a quotation mark is written 'like \\'this\\''"
            ));
        }
        while chars.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
        let quoted = chars.next_if(|(_, c)| *c == '\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next_if(|(_, c)| quoted || !c.is_ascii_whitespace()) {
                Some((_, '\'')) if quoted => break,
                Some((_, '\\')) => value.extend(chars.next().map(|(_, c)| c)),
                Some((_, c)) => value.push(c),
                None if quoted => return Err(format!("column {column}: the ' of this value is never closed")),
                None => break,
            }
        }
        settings.push(Setting { key, value });
    }
}

/// # Errors
/// All that is wrong.
pub(super) fn judge(settings: &[Setting]) -> Result<Server, Vec<String>> {
    let mut problems = Vec::new();
    let mut server = Server::default();
    let mut seen = BTreeSet::new();
    let (mut hosts, mut addresses, mut ports) = (Vec::new(), Vec::new(), Vec::new());
    for Setting { key, value } in settings {
        let key = key.as_str();
        if !seen.insert(key) {
            problems.push(format!("{} is given twice", shown(key)));
        }
        if let Some((_, harmless, advice)) = REFUSED.iter().find(|(name, ..)| *name == key) {
            if !value.is_empty() && !harmless.contains(&value.as_str()) {
                problems.push(format!("{key} is not supported: {advice}"));
            }
            continue;
        }
        if let Some(name) = IDLE.iter().find(|name| **name == key) {
            server.idle.push(name);
            continue;
        }
        if !TAKEN.contains(&key) {
            problems.push(unknown(key));
            continue;
        }
        // As with libpq, nothing is the same as leaving it out.
        if value.is_empty() {
            continue;
        }
        if value.contains(char::is_control) {
            problems.push(format!("{key} has control characters in it"));
            continue;
        }
        match key {
            "host" => hosts = value.split(',').collect(),
            "hostaddr" => addresses = value.split(',').collect(),
            "port" => ports = value.split(',').collect(),
            "dbname" => server.database = Some(value.clone()),
            "user" => server.user = Some(value.clone()),
            "password" => server.password = Some(Secret::new(value.clone())),
            "target_session_attrs" if ["any", "read-write", "primary"].contains(&value.as_str()) => {}
            "target_session_attrs" => problems.push("target_session_attrs is to be read-write: credkeeper writes".to_owned()),
            _ => encryption(&mut server, key, value, &mut problems),
        }
    }
    match where_to(&hosts, &addresses, &ports) {
        Ok(found) => server.hosts = found,
        Err(problem) => problems.push(problem),
    }
    if let ([name], [_]) = (&hosts[..], &addresses[..]) {
        server.server_name = Some((*name).to_owned());
    }
    for (name, given) in [("dbname", &server.database), ("user", &server.user)] {
        if given.is_none() {
            problems.push(format!("{name} is required: {name}=…"));
        }
    }
    if problems.is_empty() { Ok(server) } else { Err(problems) }
}

fn encryption(server: &mut Server, key: &str, value: &str, problems: &mut Vec<String>) {
    match key {
        "sslmode" => {
            server.encryption.push("sslmode");
            match value {
                "allow" | "prefer" => problems.push(format!(
                    "sslmode is one that falls back to an unencrypted connection in silence; write {}, or leave it out (verify-full)",
                    one_of(&Mode::NAMES.map(|(name, _)| name))
                )),
                _ => match Mode::NAMES.iter().find(|(name, _)| *name == value) {
                    Some((_, mode)) => server.mode = Some(*mode),
                    None => problems.push(format!("sslmode is to be {}", one_of(&Mode::NAMES.map(|(name, _)| name)))),
                },
            }
        }
        "sslrootcert" => {
            server.encryption.push("sslrootcert");
            server.ca_file = Some(value.to_owned()).filter(|value| value != "system");
        }
        "sslcert" => {
            server.encryption.push("sslcert");
            server.client_cert = Some(value.to_owned());
        }
        _ => {
            server.encryption.push("sslkey");
            server.client_key = Some(value.to_owned());
        }
    }
}

/// What messages may tell of a setting.
pub(super) fn told(setting: &Setting) -> impl Iterator<Item = &str> {
    let is_known = |key: &&str| TAKEN.contains(key) || IDLE.contains(key) || REFUSED.iter().any(|(name, ..)| name == key);
    let key = Some(setting.key.as_str()).filter(|key| !is_known(key));
    let values = if matches!(setting.key.as_str(), "host" | "hostaddr" | "dbname" | "user") { setting.value.as_str() } else { "" };
    key.into_iter().chain(values.split(',')).chain([values])
}

/// Hosts and ports side by side; one port serves all.
fn where_to(hosts: &[&str], addresses: &[&str], ports: &[&str]) -> Result<Vec<(String, u16)>, String> {
    let named = match (hosts, addresses) {
        ([], []) => return Err("host is required: host=db.example.com, or several with commas".to_owned()),
        (hosts, []) => hosts,
        ([_] | [], [_]) | ([], _) => addresses,
        _ => return Err("hostaddr with several hosts is not supported: name the hosts, or the addresses, alone".to_owned()),
    };
    if addresses.iter().any(|address| address.parse::<IpAddr>().is_err()) {
        return Err("hostaddr is to be an IP address".to_owned());
    }
    if named.iter().any(|host| host.is_empty() || host.starts_with(['/', '@'])) {
        return Err("host: Unix sockets are not supported; name a host".to_owned());
    }
    if named.iter().any(|host| host.contains(char::is_whitespace)) {
        return Err("host has blanks in it; several are parted by commas alone".to_owned());
    }
    if ports.len() > 1 && ports.len() != named.len() {
        return Err(format!("port: {} of them for {} hosts; write one for each, or one for all", ports.len(), named.len()));
    }
    let port = |i: usize| match ports.get(i).or(ports.first().filter(|_| ports.len() == 1)) {
        None | Some(&"") => Ok(5432),
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| "port is to be a number from 1 to 65535".to_owned()),
    };
    named.iter().enumerate().map(|(i, host)| Ok(((*host).to_owned(), port(i)?))).collect()
}

fn unknown(key: &str) -> String {
    let known: Vec<&str> = TAKEN.iter().copied().chain(IDLE).chain(REFUSED.map(|(name, ..)| name)).collect();
    match nearest(key, &known) {
        Some(near) => format!("{} is no setting of a connection; did you mean {near}?", shown(key)),
        None => format!("{} is no setting of a connection; known are {}", shown(key), one_of(&TAKEN)),
    }
}

/// What a key of the `tls` section is called here.
pub(super) fn name_of(key: &str) -> &str {
    match key {
        "ca_file" => "sslrootcert",
        "client_cert" => "sslcert",
        "client_key" => "sslkey",
        other => other,
    }
}

/// A key as written: part of a password may stand where a key is expected, so only what looks like a key is repeated.
fn shown(key: &str) -> &str {
    let like_a_key = key.len() <= 30 && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if like_a_key { key } else { "one of the keys" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As an administrator or a program would write it.
    fn quoted(value: &str) -> String {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
    }

    fn show(text: &str) -> String {
        let server = match parse(text).map_err(|problem| vec![problem]).and_then(|settings| judge(&settings)) {
            Ok(server) => server,
            Err(problems) => return format!("error {}", problems.join(" | ")),
        };
        let hosts: Vec<String> = server.hosts.iter().map(|(host, port)| format!("{host} {port}")).collect();
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        format!(
            "{}:{} at {} / {}; {:?} {} {} {} {}; {:?}",
            part(&server.user),
            server.password.as_ref().map_or("-", Secret::expose),
            hosts.join(", "),
            part(&server.database),
            server.mode,
            part(&server.ca_file),
            part(&server.client_cert),
            part(&server.client_key),
            part(&server.server_name),
            server.idle
        )
    }

    #[test]
    fn strings_are_read_as_libpq_does() {
        for (text, parts) in [
            ("host=h dbname=d user=u", "u:- at h 5432 / d; None - - - -; []"),
            ("  host = h\n\tport= 1 dbname ='d d'   user='u\\'\\\\x' password=a\\ b\\'", "u'\\x:a b' at h 1 / d d; None - - - -; []"),
            ("host=a,b port=1,2 dbname=d user=u password='' target_session_attrs=read-write", "u:- at a 1, b 2 / d; None - - - -; []"),
            ("host=a,b port=7 dbname=d user=u", "u:- at a 7, b 7 / d; None - - - -; []"),
            ("host=db hostaddr=10.0.0.1 dbname=d user=u", "u:- at 10.0.0.1 5432 / d; None - - - db; []"),
            ("hostaddr=::1,10.0.0.1 dbname=d user=u", "u:- at ::1 5432, 10.0.0.1 5432 / d; None - - - -; []"),
            (
                "host=h dbname=d user=u sslmode=verify-ca sslrootcert='C:\\\\ca dir\\\\ca.pem' sslcert=c.pem sslkey=k.pem",
                "u:- at h 5432 / d; Some(VerifyCa) C:\\ca dir\\ca.pem c.pem k.pem -; []",
            ),
            (
                "host=h dbname=d user=u sslmode=verify-full sslrootcert=system application_name='x y' gssencmode=disable",
                "u:- at h 5432 / d; Some(VerifyFull) - - - -; [\"application_name\"]",
            ),
        ] {
            assert_eq!(show(text), parts, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_a_value() {
        for (text, told) in [
            ("", "host is required: host=db.example.com, or several with commas | dbname is required: dbname=… | user is required: user=…"),
            (
                "host=h dbname=d user=u S3cret",
                "column 24: expected KEY=VALUE; a value with blanks or a quotation mark is written 'like \\'this\\''",
            ),
            ("host=h dbname=d user=u password='S3cret", "column 24: the ' of this value is never closed"),
            (
                "host=h dbname=d user=u password=a S3cret=b",
                "one of the keys is no setting of a connection; known are host, hostaddr, port, dbname, user, password, sslmode, sslrootcert, sslcert, sslkey or target_session_attrs",
            ),
            ("host=h dbname=d user=u pasword=S3cret", "pasword is no setting of a connection; did you mean password?"),
            ("host=h host=S3cret dbname=d user=u", "host is given twice"),
            (
                "host=h dbname=d user=u sslmode=prefer",
                "sslmode is one that falls back to an unencrypted connection in silence; write disable, require, verify-ca or verify-full, or leave it out (verify-full)",
            ),
            ("host=h dbname=d user=u sslmode=S3cret", "sslmode is to be disable, require, verify-ca or verify-full"),
            (
                "host=h dbname=d user=u passfile=S3cret",
                "passfile is not supported: write `password: {file: PATH}` beside it, a file with nothing but the password",
            ),
            (
                "host=h dbname=d user=u options='-c search_path=S3cret'",
                "options is not supported: take it out; a search_path is `schema`, and timeouts have keys of their own",
            ),
            ("host=h dbname=d user=u port=S3cret", "port is to be a number from 1 to 65535"),
            ("host=a,b,c dbname=d user=u port=1,2", "port: 2 of them for 3 hosts; write one for each, or one for all"),
            (
                "host=a,b hostaddr=10.0.0.1,10.0.0.2 dbname=d user=u",
                "hostaddr with several hosts is not supported: name the hosts, or the addresses, alone",
            ),
            ("hostaddr=S3cret dbname=d user=u", "hostaddr is to be an IP address"),
            ("host=/run/S3cret dbname=d user=u", "host: Unix sockets are not supported; name a host"),
            ("host='a, b' dbname=d user=u", "host has blanks in it; several are parted by commas alone"),
            ("host=h dbname=d user=u target_session_attrs=standby", "target_session_attrs is to be read-write: credkeeper writes"),
            ("host=h dbname=d user='u\nS3cret'", "user has control characters in it | user is required: user=…"),
        ] {
            assert_eq!(show(text), format!("error {told}"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_value_survives_being_written_and_read(pairs in prop::collection::vec(("[a-z_]{1,12}", any::<String>()), 0..6)) {
            let text: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
            let read: Vec<(String, String)> = parse(&text.join(" ")).unwrap().into_iter().map(|s| (s.key, s.value)).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn no_text_brings_it_down_or_is_repeated(text in "[a-z=' \\\\,]{0,30}", secret in "[A-Z]{6}") {
            let told = show(&format!("{text}password='{secret}' {secret}={secret} host={secret}"));
            prop_assert!(!told.starts_with("error") || !told.contains(&secret), "{}", told);
        }
    }
}
