//! How an error is told to whoever can do something about it.

use std::error::Error;
use std::io;

use crate::journal::JournalError;
use crate::logging::chain;

/// An error with its causes, and what to do about it where the sentence itself does not tell.
pub fn complaint(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let todo = causes.filter_map(remedy).next();
    chain(error) + &todo.map(|todo| format!(" → {todo}")).unwrap_or_default()
}

fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<JournalError>() {
        return error.remedy();
    }
    Some(match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "make that folder, or name another one",
        io::ErrorKind::PermissionDenied => "give this account the right to do that, or name another place",
        io::ErrorKind::ReadOnlyFilesystem => "name a folder on another file system: this one is read-only",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on that disk",
        _ => return None,
    })
}
