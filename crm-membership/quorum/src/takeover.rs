//! Two nodes: how the survivor goes on after its peer was confirmed off, and how the other one comes back
//! (ADR-0010; design/membership.md 3.2).
//!
//! Facts and calls in, effects out. Effects are carried out in their order; [`Effect::Store`] and
//! [`Effect::Mark`] are done before anything after them, and before the next greeting. No effect has an
//! answer: the next step follows from facts (who leads, what is in the log), so a late answer is harmless
//! and a step that was lost is asked for again at [`Event::Tick`].

use crate::lineage::{Cause, Currency, Evidence, Gap, Generation, GenerationId, Lineage, RaftId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

mod calls;
#[cfg(test)]
mod model;
mod state;
#[cfg(test)]
mod tests;

pub use calls::{Call, Greeting, Refusal};
pub use state::{Refused, State, Wait};

/// One boot of the machine (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

/// Who runs this core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// My raft id.
    pub id: RaftId,
    /// This start of my daemon: greater than that of every earlier start.
    pub incarnation: u64,
    /// This boot.
    pub boot: BootId,
}

/// A membership of the raft log. While it changes there are two sets, and a majority of each is needed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Voters {
    /// The sets.
    pub sets: Vec<BTreeSet<RaftId>>,
    /// Log index of the entry.
    pub at: u64,
}

impl Voters {
    fn all(&self) -> BTreeSet<RaftId> {
        self.sets.iter().flatten().copied().collect()
    }

    /// Each as often as it is in a set.
    fn other_than(&self, id: RaftId) -> impl Iterator<Item = RaftId> {
        self.sets.iter().flatten().copied().filter(move |other| *other != id)
    }

    /// Nothing can be committed without this node, neither now nor when this change is complete: the last set decides, for a majority of it
    /// is needed in both cases. (Of `[{1, 2}, {1, 2, 3}]` the next membership, `{1, 2, 3}`, can do without 1.)
    fn need(&self, id: RaftId) -> bool {
        self.sets.last().is_some_and(|set| set.contains(&id) && set.len() <= 2)
    }

    /// These two are a majority of every set.
    fn suffice(&self, one: RaftId, two: RaftId) -> bool {
        let votes = |set: &BTreeSet<_>| set.iter().filter(|id| [one, two].contains(id)).count();
        self.sets.iter().all(|set| votes(set) * 2 > set.len())
    }

    fn has(&self, id: RaftId) -> bool {
        !self.sets.is_empty() && self.sets.iter().all(|set| set.contains(&id))
    }

    fn only(&self, id: RaftId) -> bool {
        self.sets.len() == 1 && self.sets.iter().all(|set| set.len() == 1 && set.contains(&id))
    }
}

/// The other line of generations, met by a node that has gone on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Foreign {
    /// Whose it is.
    pub peer: RaftId,
    /// Its generations.
    pub lineage: Vec<GenerationId>,
    /// How many of them are ours too: the state as of the last of these is the base of the merge.
    pub common: usize,
}

/// What must survive everything. The caller stores it and gives it back at the start.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Durable {
    /// Generations in my log. Not those applied: after a restart a log is ahead of what is known to be
    /// committed, and the lineage must never go back.
    pub lineage: Lineage,
    /// Log index of the newest of them.
    pub since: u64,
    /// The last membership known to be committed.
    pub committed: Voters,
    /// A takeover that is decided: it is carried through whatever happens.
    pub intent: Option<Generation>,
    /// The other side of a divergence.
    pub diverged: Option<Foreign>,
    /// Newest generations of lines that lost a merge: one that goes on after that has diverged again.
    pub disowned: BTreeSet<GenerationId>,
    /// The highest raft id that has ever been a voter.
    pub highest_id: RaftId,
}

impl Durable {
    /// That of a founder, and of a node that has just joined: the lineage comes with the log.
    #[must_use]
    pub fn new(cluster: GenerationId) -> Self {
        Self {
            lineage: Lineage::founded(cluster),
            since: 0,
            committed: Voters::default(),
            intent: None,
            diverged: None,
            disowned: BTreeSet::new(),
            highest_id: 0,
        }
    }
}

