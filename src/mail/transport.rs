//! The choice between the wires (product rule R35).

use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::config::{MailConfig, Sender, TransportConfig};
use crate::domain::{Mailbox, Timestamp};

use super::delivery::{Delivery, MailError};
use super::directory::Outbox;
use super::message::{Outgoing, compose};
use super::smtp::{Deadlines, Session};

/// One wire of one worker, with what every mail over it has in common.
#[derive(Debug)]
pub struct Transport {
    from: Arc<Sender>,
    envelope_from: Mailbox,
    wire: Wire,
}

#[derive(Debug)]
enum Wire {
    Smtp(Box<Session>),
    Directory(Outbox),
}

impl Transport {
    /// `None` for `transport: none`, and for a configuration without a sender.
    pub fn new(config: &MailConfig, deadlines: Option<Deadlines>) -> Option<Transport> {
        let from = config.from.clone()?;
        let wire = match &config.transport {
            TransportConfig::Smtp(smtp) => {
                let deadlines = deadlines.unwrap_or_else(|| Deadlines::of(smtp));
                Wire::Smtp(Box::new(Session::new(smtp.clone(), deadlines)))
            }
            TransportConfig::Directory(path) => Wire::Directory(Outbox::new(path.clone())),
            TransportConfig::None => return None,
        };
        let envelope_from = config.envelope_from.clone().unwrap_or_else(|| from.address.clone());
        Some(Transport { from: Arc::new(from), envelope_from, wire })
    }

    /// Sends one mail. Dropping the future leaves nothing behind that could disturb the next mail.
    pub async fn send(&mut self, outgoing: &Outgoing, date: Timestamp) -> Delivery {
        let message = compose(&self.from, outgoing, None, date);
        match &mut self.wire {
            Wire::Smtp(session) => session.send(&self.envelope_from, &outgoing.recipient, &message).await,
            Wire::Directory(outbox) => {
                let (outbox, id) = (outbox.clone(), outgoing.message_id.clone());
                written(spawn_blocking(move || outbox.write(&id, &message)).await.unwrap_or_else(|error| Err(error.into())))
            }
        }
    }

    /// Ends the connection, if there is one.
    pub async fn close(&mut self) {
        if let Wire::Smtp(session) = &mut self.wire {
            session.close().await;
        }
    }
}

/// Whether mail could go now: for `doctor`. Greets a server and leaves again; makes the directory.
///
/// # Errors
/// As a mail would get it.
pub async fn probe(config: &MailConfig) -> Result<(), Delivery> {
    match &config.transport {
        TransportConfig::Smtp(smtp) => Session::new(smtp.clone(), Deadlines::of(smtp)).probe().await,
        TransportConfig::Directory(path) => {
            Outbox::new(path.clone()).create().map_err(|error| Delivery::ConnectError(MailError::Write(error)))
        }
        TransportConfig::None => Ok(()),
    }
}

fn written(result: std::io::Result<PathBuf>) -> Delivery {
    match result {
        Ok(_) => Delivery::Accepted { code: 250, text: "written".to_owned() },
        Err(error) => Delivery::ConnectError(MailError::Write(error)),
    }
}
