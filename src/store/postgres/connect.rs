//! Sessions: on which host, encrypted how, with which settings.
//!
//! Of several hosts the read-write one is looked for, one after the other, the one of last time first; each has a time of its
//! own, so that one that hangs is passed over too. Settings are made by statements after the login, because poolers refuse
//! them among the start-up options, and only once it is known that a session's server process is ours alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Connection, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DatabaseConfig, DatabaseTarget};
use crate::store::error::{Cause, Kind, SILENT, StoreError};
use crate::store::sql::LOCK_TIMEOUT;
use crate::tls::{self, TlsSettings};

use super::session::{GRACE, SETTINGS, within};

pub(super) struct Connector {
    hosts: Vec<(String, u16)>,
    tls: Option<TlsSettings>,
    /// Everything but the host.
    login: tokio_postgres::Config,
    connect_timeout: Duration,
    statement_timeout: Duration,
    /// Which of `hosts` gave the last session.
    last: AtomicUsize,
}

impl Connector {
    pub(super) fn new(db: &DatabaseConfig) -> Connector {
        let (hosts, tls) = match &db.target {
            DatabaseTarget::Postgres { hosts, tls, .. } => (hosts.clone(), tls.clone()),
            DatabaseTarget::Sqlite { .. } => (Vec::new(), None),
        };
        let (connect_timeout, statement_timeout) = (db.connect_timeout, db.statement_timeout);
        Connector { login: login(db, hosts.len()), hosts, tls, connect_timeout, statement_timeout, last: AtomicUsize::new(0) }
    }

    /// What connecting takes at most: the time of each host.
    pub(super) fn limit(&self) -> Duration {
        self.limit_of_one() * u32::try_from(self.hosts.len().max(1)).unwrap_or(1)
    }

    /// The TCP connection, then TLS and the login.
    fn limit_of_one(&self) -> Duration {
        self.connect_timeout + GRACE
    }

    /// Hosts and ports, for messages.
    pub(super) fn server(&self) -> String {
        self.hosts.iter().map(shown).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn tls(&self) -> Option<&TlsSettings> {
        self.tls.as_ref()
    }

    /// Whether all that is said to the server stays on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.hosts.iter().all(|(host, _)| crate::config::is_loopback(host))
    }

    /// A session that may write, with our limits.
    pub(super) async fn writing(&self) -> Result<Client, StoreError> {
        let client = self.bare().await?;
        within("set the session up", self.limit_of_one(), client.batch_execute(&self.limits())).await?;
        Ok(client)
    }

    /// The server gives up what we gave up on, and a client that is cut off cannot hold a transaction open.
    fn limits(&self) -> String {
        let (statement, lock) = (self.statement_timeout.as_millis(), LOCK_TIMEOUT.as_millis());
        format!(
            "SET statement_timeout = {statement}; SET lock_timeout = {lock}; SET idle_in_transaction_session_timeout = 30000; {SETTINGS};"
        )
    }

    /// Whether each session has a server process of its own. A pooler in transaction mode hands one process to many sessions,
    /// in turns. Then a session lock belongs to nobody: two instances could both lead, or none. Settings of ours would reach
    /// into sessions of others: a read-only one, into the vendor's. So such a pooler is refused before anything is set.
    ///
    /// While the second session is inside of a transaction, it cannot share its process with anybody: if that is the process
    /// that the first was on, or if the first is now on another one, processes are handed out in turns.
    pub(super) async fn look_for_pooler(&self) -> Result<(), StoreError> {
        let (first, second) = (self.bare().await?, self.bare().await?);
        let before = self.process(&first).await?;
        match within(STEP, self.limit_of_one(), second.batch_execute("BEGIN READ ONLY")).await {
            Err(StoreError::Query { source, .. }) if source.message().contains("pooling mode") => return Err(StoreError::Pooler),
            begun => begun?,
        }
        let held = self.process(&second).await?;
        let shared = held == before || self.process(&first).await? != before;
        within(STEP, self.limit_of_one(), second.batch_execute("COMMIT")).await?;
        if shared { Err(StoreError::Pooler) } else { Ok(()) }
    }

