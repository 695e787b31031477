//! First processes of the lab's namespaces: found by pid and start time, so that a pid used anew is never taken for one of ours.

use crate::lab::Lab;
use crate::{rootless, shell, wait};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long a killed namespace may take to vanish: its processes may be in the middle of disk writes.
const DEATH_LIMIT: Duration = Duration::from_secs(20);

/// State letter and start time from `/proc/PID/stat`; `None` when there is no such process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything: the fields start after the last one.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((state, start))
}

fn running(pid: i32, start: u64) -> bool {
    stat(pid).is_some_and(|(state, began)| began == start && !matches!(state, 'Z' | 'X'))
}

/// Notes a process as the first one of namespace `name`.
pub(crate) fn note(lab: &Lab, name: &str, pid: i32) -> Result<()> {
    let (_, start) = stat(pid).with_context(|| format!("find process {pid}"))?;
    let path = lab.pid_file(name);
    fs::write(&path, format!("{pid} {start}\n"))
        .with_context(|| format!("write {}", path.display()))
}

/// The living first process of namespace `name`.
pub(crate) fn find(lab: &Lab, name: &str) -> Option<i32> {
    let text = fs::read_to_string(lab.pid_file(name)).ok()?;
    let (pid, start) = text.trim().split_once(' ')?;
    let (pid, start) = (pid.parse().ok()?, start.parse().ok()?);
    running(pid, start).then_some(pid)
}

/// As [`find`]; a dead one is an error.
pub(crate) fn get(lab: &Lab, name: &str) -> Result<i32> {
    find(lab, name).with_context(|| format!("`{name}` is not running"))
}

/// Kills the first process of a node and waits until all of it is gone.
///
/// A process may wait for an answer of a FUSE file system that it (or a sibling that dies with it) serves: the kernel waits for ever then,
/// unless the connection is broken. Pulling the plug includes that. Without root there is no loop device between the two, which alone
/// keeps a connection alive that nobody serves.
pub(crate) fn destroy_node(pid: i32) -> Result<()> {
    if !nix::unistd::geteuid().is_root() || rootless::active() {
        return destroy(pid);
    }
    let connections = fuse_connections(pid);
    if let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL)
        && error != Errno::ESRCH
    {
        bail!("kill {pid}: {error}");
    }
    if !connections.is_empty() {
        let abort = connections
            .iter()
            .map(|number| format!("[ ! -e $at/{number}/abort ] || echo 1 > $at/{number}/abort\n"));
        let script = format!(
            "set -e\nat=/sys/fs/fuse/connections\nmount -t fusectl fusectl $at\n{}",
            abort.collect::<String>()
        );
        shell::sh("unshare", &["-m", "--propagation", "private", "sh", "-c", &script])?;
    }
    destroy(pid)
}

/// Numbers of the FUSE connections of a node's daemons.
fn fuse_connections(pid: i32) -> Vec<String> {
    // Gone meanwhile: then there is nothing to break.
    let read = |of: &str| fs::read_to_string(format!("/proc/{of}/mountinfo")).unwrap_or_default();
    connections_of(&read(&pid.to_string()), &read("self"))
}

/// Those mounted in a node and not here: a node has copies of all that was mounted here when it began, and that is somebody else's.
fn connections_of(node: &str, here: &str) -> Vec<String> {
    let ours = |text: &str| -> Vec<String> {
        let ours = text.lines().filter(|line| line.contains(" - fuse.crm "));
        let device = ours.filter_map(|line| line.split(' ').nth(2)?.split_once(':'));
        device.map(|(_, minor)| minor.to_owned()).collect()
    };
    let foreign = ours(here);
    ours(node).into_iter().filter(|number| !foreign.contains(number)).collect()
}

/// Kills a process and waits until it is gone. One that is gone already is fine.
pub(crate) fn destroy(pid: i32) -> Result<()> {
    let Some((_, start)) = stat(pid) else { return Ok(()) };
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => bail!("kill {pid}: {error}"),
    }
    wait::until(&format!("the death of process {pid}"), DEATH_LIMIT, || {
        Ok((!running(pid, start)).then_some(()))
    })
}

/// All processes whose executable lies in `dir`, whatever has become of the file since.
pub(crate) fn with_executable_in(dir: &Path) -> Result<Vec<i32>> {
    let me = i32::try_from(std::process::id()).context("know the own pid")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry.context("read /proc")?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        // Gone meanwhile, or a kernel thread: not ours.
        let Ok(exe) = fs::read_link(entry.path().join("exe")) else { continue };
        if pid != me && exe.starts_with(dir) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_has_a_copy_of_is_not_broken_with_it() {
        let line = |minor: u8| format!("36 35 0:{minor} / /run/x rw,nosuid - fuse.crm crm rw\n");
        let other = "37 35 0:50 / /y rw - fuse.sshfs x rw\n";
        let node = [line(41).as_str(), &line(42), other].concat();
        assert_eq!(connections_of(&node, &line(41)), ["42"]);
        assert_eq!(connections_of(&node, other), ["41", "42"]);
    }
}
