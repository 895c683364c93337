//! How sessions are opened, and how long anything is waited for.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{Client, NoTls};

use crate::config::{DatabaseConfig, DatabaseTarget};
use crate::store::error::StoreError;

/// What a client waits longer than the server's own `statement_timeout`, so that the server's answer comes first.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// For every session, where the server knows the setting. Compiling (`jit`) costs a batch of a thousand more than running it;
/// sessions that idle by design, as the leader's does, are not to be ended for it.
pub(super) const SETTINGS: &str = "SELECT set_config(s.name, s.value, false)
    FROM (VALUES ('jit', 'off'), ('idle_session_timeout', '0')) s(name, value) WHERE current_setting(s.name, true) IS NOT NULL";

pub(super) fn server(db: &DatabaseConfig) -> String {
    match &db.target {
        DatabaseTarget::Postgres { hosts, .. } => hosts.iter().map(|(h, p)| format!("{h}:{p}")).collect::<Vec<_>>().join(", "),
        DatabaseTarget::Sqlite { path } => path.display().to_string(),
    }
}

/// `connect_timeout` bounds one TCP connect; the whole, over all hosts and with the login, is bounded by this.
pub(super) fn connect_limit(db: &DatabaseConfig) -> Duration {
    let hosts = match &db.target {
        DatabaseTarget::Postgres { hosts, .. } => hosts.len().max(1),
        DatabaseTarget::Sqlite { .. } => 1,
    };
    db.connect_timeout * u32::try_from(hosts).unwrap_or(1) + GRACE
}

/// The settings of every session. The time zone is left alone: `local` means the server's own.
pub(super) fn session(db: &DatabaseConfig) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    if let DatabaseTarget::Postgres { hosts, database, user, password } = &db.target {
        for (host, port) in hosts {
            config.host(host).port(*port);
        }
        config.dbname(database).user(user);
        if let Some(password) = password {
            config.password(password.expose());
        }
        if hosts.len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
    }
    let idle = Duration::from_secs(30);
    config
        .application_name("credkeeper")
        .connect_timeout(db.connect_timeout)
        .keepalives(true)
        .keepalives_idle(idle)
        .keepalives_interval(Duration::from_secs(10))
        .tcp_user_timeout(Duration::from_secs(60))
        .options(format!("-c statement_timeout={} -c idle_in_transaction_session_timeout=30000", db.statement_timeout.as_millis()));
    config
}

/// Waits for an answer no longer than `limit`, and notes how long it took.
pub(super) async fn within<T>(
    step: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    let start = Instant::now();
    let answer = tokio::time::timeout(limit, call).await;
    let duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(query = step, duration_ms, ok = matches!(answer, Ok(Ok(_))), "Asked the database");
    match answer {
        Ok(answer) => answer.map_err(|e| StoreError::query(step, e)),
        Err(_) => Err(StoreError::Deadline { step, after: limit }),
    }
}

/// Asks the server to stop what this session does, without waiting for it.
pub(super) fn cancel(client: &Client) {
    let token = client.cancel_token();
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            let _ = tokio::time::timeout(GRACE, token.cancel_query(NoTls)).await;
        });
    }
}
