//! The proof: all resources stopped, the replicas of the volume are compared byte by byte and the file system is checked.

use crate::lab::{Lab, VOLUME};
use crate::{cluster, node, shell, wait};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;

/// The seed's group: what runs on the volume.
const GROUP: &str = "HA";
/// Bytes compared at once.
const BLOCK: usize = 1 << 20;

/// What was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Bytes of the volume, equal on all nodes.
    pub bytes: u64,
    /// Nodes compared.
    pub nodes: Vec<String>,
    /// There is a file system, and it is clean.
    pub clean: bool,
}

/// Waits for the last resync, stops everything, compares and checks; the nodes stay in standby.
///
/// # Errors
/// When replicas differ or the file system is not clean.
pub fn prove(lab: &Lab) -> Result<Proof> {
    let nodes = lab.nodes()?;
    let active = cluster::wait_for_service(lab)?;
    cluster::wait_for_sync(lab, &nodes)?;
    let size = volume_size(lab, &active)?;
    // The last writes (of the unmount) must reach all replicas: the volume goes down after what is on it.
    node::exec(lab, &active, &["crm", "resource", "stop", GROUP])?;
    let clean = !lab.is_loopback();
    wait::until("the file system to be unmounted", cluster::MOVE_LIMIT, || {
        let mounts = || node::exec(lab, &active, &["cat", "/proc/mounts"]);
        Ok((!clean || !cluster::is_srv_mounted(&mounts()?)).then_some(()))
    })?;
    cluster::wait_idle(lab, &active)?;
    cluster::wait_for_sync(lab, &nodes)?;
    // The active node last: the others hold nothing that would move there.
    let others = nodes.iter().filter(|n| **n != active);
    for name in others.chain([&active]) {
        node::exec(lab, &active, &["crm", "node", "standby", name, "--wait"])?;
    }
    compare(lab, &nodes, size)?;
    for name in nodes.iter().filter(|_| clean) {
        let disk = lab.disk(name);
        let disk = disk.to_str().context("the lab's path is text")?;
        shell::sh("fsck.ext4", &["-fn", disk])
            .with_context(|| format!("check {name}'s replica"))?;
    }
    Ok(Proof { bytes: size, nodes, clean })
}

/// Lets the nodes work again after [`prove`].
///
/// # Errors
/// When the cluster refuses, or the service does not come back.
pub fn resume(lab: &Lab) -> Result<String> {
    let nodes = lab.nodes()?;
    for name in &nodes {
        node::exec(lab, &cluster::any_on(lab)?, &["crm", "node", "online", name])?;
    }
    node::exec(lab, &cluster::any_on(lab)?, &["crm", "resource", "start", GROUP])?;
    let active = cluster::wait_for_service(lab)?;
    cluster::wait_for_sync(lab, &nodes)?;
    Ok(active)
}

fn volume_size(lab: &Lab, asked: &str) -> Result<u64> {
    let picture = node::status(lab, asked)?;
    let volume = picture.state.cib.volume(VOLUME).context("the volume is configured")?;
    Ok(volume.size_bytes)
}

fn compare(lab: &Lab, nodes: &[String], size: u64) -> Result<()> {
    let mut files = Vec::new();
    for name in nodes {
        let path = lab.disk(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        files.push(file.take(size));
    }
    let mut at = 0;
    let mut blocks = vec![Vec::with_capacity(BLOCK); files.len()];
    while at < size {
        for (file, block) in files.iter_mut().zip(&mut blocks) {
            block.clear();
            let limit = u64::try_from(BLOCK).context("a block fits")?;
            file.by_ref().take(limit).read_to_end(block).context("read a replica")?;
        }
        let Some((first, others)) = blocks.split_first() else { return Ok(()) };
        if first.is_empty() {
            bail!("a replica ends at byte {at} of {size}");
        }
        for (block, name) in others.iter().zip(nodes.iter().skip(1)) {
            if let Some(byte) = difference(first, block) {
                bail!(
                    "the replica of {name} differs from {}'s at byte {}",
                    nodes.join("/"),
                    at + byte
                );
            }
        }
        at += u64::try_from(first.len()).context("a block fits")?;
    }
    Ok(())
}

fn difference(a: &[u8], b: &[u8]) -> Option<u64> {
    if a == b {
        return None;
    }
    let place = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or_else(|| a.len().min(b.len()));
    u64::try_from(place).ok()
}
