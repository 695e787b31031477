//! Who leads and whether a quorum stands behind it, from evidence with a date: a leader's quorum
//! acknowledgements, a follower's last sign of a quorate leader. Raft's `current_leader` and
//! `state == Leader` outlive their truth and are never used alone (design/membership.md 2.3).

use crate::consensus::{Metrics, Raft, voters_of};
use crate::site::{LeaderSign, Site};
use crate::succession::Succession;
use crm_quorum::Timing;
use crm_quorum::takeover::{Event, Service, Voters};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{Instant as _, ServerState};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

/// What this node knows of the leadership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Name of the leader, when there is fresh evidence of one.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// A quorum stood behind the leader we follow (or are) within the dead interval.
    pub quorate: bool,
    /// We lead, and by our clock a quorum acknowledged it within raft's lease. Where clocks are equal and no voter has restarted since,
    /// nobody else leads. Else another node may lead a later term already, while we say so for the lease and a moment more by our own
    /// clock: nothing is committed by it, and nothing may rest on it that is not refused by its term.
    pub me_leader: bool,
    /// The others have gone on without this node: it has to stop what it runs.
    pub stale: bool,
    /// Names of the members that vote; one that has just joined is not among them
    /// until its promotion is complete.
    pub voters: BTreeSet<String>,
}

/// A timer's grain: at the end itself what ends is still fresh.
const TURN: Duration = Duration::from_millis(1);
/// Intervals after which the leadership is looked at again in any case: [`crate::lease`] counts from the last look.
const LOOK_EVERY: u32 = 3;

/// One look at raft.
#[derive(Debug, Clone, Copy)]
struct View {
    me: u64,
    term: u64,
    leads: bool,
    /// We are the only voter, committed.
    alone: bool,
    acked: Option<Instant>,
    sign: Option<LeaderSign>,
}

impl View {
    fn of(metrics: &Metrics, sign: Option<LeaderSign>) -> Self {
        let alone_in = |membership: &crate::consensus::StoredMembership| {
            membership.membership().voter_ids().eq([metrics.id])
        };
        Self {
            me: metrics.id,
            term: metrics.current_term,
            leads: metrics.state == ServerState::Leader,
            alone: alone_in(&metrics.membership_config)
                && alone_in(&metrics.committed_membership_config),
            acked: metrics
                .last_quorum_acked
                .and_then(|at| Instant::now().checked_sub(at.elapsed())),
            sign,
        }
    }
}

/// Judges views; remembers when a quorum was last proved, so that a change of leader does not look like
/// a loss of quorum.
#[derive(Debug)]
struct Judge {
    timing: Timing,
    proof: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Judgement {
    leader: Option<u64>,
    me_leader: bool,
    quorate: bool,
    /// When time alone changes this, unless there is news before.
    until: Option<Instant>,
}

impl Judge {
    fn judge(&mut self, now: Instant, view: &View) -> Judgement {
        let fresh = |at: Instant, limit: Duration| now.saturating_duration_since(at) <= limit;
        let lease = Duration::from_millis(self.timing.lease_ms);
        let acked = if view.leads && view.alone { Some(now) } else { view.acked };
        let acked = acked.filter(|_| view.leads);
        let me_leader = acked.is_some_and(|at| fresh(at, lease));
        let dead_after = Duration::from_millis(self.timing.dead_after_ms);
        let sign = view.sign.filter(|s| s.term == view.term && !view.leads);
        let followed = sign.filter(|s| s.quorate && fresh(s.at, dead_after));
        let proofs = [self.proof, acked, followed.map(|s| s.at)];
        self.proof = proofs.into_iter().flatten().max();
        let ends = [
            acked.map(|at| at + lease),
            followed.map(|sign| sign.at + dead_after),
            self.proof.map(|at| at + dead_after),
        ];
        let coming = ends.into_iter().flatten().filter(|end| *end >= now);
        Judgement {
            until: coming.min().map(|end| end + TURN),
            leader: if me_leader { Some(view.me) } else { followed.map(|s| s.raft_id) },
            me_leader,
            quorate: self.proof.is_some_and(|at| fresh(at, dead_after)),
        }
    }
}

/// What the takeover is told of raft.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    leads: bool,
    quorate: bool,
    effective: Voters,
    committed: Voters,
}

