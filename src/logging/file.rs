//! The log file: `credkeeper.log`, and its backups `credkeeper.log.1` (the newest) to `.N`.
//!
//! A line is never parted by two files. The file may be renamed, deleted or replaced by somebody else at any time, and two
//! processes of ours may share it (a daemon, and a `--once` beside it): before each line it is looked whether the path still
//! names the file that is open. Nothing here waits or gives up for good; each line is a new try.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::config::LogFile;

pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    backups: u32,
    /// `None` after it could not be opened again.
    file: Option<File>,
    /// Half a line is at its end that could not be taken back.
    torn: bool,
    /// After a rotation that failed: the size at which it is tried again.
    retry_at: u64,
    trouble: Option<io::Error>,
}

impl RotatingFile {
    /// # Errors
    /// When the file cannot be opened for writing.
    pub(super) fn open(config: &LogFile) -> io::Result<RotatingFile> {
        let LogFile { path, max_bytes, backups } = config.clone();
        let file = Some(open(&path)?);
        Ok(RotatingFile { path, max_bytes, backups, file, torn: false, retry_at: 0, trouble: None })
    }

    /// `line` ends with its line break.
    ///
    /// # Errors
    /// When the line could not be written; nothing of it is left in the file then, unless another process was writing too.
    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) if is_at(&self.path, &file) => file,
            _ => self.opened_again()?,
        };
        let mut size = file.metadata()?.len();
        if size > 0 && size + line.len() as u64 > self.max_bytes && size >= self.retry_at {
            file = self.rotated(file, size)?;
            size = file.metadata()?.len();
        }
        let written = match self.torn {
            true => self.append(&file, size, &format!("\n{line}")),
            false => self.append(&file, size, line),
        };
        self.file = Some(file);
        written
    }

    /// Why the file could not be rotated, once for each time that this begins.
    pub(super) fn trouble(&mut self) -> Option<io::Error> {
        self.trouble.take()
    }

    fn opened_again(&mut self) -> io::Result<File> {
        (self.torn, self.retry_at) = (false, 0);
        open(&self.path)
    }

    /// The file to go on with: where it cannot be rotated, the old one, which grows.
    fn rotated(&mut self, file: File, size: u64) -> io::Result<File> {
        // Only one process may rename. (On Windows the lock would keep the others from writing.)
        #[cfg(unix)]
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            return Ok(file);
        }
        if !is_at(&self.path, &file) {
            return self.opened_again();
        }
        match self.make_room() {
            Ok(()) => self.opened_again(),
            Err(error) => {
                // Something holds one of the files, on Windows an editor perhaps.
                if self.retry_at == 0 {
                    self.trouble = Some(error);
                }
                self.retry_at = size + self.max_bytes / 8 + 1;
                #[cfg(unix)]
                let _ = file.unlock();
                Ok(file)
            }
        }
    }

    fn make_room(&self) -> io::Result<()> {
        if self.backups == 0 {
            return cut(&self.path, 0);
        }
        // Only up to the first gap: whatever else failed before, no backup is lost by trying again.
        let gap = (1..self.backups).find(|n| !backup(&self.path, *n).exists()).unwrap_or(self.backups);
        for n in (1..gap).rev() {
            fs::rename(backup(&self.path, n), backup(&self.path, n + 1))?;
        }
        fs::rename(&self.path, backup(&self.path, 1))
    }

    /// `size` is that of the file before.
    fn append(&mut self, mut file: &File, size: u64, text: &str) -> io::Result<()> {
        let mut rest = text.as_bytes();
        let error = loop {
            match file.write(rest) {
                Ok(n) if n == rest.len() => {
                    self.torn = false;
                    return Ok(());
                }
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
        };
        let written = (text.len() - rest.len()) as u64;
        if written > 0 {
            // What still fitted on the disk is taken back, unless another process has written behind it.
            let alone = file.metadata().is_ok_and(|meta| meta.len() == size + written);
            self.torn = !(alone && cut(&self.path, size).is_ok());
        }
        Err(error)
    }
}

