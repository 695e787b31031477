//! What `crm fence status` shows: for each node its levels and devices, and what is wrong with them.

use super::device::{Action, Config};
use super::hosts::{Answers, Reach};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Whether a device reaches a node, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// It does.
    Yes,
    /// It does not, because.
    No(String),
    /// It has not been asked lately.
    Unknown,
}

/// One level for one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LevelCoverage {
    /// Place in the topology; `None` without one.
    pub number: Option<usize>,
    /// Devices, and whether each reaches the node.
    pub devices: Vec<(String, Reached)>,
}

/// How one node can be fenced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCoverage {
    /// The node.
    pub node: String,
    /// Levels in the order in which they are tried. Without a topology only devices that may reach the node.
    pub levels: Vec<LevelCoverage>,
}

/// Something that is wrong with the devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "finding")]
pub enum Finding {
    /// Nothing can fence the node: no level has only devices that reach it.
    NoDevice {
        /// The node.
        node: String,
    },
    /// The only node that may run the device for a node is that node itself, which never does.
    OnlyItself {
        /// The device.
        device: String,
        /// The node.
        node: String,
    },
    /// A level names a device that is not there or is switched off: the level never succeeds.
    UnknownDevice {
        /// The device.
        device: String,
        /// The node whose level it is.
        node: String,
        /// Place of the level.
        level: usize,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice { node } => write!(f, "nothing can fence {node}"),
            Self::OnlyItself { device, node } => {
                write!(f, "{device} may run only on {node}, which it is to fence")
            }
            Self::UnknownDevice { device, node, level } => write!(
                f,
                "level {level} of {node} names {device}, which is not there or is switched off: it never succeeds"
            ),
        }
    }
}

/// The whole table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// Configured nodes by name.
    pub nodes: Vec<NodeCoverage>,
    /// What is wrong, node by node.
    pub findings: Vec<Finding>,
}

impl Config {
    /// How each configured node can be fenced. `armed` as in [`super::World`].
    #[must_use]
    pub fn coverage(&self, answers: &Answers, armed: &BTreeSet<String>, now_ms: u64) -> Coverage {
        let mut out = Coverage::default();
        for node in self.nodes.keys() {
            let mut levels = Vec::new();
            for level in self.levels(node, Action::Off) {
                let reach = |id: &String| match self.device(id) {
                    None => Reached::No("it is not there, or switched off".to_owned()),
                    Some(device) => match device.reach(node, answers, armed, now_ms) {
                        Reach::Yes => Reached::Yes,
                        Reach::No(why) => Reached::No(why),
                        Reach::Ask(_) => Reached::Unknown,
                    },
                };
                let devices: Vec<(String, Reached)> =
                    level.devices.iter().map(|id| (id.clone(), reach(id))).collect();
                let hopeless = devices.iter().all(|(_, reached)| matches!(reached, Reached::No(_)));
                if level.number.is_none() && hopeless {
                    continue;
                }
                self.look(node, level.number, &devices, &mut out.findings);
                levels.push(LevelCoverage { number: level.number, devices });
            }
            let works = |level: &LevelCoverage| {
                let fails = |reached: &Reached| matches!(reached, Reached::No(_));
                !level.devices.iter().any(|(_, reached)| fails(reached))
            };
            if !levels.iter().any(works) {
                out.findings.push(Finding::NoDevice { node: node.clone() });
            }
            out.nodes.push(NodeCoverage { node: node.clone(), levels });
        }
        out
    }

    fn look(
        &self,
        node: &str,
        number: Option<usize>,
        devices: &[(String, Reached)],
        findings: &mut Vec<Finding>,
    ) {
        for (id, reached) in devices {
            match (self.device(id), number) {
                (None, Some(level)) => findings.push(Finding::UnknownDevice {
                    device: id.clone(),
                    node: node.to_owned(),
                    level,
                }),
                (None, None) => {}
                (Some(device), _) => {
                    let mut others = self.nodes.keys().filter(|name| *name != node);
                    let alone = others.all(|name| device.barred.contains(name));
                    let runs = device.kind == super::Kind::Agent;
                    if alone && runs && !matches!(reached, Reached::No(_)) {
                        let (device, node) = (id.clone(), node.to_owned());
                        findings.push(Finding::OnlyItself { device, node });
                    }
                }
            }
        }
    }
}
