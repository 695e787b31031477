//! The node's controller: what this node does next, given what it knows. Pure; `crmd` is its shell.
//!
//! It decides the node's mode (lead, follow, go on alone, stop), drives transitions when it may, runs the
//! node's own operations one at a time per resource, and guards promotion of replicated volumes by the
//! in-sync record. Events in, effects out; time is an argument.

mod fences;
mod lead;
mod own;
mod view;
mod volumes;
mod votes;
mod watchdog;

use crate::cib::Role;
use crate::fencing::{Abilities, Answer, Record, Task};
use crate::plan::{ActionKind, OpSpec, Plan};
use crate::status::{NodeStatus, OpResult, ResourceHistory, Token};
use crate::store::{Command, FenceRequest, State, VolumeRecord};
use fences::Fences;
use lead::Lead;
use own::Own;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use volumes::Volumes;
use votes::Ballot;
use watchdog::Guard;

pub use volumes::VolumeSeen;
pub use votes::Votes;
pub use watchdog::{CONDEMNED, Feed, PROMISE};

/// How long a node without a leader waits before it acts on the loss of quorum, in milliseconds.
pub const QUORUM_GRACE_MS: u64 = 1_500;
/// How long a restarted daemon waits for the others before it concludes anything, and how long the others wait for the heartbeats of one that has
/// told them by the log that it is here, in milliseconds.
pub const START_GRACE_MS: u64 = 3_000;
/// Pause after a transition that failed or was refused, in milliseconds.
pub const RETRY_MS: u64 = 250;

/// Longest time between two looks at whether time alone has changed something (failures expire), in milliseconds.
pub const RECHECK_MS: u64 = 15_000;

/// What this node may decide now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Has no leader and concludes nothing yet.
    Joining,
    /// Leads: plans for all nodes.
    Leader,
    /// Another node leads.
    Follower,
    /// Runs on by itself from its last state (two nodes, no-quorum-policy=ignore, peer gone).
    Alone,
    /// No right to run: does what no-quorum-policy says, with its own resources only.
    NoQuorum,
}

/// A peer as heartbeats show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peer {
    /// Heartbeats arrive.
    pub alive: bool,
    /// Session of its daemon.
    pub session: u64,
}

/// Consensus as membership shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// Who leads, if known.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// A majority has been heard from just now.
    pub quorate: bool,
    /// This node leads.
    pub me_leader: bool,
    /// Members that vote now: after a takeover (ADR-0010) one of two alone.
    pub voters: BTreeSet<String>,
    /// The others have gone on without this node: it stops what it runs, whatever `no-quorum-policy` says.
    pub stale: bool,
}

