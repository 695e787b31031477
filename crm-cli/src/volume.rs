//! `crm volume`: replicated volumes, in DRBD's words.

use crate::Shell;
use crate::args::{Format, VolumeCmd, VolumeCreate};
use crate::fail::Fail;
use crate::node::{known as known_node, settled};
use crate::ui::table;
use crm_core::cib::{Cib, Volume};
use crm_core::store::Edit;
use crm_core::text::{FIRST_VOLUME_PORT, nearest, show_size};
use crm_proto::block::{self, Connection, DiskState, VolumeStatus};
use crm_proto::local::{Request, StatusReply};
use std::collections::BTreeSet;

/// Carries out one command.
pub(crate) fn run(shell: &mut Shell<'_>, command: VolumeCmd) -> Result<(), Fail> {
    match command {
        VolumeCmd::Create(args) => create(shell, args),
        VolumeCmd::Status { name, output } => status(shell, name.as_deref(), output),
        VolumeCmd::Resolve { name, discard } => resolve(shell, &name, &discard),
    }
}

fn create(shell: &mut Shell<'_>, args: VolumeCreate) -> Result<(), Fail> {
    let wait = args.wait;
    let (_, cib) = shell.daemon.cib()?;
    let day0 = crate::random::nonzero()?;
    let volume = definition(&cib, args, day0)?;
    let words = format!("crm volume create {}", volume.name);
    let name = volume.name.clone();
    let replicas: Vec<&str> = volume.replicas.iter().map(|r| r.node.as_str()).collect();
    let done = format!(
        "volume {name}: {} on {}, device {}, port {}",
        show_size(volume.size_bytes),
        replicas.join(" and "),
        volume.device,
        volume.port
    );
    let version = shell.daemon.edit(vec![Edit::AddVolume(volume)], words)?;
    settled(shell, version, wait, &done)
}

/// Checks what was asked against the configuration and fills in what was left out.
fn definition(cib: &Cib, args: VolumeCreate, day0: u64) -> Result<Volume, Fail> {
    let VolumeCreate { name, size, replicas, device, assume_clean, port, wait: _ } = args;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(plain) {
        return Err(Fail::with_remedy(
            format!("`{name}` is no name for a volume"),
            "use letters, digits, `_`, `-` and `.`",
        ));
    }
    if cib.volume(&name).is_some() {
        return Err(Fail::with_remedy(
            format!("the volume `{name}` exists already"),
            format!("crm volume status {name}"),
        ));
    }
    let mut nodes = BTreeSet::new();
    for replica in &replicas {
        known_node(cib, &replica.node)?;
        if !nodes.insert(replica.node.as_str()) {
            return Err(Fail::refused(format!("node `{}` has two replicas", replica.node)));
        }
    }
    let free = (FIRST_VOLUME_PORT..=u16::MAX).find(|p| cib.volumes.iter().all(|v| v.port != *p));
    let port = port.or(free).ok_or_else(|| Fail::refused("no port is free"))?;
    let device = device.unwrap_or_else(|| format!("/dev/crm/by-name/{name}"));
    if !device.starts_with("/dev/") {
        return Err(Fail::refused(format!("`{device}` is not a path under /dev")));
    }
    for other in &cib.volumes {
        if other.port == port {
            return Err(Fail::refused(format!("volume `{}` uses port {port}", other.name)));
        }
        if other.device == device {
            return Err(Fail::refused(format!("volume `{}` is {device}", other.name)));
        }
    }
    Ok(Volume { name, size_bytes: size, device, replicas, port, day0, assume_clean })
}

/// Refuses a volume that is not configured.
fn find<'a>(cib: &'a Cib, name: &str) -> Result<&'a Volume, Fail> {
    cib.volume(name).ok_or_else(|| {
        let names = cib.volumes.iter().map(|v| v.name.as_str());
        let remedy = nearest(name, names).map(|n| format!("did you mean `{n}`?"));
        Fail::with_remedy(format!("there is no volume `{name}`"), remedy.unwrap_or_default())
    })
}

