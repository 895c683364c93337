//! Reading without leaving a trace, for commands that promise not to write, while a daemon may be at work.
//!
//! SQLite in write-ahead mode makes two side files even for a reader. While a writer is there they exist anyway, and reading
//! goes the ordinary way. Without a writer the file is opened as *immutable*, which makes no side files and takes no locks; if
//! a writer came meanwhile, which its side file or the file's date and size tell, the look is thrown away and repeated.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::OpenFlags;

use super::error::JournalError;
use super::{JournalPlace, View, file};
use crate::seal::suffixed;

/// How often a look is repeated before the file counts as restless.
const TRIES: usize = 10;

pub(super) struct Visitor {
    place: JournalPlace,
    /// Kept once the ordinary way was taken: from then on the side files stay as long as we do.
    live: Option<View>,
}

impl Visitor {
    /// `None` if there is no journal, or one without tables.
    pub(super) fn enter(place: JournalPlace) -> Result<Option<Visitor>, JournalError> {
        let mut visitor = Visitor { place, live: None };
        let there = visitor.with_view(|view| Ok(view.is_some()))?;
        Ok(there.then_some(visitor))
    }

    pub(super) fn look<T>(&mut self, look: impl Fn(&View) -> Result<T, JournalError>) -> Result<T, JournalError> {
        self.with_view(|view| match view {
            Some(view) => look(view),
            None => Err(JournalError::Closed),
        })
    }

    fn with_view<T>(&mut self, look: impl Fn(Option<&View>) -> Result<T, JournalError>) -> Result<T, JournalError> {
        if let Some(view) = &self.live {
            return look(Some(view));
        }
        let path = &self.place.path;
        for _ in 0..TRIES {
            let Some(before) = Footprint::of(path)? else { return look(None) };
            if before.in_use {
                let db = file::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                let Some(view) = file::view_for_reading(db, &self.place)? else { return look(None) };
                return look(Some(self.live.insert(view)));
            }
            let found = immutable(path)
                .and_then(|name| file::open(&name, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI))
                .and_then(|db| file::view_for_reading(db, &self.place))
                .and_then(|view| look(view.as_ref()));
            if Footprint::of(path)?.as_ref() == Some(&before) {
                return found;
            }
        }
        Err(JournalError::Unsettled { path: path.clone() })
    }
}

/// What tells that nobody has written in between.
#[derive(PartialEq)]
struct Footprint {
    in_use: bool,
    size_bytes: u64,
    changed: Option<SystemTime>,
}

impl Footprint {
    /// `None` if there is no file.
    fn of(path: &Path) -> Result<Option<Footprint>, JournalError> {
        let fail = |e: io::Error| JournalError::Inspect { path: path.to_owned(), source: e };
        let about = match fs::metadata(path) {
            Ok(about) => about,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let in_use = suffixed(path, "-wal").try_exists().map_err(fail)?;
        Ok(Some(Footprint { in_use, size_bytes: about.len(), changed: about.modified().ok() }))
    }
}

/// The path as a SQLite URI: absolute, with slashes, and whatever has a meaning in a URI escaped.
fn immutable(path: &Path) -> Result<PathBuf, JournalError> {
    let unusable = |source| JournalError::Inspect { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(unusable)?;
    let text = absolute.to_str().ok_or_else(|| unusable(io::Error::new(io::ErrorKind::InvalidInput, "the path is not Unicode")))?;
    let text = if cfg!(windows) { text.replace('\\', "/") } else { text.to_owned() };
    let mut uri = String::from("file://");
    if !text.starts_with('/') {
        uri.push('/'); // C:/… as /C:/…
    }
    for c in text.chars() {
        match c {
            '%' => uri.push_str("%25"),
            '?' => uri.push_str("%3f"),
            '#' => uri.push_str("%23"),
            c => uri.push(c),
        }
    }
    uri.push_str("?immutable=1");
    Ok(PathBuf::from(OsString::from(uri)))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_uri_that_means_the_same() {
        let uri = immutable(Path::new("/srv/100% sure?/a#b.db")).unwrap();
        assert_eq!(uri.to_str(), Some("file:///srv/100%25 sure%3f/a%23b.db?immutable=1"));
    }
}
