//! ublk: the kernel's own interface for block devices in user space, and the fastest. When the worker dies the kernel
//! holds the device and its requests; the next worker takes the device over and gets them again.

use super::error::{FrontError, step};
use super::node::{self, KernelDevice};
use super::{
    Front, FrontSpec, KeeperHandle, Means, Record, Target, identity, label, pause, run_dir,
};
use control::Control;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

mod control;
mod serve;
mod sys;

/// The kernel notices a dead server within this many pauses of 50 ms (older ones look every 5 s).
const RECOVERY_ATTEMPTS: u32 = 300;

/// A ublk device.
#[derive(Debug)]
pub(super) struct UblkFront {
    spec: FrontSpec,
    number: u32,
    keeper: KeeperHandle,
    /// `None` = closed.
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Whether this kernel has ublk, after trying to load it.
pub(super) fn is_available() -> bool {
    let path = Path::new("/dev/ublk-control");
    (path.exists() || super::load_module("ublk_drv") && path.exists())
        && Control::open().is_ok_and(|mut control| control.suffices())
}

impl UblkFront {
    /// Makes a new device.
    pub(super) fn open(
        spec: FrontSpec,
        target: &Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let deposit = label(&spec);
        let mut control = Control::open()?;
        let number = control.add(owner(&run_dir())?)?;
        let outcome = control
            .set_params(number, spec.size_bytes)
            .and_then(|()| Self::serving(spec, number, target, keeper))
            .and_then(|front| front.start_and_show(&mut control).map(|()| front));
        outcome.inspect_err(|_| {
            remove(&mut control, number);
            if let Err(error) = keeper.withdraw(&deposit) {
                tracing::warn!(%error, number, "withdraw what did not start");
            }
        })
    }

    /// Takes over from a dead worker.
    pub(super) fn resume(
        spec: FrontSpec,
        number: u32,
        target: &Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let mut control = Control::open()?;
        until_not_busy(|| control.start_recovery(number))?;
        let front = Self::serving(spec, number, target, keeper)?;
        control.end_recovery(number)?;
        front.block_device()?.show_at(&front.spec.device)?;
        Ok(front)
    }

    fn serving(
        spec: FrontSpec,
        number: u32,
        target: &Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let path = character_device(number)?;
        let device = until_not_busy(|| open(&path))?;
        let (ready, started) = mpsc::channel();
        let target = Arc::clone(target);
        let builder = std::thread::Builder::new().name(format!("ublk{number}"));
        let thread = builder.spawn(move || serve::serve(device, &target, &ready));
        let thread = thread.map_err(step("start a thread for", &path))?;
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        started.recv().map_err(gone).flatten().map_err(step("serve", &path))?;
        Ok(Self { spec, number, keeper: keeper.clone(), thread: Mutex::new(Some(thread)) })
    }

    fn start_and_show(&self, control: &mut Control) -> Result<(), FrontError> {
        control.start(self.number)?;
        let means = Means::Ublk { number: self.number };
        Record { spec: self.spec.clone(), means }.deposit(&self.keeper, &[])?;
        self.block_device()?.show_at(&self.spec.device)
    }

    fn block_device(&self) -> Result<KernelDevice, FrontError> {
        KernelDevice::from_sysfs(&format!("ublkb{}", self.number))
    }
}

impl Front for UblkFront {
    fn kind(&self) -> &'static str {
        "ublk"
    }

    fn device_in_use(&self) -> bool {
        self.block_device().is_ok_and(|device| device.is_in_use())
    }

    fn close(&self) -> Result<(), FrontError> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            return Ok(());
        }
        let claim = self.block_device()?.claim(&self.spec.device)?;
        let mut control = Control::open()?;
        control.stop(self.number)?;
        drop(claim);
        node::remove_node(&self.spec.device)?;
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(volume = self.spec.name, "the front-end thread had panicked");
        }
        control.delete(self.number)?;
        self.keeper.withdraw(&label(&self.spec)).map_err(FrontError::Keeper)
    }
}

/// Deletes device `number`, whose server is dead or dying.
pub(super) fn abandon(number: u32) -> Result<(), FrontError> {
    let mut control = Control::open()?;
    control.stop(number)?;
    control.delete(number)
}

/// Deletes devices of ours that nobody serves. See [`super::clean_stale`].
pub(super) fn clean_stale(run_dir: &Path, kept: &[Record]) -> Result<(), FrontError> {
    let devices = Path::new("/sys/class/ublk-char");
    let Ok(entries) = fs::read_dir(devices) else { return Ok(()) };
    let own = owner(run_dir)?;
    let mut control = Control::open()?;
    for entry in entries {
        let entry = entry.map_err(step("list", devices))?;
        let Some(number) = entry.file_name().to_str().and_then(|name| {
            name.strip_prefix("ublkc").and_then(|number| number.parse::<u32>().ok())
        }) else {
            continue;
        };
        let is_kept = kept
            .iter()
            .any(|record| matches!(record.means, Means::Ublk { number: kept } if kept == number));
        if is_kept || control.info(number)?.owner != own {
            continue;
        }
        tracing::info!(number, "stale ublk device");
        for _ in 0..RECOVERY_ATTEMPTS {
            if !control.info(number)?.live {
                break;
            }
            pause(); // its server is dying
        }
        if control.info(number)?.live {
            tracing::warn!(number, "alive, left alone");
        } else {
            control.stop(number)?;
            control.delete(number)?;
        }
    }
    Ok(())
}

/// The mark of our devices: a hash (FNV-1a) of whose they are.
fn owner(run_dir: &Path) -> Result<u64, FrontError> {
    let identity = identity(run_dir, "")?;
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    Ok(identity.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
}

/// Takes down what did not start.
fn remove(control: &mut Control, number: u32) {
    if let Err(error) = control.stop(number).and_then(|()| control.delete(number)) {
        tracing::warn!(%error, number, "taking down a ublk device that did not start");
    }
}

fn open(path: &Path) -> Result<File, FrontError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(step("open", path))
}

/// `/dev/ublkcN`, made when this mount namespace lacks it.
fn character_device(number: u32) -> Result<PathBuf, FrontError> {
    let path = PathBuf::from(format!("/dev/ublkc{number}"));
    if path.exists() {
        return Ok(path);
    }
    let numbers = PathBuf::from(format!("/sys/class/ublk-char/ublkc{number}/dev"));
    let text = fs::read_to_string(&numbers).map_err(step("read", &numbers))?;
    let Some((major, minor)) = text
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some((major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?)))
    else {
        return Err(step("parse", &numbers)(io::Error::from(io::ErrorKind::InvalidData)));
    };
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    match mknod(&path, SFlag::S_IFCHR, mode, makedev(major, minor)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(path),
        Err(error) => Err(step("make device node", &path)(error)),
    }
}

/// Repeats `act` while the kernel has not noticed yet that the last server is dead.
fn until_not_busy<T>(mut act: impl FnMut() -> Result<T, FrontError>) -> Result<T, FrontError> {
    for _ in 1..RECOVERY_ATTEMPTS {
        match act() {
            Err(FrontError::Step { source, .. })
                if source.raw_os_error() == Some(Errno::EBUSY as i32) =>
            {
                pause();
            }
            outcome => return outcome,
        }
    }
    act()
}
