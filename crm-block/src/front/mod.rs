//! Front ends: how a volume is shown to the system as a block device. They turn kernel requests into [`Io`] and know nothing of replication.

use crate::keeper::{Deposit, KeeperHandle};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

mod error;
mod fuse;
mod loopdev;
mod memory;
mod mounts;
mod nbd;
mod node;
mod sys;
mod ublk;

pub use error::FrontError;
pub use memory::MemTarget;

/// A request of the kernel for the volume. Offsets and lengths are in bytes, multiples of 512.
#[derive(Debug)]
pub enum Io {
    /// Read `len` bytes.
    Read {
        /// Byte offset.
        offset: u64,
        /// Length.
        len: u32,
    },
    /// Write.
    Write {
        /// Byte offset.
        offset: u64,
        /// Payload, in memory aligned to 4096.
        data: Buffer,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Everything answered so far becomes durable.
    Flush,
    /// Reads of the range may return anything until written (we return zeroes).
    Discard {
        /// Byte offset.
        offset: u64,
        /// Length.
        len: u64,
    },
    /// Reads of the range return zeroes.
    Zero {
        /// Byte offset.
        offset: u64,
        /// Length.
        len: u64,
    },
}

/// Bytes whose start is aligned to 4096 (`O_DIRECT`). Cheap to clone: shared between the local disk and the peers' sockets.
pub type Buffer = Arc<crate::aligned::AlignedBuf>;

/// Called exactly once with the outcome; `Some` carries the bytes of a read.
pub type Completion = Box<dyn FnOnce(io::Result<Option<Buffer>>) + Send>;

/// What a front end talks to: the volume.
pub trait Target: Send + Sync {
    /// Starts a request; may complete on this or any other thread.
    fn submit(&self, io: Io, done: Completion);
    /// Size in bytes.
    fn size_bytes(&self) -> u64;
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontSpec {
    /// Volume name: names the keeper's deposit and the private mount point, so no slash.
    pub name: String,
    /// Where the block device appears, e.g. `/dev/drbd0`.
    pub device: PathBuf,
    /// Size in bytes, a multiple of 4096.
    pub size_bytes: u64,
}

/// A block device that is shown. Dropping it leaves the device in place: a later worker may [`resume`] it.
pub trait Front: Send + Sync + fmt::Debug {
    /// `ublk`, `nbd`, `fuse+loop`, `fuse` or `socket`.
    fn kind(&self) -> &'static str;

    /// Whether somebody holds the block device exclusively: a mounted file system, LVM, md.
    fn device_in_use(&self) -> bool;

