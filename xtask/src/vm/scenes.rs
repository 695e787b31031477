//! What happens: a cluster as in seed 002, a drain and a return while two clients write, a killed data plane, the proof.

use super::Front;
use super::image::Images;
use super::play::Play;
use crate::exec::{command, read};
use std::time::Instant;

/// The nodes of seed 002, and where the clients live.
pub(super) const MACHINES: [(&str, &str); 3] =
    [("alpha", "192.168.7.123"), ("delta", "192.168.7.140"), ("client", "192.168.7.9")];
const NODES: [&str; 2] = ["alpha", "delta"];
/// The volume; as little as ext4 with a journal wants, for every byte is compared in the end.
const SIZE: &str = "128M";
const SIZE_BYTES: &str = "134217728";
/// A resync of more than this was none of what had changed.
const RESYNC_MAX: u64 = 16 << 20;
/// Both clients must have been acknowledged this often after a scene.
const PROGRESS: u64 = 20;

/// The kernel's client: one line after the other, each on stable storage before the next, a lock held all the while. It ends at the
/// first error, or when told.
const WRITER: &str = "( exec 9>>/mnt/c/lines; flock 9; i=0; echo 0 >/tmp/lines.acked; \
    while [ ! -e /tmp/stop ]; do echo $i >&9 && sync /mnt/c/lines || { echo failed at line $i; break; }; \
    i=$((i+1)); echo $i >/tmp/lines.new && mv /tmp/lines.new /tmp/lines.acked; done; \
    exec 9>&-; echo $? >/tmp/lines.end ) </dev/null >/tmp/lines.log 2>&1 &";
const MOUNT: &str = "mount -t nfs -o vers=4.2,proto=tcp,hard 192.168.7.200:/srv /mnt/c";

/// All of it.
pub(super) fn run(play: &mut Play, front: Front, images: &Images) -> Result<(), String> {
    prepare(play)?;
    form(play, front)?;
    load(play)?;
    let device = look(play, front, "alpha")?;
    play.find("device", format!("{device}, shown as /dev/drbd0"));
    write(play)?;
    drain(play)?;
    look(play, front, "delta")?;
    bring_back(play)?;
    kill_worker(play, front)?;
    finish(play)?;
    prove(play, images)
}

fn prepare(play: &mut Play) -> Result<(), String> {
    play.scene("three machines are up");
    for (name, _) in MACHINES {
        play.install(name)?;
    }
    let kernel = play.tell("alpha", "uname -r")?;
    play.find("kernel", kernel);
    Ok(())
}

fn start(play: &mut Play, name: &str, front: Front) -> Result<(), String> {
    // An emulated processor may keep a heartbeat waiting for longer than `normal` allows.
    play.tell(name, "sed -i 's/^profile: .*/profile: wan/' /etc/crm/node.yaml")?;
    let forced = match front {
        Front::Ublk => "",
        Front::Nbd => "CRM_BLOCK_FRONT=nbd ",
    };
    play.tell(
        name,
        &format!(
            "({forced}setsid crm blockd </dev/null >/var/log/blockd.log 2>&1 &); (setsid crm daemon </dev/null >/var/log/crmd.log 2>&1 &)"
        ),
    )
    .map(drop)
}

fn form(play: &mut Play, front: Front) -> Result<(), String> {
    play.scene("a cluster of two nodes");
    play.tell("alpha", "crm cluster init --name vm --node alpha --address 192.168.7.123:7631")?;
    start(play, "alpha", front)?;
    play.until("alpha", "crm cluster token >/tmp/token 2>/dev/null")?;
    let token = play.quiet("alpha", "cat /tmp/token")?;
    play.quiet("delta", &format!("TOKEN={}", token.trim()))?;
    play.tell(
        "delta",
        "crm cluster join 192.168.7.123:7631 --token $TOKEN --node delta --address 192.168.7.140:7631",
    )?;
    start(play, "delta", front)?;
    play.until("delta", "crm status 2>/dev/null | grep -q 'Online: \\[ alpha delta \\]'")
}

