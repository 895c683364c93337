//! Whether a new configuration can take the place of the one in force, while the daemon runs.

use crate::complaint::complaint;
use crate::config::Config;
use crate::domain::printable;
use crate::journal::{JournalError, JournalReader, Owner};

/// All that keeps `new` from taking the place of `old`, a sentence each.
pub(super) async fn unfit(old: &Config, new: &Config) -> Vec<String> {
    let mut problems = fixed(old, new);
    // Of another journal nothing can be said, and it is refused anyway.
    if problems.is_empty() {
        for database in &new.databases {
            match templates(new, &database.name).await {
                Ok(missing) => problems.extend(missing),
                Err(e) => problems.push(format!("database {}: {}", printable(&database.name), complaint(&e))),
            }
        }
    }
    problems
}

/// What the process holds from its start to its end.
fn fixed(old: &Config, new: &Config) -> Vec<String> {
    let keys = [
        ("journal.path", old.journal.path == new.journal.path),
        ("journal.key", old.journal.key == new.journal.key),
        ("log.format", old.log.json == new.log.json),
        ("log.file", old.log.file == new.log.file),
        ("log.remote", old.log.remote == new.log.remote),
    ];
    let changed = keys.into_iter().filter(|(_, same)| !same);
    changed.map(|(key, _)| format!("{key} cannot change while credkeeper runs: restart for that, or put back what stood there")).collect()
}

/// Mail that waits is written when it is sent: what it is written by cannot vanish.
async fn templates(new: &Config, database: &str) -> Result<Vec<String>, JournalError> {
    let Some(journal) = JournalReader::open(&new.journal, Owner::all(&new.databases), database).await? else { return Ok(Vec::new()) };
    let waiting = journal.templates().await?;
    let missing = waiting.iter().filter(|(template, _)| !new.templates.contains_key(*template));
    let said = |(template, mails): (&String, &u64)| {
        format!(
            "templates.{name} is missing, and {mails} mails to users of database {database} that wait are to be written by it: keep a template of that name \
             until `credkeeper journal list` shows that none of them waits",
            name = printable(template),
            database = printable(database),
        )
    };
    Ok(missing.map(said).collect())
}
