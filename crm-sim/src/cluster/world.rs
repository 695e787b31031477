//! The world: a queue of events in virtual time, drawn from a seed.

use super::machine::{Machine, result};
use crm_core::cib::{Cib, Replica as ReplicaDef, Role, Volume};
use crm_core::controller::{Controller, Effect, Event, Leadership, Peer, Start, VolumeSeen};
use crm_core::fencing::{Answer, Task, Verb};
use crm_core::plan::{ActionKind, OpSpec};
use crm_core::status::{Token, rc};
use crm_core::store::{Command, Edit, FenceRequest, Member, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Heartbeats must be missing so long before a node counts as dead.
const DEAD_MS: u64 = 1_000;
/// A data-plane connection is noticed as broken after this.
const DATA_DEAD_MS: u64 = 900;
/// An election takes this long.
const ELECTION_MS: u64 = 350;
/// Writes come this often.
const WRITE_MS: u64 = 20;

/// What can be done to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Power off.
    Kill(String),
    /// Power on.
    Boot(String),
    /// Kill the control-plane daemon; it is started again 300 ms later.
    KillDaemon(String),
    /// Cut this node from all others.
    Isolate(String),
    /// Join all links again.
    Heal,
    /// `crm node standby`.
    Standby(String),
    /// `crm node online`.
    Online(String),
    /// From now on the fence device does what it is told, or does not.
    Device {
        /// It works.
        works: bool,
    },
    /// `crm node fence NODE --confirm`, said on the first node.
    Confirm(String, String),
}

/// Something that must never happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

#[derive(Debug)]
enum Happening {
    Tick(String, u64),
    OpEnds(String, u64, u64, Box<OpSpec>),
    Settled(String, u64),
    Order(String, String, u64, Token, ActionKind),
    Answer(String, Token, bool),
    Look,
    Write,
    DaemonStarts(String, u64),
    DataStarts(String, u64),
    SyncDone(String, String),
    /// A machine that was fenced comes back.
    PowerOn(String),
    /// The fence device has had its time: who asked, in which life, call, who runs it, what.
    FenceEnds(String, u64, u64, String, Task),
    /// A resource moves to another machine by live migration: from, outages of that one so far, to, which.
    Leaves(String, u64, String, String),
}

/// The simulated cluster.
#[derive(Debug)]
pub struct World {
    now_ms: u64,
    seq: u64,
    random: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    machines: BTreeMap<String, Machine>,
    isolated: BTreeSet<String>,
    cut_since: BTreeMap<(String, String), u64>,
    known_sessions: BTreeMap<(String, String), u64>,
    state: State,
    leader: Option<String>,
    leader_since: u64,
    term: u64,
    proposals: BTreeMap<String, VecDeque<Command>>,
    orders_waiting: BTreeMap<u64, (String, Token)>,
    next_order: u64,
    acked: u64,
    asked: BTreeSet<String>,
    /// Fencing is on: what is cut off counts like the rest.
    fenced: bool,
    device_works: bool,
    /// Nodes that the device has cut off, in order.
    fencings: Vec<String>,
    violations: Vec<Violation>,
}

