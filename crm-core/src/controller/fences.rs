//! Fencing by the node that decides: what plans and people ask for goes to the machine (`crate::fencing`), its attempts to the nodes that
//! run them, what came of them into the log. A lost node is gone, for this controller, from the moment when its fencing is confirmed.

use super::{Controller, Effect, Mode};
use crate::cib::{Role, parse_duration_ms};
use crate::fencing::{
    self, Abilities, Action, Answer, Config, Fencer, HEALTHY_AFTER_MS, Means, Order, Record, World,
    priority_delay_ms, weight,
};
use crate::plan::NodeView;
use crate::store::{Command, FenceRequest};
use std::collections::{BTreeMap, BTreeSet};

/// Pause before the cluster tries again to fence a node after all of its devices have failed, in milliseconds; doubled each time.
const REST_MS: u64 = 2_000;
/// Longest such pause.
const REST_MAX_MS: u64 = 60_000;
/// How long a node that has just started waits for others that it has not heard, unless `dc-deadtime` says otherwise, in milliseconds.
const STARTUP_MS: u64 = 20_000;

/// A node that is heard so long after its fencing was confirmed has not been fenced, or is back: the word is worth nothing any more. Longer than
/// heartbeats and data link need to notice a death, in milliseconds.
const HEARD_MS: u64 = 5_000;

/// Who waits for the end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// The cluster: the node is lost, or a plan wants it.
    Cluster(String),
    /// A request in the log.
    Log(u64),
    /// A person on this node, while there is no log to write to.
    Here,
}

/// Something that has ended and is not in the log yet.
#[derive(Debug, Clone)]
struct Unwritten {
    record: Record,
    requests: Vec<u64>,
    proposed: bool,
}

/// The fencing side of a controller.
#[derive(Debug, Default)]
pub(super) struct Fences {
    fencer: Fencer,
    abilities: BTreeMap<String, Abilities>,
    /// The configuration has to be read again: version of the CIB that was read, if one was.
    read: Option<u64>,
    world: World,
    registered: BTreeSet<(String, String)>,
    asked: BTreeMap<u64, Asked>,
    /// By number of the request: the session that its node had when it was asked for.
    meant: BTreeMap<u64, u64>,
    orders: u64,
    /// Attempts under way: number that the shell knows, number of the machine, node.
    calls: BTreeMap<u64, (u64, String)>,
    call: u64,
    /// Nodes whose fencing was confirmed: the session that ended with it, and when that was.
    confirmed: BTreeMap<String, (u64, u64)>,
    /// Nodes that could not be fenced: no new attempt before, and how often.
    resting: BTreeMap<String, (u64, u32)>,
    unwritten: Vec<Unwritten>,
    /// What the last plan wants fenced: node, session that is meant, why.
    wanted: BTreeMap<String, (u64, String)>,
    /// When the next node may have to be fenced.
    later: Option<u64>,
    /// Online without interruption since then.
    online_since: BTreeMap<String, u64>,
    dice: u64,
    /// The wall clock less this controller's own when nothing was under way last: while something is, no step of the wall clock may shorten it.
    epoch_ms: u64,
}

impl Fences {
    pub(super) fn with_dice(dice: u64) -> Self {
        Self { dice, ..Self::default() }
    }

    /// A number that nobody can foresee who does not know the seed (splitmix64).
    const fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.dice;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

impl Controller {
    /// The configuration may have changed: devices are read from it again.
    pub(super) fn fence_agents_told(&mut self, abilities: BTreeMap<String, Abilities>) {
        self.fences.abilities = abilities;
        self.fences.read = None;
    }

    /// Fencing of `node` is confirmed: what it ran in its last known session runs no more.
    pub(super) fn is_fenced(&self, node: &str) -> bool {
        let ended = self.fences.confirmed.get(node).map(|(session, _)| *session);
        ended.is_some() && ended == self.state.status.nodes.get(node).map(|s| s.session)
    }

