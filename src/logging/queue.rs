//! What stands between the program and a sink that may be slow: a bounded queue, and a thread that empties it.
//!
//! A full disk, a reader that stopped reading or a server that is away must never hold up a pass, so nobody waits for room:
//! what does not fit is dropped and counted. Once everything that waited has been written, the sink says how much is missing.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::Value;
use tracing::Level;

use super::Render;
use super::line::{Fields, Line};

/// About twenty thousand lines: what a disk that hesitates, or a server that is started anew, makes wait.
const ROOM_BYTES: usize = 4 << 20;

/// Lines on their way to one sink.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Lines that the sink has not got, and never will.
    dropped: &'static AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<String>,
    bytes: usize,
    /// Nothing more is taken; what waits is still written.
    closed: bool,
    /// The thread has ended.
    ended: bool,
}

impl Queue {
    pub(super) fn new(dropped: &'static AtomicU64) -> Arc<Queue> {
        Arc::new(Queue { waiting: Mutex::default(), changed: Condvar::new(), dropped })
    }

    /// Never waits for room.
    pub(super) fn push(&self, line: String) {
        let mut waiting = self.waiting();
        if waiting.closed || waiting.bytes + line.len() > ROOM_BYTES {
            drop(waiting);
            self.drop_lines(1);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        drop(waiting);
        self.changed.notify_all();
    }

    /// Waits until there is one; `None` once the queue is closed and empty.
    fn next(&self) -> Option<String> {
        let waiting = self.waiting();
        let idle = |waiting: &mut Waiting| waiting.lines.is_empty() && !waiting.closed;
        let mut waiting = self.changed.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        let line = waiting.lines.pop_front()?;
        waiting.bytes -= line.len();
        Some(line)
    }

    fn is_empty(&self) -> bool {
        self.waiting().lines.is_empty()
    }

    /// For a sink that tries again: waits for so long, and says whether it may go on trying. `false`: the program ends.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let waiting = self.waiting();
        let open = |waiting: &mut Waiting| !waiting.closed;
        let (waiting, _) = self.changed.wait_timeout_while(waiting, pause, open).unwrap_or_else(PoisonError::into_inner);
        !waiting.closed
    }

    fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_all();
    }

    /// Waits until everything is written, but not for longer than `patience`.
    fn wait(&self, patience: Duration) {
        let waiting = self.waiting();
        drop(self.changed.wait_timeout_while(waiting, patience, |waiting| !waiting.ended));
    }

    fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sink at work in a thread of its own. Dropping it writes what waits.
pub(super) struct Sink {
    queue: Arc<Queue>,
    /// Bounds the wait at the end.
    patience: Duration,
}

impl Sink {
    /// `write` gets one line at a time, each ended as `render` ends it; `trouble` is told when lines begin to be lost because
    /// of an error.
    pub(super) fn start(
        name: &str,
        queue: Arc<Queue>,
        patience: Duration,
        render: Render,
        mut write: impl FnMut(&str) -> io::Result<()> + Send + 'static,
        trouble: impl Fn(&io::Error) + Send + 'static,
    ) -> io::Result<Sink> {
        let ours = Arc::clone(&queue);
        thread::Builder::new().name(format!("log-{name}")).spawn(move || {
            empty(&ours, &render, &mut write, &trouble);
            drop(write); // what it holds is closed in good order
            ours.waiting().ended = true;
            ours.changed.notify_all();
        })?;
        Ok(Sink { queue, patience })
    }

