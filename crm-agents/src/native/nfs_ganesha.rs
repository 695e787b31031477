//! NFS-Ganesha as the NFS service: configuration, start, answer, stop, exports.
//!
//! Ganesha 4 registers with a port mapper for version 3 of the protocol and ends when there is none: rpcbind is started when it is missing.

use super::context::{Context, Failure};
use super::nfs::{MOUNT_PORT, PORT, scope, seconds};
use super::nfs_process::Server;
use super::{Action, exports_table, holders, rpc};
use crate::exec;
use crm_core::status::rc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where Debian has it.
const PROGRAM: &str = "/usr/bin/ganesha.nfsd";
const PORT_MAPPER: &str = "/usr/sbin/rpcbind";
/// Time for an orderly end; nothing is lost by a kill, every reply is durable.
const END: Duration = Duration::from_millis(300);

const SERVER: Server = Server { place: "ganesha", mark: PROGRAM, title: "NFS-Ganesha" };

/// File that holds the EXPORT blocks of `exportfs` resources.
pub(super) fn exports_dir(context: &Context) -> PathBuf {
    SERVER.exports_dir(context)
}

/// Runs an action.
pub(super) fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    if !Path::new(PROGRAM).exists() {
        return match action {
            Action::Stop => Ok(rc::OK),
            Action::Monitor | Action::Notify => Ok(rc::NOT_RUNNING),
            Action::Start | Action::Promote | Action::Demote => Err(Failure::new(
                rc::ERR_INSTALLED,
                "neither the kernel's nfsd nor NFS-Ganesha is here (apt-get install nfs-ganesha nfs-ganesha-vfs)",
            )),
        };
    }
    match action {
        Action::Start => start(context),
        Action::Stop => stop(context),
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => {
            SERVER.monitor(context)
        }
    }
}

/// What Ganesha reads without a word when it is missing, and what to do then.
const NEEDS: [(&str, &str); 2] = [
    ("/etc/protocols", "apt-get install netbase"),
    ("/etc/mtab", "ln -s ../proc/self/mounts /etc/mtab"),
];

fn start(context: &Context) -> Result<i32, Failure> {
    if let Some((file, cure)) = NEEDS.iter().find(|(file, _)| !Path::new(file).exists()) {
        let why = format!("NFS-Ganesha reads {file}, which is missing here ({cure})");
        return Err(Failure::new(rc::ERR_INSTALLED, why));
    }
    if SERVER.serves(context) {
        return Ok(rc::OK);
    }
    stop(context)?;
    start_port_mapper(context)?;
    let directory = SERVER.directory(context);
    let state = state_dir(context);
    for dir in [&directory, &exports_dir(context), &state, &PathBuf::from("/run/ganesha")] {
        std::fs::create_dir_all(dir)
            .map_err(|e| Failure::io(&format!("create {}", dir.display()), &e))?;
    }
    let config = directory.join("ganesha.conf");
    write_exports(context)?;
    std::fs::write(&config, configuration(context, scope(context)?.as_deref()))
        .map_err(|e| Failure::io("write ganesha.conf", &e))?;
    let [config, pid, log] =
        [config, SERVER.pid_file(context), directory.join("log")].map(|p| p.display().to_string());
    // It goes to the background by itself, in a session of its own.
    exec::daemon(
        PROGRAM,
        &["-f", &config, "-p", &pid, "-L", &log, "-N", "NIV_EVENT"],
        &directory.join("out"),
    )
    .map_err(|e| Failure::io("start NFS-Ganesha", &e))?;
    rpc::wait_for(PORT, 3, context.left()).map_err(|e| {
        let last = std::fs::read_to_string(&log).unwrap_or_default();
        let last = last.lines().rfind(|l| l.contains("CRIT") || l.contains("FATAL"));
        let said = last.map(|l| format!("; its log: {l}")).unwrap_or_default();
        Failure::io("NFS-Ganesha does not answer", &format!("{e}{said}"))
    })?;
    Ok(rc::OK)
}

fn state_dir(context: &Context) -> PathBuf {
    let shared = context.get("nfs_shared_infodir").map(|d| PathBuf::from(d).join("ganesha"));
    shared.unwrap_or_else(|| SERVER.directory(context).join("state"))
}

