//! What the client counts.

use serde::{Deserialize, Serialize};

/// A time without acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gap {
    /// Length in milliseconds.
    pub ms: u64,
    /// Number of the record that waited.
    pub record: u64,
}

/// How the client's work goes, or how it went.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Records sent at least once.
    pub written: u64,
    /// Records acknowledged as stable.
    pub acknowledged: u64,
    /// Records sent again: no answer, connection lost, or the server asked for patience.
    pub retried: u64,
    /// Connections made.
    pub connections: u64,
    /// File handles found stale and looked up again.
    pub stale: u64,
    /// Answers that a program on a hard mount would have seen as an error.
    pub errors: u64,
    /// The last trouble in words.
    pub last_error: String,
    /// Records read back at random while writing, and found right.
    pub sampled: u64,
    /// Longest time between two acknowledgements since the last mark; includes the time that is running now.
    pub gap: Gap,
    /// As `gap`, since the start.
    pub longest: Gap,
    /// Milliseconds since the last acknowledgement.
    pub waiting_ms: u64,
    /// Acknowledgements in the last second.
    pub rate: u64,
    /// After `Finish`: acknowledged records found intact.
    pub found: u64,
    /// After `Finish`: numbers of acknowledged records that are missing or changed, at most 20 of them.
    pub lost: Vec<u64>,
    /// After `Finish`: done.
    pub finished: bool,
}

impl Tally {
    /// Nothing lost, nothing changed, no error seen.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors == 0
            && self.lost.is_empty()
            && (!self.finished || self.found == self.acknowledged)
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let trouble = if self.last_error.is_empty() || self.waiting_ms < 300 {
            String::new()
        } else {
            format!("  ({})", self.last_error)
        };
        format!(
            "{:>4}/s  acknowledged {}  retried {}  errors {}  gap {} ms  longest {} ms{trouble}",
            self.rate, self.acknowledged, self.retried, self.errors, self.gap.ms, self.longest.ms
        )
    }
}
