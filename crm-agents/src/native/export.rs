//! `exportfs`: one directory exported to one kind of client. Parameters as `ocf:heartbeat:exportfs`.

use super::context::{Context, Failure};
use super::exports_table::Export;
use super::{Action, Agent, nfs, nfs_ganesha, nfs_own, param, rpc};
use crate::exec;
use crm_core::status::rc;
use std::path::PathBuf;

/// The agent.
pub(super) static AGENT: Agent = Agent {
    name: "exportfs",
    about: "Exports a directory by NFS (by whichever server nfsserver runs here)",
    promotable: false,
    migratable: false,
    params: &[
        param("directory", true, "Directory to export"),
        param("clientspec", true, "Clients: address, network, name or *"),
        param("options", false, "Export options, as in exports(5)"),
        param("fsid", true, "Unique number of the export in the cluster"),
        param("unlock_on_stop", false, "Accepted; not used"),
        param("wait_for_leasetime_on_stop", false, "Accepted; not used"),
        param("rmtab_backup", false, "Accepted; not used"),
    ],
    run,
};

struct Wanted {
    directory: String,
    clients: String,
    options: String,
    fsid: String,
}

fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    let wanted = Wanted {
        directory: context.need("directory")?.trim_end_matches('/').to_owned(),
        clients: context.need("clientspec")?,
        options: context.get("options").unwrap_or_else(|| "rw".to_owned()),
        fsid: context.need("fsid")?,
    };
    match nfs::Backend::here() {
        nfs::Backend::Kernel => kernel(&wanted, action),
        nfs::Backend::Ganesha => ganesha(context, &wanted, action),
        nfs::Backend::Own => own(context, &wanted, action),
    }
}

fn kernel(wanted: &Wanted, action: Action) -> Result<i32, Failure> {
    let target = format!("{}:{}", wanted.clients, wanted.directory);
    match action {
        Action::Start => {
            let options = format!("{},fsid={}", wanted.options, wanted.fsid);
            exec::call("exportfs", &["-i", "-o", &options, &target])
                .map_err(|e| Failure::io("export", &e))?;
            Ok(rc::OK)
        }
        Action::Stop => {
            if exported(wanted)? {
                exec::call("exportfs", &["-u", &target])
                    .map_err(|e| Failure::io("unexport", &e))?;
                // Cached exports hold the file system.
                exec::call("exportfs", &["-f"]).map_err(|e| Failure::io("flush", &e))?;
            }
            Ok(rc::OK)
        }
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => {
            Ok(if exported(wanted)? { rc::OK } else { rc::NOT_RUNNING })
        }
    }
}

fn exported(wanted: &Wanted) -> Result<bool, Failure> {
    let table = std::fs::read_to_string("/var/lib/nfs/etab");
    let table = match table {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Failure::io("read the export table", &e)),
    };
    Ok(table.lines().any(|line| {
        let mut words = line.split_whitespace();
        let directory = words.next() == Some(&wanted.directory);
        let clients = words.next().and_then(|w| w.split('(').next());
        directory && clients == Some(&wanted.clients)
    }))
}

fn own(context: &Context, wanted: &Wanted, action: Action) -> Result<i32, Failure> {
    let file = nfs_own::exports_dir(context).join(&context.instance);
    match action {
        Action::Start => {
            let export = nfs_own::Export::new(
                &wanted.directory,
                &wanted.clients,
                &wanted.options,
                number(&wanted.fsid)?,
            )?;
            export.write(&file)?;
            Ok(rc::OK)
        }
        Action::Stop => match std::fs::remove_file(&file) {
            Ok(()) => Ok(rc::OK),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(rc::OK),
            Err(e) => Err(Failure::io("remove the export", &e)),
        },
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => {
            Ok(if file.exists() { rc::OK } else { rc::NOT_RUNNING })
        }
    }
}

/// The export's number; `root` is 1.
fn number(fsid: &str) -> Result<u16, Failure> {
    match fsid {
        "root" => Ok(1),
        number => number.parse().map_err(|_| {
            let why = format!("fsid: `{number}` is not a number below 65536");
            Failure::new(rc::ERR_CONFIGURED, why)
        }),
    }
}

fn block_file(context: &Context) -> PathBuf {
    nfs_ganesha::exports_dir(context).join(format!("{}.conf", context.instance))
}

fn ganesha(context: &Context, wanted: &Wanted, action: Action) -> Result<i32, Failure> {
    let file = block_file(context);
    match action {
        Action::Start => {
            let block = ganesha_block(wanted)?;
            std::fs::create_dir_all(nfs_ganesha::exports_dir(context))
                .map_err(|e| Failure::io("create the directory of exports", &e))?;
            std::fs::write(&file, block).map_err(|e| Failure::io("write the export", &e))?;
            nfs_ganesha::write_exports(context)?;
            // Without a running service the export is served as soon as an nfsserver resource starts, as with the kernel's table.
            if nfs_ganesha::reload(context)? {
                // It reads its exports after the signal, not in it: a client that came in between would find its handles stale.
                rpc::wait_for_export(nfs::MOUNT_PORT, &wanted.directory, context.left())
                    .map_err(|e| Failure::io("wait for the export", &e))?;
            }
            Ok(rc::OK)
        }
        Action::Stop => {
            match std::fs::remove_file(&file) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(rc::OK),
                Err(e) => return Err(Failure::io("remove the export", &e)),
            }
            nfs_ganesha::write_exports(context)?;
            nfs_ganesha::reload(context)?;
            Ok(rc::OK)
        }
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => {
            Ok(if file.exists() { rc::OK } else { rc::NOT_RUNNING })
        }
    }
}

/// The export in Ganesha's words.
fn ganesha_block(wanted: &Wanted) -> Result<String, Failure> {
    let id = number(&wanted.fsid)?;
    let options = if wanted.options.contains("insecure") || wanted.options.contains("secure") {
        wanted.options.clone()
    } else {
        // User-space clients have no privileged port; who wants only those says `secure`.
        format!("{},insecure", wanted.options)
    };
    Export {
        directory: wanted.directory.clone(),
        id: Some(id.max(1)),
        clients: vec![(wanted.clients.clone(), options)],
    }
    .block()
}
