//! One run: a cluster of 2, 3 or 5 nodes forms, faults for some seconds, healing; what must hold is looked at all the while.

use super::claims::{Claim, Claims, Limits};
use super::lab::{Node, World, founder, ip, live, name, newcomer};
use super::{Dice, clock, mixed};
use crate::settings::Settings;
use crm_core::store::State;
use crm_quorum::Timing;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Milliseconds that faults go on.
const FAULTS: u64 = 5_000;
/// Between two faults at most.
const PACE: u64 = 400;
/// What forming, and what healing may take.
const PATIENCE: u64 = 30_000;
/// An election within this time of a leap may have come of it.
const AFTERWARDS: u64 = 100;
/// Longest way of a message, and what a node may take for one turn.
const DELAY: u64 = 240;
const TURN: u64 = 5;
/// Steps between two looks at the logs.
const LOOK: u64 = 25;

/// What is wrong with the nodes, so that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing.
    Honest,
    /// The disks say that they have synced, and have not.
    Lying,
    /// A leader is whoever raft calls so: its evidence has no date.
    Dateless,
}

/// A run under way.
struct Run<'a> {
    sim: turmoil::Sim<'a>,
    world: Arc<World>,
    dice: Dice,
    size: u8,
    step: u64,
    down: BTreeSet<u8>,
    /// Ways that are cut: from, to.
    cut: BTreeSet<(u8, u8)>,
    leaders: BTreeMap<u64, u64>,
    entries: BTreeMap<u64, String>,
    /// How far each node's log was compared.
    compared: BTreeMap<u8, u64>,
    faults: u64,
    plan: Plan,
    claims: Claims,
    /// Leaps of clocks.
    leaps: u64,
    /// The last of them.
    leaped: Option<u64>,
    /// Terms that got their leader soon after one.
    elected: u64,
}

/// Runs a seed. What it did, or what broke.
pub(super) fn run(seed: u64, plan: Plan) -> Result<String, String> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
    let root = tempfile::tempdir().unwrap();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(6))
        .tcp_capacity(4096)
        .build();
    let world = Arc::new(World::default());
    let size = [2, 3, 5, 2, 3][usize::try_from(seed % 5).unwrap()];
    // Every other cluster of three or five has a witness.
    let witness = (size > 2 && seed / 5 % 2 == 1).then_some(size);
    *world.witness.lock().unwrap() = witness;
    let first = founder(root.path());
    host(&mut sim, &world, 1, Node::new(first.clone()), seed, (2..=size).collect());
    let mut run = Run {
        sim,
        world,
        dice: Dice(mixed(seed)),
        size,
        step: 0,
        down: BTreeSet::new(),
        cut: BTreeSet::new(),
        leaders: BTreeMap::new(),
        entries: BTreeMap::new(),
        compared: BTreeMap::new(),
        faults: 0,
        plan,
        claims: Claims::new(limits(&first)),
        leaps: 0,
        leaped: None,
        elected: 0,
    };
    run.until("the cluster forms", |run| {
        let admitted = std::mem::take(&mut *run.world.admitted.lock().unwrap());
        for (number, raft_id) in admitted {
            let node =
                Node::new(newcomer(root.path(), &first, number, (raft_id, run.world.role(number))));
            host(&mut run.sim, &run.world, number, node, seed, Vec::new());
            run.tell();
        }
        run.lives()
            .iter()
            .filter(|h| h.leadership().borrow().voters.len() == usize::from(size))
            .count()
            == usize::from(size)
    })?;
    if plan == Plan::Lying {
        run.world.nodes.lock().unwrap().values().for_each(|node| node.disk.lie());
    }
    *run.world.writing.lock().unwrap() = true;
    run.break_things()?;
    run.heal();
    run.settle()?;
    let written = run.world.acknowledged.lock().unwrap().len();
    Ok(run.summary(written))
}

/// What the nodes' timing allows them to claim, with the longest delay on the way.
fn limits(settings: &Settings) -> Limits {
    let Timing { lease_ms, dead_after_ms, .. } = settings.profile.timing();
    let look = 1 + TURN;
    let leads = lease_ms + look;
    Limits { leads, quorate: leads + DELAY + dead_after_ms + look }
}

fn host(
    sim: &mut turmoil::Sim<'_>,
    world: &Arc<World>,
    number: u8,
    node: Node,
    seed: u64,
    admit: Vec<u8>,
) {
    world.nodes.lock().unwrap().insert(number, Arc::new(node));
    let (world, lives) = (Arc::clone(world), std::cell::Cell::new(0));
    sim.host(ip(number), move || {
        lives.set(lives.get() + 1);
        let seed = mixed(seed << 16 | u64::from(number) << 8 | lives.get());
        live(Arc::clone(&world), number, seed, admit.clone())
    });
}

