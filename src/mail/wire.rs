//! One connection to a mail server: lines and replies, in the clear or encrypted, each step with its deadline.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use crate::domain::Timestamp;
use crate::tls::{Explanation, Keys, TlsSettings, client_config, explain};

use super::certificate;
use super::delivery::{MailError, Stage};
use super::reply::{Reply, ReplyError};

/// How the configuration calls what an administrator may have to change.
const KEYS: Keys =
    Keys { ca_file: "mail.ca_file", client: "mail.client_certificate", other_name: "set mail.host to a name that the certificate holds" };

pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

pub(super) struct Wire {
    stream: BufReader<Box<dyn Duplex>>,
    /// Ours.
    pub(super) local: Option<SocketAddr>,
    pub(super) secured: Option<Secured>,
    /// Whether nothing was heard yet since the handshake.
    fresh: bool,
}

/// What an encrypted connection turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Secured {
    /// `TLS 1.3`.
    pub version: &'static str,
    /// When the server's certificate ends; `None` for one that cannot be read.
    pub certificate_expires: Option<Timestamp>,
}

impl Wire {
    pub(super) async fn connect(host: &str, port: u16, within: Duration) -> Result<Wire, MailError> {
        let stream = dial(host, port, within).await?;
        let local = stream.local_addr().ok();
        Ok(Wire { stream: BufReader::new(Box::new(stream)), local, secured: None, fresh: false })
    }

    /// The same connection, encrypted. Whatever the other side has said too early ends it: it would be taken for
    /// something said in confidence (CVE-2011-0411).
    pub(super) async fn secure(self, settings: &TlsSettings, host: &str, until: Instant) -> Result<Wire, MailError> {
        if !self.stream.buffer().is_empty() {
            return Err(MailError::Injected);
        }
        let config = client_config(settings).map_err(MailError::TlsFiles)?;
        let name = settings.server_name.as_deref().unwrap_or(bare(host));
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            MailError::Handshake(Explanation {
                what: "the server's name is none that a certificate could hold".to_owned(),
                remedy: "correct mail.host".to_owned(),
            })
        })?;
        let handshake = TlsConnector::from(config).connect(name, self.stream.into_inner());
        let stream = match timeout_at(until, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(lost(Stage::Handshake, error)),
            Err(_) => return Err(MailError::Timeout(Stage::Handshake)),
        };
        let (_, session) = stream.get_ref();
        let secured = Secured {
            version: match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
                _ => "TLS 1.2",
            },
            certificate_expires: session.peer_certificates().and_then(|chain| certificate::expires(chain.first()?)),
        };
        Ok(Wire { stream: BufReader::new(Box::new(stream)), local: self.local, secured: Some(secured), fresh: true })
    }

    /// Whether an idle connection still stands and has nothing unexpected to say.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.is_drained() && Pin::new(&mut self.stream).poll_fill_buf(&mut nobody).is_pending()
    }

    /// Whether everything that has come was read.
    pub(super) fn is_drained(&self) -> bool {
        self.stream.buffer().is_empty()
    }

    pub(super) async fn write(&mut self, bytes: &[u8], stage: Stage, until: Instant) -> Result<(), MailError> {
        let stream = self.stream.get_mut();
        let written = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        match timeout_at(until, written).await {
            Ok(result) => result.map_err(|error| self.lost(stage, error)),
            Err(_) => Err(MailError::Timeout(stage)),
        }
    }

    pub(super) async fn reply(&mut self, stage: Stage, until: Instant) -> Result<Reply, MailError> {
        match timeout_at(until, Reply::read(&mut self.stream)).await {
            Ok(Ok(reply)) => {
                self.fresh = false;
                Ok(reply)
            }
            Ok(Err(ReplyError::Lost(error))) => Err(self.lost(stage, error)),
            Ok(Err(ReplyError::Garbled)) => Err(MailError::Protocol(stage)),
            Err(_) => Err(MailError::Timeout(stage)),
        }
    }

    /// With TLS 1.3 a server refuses our certificate, or the lack of one, only after the handshake, in place of its first
    /// answer; and some do not even say why.
    fn lost(&self, stage: Stage, error: io::Error) -> MailError {
        match lost(stage, error) {
            MailError::Lost(..) if self.fresh => MailError::Handshake(Explanation {
                what: "the server closed the connection right after the TLS handshake".to_owned(),
                remedy: format!("it may ask for a certificate of ours, or for another one ({}); its log tells", KEYS.client),
            }),
            error => error,
        }
    }

    /// Closes, without waiting for the other side.
    pub(super) async fn close(mut self, until: Instant) {
        let _ = timeout_at(until, self.stream.get_mut().shutdown()).await;
    }
}

fn lost(stage: Stage, error: io::Error) -> MailError {
    match explain(&error, &KEYS) {
        Some(explanation) => MailError::Handshake(explanation),
        None => MailError::Lost(stage, error),
    }
}

/// Tries the addresses of the host one after the other; each may use an equal share of the time that is left, so that
/// one that swallows packets does not keep the next from being tried. Its errors are [`MailError::Resolve`] and [`MailError::Connect`].
pub(super) async fn dial(host: &str, port: u16, within: Duration) -> Result<TcpStream, MailError> {
    let end = Instant::now() + within;
    let addresses: Vec<_> = match timeout_at(end, lookup_host((bare(host), port))).await {
        Ok(found) => found.map_err(MailError::Resolve)?.collect(),
        Err(_) => return Err(MailError::Resolve(io::ErrorKind::TimedOut.into())),
    };
    let mut last: io::Error = io::ErrorKind::AddrNotAvailable.into();
    for (tried, address) in addresses.iter().enumerate() {
        let share = end.saturating_duration_since(Instant::now()) / (addresses.len() - tried) as u32;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(MailError::Connect)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(MailError::Connect(last))
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("local", &self.local).field("secured", &self.secured).finish_non_exhaustive()
    }
}
