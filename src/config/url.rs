//! Database addresses, `postgres://…` and `sqlite:…`. A message never repeats the address: a password may stand in it.

use std::net::IpAddr;

use super::conninfo::Setting;

/// What a url says, before it is judged.
pub(super) enum Url {
    /// The path as written.
    Sqlite(String),
    /// Host, port, database, user, password, and what stands after `?`.
    Postgres(Vec<Setting>),
}

const SHAPE: &str = "expected postgres://USER@HOST:PORT/DATABASE or sqlite:FILE";

/// # Errors
/// What is wrong, and what would be accepted.
pub(super) fn parse(url: &str) -> Result<Url, String> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        return sqlite(path);
    }
    if let Some(rest) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")) {
        return postgres(rest);
    }
    if url.starts_with("sqlserver://") {
        return Err("SQL Server is not yet supported; use postgres:// or sqlite:".to_owned());
    }
    Err(SHAPE.to_owned())
}

/// `localhost`, 127.0.0.0/8 or ::1: what is said there crosses no network.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn sqlite(path: &str) -> Result<Url, String> {
    let path = path.strip_prefix("//").unwrap_or(path);
    match path {
        "" => Err("expected a file after sqlite:".to_owned()),
        ":memory:" => Err("a database in memory is gone with the program; expected a file after sqlite:".to_owned()),
        _ if path.contains(char::is_control) => Err("the file's name has control characters in it".to_owned()),
        _ => Ok(Url::Sqlite(path.to_owned())),
    }
}

fn postgres(rest: &str) -> Result<Url, String> {
    if rest.contains('#') {
        return Err("holds a #; write it as %23, and a ? as %3F".to_owned());
    }
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').ok_or_else(|| format!("names no database; {SHAPE}"))?;
    // The last @: one in a password should be %40, but the host cannot hold one.
    let (login, hosts) = authority.rsplit_once('@').ok_or_else(|| format!("names no user; {SHAPE}"))?;
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let part = |text: &str, what: &str| match decoded(text) {
        Some(part) if part.is_empty() => Err(format!("names no {what}; {SHAPE}")),
        Some(part) if part.contains(char::is_control) => Err(format!("the {what} has control characters in it")),
        Some(part) => Ok(part),
        None => Err(format!("the {what} is not percent-encoded UTF-8: write % as %25")),
    };
    let mut named = Vec::new();
    for text in hosts.split(',') {
        let (host, port) = host_and_port(text)?;
        let host = part(host, "host")?;
        if host.starts_with('/') {
            return Err("Unix sockets are not yet supported; name a host".to_owned());
        }
        if host.contains(|c: char| c.is_whitespace() || c == ',') {
            return Err("the host has blanks or commas in it".to_owned());
        }
        named.push((host, port.to_string()));
    }
    let (hosts, ports): (Vec<_>, Vec<_>) = named.into_iter().unzip();
    let mut settings = Vec::new();
    let mut set = |key: &str, value: String| settings.push(Setting { key: key.to_owned(), value });
    set("host", hosts.join(","));
    set("port", ports.join(","));
    set("dbname", part(database, "database")?);
    set("user", part(user, "user")?);
    if let Some(password) = password {
        set("password", part(password, "password")?);
    }
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let pair = parameter.split_once('=').and_then(|(key, value)| Some((decoded(key)?, decoded(value)?)));
        let (key, value) = pair.ok_or("after the ? stands something that is not KEY=VALUE, percent-encoded and parted by &")?;
        set(&key, value);
    }
    Ok(Url::Postgres(settings))
}

fn host_and_port(text: &str) -> Result<(&str, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("the host's [ has no closing ]")?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")).ok_or("expected :PORT after the host's ]")?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let number = if port.is_empty() { Some(5432) } else { port.parse().ok().filter(|port| *port > 0) };
    Ok((host, number.ok_or("the port is no number from 1 to 65535; write a : in another part as %3A")?))
}

/// Percent-decoded; `None` where that gives no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        bytes.push(digit()? * 16 + digit()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::conninfo::judge;
    use crate::domain::Secret;

    fn show(url: &str) -> String {
        match parse(url) {
            Ok(Url::Sqlite(path)) => format!("file {path}"),
            Ok(Url::Postgres(settings)) => match judge(&settings) {
                Ok(server) => {
                    let hosts: Vec<String> = server.hosts.iter().map(|(host, port)| format!("{host} {port}")).collect();
                    let (user, database) = (server.user.unwrap_or_default(), server.database.unwrap_or_default());
                    format!("{user}:{} at {} / {database}", server.password.as_ref().map_or("-", Secret::expose), hosts.join(", "))
                }
                Err(problems) => format!("error {}", problems.join(" | ")),
            },
            Err(message) => format!("error {message}"),
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (url, parts) in [
            ("sqlite:sandbox.db", "file sandbox.db"),
            ("sqlite:C:\\data\\sandbox.db", "file C:\\data\\sandbox.db"),
            ("sqlite:///var/lib/x.db", "file /var/lib/x.db"),
            ("postgres://u@h/d", "u:- at h 5432 / d"),
            ("postgresql://u:p@h:1/d", "u:p at h 1 / d"),
            ("postgres://a%40b:p%3A%2F%20@[::1]:5433/my%2Ddb", "a@b:p:/  at ::1 5433 / my-db"),
            ("postgres://u:p@q@h/d", "u:p@q at h 5432 / d"),
            ("postgres://u@[::1]/d", "u:- at ::1 5432 / d"),
            ("postgres://u@a:1,[::1]:2,c/d", "u:- at a 1, ::1 2, c 5432 / d"),
            ("postgres://u@h/d?sslmode=require&sslrootcert=my%20ca.pem&", "u:- at h 5432 / d"),
        ] {
            assert_eq!(show(url), parts, "{url}");
        }
    }

    #[test]
    fn a_wrong_address_is_explained_without_being_repeated() {
        for url in [
            "",
            "postgres://",
            "postgres://h/d",
            "postgres://u@h",
            "postgres://u@/d",
            "postgres://u@h/",
            "postgres://@h/d",
            "postgres://u:S3cret@h:x/d",
            "postgres://u:S3cret@h:0/d",
            "postgres://u:S3cret%zz@h/d",
            "postgres://u:S3cret@h,/d",
            "postgres://u:S3cret@h,i:x/d",
            "postgres://u:S3cret@h%2Ci/d",
            "postgres://u:S3cret@h/d?sslmode=S3cret",
            "postgres://u:S3cret@h/d?S3cret",
            "postgres://u:S3cret@h/d?S3cret=S3cret",
            "postgres://u:S3cret@h/d?password=S3cret",
            "postgres://u:S3cret?@h/d",
            "postgres://u:#S3cret@h/d",
            "postgres://u:S3cret@[::1/d",
            "postgres://u:%00S3cret@h/d",
            "postgres://u@%2Frun/d",
            "mysql://u:S3cret@h/d",
            "sqlite:",
            "sqlite::memory:",
            "sqlserver://u:S3cret@h/d",
            "postgres://u:S3cret@a b/d",
            "postgres://u:%ffS3cret@h/d",
        ] {
            let shown = show(url);
            assert!(shown.starts_with("error ") && !shown.contains("S3cret"), "{url}: {shown}");
        }
    }

    #[test]
    fn loopback_is_known_by_name_and_number() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["db", "localhost.example.com", "10.0.0.1", "0.0.0.0", "::", "127.0.0.1.example.com"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
