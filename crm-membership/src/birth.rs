//! The note that tells a fresh data directory from an emptied one: written by `bootstrap`, removed once
//! raft has written something. Without it an empty log means lost votes, and the node must not start.

use crate::durable;
use std::io;
use std::path::Path;

const FILE: &str = "birth";

/// How the node came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Birth {
    /// It founds the cluster.
    Founded,
    /// It joined and waits for the leader.
    Joined,
}

/// Leaves the note.
pub(crate) fn note(dir: &Path, birth: Birth) -> io::Result<()> {
    let word = match birth {
        Birth::Founded => "founded",
        Birth::Joined => "joined",
    };
    durable::replace(&dir.join(FILE), word.as_bytes(), 0o600)
}

/// Whether to found the cluster; `None` when the log is empty and should not be.
pub(crate) fn check(dir: &Path, log_is_new: bool) -> io::Result<Option<bool>> {
    if !log_is_new {
        return Ok(Some(false));
    }
    match std::fs::read_to_string(dir.join(FILE)) {
        Ok(word) if word == "founded" => Ok(Some(true)),
        Ok(word) if word == "joined" => Ok(Some(false)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the note.
pub(crate) fn done(dir: &Path) -> io::Result<()> {
    durable::remove(&dir.join(FILE))
}
