//! Fencing levels: which devices fence a node, and in which order they are tried.

use serde::{Deserialize, Serialize};

/// The nodes that a rule of the topology is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FencingTarget {
    /// Every node, those too that join later (a `fencing_topology` without a target).
    Every,
    /// One node by name.
    Node(String),
    /// Nodes whose name this regular expression finds (`target-pattern`; not anchored).
    Pattern(String),
    /// Nodes with this attribute (`target-attribute`, `target-value`).
    Attribute {
        /// Name.
        name: String,
        /// Value.
        value: String,
    },
}

/// The levels of some nodes. Every device of a level must succeed; the next level is tried when one of them does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FencingRule {
    /// Whose levels.
    pub target: FencingTarget,
    /// Levels in the order in which they are tried; each a list of ids of `stonith` resources, never empty.
    pub levels: Vec<Vec<String>>,
}

impl FencingRule {
    /// Ids of the devices, level by level.
    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().flatten().map(String::as_str)
    }
}
