//! Plain SMTP over a socket of our own.
//!
//! Not lettre's transports, for two reasons seen in its release 0.11.23: a send that is cancelled goes back to its pool
//! and makes every later answer off by one, so that a mail is reported as sent that was not; and its two small writes
//! at the end of a mail meet Nagle's algorithm, 40 ms a mail. Hence the two rules here:
//!
//! - A connection is out of the session while it is used and goes back only after the last expected answer has been
//!   read. A timeout, an error, a surprise or a cancelled future simply never puts it back.
//! - `TCP_NODELAY`, and as few writes as there are round trips: MAIL, RCPT and DATA go together where the server
//!   announces PIPELINING (RFC 2920), the message and its final dot always do. Two round trips a mail, else four.

use std::io;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::config::SmtpConfig;
use crate::domain::Mailbox;

use super::delivery::{Delivery, MailError, Refusal, Stage, blame};
use super::reply::{Reply, ReplyError};

/// How long each phase may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Name look-up and all addresses together.
    pub connect: Duration,
    /// Greeting and EHLO together.
    pub greeting: Duration,
    /// Each command, and the writing of the message.
    pub command: Duration,
    /// The answer to the final dot. RFC 5321 says 10 minutes; a mail given up too early is sent twice.
    pub accepted: Duration,
}

impl Deadlines {
    pub fn of(config: &SmtpConfig) -> Deadlines {
        Deadlines {
            connect: Duration::from_secs(10),
            greeting: Duration::from_secs(30),
            command: config.timeout,
            accepted: config.timeout.max(Duration::from_secs(120)),
        }
    }
}

/// A relay, and at most one connection to it.
#[derive(Debug)]
pub struct Session {
    config: SmtpConfig,
    deadlines: Deadlines,
    connection: Option<Connection>,
}

impl Session {
    /// Servers like it when connections end now and then.
    const MAILS_PER_CONNECTION: u32 = 100;

    pub fn new(config: SmtpConfig, deadlines: Deadlines) -> Session {
        Session { config, deadlines, connection: None }
    }

    /// Sends one message to one recipient. Dropping the future drops the connection with it.
    ///
    /// `message` as [`compose`](super::message::compose) makes it.
    pub async fn send(&mut self, from: &Mailbox, to: &Mailbox, message: &[u8]) -> Delivery {
        let transaction = Transaction::new(from, to, message);
        if let Some(mut connection) = self.connection.take().filter(Connection::is_quiet) {
            match connection.run(&transaction, &self.deadlines).await {
                // The server had closed the idle connection: not this mail's failure.
                End::NotBegun(_) => {}
                end => return self.settle(connection, end).await,
            }
        }
        match Connection::open(&self.config, &self.deadlines).await {
            Ok(mut connection) => {
                let end = connection.run(&transaction, &self.deadlines).await;
                self.settle(connection, end).await
            }
            Err(delivery) => delivery,
        }
    }

    /// Greets the server and leaves again.
    ///
    /// # Errors
    /// As a mail would get it.
    pub async fn probe(&self) -> Result<(), Delivery> {
        Connection::open(&self.config, &self.deadlines).await?.quit().await;
        Ok(())
    }

    /// Says good-bye, without waiting for the answer.
    pub async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.quit().await;
        }
    }

    /// Keeps the connection if it may serve another mail.
    async fn settle(&mut self, mut connection: Connection, end: End) -> Delivery {
        let (delivery, keep) = match end {
            End::Clean(delivery) => (delivery, true),
            End::Abort(delivery) => (delivery, connection.reset(&self.deadlines).await),
            End::Broken(delivery) => (delivery, false),
            End::NotBegun(error) => (Delivery::ConnectError(error), false),
        };
        connection.mails += 1;
        if keep && connection.mails < Self::MAILS_PER_CONNECTION {
            self.connection = Some(connection);
        } else if keep {
            connection.quit().await;
        }
        delivery
    }
}

/// What is said for one mail.
struct Transaction {
    commands: [(Stage, String); 3],
    /// Dots doubled, the final dot included.
    message: Zeroizing<Vec<u8>>,
}

impl Transaction {
    fn new(from: &Mailbox, to: &Mailbox, message: &[u8]) -> Transaction {
        let commands = [
            (Stage::MailFrom, format!("MAIL FROM:<{}>\r\n", from.address())),
            (Stage::Recipient, format!("RCPT TO:<{}>\r\n", to.address())),
            (Stage::Data, "DATA\r\n".to_owned()),
        ];
        Transaction { commands, message: stuffed(message) }
    }
}