fn configuration(context: &Context, scope: Option<&str>) -> String {
    let (lease, grace) = (seconds(context, "lease_time"), seconds(context, "grace_time"));
    let state = state_dir(context);
    let state = state.display();
    let exports = SERVER.directory(context).join("exports.conf");
    let exports = exports.display();
    let name = scope.map(|s| format!(" Server_Scope = \"{s}\"; Server_Owner = \"{s}\";"));
    let name = name.unwrap_or_default();
    format!(
        "# written by ocf:crm:nfsserver at each start\n\
         NFS_CORE_PARAM {{ Protocols = 3,4; MNT_Port = {MOUNT_PORT}; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}\n\
         NFSv4 {{ RecoveryBackend = fs; RecoveryRoot = \"{state}\"; Lease_Lifetime = {lease}; Grace_Period = {grace};{name} }}\n\
         NFS_KRB5 {{ Active_krb5 = false; }}\n\
         %include \"{exports}\"\n"
    )
}

/// Joins the EXPORT blocks that `exportfs` resources have left, and what `/etc/exports` adds, into the one file that the
/// configuration includes.
pub(super) fn write_exports(context: &Context) -> Result<(), Failure> {
    let mut blocks: Vec<PathBuf> = std::fs::read_dir(exports_dir(context))
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "conf"))
        .collect();
    blocks.sort();
    let mut text = "# exports of ocf:crm:exportfs\n".to_owned();
    for block in blocks {
        text += &std::fs::read_to_string(&block).map_err(|e| Failure::io("read an export", &e))?;
    }
    text += "# exports of /etc/exports\n";
    for export in exports_table::read()? {
        // A resource's own export of the same directory wins.
        if !text.contains(&format!("Path = \"{}\"", export.directory)) {
            text += &export.block()?;
        }
    }
    let path = SERVER.directory(context).join("exports.conf");
    std::fs::write(&path, text).map_err(|e| Failure::io("write exports.conf", &e))
}

/// Makes a running Ganesha read its exports again.
pub(super) fn reload(context: &Context) -> Result<bool, Failure> {
    let Some(pid) = SERVER.process(context) else { return Ok(false) };
    kill(Pid::from_raw(pid), Signal::SIGHUP).map_err(|e| Failure::io("signal NFS-Ganesha", &e))?;
    Ok(true)
}

fn port_mapper_pid(context: &Context) -> PathBuf {
    SERVER.directory(context).join("rpcbind.pid")
}

fn port_mapper_answers() -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], 111));
    TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
}

/// Starts a port mapper when there is none, and remembers that it is ours to stop.
fn start_port_mapper(context: &Context) -> Result<(), Failure> {
    if port_mapper_answers() {
        return Ok(());
    }
    for dir in [Path::new("/run/rpcbind"), &SERVER.directory(context)] {
        std::fs::create_dir_all(dir)
            .map_err(|e| Failure::io(&format!("create {}", dir.display()), &e))?;
    }
    let pid = exec::detach(Path::new(PORT_MAPPER), &["-w", "-f"], None).map_err(|e| {
        let why = format!("NFS-Ganesha needs a port mapper (apt-get install rpcbind): {e}");
        Failure::new(rc::ERR_INSTALLED, why)
    })?;
    std::fs::write(port_mapper_pid(context), pid.to_string())
        .map_err(|e| Failure::io("write the port mapper's pid", &e))?;
    let until = Instant::now() + context.left() / 2;
    while !port_mapper_answers() {
        if Instant::now() >= until {
            return Err(Failure::new(rc::ERR_GENERIC, "rpcbind was started but does not answer"));
        }
        // Nothing announces that a port opens.
        nix::poll::poll(&mut [], 10_u8).map(drop).unwrap_or_default();
    }
    Ok(())
}

fn stop_port_mapper(context: &Context) -> Result<(), Failure> {
    let file = port_mapper_pid(context);
    let Ok(text) = std::fs::read_to_string(&file) else { return Ok(()) };
    let pid = text.trim().parse().unwrap_or(0);
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if name.trim() == "rpcbind" {
        let holder = [holders::Holder { pid, name: "rpcbind".to_owned() }];
        if !holders::send_away(&holder, Signal::SIGTERM, END) {
            holders::send_away(&holder, Signal::SIGKILL, END);
        }
    }
    std::fs::remove_file(&file).map_err(|e| Failure::io("remove the port mapper's pid file", &e))
}

fn stop(context: &Context) -> Result<i32, Failure> {
    if let Some(pid) = SERVER.process(context) {
        let holder = [holders::Holder { pid, name: "ganesha.nfsd".to_owned() }];
        if !holders::send_away(&holder, Signal::SIGTERM, END)
            && !holders::send_away(&holder, Signal::SIGKILL, context.left())
        {
            return Err(Failure::new(
                rc::ERR_GENERIC,
                format!("NFS-Ganesha (pid {pid}) does not end"),
            ));
        }
    }
    stop_port_mapper(context)?;
    match std::fs::remove_file(SERVER.pid_file(context)) {
        Ok(()) => Ok(rc::OK),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(rc::OK),
        Err(e) => Err(Failure::io("remove the pid file", &e)),
    }
}
