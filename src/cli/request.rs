//! What an operator can ask for, as it is handed from a command to the daemon.

use serde::{Deserialize, Serialize};

/// One thing that an operator asks for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// No pass changes anything of the user any more.
    Hold {
        login: String,
    },
    Release {
        login: String,
    },
    /// Releases all whom the undoing of this pass put on hold.
    ReleaseAll {
        pass: String,
    },
    /// The user's credentials stop to work, and the user is on hold.
    Revoke {
        login: String,
    },
    Resend {
        login: String,
    },
    /// Lets a refused plan through.
    Approve {
        plan: String,
    },
    Undo {
        pass: String,
    },
    /// Lets an undelivered mail, or all of them, be tried again now.
    Retry {
        issuance: Option<i64>,
    },
    TakeBack {
        issuance: i64,
    },
    /// One pass over one user; `json` is how the report is told.
    Once {
        login: String,
        max_users: Option<String>,
        max_replace: Option<String>,
        json: bool,
    },
}

impl Request {
    /// About one user.
    pub(crate) fn login(&self) -> Option<&str> {
        match self {
            Request::Hold { login }
            | Request::Release { login }
            | Request::Revoke { login }
            | Request::Resend { login }
            | Request::Once { login, .. } => Some(login),
            Request::ReleaseAll { .. }
            | Request::Approve { .. }
            | Request::Undo { .. }
            | Request::Retry { .. }
            | Request::TakeBack { .. } => None,
        }
    }

    /// Whether it changes the database, or sends a mail about it: then what an earlier run left has to be settled first, and
    /// nobody else may lead.
    pub(crate) fn needs_lead(&self) -> bool {
        match self {
            Request::Revoke { .. } | Request::Resend { .. } | Request::Undo { .. } | Request::TakeBack { .. } | Request::Once { .. } => {
                true
            }
            Request::Hold { .. }
            | Request::Release { .. }
            | Request::ReleaseAll { .. }
            | Request::Approve { .. }
            | Request::Retry { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_arrives() {
        let once = Request::Once { login: "a\n\"b".into(), max_users: Some("unlimited".into()), max_replace: None, json: true };
        for request in [once, Request::Retry { issuance: None }, Request::Undo { pass: "p".into() }] {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request, "{text}");
        }
    }
}