fn load(play: &mut Play) -> Result<(), String> {
    play.scene("a volume with ext4, then seed 002 as it is");
    play.tell(
        "alpha",
        &format!(
            "crm volume create r0 {SIZE} --replica alpha:/dev/vdb --replica delta:/dev/vdb --device /dev/drbd0 --assume-clean --wait"
        ),
    )?;
    play.tell(
        "alpha",
        "printf 'primitive drbd_nfs ocf:linbit:drbd params drbd_resource=r0\\nms ms_drbd_nfs drbd_nfs meta master-max=1 clone-max=2 notify=true\\nproperty stonith-enabled=false\\ncommit\\n' | crm configure 2>/dev/null",
    )?;
    play.until("alpha", "test -b /dev/drbd0")?;
    play.tell(
        "alpha",
        "mkfs.ext4 -q -E nodiscard,lazy_itable_init=0 /dev/drbd0 && mount /dev/drbd0 /srv && mkdir /srv/nfs_shared && umount /srv",
    )?;
    play.tell(
        "alpha",
        "printf 'delete ms_drbd_nfs\\ndelete drbd_nfs\\ncommit\\n' | crm configure",
    )?;
    play.tell(
        "alpha",
        "cat /opt/crm/seed-002.crm; (cat /opt/crm/seed-002.crm; echo commit) | crm configure",
    )?;
    play.tell(
        "alpha",
        "(cat /opt/crm/seed-002-demo.crm; echo rsc_defaults resource-stickiness=200; echo commit) | crm configure",
    )?;
    play.until("alpha", "crm status | grep -q 'vip.*Started alpha'")
}

/// What the service runs on: the block device that is mounted and who serves; the device's name.
fn look(play: &mut Play, front: Front, node: &str) -> Result<String, String> {
    play.scene(&format!("what runs on {node}"));
    play.tell(node, "crm status")?;
    play.tell(node, "crm volume status")?;
    let mounted = play
        .tell(node, "grep ' /srv ' /proc/mounts; readlink /sys/dev/block/$(mountpoint -d /srv)")?;
    let device = mounted.rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = match front {
        Front::Ublk => "ublkb",
        Front::Nbd => "nbd",
    };
    if !device.starts_with(wanted) {
        return Err(format!("{node}: /srv is on `{device}`, not on a device of {}", front.name()));
    }
    let path = format!("/dev/{device}");
    play.tell(node, &format!("ls -lL /dev/drbd0 {path}"))?;
    let server = play.tell(node, "cat /proc/fs/nfsd/threads; ps -C nfsd,ganesha.nfsd -o pid,comm | head -n 3; cat /proc/fs/nfsd/versions")?;
    let threads = server.lines().next().unwrap_or_default().to_owned();
    if threads.parse::<u32>().unwrap_or(0) == 0 || server.contains("ganesha") {
        return Err(format!("{node}: the kernel's nfsd does not serve:\n{server}"));
    }
    if node == "alpha" {
        play.find("server", format!("the kernel's nfsd, {threads} threads"));
    }
    Ok(path)
}

fn write(play: &mut Play) -> Result<(), String> {
    play.scene("two clients begin to write");
    play.tell(
        "client",
        "mkdir -p /tmp/lab/client; (setsid crm demo --dir /tmp/lab client --export /srv </dev/null >/tmp/client.log 2>&1 &)",
    )?;
    play.tell("client", &format!("{MOUNT} && grep ' /mnt/c ' /proc/mounts"))?;
    play.quiet("client", &WRITER.replace("\\\n    ", ""))?;
    play.note("client", "(a loop: a line, fsync, the next line; a lock held)", "")?;
    play.until("client", "test -S /tmp/lab/client/sock -a -s /tmp/lines.acked")?;
    go_on(play)
}

/// What our own client counts.
fn tally(play: &mut Play, question: &str) -> Result<String, String> {
    play.quiet("client", &format!("echo '\"{question}\"' | nc -U -N /tmp/lab/client/sock"))
}

/// The number behind `key` in a line of JSON.
fn number(text: &str, key: &str) -> Result<u64, String> {
    let found = text.split_once(key).map(|(_, rest)| rest.trim_start_matches([' ', ':']));
    let digits = found.unwrap_or_default().split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap_or_default().parse().map_err(|e| format!("no number behind {key} ({e}): {text}"))
}

/// Waits until both clients have been acknowledged some more.
fn go_on(play: &mut Play) -> Result<(), String> {
    let lines = number(&play.quiet("client", "echo lines $(cat /tmp/lines.acked)")?, "lines")?;
    let records = number(&tally(play, "Tally")?, "\"acknowledged\"")?;
    let line =
        format!("test $(cat /tmp/lines.acked) -ge {} -o -e /tmp/lines.end", lines + PROGRESS);
    play.until("client", &line)?;
    play.quiet("client", "if [ -e /tmp/lines.end ]; then cat /tmp/lines.log; false; fi")?;
    let now = tally(play, "Tally")?;
    play.note("client", "(our own client's tally)", &now)?;
    if number(&now, "\"acknowledged\"")? < records + PROGRESS {
        return Err(format!("our own client does not go on: {now}"));
    }
    Ok(())
}