impl Facts {
    fn of(metrics: &Metrics, judgement: Judgement) -> Self {
        Self {
            leads: judgement.me_leader,
            quorate: judgement.quorate,
            effective: voters_of(&metrics.membership_config),
            committed: voters_of(&metrics.committed_membership_config),
        }
    }

    fn tell(&self, succession: &Succession) {
        let (effective, committed) = (self.effective.clone(), self.committed.clone());
        succession.handle(Event::Voters { effective, committed });
        succession.handle(Event::Leadership { leads: self.leads, quorate: self.quorate });
    }
}

/// Watches raft and tells `tell` what changes; ends with raft.
pub(crate) async fn watch_over(
    raft: Raft,
    site: Arc<Site>,
    tell: watch::Sender<Leadership>,
    failure: watch::Sender<Option<String>>,
) {
    let timing = site.settings.profile.timing();
    let mut judge = Judge { timing, proof: None };
    let (mut metrics, mut server) = (raft.metrics(), raft.server_metrics());
    let mut signs = site.leader_sign.subscribe();
    let mut briefs = site.succession.briefs();
    let mut told = None;
    let look_every = Duration::from_millis(timing.interval_ms) * LOOK_EVERY;
    let mut look = Instant::now();
    loop {
        // With a leader that is quorate raft's other news, which come with each of its heartbeats, can wait until what is known grows old:
        // they would only say that it is not old yet. The same goes for the signs of a leader that is known.
        let settled = tell.borrow().quorate && tell.borrow().leader.is_some();
        let ended = tokio::select! {
            biased;
            change = server.changed() => change.is_err(),
            change = metrics.changed(), if !settled => change.is_err(),
            change = signs.changed(), if !settled => change.is_err(),
            change = briefs.changed() => change.is_err(),
            () = tokio::time::sleep_until(look) => false,
        };
        let seen = metrics.borrow_watched().clone();
        match &seen.running_state {
            Ok(()) => {}
            Err(Fatal::Stopped) => break,
            Err(fatal) => {
                tracing::error!(%fatal, "consensus has stopped: this daemon must be restarted");
                failure.send_replace(Some(fatal.to_string()));
                break;
            }
        }
        site.learn(&seen);
        let view = View::of(&seen, *signs.borrow_and_update());
        let mut judgement = judge.judge(Instant::now(), &view);
        let again = Instant::now() + look_every;
        look = judgement.until.map_or(again, |end| end.min(again));
        let facts = Facts::of(&seen, judgement);
        if told.as_ref() != Some(&facts) {
            facts.tell(&site.succession);
            told = Some(facts);
        }
        let brief = *briefs.borrow_and_update();
        if brief.service != Service::Full {
            // A ghost's votes make a leader, not a quorum; nor is it one if it rests on our former self.
            judgement = Judgement { leader: None, me_leader: false, quorate: false, ..judgement };
        }
        site.leading.store(judgement.me_leader, Ordering::Release);
        let next = Leadership {
            leader: judgement.leader.and_then(|id| site.name_of(id)),
            term: view.term,
            quorate: judgement.quorate,
            me_leader: judgement.me_leader,
            stale: brief.stale,
            voters: voters(&seen),
        };
        tell.send_if_modified(|shown| {
            let news = *shown != next;
            if news {
                tracing::info!(leader = ?next.leader, term = next.term, quorate = next.quorate, "leadership");
                *shown = next;
            }
            news
        });
        *site.judged.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if ended {
            break;
        }
    }
    site.leading.store(false, Ordering::Release);
    tell.send_replace(Leadership::default());
}

