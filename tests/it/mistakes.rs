//! What an administrator meets when something is wrong: each situation is made for real, the real program is run in it, and
//! what it says is kept as a golden in `tests/data/mistakes`. Each is to hold what is wrong, where, and what to do next.
#![cfg(unix)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use regex::Regex;

use crate::bounded;
use crate::golden::golden;

mod certificates;
mod configuration;
mod database;
mod files;
mod mail;

/// In the environment of every run, for those who ask for it.
const WRONG_PASSWORD: &str = "swordfish-and-chips";
const CREDKEEPER: &str = env!("CARGO_BIN_EXE_credkeeper");

/// A folder with a configuration, the program run in it, and what it said.
pub struct Scene {
    folder: tempfile::TempDir,
    /// Where the program is, and the account that it runs under, if not by this one.
    stranger: Option<(PathBuf, u32)>,
    told: String,
    /// What differs from run to run, and what the golden calls it.
    hidden: Vec<(String, &'static str)>,
}

/// The program at work.
pub struct Running {
    child: Child,
    said: PathBuf,
    arguments: Vec<String>,
}

impl Scene {
    /// `title` is what went wrong, in the administrator's words.
    pub fn new(title: &str) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let hidden = vec![(folder.path().display().to_string(), "/site")];
        Scene { folder, stranger: None, told: format!("{title}\n"), hidden }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn with(self, name: &str, content: impl AsRef<[u8]>) -> Scene {
        fs::write(self.folder().join(name), content).unwrap();
        self
    }

    pub fn config(self, yaml: impl AsRef<[u8]>) -> Scene {
        self.with("config.yaml", yaml)
    }

    pub fn hide(&mut self, what: impl ToString, name: &'static str) {
        self.hidden.push((what.to_string(), name));
    }

    pub fn hiding(mut self, what: impl ToString, name: &'static str) -> Scene {
        self.hide(what, name);
        self
    }

    /// Runs the program as an account that may not write what is not its own, even where the tests run as root. The folder
    /// is that account's, as it is now.
    pub fn run_by_a_stranger(mut self) -> Scene {
        use std::os::unix::fs::{PermissionsExt, chown};
        if number_of("-u", None) == Some(0) {
            let nobody = number_of("-u", Some("nobody")).expect("an account called nobody");
            // Where the tests were built, it may not look.
            let program = self.folder().join("bin");
            fs::create_dir(&program).unwrap();
            let program_file = program.join("credkeeper");
            fs::hard_link(CREDKEEPER, &program_file).or_else(|_| fs::copy(CREDKEEPER, &program_file).map(|_| ())).unwrap();
            fs::set_permissions(self.folder(), fs::Permissions::from_mode(0o755)).unwrap();
            chown(self.folder(), Some(nobody), None).unwrap();
            for entry in fs::read_dir(self.folder()).unwrap() {
                chown(entry.unwrap().path(), Some(nobody), None).unwrap();
            }
            self.stranger = Some((program.join("credkeeper"), nobody));
        }
        self
    }

