//! The kernel's nfsd as the NFS service, driven through `/proc/fs/nfsd` (nfsd(7)) and nfs-utils.

use super::context::{Context, Failure};
use super::nfs::{MOUNT_PORT, PORT, scope, seconds};
use super::{Action, holders, mounts, rpc};
use crate::exec;
use crm_core::status::rc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONTROL: &str = "/proc/fs/nfsd";
const STATE: &str = "/var/lib/nfs";
/// Most that the lock service takes, in seconds.
const LOCK_GRACE_MAX: u64 = 240;
/// One question of the monitor.
const ASK: Duration = Duration::from_secs(5);

/// True when this kernel has nfsd and nfs-utils are installed.
pub(super) fn available() -> bool {
    let tools = ["/usr/sbin/rpc.nfsd", "/usr/sbin/rpc.mountd", "/usr/sbin/exportfs"];
    if !tools.iter().all(|t| Path::new(t).exists()) {
        return false;
    }
    let known = || {
        std::fs::read_to_string("/proc/filesystems")
            .is_ok_and(|text| text.lines().any(|l| l.trim_start_matches("nodev").trim() == "nfsd"))
    };
    known() || (exec::call("modprobe", &["nfsd"]).is_ok() && known())
}

/// Runs an action.
pub(super) fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    match action {
        Action::Start => start(context),
        Action::Stop => stop(context),
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => monitor(),
    }
}

fn threads() -> u32 {
    let text = std::fs::read_to_string(format!("{CONTROL}/threads")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn monitor() -> Result<i32, Failure> {
    if threads() == 0 {
        return Ok(rc::NOT_RUNNING);
    }
    rpc::null_call(PORT, 3, ASK).map_err(|e| Failure::io("nfsd runs but does not answer", &e))?;
    if mountd().is_none() {
        return Err(Failure::new(rc::ERR_GENERIC, "rpc.mountd is gone"));
    }
    Ok(rc::OK)
}

fn mountd() -> Option<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim() == "rpc.mountd")
    })
}

fn put(file: &str, value: u64) -> Result<(), Failure> {
    let path = format!("{CONTROL}/{file}");
    if !Path::new(&path).exists() {
        return Ok(());
    }
    std::fs::write(&path, value.to_string()).map_err(|e| Failure::io(&format!("write {path}"), &e))
}

fn start(context: &Context) -> Result<i32, Failure> {
    if threads() > 0 && mountd().is_some() {
        return Ok(rc::OK);
    }
    if !Path::new(CONTROL).join("threads").exists() {
        mount(Some("nfsd"), CONTROL, Some("nfsd"), MsFlags::empty(), None::<&str>)
            .map_err(|e| Failure::io(&format!("mount {CONTROL}"), &e))?;
    }
    bind_state(context)?;
    std::fs::create_dir_all("/run/rpcbind").map_err(|e| Failure::io("create /run/rpcbind", &e))?;
    if std::net::TcpStream::connect(("127.0.0.1", 111)).is_err() {
        exec::call("rpcbind", &["-w"]).map_err(|e| Failure::io("start rpcbind", &e))?;
    }
    put("nfsv4leasetime", seconds(context, "lease_time"))?;
    put("nfsv4gracetime", seconds(context, "grace_time"))?;
    lock_grace(seconds(context, "grace_time"))?;
    if mountd().is_none() {
        exec::call("rpc.mountd", &["-p", &MOUNT_PORT.to_string()])
            .map_err(|e| Failure::io("start rpc.mountd", &e))?;
    }
    take_name(context)?;
    let count = context.get("nfsd_args").unwrap_or_else(|| "8".to_owned());
    exec::call("rpc.nfsd", &[&count]).map_err(|e| Failure::io("start nfsd", &e))?;
    rpc::wait_for(PORT, 3, context.left()).map_err(|e| Failure::io("nfsd does not answer", &e))?;
    Ok(rc::OK)
}

/// The lock service has a grace of its own, 50 s by default: for so long nobody gets a new lock, by NFS 4 neither.
fn lock_grace(seconds: u64) -> Result<(), Failure> {
    let path = Path::new("/sys/module/lockd/parameters/nlm_grace_period");
    if !path.exists() {
        return Ok(());
    }
    std::fs::write(path, seconds.min(LOCK_GRACE_MAX).to_string())
        .map_err(|e| Failure::io(&format!("write {}", path.display()), &e))
}

/// nfsd takes its name from the one who starts it: this process gets a host name of its own, [`scope`].
fn take_name(context: &Context) -> Result<(), Failure> {
    let Some(name) = scope(context)? else { return Ok(()) };
    unshare(CloneFlags::CLONE_NEWUTS)
        .and_then(|()| nix::unistd::sethostname(&name))
        .map_err(|e| Failure::io(&format!("take `{name}` as nfsd's name"), &e))
}

/// The service's state lives on the shared file system, so that the other node knows the clients.
fn bind_state(context: &Context) -> Result<(), Failure> {
    let Some(shared) = context.get("nfs_shared_infodir").map(PathBuf::from) else { return Ok(()) };
    for dir in ["", "sm", "sm.bak", "v4recovery", "rpc_pipefs", "nfsdcltrack"] {
        std::fs::create_dir_all(shared.join(dir))
            .map_err(|e| Failure::io("create the state directory", &e))?;
    }
    for file in ["etab", "rmtab", "xtab"] {
        let path = shared.join(file);
        if !path.exists() {
            std::fs::write(&path, "").map_err(|e| Failure::io("create the state files", &e))?;
        }
    }
    std::fs::create_dir_all(STATE).map_err(|e| Failure::io("create /var/lib/nfs", &e))?;
    if mounts::at(Path::new(STATE)).is_some() {
        return Ok(());
    }
    mount(Some(&shared), STATE, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|e| Failure::io("bind the state directory", &e))
}

fn stop(context: &Context) -> Result<i32, Failure> {
    if threads() > 0 {
        exec::call("rpc.nfsd", &["0"]).map_err(|e| Failure::io("stop nfsd", &e))?;
    }
    if let Some(pid) = mountd() {
        let holder = [holders::Holder { pid, name: "rpc.mountd".to_owned() }];
        if !holders::send_away(&holder, Signal::SIGTERM, Duration::from_secs(2)) {
            holders::send_away(&holder, Signal::SIGKILL, context.left());
        }
    }
    if threads_left() {
        exec::call("exportfs", &["-f"]).map_err(|e| Failure::io("flush the export cache", &e))?;
    }
    while mounts::at(Path::new(STATE)).is_some() {
        umount2(STATE, MntFlags::empty())
            .map_err(|e| Failure::io("unbind the state directory", &e))?;
    }
    Ok(rc::OK)
}

fn threads_left() -> bool {
    Path::new(CONTROL).join("threads").exists()
}