    /// The configuration is read again.
    pub(super) const fn reread_fencing(&mut self) {
        self.fences.read = None;
    }

    /// The devices that are configured.
    pub(super) fn fences_devices(&self) -> impl Iterator<Item = &fencing::Device> {
        self.fences.fencer.config().devices()
    }

    /// What the last plan wants fenced: node, session that is meant, why.
    pub(super) fn wanted_fenced(&self) -> Vec<(String, u64, String)> {
        let wanted = self.fences.wanted.iter();
        wanted.map(|(node, (session, why))| (node.clone(), *session, why.clone())).collect()
    }

    /// The machine's clock: milliseconds since the epoch, without the steps of the wall clock.
    const fn fencer_ms(&self) -> u64 {
        self.fences.epoch_ms + self.now_ms
    }

    /// When the machine wants to be woken, on this controller's clock.
    pub(super) fn fence_due(&self) -> Option<u64> {
        let wake = self.fences.fencer.next_wake_ms();
        let wake = wake.map(|at| self.now_ms + at.saturating_sub(self.fencer_ms()).max(1));
        let later = self.fences.later.map(|at| at.max(self.now_ms + 1));
        let heard = self.fences.confirmed.values().map(|(_, at)| at + HEARD_MS);
        let heard = heard.filter(|at| *at > self.now_ms);
        wake.into_iter().chain(later).chain(heard).min()
    }

    /// Nodes that are being fenced now.
    #[must_use]
    pub fn fencing_now(&self) -> BTreeSet<String> {
        self.fences.fencer.pending().into_iter().map(str::to_owned).collect()
    }

    /// All fencing that this node knows of: what the log has, and what is not there yet.
    #[must_use]
    pub fn fencing_history(&self) -> fencing::History {
        let mut history = self.state.fencing.history.clone();
        for entry in &self.fences.unwritten {
            if !history.records().any(|known| *known == entry.record) {
                history.push(entry.record.clone());
            }
        }
        history
    }

    /// Which devices reach which nodes, as far as this node has asked them.
    #[must_use]
    pub fn fencing_coverage(&self) -> fencing::Coverage {
        let config = Config::read(&self.state.cib, &self.fences.abilities, self.hardware_ms());
        config.coverage(self.fences.fencer.answers(), &self.relied_upon(), self.fencer_ms())
    }

    /// Fencing belongs to the node that decides. One that waits for a leader keeps what it has begun.
    pub(super) fn settle_fencing(&mut self) {
        let session = |node: &str| self.state.status.nodes.get(node).map(|s| s.session);
        let heard = |node: &str| self.peers.get(node).is_some_and(|p| p.alive);
        self.fences.confirmed.retain(|node, (ended, at)| {
            session(node) == Some(*ended) && !(heard(node) && self.now_ms >= *at + HEARD_MS)
        });
        if self.fences.fencer.next_wake_ms().is_none() {
            self.fences.epoch_ms = self.wall_ms.saturating_sub(self.now_ms);
        }
        match self.mode {
            Mode::Leader | Mode::Alone => {
                if self.disarmed().is_some() && self.fences_for_the_cluster() {
                    // What people ask for is in the log, and taken up again.
                    self.drop_fencing();
                }
                self.configure_fencer();
                self.show_fencer_the_world();
                self.take_requests();
                self.fence_the_lost();
                self.note_healthy();
                self.fence(fencing::Event::Tick);
            }
            Mode::Joining => self.fence(fencing::Event::Tick),
            Mode::Follower | Mode::NoQuorum => self.drop_fencing(),
        }
        self.write_records();
    }

    fn fences_for_the_cluster(&self) -> bool {
        self.fences.asked.values().any(|asked| matches!(asked, Asked::Cluster(_)))
    }

