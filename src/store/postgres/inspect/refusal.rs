//! Why a server would not have us, and what to do about it.

use std::net::IpAddr;

use crate::config::{DatabaseConfig, DatabaseTarget};
use crate::store::error::{Cause, Kind, StoreError, chain};
use crate::store::{Check, CheckVerdict};

/// The failed check that a refused connection is.
pub(super) fn check(db: &DatabaseConfig, error: &StoreError) -> Check {
    // The remedy stands in the advice.
    let found = match error {
        StoreError::Connect { source, .. } => format!("{error}: {}", source.message()),
        _ => chain(error),
    };
    Check { name: "connection", verdict: CheckVerdict::Failed, found, advice: advice(db, error) }
}

const POOLER: &str = "leadership and limits need sessions of their own, and settings would reach the sessions of others: connect to the \
                      server itself, or write under [users] in pgbouncer.ini, for the role of `url`: pool_mode=session";

fn advice(db: &DatabaseConfig, error: &StoreError) -> String {
    let (code, message) = match error {
        StoreError::Pooler => return POOLER.to_owned(),
        StoreError::Connect { source: Cause { remedy: Some(remedy), .. }, .. } => return remedy.clone(),
        StoreError::Connect { source, .. } if source.kind == Kind::Tls => return "correct the files that `tls` names".to_owned(),
        StoreError::Connect { source, .. } => (source.code.as_deref().unwrap_or(""), source.to_string()),
        _ => ("", String::new()),
    };
    let (database, user, encrypted) = match &db.target {
        DatabaseTarget::Postgres { database, user, tls, .. } => (database.as_str(), user.as_str(), tls.is_some()),
        DatabaseTarget::Sqlite { .. } => ("", "", false),
    };
    match code {
        "28P01" => format!("the password of role {user} is wrong, or the role does not exist: correct `password`"),
        // Said in English whatever the server's language, except for the sentence itself: only the address is taken from it.
        "28000" if message.contains("pg_hba") => {
            let from = address(&message).map_or("ADDRESS/32".to_owned(), |ip| if ip.is_ipv4() { format!("{ip}/32") } else { format!("{ip}/128") });
            let (kind, otherwise) = match encrypted {
                true => ("hostssl", ""),
                false => ("host", "; or, if the server takes this role by TLS only, set `tls: {mode: verify-full}`"),
            };
            format!(
                "add this line to pg_hba.conf of the server and reload it (SELECT pg_reload_conf()): {kind} {} {} {from} scram-sha-256{otherwise}",
                hba_name(database),
                hba_name(user)
            )
        }
        "28000" if message.contains("client certificate") => {
            "the server asks for a certificate of ours: name it and its key in `tls.client_cert` and `tls.client_key`".to_owned()
        }
        "28000" if message.contains("certificate authentication") => {
            format!("the common name in the certificate of `tls.client_cert` is to be {user}, or mapped to it in pg_ident.conf")
        }
        "28000" => format!("role {user} may not log in: check that it exists and has LOGIN"),
        "3D000" => format!("there is no database {database} on this server: correct `url` (SafeQ 6 and Dispatcher Paragon: SQDB6)"),
        "53300" => "the server has no free connection: lower `pool_size`, or raise max_connections".to_owned(),
        "57P03" => "the server is starting up or shutting down: try again".to_owned(),
        "42501" => format!("role {user} lacks CONNECT on database {database}: GRANT CONNECT ON DATABASE {database} TO {user};"),
        _ if message.contains("password missing") => "the server asks for a password: set `password`".to_owned(),
        _ if message.contains("lookup") || message.contains("resolve") => "the host name is not known: correct `url`, or the name service".to_owned(),
        _ => "check host and port in `url` (the bundled server listens on 5433), listen_addresses of the server, and the firewalls in between".to_owned(),
    }
}

/// The first quoted address in the server's sentence.
fn address(message: &str) -> Option<IpAddr> {
    message.split('"').skip(1).step_by(2).find_map(|quoted| quoted.parse().ok())
}

/// Quoted where the file would take it for a keyword or split it.
fn hba_name(name: &str) -> String {
    let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if plain && !["all", "sameuser", "samerole", "replication"].contains(&name) { name.to_owned() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_any_language() {
        let czech = "pro počítač \"192.168.5.7\", uživatele \"credkeeper\", databázi \"SQDB6\" není v pg_hba.conf žádný záznam";
        assert_eq!(address(czech), Some("192.168.5.7".parse().unwrap()));
        assert_eq!(address("no pg_hba.conf entry for host \"::1\", user \"a\""), Some("::1".parse().unwrap()));
        assert_eq!(address("nothing quoted"), None);
    }
}
