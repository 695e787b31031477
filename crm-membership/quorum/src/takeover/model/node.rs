//! One node of the model: power, disk, an abstract raft, and the real core.

use super::Bounds;
use crate::lineage::{Generation, GenerationId, RaftId, Relation, relation};
use crate::takeover::{
    BootId, Durable, Effect, Event, Greeting, Identity, Mark, Service, Step, Takeover, Voters,
};
use std::collections::BTreeSet;
use std::rc::Rc;

/// What a log entry holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A new leader's first.
    Blank,
    /// A client's write.
    Write(u8),
    /// A generation begins.
    Begin(Rc<Generation>),
    /// A membership: one bit per raft id; a second set while it changes.
    Members([u8; 2]),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) term: u8,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Follower,
    Candidate,
    Leader,
}

/// Voters before and after, and the place of the entry.
pub(super) type Members = ([u8; 2], usize);

/// Seen from outside: what must hold over all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Watch {
    /// Lineage under which the last entry was committed.
    pub(super) top: Vec<GenerationId>,
    /// Acknowledged writes, one bit each.
    pub(super) acked: u8,
    /// An operator forced a generation: two lines are what he asked for.
    pub(super) forced: bool,
    /// The only law that is looked at, while a planted fault is sought.
    pub(super) only: Option<&'static str>,
    /// A law that was broken.
    pub(super) broken: Option<&'static str>,
}

impl Watch {
    pub(super) fn law(&mut self, holds: bool, law: &'static str) {
        if !holds && self.only.is_none_or(|only| only == law) {
            self.broken = self.broken.or(Some(law));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) id: RaftId,
    pub(super) boot: u8,
    pub(super) incarnation: u64,
    pub(super) up: bool,
    pub(super) term: u8,
    pub(super) voted: RaftId,
    pub(super) log: Vec<Entry>,
    pub(super) mark: Option<Mark>,
    pub(super) core: Takeover,
    pub(super) role: Role,
    pub(super) commit: usize,
    /// What the peer is known to have of the leader's log.
    pub(super) matched: (RaftId, usize),
    pub(super) learner: Option<RaftId>,
    /// The memberships that the core knows of.
    pub(super) told: Option<(Members, Members)>,
    /// Writes proposed here, one bit each.
    pub(super) open: u8,
    /// A peer that was off after this node had ordered it, and the incarnation that was meant: the
    /// confirmation is still to come.
    pub(super) fenced: Option<(RaftId, u64)>,
    /// The same of an earlier order.
    pub(super) fenced_before: Option<(RaftId, u64)>,
}

fn set(mask: u8) -> BTreeSet<RaftId> {
    (1..8).filter(|id| mask & bit(*id) != 0).collect()
}

pub(super) fn bit(id: RaftId) -> u8 {
    1 << id
}

fn majority(sets: [u8; 2], have: u8) -> bool {
    sets[0] != 0 && sets.iter().all(|s| *s == 0 || (s & have).count_ones() * 2 > s.count_ones())
}

impl Node {
    pub(super) fn new(id: RaftId, log: Vec<Entry>) -> Self {
        let durable = Durable::new(GenerationId([0; 16]));
        let me = Identity { id, incarnation: 0, boot: BootId([0; 16]) };
        Self {
            id,
            boot: 0,
            incarnation: 0,
            up: false,
            term: log.last().map_or(0, |e| e.term),
            voted: 0,
            log,
            mark: None,
            core: Takeover::start(me, durable, None, Voters::default()).0,
            role: Role::Follower,
            commit: 0,
            matched: (0, 0),
            learner: None,
            told: None,
            open: 0,
            fenced: None,
            fenced_before: None,
        }
    }

    /// The daemon starts, after a boot or by itself.
    pub(super) fn start(&mut self, reboots: bool, bounds: &Bounds, watch: &mut Watch) {
        if reboots {
            self.boot += 1;
            self.mark = None;
        }
        self.incarnation += 1;
        self.up = true;
        let boot = BootId([self.boot; 16]);
        let me = Identity { id: self.id, incarnation: self.incarnation, boot };
        let durable = self.core.durable().clone();
        let (core, out) =
            Takeover::start(me, durable, self.mark.clone(), self.members(self.log.len()));
        self.core = core;
        self.core.flaw = bounds.flaw;
        self.apply(out, watch);
        self.sync(watch);
    }