/// What happens to a node.
#[derive(Debug)]
pub enum Event {
    /// The replicated state moved on.
    State(Arc<State>),
    /// Consensus changed.
    Leadership(Leadership),
    /// Heartbeats changed.
    Peers(BTreeMap<String, Peer>),
    /// Nodes whose data plane is connected to ours: alive, whatever their daemon does.
    DataPeers(BTreeSet<String>),
    /// A volume of this node changed.
    Volume(VolumeSeen),
    /// A primary here lost these peers; writes wait for permission to leave them behind.
    MayDrop {
        /// Volume.
        volume: String,
        /// Peers.
        peers: BTreeSet<String>,
    },
    /// These peers have every acknowledged write again.
    Resynced {
        /// Volume.
        volume: String,
        /// Peers.
        peers: BTreeSet<String>,
    },
    /// An operation of this node ended.
    OpEnded {
        /// Which.
        call_id: u64,
        /// How.
        result: Box<OpResult>,
    },
    /// A planner orders work. Answered by [`Effect::AnswerOrder`].
    Ordered {
        /// For the answer.
        reply: u64,
        /// Session it was meant for.
        session: u64,
        /// The mark to report back.
        token: Token,
        /// What.
        work: ActionKind,
    },
    /// A node answered our order.
    OrderAnswered {
        /// Mark of the order.
        token: Token,
        /// It will do it.
        accepted: bool,
    },
    /// The first proposal in the queue came to its end (applied, stale or refused).
    Proposed,
    /// An agent (or the operator) sets a transient attribute of this node.
    SetAttr {
        /// Name.
        name: String,
        /// Value; `None` removes.
        value: Option<String>,
    },
    /// What the fence agents of the configured devices can do.
    FenceAgents(BTreeMap<String, Abilities>),
    /// An attempt to fence has ended.
    FenceAnswered {
        /// Which.
        call: u64,
        /// How.
        answer: Answer,
    },
    /// A person on this node wants a node fenced, or says that it is off.
    FencingAsked(FenceRequest),
    /// This node's watchdog is armed: so many milliseconds after the end of its lease ([`Controller::feeding`]) it has fired. `None`: it is
    /// not armed any more.
    Watchdog(Option<u64>),
    /// Service quorum changed; `None` while no option of it is set.
    Votes(Option<Votes>),
    /// The others have removed this node from the cluster; in words, for people. It stops what it runs.
    Expelled(String),
    /// Time passed.
    Tick,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Propose to the log: in order, one after another, retried until it is settled; then [`Event::Proposed`].
    Propose(Box<Command>),
    /// Drop all queued proposals (their content is in the status that will be published).
    ForgetProposals,
    /// Put this session into our heartbeats.
    SetSession(u64),
    /// Send an order. Answered by [`Event::OrderAnswered`].
    Order {
        /// To whom.
        node: String,
        /// Session it is meant for.
        session: u64,
        /// Mark.
        token: Token,
        /// What.
        work: ActionKind,
    },
    /// Answer an order that came in.
    AnswerOrder {
        /// Which.
        reply: u64,
        /// Accepted, or why not.
        result: Result<(), String>,
    },
    /// Run an operation here. Answered by [`Event::OpEnded`].
    Run {
        /// For the answer.
        call_id: u64,
        /// What.
        spec: Box<OpSpec>,
    },
    /// Keep these records on this node's disk, in place of those kept before. Durable before any later effect is carried out:
    /// they are what a node that went on alone knows better than the log (ADR-0004).
    KeepRecords(BTreeMap<String, VolumeRecord>),
    /// Tell the data plane that it may go on without these peers.
    DropPeers {
        /// Volume.
        volume: String,
        /// Peers.
        peers: BTreeSet<String>,
        /// Epoch of the record that says so.
        epoch: u64,
    },
    /// Have `node` run a fence agent. Answered by [`Event::FenceAnswered`].
    Fence {
        /// For the answer.
        call: u64,
        /// Who runs it.
        node: String,
        /// What is asked of which device.
        task: Task,
        /// Time limit in milliseconds.
        limit_ms: u64,
    },
    /// The answer is not wanted any more: kill the agent.
    CancelFence {
        /// Which.
        call: u64,
        /// Who runs it.
        node: String,
    },
    /// Fencing has ended: for the journal, and, if `off`, for membership (ADR-0010).
    Fenced {
        /// What came of it.
        record: Box<Record>,
        /// The node is known to have been off, or reset; less would be to be cut off from storage only.
        off: bool,
    },
    /// This node has to go, now and whatever comes later: its watchdog is not fed any more ([`Controller::feeding`]). Without a watchdog it is
    /// rebooted, where that is allowed.
    Suicide {
        /// Why.
        why: String,
    },
    /// Others have gone on without this node, and nothing runs here any more.
    Yielded,
    /// Remember (until the next reboot) that this node has been part of a quorate cluster since it booted.
    BecameCurrent,
}

/// What the controller starts from.
#[derive(Debug, Clone)]
pub struct Start {
    /// This node's name.
    pub me: String,
    /// First session: larger than any earlier one of this node (e.g. wall clock milliseconds).
    pub session: u64,
    /// This node has been in a quorate cluster since it booted (see [`Effect::BecameCurrent`]).
    pub current: bool,
    /// What [`Effect::KeepRecords`] kept last.
    pub records: BTreeMap<String, VolumeRecord>,
    /// Random, for delays.
    pub dice: u64,
    /// Now.
    pub now_ms: u64,
}

