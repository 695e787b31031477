//! How long a node may take it that whoever leads takes it for alive. What a watchdog is fed by must be dated evidence of both directions:
//! a node that hears its leader and is not heard by it would feed for ever while others wait for its reset (ADR-0013).

use crate::heartbeat::PeerHealth;
use crate::leadership::Leadership;
use crm_quorum::Timing;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// For what rounding, timers and the daemon's own turn take, a meal that is a second late among it.
const SLACK: Duration = Duration::from_secs(2);

/// When the lease ends; `None` without a quorate leader that has heard us. `judged` is when the leadership was looked at.
pub(crate) fn ends(
    leadership: &Leadership,
    judged: Instant,
    peers: &BTreeMap<String, PeerHealth>,
    dead_after: Duration,
) -> Option<Instant> {
    if !leadership.quorate {
        return None;
    }
    let known = if leadership.me_leader {
        judged
    } else {
        let leader = leadership.leader.as_ref()?;
        peers.get(leader)?.heard_us?.min(judged)
    };
    Some(known + dead_after)
}

/// A leader that was replaced says for one dead interval at most that it has a quorum, we believe it for another one, and what we believe
/// is looked at within a third.
pub(crate) fn lag(timing: Timing) -> Duration {
    Duration::from_millis(timing.dead_after_ms) * 3 + SLACK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_counts_from_what_its_leader_has_heard_and_a_leader_from_its_own_last_look() {
        let (start, dead_after) = (Instant::now(), Duration::from_millis(900));
        let at = |ms| start + Duration::from_millis(ms);
        let peer = |heard_us| PeerHealth { alive: true, heard_us, ..PeerHealth::default() };
        let peers =
            BTreeMap::from([("a".to_owned(), peer(Some(at(100)))), ("b".to_owned(), peer(None))]);
        let follows = |name: &str| Leadership {
            leader: Some(name.to_owned()),
            quorate: true,
            ..Leadership::default()
        };
        let end = |l: &Leadership, judged| ends(l, at(judged), &peers, dead_after);
        assert_eq!(end(&follows("a"), 300), Some(at(1_000)));
        assert_eq!(
            end(&follows("a"), 50),
            Some(at(950)),
            "nobody has looked at the leadership since"
        );
        assert_eq!(end(&follows("b"), 300), None, "it hears us not");
        assert_eq!(end(&follows("c"), 300), None, "it is not known");
        let lost = Leadership { quorate: false, ..follows("a") };
        assert_eq!(end(&lost, 300), None);
        let leads = Leadership { me_leader: true, ..follows("me") };
        assert_eq!(end(&leads, 300), Some(at(1_200)));
    }
}
