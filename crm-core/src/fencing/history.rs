//! What came of requests: evidence, attempts, the bounded history, and the rule against fence loops.

use super::device::{Action, Verb};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// A node counts as healthy again when it has been a member without interruption for this long, in milliseconds (what the caller waits for
/// before it reports [`super::Event::Healthy`]).
pub const HEALTHY_AFTER_MS: u64 = 60_000;
/// Records that are kept.
const RECORDS_MAX: usize = 100;
/// Attempts that are kept of one request: the last ones.
const ATTEMPTS_MAX: usize = 40;
/// Characters that are kept of an agent's message: the last ones.
const MESSAGE_MAX: usize = 500;
/// A node that was rebooted this often ...
const LOOP_MAX: usize = 3;
/// ... within this time, in milliseconds, and was never healthy in between, is in a loop.
const LOOP_WINDOW_MS: u64 = 3_600_000;

/// How it is known that a node is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// Every device of a level said so.
    Devices,
    /// Its watchdog has had its time (alone, or among devices).
    Watchdog,
    /// A person said so.
    Hand,
}

/// Why a node may be taken to be harmless (or to have its access).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The node.
    pub target: String,
    /// What was done to it.
    pub action: Action,
    /// How it is known.
    pub means: Means,
    /// Devices that confirmed, in the order in which they did.
    pub devices: Vec<String>,
    /// Nodes that ran them, in the same order; for [`Means::Hand`] the person.
    pub by: Vec<String>,
    /// When the last one confirmed, milliseconds since the epoch.
    pub at_ms: u64,
}

/// One attempt, or a reason why none was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Place of the level in the topology, if there is one.
    pub level: Option<usize>,
    /// Device.
    pub device: String,
    /// What was asked.
    pub verb: Verb,
    /// The node that ran it; `None` when nothing was run.
    pub node: Option<String>,
    /// When it ended.
    pub at_ms: u64,
    /// It succeeded.
    pub ok: bool,
    /// The agent's message, or why nothing was run.
    pub message: String,
}

/// What a request ended with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is done.
    Confirmed(Evidence),
    /// It could not be done; nothing is known of the node.
    Failed {
        /// In words.
        why: String,
    },
}

/// A request that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The node.
    pub target: String,
    /// What was to be done.
    pub action: Action,
    /// Why, in words that go on after "because".
    pub reason: String,
    /// Who asked: a node, or a person.
    pub origin: String,
    /// The cluster asked, not a person.
    pub automatic: bool,
    /// When it was asked, milliseconds since the epoch.
    pub begun_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// With what.
    pub verdict: Verdict,
    /// All attempts, in order.
    pub attempts: Vec<Attempt>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

fn list(words: &[String]) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for word in words {
        if !unique.contains(&word.as_str()) {
            unique.push(word);
        }
    }
    match unique.split_last() {
        None => String::new(),
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

impl Record {
    /// The evidence, if it was confirmed.
    #[must_use]
    pub const fn evidence(&self) -> Option<&Evidence> {
        match &self.verdict {
            Verdict::Confirmed(evidence) => Some(evidence),
            Verdict::Failed { .. } => None,
        }
    }

    /// What was done and by what: "rebooted by ipmi (run by alpha)".
    fn deed(&self) -> String {
        match &self.verdict {
            Verdict::Confirmed(e) if e.means == Means::Hand => {
                format!("confirmed to be off by {}", list(&e.by))
            }
            Verdict::Confirmed(e) => {
                let run = if e.by.is_empty() {
                    String::new()
                } else {
                    format!(" (run by {})", list(&e.by))
                };
                format!("{} by {}{run}", e.action.done(), list(&e.devices))
            }
            Verdict::Failed { why } => format!("not {}: {why}", self.action.done()),
        }
    }

    /// One sentence: what was done, by what, and why.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (target, reason) = (&self.target, &self.reason);
        match &self.verdict {
            Verdict::Confirmed(_) => format!("{target} was {}, because {reason}", self.deed()),
            Verdict::Failed { why } => {
                let done = self.action.done();
                format!("{target} could not be {done}: {why}; it was to be, because {reason}")
            }
        }
    }

    /// Keeps what is read, within bounds.
    fn bounded(mut self) -> Self {
        let surplus = self.attempts.len().saturating_sub(ATTEMPTS_MAX);
        self.attempts.drain(..surplus);
        for attempt in &mut self.attempts {
            let length = attempt.message.chars().count();
            if length > MESSAGE_MAX {
                let last = attempt.message.chars().skip(length - MESSAGE_MAX);
                attempt.message = last.collect();
            }
        }
        self
    }
}

/// Requests that have ended, oldest first, and when nodes were last healthy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    records: VecDeque<Record>,
    /// When a node was last known to have been a healthy member.
    healthy: BTreeMap<String, u64>,
}

impl History {
    /// The records, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter()
    }

    /// Adds a record; the oldest goes when there are too many.
    pub fn push(&mut self, record: Record) {
        self.records.push_back(record.bounded());
        if self.records.len() > RECORDS_MAX {
            self.records.pop_front();
        }
    }

    /// A node has been a member without interruption for [`HEALTHY_AFTER_MS`].
    pub fn healthy(&mut self, node: &str, now_ms: u64) {
        self.healthy.insert(node.to_owned(), now_ms);
    }

    /// The last time a node was fenced for certain.
    #[must_use]
    pub fn last_fencing(&self, node: &str) -> Option<&Record> {
        let fenced = |r: &&Record| {
            r.target == node && r.action.fences() && matches!(r.verdict, Verdict::Confirmed(_))
        };
        self.records.iter().rev().find(fenced)
    }

    /// What a node is told at its next boot.
    #[must_use]
    pub fn fenced_because(&self, node: &str) -> Option<String> {
        self.last_fencing(node).map(|r| format!("fenced because {}: {}", r.reason, r.deed()))
    }

    /// How often a node was fenced by the cluster within the last hour and since it was last healthy, when that is too often: it is
    /// switched off then, not rebooted once more.
    #[must_use]
    pub fn looping(&self, node: &str, now_ms: u64) -> Option<usize> {
        let times = self.fencings(node, now_ms);
        (times >= LOOP_MAX).then_some(times)
    }

    /// How often a node was fenced by the cluster within the last hour and since it was last healthy.
    #[must_use]
    pub fn fencings(&self, node: &str, now_ms: u64) -> usize {
        let since = now_ms.saturating_sub(LOOP_WINDOW_MS);
        let since = since.max(self.healthy.get(node).copied().unwrap_or(0));
        let counts = |r: &&Record| {
            r.target == node
                && r.automatic
                && r.action.fences()
                && r.ended_ms >= since
                && r.evidence().is_some_and(|e| e.means != Means::Hand)
        };
        self.records.iter().filter(counts).count()
    }
}
