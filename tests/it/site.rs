//! A site to try things on: a database, a mail server, a folder with a configuration, and the program itself.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::Client;

use crate::pg::{TestDb, connect, free_port};
use crate::smtp::{Received, SmtpServer, Stopped};

const CREDKEEPER: &str = env!("CARGO_BIN_EXE_credkeeper");
const PEOPLE: &str = include_str!("../data/sql/people.sql");
/// Nothing that a test starts may run for longer: three minutes, and twenty where a long run hashes at a site's cost.
pub fn at_most() -> Duration {
    Duration::from_secs(if is_long() { 1200 } else { 180 })
}

/// Whether `./test long` runs.
pub fn is_long() -> bool {
    std::env::var_os("CREDKEEPER_LONG").is_some()
}

pub struct Site {
    database: TestDb,
    mail: Mutex<Option<MailServer>>,
    mail_port: u16,
    http_port: u16,
    folder: tempfile::TempDir,
}

enum MailServer {
    Up(SmtpServer),
    Down(Stopped),
}

impl Site {
    /// `users` people of sixteen kinds; see `tests/data/sql/people.sql`.
    pub async fn with_people(users: i64) -> Site {
        let site = Site::empty().await;
        site.sql(&PEOPLE.replace(":users", &users.to_string())).await;
        site
    }

