//! What stays on this machine: `journal`, `http`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::JournalConfig;
use super::read::{Field, Reader, Section};
use super::secrets::key_file;

const DAY: Duration = Duration::from_secs(86_400);

/// Without a section, everything has its default.
pub(super) fn journal(mut section: Section<'_>) -> Option<JournalConfig> {
    let path = match section.field("path") {
        Some(path) => path.path(),
        None => Some(state_directory(section.reader).join("journal.db")),
    };
    let key_field = section.field("key");
    let key = match &key_field {
        Some(key) => key_file(key),
        None => path.as_ref().map(|path| path.with_file_name("journal.key")),
    };
    let keep = section.or("keep", DAY * 400, |keep| keep.duration(DAY..=Duration::MAX));
    section.or("pseudonymize_after", DAY * 90, Field::any_duration);
    let undo_for = section.or("undo_for", DAY * 7, |undo_for| undo_for.duration(Duration::ZERO..=Duration::MAX));
    if let (Some(field), true) = (&key_field, path.is_some() && path == key) {
        field.problem("the key cannot be the journal itself");
    }
    section.finish();
    Some(JournalConfig { path: path?, key: key?, keep, undo_for })
}

/// `$STATE_DIRECTORY` as systemd sets it, else the system's usual place (product rule R44).
fn state_directory(reader: &Reader) -> PathBuf {
    if cfg!(windows) {
        let data = reader.environment("ProgramData").map_or_else(|| PathBuf::from(r"C:\ProgramData"), PathBuf::from);
        return data.join("credkeeper");
    }
    let given = reader.environment("STATE_DIRECTORY").and_then(|all| std::env::split_paths(&all).next());
    given.filter(|first| first.is_absolute()).unwrap_or_else(|| PathBuf::from("/var/lib/credkeeper"))
}

/// `None`: switched off by `http: null`.
pub(super) fn http(root: &mut Section<'_>) -> Option<SocketAddr> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    let Some(field) = root.field("http") else { return (!root.is_null("http")).then_some(default) };
    let mut section = field.section("{listen: \"127.0.0.1:9464\"}, or null for none")?;
    section.later("tls", "certificates of the status page");
    section.later("basic_auth", "logins to the status page");
    let off = section.is_null("listen");
    let listen = section.or("listen", default, |listen| {
        let address: Option<SocketAddr> = listen.scalar().and_then(|text| text.parse().ok());
        match address {
            Some(address) if address.ip().to_canonical().is_loopback() => Some(address),
            Some(_) => {
                listen.problem(
                    "tls and basic_auth are not yet supported, so that only a loopback address can be used, such as 127.0.0.1:9464",
                );
                None
            }
            None => listen.misfit("an IP address and a port, such as 127.0.0.1:9464"),
        }
    });
    section.finish();
    (!off).then_some(listen)
}