/// The message with leading dots doubled and the final dot (RFC 5321, 4.5.2).
fn stuffed(message: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut wire = Zeroizing::new(Vec::with_capacity(message.len() + message.len() / 32 + 8));
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.is_empty() && !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// How a transaction left the connection.
enum End {
    /// Ready for the next mail.
    Clean(Delivery),
    /// In step, but in the middle of a transaction: to be reset.
    Abort(Delivery),
    /// Not to be used again.
    Broken(Delivery),
    /// The server had gone, or said so (421), before anything of this mail was answered.
    NotBegun(MailError),
}

#[derive(Debug)]
struct Connection {
    stream: BufReader<TcpStream>,
    pipelining: bool,
    mails: u32,
}

impl Connection {
    async fn open(config: &SmtpConfig, deadlines: &Deadlines) -> Result<Connection, Delivery> {
        let stream = connect(&config.host, config.port, deadlines.connect).await.map_err(Delivery::ConnectError)?;
        let mut connection = Connection { stream: BufReader::new(stream), pipelining: false, mails: 0 };
        let until = Instant::now() + deadlines.greeting;
        expect(connection.reply(Stage::Greeting, until).await.map_err(Delivery::ConnectError)?, Stage::Greeting, 2)?;
        let hello = format!("EHLO {}\r\n", connection.hello_name(config.hello_name.as_deref()));
        connection.write(hello.as_bytes(), Stage::Hello, until).await.map_err(Delivery::ConnectError)?;
        let abilities = expect(connection.reply(Stage::Hello, until).await.map_err(Delivery::ConnectError)?, Stage::Hello, 2)?;
        connection.pipelining = abilities.lines.iter().skip(1).any(|line| line.trim().eq_ignore_ascii_case("PIPELINING"));
        Ok(connection)
    }

    /// Whether an idle connection still stands and has nothing unexpected to say.
    fn is_quiet(&self) -> bool {
        let nothing_yet = matches!(self.stream.get_ref().try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        self.stream.buffer().is_empty() && nothing_yet
    }

    async fn run(&mut self, transaction: &Transaction, deadlines: &Deadlines) -> End {
        let mut refusal: Option<Refusal> = None;
        if self.pipelining {
            let together: String = transaction.commands.iter().map(|(_, command)| command.as_str()).collect();
            if let Err(error) = self.write(together.as_bytes(), Stage::MailFrom, Instant::now() + deadlines.command).await {
                return unanswered(Stage::MailFrom, error);
            }
        }
        for (stage, command) in &transaction.commands {
            let (stage, until) = (*stage, Instant::now() + deadlines.command);
            if !self.pipelining
                && let Err(error) = self.write(command.as_bytes(), stage, until).await
            {
                return unanswered(stage, error);
            }
            let reply = match self.reply(stage, until).await {
                Ok(reply) => reply,
                // The verdict stands, but answers may still be under way.
                Err(error) => return refusal.map_or_else(|| unanswered(stage, error), |refusal| End::Broken(blame(refusal))),
            };
            let wanted = if stage == Stage::Data { 3 } else { 2 };
            let negative = Refusal { stage, code: reply.code, enhanced: reply.enhanced() };
            match (refusal, reply.code / 100) {
                (None, class) if class == wanted => {}
                (None, _) if stage == Stage::MailFrom && reply.code == 421 => return End::NotBegun(MailError::Refused(negative)),
                (None, 4 | 5) => {
                    refusal = Some(negative);
                    if !self.pipelining {
                        break;
                    }
                }
                (None, _) => return End::Broken(Delivery::ConnectError(MailError::Protocol(stage))),
                // The server waits for a message that must not come.
                (Some(refusal), 3) => return End::Broken(blame(refusal)),
                (Some(_), _) => {}
            }
        }
        match refusal {
            Some(refusal) if refusal.code == 421 || !self.stream.buffer().is_empty() => End::Broken(blame(refusal)),
            Some(refusal) => End::Abort(blame(refusal)),
            None => self.hand_over(&transaction.message, deadlines).await,
        }
    }

    /// From here on the server may have the message whatever we see.
    async fn hand_over(&mut self, message: &[u8], deadlines: &Deadlines) -> End {
        if self.write(message, Stage::Message, Instant::now() + deadlines.command).await.is_err() {
            return End::Broken(Delivery::Unknown);
        }
        match self.reply(Stage::Message, Instant::now() + deadlines.accepted).await {
            Err(_) => End::Broken(Delivery::Unknown),
            Ok(reply) if !self.stream.buffer().is_empty() => End::Broken(verdict(&reply)),
            Ok(reply) if reply.code == 421 => End::Broken(verdict(&reply)),
            Ok(reply) if reply.code / 100 == 3 => End::Broken(verdict(&reply)),
            Ok(reply) => End::Clean(verdict(&reply)),
        }
    }

    /// Whether the connection is ready for the next mail.
    async fn reset(&mut self, deadlines: &Deadlines) -> bool {
        let until = Instant::now() + deadlines.command;
        self.write(b"RSET\r\n", Stage::MailFrom, until).await.is_ok()
            && matches!(self.reply(Stage::MailFrom, until).await, Ok(reply) if reply.code == 250)
    }

    async fn quit(mut self) {
        let soon = Instant::now() + Duration::from_secs(1);
        let _ = self.write(b"QUIT\r\n", Stage::MailFrom, soon).await;
    }

    async fn write(&mut self, bytes: &[u8], stage: Stage, until: Instant) -> Result<(), MailError> {
        match timeout_at(until, self.stream.get_mut().write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(MailError::Lost(stage, error)),
            Err(_) => Err(MailError::Timeout(stage)),
        }
    }

    async fn reply(&mut self, stage: Stage, until: Instant) -> Result<Reply, MailError> {
        match timeout_at(until, Reply::read(&mut self.stream)).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(ReplyError::Lost(error))) => Err(MailError::Lost(stage, error)),
            Ok(Err(ReplyError::Garbled)) => Err(MailError::Protocol(stage)),
            Err(_) => Err(MailError::Timeout(stage)),
        }
    }

    /// The configured name, else this machine's if it is a full one, else the address that we connect from: servers
    /// refuse half names (RFC 5321, 4.1.4).
    fn hello_name(&self, configured: Option<&str>) -> String {
        let valid = |name: &&str| name.contains('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        let visible = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
        let machine = ClientId::default().to_string();
        match (configured.filter(visible), Some(machine.as_str()).filter(valid), self.stream.get_ref().local_addr()) {
            (Some(name), ..) | (None, Some(name), _) => name.to_owned(),
            (None, None, Ok(address)) => match address.ip().to_canonical() {
                std::net::IpAddr::V4(ip) => ClientId::Ipv4(ip).to_string(),
                std::net::IpAddr::V6(ip) => ClientId::Ipv6(ip).to_string(),
            },
            (None, None, Err(_)) => "[127.0.0.1]".to_owned(),
        }
    }
}

/// No answer to a command before the message: surely not sent.
fn unanswered(stage: Stage, error: MailError) -> End {
    match error {
        MailError::Lost(..) if stage == Stage::MailFrom => End::NotBegun(error),
        error => End::Broken(Delivery::ConnectError(error)),
    }
}

/// The answer to the final dot.
fn verdict(reply: &Reply) -> Delivery {
    match reply.code / 100 {
        2 => Delivery::Accepted { code: reply.code, text: reply.masked() },
        4 | 5 => blame(Refusal { stage: Stage::Message, code: reply.code, enhanced: reply.enhanced() }),
        _ => Delivery::Unknown,
    }
}

/// A reply of the class wanted, or who is to blame for another.
fn expect(reply: Reply, stage: Stage, class: u16) -> Result<Reply, Delivery> {
    match reply.code / 100 {
        c if c == class => Ok(reply),
        4 | 5 => Err(blame(Refusal { stage, code: reply.code, enhanced: reply.enhanced() })),
        _ => Err(Delivery::ConnectError(MailError::Protocol(stage))),
    }
}

/// Tries the addresses of the host one after the other; each may use an equal share of the time that is left, so that
/// one that swallows packets does not keep the next from being tried.
async fn connect(host: &str, port: u16, within: Duration) -> Result<TcpStream, MailError> {
    let end = Instant::now() + within;
    let addresses: Vec<_> = match timeout_at(end, lookup_host((host, port))).await {
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

#[cfg(test)]
mod tests;
