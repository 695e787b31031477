//! The backing disk: a file or a block device, opened past the page cache.

use crate::aligned::AlignedBuf;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Written when a range cannot be punched.
const ZEROES: usize = 1 << 20;

/// An open backing disk.
#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
}

impl Disk {
    /// Opens `path`, which must hold at least `size` bytes.
    pub(crate) fn open(path: &Path, size: u64) -> io::Result<Self> {
        let direct = nix::fcntl::OFlag::O_DIRECT.bits();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match options.clone().custom_flags(direct).open(path) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
                tracing::warn!(path = %path.display(), "no direct I/O here: going through the page cache");
                options.open(path)?
            }
            other => other?,
        };
        let there = length(&file)?;
        if there < size {
            let why = format!("{} has {there} bytes, the volume {size}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(Self { file })
    }

    /// Makes a sparse file of `size` bytes when nothing is there.
    pub(crate) fn create_missing(path: &Path, size: u64) -> io::Result<()> {
        match OpenOptions::new().write(true).create_new(true).open(path) {
            Ok(file) => {
                file.set_len(size)?;
                file.sync_all()
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        let mut buf = AlignedBuf::scratch(len);
        self.file.read_exact_at(&mut buf, offset)?;
        Ok(buf)
    }

    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Punches a hole where that works, else writes zeroes.
    pub(crate) fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Ok(()) => return Ok(()),
            Err(
                rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL,
            ) => {}
            Err(error) => return Err(error.into()),
        }
        let zeroes = AlignedBuf::zeroed(ZEROES);
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let part = usize::try_from(end - at).unwrap_or(ZEROES).min(ZEROES);
            self.file.write_all_at(&zeroes[..part], at)?;
            at += crm_block_engine::bitmap::number(part);
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn length(file: &File) -> io::Result<u64> {
    let meta = file.metadata()?;
    if meta.file_type().is_block_device() {
        use std::io::{Seek, SeekFrom};
        let mut file = file;
        return file.seek(SeekFrom::End(0));
    }
    Ok(meta.len())
}
