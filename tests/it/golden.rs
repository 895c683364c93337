//! What people read, kept as files: a change of wording is seen in review. `UPDATE_GOLDENS=1` writes them anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use crate::bounded::Bounded;

/// Compares `text` with `tests/data/{name}`, after whatever differs from run to run has been given a fixed name.
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let text = settled(text);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name} has changed; if that is meant, run with UPDATE_GOLDENS=1 and read the difference");
}

fn settled(text: &str) -> String {
    let mut text = text.to_owned();
    for (pattern, name) in [
        (r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d+)?Z?", "DATE"),
        (r"\b[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} [+-]\d{4}", "DATE"),
        (r"\b[0-9a-f]{32}\b", "ID"),
        (r"\b[0-9a-f]{16}\b", "PASS"),
        (r"\d+\.\d s\b", "0.0 s"),
        (r"PIN \d{6}\b", "PIN DIGITS"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, name).into_owned();
    }
    text
}

struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    fn make(users: u32) -> Sandbox {
        let folder = tempfile::tempdir().unwrap();
        credkeeper::sandbox::create(&folder.path().join("box"), users).unwrap();
        Sandbox { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join("box").join(name)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output =
            Command::new(env!("CARGO_BIN_EXE_credkeeper")).arg("--config").arg(self.at("config.yaml")).args(arguments).output_in_time();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn mail_to(&self, address: &str) -> String {
        let mails = std::fs::read_dir(self.at("outbox")).unwrap().map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap());
        mails.into_iter().find(|mail| mail.contains(&format!("To: {address}\r\n"))).unwrap_or_else(|| panic!("no mail to {address}"))
    }
}

#[test]
fn the_sandbox_reads_as_it_always_did() {
    let sandbox = Sandbox::make(60);
    golden("sandbox/plan.txt", &sandbox.run(&["plan"]));
    let login = |query: &str| -> String {
        let database = rusqlite::Connection::open(sandbox.at("sandbox.db")).unwrap();
        database.query_row(query, [], |row| row.get(0)).unwrap()
    };
    let visitor = login("SELECT login FROM users WHERE ou_id = 1 AND flag = 1 AND login LIKE '%@%' ORDER BY id LIMIT 1");
    let expired = login(
        "SELECT login FROM users u JOIN users_cards c ON c.user_id = u.id WHERE pin_expiration_date < datetime('now') AND email LIKE '%@example.com' ORDER BY u.id LIMIT 1",
    );
    let role = login("SELECT login FROM users WHERE flag & 32768 <> 0 ORDER BY id LIMIT 1");
    let people = [("visitor", visitor.as_str()), ("expired", &expired), ("template", "template"), ("role", &role)];
    for (who, login) in people {
        golden(&format!("sandbox/explain-{who}-before.txt"), &sandbox.run(&["explain", login]));
    }
    golden("sandbox/once.txt", &sandbox.run(&["--once"]));
    golden("sandbox/mail.eml", &sandbox.mail_to(&visitor).replace("\r\n", "\n"));
    golden("sandbox/explain-visitor-after.txt", &sandbox.run(&["explain", &visitor]));
    golden("sandbox/again.txt", &sandbox.run(&["--once"]));
}

#[test]
fn no_golden_is_an_orphan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sandbox");
    let source = include_str!("golden.rs");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let known = source.contains(&format!("sandbox/{name}")) || name.starts_with("explain-");
        assert!(known, "tests/data/sandbox/{name} belongs to no test");
    }
}
