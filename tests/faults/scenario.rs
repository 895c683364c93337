//! What is at stake in a case: a small site, its policies, and what each of its users is to end with.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use crate::scripted::Scripted;
use crate::site::{Ended, Mail, Process, Site, is_long};

const CREDKEEPER: &str = env!("CARGO_BIN_EXE_credkeeper");
/// Of the card assignment codes; not digits only, or a time could look like it.
pub const KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// Users of a site; what each has before is told by his id, see [`Had`].
pub const USERS: i64 = 24;
/// How much shorter the pauses of delivery are that no configuration changes.
const HASTE: u32 = 20;
/// Nothing that a daemon does by itself may take longer.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What the policies ask for. Another kind of change is added here: its configuration, and what its users end with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// PINs, and reminders of those that lapse.
    Pin,
    /// PIN, card assignment code and password in one change and one mail.
    Everything,
    /// PINs that get another end: some users are told theirs again, others nothing.
    Extension,
}

/// What a user has before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Had {
    Nothing,
    Expired,
    /// For three months.
    Valid,
    /// For three days.
    Lapsing,
}

pub fn had(user: i64) -> Had {
    match user % 8 {
        1 | 5 => Had::Expired,
        2 => Had::Valid,
        6 => Had::Lapsing,
        _ => Had::Nothing,
    }
}

/// What a user is to be told in one mail.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Told {
    pub pin: bool,
    pub code: bool,
    pub password: bool,
}

impl Scenario {
    pub const ALL: [Scenario; 3] = [Scenario::Pin, Scenario::Everything, Scenario::Extension];

    /// `None`: no mail about a credential.
    pub fn told(self, user: i64) -> Option<Told> {
        let issued = matches!(had(user), Had::Nothing | Had::Expired);
        match self {
            Scenario::Pin => issued.then_some(Told { pin: true, ..Told::default() }),
            Scenario::Everything => Some(Told { pin: issued, code: true, password: true }),
            // Of the expired ones every other is told his PIN again.
            Scenario::Extension => (issued && !silent(user)).then_some(Told { pin: true, ..Told::default() }),
        }
    }

    /// Whether something of his is changed.
    pub fn changes(self, user: i64) -> bool {
        self.told(user).is_some() || (self == Scenario::Extension && silent(user))
    }

    /// Whether anybody is reminded that a PIN lapses.
    pub fn has_reminders(self) -> bool {
        self == Scenario::Pin
    }

    pub fn reminds(self, user: i64) -> bool {
        self.has_reminders() && had(user) == Had::Lapsing
    }

    /// Whether the database holds the digits themselves: only then a PIN that is there can be told again at once.
    pub fn in_plain(self) -> bool {
        self == Scenario::Extension
    }

    fn database(self) -> String {
        match self {
            Scenario::Pin => String::new(),
            Scenario::Everything => format!(
                "      users: {{puk: {{column: puk, verified: true}}}}\n    cac_cipher: {{algorithm: aes-128-ecb, key: '{KEY}'}}\n    password_encoding: {{bcrypt: {{cost: 4}}}}\n"
            ),
            Scenario::Extension => "    pin_format: prefix\n".to_owned(),
        }
    }

