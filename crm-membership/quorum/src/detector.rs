//! Who is there: heartbeats in, deaths out. Fixed interval, fixed limit: detection time is predictable.
//!
//! A beat counts only when it repeats the number of our own incarnation (so a recording of an earlier
//! conversation proves nothing) and when its (incarnation, sequence) is newer than the last one.
//!
//! A peer has one or more links. Each carries beats of its own. A link is up while the beats that come over it say that
//! the peer hears us on it, too, and down after a few of these were missed; a peer is dead when nothing came over any
//! link for the dead interval. A copy that arrives by a slower
//! link than one sent later shows that its link is up, and nothing about the peer.

use crate::timing::Timing;
use std::collections::BTreeMap;

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
    /// The sender has lately heard us over this link: it carries both ways.
    pub hears_us: bool,
    /// Round-trip time over this link in microseconds, if the beat carries our own time back.
    pub rtt_us: Option<u64>,
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
    /// Not newer than what came before, but not old: it tells of its link, and that is all.
    Overtaken,
    /// Not newer than the last one on its link, or old, or of an older incarnation: ignored.
    Replayed,
    /// Not a peer of ours, or not a link of that peer.
    Unknown,
}

/// A link went up or down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkChange {
    /// The peer.
    pub peer: String,
    /// Its link, from 0.
    pub link: usize,
    /// Up now.
    pub up: bool,
}

/// What a tick found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tick {
    /// We ourselves were not running for so long that we accuse nobody this time.
    pub stalled: bool,
    /// Peers that died by this tick.
    pub died: Vec<String>,
    /// Peers that have been silent for three quarters of the dead interval; each is told once.
    pub late: Vec<String>,
    /// Links that went up or down since the last tick.
    pub links: Vec<LinkChange>,
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

/// A link, as seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkHealth {
    /// It carried both ways within the limit.
    pub up: bool,
    /// When something was last heard on it.
    pub heard_ms: Option<u64>,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u64>,
}

impl LinkHealth {
    /// As TCP does it (RFC 6298): each measurement moves the value by an eighth of the difference.
    fn measured(&mut self, rtt_us: u64) {
        self.rtt_us = Some(self.rtt_us.map_or(rtt_us, |old| old - old / 8 + rtt_us / 8));
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    health: LinkHealth,
    last: (u64, u64),
    /// When a beat on it last said that it carries both ways.
    both_ways_ms: Option<u64>,
    /// Whether the last tick said that it was up.
    told_up: bool,
}

#[derive(Debug, Clone, Default)]
struct Peer {
    health: Health,
    links: Vec<Link>,
    /// The newest beat of all links.
    last: (u64, u64),
    newest_incarnation: u64,
    told_late: bool,
    /// The newest beat at the last change of these two, and at the one before: what is not newer than the
    /// latter is old on any link.
    recent: (u64, u64),
    old: (u64, u64),
}

/// The failure detector of one node.
#[derive(Debug, Clone)]
pub struct Detector {
    timing: Timing,
    peers: BTreeMap<String, Peer>,
    ticked_ms: Option<u64>,
    aged_ms: u64,
    /// Until then the peers have time to be heard after we stalled.
    mercy_until_ms: u64,
}

impl Detector {
    /// A detector that knows nobody.
    #[must_use]
    pub const fn new(timing: Timing) -> Self {
        Self { timing, peers: BTreeMap::new(), ticked_ms: None, aged_ms: 0, mercy_until_ms: 0 }
    }

    /// Watches exactly these peers, each with its number of links; those already watched keep their history.
    pub fn watch(&mut self, peers: &BTreeMap<String, usize>) {
        self.peers.retain(|name, _| peers.contains_key(name));
        for (name, links) in peers {
            self.peers.entry(name.clone()).or_default().links.resize_with(*links, Link::default);
        }
    }

