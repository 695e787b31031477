//! The threads that take the kernel's requests off `/dev/fuse`, and the answers, which come from any thread.

use super::super::{Buffer, Io, Target, mark_io_thread};
use super::wire::{self, Call, HEAD_BYTES, Request};
use crate::aligned::AlignedBuf;
use nix::libc::{EINVAL, EIO, ENOENT, ENOSPC, ENOSYS};
use rustix::io::Errno;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Up to here a payload is copied out of the receive buffer; above, the receive buffer itself is handed on. A copy of
/// this size costs about 5 microseconds, a spare 1 MiB buffer for every small request would cost far more memory.
const COPY_BYTES: usize = 64 << 10;
/// Unit of offsets and lengths that a volume accepts.
const UNIT: u64 = 512;

/// What the threads of a mount share.
pub(super) struct Session {
    size_bytes: u64,
    target: Arc<dyn Target>,
    /// The loop driver is the one user. Otherwise anybody may be, with requests of any length, one write at a time.
    under_loop: bool,
    /// Something may have been written through this mount. Until then a flush has nothing to flush and must not wait: the loop driver
    /// flushes while the device is made, when a volume that lost its peers cannot yet be told to go on without them.
    touched: AtomicBool,
}

impl Session {
    /// `touched`: something may have been written through the mount before.
    pub(super) fn new(
        size_bytes: u64,
        target: Arc<dyn Target>,
        under_loop: bool,
        touched: bool,
    ) -> Self {
        Self { size_bytes, target, under_loop, touched: AtomicBool::new(touched) }
    }

    pub(super) fn under_loop(&self) -> bool {
        self.under_loop
    }

