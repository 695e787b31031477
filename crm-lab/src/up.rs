//! Building the lab: directories, namespaces, wires, then the cluster in them.

use crate::down::{down, make_mount_points};
use crate::lab::{Built, Lab, MOUNT_POINTS, NODES};
use crate::ns::{self, CLIENT, HUB};
use crate::{cluster, loopback, net, node, power, rootless, ui};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The `crm` executable that runs in the nodes.
    pub executable: PathBuf,
    /// 2 or 3; up to 5 without the seed's service ([`bare`]).
    pub nodes: usize,
    /// Debian's `IPaddr2`, `Filesystem` and Stateful instead of ours.
    pub debian_agents: bool,
    /// Nodes on loopback addresses, without namespaces.
    pub loopback: bool,
}

/// Builds the lab and the cluster in it; remains of an earlier one go first.
///
/// # Errors
/// Names the step that failed; what was built stays for a look, until `down`.
pub fn up(lab: &Lab, plan: &Plan) -> Result<()> {
    if plan.nodes > 3 {
        bail!("a lab with the seed's service has 2 or 3 nodes, not {}", plan.nodes);
    }
    bare(lab, plan)?;
    cluster::build(lab, plan)
}

/// Builds the nodes without a cluster.
///
/// # Errors
/// As [`up`].
pub fn bare(lab: &Lab, plan: &Plan) -> Result<()> {
    if !(2..=NODES.len()).contains(&plan.nodes) {
        bail!("a lab has 2 to {} nodes, not {}", NODES.len(), plan.nodes);
    }
    if !plan.loopback && !nix::unistd::geteuid().is_root() {
        bail!("the lab is built by root, or by the root of a user namespace");
    }
    let reduced = plan.loopback || rootless::active();
    if reduced && plan.debian_agents {
        bail!("Debian's Filesystem agent wants a kernel that mounts ext4: it needs root");
    }
    down(lab)?;
    let nodes: Vec<String> =
        NODES.iter().take(plan.nodes).map(|(name, _)| (*name).to_owned()).collect();
    if plan.loopback {
        loopback::check(lab, &nodes)?;
    }
    lab.lay_out(&nodes)?;
    fs::copy(&plan.executable, lab.executable()).context("copy the executable into the lab")?;
    // Without root each node makes those that are missing in a layer of its own.
    let made = if reduced { Vec::new() } else { make_mount_points(&MOUNT_POINTS)? };
    let (debian_agents, loopback) = (plan.debian_agents, plan.loopback);
    lab.note_built(&Built { nodes: nodes.clone(), debian_agents, loopback, made })?;
    power::start(lab)?;
    if !loopback {
        ns::start(lab, HUB, "hold")?;
        net::build_hub(lab)?;
        ns::start(lab, CLIENT, "hold")?;
        net::plug(lab, CLIENT)?;
    }
    for name in &nodes {
        node::start(lab, name)?;
    }
    if loopback {
        ui::say(&format!("  network   {} on 127.0.7.0/24", nodes.join(", ")));
        return Ok(());
    }
    ui::say(&format!("  network   {} on 192.168.7.0/24, client 192.168.7.9", nodes.join(", ")));
    Ok(())
}
