//! The device node that users name: made beside the kernel's own, with the same numbers.

use super::error::{FrontError, step};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, major, makedev, minor, mknod};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Major number of loop devices.
pub(super) const LOOP_MAJOR: u64 = 7;
/// Major number of NBD.
pub(super) const NBD_MAJOR: u64 = 43;

/// The kernel's device behind a front end: its name in `/dev` and its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelDevice {
    /// E.g. `loop3`.
    pub(super) name: String,
    /// Major number.
    pub(super) major: u64,
    /// Minor number.
    pub(super) minor: u64,
}

impl KernelDevice {
    /// `/dev/loopN`.
    pub(super) fn of_loop(number: u32) -> Self {
        Self { name: format!("loop{number}"), major: LOOP_MAJOR, minor: u64::from(number) }
    }

    /// The device whose numbers sysfs tells.
    pub(super) fn from_sysfs(name: &str) -> Result<Self, FrontError> {
        let path = Path::new("/sys/block").join(name).join("dev");
        let text = fs::read_to_string(&path).map_err(step("read", &path))?;
        let numbers = text.trim().split_once(':').and_then(|(major, minor)| {
            Some((major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?))
        });
        let Some((major, minor)) = numbers else {
            return Err(step("parse", &path)(io::Error::from(io::ErrorKind::InvalidData)));
        };
        Ok(Self { name: name.to_owned(), major, minor })
    }

    /// Its node in `/dev`, made when this mount namespace lacks it.
    pub(super) fn node(&self) -> Result<PathBuf, FrontError> {
        let path = Path::new("/dev").join(&self.name);
        match fs::symlink_metadata(&path) {
            Ok(found) if self.is(&found) => Ok(path),
            Ok(_) => Err(FrontError::Taken { device: path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.make(&path) {
                Ok(()) => Ok(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(path),
                Err(error) => Err(step("make device node", &path)(error)),
            },
            Err(error) => Err(step("look at", &path)(error)),
        }
    }

    /// Opens it; `exclusive` fails with EBUSY while somebody holds it exclusively.
    pub(super) fn open(&self, exclusive: bool) -> Result<File, FrontError> {
        let path = self.node()?;
        let flags = if exclusive { nix::libc::O_EXCL } else { 0 };
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags);
        options.open(&path).map_err(step("open", &path))
    }

    /// Whether somebody holds it exclusively.
    pub(super) fn is_in_use(&self) -> bool {
        matches!(self.open(true), Err(FrontError::Step { source, .. })
            if source.raw_os_error() == Some(Errno::EBUSY as i32))
    }

    /// Holds it exclusively, with everything in its page cache written that the volume takes; [`FrontError::Busy`] names it by `shown`.
    pub(super) fn claim(&self, shown: &Path) -> Result<File, FrontError> {
        match self.open(true) {
            Ok(handle) => {
                if let Err(error) = handle.sync_all() {
                    // The volume refused these bytes (quorum or disk lost) and acknowledged none of them: they must not keep it primary.
                    tracing::warn!(%error, device = %shown.display(), "bytes that were not acknowledged are dropped");
                }
                Ok(handle)
            }
            Err(FrontError::Step { source, .. })
                if source.raw_os_error() == Some(Errno::EBUSY as i32) =>
            {
                Err(FrontError::Busy { device: shown.to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    /// Shows it at `device`, replacing a node that an earlier daemon left there.
    pub(super) fn show_at(&self, device: &Path) -> Result<(), FrontError> {
        if let Some(parent) = device.parent() {
            fs::create_dir_all(parent).map_err(step("make directory", parent))?;
        }
        remove_node(device)?;
        match self.make(device) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let node = self.node()?;
                std::os::unix::fs::symlink(&node, device).map_err(step("link", device))
            }
            Err(error) => Err(step("make device node", device)(error)),
        }
    }

    fn make(&self, path: &Path) -> io::Result<()> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
        mknod(path, SFlag::S_IFBLK, mode, makedev(self.major, self.minor)).map_err(io::Error::from)
    }

    fn is(&self, found: &fs::Metadata) -> bool {
        found.file_type().is_block_device() && found.rdev() == makedev(self.major, self.minor)
    }
}

/// Removes a node of ours; nothing there is fine, something else there is an error.
pub(super) fn remove_node(device: &Path) -> Result<(), FrontError> {
    if !is_replaceable(device)? {
        return Ok(());
    }
    fs::remove_file(device).map_err(step("remove", device))
}

/// Whether a node of ours is at `device`; something else there is an error.
pub(super) fn is_replaceable(device: &Path) -> Result<bool, FrontError> {
    let found = match fs::symlink_metadata(device) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(step("look at", device)(error)),
    };
    let kind = found.file_type();
    let ours = kind.is_symlink() || (kind.is_block_device() && is_our_major(found.rdev()));
    if !ours {
        return Err(FrontError::Taken { device: device.to_owned() });
    }
    Ok(true)
}

/// Loop, NBD, or a number the kernel gives out on demand (259) that is ublk's or nobody's now.
fn is_our_major(device: u64) -> bool {
    match major(device) {
        LOOP_MAJOR | NBD_MAJOR => true,
        259 => {
            let link = format!("/sys/dev/block/259:{}", minor(device));
            let Ok(target) = fs::read_link(link) else { return true };
            let name = target.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(b"ublkb")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drbd0");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(remove_node(&path), Err(FrontError::Taken { .. })));
        assert!(path.exists());
    }

    #[test]
    fn nothing_to_remove_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        remove_node(&dir.path().join("drbd0")).unwrap();
    }
}
