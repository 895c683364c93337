//! Work in many pieces, on all cores, which can be stopped between two pieces.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Told how many pieces are done, by whichever core has just ended one; a break ends the work.
pub type Watch<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// How many can work at once.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What `work` makes of each piece, in their order; `None` where it was stopped. Blocks.
pub(super) fn on_all_cores<T: Send>(pieces: u64, watch: Watch<'_>, work: impl Fn(u64) -> T + Sync) -> Option<Vec<T>> {
    let (next, done, stopped) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let worker = || {
        let mut made = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                break;
            }
            made.push((piece, work(piece)));
            if watch(done.fetch_add(1, Ordering::Relaxed) + 1).is_break() {
                stopped.store(true, Ordering::Relaxed);
            }
        }
        made
    };
    let workers = pieces.min(cores() as u64);
    let mut made: Vec<(u64, T)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    made.sort_unstable_by_key(|(piece, _)| *piece);
    (made.len() as u64 == pieces).then(|| made.into_iter().map(|(_, made)| made).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn results_come_in_order_and_each_piece_is_counted() {
        let told = Mutex::new(BTreeSet::new());
        let watch = |done| {
            told.lock().unwrap().insert(done);
            ControlFlow::Continue(())
        };
        let squares = on_all_cores(1000, &watch, |piece| piece * piece).unwrap();
        assert_eq!(squares, (0..1000).map(|piece| piece * piece).collect::<Vec<u64>>());
        assert_eq!(told.into_inner().unwrap(), (1..=1000).collect());
        assert_eq!(on_all_cores(0, &|_| ControlFlow::Continue(()), |piece| piece), Some(Vec::new()));
    }

    #[test]
    fn who_watches_can_stop_it() {
        let worked = AtomicU64::new(0);
        let watch = |done| if done >= 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let made = on_all_cores(1_000_000, &watch, |_| worked.fetch_add(1, Ordering::Relaxed));
        assert!(made.is_none());
        assert!(worked.into_inner() < 10 + 2 * cores() as u64);
    }
}
