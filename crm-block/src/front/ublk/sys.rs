//! The two rings of ublk: control commands, and the request queue with its descriptors in memory shared with the kernel.
#![expect(unsafe_code, reason = "io_uring entries and a shared mapping have no safe API")]

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

/// Bytes of `struct ublksrv_io_desc`.
const DESCRIPTOR_BYTES: usize = 24;
const PAGE: usize = 4096;
/// `_IOWR('u', 0x20, struct ublksrv_io_cmd)`.
const FETCH: u32 = 0xC010_7520;
/// `_IOWR('u', 0x21, struct ublksrv_io_cmd)`.
const COMMIT_AND_FETCH: u32 = 0xC010_7521;
/// User data of the wake-up poll; tags are below.
const WAKE: u64 = 1 << 32;

/// `/dev/ublk-control`.
pub(super) struct Control {
    file: File,
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
}

impl Control {
    pub(super) fn new(file: File) -> io::Result<Self> {
        Ok(Self { file, ring: IoUring::builder().build(2)? })
    }

    /// Runs one command to its end; the kernel reads and writes `buffer`.
    pub(super) fn command(
        &mut self,
        operation: u32,
        device: u32,
        data: u64,
        buffer: &mut [u8],
    ) -> io::Result<()> {
        let len = u16::try_from(buffer.len()).map_err(io::Error::other)?;
        let address = if buffer.is_empty() { 0 } else { buffer.as_mut_ptr().expose_provenance() };
        let mut command = [0; 80];
        command[..4].copy_from_slice(&device.to_ne_bytes());
        command[4..6].copy_from_slice(&u16::MAX.to_ne_bytes());
        command[6..8].copy_from_slice(&len.to_ne_bytes());
        command[8..16].copy_from_slice(&address.to_ne_bytes());
        command[16..24].copy_from_slice(&data.to_ne_bytes());
        let fd = types::Fd(self.file.as_raw_fd());
        let entry = opcode::UringCmd80::new(fd, operation).cmd(command).build();
        // SAFETY: the buffer outlives the command: this function waits for its completion below.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(io::Error::other)?;
        loop {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Some(done) = self.ring.completion().next() {
                return match done.result() {
                    0.. => Ok(()),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
        }
    }
}

/// What a request asks: `struct ublksrv_io_desc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) op_flags: u32,
    pub(super) sectors: u32,
    pub(super) start_sector: u64,
}

/// What came out of the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A request waits under `tag`, or (negative) the tag is dead.
    Request { tag: u16, result: i32 },
    /// The wake-up descriptor is readable; it must be watched again.
    Wake,
}

/// The request queue of a device; must stay on the thread that made it.
pub(super) struct Queue {
    ring: IoUring,
    device: File,
    descriptors: NonNull<u8>,
    mapped: usize,
    depth: u16,
}

impl Queue {
    /// The queue of the `/dev/ublkcN` opened as `device`.
    pub(super) fn new(device: File, depth: u16) -> io::Result<Self> {
        let ring = IoUring::new(u32::from(depth) * 2)?;
        let mapped = (usize::from(depth) * DESCRIPTOR_BYTES).next_multiple_of(PAGE);
        let shared = MapFlags::SHARED | MapFlags::POPULATE;
        let hint = std::ptr::null_mut();
        // SAFETY: a fresh mapping at an address of the kernel's choice; unmapped in `drop` alone.
        let start = unsafe { mmap(hint, mapped, ProtFlags::READ, shared, &device, 0) }?;
        let descriptors = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { ring, device, descriptors, mapped, depth })
    }

    /// Asks for the first request under `tag`.
    pub(super) fn fetch(&mut self, tag: u16) -> io::Result<()> {
        self.push_command(FETCH, tag, 0)
    }

    /// Answers the request under `tag` and asks for the next one.
    pub(super) fn commit(&mut self, tag: u16, result: i32) -> io::Result<()> {
        self.push_command(COMMIT_AND_FETCH, tag, result)
    }

    /// Asks for [`Event::Wake`] when `wake` becomes readable.
    pub(super) fn watch(&mut self, wake: impl AsFd) -> io::Result<()> {
        let fd = types::Fd(wake.as_fd().as_raw_fd());
        let events = u32::try_from(nix::libc::POLLIN).map_err(io::Error::other)?;
        self.push(&opcode::PollAdd::new(fd, events).build().user_data(WAKE))
    }

    /// Hands over what was asked and waits until something has come.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Hands over what was asked.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    /// What has come.
    pub(super) fn events(&mut self, into: &mut Vec<Event>) {
        into.extend(self.ring.completion().map(|done| match u16::try_from(done.user_data()) {
            Ok(tag) => Event::Request { tag, result: done.result() },
            Err(_not_a_tag) => Event::Wake,
        }));
    }

    /// The request under `tag`, valid between its event and its commit.
    pub(super) fn descriptor(&self, tag: u16) -> Option<Descriptor> {
        if tag >= self.depth {
            return None;
        }
        let at = usize::from(tag) * DESCRIPTOR_BYTES;
        Some(Descriptor {
            op_flags: self.read_u32(at),
            sectors: self.read_u32(at + 4),
            start_sector: u64::from(self.read_u32(at + 8))
                | u64::from(self.read_u32(at + 12)) << 32,
        })
    }

    fn read_u32(&self, at: usize) -> u32 {
        assert!(at + 4 <= self.mapped, "within the mapping");
        // SAFETY: `at` is a multiple of 4 within the mapping, which is page-aligned and lives as long as `self`;
        // volatile, because the kernel writes there.
        unsafe { self.descriptors.add(at).cast::<u32>().read_volatile() }
    }

    fn push_command(&mut self, operation: u32, tag: u16, result: i32) -> io::Result<()> {
        let mut command = [0; 16];
        command[2..4].copy_from_slice(&tag.to_ne_bytes());
        command[4..8].copy_from_slice(&result.to_ne_bytes());
        let fd = types::Fd(self.device.as_raw_fd());
        let entry = opcode::UringCmd16::new(fd, operation).cmd(command).build();
        self.push(&entry.user_data(u64::from(tag)))
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.ring.submit()?;
        }
        // SAFETY: our entries carry no pointers, and their descriptors live as long as the queue or longer.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` has mapped, and nothing borrows it beyond `self`.
        if let Err(error) = unsafe { munmap(self.descriptors.as_ptr().cast(), self.mapped) } {
            tracing::error!(%error, "unmap ublk descriptors");
        }
    }
}