/// `credkeeper.log` and 3 give `credkeeper.log.3`.
fn backup(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// For the owner and the group; others are told by nobody who has an account here.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.open(path)
}

/// By its path: a file that is opened for appending cannot be cut on Windows.
fn cut(path: &Path, length: u64) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(length)
}

/// Whether `path` names the file that is open.
fn is_at(path: &Path, file: &File) -> bool {
    match (fs::metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => same(&there, &here),
        _ => false,
    }
}

#[cfg(unix)]
fn same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The number of a file is not to be had without unsafe code; that two files of one name are equally long and equally old is
/// unlikely enough.
#[cfg(not(unix))]
fn same(a: &Metadata, b: &Metadata) -> bool {
    a.len() == b.len() && a.created().ok() == b.created().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn log(&self, max_bytes: u64, backups: u32) -> RotatingFile {
            RotatingFile::open(&LogFile { path: self.path("log"), max_bytes, backups }).unwrap()
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.path(name)).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn write(log: &mut RotatingFile, lines: impl IntoIterator<Item = u32>) {
        lines.into_iter().for_each(|n| log.write(&format!("line {n:04}\n")).unwrap());
    }

    /// Ten bytes a line, so that three fit.
    #[test]
    fn a_full_file_becomes_the_first_backup_and_the_oldest_goes() {
        let folder = Folder::new();
        let mut log = folder.log(30, 2);
        write(&mut log, 0..3);
        assert_eq!(folder.names(), ["log"]);
        write(&mut log, 3..11);
        assert_eq!(folder.names(), ["log", "log.1", "log.2"]);
        assert_eq!(folder.read("log"), "line 0009\nline 0010\n");
        assert_eq!(folder.read("log.1"), "line 0006\nline 0007\nline 0008\n");
        assert_eq!(folder.read("log.2"), "line 0003\nline 0004\nline 0005\n");
        // The next process goes on where this one was.
        let mut log = folder.log(30, 2);
        write(&mut log, 11..13);
        assert_eq!((folder.read("log").as_str(), folder.read("log.1").ends_with("0011\n")), ("line 0012\n", true));
    }

    #[test]
    fn a_line_longer_than_a_file_stands_whole_and_alone() {
        let folder = Folder::new();
        let mut log = folder.log(30, 3);
        write(&mut log, [1]);
        let long = format!("{}\n", "x".repeat(100));
        log.write(&long).unwrap();
        write(&mut log, [2]);
        assert_eq!((folder.read("log.2"), folder.read("log.1"), folder.read("log")), ("line 0001\n".into(), long, "line 0002\n".into()));
    }

    #[test]
    fn without_backups_the_file_begins_anew() {
        let folder = Folder::new();
        write(&mut folder.log(30, 0), 0..5);
        assert_eq!((folder.names(), folder.read("log")), (vec!["log".to_owned()], "line 0003\nline 0004\n".to_owned()));
    }

    #[test]
    fn who_renames_deletes_or_empties_the_file_is_followed() {
        let folder = Folder::new();
        let mut log = folder.log(1_000, 2);
        write(&mut log, [1]);
        fs::rename(folder.path("log"), folder.path("taken")).unwrap();
        write(&mut log, [2]);
        assert_eq!((folder.read("taken").as_str(), folder.read("log").as_str()), ("line 0001\n", "line 0002\n"));
        fs::remove_file(folder.path("log")).unwrap();
        write(&mut log, [3]);
        assert_eq!(folder.read("log"), "line 0003\n");
        fs::write(folder.path("log"), "").unwrap();
        write(&mut log, [4]);
        assert_eq!(folder.read("log"), "line 0004\n");
    }

    #[test]
    fn a_folder_that_goes_away_costs_lines_until_it_is_back() {
        let folder = Folder::new();
        fs::create_dir(folder.path("logs")).unwrap();
        let path = folder.path("logs/log");
        let mut log = RotatingFile::open(&LogFile { path, max_bytes: 1_000, backups: 1 }).unwrap();
        write(&mut log, [1]);
        fs::rename(folder.path("logs"), folder.path("away")).unwrap();
        (0..2).for_each(|_| assert_eq!(log.write("lost\n").unwrap_err().kind(), io::ErrorKind::NotFound));
        fs::rename(folder.path("away"), folder.path("logs")).unwrap();
        write(&mut log, [2]);
        assert_eq!(folder.read("logs/log"), "line 0001\nline 0002\n");
    }

    #[test]
    fn a_file_that_cannot_be_rotated_grows_and_is_tried_again() {
        let folder = Folder::new();
        let mut log = folder.log(80, 1);
        fs::create_dir_all(folder.path("log.1/x")).unwrap(); // no file can take its place
        write(&mut log, 0..9);
        assert_eq!((log.trouble().is_some(), log.trouble().is_none()), (true, true), "told once");
        write(&mut log, 9..12);
        assert_eq!((folder.read("log").len(), log.trouble().is_none()), (120, true));
        fs::remove_dir_all(folder.path("log.1")).unwrap();
        write(&mut log, 12..14);
        assert_eq!((folder.read("log.1").len(), folder.read("log").len()), (120, 20));
    }

    /// As a rotation leaves it that failed at its last step.
    #[test]
    fn a_gap_among_the_backups_is_filled_before_any_of_them_goes() {
        let folder = Folder::new();
        ["log.2", "log.4"].iter().for_each(|name| fs::write(folder.path(name), *name).unwrap());
        let mut log = folder.log(30, 4);
        write(&mut log, 0..4);
        assert_eq!((folder.read("log.2"), folder.read("log.4")), ("log.2".to_owned(), "log.4".to_owned()));
        write(&mut log, 4..7);
        assert_eq!((folder.read("log.3"), folder.read("log.4")), ("log.2".to_owned(), "log.4".to_owned()));
        assert_eq!(folder.read("log.2"), "line 0000\nline 0001\nline 0002\n");
    }

    /// Two processes of ours: whoever sees that the other has rotated goes on in the new file.
    #[test]
    fn two_writers_share_a_file() {
        let folder = Folder::new();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let mut log = folder.log(2_000, 100);
                std::thread::spawn(move || (0..2_000).for_each(|n| log.write(&format!("{writer} {n:04}\n")).unwrap()))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let all: String = folder.names().iter().map(|name| folder.read(name)).collect();
        let mut lines: Vec<&str> = all.lines().collect();
        lines.sort_unstable();
        let expected: Vec<String> = (0..2).flat_map(|writer| (0..2_000).map(move |n| format!("{writer} {n:04}"))).collect();
        assert_eq!(lines, expected);
        assert!(folder.names().len() > 3, "it has rotated");
    }

    #[cfg(unix)]
    #[test]
    fn others_cannot_read_the_log() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new();
        write(&mut folder.log(30, 2), 0..5);
        for name in folder.names() {
            assert_eq!(fs::metadata(folder.path(&name)).unwrap().permissions().mode() & 0o137, 0, "{name}");
        }
    }

    /// A disk that fills up in the middle of a line, with the system's own limit for the size of a file: it gives a part of
    /// the write, and then an error, as a full disk does.
    #[cfg(unix)]
    #[test]
    fn the_half_of_a_line_that_still_fitted_is_taken_back() {
        const CHILD: &str = "CREDKEEPER_TEST_LOG_IN";
        if let Some(path) = std::env::var_os(CHILD) {
            let mut log = RotatingFile::open(&LogFile { path: path.into(), max_bytes: 1 << 20, backups: 1 }).unwrap();
            write(&mut log, 0..1);
            assert!(log.write(&"x".repeat(9_000)).is_err());
            assert!(log.write(&"y".repeat(9_000)).is_err());
            write(&mut log, 1..2);
            return;
        }
        let folder = Folder::new();
        let name = "logging::file::tests::the_half_of_a_line_that_still_fitted_is_taken_back";
        let limited = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
        let status = std::process::Command::new("sh")
            .args(["-c", limited, "sh", std::env::current_exe().unwrap().to_str().unwrap(), "--exact", name])
            .env(CHILD, folder.path("log"))
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        assert_eq!(folder.read("log"), "line 0000\nline 0001\n");
    }
}