/// The controller of one node.
#[derive(Debug)]
pub struct Controller {
    me: String,
    now_ms: u64,
    wall_ms: u64,
    started_ms: u64,
    lost_ms: u64,
    quorate_ms: u64,
    current: bool,
    /// Session in which it was told that nothing runs here, while others have gone on without this node.
    yielded: Option<u64>,
    session: u64,
    published: bool,
    mode: Mode,
    state: Arc<State>,
    leadership: Leadership,
    ballot: Ballot,
    peers: BTreeMap<String, Peer>,
    /// Sessions that the log has told of while this daemon listened, and when it did.
    greetings: BTreeMap<String, (u64, u64)>,
    data_peers: BTreeSet<String>,
    own: Own,
    volumes: Volumes,
    /// Nodes that died, with the session that died with them: what the log says of that session is void.
    gone: BTreeMap<String, u64>,
    /// All of `gone` is proposed to the log.
    told_gone: bool,
    lead: Lead,
    fences: Fences,
    guard: Guard,
    /// The others have removed this node: their words.
    expelled: Option<String>,
    pending: VecDeque<Command>,
    effects: VecDeque<Effect>,
}

impl Controller {
    /// A controller that knows nothing yet.
    #[must_use]
    pub fn new(start: Start) -> Self {
        let mut controller = Self {
            me: start.me,
            now_ms: start.now_ms,
            wall_ms: 0,
            started_ms: start.now_ms,
            lost_ms: start.now_ms,
            quorate_ms: start.now_ms,
            current: start.current,
            yielded: None,
            session: start.session,
            published: false,
            mode: Mode::Joining,
            state: Arc::default(),
            leadership: Leadership::default(),
            ballot: Ballot::default(),
            peers: BTreeMap::new(),
            greetings: BTreeMap::new(),
            data_peers: BTreeSet::new(),
            own: Own::default(),
            volumes: Volumes::with_records(start.records),
            gone: BTreeMap::new(),
            told_gone: true,
            lead: Lead::default(),
            fences: Fences::with_dice(start.dice),
            guard: Guard::default(),
            expelled: None,
            pending: VecDeque::new(),
            effects: VecDeque::new(),
        };
        controller.own.status.session = controller.session;
        controller.effects.push_back(Effect::SetSession(controller.session));
        controller
    }

    /// Takes in an event. `now_ms` is monotonic, `wall_ms` the wall clock (failure expiry, display).
    pub fn handle(&mut self, now_ms: u64, wall_ms: u64, event: Event) {
        self.looked_after(now_ms, now_ms.saturating_sub(self.now_ms));
        self.now_ms = now_ms;
        self.wall_ms = wall_ms;
        match event {
            Event::State(state) => self.adopt_state(state),
            Event::Leadership(leadership) => self.adopt_leadership(leadership),
            Event::Peers(peers) => self.peers = peers,
            Event::DataPeers(nodes) => self.data_peers = nodes,
            Event::Volume(seen) => self.volume_seen(&seen),
            Event::MayDrop { volume, peers } => self.volumes.ask(volume, peers),
            Event::Resynced { volume, peers } => self.volumes.resynced(volume, peers),
            Event::OpEnded { call_id, result } => self.op_ended(call_id, *result),
            Event::Ordered { reply, session, token, work } => {
                let result = self.ordered(session, token, work);
                self.effects.push_back(Effect::AnswerOrder { reply, result });
            }
            Event::OrderAnswered { token, accepted } => self.lead.order_answered(token, accepted),
            Event::Proposed => {
                self.pending.pop_front();
            }
            Event::SetAttr { name, value } => self.set_attr(&name, value),
            Event::FenceAgents(abilities) => self.fence_agents_told(abilities),
            Event::FenceAnswered { call, answer } => self.fence_answered(call, answer),
            Event::FencingAsked(request) => self.fencing_asked(request),
            Event::Watchdog(reset_ms) => self.watchdog_told(reset_ms),
            Event::Votes(votes) => self.votes_told(votes),
            Event::Expelled(words) => self.expelled = Some(words),
            Event::Tick => {}
        }
        self.settle();
    }

