//! A throwaway PostgreSQL: one cluster for the whole test process, one database for each test.
//!
//! The server hangs on a pipe: its shell waits for the end of file on standard input, which comes when this process ends, in
//! whatever way, and then stops the server and removes its directory. A line on that input starts the server again, once it
//! was stopped.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// The tables of the vendor's database, as far as they are known; each new database is a copy of one that holds them.
const TABLES: &str = include_str!("data/tables.postgres.sql");

const HELP: &str = "these tests need PostgreSQL's server programs (initdb, postgres): `./test` installs them; \
                    by hand: apt-get install postgresql, dnf install postgresql-server, brew install postgresql";

pub struct Cluster {
    pub port: u16,
    dir: PathBuf,
    server: Child,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// New sessions are turned away, and it ends when the last one has ended.
    Smart,
    /// Sessions are ended, what is open is rolled back.
    Fast,
    /// As a crash does; the next start recovers from the log.
    Immediate,
}

/// How a server differs from others.
pub struct Setup {
    /// Part of its directory's name.
    pub name: &'static str,
    pub hba: &'static str,
    /// Files in its data directory, readable for the server alone.
    pub files: Vec<(String, String)>,
    /// The port of the server that this one follows, with its pg_hba.conf; `None`: a server of its own.
    pub copy_of: Option<u16>,
}

/// A database of its own, as the superuser sees it.
pub struct TestDb {
    pub name: String,
    pub port: u16,
    client: Client,
}

/// The cluster, started by whoever asks first.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    // On a thread of its own, because the tests' threads are inside a runtime already.
    CLUSTER.get_or_init(|| std::thread::spawn(|| start(shared())).join().expect("the PostgreSQL fixture did not start"))
}

impl Cluster {
    /// Turns new sessions away, and ends when the last one has ended ("smart shutdown").
    pub fn retire(&self) {
        self.ask(Stop::Smart);
    }

    fn ask(&self, how: Stop) {
        let signal = match how {
            Stop::Smart => "-TERM",
            Stop::Fast => "-INT",
            Stop::Immediate => "-QUIT",
        };
        let process = fs::read_to_string(self.pid_file()).expect("the server's process");
        let asked = Command::new("kill").args([signal, process.lines().next().expect("a number")]).status();
        assert!(asked.is_ok_and(|status| status.success()));
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("data/postmaster.pid")
    }

    /// Stops the server, and returns when it has ended.
    pub async fn stop(&self, how: Stop) {
        self.ask(how);
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.pid_file().exists() {
            assert!(Instant::now() < deadline, "the server did not end ({how:?})");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it again on its port, and returns when it answers.
    pub async fn start_again(&self) {
        let mut input = self.server.stdin.as_ref().expect("piped");
        input.write_all(b"again\n").expect("the server's shell");
        let deadline = Instant::now() + Duration::from_secs(60);
        while connect(self.port, "postgres").await.is_err() {
            assert!(Instant::now() < deadline, "the server did not start again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What the server has written to its log for `database`, a line each.
    pub fn log_of(&self, database: &str) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("log")).expect("the server's log");
        log.lines().filter_map(|line| line.strip_prefix(&format!("[{database}] "))).map(str::to_owned).collect()
    }
}

impl TestDb {
    pub async fn new() -> TestDb {
        TestDb::on(cluster()).await
    }

    pub async fn on(cluster: &Cluster) -> TestDb {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = connect(cluster.port, "postgres").await.expect("the fixture's server answers");
        let create = format!("CREATE DATABASE {name} TEMPLATE vendor");
        admin.batch_execute(&create).await.expect("a database of its own");
        TestDb { client: connect(cluster.port, &name).await.expect("the new database answers"), name, port: cluster.port }
    }

    /// What a backup tool takes.
    pub fn backup(&self, file: &Path) {
        let arguments = ["--format=custom", "--file", file.to_str().expect("a path"), &self.name];
        self.tool("pg_dump", &arguments);
    }

    /// Puts the tables back as they were then.
    pub fn restore(&self, file: &Path) {
        let arguments = ["--clean", "--if-exists", "--single-transaction", "--dbname", &self.name, file.to_str().expect("a path")];
        self.tool("pg_restore", &arguments);
    }

    fn tool(&self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(programs().join(program));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]).args(arguments).env("PGOPTIONS", LOCK_TIMEOUT);
        let ran = command.output().expect(HELP);
        assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// Any number of statements.
    pub async fn sql(&self, statements: &str) {
        if let Err(error) = self.client.batch_execute(statements).await {
            panic!("{error:?}\nin: {}", statements.chars().take(2000).collect::<String>());
        }
    }

    /// The rows of a query as text; NULL is `None`.
    pub async fn rows(&self, query: &str) -> Vec<Vec<Option<String>>> {
        let answer = self.client.simple_query(query).await.unwrap_or_else(|e| panic!("{e:?}\nin: {query}"));
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
            _ => None,
        });
        rows.collect()
    }
}

/// Whoever waits for a lock that is never given fails, instead of waiting for ever.
const LOCK_TIMEOUT: &str = "-c lock_timeout=120s";

pub async fn connect(port: u16, database: &str) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={port} user=postgres dbname={database} connect_timeout=10 options='{LOCK_TIMEOUT}'");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// `locked` must give a password; `ghost` and `phantom` are nobody; whoever is not named is turned away.
pub const HBA: &str = "host all postgres,credkeeper,reader,phantom,retired,limited 127.0.0.1/32 trust
host all locked,ghost 127.0.0.1/32 scram-sha-256
host all banned 127.0.0.1/32 reject
host replication postgres 127.0.0.1/32 trust
";

