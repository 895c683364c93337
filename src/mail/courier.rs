//! Carries mails: N connections, one pace, one gate.
//!
//! The owner gives mails through [`Courier::outgoing`] (bounded) and takes answers from [`Courier::answers`] (bounded):
//! every mail given is answered exactly once, here or by [`shutdown`](Courier::shutdown). It must go on taking answers
//! while it gives mails, or both stand still.
//!
//! A mail whose time is over before the pace lets it go is answered [`Delivery::NotTried`]. While
//! [`state`](Courier::state) is [`State::PausedUntil`], so are all mails at once, those that were waiting too: nothing
//! grows stale in here, and whoever gives a mail again can first look whether its credential still stands. Don't give mails before that moment; afterwards the first one finds out, and the others
//! wait for its answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::config::{MailConfig, TransportConfig};
use crate::domain::{IssuanceId, Limit, Timestamp};
use crate::fault::hastened;

use super::delivery::{Delivery, MailError};
use super::gate::{Entry, Gate, Phase, Rejections, Ticket};
use super::message::Outgoing;
use super::pace::Bucket;
use super::remedy::{remedy, what};
use super::smtp::Deadlines;
use super::transport::Transport;

/// What became of one mail.
#[derive(Debug)]
pub struct Answer {
    pub id: IssuanceId,
    pub delivery: Delivery,
    /// From the first byte to the verdict; zero if not tried.
    pub took: Duration,
}

/// Whether mails go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Open,
    /// A pause is over and one mail is finding out whether the site is well again.
    Probing,
    PausedUntil(Instant),
}

/// Times that only tests and rehearsals change.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// `None`: from the configuration.
    pub deadlines: Option<Deadlines>,
    /// After the first failure that is the site's; doubled with each further one.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { deadlines: None, first_pause: hastened(Duration::from_secs(15)), longest_pause: hastened(Duration::from_secs(15 * 60)) }
    }
}

/// The tasks that send, and both ends of their queues.
#[derive(Debug)]
pub struct Courier {
    pub outgoing: mpsc::Sender<Outgoing>,
    pub answers: mpsc::Receiver<Answer>,
    shared: Arc<Shared>,
    workers: JoinSet<()>,
    /// Once set, no worker takes another mail, and at that moment the one in hand is given up.
    stop: watch::Sender<Option<Instant>>,
}

impl Courier {
    /// Starts the workers. To be called within a runtime.
    pub fn start(config: &MailConfig, mails_per_minute: Limit<u64>, timing: Timing) -> Courier {
        let connections = match &config.transport {
            TransportConfig::Smtp(smtp) => smtp.connections.max(1),
            TransportConfig::Directory(_) | TransportConfig::None => 1,
        };
        let (outgoing, queue) = mpsc::channel(queue_length(connections, mails_per_minute));
        let (answered, answers) = mpsc::channel(connections * 4);
        let (stop, stopped) = watch::channel(None);
        let gate = Gate::new(timing.first_pause, timing.longest_pause);
        let gate = match &config.transport {
            TransportConfig::Smtp(smtp) if smtp.login.is_some() => gate.cautious(now()),
            _ => gate,
        };
        let phase = watch::Sender::new(gate.phase());
        let shared = Arc::new(Shared {
            queue: AsyncMutex::new(queue),
            control: Mutex::new(Control {
                gate,
                bucket: Bucket::new(mails_per_minute),
                rejections: Rejections::default(),
                said_paused: false,
            }),
            phase,
            certificate_expires: Mutex::default(),
            way: config.transport.clone(),
        });
        let mut workers = JoinSet::new();
        let mut transports = Transport::several(config, timing.deadlines, connections);
        for _ in 0..connections {
            let worker =
                Worker { shared: shared.clone(), transport: transports.pop(), stopped: stopped.clone(), phase: shared.phase.subscribe() };
            workers.spawn(worker.run(answered.clone()));
        }
        Courier { outgoing, answers, shared, workers, stop }
    }

