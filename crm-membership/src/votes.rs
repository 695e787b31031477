//! Carries out what `crm_quorum::votes` decides (ADR-0019): the options come from the CIB, the peers' words with their heartbeats; what
//! the core wants remembered is stored before the word that follows from it is said.
//!
//! One file: `quorum.json` in the data directory, while an option is set.

use crate::durable;
use crate::heartbeat::packet::WORD_MAX;
use crate::heartbeat::{Heartbeats, Words};
use crate::site::Site;
use crm_core::store::State;
use crm_quorum::votes::{Event, Memory, Quorum, Word};
use crm_quorum::{Member, Policy};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

const FILE: &str = "quorum.json";

/// What service quorum has come to on this node, while an option of it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Votes {
    /// May run resources and fence.
    pub quorate: bool,
    /// `wait_for_all` holds it back.
    pub waiting: bool,
    /// Why, for people.
    pub words: String,
    /// Members whose votes are not counted now (`last_man_standing`, `auto_tie_breaker`).
    pub struck: BTreeSet<String>,
    /// Peers that were seen when this was counted.
    pub seen: BTreeSet<String>,
}

/// What an administrator does by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Ends the wait of `wait_for_all`.
    CancelWait,
    /// This node leaves cleanly.
    Leave,
}

/// What a node must find again. Without it (no option set) there is no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// Of a former membership of this machine: nothing.
    raft_id: u64,
    policy: Policy,
    memory: Memory,
    /// Index of the entry that the options were read at: an older state says nothing of them.
    at: u64,
}

/// The core, and how it came to be.
enum Core {
    /// No option is set.
    None,
    /// The options were set while the cluster ran: until the others have spoken, or `until`, the members are counted without them.
    Forming {
        core: Box<Quorum>,
        policy: Policy,
        until: Instant,
    },
    Full {
        core: Box<Quorum>,
        policy: Policy,
    },
}

/// Service quorum of this node.
pub(crate) struct Booth {
    site: Arc<Site>,
    path: PathBuf,
    core: Core,
    stored: Option<Stored>,
    /// Peers of the newest view.
    seen: BTreeSet<String>,
    began: Instant,
    tell: watch::Sender<Option<Votes>>,
    failure: watch::Sender<Option<String>>,
}

