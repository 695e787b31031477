//! Watchdogs (ADR-0013): when this node's own is fed, what the node promises the others by it, whose silence is as good as a reset, and when
//! the node has to go.
//!
//! The promise is a transient attribute in the log: "once the leader has not heard me any more, I am reset within so many milliseconds". While
//! it is there the node feeds only as long as its lease lasts, that is as long as it has dated evidence that whoever leads takes it for alive.

use super::{Controller, Effect, Mode};
use crate::fencing::{Kind, watchdog_timeout_ms};
use crate::store::Command;
use std::collections::{BTreeMap, BTreeSet};

/// Transient attribute of a node whose watchdog others may rely on: milliseconds until it is reset, at most.
pub const PROMISE: &str = "#watchdog";
/// Transient attribute that tells a node to let its watchdog fire: why.
pub const CONDEMNED: &str = "#condemned";

/// While somebody's watchdog has its time this node looks around so often, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// If it did not for so long, it stood still: what it took for lost may have come back and been lost again, and another may lead.
const STALLED_MS: u64 = 3_000;
/// Time for the news to arrive after that, in milliseconds.
const NEWS_MS: u64 = 2_000;

/// What is to be done with this node's watchdog now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// It is not touched: nothing is known yet of what the others rely on. A watchdog that an earlier daemon left behind runs on.
    Leave,
    /// It is armed, if it is not, and fed.
    Feed,
    /// It is not fed: the node is reset, unless the lease is renewed in time.
    Starve,
}

/// This node's watchdog, and what was asked of others.
#[derive(Debug, Default)]
pub(super) struct Guard {
    /// It is armed: so long after the end of its lease the node is reset, at most.
    armed_ms: Option<u64>,
    /// The node has to go, and why. Nothing takes it back.
    doomed: Option<String>,
    /// Sessions that were condemned.
    condemned: BTreeMap<String, u64>,
    /// Somebody's watchdog had its time at the last look.
    watching: bool,
    /// Until then nobody's watchdog is relied on.
    blind_until_ms: u64,
}

impl Controller {
    /// This node's watchdog is armed, or is not any more.
    pub(super) fn watchdog_told(&mut self, reset_ms: Option<u64>) {
        self.guard.armed_ms = reset_ms;
        self.reread_fencing();
    }

    /// What is to be done with the watchdog. `lease`: whoever leads takes this node for alive, by evidence younger than the dead interval.
    #[must_use]
    pub fn feeding(&self, lease: bool) -> Feed {
        if self.guard.doomed.is_some() {
            return Feed::Starve;
        }
        // Before the log has this session an older promise of this node may be in force, and what it was made for may not be known here.
        let known =
            self.leadership.quorate && self.published && self.synced(&self.me, self.session);
        match self.guard.armed_ms {
            None if known && lease => Feed::Feed,
            None => Feed::Leave,
            Some(_) if lease || !self.bound() => Feed::Feed,
            Some(_) => Feed::Starve,
        }
    }

    /// This node's watchdog is armed, so long after its lease it has fired.
    pub(super) fn hardware_ms(&self) -> u64 {
        self.guard.armed_ms.unwrap_or(0)
    }

    /// What a daemon that is told to end tells the others first, so that it may disarm the watchdog though something runs here. `None`: they
    /// do not rely on it.
    #[must_use]
    pub fn disarming(&self) -> Option<Command> {
        let attrs = vec![(PROMISE.to_owned(), None)];
        let (node, session) = (self.me.clone(), Some(self.session));
        self.bound().then_some(Command::SetAttrs { node, session, attrs })
    }

    /// Others rely on this node's watchdog, or may.
    fn bound(&self) -> bool {
        self.relied_on()
            || self.own.status.attrs.contains_key(PROMISE)
            || self.promise_of(&self.me).is_some()
    }

    /// The configuration says that watchdogs fence. Of two nodes both would wait for the other's reset: there nobody relies on it.
    fn relied_on(&self) -> bool {
        self.state.members.len() > 2 && watchdog_timeout_ms(&self.state.cib, 1).is_some()
    }

