//! A throwaway PostgreSQL: one cluster for the whole test process, one database for each test.
//!
//! The server hangs on a pipe: its shell waits for the end of file on standard input, which comes when this process ends, in
//! whatever way, and then stops the server and removes its directory.

use std::fs;
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
    _server: Child,
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
    CLUSTER.get_or_init(|| std::thread::spawn(start).join().expect("the PostgreSQL fixture did not start"))
}

impl Cluster {
    /// What the server has written to its log for `database`, a line each.
    pub fn log_of(&self, database: &str) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("log")).expect("the server's log");
        log.lines().filter_map(|line| line.strip_prefix(&format!("[{database}] "))).map(str::to_owned).collect()
    }
}

impl TestDb {
    pub async fn new() -> TestDb {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let cluster = cluster();
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = connect(cluster.port, "postgres").await.expect("the fixture's server answers");
        let create = format!("CREATE DATABASE {name} TEMPLATE vendor");
        admin.batch_execute(&create).await.expect("a database of its own");
        TestDb { client: connect(cluster.port, &name).await.expect("the new database answers"), name, port: cluster.port }
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

async fn connect(port: u16, database: &str) -> Result<Client, tokio_postgres::Error> {
    let config = format!("host=127.0.0.1 port={port} user=postgres dbname={database} connect_timeout=10");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn start() -> Cluster {
    let programs = programs();
    let dir = std::env::temp_dir().join(format!("credkeeper-pg-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory for the cluster");
    let owner = server_account(&dir);
    let run = |program: &str| {
        let mut command = Command::new(programs.join(program));
        command.current_dir(&dir).env_remove("LC_ALL").env("LANG", "C");
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        command
    };
    let initdb = ["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
    let made = run("initdb").args(initdb).output().expect(HELP);
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    // `locked` must give a password; whoever is not named is turned away.
    let hba = "host all postgres,credkeeper,reader 127.0.0.1/32 trust\nhost all locked 127.0.0.1/32 scram-sha-256\n";
    fs::write(dir.join("data/pg_hba.conf"), hba).expect("pg_hba.conf");

    for _ in 0..3 {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
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
        // The trap: an interrupt at the terminal reaches the shell too, which still has to clean up.
        let script = format!(
            "trap '' INT TERM HUP; '{}' -D data -p {port}{options} 2>log & server=$!; cat >/dev/null; kill -QUIT $server; wait $server; cd /; rm -rf '{}'",
            server.display(),
            dir.display()
        );
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(script).current_dir(&dir).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((uid, gid)) = owner {
            shell.uid(uid).gid(gid);
        }
        let mut child = shell.spawn().expect("a shell for the server");
        if prepare(port) {
            // Its standard input is never closed by us: the end of this process closes it.
            return Cluster { port, dir, _server: child };
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("PostgreSQL did not start: {}", fs::read_to_string(dir.join("log")).unwrap_or_default());
}

/// Waits until the server answers, and makes the database that the tests copy.
fn prepare(port: u16) -> bool {
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
        let roles =
            "CREATE ROLE credkeeper LOGIN; CREATE ROLE reader LOGIN; CREATE ROLE locked LOGIN PASSWORD 'right'; CREATE ROLE stranger LOGIN";
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
