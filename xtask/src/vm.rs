//! `cargo xtask vm-drain`: the drain on real 6.12 kernels, where the volume's device is ublk and the server is the kernel's nfsd.
//!
//! Two virtual machines under software emulation, built from Debian packages by the scripts of the lab-vm folder (`LAB_VM`). The
//! executable and the libraries that it needs go onto a small disk image that both see as `/dev/vdc`. What is typed on the consoles and
//! what they answer is written to docs/ops/vm-drain.md.

use crate::exec::{self, command, read, root, run, say};
use crate::setup;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Name, address, number (for the MAC address).
const NODES: [(&str, &str, &str); 2] =
    [("alpha", "192.168.7.123", "1"), ("delta", "192.168.7.140", "2")];
/// Emulated machines boot in about 15 s; a busy host takes longer.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

struct Machines {
    scripts: PathBuf,
    out: PathBuf,
    children: Vec<Child>,
    record: String,
}

impl Drop for Machines {
    fn drop(&mut self) {
        for child in &mut self.children {
            if let Err(error) = child.kill().and_then(|()| child.wait().map(|_| ())) {
                say(&format!("vm-drain: cannot end a machine: {error}"));
            }
        }
    }
}

fn scripts() -> Result<PathBuf, String> {
    let given = std::env::var_os("LAB_VM").map(PathBuf::from);
    let places = given.into_iter().chain([PathBuf::from("/work/shared/lab-vm")]);
    let mut found = places.filter(|p| p.join("build.sh").exists());
    found.next().ok_or_else(|| {
        "vm-drain: set LAB_VM to the folder with build.sh, boot.sh, con.py".to_owned()
    })
}

/// The executable with all libraries it is linked with, as a file system image.
fn payload(binary: &Path, out: &Path) -> Result<PathBuf, String> {
    let dir = out.join("payload");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let copy = |from: &Path| {
        let name = from.file_name().ok_or_else(|| format!("{}: no name", from.display()))?;
        fs::copy(from, dir.join(name)).map(|_| ()).map_err(|e| format!("{}: {e}", from.display()))
    };
    copy(binary)?;
    run(command("strip").arg(dir.join("crm")))?;
    for line in read(command("ldd").arg(binary))?.lines() {
        if let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) {
            copy(Path::new(path))?;
        }
    }
    let examples = root().join("config/examples");
    for name in ["seed-002.crm", "seed-002-demo.crm"] {
        copy(&examples.join(name))?;
    }
    let image = out.join("payload.img");
    if image.exists() {
        fs::remove_file(&image).map_err(|e| format!("{}: {e}", image.display()))?;
    }
    run(command("truncate").args(["-s", "128M"]).arg(&image))?;
    run(command("mkfs.ext4").args(["-q", "-F", "-d"]).arg(&dir).arg(&image))?;
    Ok(image)
}

impl Machines {
    fn boot(&mut self, payload: &Path) -> Result<(), String> {
        // The payload travels as one more disk: boot.sh ends in the qemu command, which takes more words.
        let text = fs::read_to_string(self.scripts.join("boot.sh"))
            .map_err(|e| format!("boot.sh: {e}"))?;
        let drive = format!(
            "  -drive \"file={},if=virtio,format=raw,readonly=on\" \\\n  -serial",
            payload.display()
        );
        let script = self.out.join("boot.sh");
        fs::write(&script, text.replacen("  -serial", &drive, 1))
            .map_err(|e| format!("boot.sh: {e}"))?;
        for (name, address, number) in NODES {
            let mut boot = command("bash");
            boot.arg(&script).arg(&self.out).args([name, address, number]);
            boot.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
            self.children.push(boot.spawn().map_err(|e| format!("boot {name}: {e}"))?);
        }
        for (name, _, _) in NODES {
            self.until(name, "true", BOOT_LIMIT)?;
        }
        Ok(())
    }