/// Operations that a node has finished since line `from` of its log, first attempts only: time and `RESOURCE OPERATION`.
fn operations(
    play: &mut Play,
    node: &str,
    from: u64,
    kinds: &[&str],
) -> Result<Vec<(String, String)>, String> {
    let text = play
        .quiet(node, &format!("tail -n +{} /var/log/crmd.log | grep 'operation done'", from + 1))?;
    let word = |line: &str, key: &str| {
        line.split_once(key)
            .and_then(|(_, rest)| rest.split('"').next())
            .unwrap_or_default()
            .to_owned()
    };
    let mut list: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let op = word(line, "op=\"");
        let step = format!("{} {op}", word(line, "resource=\""));
        if kinds.contains(&op.as_str()) && list.iter().all(|(_, known)| *known != step) {
            let time = line.split_whitespace().next().unwrap_or_default().to_owned();
            list.push((time, step));
        }
    }
    Ok(list)
}

fn log_length(play: &mut Play, node: &str) -> Result<u64, String> {
    number(&play.quiet(node, "echo lines $(wc -l </var/log/crmd.log)")?, "lines")
}

fn drain(play: &mut Play) -> Result<(), String> {
    play.scene("drain alpha");
    let (alpha, delta) = (log_length(play, "alpha")?, log_length(play, "delta")?);
    tally(play, "Mark")?;
    let start = Instant::now();
    play.tell("alpha", "crm node standby alpha --wait")?;
    let took = start.elapsed();
    play.tell("alpha", "crm status; crm volume status")?;
    let held = "grep -E ' (/srv|/var/lib/nfs) ' /proc/mounts; ls -d /dev/drbd0 /dev/ublkb* 2>/dev/null; ip -o addr | grep 192.168.7.200; cat /sys/block/nbd*/pid 2>/dev/null; grep -v '^0$' /proc/fs/nfsd/threads; ps -C rpc.mountd -o comm=";
    let held = play.tell("alpha", &format!("{held}; true"))?;
    if !held.trim().is_empty() {
        return Err(format!("alpha is drained and still holds:\n{held}"));
    }
    let down = operations(play, "alpha", alpha, &["stop", "demote"])?;
    let up = operations(play, "delta", delta, &["start", "promote"])?;
    in_order(
        "alpha",
        &down,
        &[
            "vip stop",
            "exp_srv stop",
            "nfs stop",
            "fs_nfs stop",
            "drbd_nfs demote",
            "drbd_nfs stop",
        ],
    )?;
    in_order(
        "delta",
        &up,
        &["drbd_nfs promote", "fs_nfs start", "nfs start", "exp_srv start", "vip start"],
    )?;
    let time = |list: &[(String, String)], step: &str| {
        list.iter().find(|(_, s)| s == step).map(|(time, _)| time.clone()).unwrap_or_default()
    };
    if time(&down, "drbd_nfs demote") >= time(&up, "drbd_nfs promote") {
        return Err(format!("promoted before it was demoted: {down:?}, {up:?}"));
    }
    let mut steps: Vec<_> =
        down.iter().map(|s| ("alpha", s)).chain(up.iter().map(|s| ("delta", s))).collect();
    steps.sort_by(|a, b| a.1.0.cmp(&b.1.0));
    let table: Vec<String> =
        steps.iter().map(|(node, (time, step))| format!("{time} {node} {step}")).collect();
    play.note("both", "(operations as their logs have them)", &table.join("\n"))?;
    go_on(play)?;
    let gap = number(&tally(play, "Tally")?, "\"gap\":{\"ms\"")?;
    play.find(
        "drain",
        format!(
            "alpha empty in {:.1} s, in order; NFS 3 client waited {gap} ms",
            took.as_secs_f64()
        ),
    );
    Ok(())
}

fn in_order(node: &str, found: &[(String, String)], wanted: &[&str]) -> Result<(), String> {
    let steps: Vec<&str> = found.iter().map(|(_, step)| step.as_str()).collect();
    if steps == wanted {
        return Ok(());
    }
    Err(format!("{node} did {}, not {}", steps.join(", "), wanted.join(", ")))
}

fn in_sync(play: &mut Play) -> Result<(), String> {
    let synced = "crm volume status | grep -q 'in sync: \\[ alpha delta \\]'";
    play.until("delta", synced)?;
    play.until("delta", "crm volume status | grep -q 'alpha.*Secondary.*UpToDate.*Connected'")
}

