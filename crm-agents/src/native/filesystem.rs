//! `Filesystem`: a file system mounted at a directory. Parameters as `ocf:heartbeat:Filesystem`.
//!
//! Where the kernel may not mount a disk's file system (a user namespace), ext4 is mounted through fuse2fs.

use super::context::{Context, Failure};
use super::{Action, Agent, fuse2fs, holders, mounts, param};
use crate::exec;
use crm_core::status::rc;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long holders get to leave after each signal.
const LEAVE: Duration = Duration::from_secs(2);
/// Rounds of the stop ladder before it is given up.
const ROUNDS: u32 = 3;

/// The agent.
pub(super) static AGENT: Agent = Agent {
    name: "Filesystem",
    about: "Mounts a file system; names, then removes, what holds it when it is to go",
    promotable: false,
    migratable: false,
    params: &[
        param("device", true, "Block device, LABEL=, UUID= or NFS path"),
        param("directory", true, "Mount point; made when it is missing"),
        param("fstype", true, "Type of the file system"),
        param("options", false, "Mount options, as for mount -o"),
        param("statusfile_prefix", false, "Prefix of the file that OCF_CHECK_LEVEL 20 writes"),
        param("run_fsck", false, "auto, force or no: check before mounting"),
        param("fast_stop", false, "Accepted; the ladder is always fast"),
        param("force_clones", false, "Accepted; not used"),
        param("force_unmount", false, "true (default), safe or false: may holders be killed"),
        param("term_signals", false, "Accepted; TERM, then KILL"),
        param("kill_signals", false, "Accepted; TERM, then KILL"),
    ],
    run,
};

struct Wanted {
    device: String,
    directory: PathBuf,
    fstype: String,
    options: Option<String>,
}

fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    let wanted = Wanted {
        device: context.need("device")?,
        directory: PathBuf::from(context.need("directory")?),
        fstype: context.need("fstype")?,
        options: context.get("options"),
    };
    match action {
        Action::Start => start(context, &wanted),
        Action::Stop => stop(context, &wanted),
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => {
            monitor(context, &wanted)
        }
    }
}

/// Same device, also by another name of it.
fn same_device(mount: &mounts::Mount, wanted: &Wanted) -> bool {
    if mount.source == wanted.device || wanted.device.contains('=') {
        return true;
    }
    let number = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|m| m.rdev()).filter(|n| *n != 0)
    };
    match (number(&mount.source), number(&wanted.device)) {
        (Some(a), Some(b)) => a == b,
        // A device node that is gone while mounted, or a network file system.
        _ => std::fs::canonicalize(&wanted.device).is_ok_and(|p| p == Path::new(&mount.source)),
    }
}

fn start(context: &Context, wanted: &Wanted) -> Result<i32, Failure> {
    let directory = &wanted.directory;
    if let Some(mount) = mounts::at(directory) {
        if same_device(&mount, wanted) {
            return Ok(rc::OK);
        }
        let why = format!("{} is mounted on {} already", mount.source, directory.display());
        return Err(Failure::new(rc::ERR_GENERIC, why));
    }
    std::fs::create_dir_all(directory)
        .map_err(|e| Failure::io(&format!("create {}", directory.display()), &e))?;
    if wanted.device.starts_with("/dev/") && !Path::new(&wanted.device).exists() {
        let why = format!("device {} is not there", wanted.device);
        return Err(Failure::new(rc::ERR_INSTALLED, why));
    }
    if fuse2fs::applies(&wanted.device, &wanted.fstype) {
        fuse2fs::mount(context, &wanted.device, directory, wanted.options.as_deref())?;
        return Ok(rc::OK);
    }
    check_file_system(context, wanted)?;
    let directory = directory.display().to_string();
    let mut args = vec!["-t", wanted.fstype.as_str()];
    if let Some(options) = &wanted.options {
        args.extend(["-o", options.as_str()]);
    }
    args.extend([wanted.device.as_str(), directory.as_str()]);
    exec::call("mount", &args).map_err(|e| Failure::new(rc::ERR_GENERIC, e.to_string()))?;
    Ok(rc::OK)
}

/// A journal is replayed by the mount itself; `run_fsck=force` checks all the same.
fn check_file_system(context: &Context, wanted: &Wanted) -> Result<(), Failure> {
    let journaled = matches!(wanted.fstype.as_str(), "ext3" | "ext4" | "xfs" | "btrfs");
    let local = wanted.device.starts_with("/dev/") || wanted.device.contains('=');
    let check = match context.get("run_fsck").as_deref() {
        Some("force") => true,
        Some("no") => false,
        _ => local && !journaled && wanted.fstype == "ext2",
    };
    if !check {
        return Ok(());
    }
    let args = ["-t", wanted.fstype.as_str(), "-a", wanted.device.as_str()];
    // fsck ends with 1 when it has mended something: only what is left (4 and more) matters, and the mount would refuse that.
    exec::call("fsck", &args).map(|_| ()).or_else(|e| {
        if e.to_string().contains("UNEXPECTED") { Err(Failure::io("fsck", &e)) } else { Ok(()) }
    })
}

