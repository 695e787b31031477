//! The last configuration that two sides have in common: the newest revision of the unbroken run of those that are the same on both.

use crate::cib::Cib;
use crate::store::Revision;
use crate::text::show;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::sync::Arc;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// A revision without its configuration, by which two nodes tell whether they have the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// CIB version that it made.
    pub version: u64,
    /// Who.
    pub author: String,
    /// Which command, in words.
    pub message: String,
    /// Wall clock, milliseconds since the epoch.
    pub when_ms: u64,
    /// Of the configuration.
    pub digest: u64,
}

impl Mark {
    /// That of a revision.
    #[must_use]
    pub fn of(revision: &Revision) -> Self {
        Self {
            version: revision.version,
            author: revision.author.clone(),
            message: revision.message.clone(),
            when_ms: revision.when_ms,
            digest: digest(&revision.cib),
        }
    }
}

/// FNV-1a over the configuration as text: two that differ and were made by the same person, with the same words, in the same millisecond, as
/// the same version are not what this has to tell apart.
fn digest(cib: &Cib) -> u64 {
    let mut text = show(cib);
    for ticket in &cib.rsc_tickets {
        let _infallible = write!(text, "{ticket:?}");
    }
    text.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The newest revision that both have, if the revisions kept reach back so far. Equal ones after the first that differ are chance.
#[must_use]
pub fn base<'a>(ours: &'a [Arc<Revision>], theirs: &[Mark]) -> Option<&'a Revision> {
    let mut common = None;
    for revision in ours {
        match theirs.iter().find(|mark| mark.version == revision.version) {
            Some(mark) if *mark == Mark::of(revision) => common = Some(&**revision),
            Some(_) => break,
            // Older than what they keep, or newer than what they have.
            None if common.is_some() => break,
            None => {}
        }
    }
    common
}