/// The term that raft says this node leads, and its id.
fn leads(handle: &crate::Handle) -> Option<(u64, u64)> {
    let metrics = handle.0.proposer.raft.metrics();
    let seen = metrics.borrow_watched();
    // The state alone outlives its truth: a leader that has just voted for another one is none of that term.
    let own = seen.vote.leader_id.term == seen.current_term
        && seen.vote.leader_id.voted_for == seen.id
        && seen.vote.committed;
    (seen.state == ServerState::Leader && own).then_some((seen.current_term, seen.id))
}

impl Run<'_> {
    fn summary(&self, written: usize) -> String {
        let kind =
            if self.world.witness.lock().unwrap().is_some() { " (one a witness)" } else { "" };
        let Self { size, faults, leaps, elected, .. } = self;
        let (terms, (leads, quorum)) = (self.leaders.len(), self.claims.longest);
        let trace = self.world.hash();
        format!(
            "{size} nodes{kind}, {faults} faults, {leaps} leaps of clocks, {terms} leaders, {elected} just after a leap, \
             claims that outlived their term {leads} ms (of a quorum {quorum} ms), {written} writes, trace {trace:016x}"
        )
    }

    fn lives(&self) -> Vec<crate::Handle> {
        self.world.nodes.lock().unwrap().values().filter_map(|node| node.life()).collect()
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) -> Result<(), String> {
        for _ in 0..PATIENCE {
            if done(self) {
                return Ok(());
            }
            self.step()?;
        }
        let seen: Vec<String> =
            self.lives().iter().map(|h| format!("{:?}", h.leadership().borrow())).collect();
        Err(format!("not within {PATIENCE} ms: {what}; {seen:?}"))
    }

    /// A millisecond, and a look at what must hold.
    fn step(&mut self) -> Result<(), String> {
        for node in self.world.nodes.lock().unwrap().values() {
            node.clock.now(self.step + 1);
        }
        self.sim.step().map_err(|e| format!("at {} ms: {e}", self.step))?;
        self.step += 1;
        for handle in self.lives() {
            let Some((term, id)) = leads(&handle) else { continue };
            match self.leaders.insert(term, id) {
                Some(other) if other != id => return Err(format!("two leaders in term {term}")),
                Some(_) => {}
                None => {
                    let after = self.leaped.is_some_and(|at| self.step - at < AFTERWARDS);
                    self.elected += u64::from(after);
                }
            }
        }
        self.hear_claims()?;
        if self.step.is_multiple_of(LOOK) { self.compare() } else { Ok(()) }
    }

    /// What each node says of the leadership, held against the others'.
    fn hear_claims(&mut self) -> Result<(), String> {
        let nodes = self.world.nodes.lock().unwrap().clone();
        let claim = |(number, node): (u8, Arc<Node>)| {
            let handle = node.life()?;
            let told = handle.leadership();
            let told = told.borrow();
            let (term, quorate) = (told.term, told.quorate);
            let me_leader = match self.plan {
                Plan::Honest | Plan::Lying => told.me_leader,
                Plan::Dateless => leads(&handle).is_some_and(|(its, _)| its == term),
            };
            Some(Claim { number, term, me_leader, quorate, own: node.clock.own() })
        };
        let claims: Vec<Claim> = nodes.into_iter().filter_map(claim).collect();
        self.claims.look(self.step, &claims)
    }

    /// What one node has applied under an index, every node has applied under it.
    fn compare(&mut self) -> Result<(), String> {
        let nodes = self.world.nodes.lock().unwrap().clone();
        for (number, node) in nodes {
            let Some(handle) = node.life() else { continue };
            let applied = *handle.0.proposer.site.machine.applied().borrow();
            let from = self.compared.get(&number).copied().unwrap_or(0);
            for index in from + 1..=applied {
                let Some(entry) = handle.0.log.entry(index) else { continue };
                let known = self.entries.entry(index).or_insert_with(|| entry.clone());
                if *known != entry {
                    return Err(format!("entry {index} is {entry} on n{number}, was {known}"));
                }
            }
            self.compared.insert(number, applied.max(from));
        }
        Ok(())
    }

    /// Everybody's heartbeats, as crashes and cuts have it.
    fn tell(&self) {
        let nodes = self.world.nodes.lock().unwrap().clone();
        for (to, node) in &nodes {
            for from in nodes.keys().filter(|from| *from != to) {
                let cut = self.cut.contains(&(*from, *to)) || self.cut.contains(&(*to, *from));
                node.hears(&name(*from), !cut && !self.down.contains(from));
            }
        }
    }

    fn any(&mut self) -> u8 {
        1 + u8::try_from(self.dice.below(u64::from(self.size))).unwrap()
    }

    fn crash(&mut self, number: u8) {
        if !self.down.insert(number) {
            return;
        }
        let node = self.world.node(number);
        node.disk.fail(&mut self.dice);
        *node.life.lock().unwrap() = None;
        self.compared.remove(&number);
        self.sim.crash(ip(number));
    }

    fn restart_all(&mut self) {
        for number in std::mem::take(&mut self.down) {
            self.sim.bounce(ip(number));
        }
    }

    fn mend(&mut self) {
        for (from, to) in std::mem::take(&mut self.cut) {
            self.sim.repair_oneway(ip(from), ip(to));
        }
        self.sim.set_max_message_latency(Duration::from_millis(6));
        for node in self.world.nodes.lock().unwrap().values() {
            node.clock.too_fast_by(0);
        }
    }

    /// One clock leaps, or all the others do, or all but the leader's, which is cut off at the same moment: whoever is elected then is
    /// elected while the lease of the old leader still runs by its own clock.
    fn leap(&mut self, one: u8) {
        let kind = self.dice.below(3);
        let one = if kind == 2 { self.leader().unwrap_or(one) } else { one };
        if kind == 2 {
            self.isolate(one);
        }
        for number in 1..=self.size {
            if (number == one) == (kind == 0) && !self.down.contains(&number) {
                self.world.node(number).clock.leap(clock::leap(&mut self.dice));
                self.leaps += 1;
            }
        }
        self.leaped = Some(self.step);
    }

    fn leader(&self) -> Option<u8> {
        let nodes = self.world.nodes.lock().unwrap();
        let leads = |node: &Node| node.life().is_some_and(|h| h.leadership().borrow().me_leader);
        nodes.iter().find(|(_, node)| leads(node)).map(|(number, _)| *number)
    }

    fn isolate(&mut self, one: u8) {
        for number in (1..=self.size).filter(|number| *number != one) {
            self.sim.partition(ip(one), ip(number));
            self.cut.extend([(one, number), (number, one)]);
        }
    }

    /// One clock is up to twice as fast as the others, or down to half as fast.
    fn drift(&mut self, one: u8) {
        let (slow, excess) = (self.dice.below(2) == 0, 10 + self.dice.below(91));
        for number in 1..=self.size {
            let fast = (number == one) != slow;
            self.world.node(number).clock.too_fast_by(if fast { excess } else { 0 });
        }
    }

    fn fault(&mut self) {
        let (one, other) = (self.any(), self.any());
        let kind = self.dice.below(10);
        self.world.note(&format!("fault {kind} at {}: {one} {other}", self.step));
        match kind {
            0 | 1 => self.crash(one),
            2 => self.restart_all(),
            3 if one != other => {
                self.sim.partition_oneway(ip(one), ip(other));
                self.cut.insert((one, other));
            }
            4 => self.isolate(one),
            5 => {
                let longest = 40 + self.dice.below(DELAY - 40);
                self.sim.set_max_message_latency(Duration::from_millis(longest));
            }
            6 if self.dice.below(3) == 0 => (1..=self.size).for_each(|number| self.crash(number)),
            8 => self.leap(one),
            9 => self.drift(one),
            _ => {
                self.mend();
                self.restart_all();
            }
        }
        self.faults += 1;
        self.tell();
    }

    fn break_things(&mut self) -> Result<(), String> {
        let end = self.step + FAULTS;
        while self.step < end {
            for _ in 0..50 + self.dice.below(PACE) {
                self.step()?;
            }
            self.fault();
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.mend();
        self.restart_all();
        self.tell();
        self.world.note("healed");
    }

    /// All come together again; each gets a write done; nothing acknowledged is missing anywhere.
    fn settle(&mut self) -> Result<(), String> {
        let size = usize::from(self.size);
        let written = |run: &Self| {
            let acknowledged = run.world.acknowledged.lock().unwrap();
            let who = acknowledged.iter().filter_map(|key| key.split('-').next());
            who.fold(BTreeMap::<String, usize>::new(), |mut all, who| {
                *all.entry(who.to_owned()).or_default() += 1;
                all
            })
        };
        let before = written(self);
        self.until("each node gets a write done", |run| {
            let now = written(run);
            now.len() == size
                && now.iter().all(|(who, count)| before.get(who).is_none_or(|old| count > old))
        })?;
        *self.world.writing.lock().unwrap() = false;
        let state = |handle: &crate::Handle| -> Arc<State> { Arc::clone(&handle.state().borrow()) };
        self.until("all nodes have the same state", |run| {
            let states: Vec<Arc<State>> = run.lives().iter().map(state).collect();
            states.len() == size && states.windows(2).all(|two| two[0] == two[1])
        })?;
        self.compare()?;
        let witness = self.world.witness.lock().unwrap().map(name);
        self.until("one leads that is no witness", |run| {
            let lives = run.lives();
            let leader = lives.iter().find(|handle| handle.leadership().borrow().me_leader);
            leader.is_some_and(|leader| Some(leader.name()) != witness.as_deref())
        })?;
        let all = state(&self.lives()[0]);
        let attrs = &all.status.nodes[&name(1)].attrs;
        let acknowledged = self.world.acknowledged.lock().unwrap();
        match acknowledged.iter().find(|key| !attrs.contains_key(*key)) {
            Some(lost) => Err(format!("acknowledged write {lost} is lost")),
            None => Ok(()),
        }
    }
}
