//! All times of failure detection and of raft from one knob.

use serde::{Deserialize, Serialize};

/// How fast failures are noticed. The one knob; everything in [`Timing`] follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Failover {
    /// Dead after 0.5 s; for a quiet network of its own.
    Fast,
    /// Dead after 1 s.
    #[default]
    Normal,
    /// Dead after 4 s; for links that lose or delay.
    Wan,
}

/// Beats that may be missed on a link before it is down.
const MISSES: u64 = 4;

/// Times in milliseconds. `raft_heartbeat_ms` < `election_min_ms` < `election_max_ms` <= `dead_after_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two beats on a link.
    pub interval_ms: u64,
    /// Silence after which a link is down.
    pub link_down_ms: u64,
    /// Silence on all links after which a node is late: worth a warning (like Corosync's `token_warning`).
    pub late_after_ms: u64,
    /// Silence on all links after which a node is dead.
    pub dead_after_ms: u64,
    /// Between two heartbeats of the raft leader.
    pub raft_heartbeat_ms: u64,
    /// Shortest silence of the leader after which a raft member wants an election.
    pub election_min_ms: u64,
    /// Longest of these.
    pub election_max_ms: u64,
    /// How long a leader may count on having been confirmed by a majority.
    pub lease_ms: u64,
}

impl Failover {
    /// The times. The ratios are the same for all three: 9 beats to death, 4 to a link's, 3 to 4 to an
    /// election (measured for openraft; see design/membership.md 2.2).
    #[must_use]
    pub const fn timing(self) -> Timing {
        let interval_ms = match self {
            Self::Fast => 50,
            Self::Normal => 100,
            Self::Wan => 400,
        };
        let dead_after_ms = 9 * interval_ms;
        Timing {
            interval_ms,
            link_down_ms: MISSES * interval_ms,
            late_after_ms: dead_after_ms * 3 / 4,
            dead_after_ms,
            raft_heartbeat_ms: interval_ms,
            election_min_ms: 3 * interval_ms,
            election_max_ms: 4 * interval_ms,
            lease_ms: 4 * interval_ms,
        }
    }
}

impl Timing {
    /// All values for a person: name, milliseconds, meaning.
    #[must_use]
    pub const fn rows(&self) -> [(&'static str, u64, &'static str); 9] {
        [
            ("heartbeat", self.interval_ms, "between two heartbeats on each link"),
            ("link-down", self.link_down_ms, "silence after which a link is down"),
            ("late", self.late_after_ms, "silence on all links that is warned about"),
            ("node-dead", self.dead_after_ms, "silence on all links after which a node is dead"),
            (
                "noticed",
                self.dead_after_ms + self.interval_ms,
                "death is noticed after this at the latest",
            ),
            ("raft-heartbeat", self.raft_heartbeat_ms, "between two heartbeats of the leader"),
            (
                "election-min",
                self.election_min_ms,
                "shortest silence of the leader before an election",
            ),
            (
                "election-max",
                self.election_max_ms,
                "longest silence of the leader before an election",
            ),
            ("lease", self.lease_ms, "how long a leader trusts its last majority"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_every_setting_is_shown() {
        let shown = |failover: Failover| -> Vec<String> {
            failover.timing().rows().iter().map(|(name, ms, _)| format!("{name} {ms}")).collect()
        };
        let table = [
            "heartbeat 50 100 400",
            "link-down 200 400 1600",
            "late 337 675 2700",
            "node-dead 450 900 3600",
            "noticed 500 1000 4000",
            "raft-heartbeat 50 100 400",
            "election-min 150 300 1200",
            "election-max 200 400 1600",
            "lease 200 400 1600",
        ];
        let all = [Failover::Fast, Failover::Normal, Failover::Wan].map(shown);
        for (index, row) in table.iter().enumerate() {
            let words: Vec<&str> = row.split(' ').collect();
            for (column, failover) in all.iter().enumerate() {
                assert_eq!(failover[index], format!("{} {}", words[0], words[column + 1]));
            }
        }
        assert_eq!(all[0].len(), table.len());
    }
}
