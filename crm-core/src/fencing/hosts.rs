//! Which nodes a device reaches: `pcmk_host_list`, `pcmk_host_map`, `pcmk_host_check`, and what devices answered when they were asked.

use super::device::{Device, Kind};
use std::collections::{BTreeMap, BTreeSet};

/// An answer to `list` or `status` is taken for this long, in milliseconds.
pub const LIST_AGE_MAX_MS: u64 = 60_000;

/// A question to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Query {
    /// Which nodes do you reach?
    List,
    /// Do you know this node?
    Status,
}

/// Whether a device reaches a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It does.
    Yes,
    /// It does not, because.
    No(String),
    /// It has to be asked.
    Ask(Query),
}

/// What devices have answered.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// When, and the nodes it named; no nodes when it could not say.
    lists: BTreeMap<String, (u64, Option<BTreeSet<String>>)>,
    /// By device and node: when, and why not if not.
    statuses: BTreeMap<(String, String), (u64, Option<String>)>,
}

fn fresh(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) < LIST_AGE_MAX_MS
}

impl Answers {
    /// A device answered `list`: its output, or nothing when it failed. An older list outlives a failure.
    pub fn listed(&mut self, now_ms: u64, device: &str, output: Option<&str>) {
        let named = output.map(|text| names(text).map(str::to_ascii_lowercase).collect());
        let entry = self.lists.entry(device.to_owned()).or_default();
        entry.0 = now_ms;
        if named.is_some() {
            entry.1 = named;
        }
    }

    /// A device answered `status` of a node; `refusal` tells why it does not reach it.
    pub fn checked(&mut self, now_ms: u64, device: &str, target: &str, refusal: Option<String>) {
        let key = (device.to_owned(), target.to_owned());
        self.statuses.insert(key, (now_ms, refusal));
    }

    /// Nothing is known any more: devices have changed.
    pub fn clear(&mut self) {
        self.lists.clear();
        self.statuses.clear();
    }
}

/// Words between blanks, commas and semicolons.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';')).filter(|w| !w.is_empty())
}

/// `NAME:VALUE` pairs between blanks and semicolons; `=` is as good as the colon, a backslash takes its meaning from the next character.
/// Commas belong to the value (several plugs of one machine).
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let (mut name, mut word) = (None, String::new());
    let mut chars = text.chars();
    loop {
        let c = chars.next();
        match c {
            Some('\\') => word.extend(chars.next()),
            Some(':' | '=') if name.is_none() => name = Some(std::mem::take(&mut word)),
            Some(c) if c != ';' && !c.is_whitespace() => word.push(c),
            Some(_) | None => {
                let value = std::mem::take(&mut word);
                if let Some(name) = name.take().filter(|n| !n.is_empty() && !value.is_empty()) {
                    out.push((name, value));
                }
            }
        }
        if c.is_none() {
            return out;
        }
    }
}

impl Device {
    /// The name by which the device knows a node (`pcmk_host_map`), by default the node's own.
    #[must_use]
    pub fn port(&self, target: &str) -> String {
        let map = self.params.get("pcmk_host_map").map(pairs).unwrap_or_default();
        let found = map.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(target));
        found.map_or_else(|| target.to_owned(), |(_, port)| port)
    }

    /// The rule by which it is known what the device reaches: `pcmk_host_check`, else a list where there is one, else what the agent can
    /// answer, else every node.
    #[must_use]
    pub fn check(&self) -> &str {
        let set = |name| self.params.get(name).is_some();
        let can = |word| self.abilities.actions.contains(word);
        match self.params.get("pcmk_host_check") {
            Some(word) => word,
            None if set("pcmk_host_list") || set("pcmk_host_map") => "static-list",
            None if can("list") => "dynamic-list",
            None if can("status") => "status",
            None => "none",
        }
    }

    /// Nodes that the configuration names, lower case.
    fn listed(&self) -> BTreeSet<String> {
        let list = self.params.get("pcmk_host_list").unwrap_or_default();
        let map = self.params.get("pcmk_host_map").map(pairs).unwrap_or_default();
        let mapped = map.into_iter().map(|(name, _)| name);
        let all = names(list).map(str::to_owned).chain(mapped);
        all.map(|name| name.to_ascii_lowercase()).collect()
    }

    /// Whether it reaches `target`, as far as is known. `armed` are the nodes with a watchdog.
    #[must_use]
    pub fn reach(
        &self,
        target: &str,
        answers: &Answers,
        armed: &BTreeSet<String>,
        now_ms: u64,
    ) -> Reach {
        if self.kind == Kind::Watchdog {
            let listed = self.listed();
            let meant = listed.is_empty() || listed.contains(&target.to_ascii_lowercase());
            return if meant && armed.contains(target) {
                Reach::Yes
            } else {
                Reach::No(format!(
                    "{target} has no watchdog that others may rely on (armed, in time, a majority without it)"
                ))
            };
        }
        match self.check() {
            "none" => Reach::Yes,
            "static-list" if self.listed().contains(&target.to_ascii_lowercase()) => Reach::Yes,
            "static-list" => {
                Reach::No(format!("its pcmk_host_list and pcmk_host_map do not name {target}"))
            }
            "dynamic-list" => self.in_list(target, answers, now_ms),
            "status" => self.by_status(target, answers, now_ms),
            other => Reach::No(format!("pcmk_host_check={other} is not known")),
        }
    }

    fn in_list(&self, target: &str, answers: &Answers, now_ms: u64) -> Reach {
        match answers.lists.get(&self.id) {
            Some((at, Some(named))) if fresh(*at, now_ms) => {
                let port = self.port(target);
                if named.contains(&port.to_ascii_lowercase()) {
                    Reach::Yes
                } else {
                    Reach::No(format!("it does not list {port}"))
                }
            }
            // It cannot list: it is asked about the one node.
            Some((at, None)) if fresh(*at, now_ms) => self.by_status(target, answers, now_ms),
            Some(_) | None => Reach::Ask(Query::List),
        }
    }

    fn by_status(&self, target: &str, answers: &Answers, now_ms: u64) -> Reach {
        match answers.statuses.get(&(self.id.clone(), target.to_owned())) {
            Some((at, None)) if fresh(*at, now_ms) => Reach::Yes,
            Some((at, Some(why))) if fresh(*at, now_ms) => Reach::No(why.clone()),
            Some(_) | None => Reach::Ask(Query::Status),
        }
    }
}
