//! What a token endpoint answers (RFC 6749, 5). Of its texts nothing is repeated: they may hold what was sent.

use std::fmt;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::Secret;
use crate::tls::{Explanation, TlsError};

/// For a token that does not say how long it lives.
const LIFETIME: Duration = Duration::from_secs(300);
/// Nobody means a longer one.
const LONGEST: Duration = Duration::from_secs(86_400);

/// A token, and how long it lives from now on.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) token: Secret,
    pub(super) lifetime: Duration,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the name of the token endpoint has no address")]
    Resolve(#[source] io::Error),
    #[error("the token endpoint cannot be reached")]
    Connect(#[source] io::Error),
    #[error("the token endpoint did not answer in time")]
    Timeout,
    #[error("the token endpoint closed the connection")]
    Lost(#[source] hyper::Error),
    #[error("TLS to the token endpoint cannot be prepared")]
    TlsFiles(#[source] TlsError),
    #[error("the token endpoint cannot be trusted: {}", .0.what)]
    Handshake(Explanation),
    #[error("the token endpoint gives no token ({}{})", .denial.as_str(), vendor(.code))]
    Denied {
        denial: Denial,
        /// Of Microsoft's endpoints: the number behind `AADSTS`.
        code: Option<u64>,
    },
    #[error("the token endpoint cannot answer now (HTTP {0})")]
    Busy(u16),
    #[error("the token endpoint answers nothing to be understood (HTTP {0})")]
    Status(u16),
    #[error("what answers at the token endpoint gives no token: {0}")]
    Malformed(&'static str),
}

/// Why the endpoint gives no token: the codes of RFC 6749, 5.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Denial {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    /// Another code.
    Other,
}

impl Denial {
    pub const ALL: [Denial; 7] = [
        Denial::InvalidRequest,
        Denial::InvalidClient,
        Denial::InvalidGrant,
        Denial::UnauthorizedClient,
        Denial::UnsupportedGrantType,
        Denial::InvalidScope,
        Denial::Other,
    ];

    /// As the endpoint says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Denial::InvalidRequest => "invalid_request",
            Denial::InvalidClient => "invalid_client",
            Denial::InvalidGrant => "invalid_grant",
            Denial::UnauthorizedClient => "unauthorized_client",
            Denial::UnsupportedGrantType => "unsupported_grant_type",
            Denial::InvalidScope => "invalid_scope",
            Denial::Other => "for a reason of its own",
        }
    }
}

impl TokenError {
    /// Closed set: log field.
    pub fn kind(&self) -> &'static str {
        match self {
            TokenError::Resolve(_) | TokenError::Connect(_) | TokenError::Timeout | TokenError::Lost(_) => "token_unreachable",
            TokenError::TlsFiles(error) => error.kind(),
            TokenError::Handshake(_) => "token_tls_handshake",
            TokenError::Denied { .. } => "token_denied",
            TokenError::Busy(_) => "token_busy",
            TokenError::Status(_) | TokenError::Malformed(_) => "token_answer",
        }
    }

    /// Whether another try may succeed without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            TokenError::Resolve(_) | TokenError::Connect(_) | TokenError::Timeout | TokenError::Lost(_) | TokenError::Busy(_) => true,
            TokenError::TlsFiles(_) | TokenError::Handshake(_) | TokenError::Denied { .. } => false,
            TokenError::Status(_) | TokenError::Malformed(_) => false,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    /// Seconds; some write the number as a text.
    expires_in: Option<Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_codes: Vec<Value>,
}

/// # Errors
/// [`TokenError`], of those that an answer can be the cause of.
pub(super) fn read(status: StatusCode, body: &[u8]) -> Result<Granted, TokenError> {
    match status.as_u16() {
        200 => granted(body),
        code @ (429 | 500..) => Err(TokenError::Busy(code)),
        code @ 400..=499 => Err(match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => denied(code, &refusal),
            Err(_) if code == 401 => TokenError::Denied { denial: Denial::InvalidClient, code: None },
            Err(_) => TokenError::Status(code),
        }),
        // Nor is a redirection followed: the secret is meant for this endpoint alone.
        code => Err(TokenError::Status(code)),
    }
}

