//! The cluster in the lab: made and asked only through what an operator has, the `crm` commands and the daemons' sockets.

use crate::lab::{DEVICE, DISK, Lab, PORT, VIP, VOLUME, address};
use crate::{loopback, node, rootless, ui, up, wait};
use anyhow::{Context, Result, bail};
use crm_core::cib::Role;
use crm_proto::block::{Connection, DiskState, Request, VolumeStatus};
use crm_proto::local;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Seed 002's configuration block, word for word.
pub const SEED: &str = include_str!("../../config/examples/seed-002.crm");
/// What the lab adds to it: the export, the service address, no failback.
pub const SEED_DEMO: &str = include_str!("../../config/examples/seed-002-demo.crm");
/// Instead of both, on loopback addresses.
const LOOPBACK: &str = include_str!("../../config/examples/loopback.crm");
/// Size of the lab's volume.
const VOLUME_SIZE: &str = "256M";
/// More than the seed's preference for alpha (100): nothing fails back by itself.
const STICKINESS: u32 = 200;
/// How long members may take to find each other.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How long a volume may take to be in sync.
const SYNC_LIMIT: Duration = Duration::from_secs(120);
/// How long resources may take to run, or to move.
pub const MOVE_LIMIT: Duration = Duration::from_secs(60);

/// How fast nodes notice failures: `profile` in `node.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Dead after 0.5 s.
    Fast,
    /// Dead after 1 s.
    Normal,
    /// Dead after 4 s.
    Wan,
}

/// The settings with this profile in place of theirs.
fn with_profile(settings: &str, profile: Profile) -> String {
    let word = match profile {
        Profile::Fast => "fast",
        Profile::Normal => "normal",
        Profile::Wan => "wan",
    };
    let others = settings.lines().filter(|line| !line.starts_with("profile:"));
    let kept: String = others.map(|line| format!("{line}\n")).collect();
    format!("{kept}profile: {word}\n")
}

/// Gives all nodes this profile: it is read at the start only, so every crmd is killed and started anew by its supervisor.
///
/// # Errors
/// When the settings cannot be written, or the members do not find each other again.
pub fn set_profile(lab: &Lab, profile: Profile) -> Result<()> {
    let nodes = lab.nodes()?;
    for name in &nodes {
        let path = lab.node_dir(name).join("etc-crm/node.yaml");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        fs::write(&path, with_profile(&text, profile))
            .with_context(|| format!("write {}", path.display()))?;
    }
    for name in &nodes {
        let old = node::daemon_pids(lab, name, "daemon")?;
        node::signal(lab, name, "daemon", "KILL")?;
        wait::until(&format!("crmd of {name} to be started anew"), JOIN_LIMIT, || {
            let now = node::daemon_pids(lab, name, "daemon")?;
            Ok(now.iter().all(|pid| !old.contains(pid)).then_some(()))
        })?;
    }
    for name in &nodes {
        node::wait_for_daemons(lab, name)?;
    }
    wait_for_members(lab, &nodes)
}

/// Makes the cluster, the volume, the file system on it, and loads the configuration.
pub(crate) fn build(lab: &Lab, plan: &up::Plan) -> Result<()> {
    let nodes = lab.nodes()?;
    form(lab, &nodes)?;
    ui::say(&format!("  cluster   {} nodes online", nodes.len()));
    create_volume(lab)?;
    if plan.loopback {
        ui::say(&format!("  volume    {VOLUME} {VOLUME_SIZE} x{}, a socket", nodes.len()));
        load(lab, LOOPBACK, "")?;
        let active = wait_for_service(lab)?;
        ui::say(&format!("  service   {VOLUME} is primary on {active}"));
        return Ok(());
    }
    format_volume(lab, &nodes)?;
    ui::say(&format!("  volume    {VOLUME} {VOLUME_SIZE} x{} on {DEVICE}, ext4", nodes.len()));
    let (seed, added) = match plan.debian_agents {
        true => (debians(SEED), debians(SEED_DEMO) + STATEFUL),
        false => (SEED.to_owned(), SEED_DEMO.to_owned()),
    };
    load(lab, &seed, &added)?;
    let active = wait_for_service(lab)?;
    ui::say(&format!("  service   nfs://{VIP}/srv runs on {active}"));
    Ok(())
}

