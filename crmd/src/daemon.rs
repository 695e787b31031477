//! The daemon's one task: events in, effects out. Everything else feeds it or works for it.

use crate::api::{self, Call};
use crate::fencing::{Agents, Runs};
use crate::watchdog::Feeder;
use crate::{block, boot, propose};
use anyhow::Context;
use crm_agents::{Executor, ExecutorConfig};
use crm_core::controller::{self, Controller, Effect, Event, Start};
use crm_core::fencing::{Evidence, Means, Record};
use crm_core::plan::ActionKind;
use crm_core::status::Token;
use crm_core::store::{Outcome, State};
use crm_membership::{Handle, Settings};
use crm_proto::block as wire;
use crm_proto::peer::{Order, PlanId, Work};
use crm_quorum::lineage::How;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

/// Longest pause between two looks at the clock.
const TICK: Duration = Duration::from_secs(5);

/// How long a daemon that ends waits for clients that do not take their answers.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a daemon that ends waits to be heard.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// What reaches the daemon's task.
#[derive(Debug)]
pub(crate) enum Input {
    /// For the controller.
    Event(Event),
    /// An order of a planner came in.
    Order(crm_membership::Incoming),
    /// A call on the local socket.
    Call(Call),
}

/// The daemon.
pub(crate) struct Daemon {
    pub(crate) me: String,
    pub(crate) handle: Handle,
    pub(crate) controller: Controller,
    pub(crate) waiters: Vec<api::Waiter>,
    pub(crate) fence_waiters: Vec<api::FenceWaiter>,
    answers: api::Answers,
    data_dir: PathBuf,
    /// Why no more effects may be carried out; the daemon ends with it.
    broken: Option<anyhow::Error>,
    executor: Arc<Executor>,
    pub(crate) agents: Agents,
    runs: Runs,
    feeder: Feeder,
    start: Instant,
    events: mpsc::UnboundedSender<Input>,
    proposals: mpsc::UnboundedSender<propose::Entry>,
    generation: watch::Sender<u64>,
    volumes: watch::Sender<Vec<wire::VolumeSpec>>,
    changes: watch::Sender<u64>,
    replies: BTreeMap<u64, oneshot::Sender<Result<(), String>>>,
    next_reply: u64,
    /// Nodes that are being fenced: the newest start of their daemons that was heard of when it began.
    fencing_of: BTreeMap<String, u64>,
}

/// Why the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It was told to, or its node is no member any more.
    Over,
    /// Its line was given up for another one: it starts again with an empty log (ADR-0016).
    Anew,
}

/// Runs the daemon to its end.
///
/// # Errors
/// When it cannot start, or membership has failed for good.
pub(crate) async fn run() -> anyhow::Result<Ending> {
    crm_membership::settle(&Settings::path()).context("put away the line that was given up")?;
    let settings = Settings::load(&Settings::path()).context("read the node's settings")?;
    let (me, data_dir) = (settings.name.clone(), settings.data_dir.clone());
    let feeder = Feeder::new(settings.watchdog.clone());
    let run_dir = boot::run_dir();
    std::fs::create_dir_all(&run_dir).with_context(|| format!("create {}", run_dir.display()))?;
    let handle =
        crm_membership::start(settings, run_dir.clone()).await.context("start membership")?;
    let (events, inputs) = mpsc::unbounded_channel();
    let (proposals, queue) = mpsc::unbounded_channel();
    let (generation, generation_seen) = watch::channel(0);
    let (volumes, volumes_seen) = watch::channel(Vec::new());
    let (changes, changes_seen) = watch::channel(0);
    let executor = Arc::new(
        Executor::new(ExecutorConfig::for_node(&me, &run_dir)).context("set up the executor")?,
    );
    tokio::spawn(propose::run(handle.clone(), queue, generation_seen, events.clone()));
    tokio::spawn(block::run(volumes_seen, events.clone()));
    forward(&handle, &events)?;
    let agents = Agents::new(handle.clone(), me.clone());
    tokio::spawn(agents.clone().watch(events.clone()));
    let wanted = handle.fencing().context("the fence agents are asked for already")?;
    tokio::spawn(agents.clone().serve(wanted));
    let answers = api::Answers::default();
    api::listen(handle.clone(), events.clone(), changes_seen, answers.clone())
        .context("open the local socket")?;
    let start = Instant::now();
    let records = boot::kept_records(&data_dir).context("read this node's volume records")?;
    let controller = Controller::new(Start {
        me: me.clone(),
        session: boot::wall_ms(),
        current: boot::is_current(&run_dir),
        records,
        dice: boot::dice(),
        now_ms: 0,
    });
    tracing::info!(node = me, "crmd is up");
    let daemon = Daemon {
        me,
        answers,
        data_dir,
        broken: None,
        handle,
        controller,
        waiters: Vec::new(),
        fence_waiters: Vec::new(),
        executor,
        agents,
        runs: Runs::new(),
        feeder,
        start,
        events,
        proposals,
        generation,
        volumes,
        changes,
        replies: BTreeMap::new(),
        next_reply: 0,
        fencing_of: BTreeMap::new(),
    };
    daemon.work(inputs).await
}

