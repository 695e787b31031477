//! The first process of a node: gives it directories and devices of its own, then keeps the two daemons running as systemd would.
//!
//! Also the first process of the hub and of the client, which only wait.

use crate::lab::Lab;
use crate::{loopback, ns, power, rootless, shell};
use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sethostname};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Rest before a daemon that ended is started again (systemd's `RestartSec` default).
const RESTART_AFTER: Duration = Duration::from_millis(100);
/// How often the supervisor looks whether the node has been made a cluster member and its link is up.
const LOOK_EVERY_MS: u16 = 20;
/// Loop devices that a node can see; the kernel hands out the lowest free number of the whole machine.
const LOOPS: u64 = 256;
/// Major number of loop devices.
const LOOP_MAJOR: u64 = 7;

fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("bind {} over {}", source.display(), target.display()))
}

fn fresh(kind: &str, target: &str, options: &str) -> Result<()> {
    let options = (!options.is_empty()).then_some(options);
    mount(Some(kind), target, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("mount {kind} on {target}"))
}

/// Name, mounts that nobody else sees, `/proc` of the new pid namespace, the lab's hosts file.
fn settle(lab: &Lab, name: &str) -> Result<()> {
    sethostname(name).context("set the host name")?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("part the mounts")?;
    fresh("proc", "/proc", "")?;
    bind(&lab.hosts(), Path::new("/etc/hosts"))
}

fn make_dirs(dirs: &[(&str, u32)]) -> Result<()> {
    for (dir, mode) in dirs {
        fs::create_dir_all(dir).with_context(|| format!("make {dir}"))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(*mode))
            .with_context(|| format!("set the mode of {dir}"))?;
    }
    Ok(())
}

/// A node's own `/dev`: the plain devices, the loop devices (not without root), nothing of the host's disks.
fn devices(keep: &Path) -> Result<()> {
    let old = keep.join("dev");
    fs::create_dir_all(&old).context("keep the old /dev")?;
    bind_all("/dev", &old)?;
    fresh("tmpfs", "/dev", "mode=755")?;
    let plain = ["null", "zero", "full", "random", "urandom", "tty", "fuse", "kmsg"];
    let (roots, loops) = match rootless::active() {
        true => (&[][..], 0),
        false => (&["loop-control", "ublk-control"][..], LOOPS),
    };
    for name in plain.iter().chain(roots) {
        let source = old.join(name);
        if source.exists() {
            let target = Path::new("/dev").join(name);
            fs::write(&target, "").with_context(|| format!("make {}", target.display()))?;
            bind(&source, &target)?;
        }
    }
    for number in 0..loops {
        let path = format!("/dev/loop{number}");
        let (mode, device) = (Mode::from_bits_truncate(0o660), makedev(LOOP_MAJOR, number));
        mknod(path.as_str(), SFlag::S_IFBLK, mode, device)
            .with_context(|| format!("make {path}"))?;
    }
    make_dirs(&[("/dev/pts", 0o755), ("/dev/shm", 0o1777), ("/dev/crm", 0o755)])?;
    bind(&old.join("pts"), Path::new("/dev/pts"))?;
    fresh("tmpfs", "/dev/shm", "mode=1777")?;
    for (name, to) in
        [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        symlink(to, Path::new("/dev").join(name)).with_context(|| format!("make /dev/{name}"))?;
    }
    symlink("pts/ptmx", "/dev/ptmx").context("make /dev/ptmx")
}

fn bind_all(source: &str, target: &Path) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("bind {source} over {}", target.display()))
}

fn node_mounts(lab: &Lab, name: &str) -> Result<()> {
    settle(lab, name)?;
    let base = lab.node_dir(name);
    if rootless::active() {
        rootless::cover(&base.join("cover"))?;
    }
    for (part, place) in [
        ("etc-crm", "/etc/crm"),
        ("lib-crm", "/var/lib/crm"),
        ("lib-nfs", "/var/lib/nfs"),
        ("log", "/var/log"),
    ] {
        bind(&base.join(part), Path::new(place))?;
    }
    fresh("sysfs", "/sys", "")?;
    fresh("tmpfs", "/run", "mode=755")?;
    make_dirs(&[
        ("/run/lock", 0o1777),
        ("/run/crm", 0o700),
        ("/run/resource-agents", 0o1755),
        ("/run/ganesha", 0o755),
        ("/run/rpcbind", 0o755),
        ("/run/crm-lab", 0o700),
    ])?;
    devices(Path::new("/run/crm-lab"))
}

