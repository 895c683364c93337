//! Access tokens for logins by XOAUTH2: fetched from the token endpoint with the client's secret (OAuth2, the client credentials
//! grant of RFC 6749, 4.4), and kept until shortly before they end.
//!
//! One token serves all connections. Whoever needs one while it is being fetched waits for that, and shares what comes of it, a
//! failure too: an endpoint in trouble is asked once, however many connections there are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::TokenEndpoint;
use crate::domain::Secret;
use crate::tls::{Keys, TlsSettings, client_config, explain};

use super::delivery::MailError;
use super::wire::{Duplex, dial};

mod answer;

pub use answer::{Denial, TokenError};

use answer::Granted;

/// How the configuration calls what an administrator may have to change.
const KEYS: Keys = Keys {
    ca_file: "mail.ca_file",
    client: "credkeeper has none for it",
    other_name: "set mail.auth.token_url to a name that the certificate holds",
};
/// Tokens have some kilobytes.
const LARGEST_BYTES: usize = 64 << 10;

/// The token endpoint, and the token that it gave last.
#[derive(Debug)]
pub(super) struct Tokens {
    endpoint: TokenEndpoint,
    /// For the name look-up and all addresses together.
    connect: Duration,
    /// For TLS and the answer together.
    answer: Duration,
    held: Mutex<Held>,
}

#[derive(Default, Debug)]
struct Held {
    /// And until when it is used.
    token: Option<(Secret, Instant)>,
    /// The last failure, for those who were waiting then.
    failed: Option<(Instant, Arc<TokenError>)>,
}

/// A token, and whether it was fetched just now.
pub(super) struct Given {
    pub(super) token: Secret,
    pub(super) is_new: bool,
}

impl Tokens {
    pub(super) fn new(endpoint: TokenEndpoint, connect: Duration, answer: Duration) -> Tokens {
        Tokens { endpoint, connect, answer, held: Mutex::default() }
    }

    /// The token in hand, or else a new one.
    pub(super) async fn get(&self) -> Result<Given, Arc<TokenError>> {
        let asked = Instant::now();
        let mut held = self.held.lock().await;
        if let Some((token, until)) = &held.token
            && Instant::now() < *until
        {
            return Ok(Given { token: token.clone(), is_new: false });
        }
        if let Some((at, error)) = &held.failed
            && asked <= *at
        {
            return Err(error.clone());
        }
        held.token = None;
        match self.fetch().await {
            Ok(Granted { token, lifetime }) => {
                held.token = Some((token.clone(), Instant::now() + used_for(lifetime)));
                Ok(Given { token, is_new: true })
            }
            Err(error) => {
                let error = Arc::new(error);
                held.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// The mail server does not take it.
    pub(super) async fn refused(&self, token: &Secret) {
        self.held.lock().await.token.take_if(|(held, _)| held == token);
    }

    async fn fetch(&self) -> Result<Granted, TokenError> {
        let TokenEndpoint { host, port, .. } = &self.endpoint;
        let stream = dial(host, *port, self.connect).await.map_err(|error| match error {
            MailError::Resolve(source) => TokenError::Resolve(source),
            MailError::Connect(source) => TokenError::Connect(source),
            _ => TokenError::Connect(io::ErrorKind::Other.into()),
        })?;
        let exchange = async {
            let stream: Box<dyn Duplex> = match &self.endpoint.tls {
                None => Box::new(stream),
                Some(settings) => Box::new(secured(stream, host, settings).await?),
            };
            self.ask(stream).await
        };
        let within = timeout_at(Instant::now() + self.answer, exchange).await;
        let (status, body) = within.unwrap_or(Err(TokenError::Timeout))?;
        answer::read(status, &body)
    }

    async fn ask(&self, stream: Box<dyn Duplex>) -> Result<(StatusCode, Bytes), TokenError> {
        let request = self.request()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_BYTES).collect().await;
            let body = body.map_err(|_| TokenError::Malformed("its answer broke off, or is too large"))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            answer = &mut answer => answer,
            // Whatever has ended the connection, the request learns it.
            _ = &mut connection => answer.await,
        }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, TokenError> {
        let TokenEndpoint { host, port, path, tls, client_id, client_secret, scope } = &self.endpoint;
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials").append_pair("client_id", client_id);
        form.append_pair("client_secret", client_secret.expose());
        if let Some(scope) = scope {
            form.append_pair("scope", scope);
        }
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let is_standard = *port == if tls.is_some() { 443 } else { 80 };
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, if is_standard { host } else { format!("{host}:{port}") })
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, concat!("credkeeper/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(form.finish())))
            .map_err(|_| TokenError::Malformed("nobody can be asked at such an address"))
    }
}

/// A tenth of its life before its end, at most five minutes: for a connection that is just being made, and a clock that is not
/// quite right.
fn used_for(lifetime: Duration) -> Duration {
    lifetime.saturating_sub((lifetime / 10).min(Duration::from_secs(300)))
}

async fn secured(stream: TcpStream, host: &str, settings: &TlsSettings) -> Result<TlsStream<TcpStream>, TokenError> {
    let config = client_config(settings).map_err(TokenError::TlsFiles)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TokenError::Malformed("no certificate could hold its name"))?;
    let handshake = TlsConnector::from(config).connect(name, stream).await;
    handshake.map_err(|error| match explain(&error, &KEYS) {
        Some(explanation) => TokenError::Handshake(explanation),
        None => TokenError::Connect(error),
    })
}

fn broken(error: hyper::Error) -> TokenError {
    if error.is_parse() { TokenError::Malformed("it does not speak HTTP") } else { TokenError::Lost(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        for (lifetime, wanted) in [(0, 0), (10, 9), (600, 540), (3_600, 3_300), (86_400, 86_100)] {
            assert_eq!(used_for(Duration::from_secs(lifetime)), Duration::from_secs(wanted), "{lifetime}");
        }
    }
}