/// Proof that this node was up when the cluster last had quorum. Lives in `/run`: it survives the daemon,
/// and neither a reboot nor (by the boot id) a `/run` that survives one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The boot it was made in.
    pub boot: BootId,
    /// The newest generation then.
    pub head: GenerationId,
    /// The peer that was in contact; this node itself while it is the only voter.
    pub peer: RaftId,
    /// The newest incarnations that were heard of. Peers are told only what is stored here.
    pub heard: BTreeMap<RaftId, u64>,
}

/// What the caller sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Raft: whether we lead (with a ghost's help too), and whether a quorum was proved lately.
    Leadership {
        /// We lead.
        leads: bool,
        /// A quorum stands behind the leader that we are or follow.
        quorate: bool,
    },
    /// Raft: the membership in force (the last in the log) and the last that is committed.
    Voters {
        /// In force.
        effective: Voters,
        /// Committed.
        committed: Voters,
    },
    /// Generations are durably in my log or snapshot, in order. To be told before the append is
    /// acknowledged, and after the start for all that log and snapshot hold: the entry comes first, then
    /// what is stored here.
    Logged {
        /// All that the entries or the snapshot hold; known ones are skipped.
        generations: Vec<Generation>,
        /// Log index of the last.
        at: u64,
    },
    /// The detector: the peer is silent on all links.
    Lost {
        /// Which.
        peer: RaftId,
    },
    /// A heartbeat of the peer: it lives. It says nothing of generations.
    Heard {
        /// Which.
        peer: RaftId,
        /// Its incarnation.
        incarnation: u64,
    },
    /// Fencing, or an operator, says that the peer was off.
    Confirmed {
        /// The proof; its incarnation is that of the [`Effect::Fence`].
        evidence: Evidence,
        /// A new uuid for the generation that may follow.
        id: GenerationId,
    },
    /// A learner has everything.
    CaughtUp {
        /// Which.
        peer: RaftId,
    },
    /// What [`Effect::Yield`] asked for is done.
    Stopped,
    /// Time passes: what is still to be done is asked for again.
    Tick,
}

/// What an operator orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Do not wait for the peer: it has nothing newer. It must still be confirmed off.
    CancelWait {
        /// Who says so.
        operator: String,
    },
    /// Go on without the others.
    Force {
        /// Who says so.
        operator: String,
        /// Even though they may live: makes an UNFENCED generation, and a divergence if they do.
        accept_divergence: bool,
        /// A new uuid.
        id: GenerationId,
        /// Wall clock in milliseconds.
        at_ms: u64,
    },
    /// Ends a divergence.
    Merge {
        /// Newest generation of the side that wins.
        winner: GenerationId,
    },
}

/// A step of a takeover, to be tried until the facts say that it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Reset the backoff and elect this node.
    Elect,
    /// Write the generation to the log.
    Propose(Generation),
    /// Make this node the only voter.
    Alone,
}

/// What the caller does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Store this durably.
    Store(Box<Durable>),
    /// Replace or remove the mark in `/run`.
    Mark(Option<Mark>),
    /// The network answers for these peers from now on: votes granted, appends stored. Empty: for nobody.
    Ghosts(BTreeSet<RaftId>),
    /// A step of the takeover.
    Do(Step),
    /// Fence the peer, whose newest known incarnation is this one.
    Fence {
        /// Whom.
        peer: RaftId,
        /// To be put into the evidence.
        incarnation: u64,
    },
    /// Stop or demote what runs here, or fence this node itself; then tell [`Event::Stopped`].
    Yield {
        /// Who has gone on without us.
        by: RaftId,
    },
    /// Send [`Call::Rejoin`].
    AskRejoin {
        /// To whom.
        of: RaftId,
    },
    /// Replicate to the peer as to a learner; then tell [`Event::CaughtUp`].
    AddLearner(RaftId),
    /// Make these the voters.
    ChangeMembers(BTreeSet<RaftId>),
    /// Lost a merge: keep a copy of the CIB, empty the data directory, join again under a new raft id.
    GiveUp {
        /// The winner.
        to: RaftId,
    },
    /// To be shown to people at once.
    Alarm(Alarm),
}

/// What people should know at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// The peer has gone on without us, and we without it.
    Diverged(Foreign),
    /// A peer that was confirmed off was heard again without a restart: the device lies, or it was a late message.
    FencingDoubtful(RaftId),
    /// A generation in the log does not follow the ones before.
    BrokenLineage(Gap),
}

/// May this node run services?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Yes.
    Full,
    /// What runs goes on, nothing new begins: the peer is lost and not confirmed off.
    Hold,
    /// No.
    No,
}

