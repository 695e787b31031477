//! Calls between nodes: what every one of them carries, and who may talk to whom.

use super::{Alarm, Effect, Flaw, Foreign, Stale, Takeover};
use crate::lineage::{Cause, GenerationId, RaftId, Relation, relation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Raft.
    Vote,
    /// Raft.
    PreVote,
    /// Raft.
    Append,
    /// Raft.
    Snapshot,
    /// Raft: take over the leadership.
    Transfer,
    /// A write for the leader.
    Write,
    /// The leader has something run.
    Order,
    /// A sign of life.
    Heartbeat,
    /// What two lines that have parted say to each other, so that a person can merge them: served whatever the lines.
    Parley,
    /// A node that is no voter (any more) asks to be one.
    Rejoin {
        /// Its log is empty: it has forgotten what it voted for.
        empty: bool,
    },
}

impl Call {
    /// A stale node takes these from the newer side: they bring it up to date.
    fn brings_up(self) -> bool {
        match self {
            Self::Vote | Self::PreVote | Self::Append | Self::Snapshot | Self::Heartbeat => true,
            Self::Transfer | Self::Write | Self::Order | Self::Parley | Self::Rejoin { .. } => {
                false
            }
        }
    }

    fn votes(self) -> bool {
        matches!(self, Self::Vote | Self::PreVote)
    }
}

/// Goes with every call and with every answer, also with a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Greeting {
    /// The sender's generations, oldest first.
    pub lineage: Vec<GenerationId>,
    /// The sender's incarnation.
    pub incarnation: u64,
    /// The newest incarnation of the receiver that the sender has heard of.
    pub heard: Option<u64>,
}

/// Why a call is not served. The answer carries the greeting all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The caller has missed a generation.
    #[error(
        "the cluster has gone on without you: your lineage is stale, stop what you run and rejoin"
    )]
    Stale,
    /// This node has missed a generation.
    #[error("this node is stale: it has to rejoin first")]
    MineStale,
    /// Both sides went on.
    #[error(
        "diverged: both sides have gone on without the other; `crm cluster merge` makes one of them"
    )]
    Diverged,
    /// From an earlier start of the caller's daemon.
    #[error("a late message of an earlier start of the sender")]
    Late,
    /// The caller should ask the leader, or later.
    #[error("this node cannot take anybody back now")]
    NotNow,
    /// The caller's data directory was emptied.
    #[error("raft id {id} was a voter before its log was emptied: join under a new id")]
    IdUsed {
        /// The id.
        id: RaftId,
    },
}

impl Takeover {
    /// What to send with a call or an answer to `to`.
    #[must_use]
    pub fn greeting(&self, to: RaftId) -> Greeting {
        Greeting {
            lineage: self.line(),
            incarnation: self.me.incarnation,
            heard: self.heard.get(&to).copied(),
        }
    }

    /// Generations in the log and the one that is decided.
    pub(super) fn line(&self) -> Vec<GenerationId> {
        let mut line = self.durable.lineage.ids();
        let decided = self.durable.intent.as_ref().map(|g| g.id);
        line.extend(decided.filter(|id| self.durable.lineage.get(*id).is_none()));
        line
    }

    /// Judges a call before it is served. The effects are carried out before the call is served or answered.
    pub fn receive(
        &mut self,
        call: Call,
        from: RaftId,
        greeting: &Greeting,
    ) -> (Result<(), Refusal>, Vec<Effect>) {
        let mut out = Vec::new();
        let verdict = match self.meet(call, from, greeting, &mut out) {
            Ok(_) if call == Call::Parley => Ok(()),
            Ok(Relation::Equal) => Ok(()),
            Ok(Relation::MineStale) if call.brings_up() => Ok(()),
            Ok(Relation::MineStale) => Err(Refusal::MineStale),
            Ok(Relation::TheirsStale) if matches!(call, Call::Rejoin { .. }) => Ok(()),
            Ok(Relation::TheirsStale) => Err(Refusal::Stale),
            Ok(Relation::Diverged { .. }) => Err(Refusal::Diverged),
            Err(refusal) => Err(refusal),
        };
        let verdict = match (call, verdict) {
            (Call::Rejoin { empty }, Ok(())) => self.take_back(from, empty, &mut out),
            (_, verdict) => verdict,
        };
        (verdict, out)
    }

    /// Takes in the greeting of an answer; whether the answer may be used.
    pub fn answered(
        &mut self,
        call: Call,
        from: RaftId,
        greeting: &Greeting,
    ) -> (bool, Vec<Effect>) {
        let mut out = Vec::new();
        let met = self.meet(call, from, greeting, &mut out);
        let parley = call == Call::Parley && met.is_ok();
        (parley || met == Ok(Relation::Equal) || met == Ok(Relation::TheirsStale), out)
    }

