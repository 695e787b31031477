//! Control commands of ublk by their names.

use super::super::BLOCK_BYTES;
use super::super::error::{FrontError, step};
use super::sys;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

/// Requests in flight at most.
pub(super) const DEPTH: u16 = 128;
/// Largest read and write.
const MAX_IO: u32 = 1 << 20;

const GET_DEV_INFO: u32 = 0x8020_7502;
const ADD_DEV: u32 = 0xC020_7504;
const DEL_DEV: u32 = 0xC020_7505;
const START_DEV: u32 = 0xC020_7506;
const STOP_DEV: u32 = 0xC020_7507;
const SET_PARAMS: u32 = 0xC020_7508;
const START_USER_RECOVERY: u32 = 0xC020_7510;
const END_USER_RECOVERY: u32 = 0xC020_7511;
const GET_FEATURES: u32 = 0x8020_7513;

const F_USER_RECOVERY: u64 = 1 << 3;
const F_USER_RECOVERY_REISSUE: u64 = 1 << 4;
const F_CMD_IOCTL_ENCODE: u64 = 1 << 6;
const F_USER_COPY: u64 = 1 << 7;

const ATTR_VOLATILE_CACHE: u32 = 1 << 2;
const ATTR_FUA: u32 = 1 << 3;
const INFO_BYTES: usize = 64;
const STATE_LIVE: u16 = 1;
const DEVICE: &str = "/dev/ublk-control";

/// What the kernel says of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    /// Served.
    pub(super) live: bool,
    /// The mark given at creation.
    pub(super) owner: u64,
}

/// The control device.
pub(super) struct Control(sys::Control);

impl Control {
    pub(super) fn open() -> Result<Self, FrontError> {
        let path = Path::new(DEVICE);
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(step("open", path))?;
        Ok(Self(sys::Control::new(file).map_err(step("make ring for", path))?))
    }

    /// Whether the kernel has what we use (6.5 and later: data through read and write on the character device).
    pub(super) fn suffices(&mut self) -> bool {
        self.features().is_ok_and(|features| features & F_USER_COPY != 0)
    }

    fn features(&mut self) -> Result<u64, FrontError> {
        let mut features = [0; 8];
        self.run("ask features of", GET_FEATURES, u32::MAX, 0, &mut features)?;
        Ok(u64::from_ne_bytes(features))
    }

    /// Makes a device that belongs to `owner`; returns N of `/dev/ublkbN`.
    pub(super) fn add(&mut self, owner: u64) -> Result<u32, FrontError> {
        let wanted = F_CMD_IOCTL_ENCODE | F_USER_COPY | F_USER_RECOVERY | F_USER_RECOVERY_REISSUE;
        let flags = wanted & (self.features()? | F_CMD_IOCTL_ENCODE);
        let mut info = [0; INFO_BYTES];
        info[..2].copy_from_slice(&1u16.to_ne_bytes());
        info[2..4].copy_from_slice(&DEPTH.to_ne_bytes());
        info[8..12].copy_from_slice(&MAX_IO.to_ne_bytes());
        info[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        info[16..20].copy_from_slice(&std::process::id().to_ne_bytes());
        info[24..32].copy_from_slice(&flags.to_ne_bytes());
        info[32..40].copy_from_slice(&owner.to_ne_bytes());
        self.run("add device by", ADD_DEV, u32::MAX, 0, &mut info)?;
        Ok(u32::from_ne_bytes([info[12], info[13], info[14], info[15]]))
    }

    /// Size, block size, write cache, FUA, discard, write zeroes.
    pub(super) fn set_params(&mut self, device: u32, size_bytes: u64) -> Result<(), FrontError> {
        let shift = BLOCK_BYTES.trailing_zeros().to_le_bytes()[0];
        let max_range = u32::MAX >> 9 & !(BLOCK_BYTES / 512 - 1);
        let mut params = Vec::with_capacity(64);
        params.extend(64u32.to_ne_bytes());
        params.extend(3u32.to_ne_bytes()); // basic and discard
        params.extend((ATTR_VOLATILE_CACHE | ATTR_FUA).to_ne_bytes());
        params.extend([shift, shift, shift, shift]);
        params.extend((MAX_IO / 512).to_ne_bytes());
        params.extend(0u32.to_ne_bytes());
        params.extend((size_bytes / 512).to_ne_bytes());
        params.extend(0u64.to_ne_bytes());
        params.extend(0u32.to_ne_bytes());
        params.extend(BLOCK_BYTES.to_ne_bytes());
        params.extend(max_range.to_ne_bytes());
        params.extend(max_range.to_ne_bytes());
        params.extend(1u16.to_ne_bytes());
        params.resize(64, 0);
        self.run("set parameters by", SET_PARAMS, device, 0, &mut params)
    }

    /// Makes the block device; waits until the queue has asked for requests.
    pub(super) fn start(&mut self, device: u32) -> Result<(), FrontError> {
        let pid = u64::from(std::process::id());
        self.run("start device by", START_DEV, device, pid, &mut [])
    }

    /// Takes the block device away.
    pub(super) fn stop(&mut self, device: u32) -> Result<(), FrontError> {
        self.run("stop device by", STOP_DEV, device, 0, &mut [])
    }

    /// Forgets the device.
    pub(super) fn delete(&mut self, device: u32) -> Result<(), FrontError> {
        self.run("delete device by", DEL_DEV, device, 0, &mut [])
    }

    /// Begins the take-over from a dead server; `EBUSY` = the kernel has not noticed its death yet.
    pub(super) fn start_recovery(&mut self, device: u32) -> Result<(), FrontError> {
        self.run("start recovery by", START_USER_RECOVERY, device, 0, &mut [])
    }

    /// Ends the take-over; waits until the queue has asked for requests.
    pub(super) fn end_recovery(&mut self, device: u32) -> Result<(), FrontError> {
        let pid = u64::from(std::process::id());
        self.run("end recovery by", END_USER_RECOVERY, device, pid, &mut [])
    }

    pub(super) fn info(&mut self, device: u32) -> Result<Info, FrontError> {
        let mut info = [0; INFO_BYTES];
        self.run("ask for a device of", GET_DEV_INFO, device, 0, &mut info)?;
        let mut owner = [0; 8];
        owner.copy_from_slice(&info[32..40]);
        let live = u16::from_ne_bytes([info[4], info[5]]) == STATE_LIVE;
        Ok(Info { live, owner: u64::from_ne_bytes(owner) })
    }

    fn run(
        &mut self,
        what: &'static str,
        operation: u32,
        device: u32,
        data: u64,
        buffer: &mut [u8],
    ) -> Result<(), FrontError> {
        let outcome: io::Result<()> = self.0.command(operation, device, data, buffer);
        outcome.map_err(step(what, Path::new(DEVICE)))
    }
}