    fn drop_fencing(&mut self) {
        for (call, (_, node)) in std::mem::take(&mut self.fences.calls) {
            self.effects.push_back(Effect::CancelFence { call, node });
        }
        let fences = &mut self.fences;
        if fences.read.take().is_some() || !fences.asked.is_empty() {
            fences.asked.clear();
            fences.meant.clear();
            fences.world = World::default();
            fences.wanted.clear();
            fences.later = None;
            fences.registered.clear();
            fences.online_since.clear();
            fences.fencer = Fencer::default();
        }
    }

    fn configure_fencer(&mut self) {
        let idle = self.fences.unwritten.is_empty() && self.fences.asked.is_empty();
        if idle && *self.fences.fencer.history() != self.state.fencing.history {
            self.fences.fencer.remember(self.state.fencing.history.clone());
        }
        if self.fences.read == Some(self.state.version) {
            return;
        }
        self.fences.read = Some(self.state.version);
        let config = Config::read(&self.state.cib, &self.fences.abilities, self.hardware_ms());
        self.fence(fencing::Event::Configure(Box::new(config)));
    }

    fn show_fencer_the_world(&mut self) {
        let heard = |node: &&String| self.peers.get(*node).is_some_and(|p| p.alive);
        let leads = self.mode == Mode::Leader;
        let mut live: BTreeSet<String> =
            self.others().filter(|_| leads).filter(heard).cloned().collect();
        live.insert(self.me.clone());
        let world = World { here: self.me.clone(), live, armed: self.starving() };
        if world != self.fences.world {
            self.fences.world = world.clone();
            self.fence(fencing::Event::World(world));
        }
        let registered = self.started_devices();
        let before = std::mem::replace(&mut self.fences.registered, registered.clone());
        for (device, node) in before.difference(&registered).cloned() {
            self.fence(fencing::Event::Unregistered { device, node });
        }
        for (device, node) in registered.difference(&before).cloned() {
            self.fence(fencing::Event::Registered { device, node });
        }
    }

    /// Where fence devices are started, as their histories say.
    fn started_devices(&self) -> BTreeSet<(String, String)> {
        let config = self.fences.fencer.config();
        let others = self.state.status.nodes.iter().filter(|(node, _)| **node != self.me);
        let mut out = BTreeSet::new();
        for (node, status) in others.chain([(&self.me, &self.own.status)]) {
            for device in config.devices() {
                let role = status.resources.get(&device.id).and_then(|history| history.role);
                if role.is_some_and(|role| role != Role::Stopped) {
                    out.insert((device.id.clone(), node.clone()));
                }
            }
        }
        out
    }

    /// Requests of people that are in the log.
    fn take_requests(&mut self) {
        if self.mode != Mode::Leader {
            return;
        }
        for (id, request) in self.state.fencing.requests.clone() {
            let known = self.fences.asked.values().any(|a| *a == Asked::Log(id))
                || self.fences.unwritten.iter().any(|u| u.requests.contains(&id));
            if !known {
                self.ask_for(Asked::Log(id), request);
            }
        }
    }

    /// A person on this node asks. Without a leader the node acts for itself, where it may; else the request goes into the log.
    pub(super) fn fencing_asked(&mut self, request: FenceRequest) {
        match self.mode {
            // What follows from it (to go on alone) is not for one that runs nothing.
            Mode::Joining | Mode::NoQuorum if self.state.is_witness(&self.me) => {}
            Mode::Alone => self.ask_for(Asked::Here, request),
            Mode::Leader | Mode::Follower => {
                self.propose(Command::AskFencing { request });
            }
            // A person's word is taken by whoever asks for it: of two nodes that start, one may have to go on without the other.
            Mode::Joining | Mode::NoQuorum if request.confirm => {
                self.ask_for(Asked::Here, request);
            }
            Mode::Joining | Mode::NoQuorum => {}
        }
    }

