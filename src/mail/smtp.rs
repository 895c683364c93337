//! SMTP over a socket of our own.
//!
//! Not lettre's transports, for two reasons seen in its release 0.11.23: a send that is cancelled goes back to its pool
//! and makes every later answer off by one, so that a mail is reported as sent that was not; and its two small writes
//! at the end of a mail meet Nagle's algorithm, 40 ms a mail. Hence the rules here:
//!
//! - A connection is out of the session while it is used and goes back only after the last expected answer has been
//!   read. A timeout, an error, a surprise or a cancelled future simply never puts it back.
//! - `TCP_NODELAY`, and as few writes as there are round trips: MAIL, RCPT and DATA go together where the server
//!   announces PIPELINING (RFC 2920), the message and its final dot always do. Two round trips a mail, else four.
//! - Where the configuration asks for encryption, an unencrypted server hears EHLO and STARTTLS from us and nothing else,
//!   whatever it offers or leaves out. What it said before counts no more afterwards.

use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::{Encryption, SmtpConfig};
use crate::domain::Mailbox;
use crate::fault::hastened;

use super::delivery::{Delivery, Enhanced, MailError, Refusal, Stage, blame};
use super::login::{Credentials, Mechanism, log_in};
use super::reply::Reply;
use super::wire::{Secured, Wire};

/// How long each phase may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Name look-up and all addresses together.
    pub connect: Duration,
    /// Greeting, EHLO, TLS and login together.
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
            greeting: hastened(Duration::from_secs(30)),
            command: config.timeout,
            accepted: config.timeout.max(hastened(Duration::from_secs(120))),
        }
    }
}

/// A relay, and at most one connection to it.
#[derive(Debug)]
pub struct Session {
    config: SmtpConfig,
    credentials: Credentials,
    deadlines: Deadlines,
    connection: Option<Connection>,
    secured: Option<Secured>,
}

/// What a server turned out to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeted {
    /// `None`: not encrypted.
    pub secured: Option<Secured>,
    /// How we logged in; `None`: the configuration asks for no login.
    pub login: Option<Mechanism>,
    /// The logins that it offers, as it names them.
    pub offered: Vec<String>,
    /// Whether it takes addresses with letters outside of ASCII.
    pub smtputf8: bool,
}

impl Session {
    /// Servers like it when connections end now and then.
    const MAILS_PER_CONNECTION: u32 = 100;

    pub(super) fn new(config: SmtpConfig, credentials: Credentials, deadlines: Deadlines) -> Session {
        Session { config, credentials, deadlines, connection: None, secured: None }
    }

    /// Sends one message to one recipient. Dropping the future drops the connection with it.
    ///
    /// `message` as [`compose`](super::message::compose) makes it.
    pub async fn send(&mut self, from: &Mailbox, to: &Mailbox, message: &[u8]) -> Delivery {
        let transaction = Transaction::new(from, to, message);
        if let Some(mut connection) = self.connection.take()
            && connection.wire.is_quiet()
        {
            match connection.run(&transaction, &self.deadlines).await {
                // The server had closed the idle connection: not this mail's failure.
                End::NotBegun(_) => {}
                end => return self.settle(connection, end).await,
            }
        }
        match Connection::open(&self.config, &self.credentials, &self.deadlines).await {
            Ok(mut connection) => {
                self.secured = connection.wire.secured;
                let end = connection.run(&transaction, &self.deadlines).await;
                self.settle(connection, end).await
            }
            Err(delivery) => delivery,
        }
    }

    /// How the last connection was encrypted.
    pub fn secured(&self) -> Option<Secured> {
        self.secured
    }

    /// Greets the server, logs in if that is configured, and leaves again.
    ///
    /// # Errors
    /// As a mail would get it.
    pub async fn probe(&self) -> Result<Greeted, Delivery> {
        let connection = Connection::open(&self.config, &self.credentials, &self.deadlines).await?;
        let Connection { wire: Wire { secured, .. }, login, .. } = connection;
        let Abilities { logins: ref offered, smtputf8, .. } = connection.abilities;
        let greeted = Greeted { secured, login, offered: offered.clone(), smtputf8 };
        connection.quit().await;
        Ok(greeted)
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
    utf8: bool,
    /// Dots doubled, the final dot included.
    message: Zeroizing<Vec<u8>>,
}

impl Transaction {
    fn new(from: &Mailbox, to: &Mailbox, message: &[u8]) -> Transaction {
        let utf8 = from.needs_smtputf8() || to.needs_smtputf8();
        // With SMTPUTF8 comes 8BITMIME, and the To header needs it (RFC 6531, 3.1).
        let parameters = if utf8 { " BODY=8BITMIME SMTPUTF8" } else { "" };
        let commands = [
            (Stage::MailFrom, format!("MAIL FROM:<{}>{parameters}\r\n", from.address())),
            (Stage::Recipient, format!("RCPT TO:<{}>\r\n", to.address())),
            (Stage::Data, "DATA\r\n".to_owned()),
        ];
        Transaction { commands, utf8, message: stuffed(message) }
    }

