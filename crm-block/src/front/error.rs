//! What can go wrong when a device is shown or taken away.

use crate::keeper::KeeperError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a device could not be shown or taken away.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The device is open elsewhere, for example mounted.
    #[error("device {device} is in use")]
    Busy {
        /// Path of the device.
        device: PathBuf,
    },
    /// Something that is not ours stands where the device should appear.
    #[error("{device} exists and is not a device of ours")]
    Taken {
        /// Path of the device.
        device: PathBuf,
    },
    /// The name cannot be a file name.
    #[error("volume name `{name}` has other characters than letters, digits, `-`, `_`, `.`")]
    Name {
        /// The name.
        name: String,
    },
    /// The size is zero, no multiple of 4096, or larger than the target.
    #[error("a device of {bytes} bytes is not possible")]
    Size {
        /// The size.
        bytes: u64,
    },
    /// The keeper's blob is not readable.
    #[error("deposit `{label}` is not readable")]
    Deposit {
        /// Label of the deposit.
        label: String,
        /// Why.
        #[source]
        error: serde_json::Error,
    },
    /// The deposit is of another volume, or the volume's definition has changed since.
    #[error("deposit `{label}` was made for another definition of the volume")]
    OtherVolume {
        /// Label of the deposit.
        label: String,
    },
    /// This kernel has none of the means.
    #[error("no way to show a block device: {why}")]
    Unsupported {
        /// What is missing.
        why: String,
    },
    /// The keeper did not answer.
    #[error("keeper refused")]
    Keeper(#[source] KeeperError),
    /// A system call failed.
    #[error("{step} {}", path.display())]
    Step {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The outcome.
        #[source]
        source: io::Error,
    },
}

/// Adds the step and its object to an I/O error.
pub(super) fn step<E: Into<io::Error>>(
    step: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> FrontError {
    let path = path.to_owned();
    move |source| FrontError::Step { step, path, source: source.into() }
}
