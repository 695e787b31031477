//! Laws of the failure detector: no false accusation, no missed death, no life from recordings.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use crm_quorum::{Beat, Detector, Failover, Heard, Timing};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LINKS: usize = 3;

fn timing() -> impl Strategy<Value = Timing> {
    prop_oneof![Just(Failover::Fast), Just(Failover::Normal), Just(Failover::Wan)]
        .prop_map(Failover::timing)
}

fn watching(timing: Timing) -> Detector {
    let mut detector = Detector::new(timing);
    detector.watch(&BTreeMap::from([("b".to_owned(), LINKS)]));
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
    detector.peers().next().unwrap().1.alive
}

proptest! {
    /// Beats come at any moment (gaps in thousandths of the limit), each over any link; ticks are irregular.
    #[test]
    fn who_is_heard_within_the_limit_on_any_link_is_never_accused(
        timing in timing(),
        gaps in prop::collection::vec((0u64..1000, 0..LINKS), 1..60),
        jitter in prop::collection::vec(500u64..3000, 1..20),
    ) {
        let mut detector = watching(timing);
        detector.heard(0, "b", 0, beat(1, 1));
        let (mut heard, mut tick, mut paces) = (0, 0, jitter.iter().cycle());
        for (seq, (gap, link)) in (2..).zip(gaps) {
            let next = heard + gap * (timing.dead_after_ms - 1) / 1000;
            while tick <= next {
                let found = detector.tick(tick);
                prop_assert!(found.died.is_empty() && !found.stalled, "at {tick}: {found:?}");
                tick += paces.next().unwrap() * timing.interval_ms / 1000;
            }
            heard = next;
            prop_assert_eq!(detector.heard(heard, "b", link, beat(1, seq)), Heard::Fresh);
        }
    }

    #[test]
    fn who_is_silent_is_dead_within_the_limit_and_one_tick(
        timing in timing(),
        before in prop::collection::vec((1u64..1000, 0..LINKS), 0..20),
        offset in 0u64..400,
    ) {
        let mut detector = watching(timing);
        let mut last = 0;
        detector.heard(0, "b", 0, beat(1, 1));
        for (seq, (gap, link)) in (2..).zip(before) {
            last += gap % timing.interval_ms;
            detector.heard(last, "b", link, beat(1, seq));
        }
        let mut now = last + offset % timing.interval_ms;
        let died = loop {
            let tick = detector.tick(now);
            if !tick.died.is_empty() || now > last + 2 * timing.dead_after_ms {
                break now;
            }
            now += timing.interval_ms;
        };
        prop_assert!(died >= last + timing.dead_after_ms, "too early, at {died}");
        prop_assert!(died <= last + timing.dead_after_ms + timing.interval_ms, "too late, at {died}");
        prop_assert!(!alive(&detector) && detector.links("b").all(|link| !link.up));
    }

    /// Whatever was lost while we stood still: nobody is accused in that round, nor before the peers had the
    /// time to be heard; a peer that is heard then never is.
    #[test]
    fn a_stalled_observer_accuses_nobody(timing in timing(), stall in 1u64..100_000, lives in any::<bool>()) {
        let mut detector = watching(timing);
        let mut now = 0;
        for seq in 1..20 {
            now += timing.interval_ms;
            detector.heard(now, "b", 0, beat(1, seq));
            detector.tick(now);
        }
        now += timing.dead_after_ms / 2 + stall;
        let tick = detector.tick(now);
        prop_assert!(tick.stalled && tick.died.is_empty() && tick.late.is_empty() && tick.links.is_empty());
        let woke = now;
        for seq in 20..40 {
            now += timing.interval_ms;
            if lives && now >= woke + 3 * timing.interval_ms {
                detector.heard(now, "b", 1, beat(1, seq));
            }
            let tick = detector.tick(now);
            prop_assert!(!tick.stalled);
            prop_assert!(tick.died.is_empty() || (!lives && now >= woke + timing.link_down_ms));
        }
        prop_assert_eq!(alive(&detector), lives);
    }

    /// The network may repeat, hold back and reorder what a peer sent; once the peer is dead, nothing that was
    /// delivered before, or is of an earlier run than one heard of, brings it back or brings a link up.
    #[test]
    fn recordings_revive_nobody(
        timing in timing(),
        sent in prop::collection::vec((1u64..4, 1u64..30, 0..LINKS, any::<bool>()), 1..40),
        replays in prop::collection::vec((0usize..40, 0..LINKS), 1..60),
    ) {
        let mut detector = watching(timing);
        let mut heard = Vec::new();
        let mut now = 0;
        for (incarnation, seq, link, knows_us) in sent {
            now += timing.interval_ms / 2;
            let beat = Beat { knows_us, ..beat(incarnation, seq) };
            if detector.heard(now, "b", link, beat) != Heard::Replayed {
                heard.push((link, beat));
            }
            detector.tick(now);
        }
        for _ in 0..20 {
            now += timing.interval_ms;
            detector.tick(now);
        }
        prop_assert!(!alive(&detector));
        let newest = detector.incarnation_of("b");
        for (which, link) in replays {
            now += timing.interval_ms / 4;
            let (_, beat) = heard[which % heard.len()];
            let meant = detector.heard(now, "b", link, beat);
            let inert = matches!(meant, Heard::Replayed | Heard::Stranger);
            prop_assert!(inert || beat.incarnation == newest, "{beat:?} of an earlier run: {meant:?}");
            let tick = detector.tick(now);
            prop_assert!(!alive(&detector), "{beat:?} on link {link}: {meant:?}");
            prop_assert!(tick.links.is_empty(), "{:?}", tick.links);
        }
    }
}

/// A beat with a new incarnation is not a recording.
#[test]
fn a_new_run_of_a_dead_peer_revives_it() {
    let mut detector = watching(Failover::Fast.timing());
    assert_eq!(detector.heard(0, "b", 0, beat(1, 5)), Heard::Returned);
    let deaths: BTreeSet<u64> =
        (0..40).map(|n| n * 50).filter(|now| !detector.tick(*now).died.is_empty()).collect();
    assert_eq!(deaths, BTreeSet::from([450]));
    assert_eq!(detector.heard(2000, "b", 1, beat(2, 1)), Heard::Returned);
    assert!(alive(&detector));
}