    /// What memory held is gone; of the core only what is durable counts.
    pub(super) fn stop(&mut self) {
        self.up = false;
        self.role = Role::Follower;
        self.commit = 0;
        self.matched = (0, 0);
        self.learner = None;
        self.open = 0;
        self.told = None;
        let me = Identity { id: self.id, incarnation: 0, boot: BootId([0; 16]) };
        let durable = self.core.durable().clone();
        self.core = Takeover::start(me, durable, None, Voters::default()).0;
    }

    /// The last membership among the first `end` entries.
    pub(super) fn members(&self, end: usize) -> Voters {
        let (sets, at) = self.masks(end);
        let sets = sets.into_iter().filter(|s| *s != 0).map(set).collect();
        Voters { sets, at: at as u64 }
    }

    pub(super) fn masks(&self, end: usize) -> Members {
        let found = self.log.iter().take(end).enumerate().rev().find_map(|(at, e)| match e.kind {
            Kind::Members(sets) => Some((sets, at + 1)),
            Kind::Blank | Kind::Write(_) | Kind::Begin(_) => None,
        });
        found.unwrap_or(([0, 0], 0))
    }

    /// Its log is that of a voter, on or off.
    pub(super) fn votes(&self) -> bool {
        let now = self.members(self.log.len());
        now.has(self.id) && now.at >= self.core.durable().since
    }

    pub(super) fn in_force(&self) -> [u8; 2] {
        self.masks(self.log.len()).0
    }

    /// The other voter, as this node's log has it; its own id if there is none.
    pub(super) fn peer(&self) -> RaftId {
        let [a, b] = self.in_force();
        let others = (a | b) & !bit(self.id);
        if others == 0 { self.id } else { u64::from(others.trailing_zeros()) }
    }

    fn ghosts(&self) -> u8 {
        self.core.ghosts().iter().map(|id| bit(*id)).fold(0, |a, b| a | b)
    }

    /// Whether these votes and our own are a majority, the ghosts' among them.
    pub(super) fn elected_by(&self, votes: u8) -> bool {
        majority(self.in_force(), votes | bit(self.id) | self.ghosts())
    }

    /// Stands for election; leads at once when it needs nobody.
    pub(super) fn campaign(&mut self, watch: &mut Watch) {
        self.term += 1;
        self.voted = self.id;
        self.role = Role::Candidate;
        if self.elected_by(0) {
            self.lead(watch);
        }
        self.sync(watch);
    }

    pub(super) fn lead(&mut self, watch: &mut Watch) {
        self.role = Role::Leader;
        self.matched = (0, 0);
        self.learner = None;
        self.append(Kind::Blank, watch);
    }

    pub(super) fn see_term(&mut self, term: u8) {
        if term > self.term {
            self.term = term;
            self.voted = 0;
            self.role = Role::Follower;
            self.learner = None;
            self.open = 0;
        }
    }

    pub(super) fn append(&mut self, kind: Kind, watch: &mut Watch) {
        if let Kind::Begin(generation) = &kind {
            let generations = vec![(**generation).clone()];
            let out =
                self.core.handle(Event::Logged { generations, at: self.log.len() as u64 + 1 });
            self.apply(out, watch);
        }
        self.log.push(Entry { term: self.term, kind });
        self.advance(watch);
    }

    /// Commits what a majority has.
    pub(super) fn advance(&mut self, watch: &mut Watch) {
        let have = |end: usize| {
            let peer = if self.matched.1 >= end { bit(self.matched.0) } else { 0 };
            self.log[end - 1].term == self.term && self.elected_by(peer)
        };
        let leads = self.role == Role::Leader;
        let Some(end) = (self.commit + 1..=self.log.len()).rev().find(|e| leads && have(*e)) else {
            return;
        };
        self.commit_to(end, watch);
        let (sets, at) = self.masks(self.log.len());
        if sets[1] != 0 && at <= self.commit {
            self.append(Kind::Members([sets[1], 0]), watch);
        }
    }

    fn commit_to(&mut self, end: usize, watch: &mut Watch) {
        self.commit = end;
        let line = self.core.line();
        if !watch.forced {
            watch.law(line.starts_with(&watch.top), "two generations commit");
            watch.top = line;
        }
        let writes = |mask, e: &Entry| match e.kind {
            Kind::Write(n) => mask | 1 << n,
            Kind::Blank | Kind::Begin(_) | Kind::Members(_) => mask,
        };
        let committed = self.log.iter().take(end).fold(0_u8, writes);
        if !watch.forced {
            watch.law(watch.acked & !committed == 0, "an acknowledged write is lost");
        }
        watch.acked |= committed & self.open;
        self.open &= !committed;
    }

