//! Which PINs digests are of: one pass over all PINs of a length, whatever the number of digests.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::cores::{Watch, on_all_cores};
use super::lanes::{Hasher, Width, Words, number, words};
use crate::domain::PinLength;

/// Between two looks at whether to go on: some milliseconds.
const BLOCKS: u64 = 10;

/// Digests, found by their first bits.
pub(super) struct Digests {
    /// In order, each once.
    all: Vec<Words>,
    /// Of each value of the first bits, where its digests begin; one more at the end.
    begins: Vec<u32>,
    shift: u32,
}

impl Digests {
    pub(super) fn new(digests: impl IntoIterator<Item = u128>) -> Digests {
        let mut all: Vec<Words> = digests.into_iter().map(words).collect();
        all.sort_unstable();
        all.dedup();
        // Four times as many places as digests: three of four looks end there.
        let bits = (all.len().max(1).ilog2() + 3).clamp(8, 22);
        let shift = 32 - bits;
        let mut begins = vec![0; (1 << bits) + 1];
        for digest in &all {
            begins[(digest[0] >> shift) as usize + 1] += 1;
        }
        for at in 1..begins.len() {
            begins[at] += begins[at - 1];
        }
        Digests { all, begins, shift }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    #[inline(always)]
    pub(super) fn has(&self, digest: Words) -> bool {
        let place = (digest[0] >> self.shift) as usize;
        let (begin, end) = (self.begins[place], self.begins[place + 1]);
        begin != end && self.all[begin as usize..end as usize].contains(&digest)
    }
}

/// Each PIN of this length whose digest is wanted, with that digest, on all cores; ends early once every digest is found.
/// `None` where it was stopped, and none where the length is more than 8.
pub(super) fn search(length: PinLength, wanted: &Digests, watch: Watch<'_>) -> Option<Vec<(u128, u64)>> {
    let Some(hasher) = Hasher::new(length, Width::widest()) else { return Some(Vec::new()) };
    let left = AtomicUsize::new(wanted.all.len());
    let piece = |piece: u64| {
        let mut found = Vec::new();
        if left.load(Ordering::Relaxed) == 0 {
            return found;
        }
        for block in piece * BLOCKS..hasher.blocks().min((piece + 1) * BLOCKS) {
            hasher.block(block, |pin, digest| {
                if wanted.has(digest) {
                    found.push((number(digest), pin));
                }
            });
        }
        left.fetch_sub(found.len(), Ordering::Relaxed);
        found
    };
    on_all_cores(hasher.blocks().div_ceil(BLOCKS), watch, piece).map(|found| found.concat())
}
