//! An OAuth2 token endpoint for the tests: what RFC 6749 says of client credentials (2.3.1, 4.4, 5), over HTTPS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::serve::Listener;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use crate::certificates::Identity;

pub const CLIENT: &str = "f0e1d2c3-client";
/// With what has to be escaped in a form.
pub const SECRET: &str = "s3cr&t=+%/ü~ok";
pub const SCOPE: &str = "https://mail.example.com/.default";

/// A running endpoint; dropped, it ends.
pub struct TokenEndpoint {
    pub port: u16,
    state: Arc<Mutex<Inner>>,
    folder: tempfile::TempDir,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Inner {
    asked: u32,
    expires_in: u64,
    delay: Duration,
    /// Answered instead of a token.
    instead: Option<(u16, Value)>,
    tokens: PathBuf,
}

impl TokenEndpoint {
    pub fn start(identity: &Identity) -> TokenEndpoint {
        let folder = tempfile::tempdir().unwrap();
        let tokens = folder.path().join("tokens");
        std::fs::write(&tokens, "").unwrap();
        let state = Arc::new(Mutex::new(Inner { asked: 0, expires_in: 3600, delay: Duration::ZERO, instead: None, tokens }));
        let chain = CertificateDer::pem_file_iter(&identity.cert).unwrap().map(Result::unwrap).collect();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider())).with_safe_default_protocol_versions();
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let (bound, port_of) = std::sync::mpsc::channel();
        let app = Router::new().route("/tenant/oauth2/v2.0/token", post(token)).with_state(state.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
                bound.send(tcp.local_addr().unwrap().port()).unwrap();
                let listener = Encrypted { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
                tokio::select! {
                    _ = ended => {}
                    _ = async { axum::serve(listener, app).await } => {}
                }
            });
        });
        TokenEndpoint { port: port_of.recv().unwrap(), state, folder, end: Some(end), thread: Some(thread) }
    }

    /// The tokens that are good now, one a line: for the mail server.
    pub fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens")
    }

    /// What was given so far is good no more.
    pub fn revoke(&self) {
        std::fs::write(self.tokens(), "").unwrap();
    }

    /// How often it was asked.
    pub fn asked(&self) -> u32 {
        self.state.lock().unwrap().asked
    }

    pub fn expires_in(&self, seconds: u64) {
        self.state.lock().unwrap().expires_in = seconds;
    }

    /// It answers later.
    pub fn think(&self, delay: Duration) {
        self.state.lock().unwrap().delay = delay;
    }

    pub fn answer(&self, status: u16, body: Value) {
        self.state.lock().unwrap().instead = Some((status, body));
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        drop(self.end.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

async fn token(State(state): State<Arc<Mutex<Inner>>>, headers: HeaderMap, body: String) -> impl IntoResponse {
    let delay = state.lock().unwrap().delay;
    tokio::time::sleep(delay).await;
    let mut state = state.lock().unwrap();
    state.asked += 1;
    let form: Vec<(String, String)> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let said = |key: &str| form.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let wrong = |status: u16, error: &str| {
        // Real ones repeat what was sent.
        (status, json!({"error": error, "error_description": format!("AADSTS7000215: {body}"), "error_codes": [7000215]}))
    };
    let (status, answer) = if let Some(instead) = &state.instead {
        instead.clone()
    } else if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/x-www-form-urlencoded") {
        wrong(400, "invalid_request")
    } else if said("grant_type") != Some("client_credentials") {
        wrong(400, "unsupported_grant_type")
    } else if (said("client_id"), said("client_secret")) != (Some(CLIENT), Some(SECRET)) {
        wrong(401, "invalid_client")
    } else if said("scope") != Some(SCOPE) {
        wrong(400, "invalid_scope")
    } else {
        // As long as real ones.
        let token = format!("eyJ0eXAi.{}.{:x}", "Ab1-_".repeat(300), rand::random::<u64>());
        let good = std::fs::read_to_string(&state.tokens).unwrap();
        // In one step: the mail server may be reading it.
        let new = state.tokens.with_extension("new");
        std::fs::write(&new, format!("{good}{token}\n")).unwrap();
        std::fs::rename(&new, &state.tokens).unwrap();
        (200, json!({"token_type": "Bearer", "expires_in": state.expires_in, "ext_expires_in": state.expires_in, "access_token": token}))
    };
    (StatusCode::from_u16(status).unwrap(), [(header::CONTENT_TYPE, "application/json")], answer.to_string())
}

struct Encrypted {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            // Who does not trust us goes away.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