    /// The next effect, if any.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Event::Tick`] is due at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let grace = (self.mode == Mode::Joining || !self.leadership.quorate)
            .then(|| self.grace_ends())
            .filter(|at| *at > self.now_ms);
        let listening = Some(self.listening_ms()).filter(|at| *at > self.now_ms);
        let hears = self.hears_until();
        let expected = self.greetings.keys().filter_map(|node| self.expected_until(node)).min();
        let own = self.own.next_due();
        let outvoted = self.outvoted_from().filter(|at| *at > self.now_ms);
        let armed = self.disarmed().map(|d| self.now_ms + (d.until_ms - self.wall_ms));
        [
            grace,
            listening,
            hears,
            expected,
            own,
            outvoted,
            armed,
            self.lead.deadline(),
            self.fence_due(),
            self.look_due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The mode.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The replicated state with what this node knows better (its own status, local records, peers gone).
    #[must_use]
    pub fn view(&self) -> State {
        let mut state = self.local_state();
        state.status.removed = self.state.removed(&state.cib, &state.status);
        State { revisions: self.state.revisions.clone(), ..state }
    }

    /// What a daemon that is told to end tells the others first: that nothing runs on its node. Then nobody has to fence it. `None` when
    /// something runs or is being done here (it goes on without its daemon), or nobody would hear it.
    #[must_use]
    pub fn farewell(&self) -> Option<Command> {
        let heard = self.leadership.quorate && self.published;
        (heard && self.nothing_runs())
            .then(|| Command::NodeGone { node: self.me.clone(), session: self.session })
    }

    /// This node was removed, and nothing runs on it (any more): its daemon may end. The words for people.
    #[must_use]
    pub fn may_go(&self) -> Option<&str> {
        self.expelled.as_deref().filter(|_| self.nothing_runs())
    }

    /// Nothing runs here for certain, and nothing is being done.
    fn nothing_runs(&self) -> bool {
        let stopped = |history: &ResourceHistory| {
            history.pending.is_none() && history.role == Some(Role::Stopped)
        };
        let own = &self.own.status.resources;
        // What was not looked for may run: a daemon that has just started knows nothing.
        let known = |p: &&crate::cib::Primitive| own.get(&p.id).is_some_and(stopped);
        let all_known = self.state.cib.primitives().iter().all(known);
        !self.own.changing() && all_known && own.values().all(stopped)
    }

    /// Tells once that nothing runs here any more, when others have gone on without this node.
    fn yield_if_stale(&mut self) {
        if !self.leadership.stale {
            self.yielded = None;
        } else if self.yielded != Some(self.session) && self.nothing_runs() {
            self.yielded = Some(self.session);
            self.effects.push_back(Effect::Yielded);
        }
    }

    /// The plan that this node would make now; empty when there is nothing to do.
    #[must_use]
    pub fn plan_now(&self) -> Plan {
        self.make_plan()
    }

    /// A transition is being executed by this node.
    #[must_use]
    pub const fn busy(&self) -> bool {
        self.lead.running()
    }

    /// A live migration is under way somewhere: nothing is planned about it, and all is not done.
    #[must_use]
    pub fn moving(&self) -> bool {
        let nodes = self.state.status.nodes.values().chain([&self.own.status]);
        nodes.flat_map(|n| n.resources.values()).any(|history| history.pending.is_some())
    }

    /// Online for planning: alive and its status is of its present session.
    #[must_use]
    pub fn online(&self, node: &str) -> bool {
        self.node_view(node).online
    }

    /// Nothing about this node is in the air: it is online, or known to be gone.
    #[must_use]
    pub fn settled(&self, node: &str) -> bool {
        let view = self.node_view(node);
        view.online || (view.clean && !self.alive(node))
    }

    /// In words, what the node waits for; `None` when it waits for nothing.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        self.waiting_for()
    }

