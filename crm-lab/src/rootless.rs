//! The lab without root: everything happens in a user namespace in which the caller is root.
//!
//! What the caller builds there is real (namespaces, bridge, wires, addresses, mounts), with these differences:
//! no loop device, so a volume is shown as a FUSE file; the kernel mounts no ext4 there, so fuse2fs does; no file can be opened by its
//! handle, so the NFS server is our own; real-time priority, locked memory and protection from the OOM killer are not to be had.

use crate::lab::{Lab, MOUNT_POINTS, NODES};
use crate::ns::{CLIENT, HUB};
use crate::{pid, shell};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{getegid, geteuid};
use std::fs::{self, File, OpenOptions};
use std::path::Path;

/// Programs that a lab without root needs besides `ip` and `nsenter`, and their packages.
const PROGRAMS: [(&str, &str); 3] =
    [("fuse2fs", "fuse2fs"), ("mkfs.ext4", "e2fsprogs"), ("ip", "iproute2")];
/// Switches of the kernel and of distributions that forbid user namespaces.
const SWITCHES: [&str; 3] = [
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
];

/// What is different, for the person who watches.
pub(crate) const DIFFERENCES: &str = "  no root   a user namespace: the volume is a FUSE file (no loop devices), ext4 is mounted by fuse2fs, the NFS server is our own";

/// Whether this process is root in a user namespace only.
pub(crate) fn active() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    !words.is_empty() && words != ["0", "0", "4294967295"]
}

/// What a lab can stand on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The caller is root now, if only in a user namespace.
    Namespaces,
    /// Neither is to be had, with the reason; or the lab is one on loopback addresses already.
    Loopback(String),
}

/// Makes the caller root, if only in a user namespace: the running lab's, else a new one. Nothing to do for root.
///
/// # Errors
/// When the running lab's user namespace cannot be entered.
pub(crate) fn enter(lab: &Lab) -> Result<Ground> {
    if lab.is_loopback() {
        return Ok(Ground::Loopback("so it was built".to_owned()));
    }
    if geteuid().is_root() {
        // Root of a container is no more than the root of a user namespace.
        return Ok(match active().then(check) {
            Some(Err(why)) => Ground::Loopback(format!("{why:#}")),
            Some(Ok(())) | None => Ground::Namespaces,
        });
    }
    if let Some(first) = first_process(lab) {
        join(first)?;
        return Ok(Ground::Namespaces);
    }
    Ok(match check().and_then(|()| make()) {
        Ok(()) => Ground::Namespaces,
        Err(why) => Ground::Loopback(format!("{why:#}")),
    })
}

/// A living process of the lab.
fn first_process(lab: &Lab) -> Option<i32> {
    let nodes = NODES.iter().map(|(name, _)| *name);
    [HUB, CLIENT].into_iter().chain(nodes).find_map(|name| pid::find(lab, name))
}

fn join(first: i32) -> Result<()> {
    let path = format!("/proc/{first}/ns/user");
    let space = File::open(&path).with_context(|| format!("open {path}"))?;
    setns(space, CloneFlags::CLONE_NEWUSER).context("enter the lab's user namespace")
}

fn make() -> Result<()> {
    let (user, group) = (geteuid(), getegid());
    let made = unshare(CloneFlags::CLONE_NEWUSER).map_err(std::io::Error::from).and_then(|()| {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {group} 1"))
    });
    made.with_context(|| format!("user namespaces are not allowed here{}", switches()))
}

fn switches() -> String {
    let set = SWITCHES.iter().filter_map(|path| {
        let value = fs::read_to_string(path).ok()?;
        Some(format!(
            "{} = {}",
            path.trim_start_matches("/proc/sys/").replace('/', "."),
            value.trim()
        ))
    });
    let set: Vec<String> = set.collect();
    if set.is_empty() { String::new() } else { format!(" ({})", set.join(", ")) }
}

/// Refuses where something is missing that a user namespace cannot do without.
///
/// # Errors
/// Names all that is missing, and what to do about it.
fn check() -> Result<()> {
    let mut missing = Vec::new();
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        missing.push(format!("/dev/fuse cannot be opened: {error} (as root: chmod 666 /dev/fuse)"));
    }
    for (program, package) in PROGRAMS {
        let there = shell::PATH.split(':').any(|dir| Path::new(dir).join(program).exists());
        if !there {
            missing.push(format!("{program} is missing (as root: apt-get install {package})"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("{}", missing.join("; "))
}

/// Mount points that this machine lacks, made in a layer of the node's own.
pub(crate) fn cover(scratch: &Path) -> Result<()> {
    // Without the right to lock memory a limit makes later allocations fail; none at all makes the daemons do without.
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).context("give up locked memory")?;
    let mut mounted = false;
    for place in MOUNT_POINTS.map(Path::new) {
        if place.exists() {
            continue;
        }
        let Some(parent) = place.parent().filter(|parent| *parent != Path::new("/")) else {
            bail!("{} is missing on this machine (as root: mkdir it)", place.display());
        };
        if !mounted {
            fs::create_dir_all(scratch).with_context(|| format!("make {}", scratch.display()))?;
            mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), None::<&str>)
                .with_context(|| format!("mount tmpfs on {}", scratch.display()))?;
            mounted = true;
        }
        layer(scratch, parent)?;
        fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
    }
    Ok(())
}

fn layer(scratch: &Path, over: &Path) -> Result<()> {
    let name = over.display().to_string().replace('/', "-");
    let [upper, work] = ["upper", "work"].map(|kind| scratch.join(format!("{kind}{name}")));
    for dir in [&upper, &work] {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    }
    let (over_text, upper, work) = (over.display(), upper.display(), work.display());
    let options = format!("lowerdir={over_text},upperdir={upper},workdir={work}");
    let mounted =
        mount(Some("overlay"), over, Some("overlay"), MsFlags::empty(), Some(options.as_str()));
    mounted.map_err(|error| {
        let hint = match error {
            Errno::EPERM | Errno::ENODEV => " (user namespaces may since Linux 5.11)",
            _ => "",
        };
        anyhow::Error::new(error).context(format!("mount overlay on {over_text}{hint}"))
    })
}