    /// Who is to blame for a refusal. A server that complains about SMTPUTF8 itself complains about this one recipient, who
    /// must not stop the mail of all others.
    fn blame(&self, refusal: Refusal) -> Delivery {
        let of_utf8 = matches!(refusal.enhanced, Some(Enhanced { subject: 6, detail: 7, .. })) || matches!(refusal.code, 501 | 504 | 555);
        match refusal.stage {
            Stage::MailFrom if self.utf8 && refusal.code >= 500 && of_utf8 => Delivery::RecipientRejected(refusal),
            _ => blame(refusal),
        }
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
    wire: Wire,
    abilities: Abilities,
    login: Option<Mechanism>,
    mails: u32,
}

/// What the server said that it can, in its last answer to EHLO.
#[derive(Default, Debug)]
struct Abilities {
    pipelining: bool,
    starttls: bool,
    smtputf8: bool,
    logins: Vec<String>,
}

impl Abilities {
    fn of(reply: &Reply) -> Abilities {
        let mut abilities = Abilities::default();
        for line in reply.lines.iter().skip(1) {
            let line = line.to_ascii_uppercase();
            // `AUTH=` is how servers of the last century said it.
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            match words.next() {
                Some("PIPELINING") => abilities.pipelining = true,
                Some("STARTTLS") => abilities.starttls = true,
                Some("SMTPUTF8") => abilities.smtputf8 = true,
                Some("AUTH") => abilities.logins.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        abilities.logins.sort();
        abilities.logins.dedup();
        abilities
    }
}

impl Connection {
    async fn open(config: &SmtpConfig, credentials: &Credentials, deadlines: &Deadlines) -> Result<Connection, Delivery> {
        let ready = credentials.ready().await.map_err(Delivery::ConnectError)?;
        let wire = Wire::connect(&config.host, config.port, deadlines.connect).await.map_err(Delivery::ConnectError)?;
        let until = Instant::now() + deadlines.greeting;
        let mut wire = match &config.encryption {
            Encryption::Implicit(settings) => wire.secure(settings, &config.host, until).await.map_err(Delivery::ConnectError)?,
            Encryption::None | Encryption::StartTls(_) => wire,
        };
        expect(wire.reply(Stage::Greeting, until).await.map_err(Delivery::ConnectError)?, Stage::Greeting, 2)?;
        let mut abilities = hello(&mut wire, config, until).await?;
        if let Encryption::StartTls(settings) = &config.encryption {
            start_tls(&mut wire, &abilities, until).await.map_err(Delivery::ConnectError)?;
            wire = wire.secure(settings, &config.host, until).await.map_err(Delivery::ConnectError)?;
            abilities = hello(&mut wire, config, until).await?;
        }
        let login = log_in(&mut wire, &abilities.logins, ready, until, deadlines.greeting).await.map_err(Delivery::ConnectError)?;
        Ok(Connection { wire, abilities, login, mails: 0 })
    }

    async fn run(&mut self, transaction: &Transaction, deadlines: &Deadlines) -> End {
        if transaction.utf8 && !self.abilities.smtputf8 {
            return End::Clean(Delivery::AddressUnsupported);
        }
        let pipelining = self.abilities.pipelining;
        let mut refusal: Option<Refusal> = None;
        if pipelining {
            let together: String = transaction.commands.iter().map(|(_, command)| command.as_str()).collect();
            if let Err(error) = self.wire.write(together.as_bytes(), Stage::MailFrom, Instant::now() + deadlines.command).await {
                return unanswered(Stage::MailFrom, error);
            }
        }
        for (stage, command) in &transaction.commands {
            let (stage, until) = (*stage, Instant::now() + deadlines.command);
            if !pipelining && let Err(error) = self.wire.write(command.as_bytes(), stage, until).await {
                return unanswered(stage, error);
            }
            let reply = match self.wire.reply(stage, until).await {
                Ok(reply) => reply,
                // The verdict stands, but answers may still be under way.
                Err(error) => return refusal.map_or_else(|| unanswered(stage, error), |refusal| End::Broken(transaction.blame(refusal))),
            };
            let wanted = if stage == Stage::Data { 3 } else { 2 };
            let negative = Refusal { stage, code: reply.code, enhanced: reply.enhanced() };
            match (refusal, reply.code / 100) {
                (None, class) if class == wanted => {}
                (None, _) if stage == Stage::MailFrom && reply.code == 421 => return End::NotBegun(MailError::Refused(negative)),
                (None, 4 | 5) => {
                    refusal = Some(negative);
                    if !pipelining {
                        break;
                    }
                }
                (None, _) => return End::Broken(Delivery::ConnectError(MailError::Protocol(stage))),
                // The server waits for a message that must not come.
                (Some(refusal), 3) => return End::Broken(transaction.blame(refusal)),
                (Some(_), _) => {}
            }
        }
        match refusal {
            Some(refusal) if refusal.code == 421 || !self.wire.is_drained() => End::Broken(transaction.blame(refusal)),
            Some(refusal) => End::Abort(transaction.blame(refusal)),
            None => self.hand_over(&transaction.message, deadlines).await,
        }
    }

    /// From here on the server may have the message whatever we see.
    async fn hand_over(&mut self, message: &[u8], deadlines: &Deadlines) -> End {
        if self.wire.write(message, Stage::Message, Instant::now() + deadlines.command).await.is_err() {
            return End::Broken(Delivery::Unknown);
        }
        match self.wire.reply(Stage::Message, Instant::now() + deadlines.accepted).await {
            Err(_) => End::Broken(Delivery::Unknown),
            Ok(reply) if !self.wire.is_drained() => End::Broken(verdict(&reply)),
            Ok(reply) if reply.code == 421 => End::Broken(verdict(&reply)),
            Ok(reply) if reply.code / 100 == 3 => End::Broken(verdict(&reply)),
            Ok(reply) => End::Clean(verdict(&reply)),
        }
    }

    /// Whether the connection is ready for the next mail.
    async fn reset(&mut self, deadlines: &Deadlines) -> bool {
        let until = Instant::now() + deadlines.command;
        self.wire.write(b"RSET\r\n", Stage::MailFrom, until).await.is_ok()
            && matches!(self.wire.reply(Stage::MailFrom, until).await, Ok(reply) if reply.code == 250)
    }

    async fn quit(mut self) {
        let soon = Instant::now() + Duration::from_secs(1);
        let _ = self.wire.write(b"QUIT\r\n", Stage::MailFrom, soon).await;
        self.wire.close(soon).await;
    }
}

async fn hello(wire: &mut Wire, config: &SmtpConfig, until: Instant) -> Result<Abilities, Delivery> {
    let hello = format!("EHLO {}\r\n", hello_name(config.hello_name.as_deref(), wire));
    wire.write(hello.as_bytes(), Stage::Hello, until).await.map_err(Delivery::ConnectError)?;
    let reply = expect(wire.reply(Stage::Hello, until).await.map_err(Delivery::ConnectError)?, Stage::Hello, 2)?;
    Ok(Abilities::of(&reply))
}

/// Asks the server to encrypt; the handshake comes next.
async fn start_tls(wire: &mut Wire, abilities: &Abilities, until: Instant) -> Result<(), MailError> {
    if !abilities.starttls {
        return Err(MailError::TlsNotOffered);
    }
    wire.write(b"STARTTLS\r\n", Stage::StartTls, until).await?;
    let reply = wire.reply(Stage::StartTls, until).await?;
    match reply.code {
        220 => Ok(()),
        code @ 400.. => Err(MailError::NoTls(Refusal { stage: Stage::StartTls, code, enhanced: reply.enhanced() })),
        _ => Err(MailError::Protocol(Stage::StartTls)),
    }
}

/// The configured name, else this machine's if it is a full one, else the address that we connect from: servers refuse half
/// names (RFC 5321, 4.1.4).
fn hello_name(configured: Option<&str>, wire: &Wire) -> String {
    let valid = |name: &&str| name.contains('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    let visible = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    let machine = ClientId::default().to_string();
    match (configured.filter(visible), Some(machine.as_str()).filter(valid), wire.local) {
        (Some(name), ..) | (None, Some(name), _) => name.to_owned(),
        (None, None, Some(address)) => match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => ClientId::Ipv4(ip).to_string(),
            std::net::IpAddr::V6(ip) => ClientId::Ipv6(ip).to_string(),
        },
        (None, None, None) => "[127.0.0.1]".to_owned(),
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

#[cfg(test)]
mod tests;
