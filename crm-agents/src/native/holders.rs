//! Who keeps a mount or a device busy: named in reasons, asked to go in the stop ladder.

use super::mounts::{self, Mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A process that holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    pub(crate) name: String,
}

impl Holder {
    pub(crate) fn describe(&self) -> String {
        format!("{} (pid {})", self.name, self.pid)
    }
}

fn processes() -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| {
            let pid = e.file_name().to_str()?.parse().ok()?;
            Some((pid, e.path()))
        })
        .collect()
}

/// Processes that hold a mount: by open files on it (the mount's number, so whatever namespace they are in), and by working
/// directory, root or program when they see the same mounts as we do.
pub(crate) fn of_mount(mount: &Mount) -> Vec<Holder> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let space = fs::read_link("/proc/self/ns/mnt").ok();
    let mut found = Vec::new();
    for (pid, path) in processes() {
        if pid == me {
            continue;
        }
        let ours = || fs::read_link(path.join("ns/mnt")).ok() == space;
        if opens(&path, mount.id) || (sits_below(&path, &mount.target) && ours()) {
            found.push(Holder { pid, name: name_of(&path) });
        }
    }
    found
}

fn name_of(process: &Path) -> String {
    fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned()
}

fn opens(process: &Path, mount: u64) -> bool {
    let files = fs::read_dir(process.join("fdinfo")).into_iter().flatten().flatten();
    files.into_iter().any(|file| {
        fs::read_to_string(file.path()).is_ok_and(|text| {
            let id = text.lines().find_map(|l| l.strip_prefix("mnt_id:"));
            id.is_some_and(|id| id.trim().parse() == Ok(mount))
        })
    })
}

fn sits_below(process: &Path, directory: &Path) -> bool {
    let linked = ["cwd", "root", "exe"]
        .iter()
        .any(|link| fs::read_link(process.join(link)).is_ok_and(|to| to.starts_with(directory)));
    linked
        || fs::read_to_string(process.join("maps")).is_ok_and(|text| {
            let mut paths = text.lines().filter_map(|l| l.split_whitespace().nth(5));
            paths.any(|p| p.starts_with('/') && Path::new(p).starts_with(directory))
        })
}

/// What has `device` open, mounted (in whatever namespace) or below another device, in words.
pub(crate) fn of_device(device: &str) -> Vec<String> {
    let Ok(found) = fs::metadata(device) else { return Vec::new() };
    if found.is_file() {
        return of_file(Path::new(device)).iter().map(Holder::describe).collect();
    }
    let rdev = found.rdev();
    let number = format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let mut words = BTreeSet::new();
    let mut spaces = BTreeMap::new();
    for (pid, path) in processes() {
        if let Ok(space) = fs::read_link(path.join("ns/mnt")) {
            spaces.entry(space).or_insert(pid);
        }
        let files = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let opens = files.into_iter().any(|file| {
            fs::metadata(file.path())
                .is_ok_and(|m| m.file_type().is_block_device() && m.rdev() == rdev)
        });
        if opens {
            words.insert(Holder { pid, name: name_of(&path) }.describe());
        }
    }
    for pid in spaces.values() {
        let mounts = mounts::of(&pid.to_string()).unwrap_or_default();
        for mount in mounts.iter().filter(|m| m.device == number) {
            words.insert(format!("the mount on {} (as pid {pid} sees it)", mount.target.display()));
        }
    }
    let stacked = fs::read_dir(format!("/sys/dev/block/{number}/holders"));
    for entry in stacked.into_iter().flatten().flatten() {
        words.insert(format!("device {}", entry.file_name().to_string_lossy()));
    }
    words.into_iter().collect()
}

/// Processes that have a file open.
pub(crate) fn of_file(path: &Path) -> Vec<Holder> {
    let Ok(found) = fs::metadata(path) else { return Vec::new() };
    let mut holders = Vec::new();
    for (pid, path) in processes() {
        let files = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let opens = files.into_iter().any(|file| {
            fs::metadata(file.path())
                .is_ok_and(|m| m.is_file() && m.dev() == found.dev() && m.ino() == found.ino())
        });
        if opens {
            holders.push(Holder { pid, name: name_of(&path) });
        }
    }
    holders
}

/// Waits until all of them have ended by themselves, `limit` at most. True when all have.
pub(crate) fn see_off(holders: &[Holder], limit: Duration) -> bool {
    let watched: Vec<_> = holders.iter().filter_map(|h| watch(h.pid)).collect();
    all_end(watched, limit)
}

fn watch(pid: i32) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// Sends `signal` to all of them and waits until they are gone, `limit` at most. True when all are gone.
pub(crate) fn send_away(holders: &[Holder], signal: Signal, limit: Duration) -> bool {
    let watched: Vec<_> = holders
        .iter()
        .filter_map(|h| {
            let handle = watch(h.pid)?;
            kill(Pid::from_raw(h.pid), signal).ok()?;
            Some(handle)
        })
        .collect();
    all_end(watched, limit)
}

fn all_end(watched: Vec<OwnedFd>, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let until = Instant::now() + limit;
    let mut gone = true;
    for handle in watched {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut waiting = [PollFd::new(&handle, PollFlags::IN)];
        gone &= poll(&mut waiting, Some(&limit)).is_ok_and(|n| n > 0);
    }
    gone
}