impl World {
    /// A cluster of `nodes` with this CIB; all machines are off.
    #[must_use]
    pub fn new(seed: u64, nodes: &[&str], mut cib: Cib) -> Self {
        let fenced = cib.properties.get("stonith-enabled") == Some("true");
        let mut state = State::default();
        state.apply(Command::Found { name: "sim".to_owned(), uuid: "sim".to_owned() });
        for (id, name) in (1u64..).zip(nodes) {
            let member = Member::new(id, format!("10.0.0.{id}:7631"));
            state.apply(Command::SetMember { name: (*name).to_owned(), member });
        }
        cib.nodes.clone_from(&state.cib.nodes);
        cib.volumes = vec![Volume {
            name: "r0".to_owned(),
            size_bytes: 1 << 20,
            device: "/dev/drbd0".to_owned(),
            replicas: nodes
                .iter()
                .map(|n| ReplicaDef { node: (*n).to_owned(), disk: "/d".to_owned() })
                .collect(),
            port: 7000,
            day0: 1,
            assume_clean: true,
        }];
        let base = state.version;
        let (author, message) = ("sim".to_owned(), "load".to_owned());
        state.apply(Command::CommitCib { base, cib: Box::new(cib), author, message, when_ms: 0 });
        let mut world = Self {
            now_ms: 1,
            seq: 0,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            queue: BTreeMap::new(),
            machines: nodes.iter().map(|n| ((*n).to_owned(), Machine::new())).collect(),
            isolated: BTreeSet::new(),
            cut_since: BTreeMap::new(),
            known_sessions: BTreeMap::new(),
            state,
            leader: None,
            leader_since: 0,
            term: 0,
            proposals: BTreeMap::new(),
            orders_waiting: BTreeMap::new(),
            next_order: 0,
            acked: 0,
            asked: BTreeSet::new(),
            fenced,
            device_works: true,
            fencings: Vec::new(),
            violations: Vec::new(),
        };
        world.at(1, Happening::Write);
        world
    }

