//! `--report FILE.json`: the users one by one, streamed while the pass runs, then the totals.
//!
//! ```json
//! {"users": [{"id": 7, "login": "v@example.org", "policy": "visitors", "state": "applied", "codes": ["pin_missing"]}],
//!  "report": { … }}
//! ```
//!
//! Of several databases each user has the name of its own, and `reports` lists what came of each.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use super::{Line, Report, json};

/// A report being written: under a temporary name until it is whole.
pub struct ReportFile {
    path: PathBuf,
    /// Whether there are several databases.
    several: bool,
    temporary: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: BufWriter<File>,
    lines: u64,
    /// The first write that failed; told at the end, so that a full disk never stops a pass.
    error: Option<io::Error>,
}

impl ReportFile {
    /// # Errors
    /// When the file cannot be made: better known before the pass than after it.
    pub fn create(path: &Path, several: bool) -> io::Result<ReportFile> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mut file = BufWriter::new(File::create(&temporary)?);
        file.write_all(b"{\"users\": [")?;
        Ok(ReportFile { path: path.to_owned(), several, temporary, inner: Mutex::new(Inner { file, lines: 0, error: None }) })
    }

    pub fn line(&self, database: &str, line: Line<'_>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut value = json!({"id": line.user.0, "login": line.login, "policy": line.policy, "state": line.state, "codes": line.codes});
        if self.several {
            value["database"] = database.into();
        }
        let comma = if inner.lines == 0 { "\n" } else { ",\n" };
        inner.lines += 1;
        if let Err(error) = write!(inner.file, "{comma}{value}") {
            inner.error.get_or_insert(error);
        }
    }

    /// # Errors
    /// The first thing that could not be written.
    pub fn finish(self, ended: &[(&str, Result<&Report, String>)]) -> io::Result<()> {
        let Inner { mut file, error, .. } = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error {
            return Err(error);
        }
        match ended {
            [(_, Ok(report))] if !self.several => write!(file, "],\n\"report\": {}}}\n", json::render(report))?,
            _ => write!(file, "],\n\"reports\": {}}}\n", json::several(ended))?,
        }
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        fs::rename(&self.temporary, &self.path)
    }
}