/// Sends raft's heartbeats while this node leads. Raft itself would look five times in an interval, on each node, whether one is due: half of
/// what an idle node did.
pub(crate) async fn pulse(raft: Raft, every: Duration) {
    let mut server = raft.server_metrics();
    let mut pace = tokio::time::interval(every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Whoever has just been elected has sent something already.
        pace.reset();
        while server.borrow_watched().state == ServerState::Leader {
            let go_on = tokio::select! {
                biased;
                change = server.changed() => change.is_ok(),
                _ = pace.tick() => raft.trigger().heartbeat().await.is_ok(),
            };
            if !go_on {
                return;
            }
        }
        if server.changed().await.is_err() {
            return;
        }
    }
}

/// Names of the voters of the committed membership. While it changes: of those that vote before and
/// after.
fn voters(metrics: &Metrics) -> BTreeSet<String> {
    let membership = metrics.committed_membership_config.membership();
    let votes = |id: &u64| membership.get_joint_config().iter().all(|voters| voters.contains(id));
    let nodes = membership.nodes().filter(|(id, _)| votes(id));
    nodes.map(|(_, peer)| peer.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crm_quorum::Failover;

    fn view(now: Instant) -> View {
        View { me: 1, term: 5, leads: false, alone: false, acked: None, sign: None }
            .with_sign(now, true)
    }

    impl View {
        fn with_sign(self, at: Instant, quorate: bool) -> Self {
            let sign = Some(LeaderSign { raft_id: 2, term: self.term, at, quorate });
            Self { sign, ..self }
        }
    }

    fn judge() -> Judge {
        Judge { timing: Failover::Normal.timing(), proof: None }
    }

    #[test]
    fn leader_without_acknowledgement_is_no_leader() {
        let now = Instant::now();
        let leads = View { leads: true, sign: None, ..view(now) };
        let verdict = judge().judge(now, &leads);
        let none = Judgement { leader: None, me_leader: false, quorate: false, until: None };
        assert_eq!(verdict, none);
    }

    #[test]
    fn lease_ends_before_quorum_does() {
        let start = Instant::now();
        let leads = View { leads: true, sign: None, acked: Some(start), ..view(start) };
        let mut judge = judge();
        let at = |ms| start + Duration::from_millis(ms);
        let seen: Vec<(bool, bool)> = [0, 400, 401, 900, 901]
            .map(|ms| judge.judge(at(ms), &leads))
            .iter()
            .map(|j| (j.me_leader, j.quorate))
            .collect();
        let want = [(true, true), (true, true), (false, true), (false, true), (false, false)];
        assert_eq!(seen, want);
    }

    #[test]
    fn the_next_look_is_when_something_ends() {
        let start = Instant::now();
        let leads = View { leads: true, sign: None, acked: Some(start), ..view(start) };
        let mut judge = judge();
        let at = |ms| start + Duration::from_millis(ms);
        let looks = [0, 300, 400, 401, 900, 901].map(|ms| judge.judge(at(ms), &leads).until);
        let (lease, dead) = (Some(at(401)), Some(at(901)));
        assert_eq!(looks, [lease, lease, lease, dead, dead, None]);
        let followed = judge.judge(at(2000), &view(at(1990)));
        assert_eq!((followed.quorate, followed.until), (true, Some(at(2891))));
    }

    #[test]
    fn only_voter_needs_nobody() {
        let now = Instant::now();
        let leads = View { leads: true, alone: true, sign: None, ..view(now) };
        assert!(judge().judge(now, &leads).me_leader);
    }

    #[test]
    fn follower_believes_a_fresh_quorate_leader_of_this_term_only() {
        let now = Instant::now();
        assert!(judge().judge(now, &view(now)).quorate);
        assert!(!judge().judge(now, &view(now).with_sign(now, false)).quorate);
        let late = now + Duration::from_millis(1001);
        assert!(!judge().judge(late, &view(now)).quorate);
        let old = View { term: 6, ..view(now) };
        assert_eq!(judge().judge(now, &old).leader, None);
    }

    #[test]
    fn change_of_leader_within_the_dead_interval_keeps_quorum() {
        let start = Instant::now();
        let mut judge = judge();
        judge.judge(start, &view(start));
        let candidate = View { term: 6, sign: None, ..view(start) };
        let verdict = judge.judge(start + Duration::from_millis(700), &candidate);
        assert_eq!((verdict.leader, verdict.quorate), (None, true));
    }
}
