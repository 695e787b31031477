//! Differences that are known and meant, by name. Each has its line in docs/compat.md.

use crate::summary::Decision;
use crate::tree::Xml;

/// A difference with a name.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its name, also in docs/compat.md.
    pub name: &'static str,
    /// Whether this is one: the document, then what we and what `crm_simulate` decide.
    pub is: fn(&Xml, &Decision, &Decision) -> bool,
}

/// All of them.
pub const KNOWN: &[Known] = &[];

/// The name of the difference, if it is a known one.
#[must_use]
pub fn name(document: &Xml, ours: &Decision, theirs: &Decision) -> Option<&'static str> {
    KNOWN.iter().find(|k| (k.is)(document, ours, theirs)).map(|k| k.name)
}