    /// A folder that the program may look into and not write to.
    pub fn locked_folder(self, name: &str) -> Scene {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder().join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        self
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.stranger {
            None => Command::new(CREDKEEPER),
            Some((program, account)) => {
                let mut command = Command::new(program);
                command.uid(*account).gid(*account);
                command
            }
        };
        command.current_dir(self.folder()).args(arguments).stdin(Stdio::null());
        command.env("CREDKEEPER_WRONG_PASSWORD", WRONG_PASSWORD);
        for variable in ["STATE_DIRECTORY", "NO_COLOR", "COLUMNS"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs the program and takes down what it says, as a terminal would show it. Of `doctor` only what is not in order.
    pub fn run(&mut self, arguments: &[&str]) -> i32 {
        let running = self.start(arguments);
        self.end(running)
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        let said = self.folder().join(".said");
        let out = fs::File::create(&said).unwrap();
        let child = self.command(arguments).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        Running { child, said, arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect() }
    }

    pub fn end(&mut self, mut running: Running) -> i32 {
        let code = bounded::wait(&mut running.child).code().unwrap_or(-1);
        let said = String::from_utf8_lossy(&fs::read(running.said).unwrap()).into_owned();
        let arguments: Vec<&str> = running.arguments.iter().map(String::as_str).collect();
        self.tell(&arguments, &said, code);
        code
    }

    /// As if it had been run.
    pub fn says(mut self, arguments: &[&str], said: &str, code: i32) -> Scene {
        self.tell(arguments, said, code);
        self
    }

    fn tell(&mut self, arguments: &[&str], said: &str, code: i32) {
        let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok     ")).collect();
        let called = [&["credkeeper"], arguments].concat().join(" ");
        self.told.push_str(&format!("\n$ {called}\n{}\nexit code {code}\n", lines.join("\n").trim_end()));
    }

    /// For what a pass needs too: the program looks, and then it tries.
    pub fn doctor_and_once(mut self, codes: (i32, i32)) -> Scene {
        assert_eq!((self.run(&["doctor"]), self.run(&["--once"])), codes, "{}", self.told);
        self
    }

    /// Compares all that was said with the golden of this name.
    pub fn is(self, name: &str) {
        let mut told = self.told;
        assert!(!told.contains(WRONG_PASSWORD), "{told}");
        for (what, name) in &self.hidden {
            told = told.replace(what.as_str(), name);
        }
        let log_time = r"(?m)^\d{4}-\d{2}-\d{2}T[\d:.]+Z +";
        for (pattern, name) in [
            (log_time, ""),
            (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
            (r"\btest_\d+\b", "SQDB6"),
            (r"(reading took|planning|writing) \d+\.\d s", "$1 SOME s"),
            (r"failed to lookup address information: [A-Za-z]+( [A-Za-z]+)*", "failed to lookup address information: WHY"),
        ] {
            told = Regex::new(pattern).unwrap().replace_all(&told, name).into_owned();
        }
        golden(&format!("mistakes/{name}.txt"), &told);
    }
}

/// Of an account, or of this process.
fn number_of(what: &str, account: Option<&str>) -> Option<u32> {
    let output = Command::new("id").arg(what).args(account).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// A configuration that is right. `database` and `mail` are sections without their first line.
pub fn yaml(database: &str, mail: &str) -> String {
    format!(
        "databases:
  - name: main
{database}
limits: {{users_shrunk: unlimited, unexplained_pins: unlimited, pinless_rise: unlimited, clock_skew: unlimited, delivery_down: unlimited}}
policies:
  - name: visitors
    match: {{username: '.+@.+', cost_center: [Needs PIN]}}
    pin: {{length: 6, rewrite: never, quarantine: 0d}}
    cost_center: {{move_to: Has PIN}}
    notify: {{template: visitor}}
mail:
{mail}
  on_undeliverable: keep
templates:
  visitor:
    subject: Your documents are waiting
    parts: ['Release them with PIN {{{{ pin }}}}.']
journal: {{path: journal.db, key: {{file: journal.key}}}}
http: null
log: {{level: warn}}
"
    )
}

/// Mails go to a folder.
pub const OUTBOX: &str = "  transport: directory\n  directory: outbox\n  from: Print Service <print@example.com>";

#[test]
fn no_golden_is_an_orphan() {
    let sources = [
        include_str!("mistakes/certificates.rs"),
        include_str!("mistakes/configuration.rs"),
        include_str!("mistakes/database.rs"),
        include_str!("mistakes/files.rs"),
        include_str!("mistakes/mail.rs"),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mistakes");
    for file in fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let stem = format!("\"{}\"", name.trim_end_matches(".txt"));
        assert!(sources.iter().any(|source| source.contains(&stem)), "tests/data/mistakes/{name} belongs to no test");
    }
}
