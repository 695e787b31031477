//! Service quorum as a state machine: may this node run resources and fence? One per node; what it sees,
//! hears and is told comes in as events with the time, and after each there is a [`Verdict`].
//!
//! *Consensus quorum* (a raft majority: may the CIB change) is another matter and not here. The two may differ:
//! with `two_node` one of two runs resources and cannot write; after `last_man_standing` two of five run
//! resources, and write once raft's membership has followed.
//!
//! # Ballots
//! Votequorum lowers its expectations on each node by itself and relies on all of a partition doing so at
//! the same time. Here what votes are counted against is a [`Ballot`], numbered, and passed from one to the next:
//! - a node is quorate when *every* ballot that may be in force is carried by the nodes that it sees;
//! - the nodes of a quorate partition may write a new one (lost nodes struck out, returned ones added, another
//!   tie node); each node lists it in its [`Word`] beside the old one, and so binds itself;
//! - the old one is dropped by whoever sees that nodes enough to carry it list the new one.
//!
//! So any partition that could carry the old ballot contains a node that knows the new one, and what a node
//! knows counts for all who see it. This is dynamic voting in two phases; it needs no agreed membership.
//!
//! # What is promised
//! Quorate nodes that see no node in common, each having heard since the last change what the peers that it sees say:
//!
//! | options | never both quorate | because |
//! |---|---|---|
//! | plain, `expected_votes`, `wait_for_all` | always | majorities meet |
//! | `auto_tie_breaker`, `last_man_standing`, `allow_downscale` | always, if each node's [`Memory`] survives its restarts; where it may not, `wait_for_all` has to be set | the rule of the ballots, of which a half carries one only with its tie node |
//! | `arbiter` | as long as the arbiter gives its vote to one side | its votes are in one partition |
//! | members added and removed | one at a time, each taken in by all of a quorate partition before the next, and first by whoever meets one that has (the log sees to it) | majorities of n and n + 1 meet |
//! | `two_node` | **not promised**: fencing decides | 1 of 2 is no majority |
//! | expected votes set by hand; a wait cancelled by hand where memory was lost | **not promised**: the administrator says that the others are down | |
//!
//! A cut is noticed after the dead interval, so for that long the losing side still thinks that it is quorate.
//! Fencing (or the watchdog) covers that time, with every option.

use crate::options::{Member, Policy, Rules, TieNode};
use crate::verdict::{Count, Reason, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// Against what votes are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Counts up; 0 is the configuration, on which nobody has agreed yet.
    pub version: u64,
    /// Whose votes are counted.
    pub counted: BTreeSet<String>,
    /// Votes expected, without the arbiter's; at least those of `counted`.
    pub total: u64,
    /// The node that breaks a tie.
    pub tie: Option<String>,
}

/// What a node says of itself to each peer. A peer counts from its first word on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Word {
    /// It is quorate.
    pub quorate: bool,
    /// `wait_for_all` holds it back.
    pub waiting: bool,
    /// It is leaving, or was removed: its vote counts no more.
    pub leaving: bool,
    /// The ballots that may be in force, oldest first.
    pub ballots: Vec<Ballot>,
}

impl Word {
    /// Says in a heartbeat which word a node stands by (FNV-1a; the same on all builds).
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let flags = [self.quorate, self.waiting, self.leaving].map(u8::from);
        let mut hash = fnv(0xcbf2_9ce4_8422_2325, &flags);
        for ballot in &self.ballots {
            hash = fnv(hash, &ballot.version.to_le_bytes());
            hash = fnv(hash, &ballot.total.to_le_bytes());
            // 0 is in no name, so it ends one; and an empty name ends the list.
            let tie = ballot.tie.iter();
            for name in ballot.counted.iter().chain([&String::new()]).chain(tie) {
                hash = fnv(fnv(hash, name.as_bytes()), &[0]);
            }
        }
        hash
    }
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// What a node must find again after a restart. To be stored, when it has changed, before the [`Word`] is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// The ballots that may be in force, oldest first.
    pub ballots: Vec<Ballot>,
    /// The members they were made for.
    pub members: Vec<Member>,
    /// The most votes ever expected, for `expected_votes_tracking`.
    pub tracked: u64,
}