    /// One command on a console; what it printed and whether it ended with 0.
    fn ask(&self, name: &str, line: &str) -> Result<(String, bool), String> {
        let mut console = command("python3");
        console.arg(self.scripts.join("con.py")).arg(&self.out).args([name, line, "120"]);
        let output = console.output().map_err(|e| format!("con.py: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        let last = text.lines().rev().find(|l| l.starts_with("__END")).unwrap_or_default();
        let ok = output.status.success() && last.ends_with(" 0");
        // The console repeats what was typed; only the answer counts.
        let answer: Vec<&str> = text
            .lines()
            .filter(|l| !l.contains("__EN") && !l.trim_start_matches(['#', ' ', '$']).is_empty())
            .collect();
        Ok((answer.join("\n"), ok))
    }

    /// As [`Self::ask`]; kept in the record; must end with 0.
    fn tell(&mut self, name: &str, line: &str) -> Result<String, String> {
        say(&format!("{name}# {line}"));
        let (answer, ok) = self.ask(name, line)?;
        say(&answer);
        writeln!(self.record, "{name}# {line}\n{answer}").map_err(|e| e.to_string())?;
        if ok { Ok(answer) } else { Err(format!("on {name}: `{line}` failed:\n{answer}")) }
    }

    fn until(&self, name: &str, line: &str, limit: Duration) -> Result<(), String> {
        let start = Instant::now();
        loop {
            if self.ask(name, line).is_ok_and(|(_, ok)| ok) {
                return Ok(());
            }
            if start.elapsed() > limit {
                let (said, _) = self.ask(name, line)?;
                return Err(format!("on {name}: `{line}` fails for {limit:?}:\n{said}"));
            }
        }
    }

    fn play(&mut self) -> Result<(), String> {
        for (name, _, _) in NODES {
            for line in PREPARE {
                self.tell(name, line)?;
            }
        }
        for (name, line) in SCENES {
            if let Some(line) = line.strip_prefix("until ") {
                say(&format!("{name}# until {line}"));
                self.until(name, line, BOOT_LIMIT)?;
            } else {
                self.tell(name, line)?;
            }
        }
        Ok(())
    }
}

/// On both machines.
const PREPARE: &[&str] = &[
    "mkdir -p /opt/crm /etc/crm /var/lib/crm && mount -o ro /dev/vdc /opt/crm",
    "mkfs.ext4 -q -F /dev/vdb && mount /dev/vdb /var/lib/crm && mkdir -p /var/lib/crm/disks",
    "printf '127.0.0.1 localhost\\n192.168.7.123 alpha\\n192.168.7.140 delta\\n192.168.7.200 nfs.mydomain.com\\n' > /etc/hosts",
    // Debian 12 on both sides: the same C library. It must be itself that runs, not a loader: it starts itself again as keeper and agents.
    "cp /opt/crm/crm /usr/local/bin/crm",
    "modprobe ublk_drv && modprobe nfsd && ls -l /dev/ublk-control && mount -t nfsd nfsd /proc/fs/nfsd; crm --version",
];

/// Node and line; `until` repeats a line until it ends with 0.
const SCENES: &[(&str, &str)] = &[
    ("alpha", "crm cluster init --name vm --node alpha --address 192.168.7.123:7631"),
    (
        "alpha",
        "(crm blockd >/tmp/blockd.log 2>&1 &) ; (crm daemon >/tmp/crmd.log 2>&1 &) ; sleep 1",
    ),
    ("alpha", "until crm cluster token > /tmp/token"),
    ("alpha", "nc -l -p 7000 -q 1 < /tmp/token & sleep 0.2"),
    (
        "delta",
        "crm cluster join 192.168.7.123:7631 --token \"$(nc 192.168.7.123 7000 </dev/null)\" --node delta --address 192.168.7.140:7631",
    ),
    (
        "delta",
        "(crm blockd >/tmp/blockd.log 2>&1 &) ; (crm daemon >/tmp/crmd.log 2>&1 &) ; sleep 1",
    ),
    ("alpha", "until crm status | grep -q 'Online: \\[ alpha delta \\]'"),
    (
        "alpha",
        "crm volume create r0 128M --replica alpha:/var/lib/crm/disks/r0 --replica delta:/var/lib/crm/disks/r0 --device /dev/drbd0 --assume-clean",
    ),
    (
        "alpha",
        "printf 'primitive drbd_nfs ocf:linbit:drbd params drbd_resource=r0\\nms ms_drbd_nfs drbd_nfs meta master-max=1 clone-max=2 notify=true\\nproperty stonith-enabled=false\\ncommit\\n' | crm configure",
    ),
    ("alpha", "until test -b /dev/drbd0"),
    (
        "alpha",
        "ls -lL /dev/drbd0; mkfs.ext4 -q /dev/drbd0 && mount /dev/drbd0 /srv && mkdir /srv/nfs_shared && umount /srv",
    ),
    ("alpha", "printf 'delete ms_drbd_nfs\\ndelete drbd_nfs\\ncommit\\n' | crm configure"),
    ("alpha", "(cat /opt/crm/seed-002.crm; echo commit) | crm configure"),
    (
        "alpha",
        "(cat /opt/crm/seed-002-demo.crm; echo rsc_defaults resource-stickiness=200; echo commit) | crm configure",
    ),
    ("alpha", "until crm status | grep -q 'vip.*Started alpha'"),
    ("alpha", "crm status; crm volume status; cat /proc/fs/nfsd/threads; mount | grep ' /srv '"),
    (
        "delta",
        "mkdir -p /mnt/c && mount -t nfs -o vers=4.2,proto=tcp,timeo=20 192.168.7.200:/srv /mnt/c && dd if=/dev/urandom of=/mnt/c/before bs=64k count=32 conv=fsync 2>&1 && sha256sum /mnt/c/before | tee /tmp/before.sum; umount /mnt/c",
    ),
    ("alpha", "time crm node standby alpha --wait"),
    (
        "alpha",
        "crm status; crm volume status; mount | grep ' /srv ' || echo nothing is mounted here",
    ),
    ("delta", "until crm status | grep -q 'vip.*Started delta'"),
    (
        "delta",
        "cat /proc/fs/nfsd/threads; mount | grep ' /srv '; sha256sum /srv/before; cat /tmp/before.sum",
    ),
    (
        "alpha",
        "mkdir -p /mnt/c && mount -t nfs -o vers=4.2,proto=tcp,timeo=20 192.168.7.200:/srv /mnt/c && sha256sum /mnt/c/before; umount /mnt/c",
    ),
    ("alpha", "crm node online alpha && crm status && crm volume status"),
];

/// `cargo xtask vm-drain`.
pub(crate) fn drain() -> Result<(), String> {
    setup::run()?;
    let binary = exec::build_release()?;
    let out = exec::target_dir().join("lab-vm");
    let scripts = scripts()?;
    if !out.join("root.img").exists() {
        run(command("bash").arg(scripts.join("build.sh")).arg(&out))?;
    }
    let payload = payload(&binary, &out)?;
    let mut machines = Machines { scripts, out, children: Vec::new(), record: String::new() };
    machines.boot(&payload)?;
    let result = machines.play();
    let verdict = match &result {
        Ok(()) => "It went through.".to_owned(),
        Err(why) => format!("It stopped: {}", why.lines().next().unwrap_or_default()),
    };
    let commit = read(command("git").args(["rev-parse", "--short", "HEAD"]))?;
    let text = format!(
        "# The drain in two virtual machines\n\nMade by `cargo xtask vm-drain` at commit {}.\nKernel 6.12: the volume's device is ublk, the server is the kernel's nfsd.\n{verdict}\n\n```\n{}```\n",
        commit.trim(),
        machines.record
    );
    let page = root().join("docs/ops/vm-drain.md");
    fs::create_dir_all(root().join("docs/ops")).map_err(|e| format!("docs/ops: {e}"))?;
    fs::write(&page, text).map_err(|e| format!("{}: {e}", page.display()))?;
    say(&format!("written: {}", page.display()));
    result
}