    /// The promise of a node that the log has.
    fn promise_of(&self, node: &str) -> Option<u64> {
        self.state.status.nodes.get(node)?.attrs.get(PROMISE)?.parse().ok()
    }

    /// Nodes whose watchdog fires within `stonith-watchdog-timeout` once they are lost.
    pub(super) fn relied_upon(&self) -> BTreeSet<String> {
        let within = watchdog_timeout_ms(&self.state.cib, self.hardware_ms());
        let Some(within) = within.filter(|_| self.relied_on()) else { return BTreeSet::new() };
        let in_time = |node: &&String| self.promise_of(node).is_some_and(|ms| ms <= within);
        self.state.members.keys().filter(in_time).cloned().collect()
    }

    /// Of these, those that have lost us: only a leader knows that they cannot have another one.
    pub(super) fn starving(&self) -> BTreeSet<String> {
        if self.mode != Mode::Leader || self.now_ms < self.guard.blind_until_ms {
            return BTreeSet::new();
        }
        self.relied_upon().into_iter().filter(|node| !self.alive(node)).collect()
    }

    /// A look around is due, and did not come for `gap_ms`.
    pub(super) const fn looked_after(&mut self, now_ms: u64, gap_ms: u64) {
        if self.guard.watching && gap_ms > STALLED_MS {
            self.guard.blind_until_ms = now_ms + NEWS_MS;
        }
    }

    /// When to look around again.
    pub(super) fn look_due(&self) -> Option<u64> {
        self.guard.watching.then(|| self.now_ms + LOOK_MS)
    }

    /// Makes or withdraws the promise, asks others to go, and goes when it has to.
    pub(super) fn settle_watchdog(&mut self) {
        if self.guard.doomed.is_none() {
            let promise = self.guard.armed_ms.filter(|_| self.relied_on());
            self.set_attr(PROMISE, promise.map(|ms| ms.to_string()));
        }
        self.condemn();
        self.guard.watching = !self.starving().is_empty();
        let own = self.state.status.nodes.get(&self.me).filter(|s| s.session == self.session);
        let asked = own.and_then(|status| status.attrs.get(CONDEMNED)).cloned();
        if let Some(why) = asked {
            self.go(format!("the cluster wants it fenced: {why}"));
        }
        let policy = self.state.cib.properties.get("no-quorum-policy");
        // The other of two that lives and cannot be asked: what runs here goes on (`local_state`).
        let frozen = self.carried()
            || self.state.members.len() == 2 && self.fencing_wanted() && !self.outvoted();
        let lost = self.mode == Mode::NoQuorum && !frozen || self.outvoted_for_good();
        if lost && matches!(policy, Some("suicide" | "fence")) {
            self.go("the quorum is lost, and no-quorum-policy=suicide".to_owned());
        }
    }

    fn go(&mut self, why: String) {
        if self.guard.doomed.is_none() {
            self.guard.doomed = Some(why.clone());
            self.effects.push_back(Effect::Suicide { why });
        }
    }

    /// A node that is heard, and that the plan wants fenced, lets its watchdog fire when nothing else can fence it. Only where its promise is
    /// in the log: it would be asked for nothing.
    fn condemn(&mut self) {
        let wanted = self.wanted_fenced();
        if self.mode != Mode::Leader
            || wanted.is_empty()
            || self.fences_devices().any(|device| device.kind != Kind::Watchdog)
        {
            return;
        }
        let relied_upon = self.relied_upon();
        for (node, session, why) in wanted {
            let lives = self.online(&node) && node != self.me;
            if lives
                && relied_upon.contains(&node)
                && self.guard.condemned.insert(node.clone(), session) != Some(session)
            {
                let attrs = vec![(CONDEMNED.to_owned(), Some(why))];
                self.propose(Command::SetAttrs { node, session: Some(session), attrs });
            }
        }
    }
}