    fn settle(&mut self) {
        self.update_mode();
        self.settle_watchdog();
        self.settle_fencing();
        self.note_gone();
        // The records first: whoever sees this node's status has to know already which replicas it left behind.
        if self.publish_local_records() {
            self.publish();
        }
        self.settle_volumes();
        self.release_migrations();
        self.start_due_operations();
        self.drive();
        self.yield_if_stale();
    }

    fn adopt_state(&mut self, state: Arc<State>) {
        let before = std::mem::replace(&mut self.state, state);
        self.note_greetings(&before);
        if self.leadership.quorate && self.published {
            self.adopt_own_status();
        }
    }

    /// Whoever tells the log of a new session lives, and may be heard there before its heartbeats are. What this daemon finds in the log when it
    /// starts is no news.
    fn note_greetings(&mut self, before: &State) {
        let session = |state: &State, node: &str| state.status.nodes.get(node).map(|n| n.session);
        self.greetings.retain(|node, (of, _)| session(&self.state, node) == Some(*of));
        if before.members.is_empty() {
            return;
        }
        for (node, status) in &self.state.status.nodes {
            if status.session != 0 && session(before, node) != Some(status.session) {
                self.greetings.insert(node.clone(), (status.session, self.now_ms));
            }
        }
    }

    /// Until when a node whose session has come by the log counts as alive without heartbeats of that session.
    fn expected_until(&self, node: &str) -> Option<u64> {
        let heard = self.peers.get(node).map_or(0, |peer| peer.session);
        let (session, at) = *self.greetings.get(node)?;
        (heard < session).then_some(at + START_GRACE_MS).filter(|end| self.now_ms < *end)
    }

    /// While quorate the log is the truth about this node too (cleanups come that way), plus what is still on its way there.
    fn adopt_own_status(&mut self) {
        let arriving = self.pending.iter().any(|c| matches!(c, Command::SyncNode { .. }));
        let logged = self.state.status.nodes.get(&self.me).filter(|n| n.session == self.session);
        let Some(logged) = logged else {
            if !arriving {
                // Taken for lost while it lived: it tells again what it runs.
                self.give_up_session();
                self.published = false;
            }
            return;
        };
        let mut scratch = State::default();
        scratch.status.nodes.insert(self.me.clone(), logged.clone());
        for command in &self.pending {
            scratch.apply(command.clone());
        }
        if let Some(status) = scratch.status.nodes.remove(&self.me) {
            self.own.status = status;
        }
    }

    fn adopt_leadership(&mut self, leadership: Leadership) {
        if leadership.quorate == self.leadership.quorate {
            self.leadership = leadership;
            return;
        }
        self.leadership = leadership;
        if self.leadership.quorate {
            self.quorate_ms = self.now_ms;
            if !self.current {
                self.current = true;
                self.effects.push_back(Effect::BecameCurrent);
            }
        } else {
            self.lost_ms = self.now_ms;
            self.give_up_session();
            // What was on its way may or may not have arrived: it is in our own status, published afresh later.
            self.pending.clear();
            self.effects.push_back(Effect::ForgetProposals);
            self.published = false;
            self.told_gone = self.gone.is_empty();
        }
    }

    /// Without a quorum the log no longer hears what happens here: what it has of this node ends with the session, and whoever gets to
    /// lead must see by the heartbeats that it does.
    fn give_up_session(&mut self) {
        if self.published {
            self.session += 1;
            self.own.status.session = self.session;
            self.effects.push_back(Effect::SetSession(self.session));
        }
        self.volumes.forget_held();
        self.forget_migrations();
    }