    /// Takes over a leader's log. What is committed never goes.
    pub(super) fn adopt(&mut self, log: &[Entry], commit: usize, watch: &mut Watch) {
        let same = self.log.iter().zip(log).take_while(|(a, b)| a == b).count();
        if same < log.len() {
            watch.law(same >= self.commit, "a committed entry is replaced");
            self.log.truncate(same);
            self.log.extend_from_slice(&log[same..]);
            let begun = |(at, e): (usize, &Entry)| match &e.kind {
                Kind::Begin(generation) => Some((at, (**generation).clone())),
                Kind::Blank | Kind::Write(_) | Kind::Members(_) => None,
            };
            for (at, generation) in log.iter().enumerate().skip(same).filter_map(begun) {
                let generations = vec![generation];
                let out = self.core.handle(Event::Logged { generations, at: at as u64 + 1 });
                self.apply(out, watch);
            }
        }
        self.commit = self.commit.max(commit.min(log.len()));
    }

    /// Tells the core how raft stands.
    pub(super) fn sync(&mut self, watch: &mut Watch) {
        let leads = self.role == Role::Leader;
        // Whoever does not miss its peer may believe in a quorum: more than raft ever claims.
        let silent = self.core.lost.contains(&self.peer());
        let quorate = (leads && self.elected_by(0)) || !silent;
        if (self.core.leads, self.core.quorate) != (leads, quorate) {
            let out = self.core.handle(Event::Leadership { leads, quorate });
            self.apply(out, watch);
        }
        let told = (self.masks(self.log.len()), self.masks(self.commit));
        if self.told != Some(told) {
            self.told = Some(told);
            let (effective, committed) = (self.members(self.log.len()), self.members(self.commit));
            let out = self.core.handle(Event::Voters { effective, committed });
            self.apply(out, watch);
        }
    }

    pub(super) fn apply(&mut self, out: Vec<Effect>, watch: &mut Watch) {
        for effect in out {
            match effect {
                Effect::Mark(mark) => self.mark = mark,
                Effect::Yield { .. } => {
                    let out = self.core.handle(Event::Stopped);
                    self.apply(out, watch);
                }
                Effect::AddLearner(id) => {
                    if self.learner.replace(id) != Some(id) {
                        self.matched = (0, 0);
                    }
                }
                Effect::ChangeMembers(ids) => {
                    self.change_members(ids.iter().map(|id| bit(*id)).fold(0, |a, b| a | b), watch);
                }
                // Kept by the core, or asked of it when it is the node's turn.
                Effect::Store(_) | Effect::Ghosts(_) | Effect::Do(_) | Effect::AskRejoin { .. } => {
                }
                Effect::Fence { .. } | Effect::GiveUp { .. } | Effect::Alarm(_) => {}
            }
        }
    }

    /// As openraft: by a joint membership, one change at a time.
    fn change_members(&mut self, new: u8, watch: &mut Watch) {
        let (sets, at) = self.masks(self.log.len());
        let next = match sets {
            [old, 0] if old == new => return,
            [_, last] if last == new => [new, 0],
            [old, 0] | [_, old] => [old, new],
        };
        if self.role == Role::Leader && at <= self.commit {
            self.append(Kind::Members(next), watch);
            self.sync(watch);
        }
    }

    /// Does the step of a takeover that is due.
    pub(super) fn take_step(&mut self, watch: &mut Watch) {
        match self.core.step() {
            Some(Step::Elect) => self.campaign(watch),
            Some(Step::Propose(generation)) => {
                self.append(Kind::Begin(Rc::new(generation)), watch);
                self.sync(watch);
            }
            Some(Step::Alone) => {
                self.advance(watch);
                self.change_members(bit(self.id), watch);
            }
            None => {}
        }
    }

    /// Laws of a meeting, judged without the core: nobody serves who has just seen a newer lineage.
    pub(super) fn met(&self, theirs: &Greeting, watch: &mut Watch) -> Relation {
        let met = relation(&self.core.line(), &theirs.lineage);
        let stale = met == Relation::MineStale;
        watch.law(!stale || self.core.service() == Service::No, "a stale node keeps its quorum");
        met
    }
}