    /// When the certificate ends that the mail server showed last; `None`: no encrypted connection has come about yet.
    pub fn certificate_expires(&self) -> Option<Timestamp> {
        *self.shared.certificate_expires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn state(&self) -> State {
        match *self.shared.phase.borrow() {
            Phase::Open => State::Open,
            Phase::Shut { until, .. } if now() < until => State::PausedUntil(until),
            Phase::Shut { .. } | Phase::Probing { .. } => State::Probing,
        }
    }

    /// Takes no more mails, lets those in hand finish within `deadline`, and returns every answer not yet taken: a mail
    /// cut short after it may have been handed over is [`Delivery::Unknown`], a mail still queued `NotTried`.
    pub async fn shutdown(mut self, deadline: Duration) -> Vec<Answer> {
        self.stop.send_replace(Some(now() + deadline));
        let mut rest = Vec::new();
        while let Some(answer) = self.answers.recv().await {
            rest.push(answer);
        }
        while self.workers.join_next().await.is_some() {}
        let mut queue = self.shared.queue.lock().await;
        queue.close();
        while let Ok(mail) = queue.try_recv() {
            rest.push(not_tried(mail.id));
        }
        rest
    }
}

/// A few mails a connection, so that none waits for the owner; but at a slow pace no more than a quarter of a minute's
/// worth, because what waits here for long grows stale.
fn queue_length(connections: usize, mails_per_minute: Limit<u64>) -> usize {
    let steady = match mails_per_minute {
        Limit::At(mails) => usize::try_from(mails / 4).unwrap_or(usize::MAX).max(1),
        Limit::Unlimited => usize::MAX,
    };
    steady.min(connections * 4)
}

#[derive(Debug)]
struct Shared {
    queue: AsyncMutex<mpsc::Receiver<Outgoing>>,
    control: Mutex<Control>,
    /// Follows the gate, for those who wait for it.
    phase: watch::Sender<Phase>,
    certificate_expires: Mutex<Option<Timestamp>>,
    /// For what to do about a failure.
    way: TransportConfig,
}

#[derive(Debug)]
struct Control {
    gate: Gate,
    bucket: Bucket,
    rejections: Rejections,
    /// Whether the log says that mail pauses.
    said_paused: bool,
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> Entry {
        let mut control = self.control();
        let entry = control.gate.enter(now());
        self.publish(control.gate.phase());
        entry
    }

    /// Says what was learned from a mail; a rejection among too many is no longer the recipient's.
    fn leave(&self, ticket: Ticket, delivery: Delivery) -> Delivery {
        let now = now();
        let mut control = self.control();
        let delivery = match delivery {
            Delivery::RecipientRejected(refusal) if control.rejections.note(now, true) => Delivery::SiteFault(refusal),
            Delivery::Accepted { .. } => {
                control.rejections.note(now, false);
                delivery
            }
            delivery => delivery,
        };
        let before = control.gate.phase();
        control.gate.leave(now, ticket, delivery.health());
        let after = control.gate.phase();
        self.publish(after);
        let resumed = after == Phase::Open && control.said_paused;
        control.said_paused = (control.said_paused || matches!(after, Phase::Shut { .. })) && !resumed;
        drop(control);
        match after {
            Phase::Shut { pause, .. } if after != before => {
                let (pause_s, because, todo) = (pause.as_secs(), what(&delivery), remedy(&delivery, &self.way));
                tracing::warn!(pause_s, error.kind = kind(&delivery), "No mail goes for {pause_s} s: {because} → {todo}");
            }
            Phase::Open if resumed => tracing::info!("The mail server takes mail again"),
            _ => {}
        }
        delivery
    }

    /// Called with the control locked, so that phases are published in their order.
    fn publish(&self, phase: Phase) {
        self.phase.send_if_modified(|published| std::mem::replace(published, phase) != phase);
    }
}

/// One connection.
struct Worker {
    shared: Arc<Shared>,
    transport: Option<Transport>,
    stopped: watch::Receiver<Option<Instant>>,
    phase: watch::Receiver<Phase>,
}

impl Worker {
    async fn run(mut self, answers: mpsc::Sender<Answer>) {
        while let Some(mail) = self.next().await {
            let answer = self.carry(&mail).await;
            log(&mail, &answer);
            if answers.send(answer).await.is_err() {
                break;
            }
        }
        if let Some(transport) = &mut self.transport {
            transport.close().await;
        }
    }