    /// Takes requests off `channel` until the mount is gone.
    pub(super) fn serve(&self, channel: &Arc<OwnedFd>) {
        mark_io_thread();
        let mut head = [0; HEAD_BYTES];
        let mut payload = receive_buffer();
        loop {
            let mut slices = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut payload)];
            let len = match rustix::io::readv(channel, &mut slices) {
                Ok(len) => len,
                // ENOENT: the request was interrupted before it was read
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
                Err(Errno::NODEV | Errno::CONNABORTED) => return,
                Err(error) => {
                    tracing::error!(%error, "read /dev/fuse");
                    return;
                }
            };
            let Some(request) = wire::parse(&head, len) else {
                tracing::error!(len, "request of the kernel is not readable");
                continue;
            };
            self.handle(channel, request, &mut payload);
        }
    }

    fn handle(&self, channel: &Arc<OwnedFd>, request: Request, payload: &mut AlignedBuf) {
        let answer = Answer { channel: Arc::clone(channel), unique: request.unique, sent: false };
        let size = self.size_bytes;
        match request.call {
            Call::Read { offset, len } => self.read(answer, offset, len),
            Call::Write { offset, len } => self.write(answer, offset, len, payload),
            Call::Fsync if !self.touched.load(Ordering::Acquire) => answer.data(&[]),
            Call::Fsync => self.change(answer, Io::Flush),
            Call::PunchHole { offset, len } => match self.clip(offset, len) {
                Some(len) => self.change(answer, Io::Discard { offset, len }),
                None => answer.error(EINVAL),
            },
            Call::ZeroRange { offset, len } => match self.clip(offset, len) {
                Some(len) => self.change(answer, Io::Zero { offset, len }),
                None => answer.error(EINVAL),
            },
            Call::Lookup { found: true } => answer.data(&wire::entry_answer(size)),
            Call::Lookup { found: false } => answer.error(ENOENT),
            Call::GetAttr => answer.data(&wire::attr_answer(request.node, size)),
            Call::SetAttr { size: Some(wish) } if wish != size => answer.error(EINVAL),
            Call::SetAttr { .. } => answer.data(&wire::attr_answer(request.node, size)),
            Call::Open | Call::OpenDir => {
                answer.data(&wire::open_answer(request.node, self.under_loop));
            }
            Call::StatFs => answer.data(&wire::statfs_answer(size)),
            Call::ReadDir | Call::Close => answer.data(&[]),
            Call::Init { .. } => answer.error(EIO),
            Call::Forget => answer.none(),
            Call::Other { opcode } => {
                tracing::debug!(opcode, "not offered");
                answer.error(ENOSYS);
            }
        }
    }

    fn read(&self, answer: Answer, offset: u64, len: u32) {
        let end = offset.saturating_add(u64::from(len)).min(self.size_bytes);
        let Some(range) = Range::around(offset, end) else { return answer.data(&[]) };
        let done = move |outcome: io::Result<Option<Buffer>>| match outcome {
            Ok(Some(bytes)) if range.wanted(&bytes).is_some() => {
                answer.data(range.wanted(&bytes).unwrap_or_default());
            }
            Ok(_) => {
                tracing::error!(offset, len, "a read came back without its bytes");
                answer.error(EIO);
            }
            Err(error) => answer.failure(&error),
        };
        self.target.submit(Io::Read { offset: range.offset, len: range.len }, Box::new(done));
    }

    fn write(&self, answer: Answer, offset: u64, len: u32, payload: &mut AlignedBuf) {
        let odd = !(offset.is_multiple_of(UNIT) && u64::from(len).is_multiple_of(UNIT));
        if odd && !self.under_loop {
            return self.write_odd(answer, offset, len, payload);
        }
        match self.clip(offset, u64::from(len)) {
            Some(whole) if whole == u64::from(len) => {}
            Some(_) => return answer.error(ENOSPC),
            None => return answer.error(EINVAL),
        }
        let Some(bytes) = usize::try_from(len).ok().filter(|len| *len <= payload.len()) else {
            return answer.error(EINVAL);
        };
        let data = if bytes <= COPY_BYTES {
            AlignedBuf::from_slice(&payload[..bytes])
        } else {
            let mut whole = std::mem::replace(payload, receive_buffer());
            whole.truncate(bytes);
            whole
        };
        self.touched.store(true, Ordering::Release);
        let io = Io::Write { offset, data: Arc::new(data), fua: false };
        let done = move |outcome: io::Result<Option<Buffer>>| match outcome {
            Ok(_) => answer.data(&wire::write_answer(len)),
            Err(error) => answer.failure(&error),
        };
        self.target.submit(io, Box::new(done));
    }

    /// A write that is not in units of 512: what is around it is read and written back with it. The kernel sends writes to the bare file
    /// one by one, so nothing else is written there meanwhile.
    fn write_odd(&self, answer: Answer, offset: u64, len: u32, payload: &AlignedBuf) {
        let end = offset.saturating_add(u64::from(len));
        if end > self.size_bytes {
            return answer.error(ENOSPC);
        }
        let bytes = usize::try_from(len).ok().and_then(|len| payload.get(..len));
        let (Some(range), Some(bytes)) = (Range::around(offset, end), bytes) else {
            return answer.error(EINVAL);
        };
        self.touched.store(true, Ordering::Release);
        let (target, bytes) = (Arc::clone(&self.target), bytes.to_vec());
        let written = move |outcome: io::Result<Option<Buffer>>| match outcome {
            Ok(_) => answer.data(&wire::write_answer(len)),
            Err(error) => answer.failure(&error),
        };
        let merge = move |outcome: io::Result<Option<Buffer>>| {
            let around = outcome.and_then(|around| around.ok_or_else(|| EIO_ERROR.into()));
            let whole = around.and_then(|around| {
                let mut whole = AlignedBuf::from_slice(&around);
                let place = range.wanted_mut(&mut whole).ok_or(EIO_ERROR)?;
                place.copy_from_slice(&bytes);
                Ok(whole)
            });
            match whole {
                Ok(whole) => {
                    let io = Io::Write { offset: range.offset, data: Arc::new(whole), fua: false };
                    target.submit(io, Box::new(written));
                }
                Err(error) => written(Err(error)),
            }
        };
        self.target.submit(Io::Read { offset: range.offset, len: range.len }, Box::new(merge));
    }

    /// Requests that are answered by success alone.
    fn change(&self, answer: Answer, io: Io) {
        self.touched.store(true, Ordering::Release);
        let done = move |outcome: io::Result<Option<Buffer>>| match outcome {
            Ok(_) => answer.data(&[]),
            Err(error) => answer.failure(&error),
        };
        self.target.submit(io, Box::new(done));
    }

    /// The part of a range inside the volume; `None` = not in units of 512.
    fn clip(&self, offset: u64, len: u64) -> Option<u64> {
        (offset.is_multiple_of(UNIT) && len.is_multiple_of(UNIT))
            .then(|| len.min(self.size_bytes.saturating_sub(offset)))
    }
}