    async fn process(&self, client: &Client) -> Result<i32, StoreError> {
        let rows = within(
            STEP,
            self.limit_of_one(),
            client.query_typed("SELECT pg_backend_pid()", &[] as &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)]),
        )
        .await?;
        rows.first().map(|row| row.get(0)).ok_or_else(|| StoreError::query(STEP, Cause::new(Kind::Query, "the answer was empty")))
    }

    /// A session without any setting, on the first host that will have us.
    async fn bare(&self) -> Result<Client, StoreError> {
        let mut refusals = Vec::new();
        let first = self.last.load(Ordering::Relaxed);
        for turn in 0..self.hosts.len() {
            let index = (first + turn) % self.hosts.len();
            let host = &self.hosts[index];
            let limit = self.limit_of_one();
            let answer = tokio::time::timeout(limit, self.on(host)).await;
            let silent = || Cause::new(Kind::Connect, format!("no answer within {} s", limit.as_secs())).with_remedy(SILENT);
            match answer.unwrap_or_else(|_| Err(silent())) {
                Ok(client) => {
                    self.last.store(index, Ordering::Relaxed);
                    return Ok(client);
                }
                Err(cause) => refusals.push((shown(host), cause)),
            }
        }
        Err(StoreError::Connect { server: self.server(), source: Cause::of_hosts(refusals) })
    }

    async fn on(&self, (host, port): &(String, u16)) -> Result<Client, Cause> {
        let mut config = self.login.clone();
        config.host(host).port(*port);
        match self.encryption()? {
            None => Ok(spawned(config.ssl_mode(SslMode::Disable).connect(NoTls).await?)),
            Some(tls) => Ok(spawned(config.ssl_mode(SslMode::Require).connect(tls).await?)),
        }
    }

    /// Reads the certificates anew, so that renewed ones are taken up.
    fn encryption(&self) -> Result<Option<Encryption>, Cause> {
        let Some(settings) = &self.tls else { return Ok(None) };
        let config = tls::client_config(settings)?;
        Ok(Some(Encryption { inner: MakeRustlsConnect::new((*config).clone()), name: settings.server_name.clone() }))
    }

    /// Asks the server to stop what this session does, without waiting for it.
    pub(super) fn cancel(&self, client: &Client) {
        let token = client.cancel_token();
        let Ok(encryption) = self.encryption() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = match encryption {
                    None => tokio::time::timeout(GRACE, token.cancel_query(NoTls)).await,
                    Some(tls) => tokio::time::timeout(GRACE, token.cancel_query(tls)).await,
                };
            });
        }
    }
}

const STEP: &str = "look whether a pooler shares the sessions";

fn shown((host, port): &(String, u16)) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Lets the connection run by itself; it ends with its client.
fn spawned<S>((client, connection): (Client, Connection<Socket, S>)) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %Cause::from(error), "A database session ended");
        }
    });
    client
}

/// What every session starts with. The time zone is left alone: `local` means the server's own.
fn login(db: &DatabaseConfig, hosts: usize) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    if let DatabaseTarget::Postgres { database, user, password, .. } = &db.target {
        config.dbname(database).user(user);
        if let Some(password) = password {
            config.password(password.expose());
        }
    }
    if hosts > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config
        .application_name("credkeeper")
        .connect_timeout(db.connect_timeout)
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(30))
        .keepalives_interval(Duration::from_secs(10))
        .tcp_user_timeout(Duration::from_secs(60));
    config
}

/// rustls, asked for the name that the configuration expects.
#[derive(Clone)]
struct Encryption {
    inner: MakeRustlsConnect,
    name: Option<String>,
}

impl MakeTlsConnect<Socket> for Encryption {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let name = self.name.as_deref().unwrap_or(host);
        MakeTlsConnect::<Socket>::make_tls_connect(&mut self.inner, name)
    }
}

/// The reading sessions of the pool.
pub(super) struct Reading(pub(super) std::sync::Arc<Connector>);

impl Reading {
    /// Read-only by a setting: a preview cannot write, whatever it is asked.
    async fn prepare(&self, client: &Client, before: &str) -> Result<(), StoreError> {
        let sql = format!("{before}{} SET default_transaction_read_only = on", self.0.limits());
        within("set the session up", self.0.limit_of_one(), client.batch_execute(&sql)).await
    }
}

impl Manager for Reading {
    type Type = Client;
    type Error = StoreError;

    async fn create(&self) -> Result<Client, StoreError> {
        let client = self.0.bare().await?;
        self.prepare(&client, "").await?;
        Ok(client)
    }

    /// Whatever the last user left behind goes: settings, cursors, session locks, temporary tables.
    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<StoreError> {
        const CLEAN: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); \
                             DISCARD TEMP; DISCARD SEQUENCES; ";
        if client.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        self.prepare(client, CLEAN).await.map_err(RecycleError::Backend)
    }
}
