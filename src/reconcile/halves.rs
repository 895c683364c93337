//! A batch that the database refuses is halved, down to the one at fault: it alone fails (I7).

use tracing::debug;

use crate::store::StoreError;

/// Halving finds the one row that somebody has locked; where there are many, each would be waited for.
const MOST_LOCKED: u32 = 12;

/// What of a batch is still to be tried.
pub(super) struct Halves<T> {
    waiting: Vec<Vec<T>>,
    locked: u32,
}

impl<T: Clone> Halves<T> {
    pub(super) fn of(batch: Vec<T>) -> Halves<T> {
        Halves { waiting: vec![batch], locked: 0 }
    }

    pub(super) fn next(&mut self) -> Option<Vec<T>> {
        self.waiting.pop()
    }

    /// The same is to be tried again, perhaps without some.
    pub(super) fn again(&mut self, batch: Vec<T>) {
        self.waiting.push(batch);
    }

    /// The database refused these. `Some`: the one at fault.
    ///
    /// # Errors
    /// With too many rows that are locked it is no single one that is at fault.
    pub(super) fn refused(&mut self, batch: &[T], error: StoreError) -> Result<Option<(T, StoreError)>, StoreError> {
        let locked = error.kind() == "lock_timeout";
        if locked && self.locked == MOST_LOCKED {
            return Err(error);
        }
        match batch {
            [] => Ok(None),
            [only] => Ok(Some((only.clone(), error))),
            several => {
                self.locked += u32::from(locked);
                debug!(users = several.len(), error.kind = error.kind(), "The database refused a batch; trying its halves");
                let (left, right) = several.split_at(several.len() / 2);
                self.waiting.extend([right.to_vec(), left.to_vec()]);
                Ok(None)
            }
        }
    }
}