    /// Users who all have a valid PIN and are where they should be.
    pub async fn with_settled(users: i64) -> Site {
        let site = Site::empty().await;
        site.sql(&format!(
            "SET search_path = tenant_1;
             INSERT INTO users (login, email, ou_id, ou_number) SELECT 'user' || g, 'user' || g || '@example.com', 0, 0 FROM generate_series(1, {users}) g;
             INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date)
               SELECT g, 'PIN' || md5(lpad(g::text, 8, '0')), 0, 0, localtimestamp + interval '90 days' FROM generate_series(1, {users}) g;
             ANALYZE"
        ))
        .await;
        site
    }

    pub async fn empty() -> Site {
        Site::on(TestDb::new().await)
    }

    /// With nobody in this database.
    pub fn on(database: TestDb) -> Site {
        let mail = SmtpServer::start();
        Site::made(database, mail.port, Some(MailServer::Up(mail)))
    }

    /// With a mail server of the test's own at this port: it has none of its own to ask for mails.
    #[allow(dead_code, reason = "for the fault suite")]
    pub async fn mailing_to(port: u16) -> Site {
        Site::made(TestDb::new().await, port, None)
    }

    fn made(database: TestDb, mail_port: u16, mail: Option<MailServer>) -> Site {
        let site = Site { mail_port, http_port: free_port(), mail: Mutex::new(mail), folder: tempfile::tempdir().unwrap(), database };
        std::fs::write(site.config(), site.yaml()).unwrap();
        site
    }

    fn yaml(&self) -> String {
        format!(
            r"
databases:
  - name: main
    url: {}
    schema_map:
      cost_centers: {{verified: true}}
schedule:
  poll: 5s
limits:
  users_per_pass: unlimited
  replace_percent: unlimited
  mails_per_minute: unlimited
  min_interval: 0s
  batch_size: 1000
policies:
  - name: visitors
    match:
      username: '[^@\s]+@[^@\s]+\.[^@\s]+'
      cost_center: [Needs PIN]
    pin:
      length: 6
      rewrite: never
      valid_for: 30d
    cost_center:
      move_to: Has PIN
    notify:
      to: username
      template: visitor
  - name: staff
    match:
      email: '[^@]+@example\.com'
    pin:
      length: 6
      rewrite: expired
      valid_for: 365d
    notify:
      to: email
      template: staff
  - name: unreachable
    match:
      username: (nomail|badmail)\d+
    pin:
      length: 6
      rewrite: never
    notify:
      to: email
      template: staff
mail:
  transport: smtp
  host: 127.0.0.1
  port: {}
  tls: none
  from: Print Service <print@example.com>
  connections: 4
templates:
  visitor:
    subject: Your documents are waiting
    parts:
      - 'Release your documents at any printer with PIN {{{{ pin }}}}.'
  staff:
    subject: Your new PIN
    parts:
      - 'Hello {{{{ name }}}} {{{{ surname }}}},'
      - 'your PIN {{{{ pin }}}} is valid until {{{{ expires }}}}.'
journal:
  path: journal.db
  key: {{file: journal.key}}
http: {{listen: '127.0.0.1:{}'}}
log:
  level: info
",
            format_args!("postgres://credkeeper@127.0.0.1:{}/{}", self.database.port, self.database.name),
            self.mail_port,
            self.http_port
        )
    }

    /// The same site with another configuration.
    pub fn with_config(self, change: impl FnOnce(String) -> String) -> Site {
        let before = std::fs::read_to_string(self.config()).unwrap();
        let after = change(before.clone());
        assert_ne!(before, after, "the change changed nothing");
        std::fs::write(self.config(), after).unwrap();
        self
    }

    /// The same site with another port to serve HTTP on, for what starts beside a daemon that has the one until now.
    pub fn listening_elsewhere(self) -> Site {
        let listen = regex::Regex::new(r"listen: '[^']+'").unwrap();
        self.with_config(|yaml| listen.replace(&yaml, format!("listen: '127.0.0.1:{}'", free_port())).into_owned())
    }

    /// Where the database answers.
    #[allow(dead_code, reason = "for the fault suite")]
    pub fn database_port(&self) -> u16 {
        self.database.port
    }

    /// Where the mail server answers.
    #[allow(dead_code, reason = "for the fault suite")]
    pub fn mail_port(&self) -> u16 {
        self.mail_port
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self) -> PathBuf {
        self.folder().join("config.yaml")
    }

    // --- the program ---

    pub fn start(&self, arguments: &[&str]) -> Process {
        self.start_by(&self.config(), self.http_port, arguments)
    }

    /// With a configuration of its own, which serves HTTP on this port.
    pub fn start_by(&self, config: &Path, http_port: u16, arguments: &[&str]) -> Process {
        self.started(Command::new(CREDKEEPER), config, http_port, arguments)
    }

    /// By a command of the caller's, who sets its environment or lets a shell set limits first.
    pub fn start_as(&self, command: Command, arguments: &[&str]) -> Process {
        self.started(command, &self.config(), self.http_port, arguments)
    }

    fn started(&self, mut command: Command, config: &Path, http_port: u16, arguments: &[&str]) -> Process {
        let out = self.folder().join(format!("out-{}", rand::random::<u32>()));
        let err = out.with_extension("err");
        let child = command
            .arg("--config")
            .arg(config)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(&err).unwrap())
            .spawn()
            .unwrap();
        Process { child, out, err, http_port }
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    pub fn once(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["--once"], arguments].concat())
    }

    pub async fn http(&self, path: &str) -> String {
        self.page(path).await.expect("the daemon's page")
    }

    pub async fn page(&self, path: &str) -> Option<String> {
        get(self.http_port, path).await.map(|(_, page)| page)
    }

    /// Makes everything in the journal older by so many seconds.
    pub fn age_journal(&self, seconds: i64) {
        let journal = rusqlite::Connection::open(self.folder().join("journal.db")).unwrap();
        journal.execute("UPDATE batch SET settled_at = settled_at - ?1", [seconds]).unwrap();
    }

    // --- the database ---

    /// A session of its own, as the superuser.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let client = connect(self.database.port, &self.database.name).await?;
        client.batch_execute("SET search_path = tenant_1").await?;
        Ok(client)
    }

    pub fn backup(&self) -> PathBuf {
        let file = self.folder().join(format!("backup-{}", rand::random::<u32>()));
        self.database.backup(&file);
        file
    }

    pub fn restore(&self, backup: &Path) {
        self.database.restore(backup);
    }

    pub async fn sql(&self, statements: &str) {
        self.database.sql(&format!("SET search_path = tenant_1; {statements}")).await;
    }

    pub async fn number(&self, query: &str) -> i64 {
        self.rows(&format!("SELECT ({query})::text, ''")).await[0].0.parse().unwrap()
    }

    /// Two columns as text.
    pub async fn rows(&self, query: &str) -> Vec<(String, String)> {
        self.sql("").await; // sets the search path of this session
        let column = |row: &[Option<String>], n: usize| row[n].clone().unwrap_or_default();
        self.database.rows(query).await.iter().map(|row| (column(row, 0), column(row, 1))).collect()
    }

    /// Changes whenever any row of the tables is written, even with the same values.
    pub async fn fingerprint(&self) -> String {
        let parts: Vec<String> = ["users", "users_cards", "users_aliases", "ou", "users_roles"]
            .iter()
            .map(|t| format!("SELECT '{t}', coalesce(md5(string_agg(xmin::text || '/' || t::text, ',' ORDER BY ctid)), '') FROM {t} t"))
            .collect();
        format!("{:?}", self.rows(&parts.join(" UNION ALL ")).await)
    }

    pub async fn add_visitor(&self, login: &str) {
        self.sql(&format!("INSERT INTO users (login, ou_id, ou_number) VALUES ('{login}', 11, 100)")).await;
    }

    // --- the mail server ---

    pub fn mails(&self) -> Vec<Mail> {
        self.received().iter().map(|m| envelope(parse(&m.data), &m.to)).collect()
    }

    /// What the mail server has accepted, in order.
    pub fn received(&self) -> Vec<Received> {
        match self.mail.lock().unwrap().as_ref().unwrap() {
            MailServer::Up(server) => server.mails(),
            MailServer::Down(_) => panic!("the mail server is down"),
        }
    }

    pub async fn mail_to(&self, address: &str, within: Duration) -> Mail {
        let until = Instant::now() + within;
        loop {
            if let Some(mail) = self.mails().into_iter().find(|m| m.to == address) {
                return mail;
            }
            assert!(Instant::now() < until, "no mail to {address} within {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn stop_mail_server(&self) {
        let mut mail = self.mail.lock().unwrap();
        *mail = mail.take().map(|m| match m {
            MailServer::Up(server) => MailServer::Down(server.stop()),
            down => down,
        });
    }

    pub fn start_mail_server(&self) {
        let mut mail = self.mail.lock().unwrap();
        *mail = mail.take().map(|m| match m {
            MailServer::Down(stopped) => MailServer::Up(stopped.start(&[])),
            up => up,
        });
    }
}

// --- processes ---

/// The program at work; ended by force if a test leaves it behind.
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    http_port: u16,
}