    /// Takes in one authentic beat that came over a link of the peer.
    pub fn heard(&mut self, now_ms: u64, name: &str, link: usize, beat: Beat) -> Heard {
        let Some(peer) = self.peers.get_mut(name) else { return Heard::Unknown };
        let Some(link) = peer.links.get_mut(link) else { return Heard::Unknown };
        let number = (beat.incarnation, beat.seq);
        if number <= link.last || number <= peer.old || beat.incarnation < peer.newest_incarnation {
            return Heard::Replayed;
        }
        peer.newest_incarnation = beat.incarnation;
        if !beat.knows_us {
            return Heard::Stranger;
        }
        link.last = number;
        link.health.heard_ms = Some(now_ms);
        if beat.hears_us {
            link.health.up = true;
            link.both_ways_ms = Some(now_ms);
        }
        if let Some(rtt_us) = beat.rtt_us {
            link.health.measured(rtt_us);
        }
        if number <= peer.last {
            return Heard::Overtaken;
        }
        // A peer that restarted within the limit has come back, too.
        let returned = !peer.health.alive || beat.incarnation != peer.last.0;
        peer.last = number;
        peer.told_late = false;
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

    /// The sequence of the newest beat of a peer that counted as a sign of life, of its present incarnation (0 = none).
    #[must_use]
    pub fn newest_of(&self, name: &str) -> u64 {
        let peer = self.peers.get(name).filter(|peer| peer.last.0 == peer.newest_incarnation);
        peer.map_or(0, |peer| peer.last.1)
    }

    /// Looks for the dead. Call it once per interval, after taking in every waiting beat.
    pub fn tick(&mut self, now_ms: u64) -> Tick {
        let gap = self.ticked_ms.map_or(0, |before| now_ms.saturating_sub(before));
        self.ticked_ms = Some(now_ms);
        if gap > self.timing.dead_after_ms / 2 {
            self.mercy_until_ms = now_ms.saturating_add(self.timing.link_down_ms);
            return Tick { stalled: true, ..Tick::default() };
        }
        let mut tick = Tick::default();
        let age = now_ms.saturating_sub(self.aged_ms) >= self.timing.link_down_ms;
        if age {
            self.aged_ms = now_ms;
        }
        let mercy = now_ms < self.mercy_until_ms;
        for (name, peer) in &mut self.peers {
            if age {
                peer.old = peer.recent;
                peer.recent = peer.last;
            }
            if !mercy {
                peer.judge(now_ms, &self.timing, name, &mut tick);
            }
            peer.tell_links(name, &mut tick);
        }
        tick
    }

    /// All peers, as seen.
    pub fn peers(&self) -> impl Iterator<Item = (&str, Health)> {
        self.peers.iter().map(|(name, peer)| (name.as_str(), peer.health))
    }

    /// The links of a peer, as seen, in their order; none when it is not watched.
    pub fn links(&self, name: &str) -> impl Iterator<Item = LinkHealth> {
        self.peers.get(name).into_iter().flat_map(|peer| peer.links.iter().map(|link| link.health))
    }
}

impl Peer {
    fn judge(&mut self, now_ms: u64, timing: &Timing, name: &str, tick: &mut Tick) {
        let silent = |heard: Option<u64>| heard.map_or(0, |heard| now_ms.saturating_sub(heard));
        for link in &mut self.links {
            link.health.up &= silent(link.both_ways_ms) < timing.link_down_ms;
        }
        if !self.health.alive {
            return;
        }
        let silent = silent(self.health.heard_ms);
        if silent >= timing.dead_after_ms {
            self.health.alive = false;
            tick.died.push(name.to_owned());
        } else if silent >= timing.late_after_ms && !self.told_late {
            self.told_late = true;
            tick.late.push(name.to_owned());
        }
    }