/// How long a node is given to let go of a volume whose changes are thrown away, in milliseconds.
const RESOLVE_PATIENCE_MS: u64 = 30_000;

fn is_busy(reply: &block::Reply) -> bool {
    matches!(reply, block::Reply::Refused { code, .. } if code == "busy")
}

fn resolve(shell: &mut Shell<'_>, name: &str, discard: &str) -> Result<(), Fail> {
    let status = shell.daemon.status()?;
    let volume = find(&status.state.cib, name)?;
    if !volume.replicas.iter().any(|r| r.node == discard) {
        let nodes: Vec<&str> = volume.replicas.iter().map(|r| r.node.as_str()).collect();
        return Err(Fail::with_remedy(
            format!("volume `{name}` has no replica on `{discard}`"),
            format!("its replicas are on: {}", nodes.join(", ")),
        ));
    }
    if discard != status.me {
        return Err(Fail::with_remedy(
            format!("the changes of {discard} can be thrown away on {discard} only"),
            format!("run there: crm volume resolve {name} --discard {discard}"),
        ));
    }
    let request = Request::Block(block::Request::DiscardMyData { volume: name.to_owned() });
    let mut reply = shell.daemon.block(&request)?;
    if is_busy(&reply) {
        // The cluster is about to take the service from here, as the other side has it too.
        shell.ui.say(&format!("{name} is in use on {discard}: waiting until the cluster is idle"));
        shell.daemon.wait_idle(status.state.version, RESOLVE_PATIENCE_MS)?;
        reply = shell.daemon.block(&request)?;
    }
    match reply {
        block::Reply::Refused { code, why } if code == "busy" => Err(Fail::with_remedy(
            format!("{why} ({code})"),
            format!(
                "take the service away from {discard} first: crm node standby {discard} --wait"
            ),
        )),
        block::Reply::Ok | block::Reply::Status(_) => {
            shell.ui.say(&format!(
                "{name}: the changes of {discard} are thrown away; it takes the peer's data"
            ));
            Ok(())
        }
        block::Reply::Refused { code, why } => Err(Fail::refused(format!("{why} ({code})"))),
    }
}

fn status(shell: &mut Shell<'_>, only: Option<&str>, output: Format) -> Result<(), Fail> {
    let status = shell.daemon.status()?;
    if let Some(name) = only {
        find(&status.state.cib, name)?;
    }
    // The configuration is worth showing also while blockd does not answer.
    let seen = match shell.daemon.volumes() {
        Ok(seen) => seen,
        Err(fail @ Fail::Refused { .. }) => {
            shell.ui.say(&fail.words());
            Vec::new()
        }
        Err(fail @ (Fail::Said | Fail::Broken(_))) => return Err(fail),
    };
    let defined = status.state.cib.volumes.iter().filter(|v| only.is_none_or(|o| o == v.name));
    match output {
        Format::Json => {
            let all: Vec<_> = defined.map(|v| json(&status, v, &seen)).collect();
            shell.json(&serde_json::Value::Array(all))
        }
        Format::Text => {
            let all: Vec<String> = defined.map(|v| text(&status, v, &seen)).collect();
            if all.is_empty() {
                shell.ui.say("no volumes are configured");
            }
            shell.ui.data(&all.join("\n"));
            Ok(())
        }
    }
}

fn json(status: &StatusReply, volume: &Volume, seen: &[VolumeStatus]) -> serde_json::Value {
    let record = status.state.volumes.get(&volume.name);
    serde_json::json!({
        "name": volume.name,
        "size_bytes": volume.size_bytes,
        "device": volume.device,
        "port": volume.port,
        "replicas": volume.replicas,
        "in_sync": record.map(|r| &r.in_sync),
        "epoch": record.map(|r| r.epoch),
        "seen_from": status.me,
        "status": seen.iter().find(|s| s.name == volume.name),
    })
}

