//! The transport that writes files: one .eml a message, for sandboxes, rehearsals and other programs to pick up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// A directory of messages, readable by its owner only (0700, files 0600; on Windows by inheritance).
#[derive(Clone, Debug)]
pub struct Outbox {
    directory: PathBuf,
}

impl Outbox {
    pub fn new(directory: PathBuf) -> Outbox {
        Outbox { directory }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory, unless it is there.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(&self) -> io::Result<()> {
        create_private(&self.directory)
    }

    /// Writes one message under a temporary name, makes it durable, then renames it: whoever reads the directory never
    /// sees half a message. The same Message-ID again replaces the file, so that a mail repeated after a crash is one
    /// mail (invariant I3).
    ///
    /// # Errors
    /// Whatever the file system says; the message then is not there.
    pub fn write(&self, message_id: &str, message: &[u8]) -> io::Result<PathBuf> {
        self.create()?;
        let name = file_name(message_id);
        let target = self.directory.join(format!("{name}.eml"));
        let temporary = self.directory.join(format!(".{name}.tmp"));
        // One left by a crash may have other rights.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let written = new_private(&temporary).and_then(|mut file| {
            file.write_all(message)?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| fs::rename(&temporary, &target)) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        sync_directory(&self.directory)?;
        Ok(target)
    }
}

/// A name for any Message-ID on any file system. An id that had to be changed gets a hash, so that no two share a file.
fn file_name(message_id: &str) -> String {
    let id = message_id.trim().trim_start_matches('<').trim_end_matches('>');
    let safe = |c: char| if c.is_ascii_alphanumeric() || "@-_.+=".contains(c) { c } else { '_' };
    let mut name: String = id.chars().take(120).map(safe).collect();
    // A leading dot hides the file or leaves the directory; Windows has devices named CON and NUL.
    if name != id || !name.contains('@') || name.starts_with('.') {
        name.insert_str(0, "mail-");
        let digest = Sha256::digest(message_id.as_bytes());
        name.push('-');
        name.extend(digest.iter().take(8).map(|byte| format!("{byte:02x}")));
    }
    name
}

fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn new_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the rename durable. Windows has no such call and needs none.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_message_is_one_file_and_the_same_id_again_replaces_it() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("deep").join("outbox");
        let outbox = Outbox::new(directory.clone());
        let first = outbox.write("<1@h.example>", b"one").unwrap();
        fs::write(directory.join(".1@h.example.tmp"), b"left by a crash").unwrap();
        let again = outbox.write("1@h.example", b"two").unwrap();
        outbox.write("2@h.example", b"three").unwrap();
        assert_eq!(first, again);
        assert_eq!(fs::read(first).unwrap(), b"two");
        assert_eq!(names(&directory), ["1@h.example.eml", "2@h.example.eml"]);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("outbox");
        let file = Outbox::new(directory.clone()).write("1@h.example", b"x").unwrap();
        assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn no_id_leaves_the_directory_or_takes_another_ids_file() {
        let ids = [
            "../../etc/x@y",
            "..\\x@y",
            "a/b@c",
            "a_b@c",
            "a:b@c",
            "",
            ".",
            "con",
            "x@y.\r\n",
            "é@h",
            &"a@".repeat(200),
            &"a@".repeat(201),
        ];
        let mut names: Vec<_> = ids.iter().map(|id| file_name(id)).collect();
        for name in &names {
            assert!(!name.starts_with('.') && name.len() <= 150, "{name}");
            assert!(!name.contains(['/', '\\', ':', '\r', '\n']), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ids.len());
        assert_eq!(file_name("<0123-abc@credkeeper.example>"), "0123-abc@credkeeper.example");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(Outbox::new(file.join("outbox")).write("1@h.example", b"x").is_err());
    }
}
