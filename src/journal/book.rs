//! One file, and in it a book for each database of the configuration: whatever names a user, a policy or a pass belongs to one
//! of them, since two tenants may number their users alike.
//!
//! A book is known by the database's name in the configuration. A name that is not there yet takes over the book of a
//! database with the same identity whose own name has left the configuration (it was renamed), or else gets a new one. A
//! book whose database has left the configuration stays as it is: nothing of it is lost, nothing is sent, and each start
//! tells of it.

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{Doing, JournalError};
use super::issue::immediate;
use super::{View, Writer};
use crate::config::DatabaseConfig;
use crate::domain::printable;

/// A database of the configuration, as the journal has to know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Its name in the configuration.
    pub name: String,
    /// What tells it from another or a restored one.
    pub identity: String,
}

impl Owner {
    pub fn all(databases: &[DatabaseConfig]) -> Vec<Owner> {
        databases.iter().map(|database| Owner { name: database.name.clone(), identity: database.identity() }).collect()
    }
}

/// A database in the journal; the same as long as the file lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BookId(pub(super) i64);

/// What belongs to one database.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) id: BookId,
    /// The name that the database had when its book was begun; part of each fingerprint, so it must never change.
    pub(super) salt: String,
}

/// A database that the journal knows and the configuration does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    pub name: String,
    /// Issuances whose mail waits, or whose end is not known.
    pub open: u64,
}

impl fmt::Display for Left {
    /// What is the matter, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = printable(&self.name);
        match self.open {
            0 => write!(f, "The journal knows the database {name}, which is not in the configuration; what it knows is kept"),
            open => write!(
                f,
                "The journal holds {open} issuances of the database {name} that are not finished, and it is not in the configuration: nothing is \
                 sent → put it back into the configuration until `credkeeper status` shows that no mail of it waits"
            ),
        }
    }
}

const WHAT: &str = "the databases";

impl Writer {
    /// Gives each of `owners` its book.
    pub(super) fn enrol(&mut self, owners: &[Owner]) -> Result<(), JournalError> {
        let tx = immediate(&mut self.view.db, WHAT)?;
        for owner in owners {
            match found(&tx, owners, owner)? {
                Some((id, name, _, _)) if name != owner.name => {
                    tx.execute("UPDATE database SET name = ?2 WHERE id = ?1", params![id, owner.name]).map(|_| ())
                }
                Some(_) => Ok(()),
                None => tx
                    .execute(
                        // The salt of a book that was renamed since is not to be used again.
                        "INSERT INTO database (name, salt, identity) VALUES (?1, \
                         ?1 || CASE WHEN EXISTS (SELECT 1 FROM database WHERE salt = ?1) THEN ' ' || hex(randomblob(8)) ELSE '' END, ?2)",
                        params![owner.name, owner.identity],
                    )
                    .map(|_| ()),
            }
            .writing(WHAT)?;
        }
        tx.commit().writing(WHAT)
    }
}

impl View {
    /// The book of the database with this name, one of `owners`; `None` if it has none yet.
    ///
    /// # Errors
    /// The book belongs to another database of that name.
    pub(super) fn book(&self, owners: &[Owner], name: &str, path: &Path) -> Result<Option<Book>, JournalError> {
        let Some((book, recorded)) = self.any_book(owners, name)? else { return Ok(None) };
        match owners.iter().find(|owner| owner.name == name && owner.identity != recorded) {
            Some(owner) => Err(JournalError::OtherDatabase { path: path.to_owned(), recorded, given: owner.identity.clone() }),
            None => Ok(Some(book)),
        }
    }

    /// The same, and the identity that the book is kept under, whatever the database's is now.
    pub(super) fn any_book(&self, owners: &[Owner], name: &str) -> Result<Option<(Book, String)>, JournalError> {
        let Some(owner) = owners.iter().find(|owner| owner.name == name) else { return Ok(None) };
        let found = found(&self.db, owners, owner)?;
        Ok(found.map(|(id, _, salt, recorded)| (Book { id: BookId(id), salt }, recorded)))
    }

    /// Those that `owners` no longer names.
    pub(super) fn left(&self, owners: &[Owner]) -> Result<Vec<Left>, JournalError> {
        let sql = "SELECT name, (SELECT count(*) FROM issuance i WHERE i.database = d.id AND i.open = 1) FROM database d ORDER BY id";
        let mut rows = self.db.prepare_cached(sql).reading(WHAT)?;
        let all = rows.query_map([], |row| Ok(Left { name: row.get(0)?, open: row.get::<_, i64>(1)?.max(0) as u64 })).reading(WHAT)?;
        let mut all: Vec<Left> = all.collect::<Result<_, _>>().reading(WHAT)?;
        all.retain(|left| !owners.iter().any(|owner| owner.name == left.name));
        Ok(all)
    }
}

/// Id, name, salt and identity.
type BookRow = (i64, String, String, String);

/// By its name; else the only book of the same identity whose name nobody has any more.
fn found(db: &Connection, owners: &[Owner], owner: &Owner) -> Result<Option<BookRow>, JournalError> {
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
    let mut by_name = db.prepare_cached("SELECT id, name, salt, identity FROM database WHERE name = ?1").reading(WHAT)?;
    if let Some(found) = by_name.query_row([&owner.name], row).optional().reading(WHAT)? {
        return Ok(Some(found));
    }
    let mut alike = db.prepare_cached("SELECT id, name, salt, identity FROM database WHERE identity = ?1").reading(WHAT)?;
    let alike = alike.query_map([&owner.identity], row).and_then(Iterator::collect::<Result<Vec<BookRow>, _>>).reading(WHAT)?;
    let mut orphaned = alike.into_iter().filter(|(_, name, _, _)| !owners.iter().any(|other| other.name == *name));
    let renamed_from = orphaned.next();
    // Of several nobody can tell which one it was, nor whose it is now where several names are new.
    let mut named = db.prepare_cached("SELECT 1 FROM database WHERE name = ?1").reading(WHAT)?;
    let mut rivals = 0;
    for other in owners.iter().filter(|other| other.identity == owner.identity) {
        rivals += usize::from(!named.exists([&other.name]).reading(WHAT)?);
    }
    Ok(renamed_from.filter(|_| orphaned.next().is_none() && rivals == 1))
}