    /// Whoever plans takes it that a lost node runs nothing (any more), once that may be said: then the log must not say otherwise when the
    /// node is heard again.
    fn note_gone(&mut self) {
        let known = |c: &Self, node: &str| c.state.status.nodes.get(node).map_or(0, |s| s.session);
        let gone = std::mem::take(&mut self.gone);
        self.gone = gone.into_iter().filter(|(n, session)| known(self, n) == *session).collect();
        if matches!(self.mode, Mode::Leader | Mode::Alone) {
            let lost: Vec<String> = self
                .others()
                .filter(|n| !self.gone.contains_key(*n) && known(self, n) != 0)
                .filter(|n| !self.alive(n) && self.node_view(n).clean)
                .cloned()
                .collect();
            for node in lost {
                let session = known(self, &node);
                self.gone.insert(node, session);
                self.told_gone = false;
            }
        }
        if self.leadership.quorate && !self.told_gone {
            self.told_gone = true;
            for (node, session) in self.gone.clone() {
                self.propose(Command::NodeGone { node, session });
            }
        }
    }

    /// With a quorum, publishes this node's status under a session of its own, once.
    fn publish(&mut self) {
        let node = self.state.members.get(&self.me).is_some_and(|member| member.role.is_node());
        if !self.leadership.quorate || self.published || !node {
            return; // a witness has no status
        }
        if self.own.changing() {
            return; // what runs here is known when the operation has ended
        }
        if self.state.status.nodes.get(&self.me).is_some_and(|n| n.session >= self.session) {
            let logged = self.state.status.nodes.get(&self.me).map_or(0, |n| n.session);
            self.session = logged.max(self.session) + 1;
            self.effects.push_back(Effect::SetSession(self.session));
        }
        self.own.status.session = self.session;
        self.own.status.last_seq = self.own.seq;
        self.published = true;
        let status = Box::new(self.own.status.clone());
        self.propose(Command::SyncNode { node: self.me.clone(), status });
    }

    fn propose(&mut self, command: Command) {
        self.pending.push_back(command.clone());
        self.effects.push_back(Effect::Propose(Box::new(command)));
    }

    fn grace_ends(&self) -> u64 {
        self.listening_ms().max(self.lost_ms + QUORUM_GRACE_MS)
    }

    fn update_mode(&mut self) {
        let mode = if self.leadership.stale || self.expelled.is_some() {
            Mode::NoQuorum
        } else if self.leadership.quorate {
            match self.leadership.me_leader {
                true if self.outvoted() && !self.outvoted_for_good() => self.mode_during_grace(),
                true => Mode::Leader,
                false => Mode::Follower,
            }
        } else if !self.current || self.state.members.is_empty() {
            Mode::Joining
        } else if self.may_go_alone() {
            // Heartbeats have just begun after a start: give the peer the time to be heard.
            if self.now_ms >= self.listening_ms() { Mode::Alone } else { Mode::Joining }
        } else {
            if self.mode == Mode::Alone {
                // The peer is back, by whatever sign: give the two of them the time to agree on a leader.
                self.lost_ms = self.now_ms;
            }
            if self.now_ms >= self.grace_ends() { Mode::NoQuorum } else { self.mode_during_grace() }
        };
        if mode != self.mode {
            self.mode = mode;
            self.lead.mode_changed();
        }
    }

    const fn mode_during_grace(&self) -> Mode {
        match self.mode {
            // A mode that has been given up is not taken back by a pause.
            Mode::NoQuorum => Mode::NoQuorum,
            Mode::Joining | Mode::Leader | Mode::Follower | Mode::Alone => Mode::Joining,
        }
    }

    fn may_go_alone(&self) -> bool {
        // Two members: with fencing the survivor goes on, and takes over when the other one is confirmed off (votequorum's two_node). Without it,
        // only where the operator has said that it may, or where the other one is a witness, which runs nothing. A witness itself never does.
        let ignores = self.state.cib.properties.get("no-quorum-policy") == Some("ignore");
        (self.state.members.len() == 2 || self.one_of_the_last_two())
            && !self.outvoted()
            && !self.recounted()
            && !self.state.is_witness(&self.me)
            && (ignores || self.fencing_wanted() || self.others().next().is_none())
            && self.state.members.keys().all(|n| *n == self.me || !self.alive(n))
    }