/// One volume: a head line, a table of its replicas, counters.
pub(crate) fn text(status: &StatusReply, volume: &Volume, seen: &[VolumeStatus]) -> String {
    let here = seen.iter().find(|s| s.name == volume.name);
    let record = status.state.volumes.get(&volume.name);
    let mut out = format!(
        "{}  {}  {}",
        volume.name,
        show_size(volume.size_bytes),
        here.and_then(|h| h.device.as_deref()).unwrap_or(&volume.device)
    );
    if let Some(front) = here.and_then(|h| h.front.as_deref()) {
        out.push_str(&format!(" ({front})"));
    }
    out.push('\n');
    if let Some(record) = record {
        let names: Vec<&str> = record.in_sync.iter().map(String::as_str).collect();
        out.push_str(&format!("  in sync: [ {} ]  epoch {}\n", names.join(" "), record.epoch));
    }
    let head = ["NODE", "ROLE", "DISK", "CONNECTION", "OUT-OF-SYNC", "RESYNCED"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for replica in &volume.replicas {
        rows.push(row(status, &replica.node, here));
    }
    out.push_str(&table(&rows, "  "));
    out.push_str(&remarks(status, here));
    out
}

fn row(status: &StatusReply, node: &str, here: Option<&VolumeStatus>) -> Vec<String> {
    let own = node == status.me;
    let peer = here.and_then(|h| h.peers.iter().find(|p| p.node == node));
    let cells: [String; 5] = match (own, here, peer) {
        (true, Some(h), _) => [
            role(h.primary).to_owned(),
            disk(h.disk).to_owned(),
            if h.up { "(this node)" } else { "(this node, down)" }.to_owned(),
            "-".to_owned(),
            "-".to_owned(),
        ],
        (false, _, Some(p)) => {
            let known = match p.connection {
                Connection::StandAlone | Connection::Connecting => "Unknown",
                Connection::Connected | Connection::SyncSource | Connection::SyncTarget => {
                    role(p.primary)
                }
            };
            [
                known.to_owned(),
                disk(p.disk).to_owned(),
                connection(p.connection).to_owned(),
                bytes(p.out_of_sync_bytes),
                bytes(p.resynced_bytes),
            ]
        }
        (true, None, _) | (false, _, None) => {
            let words = ["Unknown", "DUnknown", if own { "(not defined here yet)" } else { "-" }];
            [
                words[0].to_owned(),
                words[1].to_owned(),
                words[2].to_owned(),
                "-".to_owned(),
                "-".to_owned(),
            ]
        }
    };
    std::iter::once(node.to_owned()).chain(cells).collect()
}

fn remarks(status: &StatusReply, here: Option<&VolumeStatus>) -> String {
    let Some(here) = here else { return String::new() };
    let c = here.counters;
    let mut out = format!(
        "  written {}  read {}  sent {}  received {}  generation {}\n",
        bytes(c.written),
        bytes(c.read),
        bytes(c.sent),
        bytes(c.received),
        here.generation
    );
    if let Some(why) = &here.suspended {
        out.push_str(&format!("  SUSPENDED: {why}\n"));
    }
    for peer in &here.peers {
        let Some(why) = &peer.why else { continue };
        if peer.connection == Connection::StandAlone {
            out.push_str(&format!(
                "  {} is StandAlone: {why}\n    do this on the node whose changes may go: crm volume resolve {} --discard NODE ({} or {})\n",
                peer.node, here.name, status.me, peer.node
            ));
        } else {
            out.push_str(&format!("  {} is not connected: {why}\n", peer.node));
        }
    }
    out
}

const fn role(primary: bool) -> &'static str {
    if primary { "Primary" } else { "Secondary" }
}

const fn disk(state: DiskState) -> &'static str {
    match state {
        DiskState::Diskless => "Diskless",
        DiskState::Inconsistent => "Inconsistent",
        DiskState::Outdated => "Outdated",
        DiskState::Unknown => "DUnknown",
        DiskState::Consistent => "Consistent",
        DiskState::UpToDate => "UpToDate",
    }
}