    /// Takes the device away. Everything written through the page cache reaches the target first.
    /// A second call after success does nothing.
    ///
    /// # Errors
    /// [`FrontError::Busy`] while the device is open elsewhere (it then stays usable); otherwise the step that failed.
    fn close(&self) -> Result<(), FrontError>;
}

/// Shows `target` as a block device, by the best means this kernel has: ublk, else NBD, else a FUSE file under a loop
/// device. Where there are no loop devices (a user namespace) the FUSE file itself is shown: a link at the device's
/// place leads to it. `CRM_BLOCK_FRONT` (`ublk`, `nbd`, `fuse+loop`, `fuse`) forces one; `socket` shows no device at all
/// but a Unix socket that speaks NBD, `RUN/nbd/NAME.sock`.
///
/// # Errors
/// The step that failed; whatever had been set up is taken down again.
pub fn open(
    spec: FrontSpec,
    target: Arc<dyn Target>,
    keeper: &KeeperHandle,
) -> Result<Box<dyn Front>, FrontError> {
    check(&spec, target.as_ref())?;
    node::is_replaceable(&spec.device)?; // before anything is set up
    match pick()? {
        Kind::Ublk => Ok(Box::new(ublk::UblkFront::open(spec, &target, keeper)?)),
        Kind::Nbd => Ok(Box::new(nbd::NbdFront::open(spec, target, keeper)?)),
        Kind::FuseLoop => Ok(Box::new(fuse::FuseFront::open(spec, true, target, keeper)?)),
        Kind::Fuse => Ok(Box::new(fuse::FuseFront::open(spec, false, target, keeper)?)),
        Kind::Socket => Ok(Box::new(nbd::socket::SocketFront::open(spec, target, keeper)?)),
    }
}

/// The means, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ublk,
    Nbd,
    FuseLoop,
    Fuse,
    Socket,
}

/// The best means of this kernel, or the one that `CRM_BLOCK_FRONT` names.
fn pick() -> Result<Kind, FrontError> {
    if let Ok(forced) = std::env::var("CRM_BLOCK_FRONT") {
        return match forced.as_str() {
            "ublk" => Ok(Kind::Ublk),
            "nbd" => Ok(Kind::Nbd),
            "fuse+loop" => Ok(Kind::FuseLoop),
            "fuse" => Ok(Kind::Fuse),
            "socket" => Ok(Kind::Socket),
            _ => Err(FrontError::Unsupported { why: format!("CRM_BLOCK_FRONT is `{forced}`") }),
        };
    }
    if ublk::is_available() {
        return Ok(Kind::Ublk);
    }
    if nbd::is_available() {
        return Ok(Kind::Nbd);
    }
    if !Path::new("/dev/fuse").exists() {
        let why = "no ublk, no NBD, and no /dev/fuse".to_owned();
        return Err(FrontError::Unsupported { why });
    }
    Ok(if Path::new(loopdev::CONTROL).exists() { Kind::FuseLoop } else { Kind::Fuse })
}

/// Takes over a device whose previous worker died: requests in flight come again, users see a pause and no error.
///
/// # Errors
/// The deposit is not of this volume, or the step that failed.
pub fn resume(
    deposit: Deposit,
    spec: FrontSpec,
    target: Arc<dyn Target>,
    keeper: &KeeperHandle,
) -> Result<Box<dyn Front>, FrontError> {
    check(&spec, target.as_ref())?;
    let record: Record = serde_json::from_str(&deposit.blob)
        .map_err(|error| FrontError::Deposit { label: deposit.label.clone(), error })?;
    if record.spec != spec {
        return Err(FrontError::OtherVolume { label: deposit.label });
    }
    match record.means {
        Means::FuseLoop { loop_number } => {
            let kept = (Some(loop_number), deposit.fds);
            Ok(Box::new(fuse::FuseFront::resume(spec, kept, target, keeper)?))
        }
        Means::Fuse => {
            Ok(Box::new(fuse::FuseFront::resume(spec, (None, deposit.fds), target, keeper)?))
        }
        Means::Ublk { number } => {
            Ok(Box::new(ublk::UblkFront::resume(spec, number, &target, keeper)?))
        }
        Means::Socket => Ok(Box::new(nbd::socket::SocketFront::open(spec, target, keeper)?)),
        Means::Nbd { index } => Ok(Box::new(nbd::NbdFront::resume(spec, index, target, keeper)?)),
    }
}

/// The spec of the device kept in `deposit`, if it is one of a front end.
#[must_use]
pub fn deposited_spec(deposit: &Deposit) -> Option<FrontSpec> {
    serde_json::from_str::<Record>(&deposit.blob).ok().map(|record| record.spec)
}

/// Takes away the device of a dead worker that may not go on, for example because this node is no longer primary:
/// requests in flight fail, and users of the device see errors from now on.
///
/// # Errors
/// The step that failed.
pub fn abandon(deposit: &Deposit, keeper: &KeeperHandle) -> Result<(), FrontError> {
    let record: Record = serde_json::from_str(&deposit.blob)
        .map_err(|error| FrontError::Deposit { label: deposit.label.clone(), error })?;
    if !matches!(record.means, Means::Socket) {
        node::remove_node(&record.spec.device)?;
    }
    keeper.withdraw(&deposit.label).map_err(FrontError::Keeper)?;
    match record.means {
        Means::FuseLoop { .. } | Means::Fuse => fuse::abandon(&run_dir(), &record.spec.name),
        Means::Nbd { index } => nbd::abandon(index),
        Means::Socket => nbd::socket::abandon(&record.spec.name),
        Means::Ublk { number } => ublk::abandon(number),
    }
}

/// Removes what dead daemons left behind: FUSE mounts without a server, and the loop devices on them.
/// Leaves alone what answers, and what `keeper` has kept for [`resume`]. Call once at start, before [`open`].
///
/// # Errors
/// The step that failed.
pub fn clean_stale(run_dir: &Path, keeper: &KeeperHandle) -> Result<(), FrontError> {
    let inherited = keeper.inherited();
    let records = inherited.iter().filter_map(|deposit| serde_json::from_str(&deposit.blob).ok());
    let kept: Vec<Record> = records.collect();
    fuse::clean_stale(run_dir, &kept)?;
    nbd::clean_stale(run_dir, &kept)?;
    ublk::clean_stale(run_dir, &kept)
}

/// The run directory: `CRM_RUN_DIR`, else `/run/crm`.
#[must_use]
pub fn run_dir() -> PathBuf {
    std::env::var_os("CRM_RUN_DIR").map_or_else(|| PathBuf::from("/run/crm"), PathBuf::from)
}

/// Tells the kernel that the calling thread serves block I/O, so that its memory allocations never wait for I/O to
/// a device that it serves itself. Best effort: needs `CAP_SYS_RESOURCE`.
pub fn mark_io_thread() {
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::debug!(%error, "not marked as an I/O thread");
    }
}

