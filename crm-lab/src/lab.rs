//! The lab on disk: one directory with everything in it, and the facts about its network.
//!
//! ```text
//! DIR/lab.json          what was built
//! DIR/bin/crm           copy of the executable that runs in all nodes
//! DIR/bin/crm-NODE      another one for the daemons of a node, if there is one
//! DIR/hosts             bound over /etc/hosts everywhere
//! DIR/run/NAME.pid      pid and start time of each namespace's first process
//! DIR/NODE/etc-crm, DIR/NODE/lib-crm, DIR/NODE/lib-nfs, DIR/NODE/log   the node's lasting state
//! DIR/NODE/run          its sockets, on loopback addresses
//! DIR/fence/            fence agents, ours for the power strip (`power.sock`) and the machine's
//! DIR/client/           the client's log of acknowledged records, its socket and its result
//! ```

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Address of the exported file system: seed 002's `nfs.mydomain.com`.
pub const VIP: &str = "192.168.7.200";
/// Name of [`VIP`] in the lab's hosts file.
pub const VIP_NAME: &str = "nfs.mydomain.com";
/// Address of the client.
pub const CLIENT_ADDRESS: &str = "192.168.7.9";
/// Port of crmd.
pub const PORT: u16 = 7631;
/// The volume of seed 002.
pub const VOLUME: &str = "r0";
/// Its device on every node.
pub const DEVICE: &str = "/dev/drbd0";
/// Its backing file on every node.
pub const DISK: &str = "/var/lib/crm/disks/r0";
/// Nodes that a lab can have, in order, with their addresses.
pub const NODES: [(&str, &str); 5] = [
    ("alpha", "192.168.7.123"),
    ("delta", "192.168.7.140"),
    ("gamma", "192.168.7.150"),
    ("omega", "192.168.7.160"),
    ("sigma", "192.168.7.170"),
];

/// Directories of the host that nodes cover with their own; made when they are missing, removed by `down` if still empty.
pub(crate) const MOUNT_POINTS: [&str; 4] = ["/etc/crm", "/var/lib/crm", "/var/lib/nfs", "/srv"];

/// What was built; `lab.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Built {
    /// Node names.
    pub(crate) nodes: Vec<String>,
    /// Debian's agents instead of ours.
    pub(crate) debian_agents: bool,
    /// No namespaces: the nodes are on loopback addresses.
    #[serde(default)]
    pub(crate) loopback: bool,
    /// Directories of the host that did not exist before.
    pub(crate) made: Vec<PathBuf>,
}

/// A lab's directory.
#[derive(Debug, Clone)]
pub struct Lab {
    dir: PathBuf,
}

impl Lab {
    /// The lab in `dir`, or in the default place.
    ///
    /// # Errors
    /// When the place is one that the nodes cover.
    pub fn new(dir: Option<PathBuf>) -> Result<Self> {
        let dir = match dir {
            Some(dir) => std::path::absolute(&dir).context("make the lab's path absolute")?,
            None if nix::unistd::geteuid().is_root() => PathBuf::from("/var/tmp/crm-demo"),
            None => {
                let home = std::env::var_os("HOME").context("find HOME")?;
                PathBuf::from(home).join(".crm-demo")
            }
        };
        let covered = ["/run", "/var/run", "/dev", "/proc", "/sys"];
        let hidden = covered.into_iter().chain(MOUNT_POINTS).find(|p| dir.starts_with(p));
        if let Some(place) = hidden {
            bail!("the lab cannot live in {}: its nodes cover {place}", dir.display());
        }
        Ok(Self { dir })
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The executable that runs in the nodes.
    #[must_use]
    pub fn executable(&self) -> PathBuf {
        self.dir.join("bin/crm")
    }

    /// The executable that runs as the daemons of a node: its own after [`crate::node::install`], else everybody's.
    #[must_use]
    pub fn executable_of(&self, node: &str) -> PathBuf {
        let own = self.own_executable(node);
        if own.exists() { own } else { self.executable() }
    }

    pub(crate) fn own_executable(&self, node: &str) -> PathBuf {
        self.dir.join(format!("bin/crm-{node}"))
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    pub(crate) fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(format!("{name}.pid"))
    }

    /// A node's lasting files.
    #[must_use]
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join(node)
    }

    /// The client's files.
    #[must_use]
    pub fn client_dir(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// A node's backing file of the volume, seen from outside.
    #[must_use]
    pub fn disk(&self, node: &str) -> PathBuf {
        self.node_dir(node).join("lib-crm/disks").join(VOLUME)
    }

    pub(crate) fn built(&self) -> Result<Built> {
        let path = self.dir.join("lab.json");
        let text = fs::read_to_string(&path).with_context(|| {
            format!("no lab in {} (build one with `crm demo up`)", self.dir.display())
        })?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    pub(crate) fn note_built(&self, built: &Built) -> Result<()> {
        let path = self.dir.join("lab.json");
        let text = serde_json::to_string_pretty(built).context("write lab.json")?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Whether the lab that is built here is one on loopback addresses.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.built().is_ok_and(|built| built.loopback)
    }

    /// Its nodes.
    ///
    /// # Errors
    /// When there is no lab here.
    pub fn nodes(&self) -> Result<Vec<String>> {
        Ok(self.built()?.nodes)
    }

    /// Refuses a name that is none of the lab's nodes.
    pub(crate) fn check_node(&self, node: &str) -> Result<()> {
        let nodes = self.nodes()?;
        if nodes.iter().any(|n| n == node) {
            return Ok(());
        }
        bail!("no node `{node}` in this lab; it has {}", nodes.join(", "));
    }

    /// Makes the directories and the hosts file.
    pub(crate) fn lay_out(&self, nodes: &[String]) -> Result<()> {
        let mut dirs = vec![self.dir.join("bin"), self.dir.join("run"), self.client_dir()];
        for node in nodes {
            let base = self.node_dir(node);
            for part in ["etc-crm", "lib-crm/disks", "lib-nfs", "log/ganesha"] {
                dirs.push(base.join(part));
            }
        }
        for dir in dirs {
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost\n");
        for (name, address) in NODES {
            hosts.push_str(&format!("{address} {name}\n"));
        }
        hosts.push_str(&format!("{CLIENT_ADDRESS} client\n{VIP} {VIP_NAME}\n"));
        fs::write(self.hosts(), hosts).context("write the hosts file")
    }
}

/// Address of a node.
///
/// # Errors
/// When no lab has such a node.
pub fn address(node: &str) -> Result<&'static str> {
    let known = NODES.iter().find(|(name, _)| *name == node);
    known.map(|(_, address)| *address).with_context(|| format!("no node is called `{node}`"))
}
