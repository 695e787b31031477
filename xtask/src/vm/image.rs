//! What the machines are made of: QEMU, kernel and root image, and a small disk with the executable.

use crate::exec::{self, command, is_root, read, root, run, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The emulator. Debian 12's own (7.2) miscompiles a 6.12 kernel.
const QEMU: &str = "qemu-system-x86_64";
const QEMU_MAJOR: u32 = 10;

/// A service that leaves traces.
const TICKER: &str = include_str!("ticker.sh");

/// The folder with everything in it.
#[derive(Debug)]
pub(super) struct Images {
    dir: PathBuf,
}

impl Images {
    /// The kernel.
    pub(super) fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// Its first file system.
    pub(super) fn initrd(&self) -> PathBuf {
        self.dir.join("initrd.gz")
    }

    /// Debian; machines keep what they write to it to themselves.
    pub(super) fn system(&self) -> PathBuf {
        self.dir.join("root.img")
    }

    /// `/dev/vdc`: the executable, the seeds, an agent.
    pub(super) fn payload(&self) -> PathBuf {
        self.dir.join("payload.img")
    }

    /// What the machines of the last run told on their second serial ports.
    pub(super) fn told(&self) -> PathBuf {
        self.dir.join("told.log")
    }

    /// A machine's `/dev/vdb`: its replica, nothing else.
    pub(super) fn disk(&self, name: &str) -> PathBuf {
        self.dir.join(format!("disk-{name}.img"))
    }
}

/// Installs, builds and copies what is missing.
pub(super) fn prepare() -> Result<Images, String> {
    let dir = exec::target_dir().join("lab-vm");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    install_qemu(&dir)?;
    let binary = match std::env::var_os("CRM_BIN") {
        Some(given) => PathBuf::from(given),
        None => exec::build_release()?,
    };
    let images = Images { dir };
    if !images.system().exists() {
        say("vm: build the image (debootstrap, some minutes, once)");
        run(command("bash").arg(scripts()?.join("build.sh")).arg(&images.dir))?;
    }
    fill_payload(&images, &binary)?;
    Ok(images)
}

fn scripts() -> Result<PathBuf, String> {
    let given = std::env::var_os("LAB_VM").map(PathBuf::from);
    let places = given.into_iter().chain([PathBuf::from("/work/shared/lab-vm")]);
    let mut found = places.filter(|p| p.join("build.sh").exists());
    found.next().ok_or_else(|| "vm: set LAB_VM to the folder with build.sh".to_owned())
}

fn qemu_major() -> Option<u32> {
    let output = command(QEMU).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

/// From Debian's backports, with sources and lists of our own: the machine's stay as they are.
fn install_qemu(dir: &Path) -> Result<(), String> {
    if qemu_major().is_some_and(|major| major >= QEMU_MAJOR) {
        return Ok(());
    }
    if !is_root() {
        return Err(format!("vm: {QEMU} {QEMU_MAJOR} is needed, and root to install it"));
    }
    say(&format!("vm: install {QEMU} from bookworm-backports"));
    let place = |e: std::io::Error| format!("{}: {e}", dir.display());
    let (sources, lists) = (dir.join("apt/sources"), dir.join("apt/lists"));
    fs::create_dir_all(&sources).map_err(place)?;
    fs::create_dir_all(lists.join("partial")).map_err(place)?;
    for entry in fs::read_dir("/etc/apt/sources.list.d").map_err(place)? {
        let entry = entry.map_err(place)?;
        fs::copy(entry.path(), sources.join(entry.file_name())).map_err(place)?;
    }
    let line = format!("deb {} bookworm-backports main\n", mirror()?);
    fs::write(sources.join("vm.list"), line).map_err(place)?;
    let apt = |words: &[&str]| -> Command {
        let mut apt = command("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-y"]);
        apt.arg("-o").arg(format!("Dir::Etc::sourceparts={}", sources.display()));
        apt.arg("-o").arg(format!("Dir::State::lists={}", lists.display()));
        apt.args(words);
        apt
    };
    run(&mut apt(&["update"]))?;
    let words = ["install", "--no-install-recommends", "-t", "bookworm-backports"];
    run(apt(&words).args(["qemu-system-x86", "ipxe-qemu", "seabios"]))
}

/// The mirror that this machine uses.
fn mirror() -> Result<String, String> {
    let path = "/etc/apt/sources.list.d/debian.sources";
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let uri = text.lines().find_map(|l| l.strip_prefix("URIs:")?.split_whitespace().next());
    uri.map(str::to_owned).ok_or_else(|| format!("{path}: no URIs"))
}

/// Debian 12 on both sides: the same C library, so the executable alone will do.
fn fill_payload(images: &Images, binary: &Path) -> Result<(), String> {
    let dir = images.dir.join("payload");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let copy = |from: &Path, name: &str| {
        fs::copy(from, dir.join(name)).map_err(|e| format!("{}: {e}", from.display()))
    };
    copy(binary, "crm")?;
    run(command("strip").arg(dir.join("crm")))?;
    for name in ["seed-002.crm", "seed-002-demo.crm"] {
        copy(&root().join("config/examples").join(name), name)?;
    }
    fs::write(dir.join("ticker"), TICKER).map_err(|e| format!("ticker: {e}"))?;
    let image = images.payload();
    fresh(&image, "64M")?;
    run(command("mkfs.ext4").args(["-q", "-F", "-d"]).arg(&dir).arg(&image))
}

/// A file of zeroes and holes.
pub(super) fn fresh(path: &Path, size: &str) -> Result<(), String> {
    if path.exists() {
        fs::remove_file(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    read(command("truncate").args(["-s", size]).arg(path)).map(drop)
}
