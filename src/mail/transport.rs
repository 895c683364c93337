//! The choice between the ways out (product rule R35), and rehearsals (`mail.redirect_to`).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::task::spawn_blocking;

use crate::config::{MailConfig, Sender, SmtpConfig, TransportConfig};
use crate::domain::{IssuanceId, Mailbox, Secret, Timestamp};

use super::delivery::{Delivery, MailError};
use super::directory::Outbox;
use super::login::Credentials;
use super::message::{Outgoing, compose};
use super::smtp::{Deadlines, Greeted, Session};
use super::wire::Secured;

/// One way out of one worker, with what every mail over it has in common.
#[derive(Debug)]
pub struct Transport {
    from: Arc<Sender>,
    envelope_from: Mailbox,
    redirect_to: Option<Mailbox>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Smtp(Box<Session>),
    Directory(Outbox),
}

impl Transport {
    /// `count` of them, which share one login. None for `transport: none`, nor for a configuration without a sender.
    pub fn several(config: &MailConfig, deadlines: Option<Deadlines>, count: usize) -> Vec<Transport> {
        let credentials = match &config.transport {
            TransportConfig::Smtp(smtp) => Credentials::of(smtp, &deadlines.unwrap_or_else(|| Deadlines::of(smtp))),
            TransportConfig::Directory(_) | TransportConfig::None => Credentials::None,
        };
        (0..count).filter_map(|_| Transport::with(config, deadlines, credentials.clone())).collect()
    }

    /// `None` for `transport: none`, and for a configuration without a sender.
    pub fn new(config: &MailConfig, deadlines: Option<Deadlines>) -> Option<Transport> {
        Transport::several(config, deadlines, 1).pop()
    }

    fn with(config: &MailConfig, deadlines: Option<Deadlines>, credentials: Credentials) -> Option<Transport> {
        let from = config.from.clone()?;
        let way = match &config.transport {
            TransportConfig::Smtp(smtp) => {
                let deadlines = deadlines.unwrap_or_else(|| Deadlines::of(smtp));
                Way::Smtp(Box::new(Session::new(SmtpConfig::clone(smtp), credentials, deadlines)))
            }
            TransportConfig::Directory(path) => Way::Directory(Outbox::new(path.clone())),
            TransportConfig::None => return None,
        };
        let envelope_from = config.envelope_from.clone().unwrap_or_else(|| from.address.clone());
        Some(Transport { from: Arc::new(from), envelope_from, redirect_to: config.redirect_to.clone(), way })
    }

    /// Sends one mail. Dropping the future leaves nothing behind that could disturb the next mail.
    pub async fn send(&mut self, outgoing: &Outgoing, date: Timestamp) -> Delivery {
        let message = compose(&self.from, outgoing, self.redirect_to.as_ref(), date);
        let to = self.redirect_to.as_ref().unwrap_or(&outgoing.recipient);
        let delivery = match &mut self.way {
            Way::Smtp(session) => session.send(&self.envelope_from, to, &message).await,
            Way::Directory(outbox) => {
                let (writing, id) = (outbox.clone(), outgoing.message_id.clone());
                match spawn_blocking(move || writing.write(&id, &message)).await.unwrap_or_else(|error| Err(error.into())) {
                    Ok(_) => Delivery::Accepted { code: 250, text: "written".to_owned() },
                    Err(error) => unwritten(outbox.directory(), error),
                }
            }
        };
        match delivery {
            // The user has nothing to do with it.
            Delivery::RecipientRejected(refusal) if self.redirect_to.is_some() => Delivery::SiteFault(refusal),
            delivery => delivery,
        }
    }

    /// How the last connection was encrypted.
    pub fn secured(&self) -> Option<Secured> {
        match &self.way {
            Way::Smtp(session) => session.secured(),
            Way::Directory(_) => None,
        }
    }

    /// Ends the connection, if there is one.
    pub async fn close(&mut self) {
        if let Way::Smtp(session) = &mut self.way {
            session.close().await;
        }
    }
}

/// Whether mail could go now: for `doctor`. Greets a server, logs in, and leaves again; makes the directory. `None`: there is
/// no server.
///
/// # Errors
/// As a mail would get it.
pub async fn probe(config: &MailConfig) -> Result<Option<Greeted>, Delivery> {
    match &config.transport {
        TransportConfig::Smtp(smtp) => {
            let deadlines = Deadlines::of(smtp);
            Session::new(SmtpConfig::clone(smtp), Credentials::of(smtp, &deadlines), deadlines).probe().await.map(Some)
        }
        TransportConfig::Directory(path) => Outbox::new(path.clone()).create().map(|()| None).map_err(|error| unwritten(path, error)),
        TransportConfig::None => Ok(None),
    }
}

/// Sends a mail without any credential, as any other mail goes: for `doctor --mail-test`.
pub async fn send_test(config: &MailConfig, to: &Mailbox, now: Timestamp) -> Delivery {
    let text = "This mail was sent by `credkeeper doctor --mail-test`. If you can read it, users can be told their credentials.\n\
                It holds none, and there is nothing to do.\n";
    send_notice(config, to, "mail-test", "Test of credkeeper's mail", text, now).await
}

/// Sends one mail that no issuance knows, on a connection of its own. `kind` begins its Message-ID.
pub async fn send_notice(config: &MailConfig, to: &Mailbox, kind: &str, subject: &str, text: &str, now: Timestamp) -> Delivery {
    let Some(mut transport) = Transport::new(config, None) else { return Delivery::ConnectError(MailError::NoTransport) };
    let domain = transport.from.address.address().split('@').next_back().unwrap_or_default();
    let mail = Outgoing {
        id: IssuanceId(0),
        recipient: to.clone(),
        message_id: format!("{kind}.{}.{}.{}@{domain}", now.0, std::process::id(), NOTICE.fetch_add(1, Ordering::Relaxed)),
        subject: subject.to_owned(),
        text: Secret::new(text.to_owned()),
        html: None,
        not_after: None,
    };
    let delivery = transport.send(&mail, now).await;
    transport.close().await;
    delivery
}

/// Tells notices of one second apart.
static NOTICE: AtomicU64 = AtomicU64::new(0);

fn unwritten(directory: &Path, source: io::Error) -> Delivery {
    Delivery::ConnectError(MailError::Write { directory: directory.to_owned(), source })
}