    fn fencing_wanted(&self) -> bool {
        self.state.cib.fencing_enabled()
    }

    /// The other members that run resources.
    fn others(&self) -> impl Iterator<Item = &String> {
        self.state.nodes().filter(|n| **n != self.me)
    }

    /// Alive by any evidence: heartbeats, a data-plane connection, a majority that cannot be without it, or what it has just told the log. A
    /// node that has not been heard yet is not dead either, as long as this daemon has just begun to listen.
    fn alive(&self, node: &str) -> bool {
        let heard = self.peers.get(node);
        node == self.me
            || heard.is_some_and(|p| p.alive)
            || self.data_peers.contains(node)
            || self.needed(node)
            || self.expected_until(node).is_some()
            || (heard.is_none_or(|p| p.session == 0) && self.now_ms < self.listening_ms())
    }

    /// This node and that one vote, nobody else: a quorum cannot be without it.
    fn needed(&self, node: &str) -> bool {
        let voters = &self.leadership.voters;
        self.leadership.quorate
            && voters.len() == 2
            && [node, &self.me].iter().all(|n| voters.contains(*n))
    }

    /// Until then silence means nothing.
    const fn listening_ms(&self) -> u64 {
        self.started_ms + START_GRACE_MS
    }

    fn waiting_for(&self) -> Option<String> {
        let members = self.state.members.keys().filter(|n| **n != self.me);
        let missing: Vec<&str> = members.filter(|n| !self.alive(n)).map(String::as_str).collect();
        let unclean = missing.iter().find(|node| !self.node_view(node).clean);
        let unclean = unclean.map(|node| (*node).to_owned());
        let missing = missing.join(", ");
        match self.mode {
            _ if self.leadership.stale => Some(
                "the others have gone on without this node: it stops what it runs, and asks to be taken back"
                    .to_owned(),
            ),
            _ if self.outvoted() || (self.mode == Mode::NoQuorum && self.carried()) => {
                self.words_of_votes()
            }
            Mode::Leader | Mode::Follower => None,
            Mode::Joining if !self.current && !missing.is_empty() => Some(format!(
                "waiting for {missing} (wait_for_all): this node has not been in a quorate cluster since it booted"
            )),
            Mode::Joining => Some("waiting for a leader".to_owned()),
            Mode::Alone if self.others().next().is_none() => Some(format!(
                "the witness {missing} is gone: running on; the configuration is read-only until it is back"
            )),
            Mode::Alone if self.fencing_wanted() && unclean.is_some() => {
                unclean.map(|node| self.fencing_words(&node))
            }
            Mode::Alone if self.fencing_wanted() => Some(format!(
                "{missing} is gone and runs nothing: running on alone; the configuration is read-only until it is back"
            )),
            Mode::Alone => Some(format!(
                "{missing} is gone: running on alone (no-quorum-policy=ignore, fencing off); the configuration is read-only until it is back"
            )),
            Mode::NoQuorum if self.expelled.is_some() => self
                .expelled
                .as_ref()
                .map(|words| format!("{words}; it stops what it runs, and then its daemon ends")),
            Mode::NoQuorum if missing.is_empty() => {
                Some("no quorum: the others live, and there is no leader".to_owned())
            }
            Mode::NoQuorum => Some(format!("no quorum without {missing}")),
        }
    }

    fn set_attr(&mut self, name: &str, value: Option<String>) {
        if self.own.status.attrs.get(name) == value.as_ref() {
            return;
        }
        match &value {
            Some(value) => self.own.status.attrs.insert(name.to_owned(), value.clone()),
            None => self.own.status.attrs.remove(name),
        };
        if self.leadership.quorate && self.published {
            self.propose(Command::SetAttrs {
                node: self.me.clone(),
                session: Some(self.session),
                attrs: vec![(name.to_owned(), value)],
            });
        }
    }

    /// This node's own status: the truth about it.
    #[must_use]
    pub const fn own_status(&self) -> &NodeStatus {
        &self.own.status
    }
}
