//! A mail server of the suite's own, which says at a named place what it is told to say.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Identity;
use crate::pg::free_port;
use crate::site::{Mail, parse};

/// What a client has said last; the greeting comes before anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    Greeting,
    Hello,
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// The message with its final dot.
    Dot,
}

/// What the server does then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// This answer in place of its own.
    Say(&'static str),
    /// Ends the connection in good order.
    Close,
    /// Ends it with a reset.
    Reset,
    /// Its own answer, later.
    Slow(Duration),
    /// No answer ever.
    Silence,
    /// Takes the message, and ends the connection with a reset in place of the answer.
    Lose,
    /// Leaves STARTTLS out of what it can.
    Strip,
    /// Says something in the clear right behind its answer, which belongs behind the handshake.
    Inject,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    pub at: Phase,
    pub deed: Deed,
    /// Of this recipient's mail alone; known from RCPT on.
    pub to: Option<String>,
}

/// A server that runs until this is dropped.
pub struct Scripted {
    pub port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    fault: Mutex<Option<Fault>>,
    /// How often the fault came to pass.
    met: AtomicUsize,
    mails: Mutex<Vec<(Vec<String>, String)>>,
    /// Commands that came unencrypted.
    in_the_clear: Mutex<Vec<String>>,
    tls: Option<TlsAcceptor>,
}

impl Scripted {
    /// With `identity` it offers STARTTLS.
    pub async fn start(identity: Option<&Identity>) -> Scripted {
        let listener = loop {
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", free_port())).await {
                break listener;
            }
        };
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            fault: Mutex::new(None),
            met: AtomicUsize::new(0),
            mails: Mutex::default(),
            in_the_clear: Mutex::default(),
            tls: identity.map(acceptor),
        });
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            // Whoever is still connected when the server is dropped loses the connection.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, serving.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Scripted { port, shared, task }
    }

    /// From now on this is wrong; `None`: it is well.
    pub fn set(&self, fault: Option<Fault>) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    pub fn met(&self) -> usize {
        self.shared.met.load(Ordering::Relaxed)
    }

    pub fn in_the_clear(&self) -> Vec<String> {
        self.shared.in_the_clear.lock().unwrap().clone()
    }

    /// The messages that it took over.
    pub fn mails(&self) -> Vec<Mail> {
        let mails = self.shared.mails.lock().unwrap();
        let mail = |(to, data): &(Vec<String>, String)| {
            let mail = parse(data);
            assert_eq!(to, std::slice::from_ref(&mail.to), "envelope and header differ");
            mail
        };
        mails.iter().map(mail).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn acceptor(identity: &Identity) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&identity.cert).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A connection that came to its end.
struct Over;

struct Talk {
    stream: BufReader<Pin<Box<dyn Duplex>>>,
    shared: Arc<Shared>,
    to: Vec<String>,
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let fault = shared.fault.lock().unwrap().clone();
    if fault.is_some_and(|fault| matches!(fault.deed, Deed::Reset | Deed::Lose)) {
        let _ = stream.set_zero_linger();
    }
    let mut talk = Talk { stream: BufReader::new(Box::pin(stream)), shared, to: Vec::new() };
    let _ = talk.go().await;
}