fn shared() -> Setup {
    Setup { name: "pg", hba: HBA, files: Vec::new(), copy_of: None }
}

/// Must be called on a thread without a runtime.
pub fn start(setup: Setup) -> Cluster {
    let programs = programs();
    let (dir, owner) = directory(setup.name);
    let run = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command.current_dir(&dir).env_remove("LC_ALL").env("LANG", "C");
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        command
    };
    let made = match setup.copy_of {
        None => run("initdb").args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]).output(),
        Some(port) => {
            let source = format!("host=127.0.0.1 port={port} user=postgres");
            run("pg_basebackup").args(["-D", "data", "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", &source]).output()
        }
    };
    let made = made.expect(HELP);
    assert!(made.status.success(), "{}: {}", setup.name, String::from_utf8_lossy(&made.stderr));
    if setup.copy_of.is_none() {
        fs::write(dir.join("data/pg_hba.conf"), setup.hba).expect("pg_hba.conf");
    }
    for (name, content) in &setup.files {
        private(&dir.join("data").join(name), content, owner);
    }

    for _ in 0..3 {
        let port = free_port();
        let settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "autovacuum=off",
            "max_connections=200",
            "shared_buffers=64MB",
            "max_wal_size=2GB",
            "timezone=Europe/Prague",
            "log_line_prefix=[%d] ",
        ];
        let server = programs.join("postgres");
        let options: String = settings.iter().map(|s| format!(" -c '{s}'")).collect();
        let mut child = serve(&dir, owner, &format!("'{}' -D data -p {port}{options} 2>>log", server.display()), "QUIT");
        if prepare(port, setup.copy_of.is_none()) {
            return Cluster { port, dir, server: child };
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("PostgreSQL did not start: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
}

/// An empty directory of this process, owned by the account that servers run under.
pub fn directory(name: &str) -> (PathBuf, Option<(u32, u32)>) {
    let dir = std::env::temp_dir().join(format!("credkeeper-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for a server");
    let owner = server_account(&dir);
    (dir, owner)
}

/// A file that only the server may read, or it would refuse it.
pub fn private(path: &Path, content: &str, owner: Option<(u32, u32)>) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, content).expect("a file of the server");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its permissions");
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("its owner");
    }
}

/// A port that is free and stays so: below those that the system gives to outgoing connections, one of which could take it
/// between this look and the start of the server.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_240..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Runs `command` in `dir` until the standard input of the answer is closed, as the end of this process does; again for each
/// line that comes there, once it has ended.
pub fn serve(dir: &Path, owner: Option<(u32, u32)>, command: &str, signal: &str) -> Child {
    // The trap: an interrupt at the terminal reaches the shell too, which still has to clean up.
    let script = format!(
        "trap '' INT TERM HUP; {command} & server=$!; while read -r _; do wait $server; {command} & server=$!; done
         kill -{signal} $server; wait $server; cd /; rm -rf '{}'",
        dir.display()
    );
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(script).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some((uid, gid)) = owner {
        shell.uid(uid).gid(gid);
    }
    shell.spawn().expect("a shell for the server")
}

/// Waits until the server answers, and, unless it is a copy, makes the database that the tests copy.
fn prepare(port: u16, fill: bool) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let deadline = Instant::now() + Duration::from_secs(30);
        let admin = loop {
            match connect(port, "postgres").await {
                Ok(client) => break client,
                Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(_) => return false,
            }
        };
        if !fill {
            return true;
        }
        let roles =
            "CREATE ROLE credkeeper LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE locked LOGIN PASSWORD 'right'; CREATE ROLE stranger LOGIN;
                     CREATE ROLE banned LOGIN; CREATE ROLE retired; CREATE ROLE limited LOGIN CONNECTION LIMIT 0";
        admin.batch_execute(roles).await.expect("roles");
        admin.batch_execute("CREATE DATABASE vendor").await.expect("the template");
        let vendor = connect(port, "vendor").await.expect("the template answers");
        vendor.batch_execute(TABLES).await.expect("the tables");
        true
    })
}

/// Where initdb and postgres are.
fn programs() -> PathBuf {
    let complete = |dir: &Path| dir.join("initdb").exists() && dir.join("postgres").exists();
    let asked = Command::new("pg_config").arg("--bindir").output().ok();
    let told = asked.map(|o| PathBuf::from(String::from_utf8_lossy(&o.stdout).trim().to_owned()));
    let mut installed: Vec<PathBuf> = ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt"]
        .iter()
        .filter_map(|root| fs::read_dir(root).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path().join("bin")))
        .collect();
    installed.sort();
    let path: Vec<PathBuf> = std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    told.into_iter().chain(installed.into_iter().rev()).chain(path).find(|dir| complete(dir)).expect(HELP)
}

/// PostgreSQL refuses to run as root: then its own account serves, and owns the directory.
fn server_account(dir: &Path) -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        let output = Command::new("id").args(args).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    if id(&["-u"]) != Some(0) {
        return None;
    }
    let account = id(&["-u", "postgres"]).zip(id(&["-g", "postgres"]));
    let (uid, gid) = account.expect("as root these tests need an account called postgres to run the server");
    std::os::unix::fs::chown(dir, Some(uid), Some(gid)).expect("the cluster's directory changes hands");
    Some((uid, gid))
}