/// Whose device it is, among all daemons of this machine (each has its own run directory, maybe in its own mount
/// namespace under the same path).
fn identity(run_dir: &Path, name: &str) -> Result<String, FrontError> {
    std::fs::create_dir_all(run_dir).map_err(error::step("make directory", run_dir))?;
    let found = std::fs::metadata(run_dir).map_err(error::step("look at", run_dir))?;
    Ok(format!("crm:{:x}:{:x}:{name}", found.dev(), found.ino()))
}

/// Loads a kernel module; false = this system cannot.
#[expect(
    clippy::disallowed_methods,
    reason = "modprobe alone, before any I/O; crm_agents::exec is for agents and scripts"
)]
fn load_module(name: &str) -> bool {
    let outcome = Command::new("modprobe").arg("-q").arg(name).stdin(Stdio::null()).status();
    match outcome {
        Ok(status) => status.success(),
        Err(error) => {
            tracing::debug!(%error, name, "modprobe");
            false
        }
    }
}

/// 50 ms, for the few things of the kernel that can only be asked again.
fn pause() {
    if let Err(error) = nix::poll::poll(&mut [], nix::poll::PollTimeout::from(50u8)) {
        tracing::debug!(%error, "pause cut short");
    }
}

/// Label of a volume's deposit with the keeper.
fn label(spec: &FrontSpec) -> String {
    format!("front:{}", spec.name)
}

/// What the keeper remembers of a front end.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    spec: FrontSpec,
    means: Means,
}

impl Record {
    fn deposit(&self, keeper: &KeeperHandle, fds: &[BorrowedFd<'_>]) -> Result<(), FrontError> {
        let label = label(&self.spec);
        let blob = match serde_json::to_string(self) {
            Ok(blob) => blob,
            Err(error) => return Err(FrontError::Deposit { label, error }),
        };
        keeper.deposit(&label, &blob, fds).map_err(FrontError::Keeper)
    }
}

/// How the device is made, with what the next worker needs to know.
#[derive(Debug, Serialize, Deserialize)]
enum Means {
    /// The `/dev/fuse` descriptors are the deposit's descriptors.
    FuseLoop {
        /// N of `/dev/loopN`.
        loop_number: u32,
    },
    /// The `/dev/fuse` descriptors are the deposit's descriptors.
    Fuse,
    /// Nothing else, and no descriptors: users connect again.
    Socket,
    /// Nothing else.
    Nbd {
        /// N of `/dev/nbdN`.
        index: u32,
    },
    /// The kernel lets one process alone open the queue, so the keeper holds no descriptor of it.
    Ublk {
        /// N of `/dev/ublkbN`.
        number: u32,
    },
}

fn check(spec: &FrontSpec, target: &dyn Target) -> Result<(), FrontError> {
    let name_is_good = !spec.name.is_empty()
        && !spec.name.starts_with('.')
        && spec.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !name_is_good {
        return Err(FrontError::Name { name: spec.name.clone() });
    }
    if spec.size_bytes == 0 || !spec.size_bytes.is_multiple_of(u64::from(BLOCK_BYTES)) {
        return Err(FrontError::Size { bytes: spec.size_bytes });
    }
    if target.size_bytes() < spec.size_bytes {
        return Err(FrontError::Size { bytes: target.size_bytes() });
    }
    Ok(())
}

/// Logical block size of every device shown.
const BLOCK_BYTES: u32 = 4096;
