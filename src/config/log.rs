//! `log`: how much is heard, and where it goes.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use tracing::Level;

use super::mail::wire::{blamed, identity, said};
use super::read::{Field, Section, nearest, one_of};
use super::{Levels, LogConfig, LogFile, LogServer, is_loopback};
use crate::domain::printable;
use crate::tls::{TlsSettings, Verify, client_config};

const LEVELS: [(&str, Level); 5] =
    [("error", Level::ERROR), ("warn", Level::WARN), ("info", Level::INFO), ("debug", Level::DEBUG), ("trace", Level::TRACE)];

/// Without a section, everything has its default.
pub(super) fn log(mut section: Section<'_>) -> LogConfig {
    let everyday = Levels { default: Level::INFO, rooms: BTreeMap::new() };
    let levels = section.or("level", everyday, levels);
    let json = section.or("format", false, |format| format.choice(&[("text", false), ("json", true)]));
    let file = section.field("file").and_then(|field| file(&field));
    let remote = section.field("remote").and_then(|field| remote(&field));
    section.finish();
    LogConfig { levels, json, file, remote }
}

/// `info`, or with rooms that differ, `info,mail=debug,store=trace`.
fn levels(field: &Field<'_>) -> Option<Levels> {
    let words = LEVELS.map(|(word, _)| word);
    let shape = format!("{}; or with rooms of their own, info,mail=debug", one_of(&words));
    let Some(text) = field.scalar() else { return field.misfit(shape) };
    let level = |word: &str| LEVELS.iter().find(|(name, _)| *name == word).map(|(_, level)| *level);
    let (mut default, mut rooms) = (None, BTreeMap::new());
    for item in text.split(',').map(str::trim) {
        let twice = match item.split_once('=') {
            None => match level(item) {
                Some(level) => default.replace(level).is_some(),
                None => return field.misfit(shape),
            },
            Some((room, word)) => {
                let room = room.strip_prefix("credkeeper::").unwrap_or(room);
                let Some(level) = level(word) else { return field.misfit(shape) };
                if !all_rooms().any(|known| known == room) {
                    return unknown_room(field, room);
                }
                rooms.insert(room.to_owned(), level).is_some()
            }
        };
        if twice {
            field.problem("says two levels for the same; keep one of them");
            return None;
        }
    }
    Some(Levels { default: default.unwrap_or(Level::INFO), rooms })
}

fn unknown_room(field: &Field<'_>, room: &str) -> Option<Levels> {
    let known: Vec<&str> = all_rooms().collect();
    let hint = match nearest(room, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the rooms are {}", one_of(&known)),
    };
    field.problem(format!("`{}` is no room of credkeeper; {hint}", printable(room)));
    None
}

/// The rooms of the crate, from the file that declares them, so that no list of them grows old.
fn all_rooms() -> impl Iterator<Item = &'static str> {
    include_str!("../lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
}

fn file(field: &Field<'_>) -> Option<LogFile> {
    let mut section = field.section("{path: credkeeper.log}, or null for the standard error")?;
    let path = section.required("path", "the path of the log file").and_then(|path| path.path());
    // Less than a few lines would only rotate.
    let max_bytes = section.or("max_size", 8 << 20, |size| size.size((4 << 10)..=(1 << 40)));
    let backups = section.or("backups", 9, |backups| backups.whole(0..=1_000));
    section.finish();
    Some(LogFile { path: path?, max_bytes, backups: u32::try_from(backups).ok()? })
}

fn remote(field: &Field<'_>) -> Option<LogServer> {
    let mut section = field.section("{address: \"logs.example.com:6514\", protocol: syslog-tls}, or null for none")?;
    let address = section.required("address", ADDRESS).and_then(|address| host_and_port(&address));
    let encrypted = section.or("protocol", true, |protocol| protocol.choice(&[("syslog-tls", true), ("syslog-tcp", false)]));
    let (ca_file, client) = (section.field("ca_file"), section.field("client_certificate"));
    let reader = section.reader;
    section.finish();
    if !encrypted {
        let idle = [&ca_file, &client].into_iter().flatten();
        idle.for_each(|field| field.problem("has no effect with protocol: syslog-tcp; remove one of the two"));
    }
    let (host, port) = address?;
    if !encrypted {
        if !is_loopback(&host) {
            reader.warn(format!("log.remote: what happens, to whom, crosses the network to {host} unencrypted; use protocol: syslog-tls"));
        }
        return Some(LogServer { host, port, tls: None });
    }
    let path = |field: &Option<Field<'_>>| field.as_ref().map_or(Some(None), |field| field.path().map(Some));
    let identity = client.as_ref().map_or(Some(None), |client| identity(client).map(Some));
    let settings = TlsSettings { verify: Verify::Full, ca_file: path(&ca_file)?, ca_directory: None, client: identity?, server_name: None };
    // The system's authorities are left for the first connection.
    if (settings.ca_file.is_some() || settings.client.is_some())
        && let Err(error) = client_config(&settings)
        && let Some(field) = blamed(&error, ca_file, None, client)
    {
        field.problem(said(&error));
        return None;
    }
    Some(LogServer { host, port, tls: Some(settings) })
}

const ADDRESS: &str = "a host and a port, such as logs.example.com:6514 or [2001:db8::5]:6514";

fn host_and_port(field: &Field<'_>) -> Option<(String, u16)> {
    let parts = || {
        let (host, port) = field.scalar()?.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
        };
        let port = port.parse().ok().filter(|port| is_host && *port > 0)?;
        Some((bare.unwrap_or(host).to_owned(), port))
    };
    parts().or_else(|| field.misfit(ADDRESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rooms_are_those_of_the_crate() {
        let rooms: Vec<&str> = all_rooms().collect();
        for room in ["mail", "store", "journal", "reconcile", "logging"] {
            assert!(rooms.contains(&room), "{rooms:?}");
        }
        let modules = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
        let names = modules.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut modules: Vec<String> = names.map(|name| name.trim_end_matches(".rs").to_owned()).collect();
        modules.retain(|name| name != "lib" && name != "main" && name != "bin");
        modules.sort();
        modules.dedup();
        let mut sorted = rooms.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, modules);
    }
}
