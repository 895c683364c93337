//! The thread that owns the file. SQLite blocks and wants one user at a time; the runtime must not wait for a disk. So jobs go
//! through a bounded channel to a thread of their own, and answers come back by a channel each. A job that was handed over is
//! done even if the caller goes away meanwhile.

use tokio::sync::{mpsc, oneshot};

use super::error::JournalError;
use super::visit::Visitor;
use super::{View, Writer};
use crate::fault;

type Job = Box<dyn FnOnce(&mut Desk) + Send>;

/// How many jobs may wait: a few batches and marks; who has more to say waits in turn.
const JOBS: usize = 32;

/// What lies on the thread's desk.
pub(super) enum Desk {
    Writer(Box<Writer>),
    Visitor(Box<Visitor>),
    Closed,
}

impl Desk {
    /// Runs a look at the file; a visitor may have to run it again.
    pub(super) fn look<T>(&mut self, look: impl Fn(&View) -> Result<T, JournalError>) -> Result<T, JournalError> {
        match self {
            Desk::Writer(writer) => look(&writer.view),
            Desk::Visitor(visitor) => visitor.look(look),
            Desk::Closed => Err(JournalError::Closed),
        }
    }

    pub(super) fn writer(&mut self) -> Result<&mut Writer, JournalError> {
        match self {
            Desk::Writer(writer) => Ok(writer),
            // Only the writing handle asks, and it is only made with a writer.
            Desk::Visitor(_) | Desk::Closed => Err(JournalError::Closed),
        }
    }
}

#[derive(Clone)]
pub(super) struct Clerk {
    jobs: mpsc::Sender<Job>,
}

impl Clerk {
    /// Starts the thread; it ends with the last handle.
    pub(super) fn start(mut desk: Desk) -> Result<Clerk, JournalError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(JOBS);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut desk);
                }
            })
            .map_err(JournalError::Thread)?;
        Ok(Clerk { jobs })
    }

    pub(super) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Desk) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |desk| {
            let _ = answer.send(job(desk));
        });
        self.jobs.send(job).await.map_err(|_| JournalError::Closed)?;
        answered(wait).await.ok_or(JournalError::Closed)?
    }
}

async fn answered<T: Send + 'static>(wait: oneshot::Receiver<T>) -> Option<T> {
    // Time that a test has stopped goes on by itself when all tasks wait. That somebody waits for this thread is known to it
    // only if a task says so that may block.
    if fault::is_simulated() {
        return tokio::task::spawn_blocking(move || wait.blocking_recv().ok()).await.ok().flatten();
    }
    wait.await.ok()
}