    fn ask_for(&mut self, who: Asked, request: FenceRequest) {
        let FenceRequest { target, action, by, confirm } = request;
        if confirm {
            let order = self.new_order(who, &target);
            if self.alive(&target) {
                let why = format!(
                    "{target} is alive: its heartbeats or its data link are heard, or it has just told the log what it runs"
                );
                self.refuse_to_confirm(order, target, by, why);
            } else {
                self.fence_with(fencing::Event::Confirm { target, by }, Some(order));
            }
            return;
        }
        let reason = format!("{by} asked for it");
        self.order_fencing(
            who,
            Order {
                id: 0,
                target,
                action,
                reason,
                origin: by,
                automatic: false,
                timeout_ms: None,
                delay_ms: 0,
                dice: 0,
            },
        );
    }

    fn refuse_to_confirm(&mut self, order: u64, target: String, by: String, why: String) {
        let record = Record {
            target,
            action: Action::Off,
            reason: format!("{by} said that it is off"),
            origin: by,
            automatic: false,
            begun_ms: self.wall_ms,
            ended_ms: self.wall_ms,
            verdict: fencing::Verdict::Failed { why },
            attempts: Vec::new(),
            notes: Vec::new(),
        };
        self.fencing_ended(&[order], record);
    }

    /// A number for a request. What it ends is what its node runs now, not what it may have become when the answer comes.
    fn new_order(&mut self, who: Asked, target: &str) -> u64 {
        let session = self.state.status.nodes.get(target).map_or(0, |s| s.session);
        self.fences.orders += 1;
        self.fences.asked.insert(self.fences.orders, who);
        self.fences.meant.insert(self.fences.orders, session);
        self.fences.orders
    }

    fn order_fencing(&mut self, who: Asked, mut order: Order) {
        order.id = self.new_order(who, &order.target);
        order.dice = self.fences.roll();
        self.fence(fencing::Event::Request(order));
    }

    /// What the last plan wants fenced, though it lives: node and why.
    pub(super) fn plan_wants(&mut self, fences: &BTreeMap<String, String>) {
        let session = |node: &str| self.state.status.nodes.get(node).map_or(0, |s| s.session);
        let wanted = fences.iter().map(|(n, why)| (n.clone(), (session(n), why.clone())));
        self.fences.wanted = wanted.collect();
    }

    /// Nodes that have to be fenced now, with the reason, and the time when the next one may have to be.
    fn to_be_fenced(&self) -> (Vec<(String, String)>, Option<u64>) {
        let (mut out, mut later) = (Vec::new(), None);
        let devices = self.fences.fencer.config().devices().next().is_some();
        if !self.fencing_wanted() || !devices || self.disarmed().is_some() {
            return (out, later);
        }
        let begins = self.started_ms + self.startup_ms();
        for node in self.others() {
            let asked = Asked::Cluster(node.clone());
            if self.is_fenced(node) || self.fences.asked.values().any(|a| *a == asked) {
                continue;
            }
            let session = self.state.status.nodes.get(node).map_or(0, |s| s.session);
            let wanted = self.fences.wanted.get(node).filter(|(of, _)| *of == session);
            let why = match (self.node_view(node) == NodeView::LOST, wanted) {
                (_, Some((_, why))) => why.clone(),
                (true, None) => "it was lost, and what it runs is not known".to_owned(),
                (false, None) => continue,
            };
            let unheard = self.peers.get(node).is_none_or(|p| p.session == 0);
            let rest = self.fences.resting.get(node).map_or(0, |(until, _)| *until);
            let from = rest.max(if unheard { begins } else { 0 });
            if self.now_ms < from {
                later = later.into_iter().chain([from]).min();
            } else {
                out.push((node.clone(), why));
            }
        }
        (out, later)
    }

    /// A cluster that starts waits so long for nodes that have not been heard (`dc-deadtime`).
    fn startup_ms(&self) -> u64 {
        let configured = self.state.cib.properties.get("dc-deadtime").and_then(parse_duration_ms);
        configured.unwrap_or(STARTUP_MS)
    }

