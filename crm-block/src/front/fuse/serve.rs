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
    /// Something may have been written through this mount. Until then a flush has nothing to flush and must not wait: the loop driver
    /// flushes while the device is made, when a volume that lost its peers cannot yet be told to go on without them.
    touched: AtomicBool,
}

impl Session {
    pub(super) fn new(size_bytes: u64, target: Arc<dyn Target>, touched: bool) -> Self {
        Self { size_bytes, target, touched: AtomicBool::new(touched) }
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
            Call::Open | Call::OpenDir => answer.data(&wire::open_answer(request.node)),
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
        let Some(len) = self.clip(offset, u64::from(len)) else { return answer.error(EINVAL) };
        let Some(len) = u32::try_from(len).ok().filter(|len| *len > 0) else {
            return answer.data(&[]);
        };
        let done = move |outcome: io::Result<Option<Buffer>>| match outcome {
            Ok(Some(bytes)) if bytes.len() >= usize::try_from(len).unwrap_or(usize::MAX) => {
                answer.data(&bytes[..usize::try_from(len).unwrap_or(0)]);
            }
            Ok(_) => {
                tracing::error!(offset, len, "a read came back without its bytes");
                answer.error(EIO);
            }
            Err(error) => answer.failure(&error),
        };
        self.target.submit(Io::Read { offset, len }, Box::new(done));
    }

    fn write(&self, answer: Answer, offset: u64, len: u32, payload: &mut AlignedBuf) {
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