    fn tell_links(&mut self, name: &str, tick: &mut Tick) {
        for (index, link) in self.links.iter_mut().enumerate() {
            if link.told_up != link.health.up {
                link.told_up = link.health.up;
                let change = LinkChange { peer: name.to_owned(), link: index, up: link.told_up };
                tick.links.push(change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::Failover;

    fn detector() -> Detector {
        let mut detector = Detector::new(Failover::Normal.timing());
        detector.watch(&BTreeMap::from([("b".to_owned(), 2)]));
        detector
    }

    const fn beat(incarnation: u64, seq: u64) -> Beat {
        Beat {
            incarnation,
            seq,
            knows_us: true,
            session: 7,
            mode_hint: 1,
            hears_us: true,
            rtt_us: None,
        }
    }

    fn alive(detector: &Detector) -> bool {
        detector.peers().any(|(_, health)| health.alive)
    }

    #[test]
    fn silence_kills_after_the_limit_and_not_before() {
        let mut d = detector();
        assert_eq!(d.heard(0, "b", 0, beat(1, 1)), Heard::Returned);
        for now in (100..900).step_by(100) {
            assert_eq!(d.tick(now).died, Vec::<String>::new());
        }
        assert!(alive(&d));
        assert_eq!(d.tick(900).died, ["b"]);
        assert!(!alive(&d));
        assert_eq!(d.tick(1000).died, Vec::<String>::new());
        assert_eq!(d.heard(1150, "b", 0, beat(1, 2)), Heard::Returned);
    }

    #[test]
    fn replayed_beat_is_ignored() {
        let mut d = detector();
        d.heard(0, "b", 0, beat(5, 9));
        assert_eq!(d.heard(10, "b", 0, beat(5, 9)), Heard::Replayed);
        assert_eq!(d.heard(10, "b", 0, beat(5, 8)), Heard::Replayed);
        assert_eq!(d.heard(10, "b", 0, beat(4, 100)), Heard::Replayed);
        assert_eq!(d.heard(10, "b", 0, beat(5, 10)), Heard::Fresh);
        assert_eq!(d.heard(10, "b", 0, beat(6, 1)), Heard::Returned, "restarted");
    }

    #[test]
    fn beat_that_does_not_know_our_incarnation_proves_no_life() {
        let mut d = detector();
        let stranger = Beat { knows_us: false, ..beat(3, 1) };
        assert_eq!(d.heard(0, "b", 0, stranger), Heard::Stranger);
        assert!(!alive(&d));
        assert_eq!(d.incarnation_of("b"), 3);
        assert_eq!(d.heard(1, "b", 0, beat(3, 2)), Heard::Returned);
    }

    #[test]
    fn stalled_detector_accuses_nobody_in_that_round() {
        let mut d = detector();
        d.heard(0, "b", 0, beat(1, 1));
        d.tick(100);
        assert_eq!(d.tick(1700), Tick { stalled: true, ..Tick::default() });
        // And the peers get the time to be heard again: 4 beats.
        for now in [1800, 1900, 2000] {
            assert_eq!(d.tick(now).died, Vec::<String>::new());
        }
        assert_eq!(d.tick(2100).died, ["b"]);
    }

    fn links(detector: &Detector) -> String {
        detector.links("b").map(|link| if link.up { 'u' } else { 'd' }).collect()
    }

    #[test]
    fn a_link_goes_down_after_four_misses_and_the_peer_lives_on_the_other() {
        let mut d = detector();
        let change = |link, up| LinkChange { peer: "b".to_owned(), link, up };
        d.heard(0, "b", 0, beat(1, 1));
        d.heard(0, "b", 1, beat(1, 2));
        assert_eq!(d.tick(0).links, [change(0, true), change(1, true)]);
        for now in (100..2000).step_by(100) {
            d.heard(now, "b", 1, beat(1, now));
            let tick = d.tick(now);
            let expected = if now == 400 { vec![change(0, false)] } else { vec![] };
            assert_eq!(tick, Tick { links: expected, ..Tick::default() }, "at {now}");
            assert_eq!(links(&d), if now < 400 { "uu" } else { "du" });
        }
        assert_eq!(d.heard(2000, "b", 0, beat(1, 2000)), Heard::Fresh);
        assert_eq!(d.tick(2000).links, [change(0, true)]);
    }

    #[test]
    fn a_link_that_carries_one_way_is_down_and_keeps_the_peer_alive() {
        let mut d = detector();
        for now in (0..2000).step_by(100) {
            let one_way = Beat { hears_us: now < 500, ..beat(1, now + 1) };
            d.heard(now, "b", 0, one_way);
            let tick = d.tick(now);
            assert_eq!(tick.died, Vec::<String>::new());
            assert_eq!(links(&d), if now < 800 { "ud" } else { "dd" }, "at {now}");
            let down = tick.links.iter().any(|change| !change.up);
            assert_eq!(down, now == 800, "at {now}");
        }
        assert!(alive(&d));
        assert_eq!(d.links("b").next().unwrap().heard_ms, Some(1900));
    }

    #[test]
    fn a_copy_overtaken_on_another_link_shows_its_link_and_not_the_peer() {
        let mut d = detector();
        d.heard(0, "b", 0, beat(1, 10));
        assert_eq!(d.heard(50, "b", 1, beat(1, 9)), Heard::Overtaken);
        assert_eq!(d.heard(60, "b", 1, beat(1, 9)), Heard::Replayed);
        assert_eq!(links(&d), "uu");
        assert_eq!(d.peers().next().unwrap().1.heard_ms, Some(0));
        assert_eq!(d.heard(60, "b", 2, beat(1, 11)), Heard::Unknown, "there is no third link");
    }

    #[test]
    fn what_was_held_back_on_a_link_does_not_bring_the_link_up_later() {
        let mut d = detector();
        d.heard(0, "b", 1, beat(1, 1));
        for now in (100..3000).step_by(100) {
            d.heard(now, "b", 0, beat(1, now));
            d.tick(now);
        }
        assert_eq!(links(&d), "ud");
        assert_eq!(d.heard(3000, "b", 1, beat(1, 1000)), Heard::Replayed);
        assert_eq!(links(&d), "ud");
        assert_eq!(d.heard(3000, "b", 1, beat(1, 2899)), Heard::Overtaken);
        assert_eq!(links(&d), "uu");
    }

    #[test]
    fn a_beat_of_the_run_before_does_not_count_once_the_next_run_was_heard_of() {
        let mut d = detector();
        d.heard(0, "b", 0, beat(1, 1));
        assert_eq!(d.heard(10, "b", 0, Beat { knows_us: false, ..beat(2, 1) }), Heard::Stranger);
        assert_eq!(d.heard(20, "b", 1, beat(1, 2)), Heard::Replayed);
    }

    #[test]
    fn a_peer_is_late_once_at_three_quarters_of_the_limit() {
        let mut d = detector();
        d.heard(0, "b", 0, beat(1, 1));
        let late: Vec<u64> =
            (0..=850).step_by(50).filter(|t| !d.tick(*t).late.is_empty()).collect();
        assert_eq!(late, [700]);
        d.heard(850, "b", 0, beat(1, 2));
        let late: Vec<u64> =
            (900..1700).step_by(50).filter(|t| !d.tick(*t).late.is_empty()).collect();
        assert_eq!(late, [1550], "late again after it was heard");
    }

    #[test]
    fn round_trips_are_smoothed_per_link() {
        let mut d = detector();
        let rtt = |seq, rtt_us| Beat { rtt_us: Some(rtt_us), ..beat(1, seq) };
        d.heard(0, "b", 0, rtt(1, 800));
        d.heard(0, "b", 0, rtt(2, 1600));
        d.heard(0, "b", 1, beat(1, 3));
        let rtts: Vec<Option<u64>> = d.links("b").map(|link| link.rtt_us).collect();
        assert_eq!(rtts, [Some(900), None]);
    }

    #[test]
    fn beats_of_nodes_not_watched_are_unknown() {
        let mut d = detector();
        assert_eq!(d.heard(0, "z", 0, beat(1, 1)), Heard::Unknown);
        d.heard(0, "b", 0, beat(1, 1));
        d.watch(&BTreeMap::new());
        assert_eq!(d.peers().count(), 0);
    }
}
