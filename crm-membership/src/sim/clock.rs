//! The clocks of the nodes. Each simulated host has a paused tokio runtime of its own, and everything that consensus and the leadership read
//! (openraft's instants and timers, `tokio::time::Instant`) is its clock: whoever advances it from inside moves that host's time and no other's.

use super::Dice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// Hundredths: the whole of a millisecond of true time.
const WHOLE: u64 = 100;

/// A host's monotonic clock. It never runs slower than true time; a clock that is slow is one beside which all the others are fast.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// True time, in milliseconds.
    now: AtomicU64,
    /// Milliseconds that it has to leap forward.
    leap: AtomicU64,
    /// By how many hundredths it is too fast.
    excess: AtomicU64,
    /// What it shows, in milliseconds since this life of the host began.
    own: AtomicU64,
}

impl Clock {
    /// It is so many milliseconds after the run began.
    pub(super) fn now(&self, ms: u64) {
        self.now.store(ms, Ordering::Relaxed);
    }

    /// As after the suspension of a virtual machine: all timers are due at once.
    pub(super) fn leap(&self, ms: u64) {
        self.leap.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn too_fast_by(&self, hundredths: u64) {
        self.excess.store(hundredths, Ordering::Relaxed);
    }

    /// What it shows, in milliseconds since this life of the host began.
    pub(super) fn own(&self) -> u64 {
        self.own.load(Ordering::Relaxed)
    }

    /// Turns the clock of the runtime that polls this, for one life of the host. What it shows is read off it, not reckoned: turmoil ends a host's
    /// millisecond when the host's clock says so, and a clock that is moved within that millisecond has moved by less in all than by the sum.
    pub(super) async fn turn(self: Arc<Self>) {
        self.leap.store(0, Ordering::Relaxed);
        let began = Instant::now();
        let (mut seen, mut due) = (self.now.load(Ordering::Relaxed), 0);
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = self.now.load(Ordering::Relaxed);
            due += (now - seen) * (WHOLE + self.excess.load(Ordering::Relaxed));
            due += self.leap.swap(0, Ordering::Relaxed) * WHOLE;
            seen = now;
            let lacks = Duration::from_millis(due / WHOLE).saturating_sub(began.elapsed());
            if !lacks.is_zero() {
                tokio::time::advance(lacks).await;
            }
            let own = u64::try_from(began.elapsed().as_millis()).expect("a run takes minutes");
            self.own.store(own, Ordering::Relaxed);
        }
    }
}

/// 0.1 to 10 s, short ones as often as long ones.
pub(super) fn leap(dice: &mut Dice) -> u64 {
    let decade = if dice.below(2) == 0 { 100 } else { 1_000 };
    decade + dice.below(9 * decade + 1)
}

#[cfg(test)]
mod tests {
    use super::{Arc, Clock, Duration};

    /// What the clock of a host shows after a second, told and read by itself.
    fn after_a_second(excess: u64, leap: u64) -> (u64, u64) {
        let mut sim = turmoil::Builder::new().tick_duration(Duration::from_millis(1)).build();
        let (clock, read) = (Arc::new(Clock::default()), Arc::new(std::sync::Mutex::new(0)));
        clock.too_fast_by(excess);
        let (of_host, tell) = (Arc::clone(&clock), Arc::clone(&read));
        sim.host("one", move || {
            let (clock, read) = (Arc::clone(&of_host), Arc::clone(&tell));
            async move {
                let began = tokio::time::Instant::now();
                tokio::spawn(clock.turn());
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    *read.lock().unwrap() = u64::try_from(began.elapsed().as_millis()).unwrap();
                }
            }
        });
        for ms in 1..=1_000 {
            if ms == 500 {
                clock.leap(leap);
            }
            clock.now(ms);
            sim.step().unwrap();
        }
        let read = *read.lock().unwrap();
        (clock.own(), read)
    }

    #[test]
    fn a_clock_is_as_fast_as_it_is_told_to_be() {
        for (excess, leap, want) in
            [(0, 0, 1_000), (10, 0, 1_100), (35, 0, 1_350), (100, 0, 2_000), (50, 700, 2_200)]
        {
            let (told, read) = after_a_second(excess, leap);
            assert!(told.abs_diff(want) <= 10, "{told} ms, not {want}");
            assert!(told.abs_diff(read) <= 3, "it shows {read} ms and says {told}");
        }
    }
}
