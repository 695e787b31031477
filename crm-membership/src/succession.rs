//! Carries out what `crm_quorum::takeover` decides (ADR-0010): what it wants stored is stored before anything
//! that follows from it is seen outside, its steps go to raft, its greetings ride on every call.
//!
//! Two files: `takeover.json` in the data directory, `mark.json` in the run directory (gone after a reboot).

use crate::consensus::{Peer, Raft, Request};
use crate::durable;
use crate::site::Site;
use crm_quorum::lineage::{Evidence, Generation, GenerationId, RaftId};
use crm_quorum::takeover::{
    Alarm, BootId, Call, Durable, Effect, Event, Foreign, Greeting, Identity, Mark, Order, Refusal,
    Refused, Service, State, Step, Takeover, Voters,
};
use openraft::ChangeMembers;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

const DURABLE: &str = "takeover.json";
const MARK: &str = "mark.json";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What is still to be done is tried again after this.
const AGAIN: Duration = Duration::from_millis(250);
/// One step at most; it is asked for again.
const STEP_LIMIT: Duration = Duration::from_secs(2);

/// What the other parts of the node act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Brief {
    pub(crate) service: Service,
    pub(crate) stale: bool,
    pub(crate) may_elect: bool,
}

/// How this node stands with its peer and with the generations of the cluster, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The situation.
    pub state: State,
    /// The generations that the log has lived through, oldest first.
    pub generations: Vec<Generation>,
    /// The same, a sentence each.
    pub told: Vec<String>,
}

#[derive(Debug)]
struct Inside {
    core: Takeover,
    /// Something could not be stored: nothing that follows may happen.
    broken: Option<String>,
}

/// The core of this node with its files.
#[derive(Debug)]
pub(crate) struct Succession {
    inside: Mutex<Inside>,
    raft_id: RaftId,
    durable: PathBuf,
    mark: PathBuf,
    brief: watch::Sender<Brief>,
    effects: mpsc::UnboundedSender<Effect>,
    failure: watch::Sender<Option<String>>,
}

/// What a start needs.
pub(crate) struct Begin<'a> {
    pub(crate) data_dir: &'a Path,
    pub(crate) run_dir: &'a Path,
    pub(crate) raft_id: RaftId,
    pub(crate) incarnation: u64,
    pub(crate) cluster: GenerationId,
    /// The last membership in log or snapshot.
    pub(crate) effective: Voters,
    /// Generations that log and snapshot hold, and the index of the last.
    pub(crate) logged: (Vec<Generation>, u64),
    pub(crate) failure: watch::Sender<Option<String>>,
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let bad = |e| io::Error::other(format!("`{}` is damaged: {e}", path.display()));
            serde_json::from_slice(&bytes).map(Some).map_err(bad)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn boot_id() -> io::Result<BootId> {
    let text = std::fs::read_to_string(BOOT_ID)?;
    let id: GenerationId = text.trim().parse().map_err(io::Error::other)?;
    Ok(BootId(id.0))
}

/// A new name for a generation.
pub(crate) fn new_id() -> GenerationId {
    GenerationId(*Uuid::new_v4().as_bytes())
}