/// Faults that tests plant to see that the model catches them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Flaw {
    /// The lineage is compared in votes only.
    VotesOnly,
    /// Anyone may take over.
    NoCurrency,
    /// A stale node keeps its quorum.
    StaleKeeps,
    /// A confirmation of an older incarnation counts.
    OldConfirmation,
    /// An emptied node may come back under its old id.
    IdReused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stale {
    by: RaftId,
    theirs: Vec<GenerationId>,
    stopped: bool,
}

/// The core of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Takeover {
    me: Identity,
    durable: Durable,
    mark: Option<Mark>,
    effective: Voters,
    leads: bool,
    quorate: bool,
    heard: BTreeMap<RaftId, u64>,
    /// Who has told us, in this generation, that it knows this start of ours: as good as the mark while we run,
    /// also before the membership has come down to the two of us.
    known_by: BTreeSet<RaftId>,
    lost: BTreeSet<RaftId>,
    /// Whose fencing was asked for since it was lost.
    asked: Option<RaftId>,
    confirmed: BTreeMap<RaftId, (Evidence, GenerationId)>,
    /// An operator's word that replaces the mark.
    word: Option<String>,
    stale: Option<Stale>,
    /// Whom we bring back.
    learner: Option<RaftId>,
    /// Whom we asked last for being taken back.
    turned_to: Option<RaftId>,
    #[cfg(test)]
    flaw: Option<Flaw>,
}

impl Takeover {
    /// Starts with what was stored, the mark if there is one, and the last membership in the log.
    #[must_use]
    pub fn start(
        me: Identity,
        durable: Durable,
        mark: Option<Mark>,
        effective: Voters,
    ) -> (Self, Vec<Effect>) {
        let head = durable.lineage.ids().last().copied();
        let found = mark.is_some();
        let valid = mark.filter(|m| m.boot == me.boot && Some(m.head) == head);
        let mut out = Vec::new();
        if found && valid.is_none() {
            out.push(Effect::Mark(None));
        }
        let core = Self {
            me,
            heard: valid.as_ref().map(|m| m.heard.clone()).unwrap_or_default(),
            durable,
            mark: valid,
            effective,
            leads: false,
            quorate: false,
            known_by: BTreeSet::new(),
            lost: BTreeSet::new(),
            asked: None,
            confirmed: BTreeMap::new(),
            word: None,
            stale: None,
            learner: None,
            turned_to: None,
            #[cfg(test)]
            flaw: None,
        };
        if core.durable.intent.is_some() {
            out.push(Effect::Ghosts(core.ghosts()));
        }
        out.extend(core.step().map(Effect::Do));
        (core, out)
    }

    #[cfg(test)]
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests plant faults per core")]
    const fn has(&self, _: Flaw) -> bool {
        false
    }

    /// What is stored.
    #[must_use]
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// For whom the network answers.
    #[must_use]
    pub fn ghosts(&self) -> BTreeSet<RaftId> {
        self.durable.intent.iter().flat_map(|g| g.evicted.iter().copied()).collect()
    }

