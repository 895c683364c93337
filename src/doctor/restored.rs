//! Whether the database is the one that the journal left.

use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::domain::printable;
use crate::inventory::Trace;
use crate::journal::{JournalReader, Owner};
use crate::logging::chain;
use crate::reconcile::PassError;
use crate::reconcile::restored::{LookedBack, look_back};
use crate::store::{Check, Reader};

const NAME: &str = "known PINs";

/// Looks the newest credentials of the journal up in the database; `None` where there is no journal yet, or none that can be read,
/// which has a check of its own.
pub(super) async fn check(config: &Config, database: &DatabaseConfig, reader: &Reader) -> Option<Check> {
    let journal = JournalReader::open(&config.journal, Owner::all(&config.databases), &database.name).await.ok()??;
    Some(match look_back(reader, &journal, config, database, clock::now()).await {
        Ok(found) => told(database, &found),
        Err(PassError::Journal(_)) => return None,
        Err(error) => Check::failed(NAME, chain(&error), "see the message"),
    })
}

fn told(database: &DatabaseConfig, found: &LookedBack) -> Check {
    let (stand, gone) = (found.count(Trace::Stands), found.count(Trace::Gone));
    let of = stand + gone;
    match found.stop() {
        None if of == 0 => Check::ok(NAME, "the journal knows of none that were issued lately"),
        None => Check::ok(NAME, format!("of the newest {of} that the journal knows, {stand} stand in the database")),
        Some(stop) => Check::failed(
            NAME,
            stop.to_string(),
            format!("`credkeeper journal adopt {} --dry-run` tells whose they are", printable(&database.name)),
        ),
    }
}