/// Something that a node sees, hears or is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peers that are alive now, each with its newest word; whoever is missing is gone. A peer belongs
    /// here only while the word held is the one it stands by (its heartbeats carry [`Word::fingerprint`]), or
    /// has been until less than the dead interval ago.
    View(BTreeMap<String, Word>),
    /// The members as configured from now on.
    Members(Vec<Member>),
    /// The options as configured from now on. While only some nodes know them, no more is promised than
    /// what the more daring of the two policies promises.
    Policy(Policy),
    /// Whether the arbiter gives its vote to our partition.
    Arbiter(bool),
    /// The administrator ends the wait of `wait_for_all`.
    CancelWait,
    /// This node leaves cleanly.
    Leave,
    /// Time has passed (see [`Quorum::wake_ms`]).
    Tick,
}

/// Expected votes that cannot be set by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("cannot expect {votes} votes: {have} are here; give a number from {have} to {}", (have * 2).saturating_sub(1))]
pub struct ExpectedError {
    /// Asked for.
    pub votes: u64,
    /// Present.
    pub have: u64,
}

/// Service quorum of one node.
#[derive(Debug, Clone)]
pub struct Quorum {
    me: String,
    policy: Policy,
    rules: Rules,
    members: BTreeMap<String, Member>,
    peers: BTreeMap<String, Word>,
    /// Peers that said they were leaving, and are not back.
    left: BTreeSet<String>,
    /// Sorted; never empty.
    ballots: Vec<Ballot>,
    tracked: u64,
    arbiter_here: bool,
    waiting: bool,
    leaving: bool,
    /// When those lost last may be struck out.
    due_ms: Option<u64>,
    verdict: Verdict,
}

impl Quorum {
    /// A node that has just started and sees nobody. `memory` is what [`Quorum::memory`] gave before the
    /// restart; the default for a new node.
    #[must_use]
    pub fn new(me: &str, policy: Policy, members: &[Member], memory: Memory) -> Self {
        let now = if memory.ballots.is_empty() { members } else { &memory.members };
        let rules = policy.rules(now);
        let mut core = Self {
            me: me.to_owned(),
            waiting: rules.waits,
            rules,
            members: by_name(now),
            peers: BTreeMap::new(),
            left: BTreeSet::new(),
            ballots: memory.ballots,
            tracked: memory.tracked,
            arbiter_here: false,
            leaving: false,
            due_ms: None,
            verdict: Verdict {
                quorate: false,
                waiting: false,
                count: Count::default(),
                reason: Reason::NoMember,
            },
            policy,
        };
        if core.ballots.is_empty() {
            core.ballots.push(core.first_ballot());
        }
        core.ballots.sort();
        core.reseat(members);
        core.settle(0);
        core
    }

    /// Takes in an event; `now_ms` never goes back.
    pub fn apply(&mut self, now_ms: u64, event: Event) -> &Verdict {
        match event {
            Event::View(peers) => self.look(now_ms, peers),
            Event::Members(members) => self.reseat(&members),
            Event::Policy(policy) => {
                self.policy = policy;
                // Who is not quorate now is not made so by an option that also means to wait.
                self.waiting |= !self.verdict.quorate;
                let members: Vec<Member> = self.members.values().cloned().collect();
                self.reseat(&members);
            }
            Event::Arbiter(here) => self.arbiter_here = here,
            Event::CancelWait => self.waiting = false,
            Event::Leave => self.leaving = true,
            Event::Tick => {}
        }
        self.settle(now_ms);
        &self.verdict
    }

    /// Sets the expected votes (the arbiter's among them) by hand, for the whole partition. With fewer than
    /// now the administrator says that the nodes that are not here are down: not checked, so it needs fencing.
    ///
    /// # Errors
    /// When the votes present would not be a majority of that, or more.
    pub fn expect_votes(&mut self, now_ms: u64, votes: u64) -> Result<&Verdict, ExpectedError> {
        let here = self.here();
        let have = self.votes(&here) + self.cast();
        if votes < have || votes / 2 >= have {
            return Err(ExpectedError { votes, have });
        }
        let newest = self.newest();
        let total = votes.saturating_sub(self.rules.arbiter_votes).max(self.votes(&here));
        let mut counted: BTreeSet<String> = newest.counted.union(&here).cloned().collect();
        if self.votes(&counted) > total {
            counted = here;
        }
        let tie = self.first(&counted).or_else(|| newest.tie.clone());
        let version = newest.version.saturating_add(1);
        self.ballots = vec![Ballot { version, counted, total, tie }];
        self.settle(now_ms);
        Ok(&self.verdict)
    }

