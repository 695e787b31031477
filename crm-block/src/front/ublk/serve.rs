//! The queue thread of a ublk device: takes requests, hands them to the volume, commits the outcomes.

use super::super::{Buffer, Completion, Io, Target, mark_io_thread};
use super::control::DEPTH;
use super::sys::{Descriptor, Event, Queue};
use crate::aligned::AlignedBuf;
use nix::libc::{EINVAL, EIO, EOPNOTSUPP};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};

/// Where the data of requests begins in the character device; the tag follows in bits 25 and up.
const DATA_OFFSET: u64 = 0x8000_0000;
const TAG_SHIFT: u32 = 25;
const SECTOR: u64 = 512;
const FLAG_FUA: u32 = 1 << 13;

/// Serves the device until the kernel stops it. `ready` hears once when requests may come, or why they cannot.
pub(super) fn serve(device: File, target: &Arc<dyn Target>, ready: &mpsc::Sender<io::Result<()>>) {
    mark_io_thread();
    let server = Server::new(device, target);
    let started = server.and_then(|mut server| server.fetch_all().map(|()| server));
    match started {
        Ok(mut server) => {
            if ready.send(Ok(())).is_ok()
                && let Err(error) = server.run()
            {
                tracing::error!(%error, "ublk queue");
            }
        }
        Err(error) => {
            if let Err(error) = ready.send(Err(error)) {
                tracing::error!(%error, "nobody waits for the ublk queue");
            }
        }
    }
}

/// Outcomes on their way back to the queue thread.
struct Outcomes {
    list: Mutex<Vec<(u16, i32)>>,
    /// The queue thread sleeps, or is about to, and must be woken.
    sleeping: AtomicBool,
    wake: UnixStream,
}

impl Outcomes {
    fn push(&self, tag: u16, result: i32) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push((tag, result));
        if self.sleeping.swap(false, Ordering::SeqCst)
            && let Err(error) = (&self.wake).write_all(&[1])
        {
            tracing::error!(%error, "wake the ublk queue");
        }
    }

    fn take(&self) -> Vec<(u16, i32)> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Server {
    queue: Queue,
    device: Arc<File>,
    target: Arc<dyn Target>,
    outcomes: Arc<Outcomes>,
    /// Tags that the kernel has not aborted.
    alive: u16,
    /// The other end of `outcomes.wake`.
    woken: UnixStream,
}

impl Server {
    fn new(device: File, target: &Arc<dyn Target>) -> io::Result<Self> {
        let queue = Queue::new(device.try_clone()?, DEPTH)?;
        let (woken, wake) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let outcomes =
            Outcomes { list: Mutex::new(Vec::new()), sleeping: AtomicBool::new(false), wake };
        let (device, target) = (Arc::new(device), Arc::clone(target));
        Ok(Self { queue, device, target, outcomes: Arc::new(outcomes), alive: DEPTH, woken })
    }

    fn fetch_all(&mut self) -> io::Result<()> {
        for tag in 0..DEPTH {
            self.queue.fetch(tag)?;
        }
        self.queue.watch(&self.woken)?;
        self.queue.submit()
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::new();
        while self.alive > 0 {
            self.outcomes.sleeping.store(true, Ordering::SeqCst);
            let done = self.outcomes.take();
            if done.is_empty() {
                self.queue.wait()?;
            }
            self.outcomes.sleeping.store(false, Ordering::SeqCst);
            for (tag, result) in done.into_iter().chain(self.outcomes.take()) {
                self.queue.commit(tag, result)?;
            }
            self.queue.submit()?;
            self.queue.events(&mut events);
            for event in events.drain(..) {
                self.handle(event)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Wake => {
                match self.woken.read(&mut [0; 16]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                self.queue.watch(&self.woken)?;
            }
            Event::Request { tag, result: 0 } => self.start(tag),
            Event::Request { tag: _, result: _aborted } => self.alive -= 1,
        }
        Ok(())
    }

    fn start(&self, tag: u16) {
        let reply = Reply { outcomes: Arc::clone(&self.outcomes), tag, sent: false };
        let Some(descriptor) = self.queue.descriptor(tag) else { return reply.send(-EINVAL) };
        let Descriptor { op_flags, sectors, start_sector } = descriptor;
        if op_flags & 0xff == 2 {
            return self.change(reply, Io::Flush); // its sector is no position
        }
        let Some(offset) = start_sector.checked_mul(SECTOR) else { return reply.send(-EINVAL) };
        let range = u64::from(sectors) * SECTOR;
        match op_flags & 0xff {
            0 => self.read(reply, offset, range),
            1 => self.write(reply, offset, range, op_flags & FLAG_FUA != 0),
            3 => self.change(reply, Io::Discard { offset, len: range }),
            5 => self.change(reply, Io::Zero { offset, len: range }),
            _ => reply.send(-EOPNOTSUPP),
        }
    }

    fn read(&self, reply: Reply, offset: u64, range: u64) {
        let (Ok(len), Ok(bytes), Ok(result)) =
            (u32::try_from(range), usize::try_from(range), i32::try_from(range))
        else {
            return reply.send(-EINVAL);
        };
        let device = Arc::clone(&self.device);
        let at = data_offset(reply.tag);
        let done = move |outcome: io::Result<Option<Buffer>>| match outcome {
            Ok(Some(data)) if data.len() >= bytes => {
                match device.write_all_at(&data[..bytes], at) {
                    Ok(()) => reply.send(result),
                    Err(error) => reply.send(code(&error)),
                }
            }
            Ok(_) => reply.send(-EIO),
            Err(error) => reply.send(code(&error)),
        };
        self.target.submit(Io::Read { offset, len }, Box::new(done));
    }

    fn write(&self, reply: Reply, offset: u64, range: u64, fua: bool) {
        let (Ok(bytes), Ok(result)) = (usize::try_from(range), i32::try_from(range)) else {
            return reply.send(-EINVAL);
        };
        let mut data = AlignedBuf::scratch(bytes);
        if let Err(error) = self.device.read_exact_at(&mut data, data_offset(reply.tag)) {
            return reply.send(code(&error));
        }
        let io = Io::Write { offset, data: Arc::new(data), fua };
        self.target.submit(io, completion(reply, result));
    }

    fn change(&self, reply: Reply, io: Io) {
        self.target.submit(io, completion(reply, 0));
    }
}

fn completion(reply: Reply, result: i32) -> Completion {
    Box::new(move |outcome: io::Result<Option<Buffer>>| match outcome {
        Ok(_) => reply.send(result),
        Err(error) => reply.send(code(&error)),
    })
}

fn data_offset(tag: u16) -> u64 {
    DATA_OFFSET + (u64::from(tag) << TAG_SHIFT)
}

fn code(error: &io::Error) -> i32 {
    error.raw_os_error().filter(|errno| *errno > 0).map_or(-EIO, i32::wrapping_neg)
}

/// The outcome that the kernel waits for.
struct Reply {
    outcomes: Arc<Outcomes>,
    tag: u16,
    sent: bool,
}

impl Reply {
    fn send(mut self, result: i32) {
        self.sent = true;
        self.outcomes.push(self.tag, result);
    }
}

impl Drop for Reply {
    /// As with FUSE: a dropped completion leaves the request in flight for the next worker.
    fn drop(&mut self) {
        if !self.sent {
            tracing::error!(tag = self.tag, "a request was dropped, not completed");
        }
    }
}
