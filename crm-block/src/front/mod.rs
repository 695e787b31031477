//! Front ends: how a volume is shown to the system as a block device. They turn kernel requests into [`Io`] and know nothing of replication.

use std::io;

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

/// Bytes whose start is aligned to 4096 (O_DIRECT). Cheap to clone: shared between the local disk and the peers' sockets.
pub type Buffer = std::sync::Arc<crate::aligned::AlignedBuf>;

/// Called exactly once with the outcome; `Some` carries the bytes of a read.
pub type Completion = Box<dyn FnOnce(io::Result<Option<Buffer>>) + Send>;

/// What a front end talks to: the volume.
pub trait Target: Send + Sync {
    /// Starts a request; may complete on this or any other thread.
    fn submit(&self, io: Io, done: Completion);
    /// Size in bytes.
    fn size_bytes(&self) -> u64;
}