    async fn next(&mut self) -> Option<Outgoing> {
        let shared = self.shared.clone();
        tokio::select! {
            biased;
            () = stop(&mut self.stopped) => None,
            mail = async { shared.queue.lock().await.recv().await } => mail,
        }
    }

    async fn carry(&mut self, mail: &Outgoing) -> Answer {
        let Some(ticket) = self.admit(mail).await else { return not_tried(mail.id) };
        let begun = now();
        let date = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let delivery = match &mut self.transport {
            Some(transport) => tokio::select! {
                biased;
                delivery = transport.send(mail, Timestamp(date.cast_signed())) => delivery,
                () = given_up(&mut self.stopped) => Delivery::Unknown,
            },
            None => Delivery::ConnectError(MailError::NoTransport),
        };
        if let Some(at) = self.transport.as_ref().and_then(Transport::secured).and_then(|secured| secured.certificate_expires) {
            *self.shared.certificate_expires.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        }
        let delivery = self.shared.leave(ticket, delivery);
        Answer { id: mail.id, delivery, took: now().saturating_duration_since(begun) }
    }

    /// Waits for the pace and the gate; `None`: paused, stopping or too late, the mail goes back.
    async fn admit(&mut self, mail: &Outgoing) -> Option<Ticket> {
        loop {
            self.phase.borrow_and_update();
            if self.stopped.borrow().is_some() {
                return None;
            }
            match self.shared.enter() {
                Entry::Shut => return None,
                Entry::Go(ticket) => return self.paced(ticket, mail).await,
                Entry::Wait => tokio::select! {
                    biased;
                    () = stop(&mut self.stopped) => return None,
                    _ = self.phase.changed() => {}
                },
            }
        }
    }

    /// Waits for the pace with the ticket in hand; hands it back if the gate shuts meanwhile, or the mail grows stale.
    async fn paced(&mut self, ticket: Ticket, mail: &Outgoing) -> Option<Ticket> {
        while !mail.is_stale(now()) {
            let wait = self.shared.control().bucket.take(now());
            let Err(wait) = wait else { return Some(ticket) };
            tokio::select! {
                biased;
                () = stop(&mut self.stopped) => break,
                () = shut(&mut self.phase) => break,
                () = sleep(mail.not_after.map_or(wait, |at| wait.min(at.saturating_duration_since(now())))) => {}
            }
        }
        self.shared.leave(ticket, Delivery::NotTried);
        None
    }
}

/// Until the courier is to stop, or nobody holds it any more.
async fn stop(stopped: &mut watch::Receiver<Option<Instant>>) {
    let _ = stopped.wait_for(Option::is_some).await;
}

/// Until the mail in hand is to be given up.
async fn given_up(stopped: &mut watch::Receiver<Option<Instant>>) {
    let at = stopped.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

async fn shut(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| matches!(phase, Phase::Shut { .. })).await;
}

/// As the runtime tells it, so that a test which stops its time stops the pauses too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn not_tried(id: IssuanceId) -> Answer {
    Answer { id, delivery: Delivery::NotTried, took: Duration::ZERO }
}

fn log(mail: &Outgoing, answer: &Answer) {
    tracing::debug!(
        mail.message_id = %mail.message_id,
        outcome = answer.delivery.outcome(),
        error.kind = kind(&answer.delivery),
        duration_ms = answer.took.as_millis() as u64,
        "Mail to {}: {}",
        mail.recipient,
        what(&answer.delivery)
    );
}

/// The log field `error.kind`; absent for what is no error of ours.
fn kind(delivery: &Delivery) -> Option<&'static str> {
    match delivery {
        Delivery::ConnectError(error) => Some(error.kind()),
        _ => None,
    }
}
