//! Namespaces: each node, the hub (the switch between them) and the client is a first process of its own, started here.
//!
//! The starter leaves its own namespaces for new ones and starts the first process, which the kernel then makes pid 1 there. When that
//! process dies the kernel kills all others inside and the mounts vanish: killing it is pulling the plug.

use crate::lab::Lab;
use crate::{loopback, pid, power, shell, wait};
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a first process may take to appear.
const START_LIMIT: Duration = Duration::from_secs(10);

/// The namespace that holds the bridge.
pub(crate) const HUB: &str = "hub";
/// The namespace of the NFS client.
pub(crate) const CLIENT: &str = "client";

/// Starts the namespaces called `name`: `kind` is the hidden subcommand that runs as pid 1.
pub(crate) fn start(lab: &Lab, name: &str, kind: &str) -> Result<i32> {
    let log = lab.dir().join("run").join(format!("{name}.log"));
    let out = open_log(&log)?;
    let error = out.try_clone().context("share the log")?;
    let mut starter = shell::command(lab.executable());
    starter.args(["demo", "spawn", name, kind, "--dir"]).arg(lab.dir());
    starter.env("HOME", "/root").stdin(Stdio::null()).stdout(out).stderr(error);
    let status = starter.status().with_context(|| format!("start `{name}`"))?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        anyhow::bail!("start `{name}`: {status}: {}", said.trim());
    }
    wait::until(&format!("`{name}` to start"), START_LIMIT, || Ok(pid::find(lab, name)))
}

/// The hidden subcommand `spawn`: runs once per namespace and ends.
pub(crate) fn spawn(lab: &Lab, name: &str, kind: &str) -> Result<()> {
    setsid().context("start a session")?;
    let mut first = shell::command(lab.executable());
    first.args(["demo", kind, name, "--dir"]).arg(lab.dir()).stdin(Stdio::null());
    if lab.is_loopback() {
        first.envs(loopback::variables(lab, name));
    } else {
        part()?;
    }
    let child = first.spawn().context("start the first process")?;
    let number = i32::try_from(child.id()).context("understand the pid")?;
    pid::note(lab, name, number)
}

fn part() -> Result<()> {
    // Not the mounts: the first process parts from them by itself, or its new /proc would be ours while we look it up.
    let flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET;
    unshare(flags).context("make namespaces (root is needed)")
}

/// Opens a log for appending.
pub(crate) fn open_log(path: &Path) -> Result<fs::File> {
    let open = OpenOptions::new().create(true).append(true).open(path);
    open.with_context(|| format!("open {}", path.display()))
}

/// A command that will run inside namespace `name`; on loopback addresses, with the node's places in its environment.
pub(crate) fn inside(lab: &Lab, name: &str) -> Result<Command> {
    let path = format!("{}:{}", lab.dir().join("bin").display(), shell::PATH);
    let fence = format!("CRM_FENCE_DIR={}", power::agents(lab).display());
    let words = ["HOME=/root", "TERM=dumb", "LC_ALL=C.UTF-8", fence.as_str()];
    if lab.is_loopback() {
        let mut command = shell::command("env");
        command.arg("-i").arg(format!("PATH={path}")).args(words);
        if name == CLIENT {
            command.arg(format!("CRM_RUN_DIR={}", loopback::run_dir(lab, name).display()));
        } else {
            pid::get(lab, name)?;
            for (variable, value) in loopback::variables(lab, name) {
                command.arg(format!("{variable}={}", value.display()));
            }
        }
        return Ok(command);
    }
    let target = pid::get(lab, name)?.to_string();
    let mut command = shell::command("nsenter");
    command.args(["-t", &target, "-m", "-p", "-u", "-i", "-n", "--"]);
    command.args(["env", "-i"]).arg(format!("PATH={path}")).args(words);
    Ok(command)
}

/// A command that will run in the network of `name` only.
pub(crate) fn inside_network(lab: &Lab, name: &str, program: &str) -> Result<Command> {
    let target = pid::get(lab, name)?.to_string();
    let mut command = shell::command("nsenter");
    command.args(["-t", &target, "-n", "--", program]);
    Ok(command)
}
