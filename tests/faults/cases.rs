//! Cases: many at once, counted, and each told by its name when it fails.

use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What a case spends its time with.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Working.
    Busy,
    /// Waiting until a deadline of the program is over.
    Waiting,
}

static BUSY: Semaphore = Semaphore::const_new(4);
static WAITING: Semaphore = Semaphore::const_new(16);
static ALL: AtomicUsize = AtomicUsize::new(0);

/// The cases of one test.
pub struct Cases {
    about: &'static str,
    begun: Instant,
    tasks: JoinSet<Result<(), String>>,
    number: usize,
}

impl Cases {
    pub fn new(about: &'static str) -> Cases {
        Cases { about, begun: Instant::now(), tasks: JoinSet::new(), number: 0 }
    }

    /// Begins a case when there is room.
    pub fn add(&mut self, name: String, kind: Kind, case: impl Future<Output = ()> + Send + 'static) {
        self.number += 1;
        self.tasks.spawn(async move {
            let room = match kind {
                Kind::Busy => &BUSY,
                Kind::Waiting => &WAITING,
            };
            let _room = room.acquire().await.expect("never closed");
            let ended = AssertUnwindSafe(case).catch_unwind().await;
            ended.map_err(|panic| {
                let said = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
                format!("{name}: {}", said.unwrap_or_default())
            })
        });
    }

    /// Waits for all, tells how many there were, and fails if any did.
    pub async fn end(mut self) {
        let mut failed = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            failed.extend(ended.expect("a case is not cancelled").err());
        }
        let all = ALL.fetch_add(self.number, Ordering::Relaxed) + self.number;
        let took = self.begun.elapsed().as_secs();
        // Past the capture of what tests print: how much was tried is to be seen where all is well, too.
        let said = format!("{}: {} cases in {took} s, {} failed\nfaults: {all} cases\n", self.about, self.number, failed.len());
        std::io::stderr().write_all(said.as_bytes()).expect("the standard error");
        failed.sort();
        assert!(failed.is_empty(), "{} of {} cases failed:\n\n{}", failed.len(), self.number, failed.join("\n\n"));
    }
}