    fn meet(
        &mut self,
        call: Call,
        from: RaftId,
        greeting: &Greeting,
        out: &mut Vec<Effect>,
    ) -> Result<Relation, Refusal> {
        let known = self.heard.get(&from).copied().unwrap_or(0);
        if greeting.incarnation < known {
            return Err(Refusal::Late);
        }
        let relation = if self.has(Flaw::VotesOnly) && !call.votes() {
            Relation::Equal
        } else {
            relation(&self.line(), &greeting.lineage)
        };
        self.hear(from, greeting.incarnation, out);
        match relation {
            Relation::Equal => self.contact(from, greeting, out),
            Relation::TheirsStale => {}
            Relation::MineStale => self.become_stale(from, greeting, out),
            Relation::Diverged { common } => self.diverge(from, greeting, common, out),
        }
        Ok(relation)
    }

    /// The peer lives: nothing that was said of its being off before counts.
    pub(super) fn hear(&mut self, from: RaftId, incarnation: u64, out: &mut Vec<Effect>) {
        let news = self.heard.insert(from, incarnation) != Some(incarnation);
        if news {
            self.known_by.remove(&from);
        }
        if let Some(mark) = self.mark.as_mut().filter(|_| news) {
            mark.heard.insert(from, incarnation);
            out.push(Effect::Mark(Some(mark.clone())));
        }
        self.lost.remove(&from);
        self.asked = self.asked.filter(|peer| *peer != from);
        if self.has(Flaw::OldConfirmation) {
            return;
        }
        self.word = None;
        let off = self.confirmed.remove(&from);
        let decided = self.durable.intent.as_ref().and_then(|g| match &g.cause {
            Cause::Fenced { evidence, .. } => Some(evidence),
            Cause::Founded | Cause::Forced { .. } => None,
        });
        let same = off.iter().map(|(e, _)| e).chain(decided);
        if same.into_iter().any(|e| e.peer == from && e.incarnation == incarnation) {
            out.push(Effect::Alarm(Alarm::FencingDoubtful(from)));
        }
    }

    /// The peer knows this start of ours and is of our generation: it has not gone on without us, and
    /// before it does it must have us off.
    fn contact(&mut self, from: RaftId, greeting: &Greeting, out: &mut Vec<Effect>) {
        if greeting.heard != Some(self.me.incarnation) || self.outside() {
            return;
        }
        self.known_by.insert(from);
        if self.partner() == Some(from) {
            self.set_mark(from, out);
        }
    }

    fn become_stale(&mut self, by: RaftId, greeting: &Greeting, out: &mut Vec<Effect>) {
        if self.has(Flaw::StaleKeeps) {
            return;
        }
        self.unmark(out);
        self.confirmed.clear();
        match &mut self.stale {
            Some(stale) => stale.theirs.clone_from(&greeting.lineage),
            None => {
                let theirs = greeting.lineage.clone();
                self.stale = Some(Stale { by, theirs, stopped: false });
                self.turned_to = None;
                out.push(Effect::Yield { by });
            }
        }
    }

    fn diverge(&mut self, peer: RaftId, greeting: &Greeting, common: usize, out: &mut Vec<Effect>) {
        let lineage = greeting.lineage.clone();
        let disowned = lineage.last().is_some_and(|id| self.durable.disowned.contains(id));
        let foreign = Foreign { peer, lineage, common };
        if disowned || self.durable.diverged.as_ref() == Some(&foreign) {
            return;
        }
        self.durable.diverged = Some(foreign.clone());
        self.store(out);
        out.push(Effect::Alarm(Alarm::Diverged(foreign)));
    }

    fn take_back(
        &mut self,
        from: RaftId,
        empty: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if empty && from <= self.durable.highest_id && !self.has(Flaw::IdReused) {
            return Err(Refusal::IdUsed { id: from });
        }
        // One that was emptied has another id: its former one has to be evicted first, for with three voters, one of them gone for good,
        // neither could go on without the other. One that keeps its id finds room beside any others (a third node that came back, or
        // joined, before it did).
        let room = !empty || self.effective.other_than(self.me.id).all(|id| id == from);
        if !self.leads || !room || self.durable.intent.is_some() || self.stale.is_some() {
            return Err(Refusal::NotNow);
        }
        self.learner = Some(from);
        out.push(Effect::AddLearner(from));
        Ok(())
    }
}