pub enum Step {
    /// `/readyz` says yes.
    Ready,
}

pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn all(&self) -> String {
        format!("exit code {}\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

impl Process {
    pub fn wait(mut self) -> Ended {
        let (at_most, start) = (at_most(), Instant::now());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Ended { code: status.code().unwrap_or(-1), stdout: read(&self.out), stderr: read(&self.err) };
            }
            assert!(start.elapsed() < at_most, "still running after {at_most:?}:\n{}", read(&self.err));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// kill -9; `false`: it had ended before.
    pub fn kill(mut self) -> bool {
        let alive = self.is_alive();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        alive
    }

    /// Asks it to stop as a service manager does.
    pub fn stop(self) -> Ended {
        self.signal("-TERM");
        self.wait()
    }

    pub fn signal(&self, which: &str) {
        let asked = Command::new("kill").arg(which).arg(self.child.id().to_string()).status().unwrap();
        assert!(asked.success());
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A page of its own.
    pub async fn page(&self, path: &str) -> Option<String> {
        get(self.http_port, path).await.map(|(_, page)| page)
    }

    /// What it has written to its standard error so far.
    pub fn log(&self) -> String {
        read(&self.err)
    }

    /// Waits until its log says this so many times.
    pub async fn says(&self, what: &str, times: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        while self.log().matches(what).count() < times {
            assert!(Instant::now() < until, "it never said “{what}” {times} times:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn until(&self, step: Step) {
        let Step::Ready = step;
        let until = Instant::now() + Duration::from_secs(60);
        while get(self.http_port, "/readyz").await.is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < until, "not ready:\n{}", read(&self.err));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    std::fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())?))
}

// --- mails ---

/// A mail as a mail program would read it.
pub struct Mail {
    pub raw: String,
    pub headers: Vec<(String, String)>,
    pub to: String,
    pub text: String,
}

impl Mail {
    /// The digits after the word PIN.
    pub fn pin(&self) -> String {
        let pin = regex::Regex::new(r"PIN (\d+)").unwrap();
        pin.captures(&self.text).unwrap_or_else(|| panic!("no PIN in {:?}", self.text))[1].to_owned()
    }
}

/// The envelope decides who gets the mail; the header must say the same.
fn envelope(mail: Mail, recipients: &[String]) -> Mail {
    assert_eq!(recipients, std::slice::from_ref(&mail.to), "envelope and header differ");
    mail
}

/// Splits headers and body; unfolds, and undoes quoted-printable and Base64 as far as the tests need it.
pub fn parse(raw: &str) -> Mail {
    let raw = raw.replace("\r\n", "\n");
    let (head, body) = raw.split_once("\n\n").expect("a mail has a blank line");
    let unfolded = head.replace("\n ", " ").replace("\n\t", " ");
    let headers: Vec<(String, String)> = unfolded
        .lines()
        .map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())).expect("a header has a colon"))
        .collect();
    let by_name: HashMap<String, &str> = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    let to = by_name.get("to").expect("a To header").trim_matches(['<', '>']).to_owned();
    let text = match by_name.get("content-transfer-encoding").copied().unwrap_or_default() {
        "quoted-printable" => body.replace("=\n", ""),
        _ => body.to_owned(),
    };
    Mail { to, text, headers, raw }
}