    fn fence_the_lost(&mut self) {
        let (due, later) = self.to_be_fenced();
        self.fences.later = later;
        // Without the votes nothing of the others is taken over, so nobody has to go for it.
        let held = self.outvoted() || self.recounted();
        for (target, reason) in due.into_iter().filter(|_| !held) {
            let delay_ms = self.priority_delay(&target);
            self.order_fencing(
                Asked::Cluster(target.clone()),
                Order {
                    id: 0,
                    target,
                    action: None,
                    reason,
                    origin: self.me.clone(),
                    automatic: true,
                    timeout_ms: None,
                    delay_ms,
                    dice: 0,
                },
            );
        }
    }

    /// Of two that fence each other the one that runs more goes first (`priority-fencing-delay`).
    fn priority_delay(&self, target: &str) -> u64 {
        let delay_ms = self.fences.fencer.config().priority_delay_ms;
        if delay_ms == 0 || self.state.members.len() != 2 {
            return 0;
        }
        let (mut here, mut there) = (self.weights(&self.me), self.weights(target));
        if (here.0, there.0) == (0, 0) {
            // Nobody has said what matters: what runs does.
            (here.0, there.0) = (here.1, there.1);
        }
        priority_delay_ms(delay_ms, (&self.me, here.0), (target, there.0))
    }

    /// What runs on a node: the sum of its priorities, and its number.
    fn weights(&self, node: &str) -> (i64, i64) {
        let own = (node == self.me).then_some(&self.own.status);
        let status = own.or_else(|| self.state.status.nodes.get(node));
        let (cib, mut sum, mut number) = (&self.state.cib, 0_i64, 0_i64);
        for (id, history) in status.into_iter().flat_map(|s| &s.resources) {
            let role = history.role.filter(|role| *role != Role::Stopped);
            let primitive = cib.primitive(id.split(':').next().unwrap_or(id));
            let (Some(role), Some(primitive)) = (role, primitive) else { continue };
            let priority = primitive.meta.get("priority");
            let priority = priority.or_else(|| cib.rsc_defaults.get("priority"));
            let priority = priority.and_then(|p| p.parse().ok()).unwrap_or(0);
            sum = sum.saturating_add(weight(priority, role == Role::Promoted));
            number += 1 + i64::from(role == Role::Promoted);
        }
        (sum, number)
    }

    /// A node that has been online long enough may be rebooted again when it is lost.
    fn note_healthy(&mut self) {
        if self.mode != Mode::Leader {
            self.fences.online_since.clear();
            return;
        }
        let online: BTreeSet<String> =
            self.state.nodes().filter(|n| self.node_view(n).online).cloned().collect();
        self.fences.online_since.retain(|node, _| online.contains(node));
        for node in online {
            let since = *self.fences.online_since.entry(node.clone()).or_insert(self.now_ms);
            let history = &self.state.fencing.history;
            let due = self.now_ms >= since + HEALTHY_AFTER_MS;
            if due && history.fencings(&node, self.wall_ms) > 0 {
                self.fences.online_since.insert(node.clone(), self.now_ms);
                self.propose(Command::NodeHealthy { node, when_ms: self.wall_ms });
            }
        }
    }

    /// An attempt has ended.
    pub(super) fn fence_answered(&mut self, call: u64, answer: Answer) {
        if let Some((attempt, _)) = self.fences.calls.remove(&call) {
            self.fence(fencing::Event::Answer { attempt, answer });
        }
    }

    fn fence(&mut self, event: fencing::Event) {
        self.fence_with(event, None);
    }

