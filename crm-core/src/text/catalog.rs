//! What is known of agents, asked through a trait so that this crate stays pure.

use super::nearest::nearest;
use crate::cib::AgentName;
use std::collections::BTreeMap;
use std::fmt;

/// What an agent's metadata says that matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentInfo {
    /// Parameters by name; true = required.
    pub params: BTreeMap<String, bool>,
}

/// The agents of the cluster.
pub trait AgentCatalog: fmt::Debug + Send + Sync {
    /// What is known of an agent; `None` when there is no such agent.
    fn agent(&self, name: &AgentName) -> Option<AgentInfo>;
    /// The full names of all known agents, `ocf:heartbeat:Filesystem`.
    fn names(&self) -> Vec<String>;
}

/// A catalog that is a list: full name and what is known of it.
#[derive(Debug, Clone, Default)]
pub struct ListedAgents(pub BTreeMap<String, AgentInfo>);

impl AgentCatalog for ListedAgents {
    fn agent(&self, name: &AgentName) -> Option<AgentInfo> {
        self.0.get(&name.to_string()).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}

/// The agent that a bare type means: heartbeat first, then crm, then pacemaker; heartbeat when none of them has it.
#[must_use]
pub fn resolve(kind: &str, catalog: &dyn AgentCatalog) -> AgentName {
    let name = |provider: &str| AgentName {
        class: "ocf".to_owned(),
        provider: Some(provider.to_owned()),
        kind: kind.to_owned(),
    };
    ["heartbeat", "crm", "pacemaker"]
        .into_iter()
        .map(name)
        .find(|agent| catalog.agent(agent).is_some())
        .unwrap_or_else(|| name("heartbeat"))
}

/// The nearest known agent: by full name, or by type alone.
pub(crate) fn nearest_agent(agent: &AgentName, catalog: &dyn AgentCatalog) -> Option<String> {
    let names = catalog.names();
    let full = agent.to_string();
    let kind = |name: &str| name.rsplit(':').next().unwrap_or_default().to_owned();
    let same_type = names.iter().find(|n| kind(n) == agent.kind);
    if let Some(name) =
        same_type.map(String::as_str).or_else(|| nearest(&full, names.iter().map(String::as_str)))
    {
        return Some(name.to_owned());
    }
    let kinds: Vec<String> = names.iter().map(|n| kind(n)).collect();
    let near = nearest(&agent.kind, kinds.iter().map(String::as_str))?;
    names.iter().find(|n| kind(n) == near).cloned()
}