fn forward_votes(handle: &Handle, events: &mpsc::UnboundedSender<Input>) {
    let (to, mut votes) = (events.clone(), handle.votes());
    tokio::spawn(async move {
        loop {
            let now = votes.borrow_and_update().clone();
            let now = now.map(|v| {
                let (quorate, words, seen) = (v.quorate, v.words, v.seen);
                controller::Votes { quorate, words, seen }
            });
            if to.send(Input::Event(Event::Votes(now))).is_err() || votes.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Turns what membership publishes into events.
fn forward(handle: &Handle, events: &mpsc::UnboundedSender<Input>) -> anyhow::Result<()> {
    let (to, mut states) = (events.clone(), handle.state());
    tokio::spawn(async move {
        loop {
            let state = states.borrow_and_update().clone();
            if to.send(Input::Event(Event::State(state))).is_err()
                || states.changed().await.is_err()
            {
                return;
            }
        }
    });
    let (to, mut leaders) = (events.clone(), handle.leadership());
    tokio::spawn(async move {
        loop {
            let now = leaders.borrow_and_update().clone();
            let event = Event::Leadership(controller::Leadership {
                leader: now.leader,
                term: now.term,
                quorate: now.quorate,
                me_leader: now.me_leader,
                voters: now.voters,
                stale: now.stale,
            });
            if to.send(Input::Event(event)).is_err() || leaders.changed().await.is_err() {
                return;
            }
        }
    });
    forward_votes(handle, events);
    let (to, mut expelled) = (events.clone(), handle.expelled());
    tokio::spawn(async move {
        let words = expelled.wait_for(Option::is_some).await.ok().and_then(|words| words.clone());
        if let Some(words) = words
            && to.send(Input::Event(Event::Expelled(words))).is_err()
        {
            tracing::debug!("the daemon ended before it was told that it is removed");
        }
    });
    let (to, mut peers) = (events.clone(), handle.peers());
    tokio::spawn(async move {
        loop {
            let now = peers.borrow_and_update().clone();
            let seen = now.into_iter().map(|(node, health)| {
                (node, controller::Peer { alive: health.alive, session: health.session })
            });
            let event = Event::Peers(seen.collect());
            if to.send(Input::Event(event)).is_err() || peers.changed().await.is_err() {
                return;
            }
        }
    });
    let (to, mut orders) =
        (events.clone(), handle.orders().context("the orders are taken already")?);
    tokio::spawn(async move {
        while let Some(order) = orders.recv().await {
            if to.send(Input::Order(order)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

impl Daemon {
    async fn work(mut self, mut inputs: mpsc::UnboundedReceiver<Input>) -> anyhow::Result<Ending> {
        let mut terminate = signal(SignalKind::terminate()).context("watch SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("watch SIGINT")?;
        let mut failure = self.handle.failure();
        let handle = self.handle.clone();
        let mut given_up = std::pin::pin!(handle.given_up());
        loop {
            let input = tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = &mut given_up => return self.start_anew().await,
                failed = failure.wait_for(Option::is_some) => {
                    let why = failed.ok().and_then(|f| f.clone()).unwrap_or_default();
                    anyhow::bail!("membership failed: {why}");
                }
                input = inputs.recv() => input.context("all event sources are gone")?,
                () = tokio::time::sleep(self.until_deadline()) => Input::Event(Event::Tick),
            };
            self.take(input);
            while let Ok(input) = inputs.try_recv() {
                self.take(input);
            }
            if let Some(error) = self.broken.take() {
                return Err(error);
            }
            self.answer_waiters();
            self.tend_watchdog();
            if let Some(words) = self.controller.may_go().map(str::to_owned) {
                // What was asked and not looked at yet is answered by that: crmd is ending.
                drop(inputs);
                return self.lay_down(&words).await.map(|()| Ending::Over);
            }
        }
        tracing::info!("crmd is told to end; what it manages goes on");
        self.take_leave().await;
        self.handle.shutdown().await;
        Ok(Ending::Over)
    }

    /// This line is given up, and nothing runs here: the node has a place in the winner's cluster.
    async fn start_anew(&mut self) -> anyhow::Result<Ending> {
        self.feeder.disarm();
        self.handle.shutdown().await;
        Ok(Ending::Anew)
    }

    /// This node was removed, and nothing runs on it any more.
    async fn lay_down(&mut self, words: &str) -> anyhow::Result<()> {
        self.handle.lay_down(words).context("note that this node was removed")?;
        self.feeder.disarm();
        tracing::error!("{words}; crmd ends. To join again: `crm cluster join` with a new token");
        self.dismiss_waiters();
        // Whoever asked for the removal on this node is told before the daemon ends.
        if !self.answers.written(LAST_WORDS).await {
            tracing::warn!("not everybody took the answer to his question in time");
        }
        self.handle.shutdown().await;
        Ok(())
    }

    /// Feeds the watchdog, if it may be fed.
    fn tend_watchdog(&mut self) {
        let decided = Instant::now();
        let lease = self.handle.lease().is_some_and(|until| decided < until);
        let feed = self.controller.feeding(lease);
        if let Some(event) = self.feeder.turn(feed, decided, self.handle.lease_lag()) {
            self.step(event);
        }
    }

    async fn take_leave(&mut self) {
        let farewell = self.controller.farewell();
        let nothing_runs = farewell.is_some();
        let relied_on = self.controller.disarming().filter(|_| self.feeder.armed());
        let Some(command) = farewell.or(relied_on) else { return self.feeder.disarm() };
        match tokio::time::timeout(LEAVE_LIMIT, self.handle.propose(command)).await {
            Ok(Ok(Outcome::Done { .. })) => {
                tracing::info!(nothing_runs, "the others know what they may take over");
                self.feeder.disarm();
            }
            Ok(Ok(outcome)) => tracing::warn!(?outcome, nothing_runs, "the others do not know it"),
            Ok(Err(error)) => tracing::warn!(%error, nothing_runs, "the others do not know it"),
            Err(_) => tracing::warn!(nothing_runs, "the others may not know it"),
        }
        if self.controller.disarming().is_none() {
            self.feeder.disarm();
        }
        if self.feeder.armed() {
            tracing::warn!(
                "the watchdog stays armed: this node is reset unless crmd is back in time"
            );
        }
    }

    fn until_deadline(&self) -> Duration {
        let now = boot::since_ms(self.start);
        let due = self.controller.deadline().map(|at| at.saturating_sub(now));
        let longest = self.feeder.pace().unwrap_or(TICK);
        due.map_or(longest, Duration::from_millis).min(longest)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::State(state) = &event {
                    self.define_volumes(state);
                }
                self.step(event);
            }
            Input::Order(incoming) => {
                self.next_reply += 1;
                self.replies.insert(self.next_reply, incoming.reply);
                let Order { plan, session, action, work } = incoming.order;
                let token = Token { term: plan.term, plan: plan.number, action };
                let work = match work {
                    Work::Run(spec) => ActionKind::Op(spec),
                    Work::CancelMonitor { resource, interval_ms } => {
                        ActionKind::CancelMonitor { node: self.me.clone(), resource, interval_ms }
                    }
                };
                self.step(Event::Ordered { reply: self.next_reply, session, token, work });
            }
            Input::Call(call) => self.call(call),
        }
    }

    pub(crate) fn step(&mut self, event: Event) {
        let before = self.controller.mode();
        self.controller.handle(boot::since_ms(self.start), boot::wall_ms(), event);
        let mode = self.controller.mode();
        if mode != before {
            let waiting = self.controller.waiting();
            tracing::info!(from = ?before, to = ?mode, waiting, "mode");
        }
        while let Some(effect) = self.controller.poll() {
            if self.broken.is_none() {
                self.run_effect(effect);
            }
        }
        self.changes.send_modify(|n| *n += 1);
    }

    /// Makes the task look at its waiters at that time.
    pub(crate) fn wake_at(&self, at: Instant) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            if events.send(Input::Event(Event::Tick)).is_err() {
                tracing::debug!("the daemon ended before a waiter's time");
            }
        });
    }

    fn define_volumes(&self, state: &State) {
        let wanted = block::wanted(state, &self.me);
        self.volumes.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }

    fn run_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Propose(command) => {
                let entry = (*self.generation.borrow(), *command);
                if self.proposals.send(entry).is_err() {
                    tracing::error!("the proposal queue is gone");
                }
            }
            Effect::ForgetProposals => self.generation.send_modify(|n| *n += 1),
            Effect::SetSession(session) => self.handle.set_session(session),
            Effect::Order { node, session, token, work } => self.order(node, session, token, work),
            Effect::AnswerOrder { reply, result } => {
                if let Some(to) = self.replies.remove(&reply)
                    && to.send(result).is_err()
                {
                    tracing::debug!("the planner did not wait for the answer to its order");
                }
            }
            Effect::Run { call_id, spec } => {
                let (executor, events) = (Arc::clone(&self.executor), self.events.clone());
                tokio::spawn(async move {
                    let result = Box::new(executor.run(&spec, call_id).await);
                    let refused = result.is_told() && result.rc != result.expected_rc;
                    if result.failed() || refused {
                        tracing::warn!(resource = spec.resource, op = spec.op, rc = result.rc,
                            status = ?result.status, reason = result.reason, "operation failed");
                    } else if spec.interval_ms == 0 {
                        tracing::info!(
                            resource = spec.resource,
                            op = spec.op,
                            rc = result.rc,
                            ms = result.exec_ms,
                            "operation done"
                        );
                    }
                    if events.send(Input::Event(Event::OpEnded { call_id, result })).is_err() {
                        tracing::debug!("the daemon ended before an operation");
                    }
                });
            }
            Effect::KeepRecords(records) => {
                let kept = boot::keep_records(&self.data_dir, &records);
                self.broken = kept.context("keep this node's volume records").err();
            }
            Effect::DropPeers { volume, peers, epoch } => drop_peers(volume, peers, epoch),
            Effect::Fence { call, node, task, limit_ms } => {
                self.fencing_begins(task.target.as_deref());
                let run = (call, node, task, limit_ms);
                self.agents.begin(&mut self.runs, self.events.clone(), run);
            }
            Effect::CancelFence { call, node } => {
                if let Some(run) = self.runs.remove(&call) {
                    tracing::info!(node, "fencing called off");
                    run.abort();
                }
            }
            Effect::Suicide { why } => self.feeder.die(&why),
            Effect::Fenced { record, off } => self.fenced(&record, off),
            Effect::Yielded => {
                tracing::info!("nothing runs here any more");
                self.handle.stopped();
            }
            Effect::BecameCurrent => {
                if let Err(error) = boot::set_current(&boot::run_dir()) {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "cannot store that this node is current"
                    );
                }
            }
        }
    }

    fn fencing_begins(&mut self, target: Option<&str>) {
        let Some(target) = target else { return };
        let heard = self.handle.incarnation_of(target);
        self.fencing_of.entry(target.to_owned()).or_insert(heard);
    }

    /// Fencing has ended: of two nodes the other one may go on alone now.
    fn fenced(&mut self, record: &Record, off: bool) {
        let sentence = record.sentence();
        if record.evidence().is_some() {
            tracing::warn!("{sentence}");
        } else {
            tracing::error!("{sentence}");
        }
        let target = &record.target;
        let heard =
            self.fencing_of.remove(target).unwrap_or_else(|| self.handle.incarnation_of(target));
        if let Some(evidence) = record.evidence().filter(|_| off) {
            let how = self.how(evidence);
            self.handle.confirmed_off(target, heard, how, evidence.at_ms);
        }
    }

    fn how(&self, evidence: &Evidence) -> How {
        if evidence.means == Means::Hand {
            return How::Hand { operator: evidence.by.join(", ") };
        }
        let state = self.handle.state();
        let state = state.borrow();
        let agents: BTreeSet<String> = (evidence.devices.iter())
            .filter_map(|id| state.cib.primitive(id))
            .map(|device| device.agent.to_string())
            .collect();
        let agent = agents.into_iter().collect::<Vec<_>>().join(", ");
        How::Device { agent, device: evidence.devices.join(", ") }
    }

    fn order(&self, node: String, session: u64, token: Token, work: ActionKind) {
        let work = match work {
            ActionKind::Op(spec) => Work::Run(spec),
            ActionKind::CancelMonitor { node: _, resource, interval_ms } => {
                Work::CancelMonitor { resource, interval_ms }
            }
            ActionKind::Cluster(what) => {
                tracing::error!(?what, "an action of the cluster itself was ordered");
                return;
            }
            ActionKind::Pseudo { name } => {
                tracing::error!(name, "a pseudo action was ordered");
                return;
            }
        };
        let plan = PlanId { term: token.term, number: token.plan };
        let order = Order { plan, session, action: token.action, work };
        let (handle, events) = (self.handle.clone(), self.events.clone());
        tokio::spawn(async move {
            let sent = handle.execute(&node, &order).await;
            if let Err(error) = &sent {
                tracing::warn!(node, %error, "order refused");
            }
            let event = Event::OrderAnswered { token, accepted: sent.is_ok() };
            if events.send(Input::Event(event)).is_err() {
                tracing::debug!("the daemon ended before an answer");
            }
        });
    }
}

fn drop_peers(volume: String, peers: BTreeSet<String>, epoch: u64) {
    tracing::warn!(volume, ?peers, epoch, "volume goes on without these peers");
    let peers = peers.into_iter().collect();
    tokio::spawn(async move {
        match block::call(wire::Request::Drop { volume, peers, epoch }).await {
            Ok(wire::Reply::Ok | wire::Reply::Status(_)) => {}
            Ok(wire::Reply::Refused { code, why }) => {
                tracing::warn!(code, why, "crm-blockd did not drop the peers");
            }
            // blockd repeats its question to the next watcher; nothing is lost.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "crm-blockd not reached"),
        }
    });
}