impl Talk {
    async fn go(&mut self) -> Result<(), Over> {
        self.answer(Phase::Greeting, "220 scripted.test ESMTP").await?;
        let mut encrypted = false;
        loop {
            let line = self.line().await?;
            if !encrypted {
                self.shared.in_the_clear.lock().unwrap().push(line.clone());
            }
            let verb = line.to_ascii_uppercase();
            if verb.starts_with("EHLO") {
                let strip = self.fault(Phase::StartTls).is_some_and(|fault| fault.deed == Deed::Strip);
                let tls = self.shared.tls.is_some() && !encrypted && !strip;
                if strip {
                    self.shared.met.fetch_add(1, Ordering::Relaxed);
                }
                let can = if tls { "250-scripted.test\r\n250-PIPELINING\r\n250 STARTTLS" } else { "250-scripted.test\r\n250 PIPELINING" };
                self.answer(Phase::Hello, can).await?;
            } else if verb == "STARTTLS" {
                if self.answer(Phase::StartTls, "220 2.0.0 go ahead").await? {
                    self.encrypt().await?;
                    encrypted = true;
                }
            } else if verb.starts_with("MAIL FROM") {
                self.to.clear();
                self.answer(Phase::Mail, "250 2.1.0 ok").await?;
            } else if verb.starts_with("RCPT TO") {
                let to = line.split_once('<').and_then(|(_, to)| to.split_once('>')).map(|(to, _)| to.to_owned()).unwrap_or_default();
                self.to.push(to);
                if !self.answer(Phase::Rcpt, "250 2.1.5 ok").await? {
                    self.to.clear();
                }
            } else if verb == "DATA" && self.to.is_empty() {
                self.say("503 5.5.1 no valid recipients").await?;
            } else if verb == "DATA" {
                if self.answer(Phase::Data, "354 go on").await? {
                    self.message().await?;
                }
            } else if verb == "RSET" {
                self.to.clear();
                self.say("250 2.0.0 ok").await?;
            } else if verb == "QUIT" {
                return self.say("221 2.0.0 bye").await;
            } else {
                self.say("502 5.5.2 not known").await?;
            }
        }
    }

    async fn message(&mut self) -> Result<(), Over> {
        let mut data = String::new();
        loop {
            let line = self.line().await?;
            match line.as_str() {
                "." => break,
                line => data.push_str(&format!("{}\r\n", line.strip_prefix('.').unwrap_or(line))),
            }
        }
        let keep = |to: &[String]| self.shared.mails.lock().unwrap().push((to.to_vec(), data.clone()));
        if self.fault(Phase::Dot).is_some_and(|fault| fault.deed == Deed::Lose) {
            keep(&self.to);
            self.shared.met.fetch_add(1, Ordering::Relaxed);
            return Err(Over);
        }
        // A message that is answered with yes was kept before.
        if self.fault(Phase::Dot).is_none_or(|fault| matches!(fault.deed, Deed::Slow(_))) {
            keep(&self.to);
        }
        self.answer(Phase::Dot, "250 2.0.0 queued").await?;
        self.to.clear();
        Ok(())
    }

    fn fault(&self, at: Phase) -> Option<Fault> {
        let fault = self.shared.fault.lock().unwrap().clone().filter(|fault| fault.at == at)?;
        let concerned = fault.to.as_ref().is_none_or(|to| self.to.contains(to));
        concerned.then_some(fault)
    }

    /// Whether it said what it says when it is well.
    async fn answer(&mut self, at: Phase, well: &str) -> Result<bool, Over> {
        let Some(fault) = self.fault(at).filter(|fault| fault.deed != Deed::Strip) else {
            self.say(well).await?;
            return Ok(true);
        };
        self.shared.met.fetch_add(1, Ordering::Relaxed);
        match fault.deed {
            Deed::Say(said) => {
                self.say(said).await?;
                if said.starts_with("421") { Err(Over) } else { Ok(false) }
            }
            Deed::Slow(span) => {
                tokio::time::sleep(span).await;
                self.say(well).await?;
                Ok(true)
            }
            Deed::Inject => {
                self.say(&format!("{well}\r\n250 2.0.0 said too early")).await?;
                Ok(true)
            }
            Deed::Silence => std::future::pending().await,
            Deed::Close | Deed::Reset | Deed::Lose | Deed::Strip => Err(Over),
        }
    }

    async fn say(&mut self, said: &str) -> Result<(), Over> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{said}\r\n").as_bytes()).await.map_err(|_| Over)?;
        stream.flush().await.map_err(|_| Over)
    }

    async fn line(&mut self) -> Result<String, Over> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line).await {
            Ok(1..) if line.ends_with(b"\n") => Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()),
            _ => Err(Over),
        }
    }

    async fn encrypt(&mut self) -> Result<(), Over> {
        let tls = self.shared.tls.clone().ok_or(Over)?;
        let plain = std::mem::replace(&mut self.stream, BufReader::new(Box::pin(tokio::io::empty())));
        let stream = tls.accept(plain.into_inner()).await.map_err(|_| Over)?;
        self.stream = BufReader::new(Box::pin(stream));
        Ok(())
    }
}