fn load(path: &Path) -> io::Result<Option<Stored>> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            io::Error::other(format!(
                "`{}` is damaged ({e}): it says who may break a tie; restore it, or remove this node from the cluster and join again",
                path.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Booth {
    /// Begins from what is stored.
    pub(crate) fn open(
        site: Arc<Site>,
        failure: watch::Sender<Option<String>>,
    ) -> io::Result<(Self, watch::Receiver<Option<Votes>>)> {
        let path = site.settings.data_dir.join(FILE);
        let stored = load(&path)?.filter(|stored| stored.raft_id == site.settings.raft_id);
        let core = stored.as_ref().map_or(Core::None, |Stored { policy, memory, .. }| {
            let core =
                Quorum::new(&site.settings.name, policy.clone(), &memory.members, memory.clone());
            Core::Full { core: Box::new(core), policy: policy.clone() }
        });
        let (tell, told) = watch::channel(None);
        let (began, seen) = (Instant::now(), BTreeSet::new());
        let mut booth = Self { site, path, core, stored, seen, began, tell, failure };
        booth.show();
        Ok((booth, told))
    }

    /// Counts until the membership ends.
    pub(crate) async fn count(
        mut self,
        heartbeats: Arc<Heartbeats>,
        mut acts: mpsc::UnboundedReceiver<Act>,
    ) {
        let mut states = self.site.machine.states();
        let mut words = heartbeats.words();
        loop {
            let index = *self.site.machine.applied().borrow();
            let state = Arc::clone(&states.borrow_and_update());
            self.adopt(&state, index);
            let view = read(&words.borrow_and_update());
            self.seen = view.keys().cloned().collect();
            self.apply(Event::View(view));
            if let Err(error) = self.keep(index) {
                let why = format!("cannot store how the votes stand: {error}");
                tracing::error!(why);
                // Nothing may rest on what is not stored.
                self.tell.send_replace(Some(Votes {
                    quorate: false,
                    waiting: false,
                    words: why.clone(),
                    struck: BTreeSet::new(),
                    seen: BTreeSet::new(),
                }));
                self.failure.send_replace(Some(why));
                return;
            }
            heartbeats.say(self.say());
            self.show();
            let wake = self.wake();
            let pause = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                act = acts.recv() => match act {
                    Some(Act::CancelWait) => self.apply(Event::CancelWait),
                    Some(Act::Leave) => self.apply(Event::Leave),
                    None => return,
                },
                change = states.changed() => if change.is_err() { return },
                change = words.changed() => if change.is_err() { return },
                () = pause => self.apply(Event::Tick),
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn apply(&mut self, event: Event) {
        let now_ms = self.now_ms();
        match &mut self.core {
            Core::None => {}
            Core::Forming { core, .. } | Core::Full { core, .. } => {
                core.apply(now_ms, event);
            }
        }
        let over =
            |until: Instant, core: &Quorum| core.verdict().quorate || Instant::now() >= until;
        let core = std::mem::replace(&mut self.core, Core::None);
        self.core = match core {
            Core::Forming { mut core, policy, until } if over(until, &core) => {
                core.apply(now_ms, Event::Policy(policy.clone()));
                Core::Full { core, policy }
            }
            other => other,
        };
    }

    /// Takes the options and members of the state, unless it is older than what is known.
    fn adopt(&mut self, state: &State, index: u64) {
        let at = self.stored.as_ref().map_or(0, |stored| stored.at);
        if state.cluster_uuid.is_empty() || index < at {
            return;
        }
        let members = state.quorum_members();
        // What cannot be read was refused when it was written.
        let policy = state.cib.quorum_policy().unwrap_or_else(|error| {
            tracing::error!(%error, "service quorum: not counted by these options");
            None
        });
        let Some(policy) = policy else {
            self.core = Core::None;
            return;
        };
        if matches!(self.core, Core::None) {
            self.core = self.form(policy, &members);
            return;
        }
        self.apply(Event::Members(members));
        let now_ms = self.now_ms();
        match &mut self.core {
            Core::Forming { policy: later, .. } => *later = policy,
            Core::Full { core, policy: now } if *now != policy => {
                now.clone_from(&policy);
                core.apply(now_ms, Event::Policy(policy));
            }
            Core::Full { .. } | Core::None => {}
        }
    }

    /// Options set while the cluster runs: whoever is quorate without them stays so.
    fn form(&self, policy: Policy, members: &[Member]) -> Core {
        tracing::info!(?policy, "service quorum is counted by these options from now on");
        let settings = &self.site.settings;
        let core = Quorum::new(&settings.name, Policy::default(), members, Memory::default());
        let patience = Duration::from_millis(2 * settings.profile.timing().dead_after_ms);
        Core::Forming { core: Box::new(core), policy, until: Instant::now() + patience }
    }

    fn full(&self) -> Option<(&Quorum, &Policy)> {
        match &self.core {
            Core::Full { core, policy } => Some((core, policy)),
            Core::None | Core::Forming { .. } => None,
        }
    }

    /// Stores what has changed.
    fn keep(&mut self, index: u64) -> io::Result<()> {
        let next = self.full().map(|(core, policy)| (policy.clone(), core.memory()));
        let Some((policy, memory)) = next else {
            if matches!(self.core, Core::None) && self.stored.take().is_some() {
                durable::remove(&self.path)?;
            }
            return Ok(());
        };
        let known = self.stored.as_ref().map(|stored| (&stored.policy, &stored.memory));
        if known == Some((&policy, &memory)) {
            return Ok(());
        }
        let at = self.stored.as_ref().map_or(0, |stored| stored.at).max(index);
        let stored = Stored { raft_id: self.site.settings.raft_id, policy, memory, at };
        durable::replace(&self.path, &serde_json::to_vec(&stored)?, 0o600)?;
        self.stored = Some(stored);
        Ok(())
    }

    /// The word for the heartbeats.
    fn say(&self) -> Arc<[u8]> {
        let word = match &self.core {
            Core::None => return Arc::default(),
            Core::Forming { core, .. } | Core::Full { core, .. } => core.word(),
        };
        match postcard::to_stdvec(&word) {
            Ok(bytes) if bytes.len() <= WORD_MAX => bytes.into(),
            Ok(bytes) => {
                let length = bytes.len();
                tracing::error!(
                    length,
                    "what this node says of its votes does not fit into a heartbeat"
                );
                Arc::default()
            }
            Err(error) => {
                tracing::error!(%error, "what this node says of its votes cannot be written");
                Arc::default()
            }
        }
    }

    fn wake(&self) -> Option<Instant> {
        let at = |ms| self.began.checked_add(Duration::from_millis(ms));
        match &self.core {
            Core::None => None,
            Core::Forming { until, .. } => Some(*until),
            Core::Full { core, .. } => core.wake_ms().and_then(at),
        }
    }

    /// Tells the controller.
    fn show(&mut self) {
        let next = self.full().map(|(core, _)| {
            let verdict = core.verdict();
            let (memory, word) = (core.memory(), core.word());
            // Of several ballots that may be in force, whoever one of them counts is counted.
            let counted: BTreeSet<&String> = word.ballots.iter().flat_map(|b| &b.counted).collect();
            let names = memory.members.iter().map(|m| &m.name);
            let struck = names.filter(|name| !counted.contains(name)).cloned().collect();
            let words = verdict.reason.to_string();
            let (quorate, waiting, seen) = (verdict.quorate, verdict.waiting, self.seen.clone());
            Votes { quorate, waiting, words, struck, seen }
        });
        self.tell.send_if_modified(|shown| {
            let news = *shown != next;
            if let Some(votes) = next.as_ref().filter(|_| news) {
                tracing::info!(quorate = votes.quorate, why = votes.words, "service quorum");
            }
            *shown = next;
            news
        });
    }
}

/// The words that can be read; whoever says what cannot is not counted.
fn read(words: &Words) -> BTreeMap<String, Word> {
    let read = |(name, bytes): (&String, &Arc<[u8]>)| match postcard::from_bytes::<Word>(bytes) {
        Ok(word) => Some((name.clone(), word)),
        Err(error) => {
            tracing::warn!(%error, peer = name, "what it says of its votes cannot be read");
            None
        }
    };
    words.iter().filter_map(read).collect()
}
