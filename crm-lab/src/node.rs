//! One node as the driver sees it: power, daemons' sockets, commands inside.

use crate::lab::Lab;
use crate::{down, loopback, net, ns, pid, shell, wait};
use anyhow::{Context, Result, bail};
use crm_proto::line::Line;
use crm_proto::local::StatusReply;
use crm_proto::{block, local};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Limit of one question to a daemon.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How long a daemon may take until its socket answers.
const DAEMON_LIMIT: Duration = Duration::from_secs(20);

/// Powers a node on: namespaces, wire; its daemons follow by themselves when it is a member.
///
/// # Errors
/// When it is no node of the lab, or its namespaces cannot be made.
pub fn start(lab: &Lab, node: &str) -> Result<()> {
    lab.check_node(node)?;
    let _turn = turn(lab, node)?;
    let loopback = lab.is_loopback();
    if pid::find(lab, node).is_none() {
        if !loopback {
            down::free_orphan_loops()?;
        }
        ns::start(lab, node, "node-init")?;
    }
    if loopback { Ok(()) } else { net::plug(lab, node) }
}

/// One at a time: a person and a power strip may switch the same node, and whoever lays its wire takes away one that is there.
fn turn(lab: &Lab, node: &str) -> Result<Flock<File>> {
    let path = lab.dir().join(format!("{node}.switch"));
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("wait for whoever switches this node")
}

/// Pulls the plug: the wire is cut and every process of the node is killed. Its files stay.
///
/// # Errors
/// When the node is no node of the lab, or does not die.
pub fn kill(lab: &Lab, node: &str) -> Result<()> {
    lab.check_node(node)?;
    let _turn = turn(lab, node)?;
    let Some(first) = pid::find(lab, node) else { return Ok(()) };
    if lab.is_loopback() {
        return loopback::kill(lab, node);
    }
    net::cut(lab, node)?;
    pid::destroy_node(first)
}

/// Whether the node is powered on.
#[must_use]
pub fn is_on(lab: &Lab, node: &str) -> bool {
    pid::find(lab, node).is_some()
}

/// Runs a command inside the node; its output. An exit code other than 0 is an error.
///
/// # Errors
/// When the node is off or the command fails.
pub fn exec(lab: &Lab, node: &str, words: &[&str]) -> Result<String> {
    shell::run(ns::inside(lab, node)?.args(words))
}

/// As [`exec`], with text on standard input.
///
/// # Errors
/// When the node is off or the command fails.
pub fn exec_with_input(lab: &Lab, node: &str, words: &[&str], input: &str) -> Result<String> {
    shell::run_with_input(ns::inside(lab, node)?.args(words), input)
}

/// A path of the node as it is seen from outside, while it is on.
///
/// # Errors
/// When the node is off.
pub fn path(lab: &Lab, node: &str, inside: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/proc/{}/root{inside}", pid::get(lab, node)?)))
}

/// One of the node's sockets, which is called `inside` where it has directories of its own.
fn socket(lab: &Lab, node: &str, inside: &str) -> Result<PathBuf> {
    if !lab.is_loopback() {
        return path(lab, node, inside);
    }
    pid::get(lab, node)?;
    let name = Path::new(inside).file_name().context("a socket has a name")?;
    Ok(loopback::run_dir(lab, node).join(name))
}

/// Asks the node's crmd.
///
/// # Errors
/// When it does not answer.
pub fn call(lab: &Lab, node: &str, request: &local::Request) -> Result<local::Reply> {
    let socket = socket(lab, node, local::SOCKET)?;
    Line::call(&socket, Some(CALL_LIMIT), request).with_context(|| format!("ask crmd on {node}"))
}

/// Asks the node's blockd.
///
/// # Errors
/// When it does not answer.
pub fn call_block(lab: &Lab, node: &str, request: &block::Request) -> Result<block::Reply> {
    let socket = socket(lab, node, block::SOCKET)?;
    Line::call(&socket, Some(CALL_LIMIT), request).with_context(|| format!("ask blockd on {node}"))
}