    /// Gives the machine an event; `by_hand` waits for the record that comes of it without a number.
    fn fence_with(&mut self, event: fencing::Event, by_hand: Option<u64>) {
        for effect in self.fences.fencer.handle(self.fencer_ms(), event) {
            match effect {
                fencing::Effect::Run { attempt, node, task, limit_ms } => {
                    self.fences.call += 1;
                    let call = self.fences.call;
                    self.fences.calls.insert(call, (attempt, node.clone()));
                    self.effects.push_back(Effect::Fence { call, node, task, limit_ms });
                }
                fencing::Effect::Cancel { attempt, node } => {
                    let found = self.fences.calls.iter().find(|(_, (known, _))| *known == attempt);
                    if let Some(call) = found.map(|(call, _)| *call) {
                        self.fences.calls.remove(&call);
                        self.effects.push_back(Effect::CancelFence { call, node });
                    }
                }
                fencing::Effect::Ended { mut ids, record } => {
                    ids.extend(by_hand);
                    self.fencing_ended(&ids, *record);
                }
            }
        }
    }

    fn fencing_ended(&mut self, ids: &[u64], record: Record) {
        let ok = record.evidence().is_some();
        let target = record.target.clone();
        let meant = ids.iter().filter_map(|id| self.fences.meant.remove(id)).max();
        if let Some(session) = meant.filter(|_| ok && record.action.fences()) {
            self.fences.confirmed.insert(target.clone(), (session, self.now_ms));
        }
        if ok {
            self.fences.resting.remove(&target);
        } else if record.automatic {
            let (_, times) = self.fences.resting.get(&target).copied().unwrap_or_default();
            let pause = REST_MS.saturating_mul(1 << times.min(5)).min(REST_MAX_MS);
            self.fences.resting.insert(target, (self.now_ms + pause, times + 1));
        }
        let mut requests = Vec::new();
        for id in ids {
            match self.fences.asked.remove(id) {
                Some(Asked::Log(request)) => requests.push(request),
                Some(Asked::Cluster(_) | Asked::Here) | None => {}
            }
        }
        let off = self.was_off(&record);
        self.effects.push_back(Effect::Fenced { record: Box::new(record.clone()), off });
        self.fences.unwritten.push(Unwritten { record, requests, proposed: false });
    }

    /// Evidence that the power was off: all of it by devices that do not only guard access, or a person's word. A watchdog is no such evidence
    /// of two nodes: both could go on (ADR-0010).
    fn was_off(&self, record: &Record) -> bool {
        let Some(evidence) = record.evidence().filter(|_| record.action.fences()) else {
            return false;
        };
        let config = self.fences.fencer.config();
        let power = |id: &String| config.device(id).is_some_and(|d| !d.unfences);
        match evidence.means {
            Means::Hand => true,
            Means::Devices => evidence.devices.iter().all(power),
            Means::Watchdog => false,
        }
    }

    /// What has ended goes into the log as soon as there is one to write to.
    fn write_records(&mut self) {
        let written = |u: &Unwritten| self.state.fencing.history.records().any(|r| *r == u.record);
        let mut unwritten = std::mem::take(&mut self.fences.unwritten);
        unwritten.retain(|u| !written(u));
        for entry in &mut unwritten {
            if !self.leadership.quorate {
                entry.proposed = false;
            } else if !std::mem::replace(&mut entry.proposed, true) {
                let (record, requests) = (Box::new(entry.record.clone()), entry.requests.clone());
                self.propose(Command::Fenced { record, requests });
            }
        }
        self.fences.unwritten = unwritten;
    }

    /// Why a lost node is not gone yet, for people.
    pub(super) fn fencing_words(&self, node: &str) -> String {
        if self.fences.fencer.pending().contains(node) {
            return format!("{node} is being fenced");
        }
        let history = self.fencing_history();
        let last = history.records().rev().find(|r| r.target == node && r.action.fences());
        let tried = last.filter(|r| r.evidence().is_none()).map(|r| format!(" ({})", r.sentence()));
        format!(
            "{node} is not confirmed off{}; once it is off for certain: crm node fence {node} --confirm",
            tried.unwrap_or_default()
        )
    }
}