fn granted(body: &[u8]) -> Result<Granted, TokenError> {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Err(TokenError::Malformed("its answer holds no access_token")) };
    let token = Secret::new(answer.access_token);
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Malformed("its token is not of the type Bearer"));
    }
    // Anything else could say more to the mail server than a token (RFC 6750, 2.1).
    if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Malformed("its token has characters that no token has"));
    }
    let seconds = answer.expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    Ok(Granted { token, lifetime: seconds.map_or(LIFETIME, Duration::from_secs).min(LONGEST) })
}

fn denied(status: u16, refusal: &Refusal) -> TokenError {
    match refusal.error.as_str() {
        "temporarily_unavailable" | "server_error" => TokenError::Busy(status),
        error => TokenError::Denied {
            denial: Denial::ALL.into_iter().find(|denial| denial.as_str() == error).unwrap_or(Denial::Other),
            code: refusal.error_codes.first().and_then(Value::as_u64),
        },
    }
}

fn vendor(code: &Option<u64>) -> impl fmt::Display + use<> {
    code.map_or_else(String::new, |code| format!(", AADSTS{code}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(status: u16, body: &str) -> String {
        match read(StatusCode::from_u16(status).unwrap(), body.as_bytes()) {
            Ok(Granted { token, lifetime }) => format!("{} for {} s", token.expose(), lifetime.as_secs()),
            Err(error) => format!("{error} [{}{}]", error.kind(), if error.is_transient() { ", transient" } else { "" }),
        }
    }

    #[test]
    #[rustfmt::skip]
    fn answers_are_read_as_the_standard_and_the_vendors_write_them() {
        let token = |rest: &str| format!(r#"{{"access_token": "ey.J-_~+/=", {rest}}}"#);
        for (status, body, wanted) in [
            (200, token(r#""token_type": "Bearer", "expires_in": 3599"#), "ey.J-_~+/= for 3599 s"),
            (200, token(r#""token_type": "bearer", "expires_in": "3599", "ext_expires_in": 3599"#), "ey.J-_~+/= for 3599 s"),
            (200, token(r#""token_type": "Bearer""#), "ey.J-_~+/= for 300 s"),
            (200, token(r#""token_type": "Bearer", "expires_in": 99999999999"#), "ey.J-_~+/= for 86400 s"),
            (200, token(r#""token_type": "Bearer", "expires_in": -1"#), "ey.J-_~+/= for 300 s"),
            (200, token(r#""token_type": "mac""#), "what answers at the token endpoint gives no token: its token is not of the type Bearer [token_answer]"),
            (200, r#"{"access_token": "a\u0001b", "token_type": "Bearer"}"#.to_owned(), "what answers at the token endpoint gives no token: its token has characters that no token has [token_answer]"),
            (200, "<html>".to_owned(), "what answers at the token endpoint gives no token: its answer holds no access_token [token_answer]"),
            (400, r#"{"error": "invalid_scope"}"#.to_owned(), "the token endpoint gives no token (invalid_scope) [token_denied]"),
            (401, r#"{"error": "invalid_client", "error_description": "secret S3cret", "error_codes": [7000215]}"#.to_owned(), "the token endpoint gives no token (invalid_client, AADSTS7000215) [token_denied]"),
            (401, "no JSON".to_owned(), "the token endpoint gives no token (invalid_client) [token_denied]"),
            (400, r#"{"error": "S3cret"}"#.to_owned(), "the token endpoint gives no token (for a reason of its own) [token_denied]"),
            (400, r#"{"error": "temporarily_unavailable"}"#.to_owned(), "the token endpoint cannot answer now (HTTP 400) [token_busy, transient]"),
            (404, "<html>".to_owned(), "the token endpoint answers nothing to be understood (HTTP 404) [token_answer]"),
            (302, String::new(), "the token endpoint answers nothing to be understood (HTTP 302) [token_answer]"),
            (429, String::new(), "the token endpoint cannot answer now (HTTP 429) [token_busy, transient]"),
            (503, String::new(), "the token endpoint cannot answer now (HTTP 503) [token_busy, transient]"),
        ] {
            assert_eq!(said(status, &body), wanted);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(status in 200u16..600, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(StatusCode::from_u16(status).unwrap(), &bytes);
        }
    }
}
