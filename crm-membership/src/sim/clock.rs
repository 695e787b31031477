//! The clocks of the nodes. Each simulated host has a paused tokio runtime of its own, and everything that consensus and the leadership read
//! (openraft's instants and timers, `tokio::time::Instant`) is its clock: whoever advances it from inside moves that host's time and no other's.

use super::Dice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Hundredths: the whole of a millisecond of true time.
const WHOLE: u64 = 100;

/// A host's monotonic clock. It never runs slower than true time; a clock that is slow is one beside which all the others are fast.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Milliseconds that it has to leap forward.
    leap: AtomicU64,
    /// By how many hundredths it is too fast.
    excess: AtomicU64,
    /// Milliseconds that it was moved forward in all.
    ahead: AtomicU64,
}

impl Clock {
    /// As after the suspension of a virtual machine: all timers are due at once.
    pub(super) fn leap(&self, ms: u64) {
        self.leap.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn too_fast_by(&self, hundredths: u64) {
        self.excess.store(hundredths, Ordering::Relaxed);
    }

    /// How far it was moved forward since the run began.
    pub(super) fn ahead(&self) -> u64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Turns the clock of the runtime that polls this, for one life of the host.
    pub(super) async fn turn(self: Arc<Self>) {
        self.leap.store(0, Ordering::Relaxed);
        let mut hundredths = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            hundredths += self.excess.load(Ordering::Relaxed);
            let ms = hundredths / WHOLE + self.leap.swap(0, Ordering::Relaxed);
            hundredths %= WHOLE;
            if ms > 0 {
                self.ahead.fetch_add(ms, Ordering::Relaxed);
                tokio::time::advance(Duration::from_millis(ms)).await;
            }
        }
    }
}

/// 0.1 to 10 s, short ones as often as long ones.
pub(super) fn leap(dice: &mut Dice) -> u64 {
    let decade = if dice.below(2) == 0 { 100 } else { 1_000 };
    decade + dice.below(9 * decade + 1)
}
