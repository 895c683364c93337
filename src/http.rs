//! `/metrics`, `/healthz`, `/readyz` and a page at `/`, for the machine itself. It only shows: no command comes over HTTP.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::info;

use crate::clock;
use crate::domain::{Timestamp, printable};
use crate::metrics::Metrics;

mod guard;
use guard::{Guard, Guarded};

/// How each database stands, kept up to date by the daemon and shown by `/readyz`.
#[derive(Debug, Default)]
pub struct Health {
    databases: Mutex<BTreeMap<String, Readiness>>,
}

/// Ready means: the last pass came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Readiness {
    Starting,
    Standby,
    Ready(Timestamp),
    /// Since when passes have been failing, and why the last one did.
    Failing(Timestamp, String),
}

/// What can go wrong with the HTTP server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error(
        "cannot listen on {address}; another process may have the port, or the address is not this machine's: name another one in http.listen, or say http: null for none"
    )]
    Bind { address: SocketAddr, source: io::Error },
    #[error("cannot go on serving HTTP")]
    Serve { source: io::Error },
}

impl HttpError {
    pub fn kind(&self) -> &'static str {
        match self {
            HttpError::Bind { .. } => "http_bind",
            HttpError::Serve { .. } => "http_serve",
        }
    }

    pub fn is_transient(&self) -> bool {
        false
    }
}

impl Health {
    /// None of the databases is ready yet.
    pub fn new<'a>(databases: impl IntoIterator<Item = &'a str>) -> Health {
        let databases = databases.into_iter().map(|name| (name.to_owned(), Readiness::Starting)).collect();
        Health { databases: Mutex::new(databases) }
    }

    /// All begins anew, with these databases: none of them is ready yet.
    pub fn begin<'a>(&self, databases: impl IntoIterator<Item = &'a str>) {
        let anew = databases.into_iter().map(|name| (name.to_owned(), Readiness::Starting)).collect();
        *self.databases.lock().unwrap_or_else(PoisonError::into_inner) = anew;
    }

    /// A pass came to its end.
    pub fn ready(&self, database: &str, now: Timestamp) {
        self.set(database, |_| Readiness::Ready(now));
    }

    /// A pass or the connection failed. `reason` is shown to whoever asks: no secrets, as in every error of ours.
    pub fn failing(&self, database: &str, reason: &str, now: Timestamp) {
        self.set(database, |before| match before {
            Readiness::Failing(since, _) => Readiness::Failing(*since, reason.to_owned()),
            _ => Readiness::Failing(now, reason.to_owned()),
        });
    }

    /// Another instance is the active one.
    pub fn standby(&self, database: &str) {
        self.set(database, |_| Readiness::Standby);
    }

    /// Whether all databases are ready, and a line about each.
    pub fn readiness(&self) -> (bool, String) {
        let databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = String::new();
        for (name, readiness) in databases.iter() {
            let name = printable(name);
            // Writing to a `String` cannot fail.
            let _ = match readiness {
                Readiness::Starting => writeln!(lines, "{name}: not ready, no pass has come to its end yet"),
                Readiness::Standby => writeln!(lines, "{name}: not ready, standing by while another instance is active"),
                Readiness::Ready(at) => writeln!(lines, "{name}: ready, last pass ended {at}"),
                Readiness::Failing(since, reason) => writeln!(lines, "{name}: not ready, failing since {since}: {}", printable(reason)),
            };
        }
        (databases.values().all(|r| matches!(r, Readiness::Ready(_))), lines)
    }

    fn set(&self, database: &str, to: impl FnOnce(&Readiness) -> Readiness) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = databases.entry(database.to_owned()).or_insert(Readiness::Starting);
        *slot = to(slot);
    }
}

/// A server that has its port and does not serve yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

/// Takes the port, so that a taken one is known before the daemon starts.
///
/// # Errors
/// When it cannot be had.
pub async fn bind(address: SocketAddr) -> Result<Server, HttpError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Server { listener }),
        Err(source) => Err(HttpError::Bind { address, source }),
    }
}

/// How long answers under way may take once the server is to stop.
const FAREWELL: Duration = Duration::from_secs(2);

impl Server {
    /// The address that was taken; differs from the one asked for only where port 0 was.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves until `shutdown` ends, and a moment longer for answers under way.
    ///
    /// # Errors
    /// When the operating system takes the port away.
    pub async fn serve(
        self,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), HttpError> {
        self.serve_with(Guard::default(), health, metrics, shutdown).await
    }

    async fn serve_with(
        self,
        guard: Guard,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), HttpError> {
        if let Some(address) = self.address() {
            info!(%address, "Serving /metrics, /healthz and /readyz on http://{address}");
        }
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let shutdown = async move {
            shutdown.await;
            let _ = stopping.send(());
        };
        let farewell = async move {
            let _ = stopped.await;
            tokio::time::sleep(FAREWELL).await;
        };
        let server = axum::serve(Guarded::new(self.listener, guard), router(Shown { health, metrics })).with_graceful_shutdown(shutdown);
        tokio::select! {
            result = server.into_future() => result.map_err(|source| HttpError::Serve { source }),
            () = farewell => Ok(()),
        }
    }
}

