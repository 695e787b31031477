//! Loop devices: attach to our FUSE file with direct I/O, look who is on them, detach without losing a cached write.

use super::error::{FrontError, step};
use super::node::KernelDevice;
use super::{BLOCK_BYTES, pause, sys};
use nix::errno::Errno;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
pub(super) const CONTROL: &str = "/dev/loop-control";
/// Others on the machine race for free devices; losing this often in a row is not a race any more.
const ATTEMPTS: u32 = 64;
/// A device in transient use (udev probes every new or changed device) is retried this often.
const DETACH_ATTEMPTS: u32 = 20;

/// Binds a free loop device to `file` (opened with `O_DIRECT`); returns its number.
pub(super) fn attach(file: &Path) -> Result<u32, FrontError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(nix::libc::O_DIRECT);
    let backing = options.open(file).map_err(step("open", file))?;
    let control_path = Path::new(CONTROL);
    let control = File::open(control_path).map_err(step("open", control_path))?;
    let mut info = sys::LoopInfo { flags: DIRECT_IO, ..sys::LoopInfo::EMPTY };
    let path_bytes = file.as_os_str().as_encoded_bytes();
    let shown = path_bytes.len().min(info.file_name.len() - 1);
    info.file_name[..shown].copy_from_slice(&path_bytes[..shown]);
    for _ in 0..ATTEMPTS {
        let number =
            sys::loop_get_free(&control).map_err(step("get a free loop device", control_path))?;
        let device = KernelDevice::of_loop(number);
        let handle = device.open(false)?;
        match sys::loop_configure(&handle, &backing, BLOCK_BYTES, info) {
            Ok(()) => return Ok(number),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {}
            Err(error) => return Err(step("configure", &device.node()?)(error)),
        }
    }
    Err(step("win a loop device", control_path)(Errno::EBUSY))
}

/// Whether loop device `number` is bound to the file system with device number `file_system`.
pub(super) fn is_bound_to(number: u32, file_system: u64) -> Result<bool, FrontError> {
    let handle = KernelDevice::of_loop(number).open(false)?;
    match sys::loop_status(&handle) {
        Ok(info) => Ok(info.device == file_system && info.flags & READ_ONLY == 0),
        Err(_unbound_or_dead) => Ok(false),
    }
}

/// Unbinds loop device `number`; what its page cache holds is written first.
/// Fails with [`FrontError::Busy`], naming `shown`, while somebody has it open.
pub(super) fn detach(number: u32, shown: &Path) -> Result<(), FrontError> {
    let device = KernelDevice::of_loop(number);
    let node = device.node()?;
    for attempt in 0..DETACH_ATTEMPTS {
        if attempt > 0 {
            pause();
        }
        let handle = device.claim(shown)?;
        match sys::loop_clear(&handle) {
            Ok(()) => drop(handle),
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => return Ok(()),
            Err(error) => return Err(step("detach", &node)(error)),
        }
        if !is_bound(number) {
            return Ok(());
        }
        keep(&device);
    }
    Err(FrontError::Busy { device: shown.to_owned() })
}

/// Unbinds loop device `number`, whose backing is dead, now or on its last close.
pub(super) fn abandon(number: u32) -> Result<(), FrontError> {
    let device = KernelDevice::of_loop(number);
    let handle = device.open(false)?;
    match sys::loop_clear(&handle) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => Ok(()),
        Err(error) => Err(step("detach", &device.node()?)(error)),
    }
}

/// Loop devices bound to a file on the file system with device number `file_system`, or to the file `path` when the
/// file system is too dead to tell.
pub(super) fn bound_to(file_system: u64, path: &Path) -> Result<Vec<u32>, FrontError> {
    let blocks = Path::new("/sys/block");
    let mut found = Vec::new();
    // Whoever has no loop devices sees the machine's in sysfs all the same.
    if !Path::new(CONTROL).exists() {
        return Ok(found);
    }
    for entry in fs::read_dir(blocks).map_err(step("list", blocks))? {
        let entry = entry.map_err(step("list", blocks))?;
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.strip_prefix("loop")) else {
            continue;
        };
        let Ok(number) = number.parse::<u32>() else { continue };
        if !is_bound(number) {
            continue;
        }
        let handle = KernelDevice::of_loop(number).open(false)?;
        let ours = match sys::loop_status(&handle) {
            Ok(info) => info.device == file_system,
            Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {
                is_backed_by(number, path)
            }
            Err(_gone_meanwhile) => false,
        };
        if ours {
            found.push(number);
        }
    }
    Ok(found)
}

/// Takes back the kernel's promise to unbind on last close, for a device that stays in use.
fn keep(device: &KernelDevice) {
    let outcome = device.open(false).map_err(drop).and_then(|handle| {
        let mut info = sys::loop_status(&handle).map_err(drop)?;
        info.flags &= !AUTOCLEAR;
        sys::loop_set_status(&handle, &info).map_err(drop)
    });
    if outcome.is_err() {
        tracing::debug!(device = device.name, "already detached");
    }
}

fn is_bound(number: u32) -> bool {
    Path::new(&format!("/sys/block/loop{number}/loop")).exists()
}

fn is_backed_by(number: u32, path: &Path) -> bool {
    fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file"))
        .is_ok_and(|backing| Path::new(backing.trim_end()) == path)
}