const fn connection(state: Connection) -> &'static str {
    match state {
        Connection::StandAlone => "StandAlone",
        Connection::Connecting => "Connecting",
        Connection::Connected => "Connected",
        Connection::SyncSource => "SyncSource",
        Connection::SyncTarget => "SyncTarget",
    }
}

/// A number of bytes to three digits or so: `0 B`, `12.5 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        let whole = number >> shift;
        if whole > 0 {
            let tenths = ((number >> (shift - 10)) & 0x3ff) * 10 / 1024;
            return format!("{whole}.{tenths} {unit}");
        }
    }
    format!("{number} B")
}

#[cfg(test)]
mod tests {
    use super::{bytes, text};
    use crate::test_bed::Bed;
    use crm_proto::block::{Connection, Counters, DiskState, PeerStatus, VolumeStatus};

    fn with_volume() -> Bed {
        let mut bed = Bed::new();
        let words =
            ["volume", "create", "r0", "1G", "--replica", "alpha:/a", "--replica", "delta:/d"];
        assert_eq!(bed.crm(&words).0, 0);
        bed
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(256 << 20), "256.0 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn a_volume_that_is_in_use_is_waited_for_before_its_changes_are_thrown_away() {
        let mut bed = with_volume();
        let me = bed.picture().me;
        let resolve = ["volume", "resolve", "r0", "--discard", &me];
        bed.busy = 1;
        let (code, _, err) = bed.crm(&resolve);
        assert_eq!(code, 0, "{err}");
        assert!(err.contains("waiting") && err.contains("are thrown away"), "{err}");
        bed.busy = 2;
        let (code, _, err) = bed.crm(&resolve);
        assert_eq!(code, 1);
        assert!(err.contains(&format!("crm node standby {me} --wait")), "{err}");
    }

    #[test]
    fn a_volume_is_told_in_drbds_words() {
        let bed = with_volume();
        let peer = PeerStatus {
            node: "delta".to_owned(),
            connection: Connection::SyncSource,
            primary: false,
            disk: DiskState::Inconsistent,
            out_of_sync_bytes: 3 << 20,
            resynced_bytes: 1 << 20,
            why: None,
        };
        let mut seen = VolumeStatus {
            name: "r0".to_owned(),
            up: true,
            primary: true,
            disk: DiskState::UpToDate,
            device: Some("/dev/drbd0".to_owned()),
            front: Some("fuse+loop".to_owned()),
            suspended: None,
            generation: "00ff".to_owned(),
            epoch: 1,
            score: Some(10_000),
            counters: Counters { written: 4096, read: 0, sent: 1 << 20, received: 0 },
            peers: vec![peer],
        };
        let picture = bed.picture();
        let volume = &picture.state.cib.volumes[0];
        assert_eq!(
            text(&picture, volume, &[seen.clone()]),
            "\
r0  1GiB  /dev/drbd0 (fuse+loop)
  in sync: [ alpha ]  epoch 1
  NODE   ROLE       DISK          CONNECTION   OUT-OF-SYNC  RESYNCED
  alpha  Primary    UpToDate      (this node)  -            -
  delta  Secondary  Inconsistent  SyncSource   3.0 MiB      1.0 MiB
  written 4.0 KiB  read 0 B  sent 1.0 MiB  received 0 B  generation 00ff
"
        );
        seen.peers[0].connection = Connection::StandAlone;
        seen.peers[0].why = Some("both sides have changes".to_owned());
        let got = text(&picture, volume, &[seen.clone()]);
        assert!(got.contains("crm volume resolve r0 --discard NODE (alpha or delta)"), "{got}");
        seen.peers[0].connection = Connection::Connecting;
        seen.peers[0].why = Some("two replicas are primary".to_owned());
        let got = text(&picture, volume, &[seen]);
        assert!(got.ends_with("  delta is not connected: two replicas are primary\n"), "{got}");
    }
}
