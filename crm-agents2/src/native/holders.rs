//! Who keeps a mount or a device busy: named in reasons, asked to go in the stop ladder.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
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

fn links_of(process: &Path) -> Vec<PathBuf> {
    let mut links = vec![process.join("cwd"), process.join("root"), process.join("exe")];
    let fds = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    links.extend(fds.map(|e| e.path()));
    links.into_iter().filter_map(|l| fs::read_link(l).ok()).collect()
}

/// Processes with a file, directory or root below `directory`.
pub(crate) fn below(directory: &Path) -> Vec<Holder> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found = Vec::new();
    for (pid, path) in processes() {
        if pid != me && links_of(&path).iter().any(|l| l.starts_with(directory)) {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            found.push(Holder { pid, name: name.trim().to_owned() });
        }
    }
    found
}

/// What has `device` open or mounted, in words.
pub(crate) fn of_device(device: &str) -> Vec<String> {
    let mut found: Vec<String> = super::mounts::all()
        .into_iter()
        .filter(|m| m.source == device)
        .map(|m| format!("mount on {}", m.target.display()))
        .collect();
    found.extend(below(Path::new(device)).iter().map(Holder::describe));
    found
}

/// Sends `signal` to all of them and waits until they are gone, `limit` at most. True when all are gone.
pub(crate) fn send_away(holders: &[Holder], signal: Signal, limit: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, pidfd_open};
    let until = Instant::now() + limit;
    let mut gone = true;
    let watched: Vec<_> = holders
        .iter()
        .filter_map(|h| {
            let pid = rustix::process::Pid::from_raw(h.pid)?;
            let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
            kill(Pid::from_raw(h.pid), signal).ok()?;
            Some(handle)
        })
        .collect();
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