impl Succession {
    /// Starts the core with what is stored. A damaged mark is no mark; a damaged `takeover.json` is an error.
    pub(crate) fn open(begin: Begin<'_>) -> io::Result<(Self, mpsc::UnboundedReceiver<Effect>)> {
        let (durable, mark) = (begin.data_dir.join(DURABLE), begin.run_dir.join(MARK));
        let stored = read(&durable)?.unwrap_or_else(|| Durable::new(begin.cluster));
        // One of a former membership of this machine is none.
        let found: Option<(RaftId, Mark)> = read(&mark).unwrap_or_else(|error| {
            tracing::warn!(%error, "no mark");
            None
        });
        let found = found.filter(|(id, _)| *id == begin.raft_id).map(|(_, mark)| mark);
        let me = Identity { id: begin.raft_id, incarnation: begin.incarnation, boot: boot_id()? };
        let (core, out) = Takeover::start(me, stored, found, begin.effective);
        let (effects, queue) = mpsc::unbounded_channel();
        let brief = watch::Sender::new(brief_of(&core));
        let failure = begin.failure;
        let inside = Mutex::new(Inside { core, broken: None });
        let raft_id = begin.raft_id;
        let succession = Self { inside, raft_id, durable, mark, brief, effects, failure };
        succession.act(|_| ((), out));
        let (generations, at) = begin.logged;
        succession.handle(Event::Logged { generations, at });
        Ok((succession, queue))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the core act. What it wants stored is stored when this returns.
    fn act<T>(&self, f: impl FnOnce(&mut Takeover) -> (T, Vec<Effect>)) -> T {
        let mut inside = self.inside();
        let (result, out) = f(&mut inside.core);
        for effect in out {
            if inside.broken.is_some() {
                break;
            }
            let done = match effect {
                Effect::Store(durable) => self.put(&self.durable, &*durable),
                Effect::Mark(Some(mark)) => self.put(&self.mark, &(self.raft_id, mark)),
                Effect::Mark(None) => durable::remove(&self.mark),
                other => {
                    if self.effects.send(other).is_err() {
                        tracing::debug!("the membership ends");
                    }
                    Ok(())
                }
            };
            if let Err(error) = done {
                let why = format!("cannot store how this node stands with its peer: {error}");
                tracing::error!(why);
                self.failure.send_replace(Some(why.clone()));
                inside.broken = Some(why);
            }
        }
        let mut next = brief_of(&inside.core);
        if inside.broken.is_some() {
            next.service = Service::No;
            next.may_elect = false;
        }
        self.brief.send_if_modified(|shown| std::mem::replace(shown, next) != next);
        result
    }

    fn put<T: serde::Serialize>(&self, path: &Path, value: &T) -> io::Result<()> {
        durable::replace(path, &serde_json::to_vec(value)?, 0o600)
    }

    pub(crate) fn handle(&self, event: Event) {
        self.act(|core| ((), core.handle(event)));
    }

    pub(crate) fn order(&self, order: Order) -> Result<(), Refused> {
        self.act(|core| match core.order(order) {
            Ok(out) => (Ok(()), out),
            Err(refused) => (Err(refused), Vec::new()),
        })
    }

    pub(crate) fn greeting(&self, to: RaftId) -> Greeting {
        self.inside().core.greeting(to)
    }

    /// Whether a call may be served.
    pub(crate) fn receive(
        &self,
        call: Call,
        from: RaftId,
        greeting: &Greeting,
    ) -> Result<(), Refusal> {
        let verdict = self.act(|core| core.receive(call, from, greeting));
        if self.inside().broken.is_some() { Err(Refusal::NotNow) } else { verdict }
    }

    /// Whether an answer may be used.
    pub(crate) fn answered(&self, call: Call, from: RaftId, greeting: &Greeting) -> bool {
        self.act(|core| core.answered(call, from, greeting)) && self.inside().broken.is_none()
    }

    /// This node answers for `peer`, which is off.
    pub(crate) fn is_ghost(&self, peer: RaftId) -> bool {
        let inside = self.inside();
        inside.broken.is_none() && inside.core.ghosts().contains(&peer)
    }

    pub(crate) fn brief(&self) -> Brief {
        *self.brief.borrow()
    }

    pub(crate) fn briefs(&self) -> watch::Receiver<Brief> {
        self.brief.subscribe()
    }

    /// The newest start of a peer that was heard of.
    pub(crate) fn heard_of(&self, peer: RaftId) -> u64 {
        self.inside().core.heard_of(peer)
    }

    /// A device, or a person, says that the peer was off.
    pub(crate) fn confirmed(&self, evidence: Evidence) {
        self.handle(Event::Confirmed { evidence, id: new_id() });
    }

    pub(crate) fn standing(&self, name: impl Fn(RaftId) -> String) -> Standing {
        let inside = self.inside();
        let generations = inside.core.durable().lineage.generations().to_vec();
        let told = generations.iter().map(|g| g.words(&name)).collect();
        Standing { state: inside.core.state(name), generations, told }
    }

    /// The line that has parted from this one.
    pub(crate) fn foreign(&self) -> Option<Foreign> {
        self.inside().core.durable().diverged.clone()
    }

    /// The generations of this line, oldest first.
    pub(crate) fn generations(&self) -> Vec<GenerationId> {
        self.inside().core.durable().lineage.ids()
    }

    /// A takeover is decided and not complete: until then votes of a ghost count.
    pub(crate) fn is_taking_over(&self) -> bool {
        self.inside().core.step().is_some()
    }

    fn busy(&self) -> bool {
        let core = &self.inside().core;
        core.step().is_some() || core.wants_rejoin().is_some()
    }
}

fn brief_of(core: &Takeover) -> Brief {
    Brief { service: core.service(), stale: core.is_stale(), may_elect: core.may_elect() }
}

/// Carries out the effects that are raft's, until the membership ends.
pub(crate) async fn carry_out(
    raft: Raft,
    site: Arc<Site>,
    mut effects: mpsc::UnboundedReceiver<Effect>,
) {
    let mut briefs = site.succession.briefs();
    loop {
        raft.runtime_config().elect(briefs.borrow_and_update().may_elect);
        let pause = async {
            if site.succession.busy() {
                tokio::time::sleep(AGAIN).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            effect = effects.recv() => match effect {
                Some(effect) => carry(&raft, &site, effect).await,
                None => return,
            },
            change = briefs.changed() => if change.is_err() { return },
            () = pause => site.succession.handle(Event::Tick),
        }
    }
}

async fn carry(raft: &Raft, site: &Arc<Site>, effect: Effect) {
    let (what, work) = match effect {
        Effect::Store(_) | Effect::Mark(_) => return,
        Effect::Fence { peer, .. } => {
            return tracing::info!(
                peer,
                "this node may go on alone once the peer is confirmed off"
            );
        }
        Effect::Yield { by } => {
            let by = site.name_of(by).unwrap_or_default();
            return tracing::error!(by, "the cluster has gone on without this node: stopping");
        }
        Effect::GiveUp { to } => {
            let to = site.name_of(to).unwrap_or_default();
            return tracing::error!(
                to,
                "this side of the divergence lost: it stops what it runs, and joins again"
            );
        }
        Effect::Alarm(alarm) => return alarmed(site, &alarm),
        Effect::Ghosts(whom) => {
            tracing::warn!(?whom, "answering for these raft ids");
            ("wake", tokio::time::timeout(STEP_LIMIT, wake(raft, whom)).await)
        }
        Effect::Do(step) => {
            ("takeover", tokio::time::timeout(STEP_LIMIT, go(raft, site, step)).await)
        }
        // A line of its own is not brought up to date.
        Effect::AskRejoin { .. } if site.surrender.borrow().is_some() => {
            ("giving up", Ok(crate::merge::surrender(site).await))
        }
        Effect::AskRejoin { of } => (
            "rejoin",
            tokio::time::timeout(STEP_LIMIT, crate::consensus::network::rejoin(site, raft, of))
                .await,
        ),
        // Asked for before the takeover was decided: by a ghost's vote nobody is taken in.
        Effect::AddLearner(_) | Effect::ChangeMembers(_) if site.succession.is_taking_over() => {
            return;
        }
        Effect::AddLearner(id) => {
            ("taking back", tokio::time::timeout(STEP_LIMIT, add_learner(raft, site, id)).await)
        }
        Effect::ChangeMembers(voters) => {
            let change = ChangeMembers::AddVoterIds(voters);
            ("voters", tokio::time::timeout(STEP_LIMIT, change_members(raft, change)).await)
        }
    };
    match work {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::info!(what, why, "not yet; will be tried again"),
        Err(_) => tracing::info!(what, "takes long; will be tried again"),
    }
}

fn alarmed(site: &Site, alarm: &Alarm) {
    let name = |id: RaftId| site.name_of(id).unwrap_or_else(|| id.to_string());
    match alarm {
        Alarm::Diverged(foreign) => tracing::error!(
            peer = name(foreign.peer),
            "DIVERGED: both sides have gone on without the other; `crm cluster merge` shows the two and makes one of them"
        ),
        Alarm::FencingDoubtful(peer) => tracing::error!(
            peer = name(*peer),
            "was confirmed off and is heard without having started anew: does its fence device tell the truth?"
        ),
        Alarm::BrokenLineage(gap) => {
            tracing::error!(%gap, "the log holds a generation out of order");
        }
    }
}

async fn wake(raft: &Raft, whom: BTreeSet<RaftId>) -> Result<(), String> {
    raft.trigger().reset_backoff(whom).await.map_err(|e| e.to_string())
}

async fn go(raft: &Raft, site: &Site, step: Step) -> Result<(), String> {
    match step {
        Step::Elect => {
            tracing::warn!("going on alone: being elected");
            raft.runtime_config().elect(true);
            raft.trigger().elect(false).await.map_err(|e| e.to_string())
        }
        Step::Propose(generation) => {
            tracing::warn!(%generation, "going on alone: recording the generation");
            let generation = Some(Box::new(generation));
            let request = Request { id: Uuid::new_v4(), command: Vec::new(), generation };
            raft.client_write(request).await.map(drop).map_err(|e| e.to_string())
        }
        Step::Alone => {
            let me = site.settings.raft_id;
            tracing::warn!("going on alone: becoming the only voter");
            change_members(raft, ChangeMembers::ReplaceAllVoters(BTreeSet::from([me]))).await
        }
    }
}

async fn add_learner(raft: &Raft, site: &Site, id: RaftId) -> Result<(), String> {
    let peer: Peer = site.members().remove(&id).ok_or("it is no member")?;
    tracing::info!(node = peer.name, "is taken back: it gets what it has missed, then votes again");
    let nodes = BTreeMap::from([(id, peer)]);
    raft.change_membership(ChangeMembers::AddNodes(nodes), true)
        .await
        .map(drop)
        .map_err(|e| e.to_string())
}

async fn change_members(raft: &Raft, change: ChangeMembers<RaftId, Peer>) -> Result<(), String> {
    raft.change_membership(change, false).await.map(drop).map_err(|e| e.to_string())
}