/// Pastes a configuration with seed 002's last words (`show`, `commit`, `quit`), then what the lab adds.
fn load(lab: &Lab, seed: &str, added: &str) -> Result<()> {
    // Written for two nodes; a third one has a replica of its own.
    let seed = seed.replace("clone-max=2", &format!("clone-max={}", lab.nodes()?.len()));
    configure(lab, &format!("{seed}show\ncommit\nquit\n"))?;
    // The seed does not monitor its file system. The kernel's does not die by itself; fuse2fs is a process like others.
    let watch = if rootless::active() && !lab.is_loopback() { "monitor fs_nfs 5s\n" } else { "" };
    let stay = format!("rsc_defaults resource-stickiness={STICKINESS}");
    configure(lab, &format!("{added}{watch}{stay}\ncommit\nquit\n"))?;
    Ok(())
}

/// The same text with Debian's scripts for the file system and the address: without this our own answer to their names.
fn debians(text: &str) -> String {
    let mut all = text.to_owned();
    for agent in ["Filesystem", "IPaddr2"] {
        let named = format!("ocf:heartbeat:{agent} \\\n\tmeta crm-native=false \\\n");
        all = all.replace(&format!(" {agent} \\\n"), &format!(" {named}"));
    }
    all
}

/// A promotable resource of Debian's, beside the volume.
const STATEFUL: &str = "\
primitive state ocf:pacemaker:Stateful \\
\tmeta crm-native=false \\
\top monitor interval=10s role=Promoted \\
\top monitor interval=11s role=Unpromoted
ms ms_state state \\
\tmeta master-max=1 clone-max=2
";

/// One cluster of all nodes: the first is initialised, the others join with a token.
///
/// # Errors
/// When a command is refused or a node does not come online.
pub fn form(lab: &Lab, nodes: &[String]) -> Result<()> {
    let (first, others) = nodes.split_first().context("a lab has nodes")?;
    let own = place(lab, first)?;
    let init = ["crm", "cluster", "init", "--name", "demo", "--node", first, "--address", &own];
    node::exec(lab, first, &init)?;
    node::wait_for_daemons(lab, first)?;
    for other in others {
        join(lab, first, other, &[])?;
    }
    wait_for_members(lab, nodes)
}

/// A node joins through the first one, with these words besides.
///
/// # Errors
/// When a command is refused or its daemons do not answer.
pub fn join(lab: &Lab, first: &str, other: &str, besides: &[&str]) -> Result<()> {
    let (door, own) = (place(lab, first)?, place(lab, other)?);
    let token = token(lab, first)?;
    let join = ["crm", "cluster", "join", &door, "--token", &token, "--node", other];
    node::exec(lab, other, &[&join[..], &["--address", &own], besides].concat())?;
    node::wait_for_daemons(lab, other)
}

/// A node's `HOST:PORT`.
fn place(lab: &Lab, node: &str) -> Result<String> {
    let found = if lab.is_loopback() { loopback::address(node) } else { address(node) };
    Ok(format!("{}:{PORT}", found?))
}

fn token(lab: &Lab, node: &str) -> Result<String> {
    let request = local::Request::Token { ttl_s: 600 };
    wait::until("a join token", JOIN_LIMIT, || match node::call(lab, node, &request)? {
        local::Reply::Token(token) => Ok(Some(token)),
        local::Reply::Refused { why, .. } => bail!("{why}"),
        other => bail!("crmd answered {other:?} to a request for a token"),
    })
}

/// Waits until every one of `nodes` sees all of them online, with a leader.
///
/// # Errors
/// When that takes too long.
pub fn wait_for_members(lab: &Lab, nodes: &[String]) -> Result<()> {
    wait::until("all nodes to be online", JOIN_LIMIT, || {
        for name in nodes {
            let picture = node::status(lab, name)?;
            let online =
                |n: &String| picture.nodes.get(n).is_some_and(|line| line.alive && line.online);
            if !picture.quorate || picture.leader.is_none() || !nodes.iter().all(online) {
                bail!(
                    "{name}: {:?}, leader {:?}, {:?}, waiting: {:?}",
                    picture.mode,
                    picture.leader,
                    picture.nodes,
                    picture.waiting
                );
            }
        }
        Ok(Some(()))
    })
}

