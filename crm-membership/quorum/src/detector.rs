//! Who is there: heartbeats in, deaths out. Fixed interval, fixed limit: detection time is predictable.
//!
//! A beat counts only when it repeats the number of our own incarnation (so a recording of an earlier
//! conversation proves nothing) and when its (incarnation, sequence) is newer than the last one.

use std::collections::{BTreeMap, BTreeSet};

/// The two times of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two beats.
    pub interval_ms: u64,
    /// Silence after which a node is dead.
    pub dead_after_ms: u64,
}

/// One authentic heartbeat of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Counts up with each start of the sender.
    pub incarnation: u64,
    /// Counts up with each beat.
    pub seq: u64,
    /// The sender has heard us in our present incarnation.
    pub knows_us: bool,
    /// Session of the sender's daemon.
    pub session: u64,
    /// What the sender says of itself.
    pub mode_hint: u8,
}

/// What a beat meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// As expected.
    Fresh,
    /// The peer was dead (or new, or has restarted) and is alive now.
    Returned,
    /// It does not know us yet: answer it, count nothing.
    Stranger,
    /// Not newer than the last one, or of an older incarnation: ignored.
    Replayed,
    /// Not a peer of ours.
    Unknown,
}

/// What a tick found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tick {
    /// We ourselves were not running for so long that we accuse nobody this time.
    pub stalled: bool,
    /// Peers that died by this tick.
    pub died: Vec<String>,
}

/// A peer, as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Heard within the limit.
    pub alive: bool,
    /// Session of its daemon, from its last beat (0 = never heard).
    pub session: u64,
    /// What it says of itself.
    pub mode_hint: u8,
    /// When it was last heard.
    pub heard_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Peer {
    health: Health,
    last: (u64, u64),
    newest_incarnation: u64,
}

/// The failure detector of one node.
#[derive(Debug, Clone)]
pub struct Detector {
    timing: Timing,
    peers: BTreeMap<String, Peer>,
    ticked_ms: Option<u64>,
}

impl Detector {
    /// A detector that knows nobody.
    #[must_use]
    pub const fn new(timing: Timing) -> Self {
        Self { timing, peers: BTreeMap::new(), ticked_ms: None }
    }

    /// Watches exactly these peers; those already watched keep their history.
    pub fn watch(&mut self, names: &BTreeSet<String>) {
        self.peers.retain(|name, _| names.contains(name));
        for name in names {
            self.peers.entry(name.clone()).or_default();
        }
    }

    /// Takes in one authentic beat.
    pub fn heard(&mut self, now_ms: u64, name: &str, beat: Beat) -> Heard {
        let Some(peer) = self.peers.get_mut(name) else { return Heard::Unknown };
        if (beat.incarnation, beat.seq) <= peer.last {
            return Heard::Replayed;
        }
        peer.newest_incarnation = peer.newest_incarnation.max(beat.incarnation);
        if !beat.knows_us {
            return Heard::Stranger;
        }
        // A peer that restarted within the limit has come back, too.
        let returned = !peer.health.alive || beat.incarnation != peer.last.0;
        peer.last = (beat.incarnation, beat.seq);
        peer.health = Health {
            alive: true,
            session: beat.session,
            mode_hint: beat.mode_hint,
            heard_ms: Some(now_ms),
        };
        if returned { Heard::Returned } else { Heard::Fresh }
    }

    /// The incarnation of a peer, to repeat in our beats to it (0 = not heard yet).
    #[must_use]
    pub fn incarnation_of(&self, name: &str) -> u64 {
        self.peers.get(name).map_or(0, |peer| peer.newest_incarnation)
    }

    /// Looks for the dead. Call it once per interval, after taking in every waiting beat.
    pub fn tick(&mut self, now_ms: u64) -> Tick {
        let gap = self.ticked_ms.map_or(0, |before| now_ms.saturating_sub(before));
        self.ticked_ms = Some(now_ms);
        if gap > self.timing.dead_after_ms / 2 {
            return Tick { stalled: true, died: Vec::new() };
        }
        let mut died = Vec::new();
        for (name, peer) in &mut self.peers {
            let silent = peer.health.heard_ms.map_or(0, |heard| now_ms.saturating_sub(heard));
            if peer.health.alive && silent >= self.timing.dead_after_ms {
                peer.health.alive = false;
                died.push(name.clone());
            }
        }
        Tick { stalled: false, died }
    }

    /// All peers, as seen.
    pub fn peers(&self) -> impl Iterator<Item = (&str, Health)> {
        self.peers.iter().map(|(name, peer)| (name.as_str(), peer.health))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector() -> Detector {
        let mut detector = Detector::new(Timing { interval_ms: 100, dead_after_ms: 1000 });
        detector.watch(&BTreeSet::from(["b".to_owned()]));
        detector
    }

    const fn beat(incarnation: u64, seq: u64) -> Beat {
        Beat { incarnation, seq, knows_us: true, session: 7, mode_hint: 1 }
    }

    fn alive(detector: &Detector) -> bool {
        detector.peers().any(|(_, health)| health.alive)
    }

    #[test]
    fn silence_kills_after_the_limit_and_not_before() {
        let mut d = detector();
        assert_eq!(d.heard(0, "b", beat(1, 1)), Heard::Returned);
        for now in (100..1000).step_by(100) {
            assert_eq!(d.tick(now), Tick::default());
        }
        assert!(alive(&d));
        assert_eq!(d.tick(1000).died, ["b"]);
        assert!(!alive(&d));
        assert_eq!(d.tick(1100).died, Vec::<String>::new());
        assert_eq!(d.heard(1150, "b", beat(1, 2)), Heard::Returned);
    }

    #[test]
    fn replayed_beat_is_ignored() {
        let mut d = detector();
        d.heard(0, "b", beat(5, 9));
        assert_eq!(d.heard(10, "b", beat(5, 9)), Heard::Replayed);
        assert_eq!(d.heard(10, "b", beat(5, 8)), Heard::Replayed);
        assert_eq!(d.heard(10, "b", beat(4, 100)), Heard::Replayed);
        assert_eq!(d.heard(10, "b", beat(5, 10)), Heard::Fresh);
        assert_eq!(d.heard(10, "b", beat(6, 1)), Heard::Returned, "restarted");
    }

    #[test]
    fn beat_that_does_not_know_our_incarnation_proves_no_life() {
        let mut d = detector();
        let stranger = Beat { knows_us: false, ..beat(3, 1) };
        assert_eq!(d.heard(0, "b", stranger), Heard::Stranger);
        assert!(!alive(&d));
        assert_eq!(d.incarnation_of("b"), 3);
        assert_eq!(d.heard(1, "b", beat(3, 2)), Heard::Returned);
    }

    #[test]
    fn stalled_detector_accuses_nobody_in_that_round() {
        let mut d = detector();
        d.heard(0, "b", beat(1, 1));
        d.tick(100);
        assert_eq!(d.tick(1700), Tick { stalled: true, died: Vec::new() });
        assert_eq!(d.tick(1800).died, ["b"]);
    }

    #[test]
    fn beats_of_nodes_not_watched_are_unknown() {
        let mut d = detector();
        assert_eq!(d.heard(0, "z", beat(1, 1)), Heard::Unknown);
        d.heard(0, "b", beat(1, 1));
        d.watch(&BTreeSet::new());
        assert_eq!(d.peers().count(), 0);
    }
}
