//! A volume in memory (or in any file): for tests and for measuring a front end by itself.

use super::{Buffer, Completion, Io, Target};
use crate::aligned::AlignedBuf;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A volume kept in a file, answered on the calling thread.
#[derive(Debug)]
pub struct MemTarget {
    file: File,
    size_bytes: u64,
}

impl MemTarget {
    /// Kept in memory, gone with the process.
    ///
    /// # Errors
    /// No memory file could be made.
    pub fn new(size_bytes: u64) -> io::Result<Self> {
        let file = File::from(memfd_create("crm-volume", MemfdFlags::CLOEXEC)?);
        ftruncate(&file, size_bytes)?;
        Ok(Self { file, size_bytes })
    }

    /// Kept in `path` (created when missing), for example in `/dev/shm`: survives the process.
    ///
    /// # Errors
    /// The file could not be opened or sized.
    pub fn at(path: &Path, size_bytes: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        ftruncate(&file, size_bytes)?;
        Ok(Self { file, size_bytes })
    }

    fn run(&self, io: Io) -> io::Result<Option<Buffer>> {
        match io {
            Io::Read { offset, len } => {
                let mut buf = AlignedBuf::scratch(usize::try_from(len).map_err(io::Error::other)?);
                self.file.read_exact_at(&mut buf, offset)?;
                Ok(Some(Arc::new(buf)))
            }
            Io::Write { offset, data, fua } => {
                self.file.write_all_at(&data, offset)?;
                if fua {
                    self.file.sync_data()?;
                }
                Ok(None)
            }
            Io::Flush => self.file.sync_data().map(|()| None),
            Io::Discard { offset, len } | Io::Zero { offset, len } => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.file, hole, offset, len)?;
                Ok(None)
            }
        }
    }
}

impl Target for MemTarget {
    fn submit(&self, io: Io, done: Completion) {
        done(self.run(io));
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn ask(target: &MemTarget, io: Io) -> Option<Buffer> {
        let (sender, receiver) = mpsc::channel();
        target.submit(io, Box::new(move |outcome| sender.send(outcome).unwrap()));
        receiver.recv().unwrap().unwrap()
    }

    #[test]
    fn what_is_written_is_read_and_discard_reads_as_zero() {
        let target = MemTarget::new(1 << 20).unwrap();
        let data = Arc::new(AlignedBuf::from_slice(&[7; 4096]));
        ask(&target, Io::Write { offset: 8192, data, fua: true });
        let back = ask(&target, Io::Read { offset: 8192, len: 4096 }).unwrap();
        assert!(back.iter().all(|byte| *byte == 7));
        ask(&target, Io::Discard { offset: 8192, len: 4096 });
        let back = ask(&target, Io::Read { offset: 8192, len: 4096 }).unwrap();
        assert!(back.iter().all(|byte| *byte == 0));
        ask(&target, Io::Flush);
    }
}
