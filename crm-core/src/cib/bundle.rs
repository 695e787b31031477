//! Bundles: a container image in several replicas, with addresses and storage, and perhaps one primitive that runs inside of each.

use super::nv::NvSet;
use super::resource::Primitive;
use serde::{Deserialize, Serialize};

/// What runs the containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// rkt, which Pacemaker knew until 3.0.
    Rkt,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Podman, Self::Rkt];

    /// Its name: the element of a CIB, the section of a text, the type of the agent.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Rkt => "rkt",
        }
    }
}

/// The containers of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// What runs them.
    pub engine: Engine,
    /// Attributes as written: `image`, `replicas`, `replicas-per-host`, `promoted-max` (or `masters`), `network`, `run-command`, `options`.
    pub attrs: NvSet,
}

/// A port of the host (of the replica's address) and where it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Id.
    pub id: String,
    /// `port`, `internal-port`, `range`.
    pub attrs: NvSet,
}

/// The network of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Network {
    /// `ip-range-start`, `control-port`, `host-interface`, `host-netmask`, `add-host`.
    pub attrs: NvSet,
    /// Ports.
    pub ports: Vec<PortMapping>,
}

/// A path of the host that is seen inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageMapping {
    /// Id.
    pub id: String,
    /// `source-dir` or `source-dir-root`, `target-dir`, `options`.
    pub attrs: NvSet,
}

/// A bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Id.
    pub id: String,
    /// Free text.
    pub description: Option<String>,
    /// Its containers.
    pub container: Container,
    /// Its network, if one is configured.
    pub network: Option<Network>,
    /// Its storage.
    pub storage: Vec<StorageMapping>,
    /// What runs inside of each container.
    pub child: Option<Primitive>,
    /// Meta attributes, inherited by everything in it.
    pub meta: NvSet,
}

impl Bundle {
    fn count(&self, name: &str) -> Option<u32> {
        self.container.attrs.get(name).and_then(|v| v.parse().ok())
    }

    /// How many instances of what is inside may be promoted at once; 0 = it is not promotable.
    #[must_use]
    pub fn promoted_max(&self) -> u32 {
        self.count("promoted-max").or_else(|| self.count("masters")).unwrap_or(0)
    }

    /// How many containers there are.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        let count = self.count("replicas").unwrap_or_else(|| self.promoted_max());
        count.clamp(1, super::INSTANCES_MAX)
    }

    /// How many of them may run on one node.
    #[must_use]
    pub fn replicas_per_host(&self) -> u32 {
        self.count("replicas-per-host").unwrap_or(1).max(1)
    }

    /// An attribute of the network.
    #[must_use]
    pub fn network_attr(&self, name: &str) -> Option<&str> {
        self.network.as_ref().and_then(|n| n.attrs.get(name))
    }

    /// What is inside can be reached: there is a way to talk to each container.
    #[must_use]
    pub fn reachable(&self) -> bool {
        self.network_attr("ip-range-start").is_some() || self.network_attr("control-port").is_some()
    }

    /// True when what is inside has roles.
    #[must_use]
    pub fn promotable(&self) -> bool {
        self.child.is_some()
            && (self.promoted_max() > 0 || self.meta.flag("promotable").unwrap_or(false))
    }

    /// Name of the node inside of replica `number`; its connection is called so too.
    #[must_use]
    pub fn node_name(&self, number: u32) -> String {
        format!("{}-{number}", self.id)
    }

    /// Names of the nodes inside of the containers; none when nothing runs there.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        if self.child.is_none() || !self.reachable() {
            return Vec::new();
        }
        (0..self.replicas()).map(|n| self.node_name(n)).collect()
    }
}