/// The picture as this node has it.
///
/// # Errors
/// When its crmd does not answer with one.
pub fn status(lab: &Lab, node: &str) -> Result<StatusReply> {
    match call(lab, node, &local::Request::Status)? {
        local::Reply::Status(picture) => Ok(*picture),
        local::Reply::Refused { why, remedy } => bail!("crmd on {node}: {why} ({remedy})"),
        other => bail!("crmd on {node} answered {other:?} to a question for its status"),
    }
}

/// The volume as this node's blockd has it; `None` when it does not know the volume.
///
/// # Errors
/// When its blockd does not answer.
pub fn volume(lab: &Lab, node: &str) -> Result<Option<block::VolumeStatus>> {
    let request = block::Request::Status { volume: Some(crate::lab::VOLUME.to_owned()) };
    match call_block(lab, node, &request)? {
        block::Reply::Status(mut all) => Ok(all.pop()),
        block::Reply::Refused { code, .. } if code == "unknown-volume" => Ok(None),
        other => bail!("blockd on {node} answered {other:?}"),
    }
}

/// An order to blockd that must be obeyed.
///
/// # Errors
/// When it refuses or does not answer.
pub fn order_block(lab: &Lab, node: &str, request: &block::Request) -> Result<()> {
    match call_block(lab, node, request)? {
        block::Reply::Ok => Ok(()),
        block::Reply::Refused { code, why } => {
            bail!("blockd on {node}: {request:?}: {code}: {why}")
        }
        block::Reply::Status(_) => bail!("blockd on {node} answered a status to {request:?}"),
    }
}

/// Gives a node another executable for its daemons, or (`None`) everybody's again. They have it when they start the next time.
///
/// # Errors
/// When it is no node of the lab, or the executable cannot be copied.
pub fn install(lab: &Lab, node: &str, executable: Option<&Path>) -> Result<()> {
    lab.check_node(node)?;
    let own = lab.own_executable(node);
    match executable {
        Some(from) => {
            // Not in place: the old one may be running.
            let fresh = own.with_extension("new");
            std::fs::copy(from, &fresh).with_context(|| format!("copy {}", from.display()))?;
            std::fs::rename(&fresh, &own).with_context(|| format!("install {}", own.display()))
        }
        None if own.exists() => {
            std::fs::remove_file(&own).with_context(|| format!("remove {}", own.display()))
        }
        None => Ok(()),
    }
}

/// Waits until both daemons of a node answer.
///
/// # Errors
/// When they do not in time.
pub fn wait_for_daemons(lab: &Lab, node: &str) -> Result<()> {
    wait::until(&format!("the daemons of {node}"), DAEMON_LIMIT, || {
        call_block(lab, node, &block::Request::Status { volume: None })?;
        call(lab, node, &local::Request::Status).map(|_| Some(()))
    })
}

/// Sends a signal (`KILL`, `TERM`, ..) to one of its daemons and the processes it was split into. One that has just ended is no error.
///
/// # Errors
/// When none runs.
pub fn signal(lab: &Lab, node: &str, word: &str, signal: &str) -> Result<()> {
    let which = format!("-{signal}");
    exec(lab, node, &["pkill", &which, "-f", "--", &pattern(lab, node, word)]).map(drop)
}

/// What the command line of a daemon begins with.
fn pattern(lab: &Lab, node: &str, word: &str) -> String {
    format!("^{}(-{node})? {word}", lab.executable().display())
}

/// Pids (in the node's own numbering) of one of its daemons and the processes it was split into, newest last.
///
/// # Errors
/// When none runs.
pub fn daemon_pids(lab: &Lab, node: &str, word: &str) -> Result<Vec<String>> {
    let text = exec(lab, node, &["pgrep", "-f", "--", &pattern(lab, node, word)])?;
    Ok(text.lines().map(str::to_owned).collect())
}
