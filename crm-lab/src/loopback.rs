//! The lab without namespaces: nodes on addresses of the loopback interface, with directories and daemons of their own and nothing else.
//!
//! Reduced, because there are no mounts, no service address and no wires to cut: the volume is a socket that speaks NBD, the client writes
//! its records there, a dummy service follows the primary. Membership, replication and the cluster's decisions are the real ones.

use crate::lab::{Lab, PORT};
use crate::{pid, wait};
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is left out, for the person who watches.
pub(crate) const DIFFERENCES: &str = "  reduced   loopback addresses: no namespaces, no file system, no NFS, no service address, no partitions; records go to the volume by NBD";
/// Addresses of the nodes, in the order of [`crate::lab::NODES`].
const ADDRESSES: [(&str, &str); 3] =
    [("alpha", "127.0.7.123"), ("delta", "127.0.7.140"), ("gamma", "127.0.7.150")];
/// How long killed processes may take to vanish.
const DEATH_LIMIT: Duration = Duration::from_secs(20);

/// A node's address.
pub(crate) fn address(node: &str) -> Result<&'static str> {
    let known = ADDRESSES.iter().find(|(name, _)| *name == node);
    known.map(|(_, address)| *address).with_context(|| format!("no node is called `{node}`"))
}

/// A node's directory of sockets.
pub(crate) fn run_dir(lab: &Lab, node: &str) -> PathBuf {
    lab.node_dir(node).join("run")
}

/// The volume's socket on a node that is primary.
pub(crate) fn volume_socket(lab: &Lab, node: &str) -> PathBuf {
    run_dir(lab, node).join(format!("nbd/{}.sock", crate::lab::VOLUME))
}

/// What tells a node's processes their places.
pub(crate) fn variables(lab: &Lab, node: &str) -> [(&'static str, PathBuf); 6] {
    let (base, run) = (lab.node_dir(node), run_dir(lab, node));
    [
        ("CRM_CONFIG", base.join("etc-crm/node.yaml")),
        ("CRM_DATA_DIR", base.join("lib-crm")),
        ("CRM_RUN_DIR", run.clone()),
        ("CRM_SOCKET", run.join("crmd.sock")),
        ("CRM_BLOCKD_SOCKET", run.join("blockd.sock")),
        ("CRM_BLOCK_FRONT", PathBuf::from("socket")),
    ]
}

/// What would be found out late: a path that a Unix socket cannot have, an address that another lab has.
pub(crate) fn check(lab: &Lab, nodes: &[String]) -> Result<()> {
    for node in nodes {
        let longest = volume_socket(lab, node);
        // sun_path of unix(7), with its zero.
        if longest.as_os_str().len() >= 108 {
            bail!("{} is too long for a socket: use a shorter --dir", longest.display());
        }
        let place = format!("{}:{PORT}", address(node)?);
        TcpListener::bind(&place)
            .with_context(|| format!("{place} (does another lab run on loopback addresses?)"))?;
    }
    Ok(())
}

/// Living processes of a node: its variables are in their environment.
fn processes(lab: &Lab, node: &str) -> Result<Vec<i32>> {
    let mut mark = b"CRM_RUN_DIR=".to_vec();
    mark.extend_from_slice(run_dir(lab, node).as_os_str().as_bytes());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry.context("read /proc")?;
        let Some(number) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        // Gone meanwhile, or somebody else's. A process that has ended has no environment.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark) {
            found.push(number);
        }
    }
    Ok(found)
}

/// Kills all processes of a node or the client, the supervisor first, and waits until they are gone.
pub(crate) fn kill(lab: &Lab, node: &str) -> Result<()> {
    if let Some(first) = pid::find(lab, node) {
        pid::destroy(first)?;
    }
    wait::until(&format!("the death of {node}"), DEATH_LIMIT, || {
        let left = processes(lab, node)?;
        for process in &left {
            pid::destroy(*process)?;
        }
        Ok(left.is_empty().then_some(()))
    })
}

/// The node's own directory for sockets, empty as after a boot.
pub(crate) fn prepare(lab: &Lab, node: &str) -> Result<()> {
    let run: &Path = &run_dir(lab, node);
    if run.exists() {
        fs::remove_dir_all(run).with_context(|| format!("empty {}", run.display()))?;
    }
    fs::create_dir_all(run).with_context(|| format!("make {}", run.display()))
}
