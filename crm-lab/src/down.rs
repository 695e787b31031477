//! Taking the lab away without a trace, also after a crash of the lab itself, also twice.

use crate::lab::{Built, Lab, NODES};
use crate::ns::{CLIENT, HUB};
use crate::{loopback, pid, rootless, shell, wait};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// How long loop devices of dead nodes may take to let go of their files.
const LOOP_LIMIT: Duration = Duration::from_secs(20);

/// Frees loop devices that killed nodes left behind: their files were in FUSE file systems that died with them.
///
/// Such a device is known by two things: its file is nowhere on this machine, and reading it fails. Nobody's live device is like that.
pub(crate) fn free_orphan_loops() -> Result<()> {
    if !nix::unistd::geteuid().is_root() || rootless::active() {
        return Ok(());
    }
    let text = shell::sh("losetup", &["--noheadings", "--raw", "-O", "NAME,BACK-FILE"])?;
    for line in text.lines() {
        let (name, file) = line.split_once(' ').unwrap_or((line, ""));
        if !Path::new(file).exists() && is_dead(name) {
            detach(name)?;
        }
    }
    Ok(())
}

fn is_dead(device: &str) -> bool {
    let from = format!("if={device}");
    let words = ["-k", "1", "2", "dd", &from, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"];
    // Nothing is heard of it: one that hangs in the kernel would keep a pipe open until its device answers, and that may be for us to bring about.
    let quiet = (Stdio::null(), Stdio::null());
    let read = shell::command("timeout").args(words).stdout(quiet.0).stderr(quiet.1).status();
    // 1 is dd's own failure; a device that does not answer in time is slow, not dead.
    read.is_ok_and(|status| status.code() == Some(1))
}

fn detach(name: &str) -> Result<()> {
    wait::until(&format!("{name} to let go of its file"), LOOP_LIMIT, || {
        let bound = Path::new("/sys/block").join(name.trim_start_matches("/dev/")).join("loop");
        if !bound.exists() {
            return Ok(Some(()));
        }
        shell::sh("losetup", &["-d", name])?;
        Ok(None)
    })
}

fn destroy_namespaces(lab: &Lab) -> Result<()> {
    let nodes = NODES.iter().map(|(name, _)| *name);
    for name in nodes.chain([CLIENT, HUB]) {
        if lab.is_loopback() {
            loopback::kill(lab, name)?;
        } else if let Some(first) = pid::find(lab, name) {
            pid::destroy_node(first)?;
        }
    }
    for stray in pid::with_executable_in(&lab.dir().join("bin"))? {
        pid::destroy(stray)?;
    }
    Ok(())
}

/// Removes everything of the lab.
///
/// # Errors
/// Names what could not be removed.
pub fn down(lab: &Lab) -> Result<()> {
    let dir = lab.dir();
    if !dir.exists() {
        return Ok(());
    }
    if !dir.join("lab.json").exists() && !dir.join("bin").exists() && !is_empty(dir)? {
        bail!("{} does not look like a lab: not touched", dir.display());
    }
    let built = lab.built().ok();
    destroy_namespaces(lab)?;
    free_orphan_loops()?;
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))?;
    built.as_ref().map_or(Ok(()), remove_made)
}

fn is_empty(dir: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    Ok(entries.next().is_none())
}

/// Removes directories that the lab made as mount points, unless someone has put something there since.
fn remove_made(built: &Built) -> Result<()> {
    for path in &built.made {
        if path.exists() && is_empty(path)? && !is_mount_point_of_others(path)? {
            fs::remove_dir(path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Whether another lab's node has something mounted there: removing the directory would take that mount away.
fn is_mount_point_of_others(path: &Path) -> Result<bool> {
    let words = format!(" {} ", path.display());
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let mounts = entry.context("read /proc")?.path().join("mountinfo");
        // Gone meanwhile, or no process.
        if fs::read_to_string(mounts).is_ok_and(|text| text.contains(&words)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the mount points that this machine lacks; which ones those were.
pub(crate) fn make_mount_points(places: &[&str]) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for place in places {
        let path = PathBuf::from(place);
        if !path.exists() {
            fs::create_dir_all(&path).with_context(|| format!("make {place}"))?;
            made.push(path);
        }
    }
    Ok(made)
}
