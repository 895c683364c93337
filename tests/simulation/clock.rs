//! Time: the runtime's, which goes on by itself when all wait, and the machine's clock beside it, which jumps.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use credkeeper::domain::Timestamp;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// When each schedule begins.
const START: i64 = 1_750_000_000;

/// Clones show the same time.
#[derive(Clone, Default)]
pub struct Clock(Rc<Hands>);

#[derive(Default)]
struct Hands {
    /// What had passed when the process in hand began.
    before: Cell<Duration>,
    begun: Cell<Option<Instant>>,
    jumped: Cell<i64>,
    /// By how much it was set back, in all.
    back: Cell<u64>,
}

impl Clock {
    /// How much time has passed; never goes back.
    pub fn now(&self) -> Duration {
        let hands = &self.0;
        let since = hands.begun.get().filter(|_| Handle::try_current().is_ok()).map(|begun| Instant::now() - begun);
        hands.before.get() + since.unwrap_or_default()
    }

    /// What the machine says.
    pub fn wall(&self) -> Timestamp {
        Timestamp(START + self.now().as_secs().cast_signed() + self.0.jumped.get())
    }

    pub fn jump(&self, seconds: i64) {
        self.0.jumped.set(self.0.jumped.get() + seconds);
        if seconds < 0 {
            self.0.back.set(self.0.back.get() + seconds.unsigned_abs());
        }
    }

    pub fn set_back(&self) -> Duration {
        Duration::from_secs(self.0.back.get())
    }

    /// Within a runtime, whose time counts from now on.
    pub fn go(&self) {
        self.0.begun.set(Some(Instant::now()));
    }

    /// Within the same: it stands still.
    pub fn halt(&self) {
        self.0.before.set(self.now());
        self.0.begun.set(None);
    }
}