    fn policies(self) -> &'static str {
        match self {
            Scenario::Pin => {
                "  - name: staff
    pin: {length: 8, rewrite: expired, valid_for: 365d}
    notify: {to: email, template: all, reminders: [7d]}
"
            }
            Scenario::Everything => {
                "  - name: staff
    pin: {length: 8, rewrite: expired, valid_for: 365d}
    card_assignment_code: {length: 8}
    password: {length: 16}
    notify: {to: email, template: all}
"
            }
            Scenario::Extension => {
                "  - name: silent
    match: {username: 'silent.*'}
    pin: {length: 8, rewrite: extend, valid_for: 90d}
    notify: {to: email, template: all}
  - name: staff
    pin: {length: 8, rewrite: extend, valid_for: 90d, send_existing: true}
    notify: {to: email, template: all}
"
            }
        }
    }

    fn people(self) -> String {
        let rows = |row: &dyn Fn(i64) -> Option<String>| (1..=USERS).filter_map(row).collect::<Vec<_>>().join(", ");
        let name = |user: i64| if silent(user) { "silent" } else { "user" };
        let users = rows(&|user| Some(format!("({user}, '{0}{user}', '{0}{user}@example.com', 1, 0, 0, '')", name(user))));
        let cards = rows(&|user| {
            let end = match had(user) {
                Had::Nothing => return None,
                Had::Expired => "- interval '1 hour'",
                Had::Valid => "+ interval '90 days'",
                Had::Lapsing => "+ interval '3 days'",
            };
            let digits = format!("{}", 71_000_000 + user);
            let value = if self.in_plain() { format!("'PIN{digits}'") } else { format!("'PIN' || md5('{digits}')") };
            Some(format!("({user}, {value}, 0, 0, localtimestamp {end})"))
        });
        format!(
            "INSERT INTO users (id, login, email, flag, ou_id, ou_number, pass) VALUES {users};
             SELECT setval('users_id_seq', {USERS});
             INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date) VALUES {cards};
             CREATE EXTENSION pgcrypto SCHEMA public"
        )
    }
}

/// A user of whose extension nobody is told: only the scenario of that name has such.
fn silent(user: i64) -> bool {
    user % 8 == 5
}

/// What stood in the database at any time, committed: noted by the database itself.
const STOOD: &str = "
CREATE SCHEMA stood;
CREATE TABLE stood.pins AS SELECT user_id, card FROM users_cards;
CREATE TABLE stood.others AS SELECT id AS user_id, puk, pass FROM users;
CREATE FUNCTION stood.pin() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
  'BEGIN INSERT INTO stood.pins VALUES (new.user_id, new.card); RETURN NULL; END';
CREATE FUNCTION stood.other() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
  'BEGIN INSERT INTO stood.others VALUES (new.id, new.puk, new.pass); RETURN NULL; END';
CREATE TRIGGER stood AFTER INSERT OR UPDATE ON users_cards FOR EACH ROW EXECUTE FUNCTION stood.pin();
CREATE TRIGGER stood AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION stood.other();
ANALYZE";

const TEMPLATES: &str = "templates:
  all:
    subject: Your credentials
    parts: ['PIN {{ pin }}', 'CODE {{ card_assignment_code }}', 'PASSWORD {{ password }}']
    reminder:
      subject: Soon
      parts: ['Your PIN lapses on {{ expires }}.']
";

/// A site with a scenario.
pub struct Stage {
    pub site: Site,
    pub scenario: Scenario,
    /// `None`: the site's own server.
    pub scripted: Option<Scripted>,
}

impl Stage {
    /// With a mail server of the suite's own, which is well.
    pub async fn new(scenario: Scenario) -> Stage {
        Stage::with(scenario, Scripted::start(None).await).await
    }

    pub async fn with(scenario: Scenario, scripted: Scripted) -> Stage {
        let site = Site::mailing_to(scripted.port).await;
        Stage::set(scenario, site, Some(scripted)).await
    }

    /// With the mail server that the other tests use.
    pub async fn with_aiosmtpd(scenario: Scenario) -> Stage {
        Stage::set(scenario, Site::empty().await, None).await
    }

    async fn set(scenario: Scenario, site: Site, scripted: Option<Scripted>) -> Stage {
        site.sql(&scenario.people()).await;
        site.sql(STOOD).await;
        let site = site.with_config(|yaml| configured(scenario, &yaml));
        Stage { site, scenario, scripted }
    }

    pub fn configured(mut self, change: impl FnOnce(String) -> String) -> Stage {
        self.site = self.site.with_config(change);
        self
    }

    pub fn small_batches(self) -> Stage {
        self.configured(|yaml| yaml.replace("batch_size: 1000", "batch_size: 7"))
    }

    /// All that mail programs show.
    pub fn mails(&self) -> Vec<Mail> {
        self.scripted.as_ref().map_or_else(|| self.site.mails(), Scripted::mails)
    }

