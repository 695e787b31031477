//! The system calls without a safe wrapper: the time limit of a watchdog device (Linux, `Documentation/watchdog/watchdog-api.rst`).
#![expect(unsafe_code, reason = "device ioctls have no safe API")]

use nix::errno::Errno;
use nix::libc;
use std::fs::File;
use std::os::fd::AsRawFd;

const SET_TIMEOUT: libc::Ioctl =
    nix::request_code_readwrite!(b'W', 6, size_of::<libc::c_int>()) as libc::Ioctl;

/// Sets the time after which an unfed watchdog fires, in seconds; what the driver made of it.
pub(crate) fn set_timeout(device: &File, seconds: u32) -> Result<u32, Errno> {
    let mut value = libc::c_int::try_from(seconds).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the request reads and writes one int, which lives on this stack.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), SET_TIMEOUT, &raw mut value) };
    Errno::result(result)?;
    u32::try_from(value).map_err(|_| Errno::EINVAL)
}