fn bring_back(play: &mut Play) -> Result<(), String> {
    play.scene("bring alpha back");
    tally(play, "Mark")?;
    play.tell("alpha", "crm node online alpha --wait")?;
    in_sync(play)?;
    let status = play.tell("delta", "crm volume status")?;
    let json = play.quiet("delta", "crm volume status -o json")?;
    let bytes = number(&json, "\"resynced_bytes\"")?;
    if bytes == 0 || bytes > RESYNC_MAX {
        return Err(format!("{bytes} bytes resynced:\n{status}"));
    }
    play.tell("alpha", "crm status | grep 'vip.*Started delta'")?;
    go_on(play)?;
    let gap = number(&tally(play, "Tally")?, "\"gap\":{\"ms\"")?;
    play.find(
        "return",
        format!("{} KiB resynced; nothing moved; longest wait {gap} ms", bytes >> 10),
    );
    Ok(())
}

fn kill_worker(play: &mut Play, front: Front) -> Result<(), String> {
    play.scene("kill -9 the data plane's worker on delta, which is primary");
    tally(play, "Mark")?;
    play.quiet("delta", "K=$(pgrep -o -f '^crm blockd'); W=$(pgrep -P $K)")?;
    play.tell("delta", "kill -9 $W")?;
    play.until("delta", "pgrep -P $K | grep -qv \"^$W\\$\"")?;
    play.until("delta", "crm volume status 2>/dev/null | grep -q 'delta.*Primary.*UpToDate'")?;
    in_sync(play)?;
    go_on(play)?;
    play.tell("delta", "crm volume status; cat /var/log/blockd.log")?;
    play.tell("delta", "grep ' /srv ' /proc/mounts; crm status | grep 'vip.*Started delta'")?;
    let gap = number(&tally(play, "Tally")?, "\"gap\":{\"ms\"")?;
    play.find(
        "kill -9 of worker",
        format!("{} taken over by the next one; longest wait {gap} ms", front.name()),
    );
    Ok(())
}

fn finish(play: &mut Play) -> Result<(), String> {
    play.scene("the clients read everything back");
    play.tell("client", "touch /tmp/stop")?;
    play.until("client", "test -e /tmp/lines.end")?;
    play.tell("client", "cat /tmp/lines.log; test ! -s /tmp/lines.log")?;
    play.tell("client", &format!("umount /mnt/c && {MOUNT}"))?;
    let said = play.tell("client", "n=$(cat /tmp/lines.acked); seq 0 $((n-1)) | cmp - /mnt/c/lines && echo lines $n as written")?;
    let lines = number(&said, "lines")?;
    play.tell(
        "client",
        "umount /mnt/c; dmesg | grep -iE 'nfs.*(lost|error|not responding)'; true",
    )?;
    let end = tally(play, "Finish")?;
    play.note("client", "(our own client's last tally)", &end)?;
    let count = |key: &str| number(&end, key);
    let (acknowledged, found) = (count("\"acknowledged\"")?, count("\"found\"")?);
    if count("\"errors\"")? > 0
        || count("\"stale\"")? > 0
        || !end.contains("\"lost\":[]")
        || found != acknowledged
    {
        return Err(format!("our own client saw trouble: {end}"));
    }
    play.find(
        "NFS 3 client",
        format!(
            "{acknowledged} records acknowledged, {found} found, 0 lost, 0 errors, 0 stale handles"
        ),
    );
    play.find(
        "NFS 4.2 client",
        format!("{lines} lines acknowledged and found, 0 errors, lock kept"),
    );
    Ok(())
}

fn prove(play: &mut Play, images: &Images) -> Result<(), String> {
    play.scene("stop everything, compare the replicas, check the file system");
    play.tell("delta", "crm resource stop HA --wait")?;
    in_sync(play)?;
    play.tell("delta", "crm node standby alpha --wait && crm node standby delta --wait")?;
    for (name, _) in MACHINES {
        play.power_off(name)?;
    }
    let [alpha, delta] = NODES.map(|name| images.disk(name));
    let name = |path: &std::path::Path| {
        path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
    };
    let said = read(command("cmp").args(["-n", SIZE_BYTES]).arg(&alpha).arg(&delta))?;
    play.note("host", &format!("cmp -n {SIZE_BYTES} {} {}", name(&alpha), name(&delta)), &said)?;
    for disk in [&alpha, &delta] {
        let said = read(command("fsck.ext4").arg("-fn").arg(disk))?;
        play.note("host", &format!("fsck.ext4 -fn {}", name(disk)), &said)?;
    }
    play.find("replicas", format!("{SIZE_BYTES} bytes equal, fsck.ext4 -fn clean on both"));
    Ok(())
}
