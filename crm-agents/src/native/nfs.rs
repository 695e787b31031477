//! `nfsserver`: the NFS service. The kernel's where it has one, NFS-Ganesha otherwise; in a user namespace, where neither may open a file by
//! its handle, a small server of our own. Parameters as `ocf:heartbeat:nfsserver`.

use super::context::{Context, Failure};
use super::{Action, Agent, nfs_ganesha, nfs_kernel, nfs_own, param};
use crm_core::status::rc;
use std::path::{Path, PathBuf};

/// Port of NFS.
pub(super) const PORT: u16 = 2049;
/// Port of the mount protocol: fixed, so that clients need no port mapper.
pub(super) const MOUNT_PORT: u16 = 20_048;

/// The agent.
pub(super) static AGENT: Agent = Agent {
    name: "nfsserver",
    about: "NFS service of this node: kernel nfsd where there is one, NFS-Ganesha otherwise",
    promotable: false,
    migratable: false,
    params: &[
        param("nfs_init_script", false, "Accepted; not used: the service is driven directly"),
        param("nfs_no_notify", false, "Accepted; not used"),
        param("nfs_notify_foreground", false, "Accepted; not used"),
        param("nfs_smnotify_retry_time", false, "Accepted; not used"),
        param("nfs_ip", false, "Service address or name that clients use; not needed to start"),
        param(
            "nfs_shared_infodir",
            false,
            "Directory on the shared file system for the service's state",
        ),
        param(
            "nfs_server_scope",
            false,
            "Name under which NFSv4 clients know the service on every node; made and kept in nfs_shared_infodir when not given",
        ),
        param("rpcpipefs_dir", false, "Accepted; not used"),
        param("nfsd_args", false, "Number of threads of the kernel's nfsd"),
        param("lease_time", false, "NFSv4 lease in seconds, default 10"),
        param("grace_time", false, "NFSv4 grace in seconds, default 10"),
    ],
    run,
};

fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    match Backend::here() {
        Backend::Kernel => nfs_kernel::run(context, action),
        Backend::Ganesha => nfs_ganesha::run(context, action),
        Backend::Own => nfs_own::run(context, action),
    }
}

/// Who serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Kernel,
    Ganesha,
    Own,
}

impl Backend {
    /// Who can serve on this node.
    pub(super) fn here() -> Self {
        // `open_by_handle_at` wants a privilege over the whole machine.
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        if is_partial(&map) {
            Self::Own
        } else if nfs_kernel::available() {
            Self::Kernel
        } else {
            Self::Ganesha
        }
    }
}

/// Whether a user namespace with this map is not the machine's own, which maps all users to themselves.
fn is_partial(uid_map: &str) -> bool {
    let words: Vec<&str> = uid_map.split_whitespace().collect();
    !words.is_empty() && words != ["0", "0", "4294967295"]
}

/// Seconds of a parameter.
pub(super) fn seconds(context: &Context, name: &str) -> u64 {
    context.get(name).and_then(|v| v.parse().ok()).unwrap_or(10)
}

/// The name under which clients of NFS 4 know the service, on whatever node it runs (scope and owner, RFC 8881 section 8.4.2.1). A client
/// that finds another name after a move takes the locks that it holds for lost. It must be no other service's name either: hence
/// made at random, and kept where the service's other state is. `None`: there is no shared state, so nothing can be reclaimed.
pub(super) fn scope(context: &Context) -> Result<Option<String>, Failure> {
    let shared = context.get("nfs_shared_infodir").map(PathBuf::from);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if context.get("nfs_server_scope").is_some_and(|s| s.len() > 64 || !s.chars().all(plain)) {
        let why = "nfs_server_scope: at most 64 letters, digits, `-`, `_`, `.`";
        return Err(Failure::new(rc::ERR_CONFIGURED, why));
    }
    scope_in(context.get("nfs_server_scope"), shared.as_deref())
}

fn scope_in(given: Option<String>, shared: Option<&Path>) -> Result<Option<String>, Failure> {
    let (None, Some(shared)) = (&given, shared) else { return Ok(given) };
    let file = shared.join("server-scope");
    match std::fs::read_to_string(&file) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(Some(kept.trim().to_owned())),
        Ok(_empty) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Failure::io("read the service's name", &e)),
    }
    let made = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|e| Failure::io("make a name for the service", &e))?;
    std::fs::create_dir_all(shared)
        .and_then(|()| std::fs::write(&file, &made))
        .and_then(|()| std::fs::File::open(&file)?.sync_all())
        .map_err(|e| Failure::io("keep the service's name", &e))?;
    Ok(Some(made.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_namespace_is_known_by_its_map() {
        assert!(!is_partial("         0          0 4294967295\n"));
        assert!(is_partial("         0       1001          1\n"));
        assert!(!is_partial(""));
    }

    #[test]
    fn every_node_serves_under_the_name_that_the_first_one_made() {
        let shared = tempfile::tempdir().unwrap();
        let first = scope_in(None, Some(shared.path())).unwrap().unwrap();
        assert!((1..=64).contains(&first.len()), "fits into a host name: {first}");
        assert_eq!(scope_in(None, Some(shared.path())).unwrap(), Some(first));
        let given = Some("files".to_owned());
        assert_eq!(scope_in(given.clone(), Some(shared.path())).unwrap(), given);
        assert_eq!(scope_in(None, None).unwrap(), None);
    }
}