/// `crm volume create`, and waits until every node's blockd knows the volume.
///
/// # Errors
/// When it is refused.
pub fn create_volume(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes()?;
    let mut words: Vec<String> =
        ["crm", "volume", "create", VOLUME, VOLUME_SIZE].map(str::to_owned).to_vec();
    for name in &nodes {
        let disk = if lab.is_loopback() { lab.disk(name) } else { PathBuf::from(DISK) };
        words.extend(["--replica".to_owned(), format!("{name}:{}", disk.display())]);
    }
    words.extend(["--device", DEVICE, "--assume-clean"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let first = nodes.first().context("a lab has nodes")?;
    node::exec(lab, first, &words)?;
    for name in &nodes {
        wait::until(&format!("{VOLUME} to be known on {name}"), JOIN_LIMIT, || {
            node::volume(lab, name)
        })?;
    }
    Ok(())
}

/// fuse2fs keeps no journal, so what is written must be right in any order: blocks found by indirect blocks instead of an extent tree
/// that is rebuilt as it grows. A record that was flushed is not moved any more.
const WITHOUT_JOURNAL: &str = "^has_journal,^extent,^64bit,^metadata_csum";

/// Whether a node's `/proc/mounts` has the exported file system, however it is mounted.
pub(crate) fn is_srv_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some("/srv") && fields.next().is_some_and(|kind| kind.ends_with("ext4"))
    })
}

/// Makes the file system once, on the first node, before the cluster uses the volume.
fn format_volume(lab: &Lab, nodes: &[String]) -> Result<()> {
    let volume = || VOLUME.to_owned();
    let first = nodes.first().context("a lab has nodes")?;
    for name in nodes {
        node::order_block(lab, name, &Request::Up { volume: volume() })?;
    }
    wait_for_sync(lab, nodes)?;
    node::order_block(lab, first, &Request::Promote { volume: volume(), lost: Vec::new() })?;
    if rootless::active() {
        // The directory for the NFS service's state comes with it.
        node::exec(lab, first, &["mkdir", "-p", "/run/crm-lab/seed/nfs_shared"])?;
        let words = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0"];
        let more = ["-O", WITHOUT_JOURNAL, "-d", "/run/crm-lab/seed", DEVICE];
        node::exec(lab, first, &[&words[..], &more[..]].concat())?;
    } else {
        let words = ["mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0", DEVICE];
        node::exec(lab, first, &words)?;
        node::exec(lab, first, &["mount", "-t", "ext4", DEVICE, "/srv"])?;
        node::exec(lab, first, &["mkdir", "-p", "/srv/nfs_shared"])?;
        node::exec(lab, first, &["umount", "/srv"])?;
    }
    node::order_block(lab, first, &Request::Demote { volume: volume() })?;
    for name in nodes {
        node::order_block(lab, name, &Request::Down { volume: volume() })?;
    }
    Ok(())
}

/// Pastes text into `crm configure` on the first node that is on.
///
/// # Errors
/// When it is refused; the refusal is in the message.
pub fn configure(lab: &Lab, text: &str) -> Result<String> {
    node::exec_with_input(lab, &any_on(lab)?, &["crm", "configure"], text)
}

/// A node that is on.
///
/// # Errors
/// When all are off.
pub fn any_on(lab: &Lab) -> Result<String> {
    lab.nodes()?.into_iter().find(|n| node::is_on(lab, n)).context("all nodes are off")
}

fn in_sync(status: &VolumeStatus) -> bool {
    status.up
        && status.disk == DiskState::UpToDate
        && status.suspended.is_none()
        && status.peers.iter().all(|peer| {
            peer.connection == Connection::Connected
                && peer.disk == DiskState::UpToDate
                && peer.out_of_sync_bytes == 0
        })
}