#[derive(Clone)]
struct Shown {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || text(StatusCode::OK, "ok\n".to_owned())))
        .route("/readyz", get(readyz))
        .fallback(async || text(StatusCode::NOT_FOUND, "not found; there are /, /metrics, /healthz and /readyz\n".to_owned()))
        .with_state(shown)
}

async fn metrics(State(shown): State<Shown>) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], shown.metrics.render(clock::now())).into_response()
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let (ready, lines) = shown.health.readiness();
    text(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

async fn page(State(shown): State<Shown>) -> Response {
    let (_, lines) = shown.health.readiness();
    let version = env!("CARGO_PKG_VERSION");
    text(
        StatusCode::OK,
        format!(
            "credkeeper {version}\n\n{lines}\n/metrics  for Prometheus\n/healthz  200 while the process lives\n/readyz   200 while all databases are ready, else 503\n"
        ),
    )
}

/// Nobody is to guess at the type or to keep a copy.
fn text(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::metrics::{Names, NamesOf};

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    struct Running {
        address: SocketAddr,
        health: Arc<Health>,
        stop: oneshot::Sender<()>,
        task: JoinHandle<Result<(), HttpError>>,
    }

    async fn running(guard: Guard) -> Running {
        let server = bind(LOOPBACK).await.unwrap();
        let address = server.address().unwrap();
        let health = Arc::new(Health::new(["main", "branch"]));
        let metrics = Metrics::new(Names {
            databases: &[NamesOf { database: "main".to_owned(), policies: vec![], lengths: vec![], windows: vec![] }],
            error_classes: &[],
            journal_states: &[],
        });
        let (stop, stopped) = oneshot::channel();
        let serving = server.serve_with(guard, Arc::clone(&health), Arc::new(metrics), async move { _ = stopped.await });
        Running { address, health, stop, task: tokio::spawn(serving) }
    }

    impl Running {
        /// Sends `bytes` and reads until the server closes.
        async fn say(&self, bytes: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            // A reset is an end too.
            let _ = stream.read_to_end(&mut answer).await;
            String::from_utf8(answer).unwrap()
        }

        async fn get(&self, path: &str) -> String {
            self.say(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
        }
    }

    #[tokio::test]
    async fn each_path_answers() {
        let r = running(Guard::default()).await;
        let metrics = r.get("/metrics").await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\ncredkeeper_leader{database=\"main\"} 0\n"), "{metrics}");
        assert!(r.get("/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(r.get("/").await.contains("main: not ready"));
        assert!(r.get("/etc/passwd").await.starts_with("HTTP/1.1 404"));
        assert!(r.say("POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 405"));
    }

    #[tokio::test]
    async fn ready_means_that_the_last_pass_of_every_database_came_to_its_end() {
        let r = running(Guard::default()).await;
        let answer = r.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("main: not ready, no pass"), "{answer}");
        r.health.ready("main", Timestamp(0));
        r.health.standby("branch");
        let answer = r.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("branch: not ready, standing by"), "{answer}");
        r.health.ready("branch", Timestamp(0));
        assert!(r.get("/readyz").await.starts_with("HTTP/1.1 200"));
        r.health.failing("main", "cannot read users\r\nX: y", Timestamp(60));
        r.health.failing("main", "cannot connect\nX: y", Timestamp(120));
        let answer = r.get("/readyz").await;
        assert!(answer.contains(r"main: not ready, failing since 1970-01-01 00:01:00Z: cannot connect\nX: y"), "{answer}");
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = bind(LOOPBACK).await.unwrap();
        let address = taken.address().unwrap();
        let error = bind(address).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()) && error.to_string().contains("http.listen"), "{error}");
        assert_eq!(error.kind(), "http_bind");
    }

    #[tokio::test]
    async fn who_never_finishes_asking_is_cut_off() {
        let r = running(Guard { patience: Duration::from_millis(50), connections: 1 }).await;
        assert_eq!(r.say("GET /metrics HTTP/1.1\r\nX-Slow: ").await, "");
        // The place is free again.
        assert!(r.get("/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn one_connection_too_many_waits_its_turn() {
        let r = running(Guard { patience: Duration::from_secs(60), connections: 1 }).await;
        let first = TcpStream::connect(r.address).await.unwrap();
        let second = r.get("/healthz");
        tokio::pin!(second);
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut second).await.is_err(), "it waits");
        drop(first);
        assert!(second.await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn it_stops_when_asked_even_while_somebody_is_connected() {
        let r = running(Guard::default()).await;
        let _idle = TcpStream::connect(r.address).await.unwrap();
        assert!(r.get("/healthz").await.starts_with("HTTP/1.1 200"));
        r.stop.send(()).unwrap();
        r.task.await.unwrap().unwrap();
    }
}