    /// Ends all of them at once, and waits no longer for all than for one.
    pub(super) fn end(sinks: Vec<Sink>, patience: Duration) {
        let end = Instant::now() + patience;
        sinks.iter().for_each(|sink| sink.queue.close());
        for mut sink in sinks {
            sink.patience = end.saturating_duration_since(Instant::now());
            drop(sink);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.queue.close();
        self.queue.wait(self.patience);
    }
}

fn empty(queue: &Queue, render: &Render, write: &mut impl FnMut(&str) -> io::Result<()>, trouble: &impl Fn(&io::Error)) {
    let mut told = queue.dropped.load(Ordering::Relaxed);
    let mut works = true;
    while let Some(line) = queue.next() {
        match write(&line) {
            Ok(()) => works = true,
            Err(error) => {
                queue.drop_lines(1);
                if std::mem::replace(&mut works, false) {
                    trouble(&error);
                }
            }
        }
        // The newest are dropped, so that what is missing is missing behind those that waited.
        let dropped = queue.dropped.load(Ordering::Relaxed);
        if dropped > told && works && queue.is_empty() && write(&missing(render, dropped - told)).is_ok() {
            told = dropped;
        }
    }
}

fn missing(render: &Render, lines: u64) -> String {
    let message = format!("{lines} lines of the log are missing here: they could not be written, or not fast enough");
    let mut fields = Fields::default();
    fields.set("lines", Value::from(lines));
    render(&Line { time: Utc::now(), level: Level::WARN, target: "credkeeper::logging", message: &message, fields: &fields })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn counter() -> &'static AtomicU64 {
        Box::leak(Box::default())
    }

    fn render() -> Render {
        Arc::new(|line: &Line<'_>| line.message.to_owned())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_end_waits_for_what_is_on_its_way() {
        let (written, lines) = mpsc::channel();
        let queue = Queue::new(counter());
        let write = move |line: &str| written.send(line.to_owned()).map_err(io::Error::other);
        let sink = Sink::start("test", Arc::clone(&queue), LONG, render(), write, |_| panic!("no trouble")).unwrap();
        (0..1_000).for_each(|n| queue.push(n.to_string()));
        drop(sink);
        assert_eq!(lines.try_iter().collect::<Vec<_>>(), (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>());
        queue.push("too late".to_owned());
        assert_eq!((queue.dropped.load(Ordering::Relaxed), lines.try_recv().is_err()), (1, true));
    }

    #[test]
    fn a_sink_that_hangs_costs_lines_and_nothing_else() {
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (written, lines) = mpsc::channel();
        let queue = Queue::new(counter());
        let write = move |line: &str| {
            begun.send(()).map_err(io::Error::other)?;
            let _ = released.recv(); // hangs until the other end is dropped
            written.send(line.get(..8).unwrap_or(line).to_owned()).map_err(io::Error::other)
        };
        let sink = Sink::start("test", Arc::clone(&queue), LONG, render(), write, |_| panic!("no trouble")).unwrap();
        let megabyte = |name: &str| format!("{name:<8}{}", "x".repeat((1 << 20) - 8));
        queue.push("in hand".to_owned());
        has_begun.recv().unwrap();
        ["a", "b", "c", "d", "e", "f"].iter().for_each(|name| queue.push(megabyte(name)));
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 2);
        drop(release);
        drop(sink);
        let lines: Vec<String> = lines.iter().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(lines, ["in hand", "a", "b", "c", "d", "2 lines"], "the rest, and then what is missing");
    }

    #[test]
    fn a_sink_that_hangs_for_good_does_not_keep_the_program_from_ending() {
        let (_release, released) = mpsc::channel::<()>();
        let queue = Queue::new(counter());
        let hang = move |_: &str| released.recv().map_err(io::Error::other);
        let sink = Sink::start("test", Arc::clone(&queue), Duration::from_millis(1), render(), hang, |_| ()).unwrap();
        queue.push("x".to_owned());
        drop(sink);
    }

    #[test]
    fn trouble_is_told_once_and_the_loss_when_it_is_over() {
        let (written, lines) = mpsc::channel();
        let (telling, told) = mpsc::channel();
        let queue = Queue::new(counter());
        let write = move |line: &str| match line {
            "bad" => Err(io::ErrorKind::StorageFull.into()),
            _ => written.send(line.to_owned()).map_err(io::Error::other),
        };
        ["a", "bad", "bad", "bad", "b", "bad", "c"].iter().for_each(|line| queue.push((*line).to_owned()));
        let trouble = move |error: &io::Error| telling.send(error.kind()).unwrap();
        drop(Sink::start("test", Arc::clone(&queue), LONG, render(), write, trouble).unwrap());
        let lines: Vec<String> = lines.iter().collect();
        assert_eq!(lines[..3], ["a", "b", "c"]);
        assert_eq!(lines[3..], ["4 lines of the log are missing here: they could not be written, or not fast enough"]);
        assert_eq!(told.iter().collect::<Vec<_>>(), [io::ErrorKind::StorageFull; 2], "once each time that it begins");
    }
}