    /// The program, in haste, with these variables besides.
    pub fn start(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Process {
        let mut command = Command::new(CREDKEEPER);
        command.envs(variables.iter().copied());
        self.start_as(command, arguments)
    }

    /// The program with room for so many blocks of 512 bytes in any one file.
    pub fn start_with_room(&self, blocks: u64, arguments: &[&str]) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""), CREDKEEPER]);
        self.start_as(command, arguments)
    }

    fn start_as(&self, mut command: Command, arguments: &[&str]) -> Process {
        if !is_long() {
            command.env("CREDKEEPER_FAULT_HASTE", HASTE.to_string());
        }
        self.site.start_as(command, arguments)
    }

    pub async fn once(&self) -> Ended {
        ended(self.start(&[], &["--once"])).await
    }

    /// A run that leaves nothing to do: what was put off is due again, and nobody waits.
    pub async fn settle(&self) -> Ended {
        self.due_at_once();
        self.once().await
    }

    /// What the journal has put off comes at the next start.
    pub fn due_at_once(&self) {
        if self.journal_path().exists() {
            let journal = rusqlite::Connection::open(self.journal_path()).unwrap();
            journal.execute_batch("UPDATE issuance SET next_attempt = 0 WHERE open = 1 AND next_attempt IS NOT NULL").unwrap();
            journal.execute_batch("UPDATE reminder SET next_attempt = 0 WHERE next_attempt IS NOT NULL").unwrap();
        }
    }

    pub fn journal_path(&self) -> std::path::PathBuf {
        self.site.folder().join("journal.db")
    }

    /// Waits until everybody whom the scenario tells something has a mail, and nothing is on its way.
    pub async fn all_told(&self, daemon: &Process) {
        let wanted: Vec<String> = (1..=USERS).filter(|user| self.scenario.told(*user).is_some()).map(|user| self.address(user)).collect();
        self.until("everybody has a mail and the journal is at rest", daemon, || {
            let mails = self.mails();
            let credentials: std::collections::BTreeSet<&str> = mails
                .iter()
                .filter(|mail| mail.text.contains("PIN ") || mail.text.contains("CODE "))
                .map(|mail| mail.to.as_str())
                .collect();
            wanted.iter().all(|to| credentials.contains(to.as_str())) && self.open_rows() == 0
        })
        .await;
    }

    pub async fn until(&self, what: &str, daemon: &Process, holds: impl Fn() -> bool) {
        let patience = if is_long() { PATIENCE * 8 } else { PATIENCE };
        let until = Instant::now() + patience;
        while !holds() {
            assert!(Instant::now() < until, "not within {patience:?}: {what}\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Issuances that wait for something, or -1 while the journal cannot be read.
    pub fn open_rows(&self) -> i64 {
        let open = |path: &Path| -> rusqlite::Result<i64> {
            let journal = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            journal.query_row("SELECT count(*) FROM issuance WHERE open = 1", [], |row| row.get(0))
        };
        open(&self.journal_path()).unwrap_or(-1)
    }

    pub fn address(&self, user: i64) -> String {
        format!("{}{user}@example.com", if silent(user) { "silent" } else { "user" })
    }
}

fn configured(scenario: Scenario, yaml: &str) -> String {
    let cut = |from: &str, to: &str| {
        let begin = yaml.find(from).unwrap();
        yaml[begin..yaml.find(to).unwrap()].to_owned()
    };
    let head = cut("\ndatabases:", "\npolicies:")
        .replace("schedule:", &format!("{}    connect_timeout: 1s\n    statement_timeout: 2s\nschedule:", scenario.database()))
        .replace("poll: 5s", "poll: 1s");
    let mail = cut("\nmail:", "\ntemplates:").replace("connections: 4", "connections: 2\n  timeout: 1s\n  on_undeliverable: keep");
    let rest = &yaml[yaml.find("\njournal:").unwrap()..];
    format!("{head}\npolicies:\n{}{mail}\n{TEMPLATES}{rest}", scenario.policies())
}

/// Waits for its end without holding up others.
pub async fn ended(process: Process) -> Ended {
    spawn_blocking(move || process.wait()).await.expect("it ends in time")
}

/// Asks it to stop, and waits.
pub async fn stopped(process: Process) -> Ended {
    spawn_blocking(move || process.stop()).await.expect("it ends in time")
}
