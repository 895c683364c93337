//! The one place that reads our clock. Everything that decides takes the moment as an argument.

use crate::domain::Timestamp;

/// Now in UTC, whole seconds.
pub fn now() -> Timestamp {
    Timestamp(chrono::Utc::now().timestamp())
}
