//! Handing a request to the instance that holds the journal, and waiting for what it says.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::debug;

use super::OperateError;
use crate::cli::{ExitStatus, Request};
use crate::clock;
use crate::config::{Config, DatabaseConfig};
use crate::journal::{self, Counter, RequestAnswer, RequestStanding};
use crate::logging::Progress;

/// For how long somebody has to take it up.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// For how long what was taken up is waited for: a large pass takes minutes to undo.
const DONE_WITHIN: Duration = Duration::from_secs(1800);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// `None`: nobody is there who takes requests.
pub(super) async fn hand_over(
    config: &Config,
    database: &DatabaseConfig,
    request: &Request,
    progress: &Progress,
) -> Result<Option<(String, ExitStatus)>, OperateError> {
    if !journal::is_held(&config.journal) {
        return Ok(None);
    }
    let Some(counter) = Counter::open(&config.journal)? else { return Ok(None) };
    let text = serde_json::to_string(request).map_err(|e| OperateError::NotUnderstood { why: e.to_string() })?;
    let now = clock::now();
    let id = counter.ask(&database.name, &text, &account(), now, now.plus(TAKEN_WITHIN))?;
    progress.stage("Asking the running instance", None);
    let asked = Instant::now();
    let answered = loop {
        match counter.standing(id)? {
            RequestStanding::Answered(answer) => break Ok(answer),
            RequestStanding::Taken if asked.elapsed() > DONE_WITHIN => break Err(OperateError::NotDone { seconds: DONE_WITHIN.as_secs() }),
            RequestStanding::Waits if asked.elapsed() > TAKEN_WITHIN => {
                if counter.withdraw(id)? {
                    break Err(OperateError::NotTaken { seconds: TAKEN_WITHIN.as_secs() });
                }
            }
            RequestStanding::Taken | RequestStanding::Waits => {}
        }
        sleep(LOOK_AGAIN).await;
    };
    progress.done();
    let RequestAnswer { code, text, failed } = answered?;
    let status = ExitStatus::from_code(code);
    debug!(code, "The running instance has answered");
    if failed { Err(OperateError::Answered { said: text, status }) } else { Ok(Some((text, status))) }
}

/// For the log of the instance that is asked; anybody may call himself anything.
fn account() -> String {
    let named = ["SUDO_USER", "USER", "USERNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}
