//! The one place that reads our clock. Everything that decides takes the moment as an argument.

use crate::domain::Timestamp;

/// Now in UTC, whole seconds.
pub fn now() -> Timestamp {
    #[cfg(feature = "faults")]
    if let Some(told) = simulated::now() {
        return told;
    }
    Timestamp(chrono::Utc::now().timestamp())
}

#[cfg(feature = "faults")]
pub use simulated::on_this_thread;

/// For tests alone: another clock than this machine's.
#[cfg(feature = "faults")]
mod simulated {
    use std::cell::RefCell;

    use crate::domain::Timestamp;

    type Read = Box<dyn Fn() -> Timestamp>;

    thread_local! {
        static READ: RefCell<Option<Read>> = const { RefCell::new(None) };
    }

    /// From now on `read` is the clock of this thread; `None`: the machine's again.
    pub fn on_this_thread(read: Option<Read>) {
        READ.with(|slot| *slot.borrow_mut() = read);
    }

    pub(super) fn now() -> Option<Timestamp> {
        READ.with(|slot| slot.borrow().as_ref().map(|read| read()))
    }
}