    /// The verdict of the last event.
    #[must_use]
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// What to tell the peers now.
    #[must_use]
    pub fn word(&self) -> Word {
        Word {
            quorate: self.verdict.quorate,
            waiting: self.waiting,
            // Who was removed helps nobody who does not know of it yet.
            leaving: self.leaving || !self.members.contains_key(&self.me),
            ballots: self.ballots.clone(),
        }
    }

    /// What to store.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            ballots: self.ballots.clone(),
            members: self.members.values().cloned().collect(),
            tracked: self.tracked,
        }
    }

    /// When a [`Event::Tick`] will change something, unless another event comes first.
    #[must_use]
    pub const fn wake_ms(&self) -> Option<u64> {
        self.due_ms
    }

    fn newest(&self) -> &Ballot {
        self.ballots
            .last()
            .expect("there is always a ballot: `new` makes one, nothing removes the last")
    }

    fn first_ballot(&self) -> Ballot {
        let counted: BTreeSet<String> = self.members.keys().cloned().collect();
        let tracked = if self.rules.tracking { self.tracked } else { 0 };
        let tie = self.first(&counted);
        Ballot { version: 0, counted, total: self.rules.expected.max(tracked), tie }
    }

    /// Counted members present, and not leaving.
    fn here(&self) -> BTreeSet<String> {
        let peers = self.peers.iter().filter(|(_, word)| !word.leaving).map(|(name, _)| name);
        peers.chain([&self.me]).filter(|n| self.members.contains_key(*n)).cloned().collect()
    }

    fn votes(&self, names: &BTreeSet<String>) -> u64 {
        names.iter().filter_map(|n| self.members.get(n)).map(|m| u64::from(m.votes)).sum()
    }

    /// Who of these breaks ties.
    fn first(&self, names: &BTreeSet<String>) -> Option<String> {
        let members = || names.iter().filter_map(|n| self.members.get(n));
        match self.rules.tie.as_ref()? {
            TieNode::Lowest => members().min_by_key(|m| m.id).map(|m| m.name.clone()),
            TieNode::Highest => members().max_by_key(|m| m.id).map(|m| m.name.clone()),
            TieNode::List(list) => list.iter().find(|n| names.contains(*n)).cloned(),
        }
    }

    fn look(&mut self, now_ms: u64, peers: BTreeMap<String, Word>) {
        let before = self.here();
        self.left.extend(peers.iter().filter(|(_, word)| word.leaving).map(|(n, _)| n.clone()));
        self.left.retain(|name| peers.get(name).is_none_or(|word| word.leaving));
        self.peers = peers;
        let dynamic = self.rules.last_man || self.rules.tie.is_some();
        if dynamic && !before.is_subset(&self.here()) {
            self.due_ms = Some(now_ms.saturating_add(self.rules.window_ms));
        }
    }

    /// Other members or options: an act of the administrator, so it may lower what is expected.
    fn reseat(&mut self, members: &[Member]) {
        let rules = self.policy.rules(members);
        let new = by_name(members);
        if new == self.members && rules == self.rules {
            return;
        }
        let order_changed = rules.tie != self.rules.tie;
        self.rules = rules;
        let old = std::mem::replace(&mut self.members, new);
        let votes_before = |names: &BTreeSet<String>| -> u64 {
            names.iter().filter_map(|n| old.get(n)).map(|m| u64::from(m.votes)).sum()
        };
        let full = self.first_ballot();
        let mut ballots = std::mem::take(&mut self.ballots);
        for ballot in &mut ballots {
            let all = old.keys().all(|name| ballot.counted.contains(name));
            let spare = ballot.total.saturating_sub(votes_before(&ballot.counted));
            let added = self.members.keys().filter(|name| !old.contains_key(*name));
            ballot.counted.extend(added.cloned());
            ballot.counted.retain(|name| self.members.contains_key(name));
            ballot.total =
                if all { full.total } else { self.votes(&ballot.counted).saturating_add(spare) };
            let gone = ballot.tie.as_ref().is_none_or(|name| !ballot.counted.contains(name));
            if gone || order_changed {
                ballot.tie = self.first(&ballot.counted);
            }
        }
        ballots.sort();
        ballots.dedup();
        self.ballots = ballots;
    }

    fn settle(&mut self, now_ms: u64) {
        self.merge();
        loop {
            while self.supersede() {}
            self.judge();
            let Some(next) = self.wanted(now_ms) else { break };
            self.ballots.push(next);
        }
        // Each loss is answered once, so that nodes that see different peers do not undo each other's work
        // for ever.
        if !self.verdict.quorate || self.due_ms.is_some_and(|due| due <= now_ms) {
            self.due_ms = None;
        }
        if self.verdict.quorate {
            self.left.clear();
        }
        self.tracked = self.tracked.max(self.newest().total);
    }

    /// What any node in sight holds possible is possible; what any knows to be over is over. Version 0 is
    /// only what each node read in its configuration: of the same members the higher total counts, if the
    /// peer is quorate.
    fn merge(&mut self) {
        let mut all: BTreeSet<Ballot> = self.ballots.iter().cloned().collect();
        let mut over = self.ballots.first().map_or(0, |b| b.version);
        for (_, word) in self.peers.iter().filter(|(name, _)| self.members.contains_key(*name)) {
            over = over.max(word.ballots.first().map_or(0, |b| b.version));
            all.extend(word.ballots.iter().filter(|b| b.version > 0).cloned());
        }
        self.ballots = all.into_iter().filter(|b| b.version >= over).collect();
        let raises = |word: &&Word| word.quorate || self.rules.tracking;
        let totals = |mine: &Ballot| {
            let configured = self.peers.values().filter(raises).flat_map(|w| &w.ballots);
            let same = configured.filter(|b| b.version == 0 && b.counted == mine.counted);
            same.map(|b| b.total).max()
        };
        if let Some(mine) = self.ballots.first().filter(|b| b.version == 0)
            && let Some(total) = totals(mine)
            && let Some(mine) = self.ballots.first_mut()
        {
            mine.total = mine.total.max(total);
        }
    }

    /// Drops the ballots that can be carried only by nodes among which one lists a newer one; false when
    /// there are none. The arbiter lists nothing, so its votes do not help here.
    fn supersede(&mut self) -> bool {
        let here = self.here();
        let newer = self.ballots.iter().rev().find(|ballot| {
            let lists = |word: &Word| {
                word.ballots.contains(ballot)
                    || word.ballots.first().is_some_and(|b| b.version > ballot.version)
            };
            let bound: BTreeSet<String> = here
                .iter()
                .filter(|name| **name == self.me || self.peers.get(*name).is_some_and(lists))
                .cloned()
                .collect();
            let mut older = self.ballots.iter().filter(|b| b.version < ballot.version);
            older.all(|b| self.carried(b, &bound, 0))
        });
        let over = newer.map_or(0, |ballot| ballot.version);
        let before = self.ballots.len();
        self.ballots.retain(|b| b.version >= over);
        self.ballots.len() < before
    }

    /// Votes that the arbiter gives us now.
    fn cast(&self) -> u64 {
        if self.arbiter_here { self.rules.arbiter_votes } else { 0 }
    }

    /// Votes of these nodes, and of the arbiter as far as cast.
    fn count(&self, ballot: &Ballot, who: &BTreeSet<String>, cast: u64) -> Count {
        let votes = self.votes(&ballot.counted.intersection(who).cloned().collect());
        let expected = ballot.total.saturating_add(self.rules.arbiter_votes);
        let needed = if self.rules.two_node { 1 } else { expected / 2 + 1 };
        Count { have: votes + cast, expected, needed }
    }

    /// The tie node, when these are exactly half and there is one.
    fn tie<'a>(&self, ballot: &'a Ballot, count: Count) -> Option<&'a String> {
        self.rules.tie.as_ref()?;
        ballot.tie.as_ref().filter(|_| count.have * 2 == count.expected)
    }

    fn carried(&self, ballot: &Ballot, who: &BTreeSet<String>, cast: u64) -> bool {
        let count = self.count(ballot, who, cast);
        count.have >= count.needed || self.tie(ballot, count).is_some_and(|node| who.contains(node))
    }

    fn judge(&mut self) {
        let here = self.here();
        let failing = self.ballots.iter().rev().find(|b| !self.carried(b, &here, self.cast()));
        let carried = failing.is_none();
        let ballot = failing.unwrap_or_else(|| self.newest());
        let count = self.count(ballot, &here, self.cast());
        let all = carried && count.have >= count.expected;
        let settled = self.peers.iter().any(|(name, word)| {
            self.members.contains_key(name) && word.quorate && !word.waiting && !word.leaving
        });
        let waiting = self.rules.waits && (!carried || (self.waiting && !all && !settled));
        let reason = self.reason(ballot, &here, carried, waiting);
        let quorate =
            matches!(reason, Reason::Enough(_) | Reason::TwoNode(_) | Reason::TieBroken { .. });
        self.waiting = waiting;
        self.verdict = Verdict { quorate, waiting, count, reason };
    }

    fn reason(
        &self,
        ballot: &Ballot,
        here: &BTreeSet<String>,
        carried: bool,
        waiting: bool,
    ) -> Reason {
        let count = self.count(ballot, here, self.cast());
        let missing = || ballot.counted.difference(here).cloned().collect();
        if !self.members.contains_key(&self.me) {
            return Reason::NoMember;
        }
        if self.leaving {
            return Reason::Leaving;
        }
        if waiting {
            return Reason::WaitingForAll { count, missing: missing() };
        }
        match (carried, self.tie(ballot, count)) {
            (true, Some(node)) if count.have < count.needed => {
                Reason::TieBroken { count, node: node.clone() }
            }
            (true, _) if count.have * 2 <= count.expected => Reason::TwoNode(count),
            (true, _) => Reason::Enough(count),
            (false, Some(node)) => Reason::TieLost { count, node: node.clone() },
            (false, None) => Reason::TooFew {
                count,
                missing: missing(),
                arbiter_away: self.rules.arbiter_votes > 0 && !self.arbiter_here,
            },
        }
    }

    /// The ballot that this node would put in the place of the newest one; only a quorate node may.
    fn wanted(&self, now_ms: u64) -> Option<Ballot> {
        if !self.verdict.quorate {
            return None;
        }
        let here = self.here();
        let base = self.newest();
        let mut next = base.clone();
        let returned: BTreeSet<String> = here.difference(&base.counted).cloned().collect();
        next.total = next.total.saturating_add(self.votes(&returned));
        next.counted.extend(returned);
        self.strike_leavers(&mut next, &here);
        if self.due_ms.is_some_and(|due| due <= now_ms) {
            self.strike_lost(&mut next, &here);
        }
        let first = self.first(&next.counted);
        if first.as_ref() == Some(&self.me) && next.counted.is_subset(&here) {
            next.tie = first;
        }
        let rivals = self.ballots.iter().filter(|b| b.version == base.version).count() > 1;
        if next == *base && !rivals {
            return None;
        }
        next.version = base.version.checked_add(1)?;
        self.carried(&next, &here, self.cast()).then_some(next)
    }

    fn strike_leavers(&self, next: &mut Ballot, here: &BTreeSet<String>) {
        let Some(floor) = self.rules.floor else { return };
        for name in self.left.difference(here) {
            let votes = self.members.get(name).map_or(0, |m| u64::from(m.votes));
            if next.counted.contains(name) && next.total.saturating_sub(votes) >= floor {
                next.counted.remove(name);
                next.total -= votes;
            }
        }
    }

    /// After the window: all who are lost with `last_man_standing`; with `auto_tie_breaker` one, if that
    /// makes the number of votes even, so that there are halves. A majority moves the tie from a node that is
    /// lost to one that is here (and that node, when all are here again, takes it back: `wanted`).
    fn strike_lost(&self, next: &mut Ballot, here: &BTreeSet<String>) {
        if next.counted.is_subset(here) {
            return;
        }
        let count = self.count(next, here, self.cast());
        if self.rules.last_man && (count.have >= 2 || self.rules.tie.is_some()) {
            next.counted.clone_from(here);
            next.total = count.have;
        }
        if self.rules.tie.is_none() {
            return;
        }
        let lost = next.counted.difference(here).filter_map(|n| self.members.get(n));
        if next.total % 2 == 1
            && let Some(member) = lost.filter(|m| m.votes % 2 == 1).max_by_key(|m| m.id)
        {
            next.counted.remove(&member.name);
            next.total -= u64::from(member.votes);
        }
        if count.have >= count.needed && next.tie.as_ref().is_none_or(|node| !here.contains(node)) {
            let first = self.first(here);
            next.tie = first.or_else(|| next.tie.take());
        }
    }
}

fn by_name(members: &[Member]) -> BTreeMap<String, Member> {
    members.iter().map(|member| (member.name.clone(), member.clone())).collect()
}
