//! Bytes whose start is aligned to 4096, as `O_DIRECT` wants them: what front ends receive, the engine writes and the
//! sockets send. Freed memory of the usual sizes is kept for reuse, so that the data path neither zeroes nor faults pages.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

mod sys;

/// Alignment of every buffer.
pub const ALIGNMENT: usize = 4096;
/// Largest size kept for reuse.
const POOLED_MAX: usize = 1 << 20;
/// Size classes: 4 KiB, 8 KiB .. 1 MiB.
const CLASSES: usize = 9;
/// Memory kept for reuse, per class: 16 MiB, so that a full queue of 4 KiB requests lives off it.
const KEPT_PER_CLASS: usize = 16 << 20;

/// Freed blocks by size class.
static POOL: Mutex<[Vec<sys::Block>; CLASSES]> = Mutex::new([const { Vec::new() }; CLASSES]);

/// Heap bytes aligned to [`ALIGNMENT`]. Writable while not shared.
pub struct AlignedBuf {
    block: Option<sys::Block>,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::scratch(len);
        buf.fill(0);
        buf
    }

    /// `len` bytes of unspecified content (zeroes or the rests of an earlier buffer), to be overwritten at once.
    #[must_use]
    pub fn scratch(len: usize) -> Self {
        if len == 0 {
            return Self { block: None, len };
        }
        let pooled = class_of(len).and_then(|class| lock_pool()[class].pop());
        Self { block: Some(pooled.unwrap_or_else(|| sys::Block::new(size_for(len)))), len }
    }

    /// A copy of `bytes`.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut buf = Self::scratch(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Keeps the first `len` bytes; longer than the buffer = unchanged.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes()[..self.len])
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.block.as_mut().map_or(&mut [], |block| &mut block.bytes_mut()[..len])
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for AlignedBuf {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl PartialEq for AlignedBuf {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for AlignedBuf {}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len)
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        let Some(block) = self.block.take() else { return };
        let Some(class) = class_of(block.size()) else { return };
        let mut pool = lock_pool();
        if pool[class].len() * block.size() < KEPT_PER_CLASS {
            pool[class].push(block);
        }
    }
}

fn lock_pool() -> std::sync::MutexGuard<'static, [Vec<sys::Block>; CLASSES]> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes allocated for `len` of use.
fn size_for(len: usize) -> usize {
    if len <= POOLED_MAX {
        len.next_power_of_two().max(ALIGNMENT)
    } else {
        len.next_multiple_of(ALIGNMENT)
    }
}

/// Class of a buffer of `len` bytes, if such are kept.
fn class_of(len: usize) -> Option<usize> {
    let size = size_for(len);
    if size > POOLED_MAX {
        return None;
    }
    usize::try_from((size / ALIGNMENT).trailing_zeros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_aligned_and_length_exact() {
        for len in [0, 1, 512, 4096, 4097, 65536, 1 << 20, (1 << 20) + 1] {
            let buf = AlignedBuf::zeroed(len);
            assert_eq!(buf.len(), len);
            assert!(len == 0 || buf.as_ptr().addr().is_multiple_of(ALIGNMENT));
            assert!(buf.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn reused_memory_is_zeroed_when_asked() {
        for _ in 0..4 {
            let mut buf = AlignedBuf::zeroed(8192);
            assert!(buf.iter().all(|byte| *byte == 0));
            buf.fill(0xAA);
        }
    }

    #[test]
    fn truncated_copy_equals_prefix() {
        let mut buf = AlignedBuf::from_slice(b"abcdef");
        buf.truncate(3);
        assert_eq!(&buf[..], b"abc");
        assert_eq!(buf.clone(), buf);
    }
}
