//! The CIB: what is wanted. Built by the readers in `text/` and `yaml/`, read by `plan/`, replicated by `store/`.
//!
//! Values are kept as the user wrote them (Pacemaker's words); typed accessors interpret them.

mod bundle;
mod constraint;
mod fencing;
mod nv;
mod quorum;
mod resource;
mod score;

pub use bundle::{Bundle, Container, Engine, Network, PortMapping, StorageMapping};
pub use constraint::{
    Colocation, Constraint, Location, LocationTarget, LossPolicy, Order, OrderAction, OrderKind,
    ResourceSet, RscTicket, SetMember,
};
pub use fencing::{FencingRule, FencingTarget};
pub use nv::{Nv, NvSet, parse_bool, parse_duration_ms};
pub use quorum::{QUORUM_OPTIONS, QUORUM_VOTES};
pub use resource::{
    AgentName, CloneResource, Group, INSTANCES_MAX, Op, Primitive, Resource, Section,
};
pub use score::Score;

use serde::{Deserialize, Serialize};

/// A role of a resource. Ordered: a later one implies the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Not running.
    Stopped,
    /// Running (resources that are not promotable).
    Started,
    /// Running, promotable, not promoted (`Slave` in Pacemaker 1.x).
    Unpromoted,
    /// Promoted (`Master` in Pacemaker 1.x).
    Promoted,
}

/// A node of the cluster as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Node {
    /// Numeric id shown as `node 1: alpha`.
    pub id: u64,
    /// The node's name (uname).
    pub name: String,
    /// Permanent attributes (`standby`, `maintenance`, the user's own).
    pub attributes: NvSet,
    /// Capacities (`placement-strategy`).
    #[serde(default)]
    pub utilization: NvSet,
}

/// A replicated volume as configured (ADR-0004): what `crm volume create` makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Name; `drbd_resource=NAME` and `volume=NAME` of the agents refer to it.
    pub name: String,
    /// Usable size in bytes, a multiple of 4096.
    pub size_bytes: u64,
    /// Device path shown to the system, e.g. `/dev/drbd0`; default `/dev/crm/by-name/NAME`.
    pub device: String,
    /// Node name and backing path (block device or file) of each replica, in order of creation.
    pub replicas: Vec<Replica>,
    /// TCP port of the data plane on each node's replication address.
    pub port: u16,
    /// First data generation, chosen once by the command that made the volume (never zero).
    pub day0: u64,
    /// The replicas start as equal (`--assume-clean`); otherwise all but the first get a full sync.
    pub assume_clean: bool,
}

/// One replica of a [`Volume`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Name of the node.
    pub node: String,
    /// Backing block device or file on that node.
    pub disk: String,
}

/// The whole wanted configuration. Resource and constraint order is document order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cib {
    /// Configured nodes.
    pub nodes: Vec<Node>,
    /// Top-level resources.
    pub resources: Vec<Resource>,
    /// Constraints.
    pub constraints: Vec<Constraint>,
    /// `property` (set `cib-bootstrap-options`).
    pub properties: NvSet,
    /// `rsc_defaults` (set `rsc-options`).
    pub rsc_defaults: NvSet,
    /// `op_defaults` (set `op-options`).
    pub op_defaults: NvSet,
    /// Replicated volumes.
    pub volumes: Vec<Volume>,
    /// Resources that need a ticket.
    #[serde(default)]
    pub rsc_tickets: Vec<RscTicket>,
    /// Fencing levels (`fencing_topology`).
    #[serde(default)]
    pub fencing: Vec<FencingRule>,
}

impl Cib {
    /// Finds a top-level resource or a clone's child by id. Group members are found by [`Self::primitive`].
    #[must_use]
    pub fn resource(&self, id: &str) -> Option<&Resource> {
        self.resources.iter().find_map(|r| r.find(id))
    }

    /// Same as [`Self::resource`], mutable.
    pub fn resource_mut(&mut self, id: &str) -> Option<&mut Resource> {
        self.resources.iter_mut().find_map(|r| r.find_mut(id))
    }

    /// The top-level resource that is or contains `id`.
    #[must_use]
    pub fn top_of(&self, id: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.find(id).is_some() || r.primitive(id).is_some())
    }

    /// The primitive called `id`, wherever it is.
    #[must_use]
    pub fn primitive(&self, id: &str) -> Option<&Primitive> {
        self.resources.iter().find_map(|r| r.primitive(id))
    }

    /// Same as [`Self::primitive`], mutable.
    pub fn primitive_mut(&mut self, id: &str) -> Option<&mut Primitive> {
        self.resources.iter_mut().find_map(|r| r.primitive_mut(id))
    }

    /// All primitives in document order, also those inside groups and clones.
    #[must_use]
    pub fn primitives(&self) -> Vec<&Primitive> {
        let mut out = Vec::new();
        for r in &self.resources {
            r.collect_primitives(&mut out);
        }
        out
    }

    /// The configured node called `name`.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// Same as [`Self::node`], mutable.
    pub fn node_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|n| n.name == name)
    }

    /// Are lost nodes to be fenced? `stonith-enabled`, or `fencing-enabled` as Pacemaker 3 names it, where the older name says nothing; the
    /// default is yes, and a word that is no boolean says nothing.
    #[must_use]
    pub fn fencing_enabled(&self) -> bool {
        let mut names = ["stonith-enabled", "fencing-enabled"].iter();
        names.find_map(|name| self.properties.flag(name)).unwrap_or(true)
    }

    /// The volume called `name`.
    #[must_use]
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|v| v.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::Cib;

    #[test]
    fn fencing_is_on_unless_a_boolean_word_under_either_name_says_no_and_the_older_name_comes_first()
     {
        let cases: [(&[(&str, &str)], bool); 8] = [
            (&[], true),
            (&[("stonith-enabled", "Off")], false),
            (&[("fencing-enabled", "no")], false),
            (&[("fencing-enabled", "yes")], true),
            (&[("fencing-enabled", "false"), ("stonith-enabled", "true")], true),
            (&[("fencing-enabled", "true"), ("stonith-enabled", "0")], false),
            (&[("stonith-enabled", "perhaps")], true),
            (&[("stonith-enabled", "perhaps"), ("fencing-enabled", "false")], false),
        ];
        for (properties, on) in cases {
            let mut cib = Cib::default();
            properties.iter().for_each(|(name, value)| cib.properties.set(name, value));
            assert_eq!(cib.fencing_enabled(), on, "{properties:?}");
        }
    }
}
