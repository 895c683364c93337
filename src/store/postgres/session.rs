//! What every session is set to, and how long anything is waited for.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::store::error::StoreError;

/// What a client waits longer than the server's own `statement_timeout`, so that the server's answer comes first.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// For every session, where the server knows the setting. Compiling (`jit`) costs a batch of a thousand more than running it;
/// sessions that idle by design, as the leader's does, are not to be ended for it.
pub(super) const SETTINGS: &str = "SELECT set_config(s.name, s.value, false)
    FROM (VALUES ('jit', 'off'), ('idle_session_timeout', '0')) s(name, value) WHERE current_setting(s.name, true) IS NOT NULL";

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