    /// The step of the takeover that is due.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        let intent = self.durable.intent.as_ref()?;
        Some(if !self.leads {
            Step::Elect
        } else if self.durable.lineage.get(intent.id).is_none() {
            Step::Propose(intent.clone())
        } else {
            Step::Alone
        })
    }

    /// The newest start of a peer's daemon that was heard of; 0 when none was.
    #[must_use]
    pub fn heard_of(&self, peer: RaftId) -> u64 {
        self.heard.get(&peer).copied().unwrap_or(0)
    }

    /// Others have gone on without this node: it must stop what it runs.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// Whether raft may start elections here: not while our log is not (yet) that of a voter.
    #[must_use]
    pub fn may_elect(&self) -> bool {
        self.stale.is_none() && !self.outside()
    }

    /// May this node run services?
    #[must_use]
    pub fn service(&self) -> Service {
        if self.stale.is_some() {
            return Service::No;
        }
        if self.durable.intent.is_some() {
            return Service::Hold;
        }
        if self.outside() {
            return Service::No;
        }
        if self.quorate && self.proved() {
            return Service::Full;
        }
        let held = self.pair().is_some_and(|peer| self.marked(peer));
        if held && self.durable.diverged.is_none() { Service::Hold } else { Service::No }
    }

    /// Whom to ask next for being taken back, if that is due: whoever told us of the newer line, then the others in turn, for only a leader
    /// takes anybody back and who leads is not known here.
    #[must_use]
    pub fn wants_rejoin(&self) -> Option<RaftId> {
        let first = match &self.stale {
            Some(stale) if stale.stopped => Some(stale.by),
            None if self.outside() => None,
            Some(_) | None => return None,
        };
        let mut whom: BTreeSet<RaftId> = self.heard.keys().copied().collect();
        whom.extend(first);
        let next = |last| whom.iter().find(|id| **id > last).or_else(|| whom.first()).copied();
        self.turned_to.map_or_else(|| first.or_else(|| whom.last().copied()), next)
    }

    fn ask_back(&mut self, out: &mut Vec<Effect>) {
        if let Some(of) = self.wants_rejoin() {
            self.turned_to = Some(of);
            out.push(Effect::AskRejoin { of });
        }
    }

    /// Takes in a fact.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        let due = self.step();
        match event {
            Event::Leadership { leads, quorate } => {
                self.leads = leads;
                self.quorate = quorate;
                if !leads {
                    self.learner = None;
                }
            }
            Event::Voters { effective, committed } => self.voters(effective, committed, &mut out),
            Event::Logged { generations, at } => self.logged(generations, at, &mut out),
            Event::Lost { peer } => {
                self.lost.insert(peer);
            }
            Event::Heard { peer, incarnation } => {
                if incarnation >= self.heard.get(&peer).copied().unwrap_or(0) {
                    self.hear(peer, incarnation, &mut out);
                }
            }
            Event::Confirmed { evidence, id } => self.confirm(evidence, id),
            Event::CaughtUp { peer } => {
                if self.leads && self.learner == Some(peer) && self.durable.intent.is_none() {
                    let mut both = self.effective.all();
                    both.insert(peer);
                    out.push(Effect::ChangeMembers(both));
                }
            }
            Event::Stopped => {
                if let Some(stale) = &mut self.stale {
                    stale.stopped = true;
                }
                self.ask_back(&mut out);
            }
            Event::Tick => {
                out.extend(self.step().map(Effect::Do));
                self.ask_back(&mut out);
                return out;
            }
        }
        self.settle(due.as_ref(), &mut out);
        out
    }

    /// Takes an operator's order.
    ///
    /// # Errors
    /// When the order is not for this situation, with the reason.
    pub fn order(&mut self, order: Order) -> Result<Vec<Effect>, Refused> {
        let mut out = Vec::new();
        match order {
            Order::CancelWait { operator } => {
                self.without_quorum()?;
                if self.stale.is_some() || self.durable.diverged.is_some() {
                    return Err(Refused::GoneOn);
                }
                let peer = self.pair().ok_or(Refused::NotAPair)?;
                self.word = Some(operator);
                self.lost.insert(peer);
            }
            Order::Force { operator, accept_divergence, id, at_ms } => {
                let cause = self.forced(operator, accept_divergence)?;
                self.stale = None;
                self.decide(cause, id, at_ms, &mut out);
            }
            Order::Merge { winner } => self.merge(winner, &mut out)?,
        }
        self.settle(None, &mut out);
        Ok(out)
    }

    /// The other voter of two, when the memberships in force and committed need me: whatever was committed is in
    /// my log then (design/membership.md 3.1), also while the membership changes between {me} and {me, peer}, or
    /// from three to {me, peer}: the third is asked no more as soon as the first half of that change is committed.
    fn pair(&self) -> Option<RaftId> {
        let (now, known, me) = (&self.effective, &self.durable.committed, self.me.id);
        let mine = |v: &Voters| v.at >= self.durable.since && v.need(me);
        let other = |v: &Voters| v.sets.last()?.iter().find(|id| **id != me).copied();
        let before = |v: &Voters| v.other_than(me).next();
        let peer = other(now).or_else(|| before(now)).filter(|_| mine(now) && mine(known))?;
        let agree = other(known).is_none_or(|id| id == peer);
        (agree && now.suffice(me, peer) && known.suffice(me, peer)).then_some(peer)
    }

    fn head(&self) -> Option<GenerationId> {
        self.durable.lineage.generations().last().map(|g| g.id)
    }

    fn marked(&self, peer: RaftId) -> bool {
        self.has(Flaw::NoCurrency)
            || self.known_by.contains(&peer)
            || self.mark.iter().any(|m| m.peer == peer || m.peer == self.me.id)
    }

    /// Of two, the peer must have heard of this start of ours: a leader whose quorum rests on our former
    /// self may be about to go on without us.
    fn proved(&self) -> bool {
        self.partner().is_none_or(|peer| self.marked(peer))
    }

    /// The only other voter in force.
    fn partner(&self) -> Option<RaftId> {
        let mut others = self.effective.other_than(self.me.id);
        let peer = others.next()?;
        others.all(|id| id == peer).then_some(peer)
    }

    /// Our log is not that of a voter in the newest generation.
    fn outside(&self) -> bool {
        let votes = self.effective.at >= self.durable.since && self.effective.has(self.me.id);
        !votes && self.durable.intent.is_none()
    }

    fn voters(&mut self, effective: Voters, committed: Voters, out: &mut Vec<Effect>) {
        self.effective = effective;
        let highest =
            self.effective.all().last().copied().unwrap_or(0).max(self.durable.highest_id);
        let news =
            committed.at > self.durable.committed.at || self.durable.committed.sets.is_empty();
        if (news && committed != self.durable.committed) || highest != self.durable.highest_id {
            self.durable.highest_id = highest;
            if news {
                self.durable.committed = committed;
            }
            self.store(out);
        }
        if self.learner.is_some_and(|id| self.effective.has(id)) {
            self.learner = None;
        }
    }

    fn logged(&mut self, generations: Vec<Generation>, at: u64, out: &mut Vec<Effect>) {
        let mut grown = false;
        for generation in generations {
            match self.durable.lineage.push(generation) {
                Ok(new) => grown |= new,
                Err(gap) => out.push(Effect::Alarm(Alarm::BrokenLineage(gap))),
            }
        }
        if grown {
            self.durable.since = at;
            self.store(out);
            self.unmark(out);
        }
    }

    fn confirm(&mut self, evidence: Evidence, id: GenerationId) {
        let known = self.heard.get(&evidence.peer).copied().unwrap_or(0);
        if evidence.incarnation >= known || self.has(Flaw::OldConfirmation) {
            self.confirmed.insert(evidence.peer, (evidence, id));
        }
    }

    /// Once per loss; trying again is for whoever fences.
    fn ask_fencing(&mut self, out: &mut Vec<Effect>) {
        let wanted = self.may_take_over().filter(|peer| self.lost.contains(peer));
        if let Some(peer) = wanted.filter(|peer| self.asked != Some(*peer)) {
            let incarnation = self.heard.get(&peer).copied().unwrap_or(0);
            self.asked = wanted;
            out.push(Effect::Fence { peer, incarnation });
        }
    }

    /// All but the confirmation.
    fn may_take_over(&self) -> Option<RaftId> {
        let free = self.durable.intent.is_none()
            && self.durable.diverged.is_none()
            && self.stale.is_none();
        self.pair().filter(|peer| free && (self.marked(*peer) || self.word.is_some()))
    }

    fn without_quorum(&self) -> Result<(), Refused> {
        if self.durable.intent.is_some() {
            Err(Refused::UnderWay)
        } else if self.service() == Service::Full {
            Err(Refused::HasQuorum)
        } else {
            Ok(())
        }
    }

    fn forced(&self, operator: String, accept: bool) -> Result<Cause, Refused> {
        self.without_quorum()?;
        if self.outside() {
            return Err(Refused::NotVoter);
        }
        let mut others = self.effective.all();
        others.extend(self.durable.committed.all());
        others.remove(&self.me.id);
        let living: BTreeSet<RaftId> =
            others.iter().filter(|id| !self.confirmed.contains_key(id)).copied().collect();
        let off = self.pair().and_then(|peer| self.confirmed.get(&peer));
        match off {
            Some((evidence, _)) if self.stale.is_none() => {
                let currency = Currency::Word { operator };
                Ok(Cause::Fenced { evidence: evidence.clone(), currency })
            }
            // A majority that lives commits without a new generation and would be taken for stale.
            _ if !living.is_empty() && (!accept || others.len() > 1) => {
                Err(Refused::MayLive { peers: living })
            }
            _ if accept => Ok(Cause::Forced { operator }),
            _ => Err(Refused::MayMiss),
        }
    }

    fn merge(&mut self, winner: GenerationId, out: &mut Vec<Effect>) -> Result<(), Refused> {
        let foreign = self.durable.diverged.clone().ok_or(Refused::NotDiverged)?;
        if self.head() == Some(winner) {
            self.disown(out);
            return Ok(());
        }
        if foreign.lineage.last() != Some(&winner) {
            return Err(Refused::UnknownWinner);
        }
        self.stale = Some(Stale { by: foreign.peer, theirs: foreign.lineage, stopped: false });
        self.turned_to = None;
        self.unmark(out);
        out.push(Effect::GiveUp { to: foreign.peer });
        Ok(())
    }

    fn decide(&mut self, cause: Cause, id: GenerationId, at_ms: u64, out: &mut Vec<Effect>) {
        let evicted = match &cause {
            Cause::Fenced { evidence, .. } => BTreeSet::from([evidence.peer]),
            Cause::Founded | Cause::Forced { .. } => {
                let mut others = self.effective.all();
                others.extend(self.durable.committed.all());
                others.remove(&self.me.id);
                others
            }
        };
        let number = self.durable.lineage.next();
        let by = self.me.id;
        self.durable.intent = Some(Generation { number, id, by, evicted, cause, at_ms });
        self.confirmed.clear();
        self.word = None;
        self.learner = None;
        self.store(out);
        out.push(Effect::Ghosts(self.ghosts()));
    }

    /// What follows from all facts together.
    fn settle(&mut self, before: Option<&Step>, out: &mut Vec<Effect>) {
        let mut before = before.cloned();
        let ready = self.may_take_over();
        if let Some((evidence, id)) = ready.and_then(|peer| self.confirmed.remove(&peer)) {
            let operator = self.word.take().filter(|_| !self.marked(evidence.peer));
            let currency = operator.map_or(Currency::Up, |operator| Currency::Word { operator });
            let at_ms = evidence.at_ms;
            self.decide(Cause::Fenced { evidence, currency }, id, at_ms, out);
            before = None;
        }
        let mine = |v: &Voters| v.only(self.me.id) && v.at > self.durable.since;
        let intent = self.durable.intent.as_ref().map(|g| g.id);
        if intent.is_some_and(|id| self.durable.lineage.get(id).is_some())
            && mine(&self.effective)
            && self.durable.committed == self.effective
        {
            self.durable.intent = None;
            self.store(out);
            out.push(Effect::Ghosts(BTreeSet::new()));
        }
        let only = |v: &Voters| v.only(self.me.id);
        let alone = only(&self.effective) && only(&self.durable.committed) && !self.outside();
        if self.leads && alone && self.stale.is_none() && self.mark.is_none() {
            self.set_mark(self.me.id, out);
        }
        // Somebody votes with us again: a divergence is over, with or without a merge.
        let joined = self.effective.other_than(self.me.id).next().is_some() && self.settled();
        if joined && self.durable.intent.is_none() {
            self.disown(out);
        }
        let due = self.step();
        if due != before {
            out.extend(due.map(Effect::Do));
        }
        let back = |stale: &Stale| self.durable.lineage.ids().starts_with(&stale.theirs);
        if self.stale.as_ref().is_some_and(back) && self.settled() {
            self.stale = None;
        }
        self.ask_fencing(out);
    }

    /// Our line goes on, the other one lost.
    fn disown(&mut self, out: &mut Vec<Effect>) {
        if let Some(foreign) = self.durable.diverged.take() {
            self.durable.disowned.extend(foreign.lineage.last());
            self.store(out);
        }
    }

    /// I am a voter of the newest generation, and that is committed.
    fn settled(&self) -> bool {
        let votes = |v: &Voters| v.at >= self.durable.since && v.has(self.me.id);
        votes(&self.effective) && votes(&self.durable.committed)
    }

    fn store(&self, out: &mut Vec<Effect>) {
        out.push(Effect::Store(Box::new(self.durable.clone())));
    }

    /// I was up when the cluster had quorum: with this peer, or as the only voter.
    fn set_mark(&mut self, peer: RaftId, out: &mut Vec<Effect>) {
        let Some(head) = self.head() else { return };
        let mark = Mark { boot: self.me.boot, head, peer, heard: self.heard.clone() };
        if self.mark.as_ref() != Some(&mark) {
            out.push(Effect::Mark(Some(mark.clone())));
            self.mark = Some(mark);
        }
    }

    fn unmark(&mut self, out: &mut Vec<Effect>) {
        self.known_by.clear();
        if self.mark.take().is_some() {
            out.push(Effect::Mark(None));
        }
    }
}
