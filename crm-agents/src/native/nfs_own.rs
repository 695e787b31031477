//! Our own NFS server as the NFS service, for user namespaces: a process of this executable that serves what `exportfs` resources name.
//!
//! NFS version 3 over TCP, one user: everything is done as the user that the node runs as. `/etc/exports` is not read.

use super::context::{Context, Failure};
use super::nfs::{MOUNT_PORT, PORT};
use super::nfs_process::Server;
use super::nfs_tree::Tree;
use super::{Action, Agent, holders, rpc};
use crate::exec;
use crm_core::status::rc;
use nfs3_server::tcp::{NFSTcp, NFSTcpListener};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The word after the agent's name that makes a process the server.
pub(super) const SERVE: &str = "serve";
/// Time for an orderly end; nothing is lost by a kill, every reply is durable.
const END: Duration = Duration::from_millis(300);
/// Part of every file handle: the same on every node, so that handles outlive the move to another one.
const GENERATION: u64 = 1;

/// A directory that is exported, as a file below [`exports_dir`] says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Export {
    /// Directory.
    pub(super) directory: PathBuf,
    /// Number of the export, the same on every node.
    pub(super) id: u64,
    /// Nothing may be written.
    pub(super) read_only: bool,
}

impl Export {
    /// Refuses what this server cannot keep: it knows neither clients nor users apart.
    pub(super) fn new(
        directory: &str,
        clients: &str,
        options: &str,
        id: u16,
    ) -> Result<Self, Failure> {
        let has = |word: &str| options.split(',').any(|o| o.trim() == word);
        let refuse = |why: &str| Err(Failure::new(rc::ERR_CONFIGURED, why));
        if clients != "*" {
            return refuse(
                "the NFS server of a user namespace serves all clients: clientspec=\"*\"",
            );
        }
        if !has("no_root_squash") {
            return refuse("the NFS server of a user namespace has one user: no_root_squash");
        }
        let read_only = !has("rw");
        Ok(Self { directory: PathBuf::from(directory), id: u64::from(id), read_only })
    }

    /// Exports it: the server reads the directory of exports whenever it is asked something.
    pub(super) fn write(&self, file: &Path) -> Result<(), Failure> {
        let fail = |e: &dyn std::fmt::Display| Failure::io("write the export", e);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).map_err(|e| fail(&e))?;
        }
        let text = serde_json::to_string(self).map_err(|e| fail(&e))?;
        // The server must never see half of it.
        let fresh = file.with_added_extension("new");
        std::fs::write(&fresh, text).map_err(|e| fail(&e))?;
        std::fs::rename(&fresh, file).map_err(|e| fail(&e))
    }
}

const SERVER: Server = Server { place: "nfs", mark: SERVE, title: "the NFS server" };

/// One file for each export.
pub(super) fn exports_dir(context: &Context) -> PathBuf {
    SERVER.exports_dir(context)
}

/// Runs an action.
pub(super) fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    match action {
        Action::Start => start(context),
        Action::Stop => stop(context),
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => {
            SERVER.monitor(context)
        }
    }
}

fn start(context: &Context) -> Result<i32, Failure> {
    if SERVER.serves(context) {
        return Ok(rc::OK);
    }
    stop(context)?;
    std::fs::create_dir_all(exports_dir(context))
        .map_err(|e| Failure::io("create the directory of exports", &e))?;
    let own = std::env::current_exe().map_err(|e| Failure::io("find the own executable", &e))?;
    let log = SERVER.directory(context).join("log");
    let pid = exec::detach(&own, &["agent", "ocf:crm:nfsserver", SERVE], Some(&log))
        .map_err(|e| Failure::io("start the NFS server", &e))?;
    std::fs::write(SERVER.pid_file(context), pid.to_string())
        .map_err(|e| Failure::io("write the NFS server's pid", &e))?;
    for port in [PORT, MOUNT_PORT] {
        rpc::wait_for(port, 3, context.left()).map_err(|e| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last = said.lines().last().map(|l| format!("; it said: {l}")).unwrap_or_default();
            Failure::io("the NFS server does not answer", &format!("{e}{last}"))
        })?;
    }
    Ok(rc::OK)
}

fn stop(context: &Context) -> Result<i32, Failure> {
    if let Some(pid) = SERVER.process(context) {
        let holder = [holders::Holder { pid, name: "the NFS server".to_owned() }];
        if !holders::send_away(&holder, Signal::SIGTERM, END)
            && !holders::send_away(&holder, Signal::SIGKILL, context.left())
        {
            let why = format!("the NFS server (pid {pid}) does not end");
            return Err(Failure::new(rc::ERR_GENERIC, why));
        }
    }
    match std::fs::remove_file(SERVER.pid_file(context)) {
        Ok(()) => Ok(rc::OK),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(rc::OK),
        Err(e) => Err(Failure::io("remove the pid file", &e)),
    }
}

/// The server's process: serves until it is killed.
pub(super) fn serve(agent: &'static Agent) -> Result<i32, Failure> {
    let tree = Tree::new(exports_dir(&Context::read(agent)?));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("start a runtime", &e))?;
    let listen = async |port: u16| {
        let address = format!("0.0.0.0:{port}");
        NFSTcpListener::bind_with_generation(&address, tree.clone(), GENERATION)
            .await?
            .handle_forever()
            .await
    };
    let ended = runtime.block_on(async { tokio::try_join!(listen(PORT), listen(MOUNT_PORT)) });
    ended.map(|_| rc::OK).map_err(|e| Failure::io("serve NFS", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let export = Export::new("/srv", "*", "rw,no_root_squash", 7).unwrap();
        assert_eq!((export.id, export.read_only), (7, false));
        assert!(Export::new("/srv", "*", "no_root_squash", 7).unwrap().read_only);
        assert!(Export::new("/srv", "10.0.0.0/8", "rw,no_root_squash", 7).is_err());
        assert!(Export::new("/srv", "*", "rw", 7).is_err());
    }
}