/// Waits until the volume is up, connected and in sync on all of `nodes`.
///
/// # Errors
/// When that takes too long; the last state is in the message. At once when the replicas have parted (split brain): only a person can say
/// whose changes may go.
pub fn wait_for_sync(lab: &Lab, nodes: &[String]) -> Result<()> {
    let parted = wait::until("the volume to be in sync", SYNC_LIMIT, || {
        for name in nodes {
            match node::volume(lab, name)? {
                Some(status) if in_sync(&status) => {}
                Some(status) if parted(&status).is_some() => return Ok(parted(&status)),
                other => bail!("{name}: {other:?}"),
            }
            // The data may be there before the cluster has it in writing: only then may the other node die.
            for (volume, record) in node::status(lab, name)?.state.volumes {
                if let Some(behind) = nodes.iter().find(|n| !record.in_sync.contains(*n)) {
                    bail!("{name}: the record of {volume} leaves {behind} behind: {record:?}");
                }
            }
        }
        Ok(Some(String::new()))
    })?;
    if !parted.is_empty() {
        bail!(
            "{parted}: both replicas of {VOLUME} were written to without the other\n  \
             say whose changes may go, on that node: crm volume resolve {VOLUME} --discard NODE ({})",
            nodes.join(" or ")
        );
    }
    Ok(())
}

/// The peer that a replica refuses, and why.
fn parted(status: &VolumeStatus) -> Option<String> {
    let peer = status.peers.iter().find(|p| p.connection == Connection::StandAlone)?;
    let why = peer.why.as_deref().unwrap_or("their data have parted");
    Some(format!("{} is StandAlone: {why}", peer.node))
}

/// The node that holds the service address, if one does. The kernel is asked, not the cluster. On loopback addresses the node that shows
/// the volume; its blockd is asked.
///
/// # Errors
/// When two nodes hold it.
pub fn active(lab: &Lab) -> Result<Option<String>> {
    let holds = |name: &str| -> Result<bool> {
        if lab.is_loopback() {
            return Ok(node::volume(lab, name)?.is_some_and(|v| v.primary && v.front.is_some()));
        }
        Ok(node::exec(lab, name, &["ip", "-o", "addr", "show"])?.contains(&format!("{VIP}/")))
    };
    let mut holders = Vec::new();
    for name in lab.nodes()? {
        if node::is_on(lab, &name) && holds(&name)? {
            holders.push(name);
        }
    }
    if holders.len() > 1 {
        bail!("{} hold {VIP} at the same time", holders.join(" and "));
    }
    Ok(holders.pop())
}

/// Waits until a node holds the service address; which one.
///
/// # Errors
/// When none does for a minute; what the cluster says about it is in the message.
pub fn wait_for_service(lab: &Lab) -> Result<String> {
    let found = wait::until("the service to run", MOVE_LIMIT, || active(lab));
    found.or_else(|error| {
        let name = any_on(lab)?;
        let said = node::exec(lab, &name, &["crm", "status"]).unwrap_or_else(|e| format!("{e:#}"));
        Err(error.context(format!("on {name}, `crm status` says:\n{said}")))
    })
}

/// What a node holds of the service: resources that it says are active, by id and role.
///
/// # Errors
/// When it does not answer.
pub fn holdings(lab: &Lab, asked: &str, node: &str) -> Result<Vec<String>> {
    let picture = node::status(lab, asked)?;
    let Some(entry) = picture.state.status.nodes.get(node) else { return Ok(Vec::new()) };
    let active = entry.resources.iter().filter_map(|(id, history)| match history.role {
        None | Some(Role::Stopped) => None,
        Some(role) => Some(format!("{id} {role:?}")),
    });
    Ok(active.collect())
}

/// Waits until the cluster has nothing to do.
///
/// # Errors
/// When it still works after the limit.
pub fn wait_idle(lab: &Lab, asked: &str) -> Result<()> {
    let limit = u64::try_from(MOVE_LIMIT.as_millis()).context("a minute fits")?;
    wait::until("the cluster to be idle", MOVE_LIMIT, || {
        match node::call(
            lab,
            asked,
            &local::Request::WaitIdle { version: 0, timeout_ms: limit / 6 },
        )? {
            local::Reply::Waited { idle: true } => Ok(Some(())),
            local::Reply::Waited { idle: false } => Ok(None),
            other => bail!("crmd on {asked} answered {other:?}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Profile, with_profile};

    #[test]
    fn a_profile_replaces_the_one_in_the_settings_and_nothing_else() {
        let text = "name: alpha\nprofile: normal\nseats:\n- name: alpha\n";
        let fast = with_profile(text, Profile::Fast);
        assert_eq!(fast, "name: alpha\nseats:\n- name: alpha\nprofile: fast\n");
        assert_eq!(with_profile(&fast, Profile::Wan).matches("profile:").count(), 1);
    }
}