/// The error of a target that answers a read without bytes.
const EIO_ERROR: io::ErrorKind = io::ErrorKind::UnexpectedEof;

/// Bytes that are wanted, and the units of 512 around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    /// Start of the units.
    offset: u64,
    /// Length of the units.
    len: u32,
    /// Where in the units the wanted bytes start and end.
    from: usize,
    to: usize,
}

impl Range {
    /// `None` = nothing is wanted, or more than a request holds.
    fn around(start: u64, end: u64) -> Option<Self> {
        let offset = start - start % UNIT;
        let len = u32::try_from(end.checked_next_multiple_of(UNIT)?.checked_sub(offset)?).ok()?;
        let from = usize::try_from(start - offset).ok()?;
        let to = usize::try_from(end.checked_sub(offset)?).ok()?;
        (from < to).then_some(Self { offset, len, from, to })
    }

    fn wanted<'a>(&self, units: &'a [u8]) -> Option<&'a [u8]> {
        units.get(self.from..self.to)
    }

    fn wanted_mut<'a>(&self, units: &'a mut [u8]) -> Option<&'a mut [u8]> {
        units.get_mut(self.from..self.to)
    }
}

/// The answer that the kernel waits for.
struct Answer {
    channel: Arc<OwnedFd>,
    unique: u64,
    sent: bool,
}

impl Answer {
    fn data(self, payload: &[u8]) {
        self.send(0, payload);
    }

    fn error(self, errno: i32) {
        self.send(errno, &[]);
    }

    fn failure(self, error: &io::Error) {
        let errno = error.raw_os_error().filter(|errno| (1..1000).contains(errno));
        self.error(errno.unwrap_or(EIO));
    }

    fn none(mut self) {
        self.sent = true;
    }

    fn send(mut self, errno: i32, payload: &[u8]) {
        self.sent = true;
        let header = wire::answer_header(self.unique, errno, payload.len());
        let slices = [IoSlice::new(&header), IoSlice::new(payload)];
        match rustix::io::writev(&self.channel, &slices) {
            Ok(_) => {}
            // the request was interrupted, or the connection is gone: nobody waits any more
            Err(Errno::NOENT | Errno::NODEV | Errno::NOTCONN | Errno::CONNABORTED) => {}
            Err(error) => tracing::error!(%error, "answer a request of the kernel"),
        }
    }
}

impl Drop for Answer {
    /// A completion that is dropped is not answered: the request stays in flight for the next worker, which is better
    /// than an I/O error for the file system above.
    fn drop(&mut self) {
        if !self.sent {
            tracing::error!(unique = self.unique, "a request was dropped, not completed");
        }
    }
}

/// Answers the kernel's first request.
pub(super) fn greet(channel: &OwnedFd) -> io::Result<()> {
    let mut head = [0; HEAD_BYTES];
    let mut payload = receive_buffer();
    let len = loop {
        let mut slices = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut payload)];
        match rustix::io::readv(channel, &mut slices) {
            Ok(len) => break len,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let Some(Request { unique, call: Call::Init { major: 7, minor, readahead, flags }, .. }) =
        wire::parse(&head, len)
    else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    if !wire::offers_resend(flags) {
        tracing::warn!("this kernel cannot repeat requests: a worker's death will cost I/O errors");
    }
    let answer = wire::init_answer(minor, readahead, flags);
    let header = wire::answer_header(unique, 0, answer.len());
    rustix::io::writev(channel, &[IoSlice::new(&header), IoSlice::new(&answer)])?;
    Ok(())
}

fn receive_buffer() -> AlignedBuf {
    AlignedBuf::scratch(usize::try_from(wire::MAX_IO).unwrap_or(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_ranges_are_widened_to_units_and_found_again() {
        let range = Range::around(1082, 1084).unwrap();
        assert_eq!(range, Range { offset: 1024, len: 512, from: 58, to: 60 });
        assert_eq!(range.wanted(&[7; 512]), Some(&[7, 7][..]));
        let whole = Range::around(512, 1536).unwrap();
        assert_eq!(whole, Range { offset: 512, len: 1024, from: 0, to: 1024 });
        assert_eq!(Range::around(100, 100), None);
        assert_eq!(Range::around(100, 50), None);
    }
}
