//! Whether a folder can be written, found out without writing.

use std::io;
use std::path::Path;

/// What would be said to somebody who makes a file in `folder`.
pub(super) fn may_write(folder: &Path) -> io::Result<()> {
    if !std::fs::metadata(folder)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    allowed(folder)
}

/// The same where the folder is made first, with all above it. The first that is there is what counts.
pub(super) fn may_be_made(folder: &Path) -> io::Result<()> {
    match folder.ancestors().find(|above| above.symlink_metadata().is_ok()) {
        Some(above) => may_write(above),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// For the account of this process. The mode alone does not tell: there are access lists and read-only file systems.
#[cfg(unix)]
pub(super) fn allowed(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    let wanted = if path.is_dir() { Access::WRITE_OK | Access::EXEC_OK } else { Access::WRITE_OK };
    Ok(accessat(CWD, path, wanted, AtFlags::EACCESS)?)
}

/// Windows tells only by trying; the attribute is what can be asked.
#[cfg(not(unix))]
pub(super) fn allowed(path: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(path)?;
    if !meta.is_dir() && meta.permissions().readonly() { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_there_counts_or_else_the_one_above_it() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert!(may_write(place.path()).is_ok() && may_be_made(&place.path().join("a/b/c")).is_ok());
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(may_write(&place.path().join("a"))), io::ErrorKind::NotFound);
        assert_eq!(kind(may_write(&file)), io::ErrorKind::NotADirectory);
        assert_eq!(kind(may_be_made(&file.join("a/b"))), io::ErrorKind::NotADirectory);
    }
}