/// What goes before the mount itself: mounts below it, and bind mounts of the same device elsewhere (an NFS state directory).
fn mounts_to_undo(directory: &Path) -> Vec<mounts::Mount> {
    let Some(own) = mounts::at(directory) else { return Vec::new() };
    let all = mounts::all();
    let below = |m: &&mounts::Mount| m.target != own.target && m.target.starts_with(&own.target);
    // Numbers 0:N belong to file systems without a device, which others share.
    let elsewhere = |m: &&mounts::Mount| {
        !own.device.starts_with("0:")
            && m.device == own.device
            && !m.target.starts_with(&own.target)
    };
    let mut list: Vec<_> = all.iter().rev().filter(below).cloned().collect();
    list.extend(all.iter().rev().filter(elsewhere).cloned());
    list.push(own);
    list
}

fn stop(context: &Context, wanted: &Wanted) -> Result<i32, Failure> {
    let may_kill = context.get("force_unmount").is_none_or(|v| v != "false" && v != "no");
    let servers = fuse2fs::servers(&wanted.device, &wanted.fstype);
    // A mount may lie on top of another one of the same name.
    while mounts::at(&wanted.directory).is_some() {
        for mount in mounts_to_undo(&wanted.directory) {
            unmount(context, &mount, may_kill)?;
        }
    }
    // After the unmount they write what is left, then they let go of the device.
    if !holders::see_off(&servers, context.left()) {
        return Err(busy(Path::new(&wanted.device), &servers));
    }
    Ok(rc::OK)
}

/// The ladder: unmount; TERM to the holders; KILL to the holders; then the reason with their names.
fn unmount(context: &Context, mount: &mounts::Mount, may_kill: bool) -> Result<(), Failure> {
    let mut found = Vec::new();
    for round in 0..=ROUNDS {
        match umount2(&mount.target, MntFlags::empty()) {
            // Not a mount any more is what was wanted.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(nix::errno::Errno::EBUSY) => {}
            Err(error) => {
                return Err(Failure::io(&format!("unmount {}", mount.target.display()), &error));
            }
        }
        found = holders::of_mount(mount);
        if !may_kill {
            break;
        }
        let signal = if round == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
        holders::send_away(&found, signal, LEAVE.min(context.left()));
    }
    Err(busy(&mount.target, &found))
}

fn busy(directory: &Path, found: &[holders::Holder]) -> Failure {
    let names: Vec<String> = found.iter().map(holders::Holder::describe).collect();
    let by = if names.is_empty() {
        "something in the kernel (an NFS export, a swap file, a loop device?)".to_owned()
    } else {
        names.join(", ")
    };
    Failure::new(rc::ERR_GENERIC, format!("{} is busy, held by {by}", directory.display()))
}

fn monitor(context: &Context, wanted: &Wanted) -> Result<i32, Failure> {
    let Some(mount) = mounts::at(&wanted.directory) else { return Ok(rc::NOT_RUNNING) };
    if !same_device(&mount, wanted) {
        return Ok(rc::NOT_RUNNING);
    }
    if mount.kind.starts_with("fuse") {
        // Nobody else says that the process that serves it has died.
        std::fs::metadata(&wanted.directory)
            .map_err(|e| Failure::io(&format!("look at {}", wanted.directory.display()), &e))?;
    }
    let asked_ro = wanted.options.as_deref().is_some_and(|o| o.split(',').any(|word| word == "ro"));
    let bad = ["ro", "emergency_ro", "shutdown"];
    let found = mount.options.iter().find(|o| bad.contains(&o.as_str()));
    if let Some(option) = found.filter(|_| !asked_ro) {
        let why = format!(
            "{} has become `{option}`: the device below it failed",
            wanted.directory.display()
        );
        return Err(Failure::new(rc::ERR_GENERIC, why));
    }
    let level: u32 =
        std::env::var("OCF_CHECK_LEVEL").ok().and_then(|l| l.parse().ok()).unwrap_or(0);
    let recurring = context.meta("interval").is_some_and(|i| i != "0");
    if recurring || level >= 10 {
        // A device whose backing is gone says so here, whatever the caches still hold.
        read_device(&mount.source)?;
    }
    if level >= 20 {
        write_file(context, wanted)?;
    }
    Ok(rc::OK)
}

/// Reads the first block of the device past the page cache.
fn read_device(device: &str) -> Result<(), Failure> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    if !device.starts_with('/') {
        return Ok(());
    }
    let dead = |e: std::io::Error| Failure::io(&format!("device {device} is dead"), &e);
    let kind = std::fs::metadata(device).map_err(dead)?.file_type();
    if !kind.is_block_device() && !kind.is_file() {
        return Ok(());
    }
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(device)
        .map_err(dead)?;
    // O_DIRECT wants an aligned buffer: one aligned block inside a larger buffer.
    let mut buffer = vec![0_u8; 8192];
    let from = buffer.as_ptr().align_offset(4096);
    let block = buffer.get_mut(from..from + 4096).unwrap_or_default();
    file.read_exact(block).map_err(dead)
}

fn write_file(context: &Context, wanted: &Wanted) -> Result<(), Failure> {
    let prefix =
        context.get("statusfile_prefix").unwrap_or_else(|| ".Filesystem_status/".to_owned());
    let path = wanted.directory.join(format!("{prefix}{}", context.instance));
    let act = || -> std::io::Result<bool> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let text = context.instance.as_bytes();
        let mut file = std::fs::File::create(&path)?;
        file.write_all(text)?;
        file.sync_all()?;
        let mut back = Vec::new();
        std::fs::File::open(&path)?.read_to_end(&mut back)?;
        Ok(back == text)
    };
    match act() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(rc::ERR_GENERIC, "the status file reads back other bytes")),
        Err(error) => Err(Failure::io("write the status file", &error)),
    }
}
