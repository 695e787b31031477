//! The system calls of the front ends that have no safe wrapper: ioctls of FUSE and loop.
#![expect(unsafe_code, reason = "device ioctls have no safe API")]

use nix::libc;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_SET_STATUS64: libc::c_ulong = 0x4C04;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// `_IOR(229, 0, uint32_t)`.
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_E500;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct LoopInfo {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    pub(super) size_limit: u64,
    pub(super) number: u32,
    pub(super) encrypt_type: u32,
    pub(super) encrypt_key_size: u32,
    pub(super) flags: u32,
    pub(super) file_name: [u8; 64],
    pub(super) crypt_name: [u8; 64],
    pub(super) encrypt_key: [u8; 32],
    pub(super) init: [u64; 2],
}

impl LoopInfo {
    pub(super) const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

fn checked(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

/// Attaches the fresh `/dev/fuse` descriptor `fresh` to the session of `session`.
pub(super) fn fuse_clone(fresh: BorrowedFd<'_>, session: BorrowedFd<'_>) -> io::Result<()> {
    let source = session.as_raw_fd().cast_unsigned();
    // SAFETY: the ioctl reads one u32 from the pointer, which outlives the call.
    let outcome = unsafe { libc::ioctl(fresh.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw const source) };
    checked(outcome).map(drop)
}

/// Number of a loop device that is free now.
pub(super) fn loop_get_free(control: impl AsFd) -> io::Result<u32> {
    // SAFETY: the ioctl takes no argument.
    let outcome = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) };
    checked(outcome).map(libc::c_int::cast_unsigned)
}

/// Binds `backing` to the loop device.
pub(super) fn loop_configure(
    device: impl AsFd,
    backing: impl AsFd,
    block_size: u32,
    info: LoopInfo,
) -> io::Result<()> {
    let fd = backing.as_fd().as_raw_fd().cast_unsigned();
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the ioctl reads a `struct loop_config` from the pointer, which outlives the call.
    let outcome =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    checked(outcome).map(drop)
}

/// Unbinds the loop device: at once when nobody else has it open, else on last close.
pub(super) fn loop_clear(device: impl AsFd) -> io::Result<()> {
    // SAFETY: the ioctl takes no argument.
    let outcome = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CLR_FD) };
    checked(outcome).map(drop)
}

/// What is bound to the loop device; ENXIO = nothing.
pub(super) fn loop_status(device: impl AsFd) -> io::Result<LoopInfo> {
    let mut info = LoopInfo::EMPTY;
    // SAFETY: the ioctl writes one `struct loop_info64` to the pointer, which outlives the call.
    let outcome =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    checked(outcome).map(|_| info)
}

/// Changes the flags of a bound loop device.
pub(super) fn loop_set_status(device: impl AsFd, info: &LoopInfo) -> io::Result<()> {
    let info: *const LoopInfo = info;
    // SAFETY: the ioctl reads one `struct loop_info64` from the pointer, which outlives the call.
    let outcome = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_SET_STATUS64, info) };
    checked(outcome).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernel_header() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