/// A daemon under supervision.
struct Service {
    /// Word after `crm`.
    word: &'static str,
    log: PathBuf,
    pid_file: PathBuf,
    running: Option<Pid>,
    start_at: Instant,
}

impl Service {
    fn new(word: &'static str, log: PathBuf, run: &Path) -> Self {
        let pid_file = run.join(format!("{word}.pid"));
        Self { word, log, pid_file, running: None, start_at: Instant::now() }
    }

    fn start(&mut self, lab: &Lab, node: &str) -> Result<()> {
        let log = ns::open_log(&self.log)?;
        let error = log.try_clone().context("share the log")?;
        let path = format!("{}:{}", lab.dir().join("bin").display(), shell::PATH);
        let mut command = shell::command(lab.executable_of(node));
        command.arg(self.word).env("PATH", path).env("RUST_BACKTRACE", "1");
        command.env("CRM_FENCE_DIR", power::agents(lab));
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(error);
        // Children inherit the mask, and a daemon must hear of its own children. What ends meanwhile is reaped right after.
        let mask = child_mask();
        mask.thread_unblock().context("unblock SIGCHLD")?;
        let started = command.spawn().with_context(|| format!("start `crm {}`", self.word));
        mask.thread_block().context("block SIGCHLD")?;
        let child = started?;
        let number = i32::try_from(child.id()).context("understand the pid")?;
        self.running = Some(Pid::from_raw(number));
        fs::write(&self.pid_file, number.to_string()).context("note the daemon's pid")
    }

    fn ended(&mut self, pid: Pid) {
        if self.running == Some(pid) {
            self.running = None;
            self.start_at = Instant::now() + RESTART_AFTER;
        }
    }
}

/// Takes note of every child that has ended: the daemons', and orphans that the kernel handed to us.
fn reap(services: &mut [Service]) -> Result<()> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
            Ok(status) => {
                if let Some(pid) = status.pid() {
                    crate::ui::say(&format!("{status:?}"));
                    services.iter_mut().for_each(|s| s.ended(pid));
                }
            }
            Err(error) => return Err(error).context("wait for children"),
        }
    }
}

fn link_is_up() -> bool {
    // IFF_UP is the lowest bit.
    fs::read_to_string("/sys/class/net/eth0/flags")
        .ok()
        .and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok())
        .is_some_and(|flags| flags & 1 == 1)
}

fn child_mask() -> SigSet {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask
}

fn child_signals() -> Result<SignalFd> {
    let mask = child_mask();
    mask.thread_block().context("block SIGCHLD")?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    SignalFd::with_flags(&mask, flags).context("watch children")
}

fn drain(signals: &SignalFd) -> Result<()> {
    while signals.read_signal().context("read a signal")?.is_some() {}
    Ok(())
}

/// The hidden subcommand `node-init`: never returns while the node lives.
pub(crate) fn node(lab: &Lab, name: &str) -> Result<()> {
    let loopback = lab.is_loopback();
    let (logs, run, settings): (PathBuf, PathBuf, PathBuf) = if loopback {
        loopback::prepare(lab, name)?;
        let base = lab.node_dir(name);
        (base.join("log"), loopback::run_dir(lab, name), base.join("etc-crm/node.yaml"))
    } else {
        node_mounts(lab, name)?;
        ("/var/log".into(), "/run/crm-lab".into(), "/etc/crm/node.yaml".into())
    };
    let signals = child_signals()?;
    let mut services = [
        Service::new("blockd", logs.join("blockd.log"), &run),
        Service::new("daemon", logs.join("crmd.log"), &run),
    ];
    loop {
        let member = settings.exists() && (loopback || link_is_up());
        for service in &mut services {
            if member && service.running.is_none() && service.start_at <= Instant::now() {
                service.start(lab, name)?;
            }
        }
        reap(&mut services)?;
        let settled = services.iter().all(|s| s.running.is_some());
        let timeout = if settled { PollTimeout::NONE } else { PollTimeout::from(LOOK_EVERY_MS) };
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => drain(&signals)?,
            Err(error) => return Err(error).context("wait for a child"),
        }
    }
}

/// The hidden subcommand `hold`: keeps the namespaces of the hub or the client open.
pub(crate) fn hold(lab: &Lab, name: &str) -> Result<()> {
    settle(lab, name)?;
    let signals = child_signals()?;
    loop {
        reap(&mut [])?;
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => drain(&signals)?,
            Err(error) => return Err(error).context("wait for a child"),
        }
    }
}