    /// The world in words, for a failing test.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = format!("at {} ms, {} writes acknowledged\n", self.now_ms, self.acked);
        for (name, machine) in &self.machines {
            let daemon = machine.daemon.as_ref();
            let plan = daemon.map(Controller::plan_now);
            let lines = [
                format!("{name}: on {} {:?}", machine.on, machine.active),
                format!(
                    "  {:?} {:?}",
                    daemon.map(Controller::mode),
                    daemon.and_then(Controller::waiting)
                ),
                format!("  busy {:?} {:?}", daemon.map(Controller::busy), machine.replica),
                format!("  plan {:?}", plan.as_ref().map(|p| &p.summary)),
                format!(
                    "  why {:?}",
                    plan.map(|p| p.reasons.into_iter().map(|r| r.text).collect::<Vec<_>>())
                ),
            ];
            out += &lines.join("\n");
            out.push('\n');
        }
        out
    }

    /// What must never have happened, and did.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Virtual time, milliseconds.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A random number below `limit`.
    pub fn draw(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit.max(1)
    }

    /// Nodes on which `resource` is active, with its role.
    #[must_use]
    pub fn active(&self, resource: &str) -> Vec<(String, Role)> {
        let on = self.machines.iter().filter(|(_, m)| m.on);
        on.filter_map(|(n, m)| Some((n.clone(), *m.active.get(resource)?))).collect()
    }

    /// Number of the last acknowledged write.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acked
    }

    /// Number of the last write that the replica of `node` holds.
    #[must_use]
    pub fn held(&self, node: &str) -> u64 {
        self.machines.get(node).map_or(0, |m| m.replica.held)
    }

    fn at(&mut self, at_ms: u64, what: Happening) {
        self.seq += 1;
        self.queue.insert((at_ms, self.seq), what);
    }

    /// Does something to the world.
    pub fn inject(&mut self, fault: &Fault) {
        match fault {
            Fault::Kill(node) => self.power_off(node),
            Fault::Boot(node) => self.power_on(node),
            Fault::KillDaemon(node) => {
                let Some(machine) = self.machines.get_mut(node) else { return };
                if machine.on && machine.daemon.take().is_some() {
                    machine.life += 1;
                    let life = machine.life;
                    self.proposals.remove(node);
                    self.at(self.now_ms + 300, Happening::DaemonStarts(node.clone(), life));
                }
            }
            Fault::Isolate(node) => {
                self.isolated.insert(node.clone());
            }
            Fault::Heal => self.isolated.clear(),
            Fault::Device { works } => self.device_works = *works,
            Fault::Confirm(on, target) => {
                let (target, by) = (target.clone(), "root".to_owned());
                let request = FenceRequest { target, action: None, by, confirm: true };
                self.event(on, Event::FencingAsked(request));
            }
            Fault::Standby(node) => self.edit(node, "on"),
            Fault::Online(node) => self.edit(node, "off"),
        }
        self.at(self.now_ms, Happening::Look);
    }

    fn edit(&mut self, node: &str, value: &str) {
        if self.leader.is_none() {
            return;
        }
        let (node, name) = (node.to_owned(), "standby".to_owned());
        let edits = vec![Edit::NodeAttr { node, name, value: Some(value.to_owned()) }];
        let (author, message) = ("sim".to_owned(), "edit".to_owned());
        self.state.apply(Command::Edit { edits, author, message, when_ms: 0 });
        self.publish();
    }

    fn power_off(&mut self, node: &str) {
        let Some(machine) = self.machines.get_mut(node) else { return };
        machine.on = false;
        machine.outages += 1;
        machine.life += 1;
        machine.daemon = None;
        machine.current = false;
        machine.active.clear();
        machine.attached = machine.replica.up;
        machine.replica.up = false;
        machine.replica.primary = false;
        machine.replica.up_to_date = false;
        machine.replica.dropped.clear();
        self.proposals.remove(node);
    }

    fn power_on(&mut self, node: &str) {
        let Some(machine) = self.machines.get_mut(node) else { return };
        if machine.on {
            return;
        }
        machine.on = true;
        machine.life += 1;
        let life = machine.life;
        // Two services: either may be the first, and the data plane's peers hear of it at once.
        let (data, daemon) = (self.now_ms + 1 + self.draw(400), self.now_ms + 1 + self.draw(800));
        self.at(data, Happening::DataStarts(node.to_owned(), life));
        self.at(daemon, Happening::DaemonStarts(node.to_owned(), life));
    }

    /// The data plane of a machine that has booted attaches what was attached.
    fn start_data(&mut self, node: &str) {
        let Some(machine) = self.machines.get_mut(node) else { return };
        machine.replica.up = machine.attached || machine.replica.up;
        if machine.replica.up && !machine.active.contains_key("drbd_nfs") {
            machine.active.insert("drbd_nfs".to_owned(), Role::Started);
        }
        self.handshakes();
        self.look();
    }

    /// Operations that have ended on `node` since the last call, but for monitors.
    pub fn take_log(&mut self, node: &str) -> Vec<String> {
        self.machines.get_mut(node).map(|m| std::mem::take(&mut m.log)).unwrap_or_default()
    }

    /// Runs until `until_ms`.
    pub fn run(&mut self, until_ms: u64) {
        while let Some((&(at_ms, seq), _)) = self.queue.iter().next() {
            if at_ms > until_ms {
                break;
            }
            let Some(what) = self.queue.remove(&(at_ms, seq)) else { break };
            self.now_ms = self.now_ms.max(at_ms);
            self.happen(what);
            self.check();
        }
        self.now_ms = until_ms;
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Tick(node, life) => {
                if self.life(&node) == life {
                    self.event(&node, Event::Tick);
                }
            }
            Happening::OpEnds(node, life, call_id, spec) => {
                if self.life(&node) == life {
                    self.op_ends(&node, call_id, &spec);
                }
            }
            Happening::Settled(node, life) => {
                if self.life(&node) == life {
                    self.settle_proposal(&node);
                }
            }
            Happening::Order(from, to, session, token, work) => {
                self.deliver_order(from, &to, session, token, work);
            }
            Happening::Answer(node, token, accepted) => {
                self.event(&node, Event::OrderAnswered { token, accepted });
            }
            Happening::Look => self.look(),
            Happening::Write => self.write(),
            Happening::DaemonStarts(node, life) => {
                if self.life(&node) == life {
                    self.start_daemon(&node);
                }
            }
            Happening::DataStarts(node, life) => {
                if self.life(&node) == life {
                    self.start_data(&node);
                }
            }
            Happening::SyncDone(primary, peer) => self.sync_done(&primary, &peer),
            Happening::PowerOn(node) => {
                self.power_on(&node);
                self.look();
            }
            Happening::FenceEnds(asker, life, call, runner, task) => {
                self.fence_ends(&asker, life, call, &runner, &task);
            }
            Happening::Leaves(from, outages, to, resource) => {
                self.leaves(&from, outages, &to, &resource);
            }
        }
    }

    /// Nodes that the device has cut off, in order.
    #[must_use]
    pub fn fencings(&self) -> &[String] {
        &self.fencings
    }

    /// The device is reached by every node, also by one that is cut off from the others (it has a network of its own).
    fn fence_ends(&mut self, asker: &str, life: u64, call: u64, runner: &str, task: &Task) {
        let ran = self.on(runner) && (runner == asker || self.linked(asker, runner));
        let works = ran && self.device_works;
        if works
            && let Some(target) = &task.target
            && matches!(task.verb, Verb::Off | Verb::Reboot)
        {
            self.fencings.push(target.clone());
            self.power_off(target);
            if task.verb == Verb::Reboot {
                let target = target.clone();
                let at = self.now_ms + 500 + self.draw(4_000);
                self.at(at, Happening::PowerOn(target));
            }
            self.look();
        }
        if self.life(asker) == life {
            let exit = if works { Some(0) } else { Some(1) };
            let answer = Answer { exit, ..Answer::default() };
            self.event(asker, Event::FenceAnswered { call, answer });
        }
    }

    /// The agent moves it, whatever has become of its daemon: at one moment it is here, at the next one there.
    fn leaves(&mut self, from: &str, outages: u64, to: &str, resource: &str) {
        if !self.linked(from, to) || !self.on(to) {
            return;
        }
        let source = self.machines.get_mut(from).filter(|m| m.on && m.outages == outages);
        if let Some(role) = source.and_then(|m| m.active.remove(resource))
            && let Some(target) = self.machines.get_mut(to)
        {
            target.active.insert(resource.to_owned(), role);
        }
    }

    fn life(&self, node: &str) -> u64 {
        self.machines.get(node).map_or(0, |m| m.life)
    }

    fn linked(&self, a: &str, b: &str) -> bool {
        a == b || !(self.isolated.contains(a) || self.isolated.contains(b))
    }

    fn on(&self, node: &str) -> bool {
        self.machines.get(node).is_some_and(|m| m.on)
    }

    fn runs(&self, node: &str) -> bool {
        self.machines.get(node).is_some_and(|m| m.on && m.daemon.is_some())
    }

    fn start_daemon(&mut self, node: &str) {
        let (session, now_ms, dice) = (self.now_ms, self.now_ms, self.draw(u64::MAX));
        // Raft may be through before the first heartbeat is.
        let heard_from = now_ms + self.draw(600);
        self.at(heard_from, Happening::Look);
        self.known_sessions.retain(|(listener, _), _| listener != node);
        let Some(machine) = self.machines.get_mut(node) else { return };
        let (me, current, records) = (node.to_owned(), machine.current, machine.kept.clone());
        machine.heard_from = heard_from;
        machine.tick_at = None;
        machine.daemon =
            Some(Controller::new(Start { me, session, current, records, dice, now_ms }));
        let state = Arc::new(self.state.clone());
        self.event(node, Event::State(state));
        self.report_volume(node);
        self.look();
    }

    fn event(&mut self, node: &str, event: Event) {
        let now_ms = self.now_ms;
        let Some(machine) = self.machines.get_mut(node) else { return };
        let Some(daemon) = machine.daemon.as_mut() else { return };
        daemon.handle(now_ms, now_ms, event);
        let life = machine.life;
        let mut effects = Vec::new();
        while let Some(effect) = daemon.poll() {
            effects.push(effect);
        }
        let due = daemon.deadline().map(|due| due.max(now_ms + 1));
        // One tick is enough; a later one is asked for when it has come.
        let due = due.filter(|due| machine.tick_at.is_none_or(|at| at <= now_ms || *due < at));
        if let Some(due) = due {
            machine.tick_at = Some(due);
            self.at(due, Happening::Tick(node.to_owned(), life));
        }
        for effect in effects {
            self.effect(node, life, effect);
        }
    }

    fn effect(&mut self, node: &str, life: u64, effect: Effect) {
        match effect {
            Effect::Propose(command) => {
                let queue = self.proposals.entry(node.to_owned()).or_default();
                queue.push_back(*command);
                if queue.len() == 1 {
                    self.at(self.now_ms + 3, Happening::Settled(node.to_owned(), life));
                }
            }
            Effect::ForgetProposals => {
                self.proposals.remove(node);
            }
            Effect::SetSession(_) => self.at(self.now_ms + 5, Happening::Look),
            Effect::Order { node: to, session, token, work } => {
                let from = node.to_owned();
                self.at(self.now_ms + 1, Happening::Order(from, to, session, token, work));
            }
            Effect::AnswerOrder { reply, result } => {
                if let Some((to, token)) = self.orders_waiting.remove(&reply) {
                    self.at(self.now_ms + 1, Happening::Answer(to, token, result.is_ok()));
                }
            }
            Effect::Run { call_id, spec } => {
                let takes = 10 + self.draw(60);
                if spec.op == "migrate_to"
                    && let Some(to) = spec.peer()
                {
                    let (from, resource) = (node.to_owned(), spec.resource.clone());
                    let outages = self.machines.get(node).map_or(0, |m| m.outages);
                    self.at(self.now_ms + takes, Happening::Leaves(from, outages, to, resource));
                }
                let end = Happening::OpEnds(node.to_owned(), life, call_id, spec);
                self.at(self.now_ms + takes, end);
            }
            Effect::KeepRecords(records) => {
                if let Some(machine) = self.machines.get_mut(node) {
                    machine.kept = records;
                }
            }
            Effect::DropPeers { volume: _, peers, epoch: _ } => {
                if let Some(machine) = self.machines.get_mut(node) {
                    machine.replica.dropped.extend(peers);
                }
                self.asked.remove(node);
            }
            Effect::Fence { call, node: runner, task, limit_ms: _ } => {
                let takes = 50 + self.draw(800);
                let end = Happening::FenceEnds(node.to_owned(), life, call, runner, task);
                self.at(self.now_ms + takes, end);
            }
            // What was begun is done; the answer finds nobody.
            // No machine here has a watchdog, and none is allowed to reboot itself.
            Effect::CancelFence { .. } | Effect::Fenced { .. } => {}
            Effect::Suicide { .. } | Effect::Yielded => {}
            Effect::BecameCurrent => {
                if let Some(machine) = self.machines.get_mut(node) {
                    machine.current = true;
                }
            }
        }
    }

    fn settle_proposal(&mut self, node: &str) {
        let life = self.life(node);
        let quorate = self.quorate(node);
        let Some(queue) = self.proposals.get_mut(node) else { return };
        if !quorate {
            self.at(self.now_ms + 50, Happening::Settled(node.to_owned(), life));
            return;
        }
        let Some(command) = queue.pop_front() else { return };
        let more = !queue.is_empty();
        self.state.apply(command);
        self.event(node, Event::Proposed);
        self.publish();
        if more {
            self.at(self.now_ms + 3, Happening::Settled(node.to_owned(), life));
        }
    }

    fn publish(&mut self) {
        let state = Arc::new(self.state.clone());
        let nodes: Vec<String> = self.machines.keys().cloned().collect();
        for node in nodes {
            if self.quorate(&node) {
                self.event(&node, Event::State(Arc::clone(&state)));
            }
        }
    }

    fn deliver_order(
        &mut self,
        from: String,
        to: &str,
        session: u64,
        token: Token,
        work: ActionKind,
    ) {
        if !self.linked(&from, to) || !self.runs(to) {
            self.at(self.now_ms + 1, Happening::Answer(from, token, false));
            return;
        }
        self.next_order += 1;
        self.orders_waiting.insert(self.next_order, (from, token));
        let reply = self.next_order;
        self.event(to, Event::Ordered { reply, session, token, work });
    }

    // --- membership -----------------------------------------------------------------------------

    fn component(&self, node: &str) -> Vec<String> {
        let all = self.machines.keys();
        all.filter(|n| self.runs(n) && self.linked(node, n)).cloned().collect()
    }

    fn quorate(&self, node: &str) -> bool {
        let Some(leader) = &self.leader else { return false };
        self.runs(node)
            && self.linked(leader, node)
            && self.component(leader).len() * 2 > self.machines.len()
            && self.now_ms >= self.leader_since + ELECTION_MS
    }

    fn look(&mut self) {
        let majority = |w: &Self, n: &str| w.runs(n) && w.component(n).len() * 2 > w.machines.len();
        let keep = self.leader.clone().is_some_and(|l| majority(self, &l));
        if !keep {
            let next = self.machines.keys().find(|n| majority(self, n)).cloned();
            if next.is_some() {
                self.term += 1;
                self.leader_since = self.now_ms;
                self.at(self.now_ms + ELECTION_MS, Happening::Look);
            }
            self.leader = next;
        }
        let nodes: Vec<String> = self.machines.keys().cloned().collect();
        for node in &nodes {
            let quorate = self.quorate(node);
            let leader = self.leader.clone().filter(|_| quorate);
            let me_leader = leader.as_ref() == Some(node);
            let leadership = Leadership {
                leader,
                term: self.term,
                quorate,
                me_leader,
                voters: self.machines.keys().cloned().collect(),
                stale: false,
            };
            if quorate {
                let state = Arc::new(self.state.clone());
                self.event(node, Event::State(state));
            }
            self.event(node, Event::Leadership(leadership));
            self.show_peers(node, &nodes);
            if self.machines.get(node).is_some_and(|m| m.away != self.away(node)) {
                self.report_volume(node);
            }
        }
    }

    fn show_peers(&mut self, node: &str, nodes: &[String]) {
        let (mut peers, mut data) = (BTreeMap::new(), BTreeSet::new());
        for other in nodes.iter().filter(|n| *n != node) {
            let beats = self.machines.get(other).is_some_and(|m| m.heard_from <= self.now_ms);
            let heard = self.linked(node, other) && self.runs(other) && beats;
            let silent = self.silence((node.to_owned(), other.clone()), heard);
            if silent > 0 && silent <= DEAD_MS {
                self.at(self.now_ms + DEAD_MS + 1 - silent, Happening::Look);
            }
            let session = self
                .machines
                .get(other)
                .and_then(|m| m.daemon.as_ref())
                .map_or(0, |d| d.own_status().session);
            let pair = (node.to_owned(), other.clone());
            if heard {
                self.known_sessions.insert(pair.clone(), session);
            }
            let session = self.known_sessions.get(&pair).copied().unwrap_or_default();
            let alive = silent <= DEAD_MS && session > 0;
            peers.insert(other.clone(), Peer { alive, session });
            let connected = self.connected(node, other);
            let silent = self.silence((format!("{node}/data"), other.clone()), connected);
            if silent > 0 && silent <= DATA_DEAD_MS {
                self.at(self.now_ms + DATA_DEAD_MS + 1 - silent, Happening::Look);
            }
            if connected || (silent <= DATA_DEAD_MS && silent > 0) {
                data.insert(other.clone());
            }
        }
        self.event(node, Event::Peers(peers));
        self.event(node, Event::DataPeers(data));
    }

    fn silence(&mut self, key: (String, String), heard: bool) -> u64 {
        if heard {
            self.cut_since.remove(&key);
            return 0;
        }
        let now_ms = self.now_ms;
        let first = key.0.ends_with("/data");
        let since = self.cut_since.entry(key).or_insert(now_ms);
        if first { now_ms - *since } else { now_ms - *since + 1 }
    }

    // --- the volume -----------------------------------------------------------------------------

    fn connected(&self, a: &str, b: &str) -> bool {
        let up = |n: &str| self.machines.get(n).is_some_and(|m| m.on && m.replica.up);
        up(a) && up(b) && self.linked(a, b)
    }

    fn away(&self, node: &str) -> BTreeSet<String> {
        let peers = self.machines.keys().filter(|peer| *peer != node);
        peers.filter(|peer| !self.connected(node, peer)).cloned().collect()
    }

    fn report_volume(&mut self, node: &str) {
        let Some(machine) = self.machines.get(node) else { return };
        let replica = &machine.replica;
        let score = (replica.up && replica.up_to_date).then_some(10_000);
        let away = self.away(node);
        let (up, primary) = (replica.up, replica.primary);
        if let Some(machine) = self.machines.get_mut(node) {
            machine.away.clone_from(&away);
        }
        let undecided = up && !primary && score.is_none();
        let seen = VolumeSeen { name: "r0".to_owned(), up, score, undecided, primary, away };
        self.event(node, Event::Volume(seen));
    }

    fn op_ends(&mut self, node: &str, call_id: u64, spec: &OpSpec) {
        let volume = spec.agent.ends_with(":drbd");
        if volume && spec.op == "promote" && !self.promote(node, spec) {
            let result = Box::new(result(spec, call_id, rc::ERR_GENERIC));
            self.event(node, Event::OpEnded { call_id, result });
            return;
        }
        let Some(machine) = self.machines.get_mut(node) else { return };
        let result = Box::new(machine.run(spec, call_id));
        if volume {
            match spec.op.as_str() {
                "start" => machine.replica.up = true,
                "demote" => machine.replica.primary = false,
                "stop" => {
                    machine.replica.primary = false;
                    machine.replica.up = false;
                }
                _ => {}
            }
            if matches!(spec.op.as_str(), "start" | "stop" | "demote") {
                self.handshakes();
            }
            self.report_volume(node);
        }
        self.event(node, Event::OpEnded { call_id, result });
    }

    /// What replicas find out when they meet: whoever holds the most is up to date, the others sync.
    fn handshakes(&mut self) {
        let nodes: Vec<String> = self.machines.keys().cloned().collect();
        for node in &nodes {
            let mut met: Vec<&Machine> = Vec::new();
            for other in nodes.iter().filter(|o| *o != node && self.connected(node, o)) {
                met.extend(self.machines.get(other));
            }
            let known_good = met.iter().filter(|m| m.replica.up_to_date).count() > 0;
            let most = met.iter().map(|m| m.replica.held).max();
            let everyone = met.len() + 1 == nodes.len();
            let Some(machine) = self.machines.get_mut(node) else { continue };
            let held = machine.replica.held;
            if machine.on && machine.replica.up && !machine.replica.up_to_date {
                machine.replica.up_to_date =
                    (known_good || everyone) && most.is_some_and(|most| held >= most);
            }
        }
        let primary = self.machines.iter().find(|(_, m)| m.on && m.replica.primary);
        let Some(primary) = primary.map(|(n, _)| n.clone()) else {
            for node in nodes {
                self.report_volume(&node);
            }
            return;
        };
        for node in nodes {
            if node != primary && self.connected(&primary, &node) {
                self.at(self.now_ms + 50, Happening::SyncDone(primary.clone(), node));
            }
        }
    }

    fn sync_done(&mut self, primary: &str, peer: &str) {
        if !self.connected(primary, peer) {
            return;
        }
        let Some(source) = self.machines.get_mut(primary) else { return };
        if !source.replica.primary {
            return;
        }
        let was_dropped = source.replica.dropped.remove(peer);
        let held = source.replica.held;
        let Some(target) = self.machines.get_mut(peer) else { return };
        let behind = target.replica.held < held || !target.replica.up_to_date;
        target.replica.held = held;
        target.replica.up_to_date = true;
        self.report_volume(peer);
        if was_dropped || behind {
            let peers = BTreeSet::from([peer.to_owned()]);
            self.event(primary, Event::Resynced { volume: "r0".to_owned(), peers });
        }
    }

    fn promote(&mut self, node: &str, spec: &OpSpec) -> bool {
        let lost = spec.params.get("CRM_meta_lost_peers").cloned().unwrap_or_default();
        let lost: BTreeSet<String> = lost.split_whitespace().map(str::to_owned).collect();
        let others: Vec<String> =
            self.machines.keys().filter(|n| n.as_str() != node).cloned().collect();
        let connected: Vec<&String> = others.iter().filter(|o| self.connected(node, o)).collect();
        let other_primary = connected
            .iter()
            .any(|o| self.machines.get(o.as_str()).is_some_and(|m| m.replica.primary));
        let unknown = others.iter().any(|o| !connected.contains(&o) && !lost.contains(o));
        let majority = others.len() < 2 || (connected.len() + 1) * 2 > others.len() + 1;
        let Some(machine) = self.machines.get_mut(node) else { return false };
        // One that waits to hear from those that are away may be vouched for by the record.
        let ready = machine.replica.up_to_date || connected.len() < others.len();
        if other_primary || unknown || !majority || !ready {
            return false;
        }
        machine.replica.up_to_date = true;
        if machine.replica.held < self.acked {
            let what = format!(
                "{node} promoted with write {} of {} acknowledged",
                machine.replica.held, self.acked
            );
            self.violations.push(Violation { at_ms: self.now_ms, what });
        }
        machine.replica.primary = true;
        machine.replica.dropped = lost;
        self.handshakes();
        true
    }

    /// The application writes on every primary that mounted the volume.
    fn write(&mut self) {
        self.at(self.now_ms + WRITE_MS, Happening::Write);
        let nodes: Vec<String> = self.machines.keys().cloned().collect();
        let primaries: Vec<String> = nodes
            .iter()
            .filter(|n| self.machines.get(*n).is_some_and(|m| m.on && m.replica.primary))
            .cloned()
            .collect();
        for primary in primaries {
            let peers: Vec<String> = nodes.iter().filter(|n| **n != primary).cloned().collect();
            let Some(machine) = self.machines.get(&primary) else { continue };
            let dropped = machine.replica.dropped.clone();
            let wanted: Vec<&String> = peers.iter().filter(|p| !dropped.contains(*p)).collect();
            let missing: BTreeSet<String> = wanted
                .iter()
                .filter(|p| !self.connected(&primary, p))
                .map(|p| (*p).clone())
                .collect();
            let reach = peers.iter().filter(|p| self.connected(&primary, p)).count() + 1;
            if peers.len() >= 2 && reach * 2 <= peers.len() + 1 {
                continue; // no volume quorum: frozen
            }
            if !missing.is_empty() {
                let since = self.cut_since.get(&(
                    format!("{primary}/data"),
                    missing.iter().next().cloned().unwrap_or_default(),
                ));
                if since.is_some_and(|s| self.now_ms > s + DATA_DEAD_MS) {
                    self.asked.insert(primary.clone());
                    self.event(
                        &primary,
                        Event::MayDrop { volume: "r0".to_owned(), peers: missing },
                    );
                } else {
                    self.at(self.now_ms + 1, Happening::Look);
                }
                continue;
            }
            let targets: Vec<String> = wanted.into_iter().cloned().collect();
            let next = self.acked + 1;
            for node in targets.iter().chain([&primary]) {
                if let Some(m) = self.machines.get_mut(node) {
                    m.replica.held = next;
                }
            }
            self.acked = next;
        }
    }

    // --- what must never happen -----------------------------------------------------------------

    fn check(&mut self) {
        let primaries =
            self.machines.values().filter(|m| m.on && m.replica.primary && m.replica.up).count();
        let linked_primaries = self
            .machines
            .iter()
            .filter(|(n, m)| {
                m.on && m.replica.primary && (self.fenced || !self.isolated.contains(*n))
            })
            .count();
        if linked_primaries > 1 {
            let what = format!("{primaries} primaries where one is allowed");
            self.violations.push(Violation { at_ms: self.now_ms, what });
        }
        for resource in ["fs_nfs", "nfs", "vm"] {
            let on: Vec<String> = self
                .machines
                .iter()
                .filter(|(n, m)| {
                    m.on && (self.fenced || !self.isolated.contains(*n))
                        && m.active.contains_key(resource)
                })
                .map(|(n, _)| n.clone())
                .collect();
            if on.len() > 1 {
                let what = format!("{resource} active on {}", on.join(" and "));
                self.violations.push(Violation { at_ms: self.now_ms, what });
            }
        }
        self.on("");
    }
}
