//! Why a server would not have us, and what to do about it.

use std::net::IpAddr;

use crate::config::{DatabaseConfig, DatabaseTarget};
use crate::store::error::{Kind, StoreError};
use crate::store::sql::quoted;
use crate::store::{Check, CheckVerdict};

/// The failed check that a refused connection is.
pub(super) fn check(db: &DatabaseConfig, error: &StoreError) -> Check {
    let (found, remedy) = error.told();
    let advice = remedy.map_or_else(|| advice(db, error), str::to_owned);
    Check { name: "connection", verdict: CheckVerdict::Failed, found, advice }
}

const POOLER: &str = "leadership and limits need sessions of their own, and settings would reach the sessions of others: connect to the \
                      server itself, or write under [users] in pgbouncer.ini, for the role of `url`: pool_mode=session";

fn advice(db: &DatabaseConfig, error: &StoreError) -> String {
    let (code, message) = match error {
        StoreError::Pooler => return POOLER.to_owned(),
        StoreError::Connect { source, .. } if source.kind == Kind::Tls => return "correct the files that `tls` names".to_owned(),
        StoreError::Connect { source, .. } => (source.code.as_deref().unwrap_or(""), source.to_string()),
        _ => ("", String::new()),
    };
    let (database, user, encrypted) = match &db.target {
        DatabaseTarget::Postgres { database, user, tls, .. } => (database.as_str(), user.as_str(), tls.is_some()),
        DatabaseTarget::Sqlite { .. } => ("", "", false),
    };
    match code {
        "28P01" => format!(
            "the password of role {user} is wrong, or there is no such role (the server's log says which): correct `password`, or set it \
             there: ALTER ROLE {} PASSWORD '…';",
            quoted(user)
        ),
        // Said in English whatever the server's language, except for the sentence itself: only the address is taken from it.
        "28000" if message.contains("pg_hba") => {
            let from =
                address(&message).map_or("ADDRESS/32".to_owned(), |ip| if ip.is_ipv4() { format!("{ip}/32") } else { format!("{ip}/128") });
            let (kind, otherwise) = match encrypted {
                true => ("hostssl", ""),
                false => ("host", ". Or, if the server takes this role by TLS only, set `tls: {mode: verify-full}`"),
            };
            format!(
                "add this line to pg_hba.conf of the server (SHOW hba_file), above the others, since the first that fits counts, and reload it \
                 (SELECT pg_reload_conf()): {kind} {} {} {from} scram-sha-256{otherwise}",
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
        "28000" => {
            let role = quoted(user);
            format!(
                "correct the role in `url`, or let the server have it: CREATE ROLE {role} LOGIN; or, if it is there, ALTER ROLE {role} LOGIN;"
            )
        }
        "3D000" => format!("there is no database {database} on this server: correct `url` (SafeQ 6 and Dispatcher Paragon: SQDB6)"),
        "42501" => {
            format!("role {user} lacks CONNECT on the database: GRANT CONNECT ON DATABASE {} TO {};", quoted(database), quoted(user))
        }
        _ => "see the message, and the server's log".to_owned(),
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
