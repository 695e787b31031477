//! Two configurations that went on separately from a common one, object by object, and the one that comes of both (ADR-0016).
//!
//! An object is what a configure statement makes: a resource without what is inside of it (that is named), a constraint, a node, a volume,
//! all fencing levels together; and each single property and default. The order of objects means nothing; the members of a group do.

mod base;
mod pieces;
#[cfg(test)]
mod tests;

use crate::cib::Cib;
use crate::diff::Change;
use pieces::{Flat, Key, Piece, build};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use thiserror::Error;

pub use base::{Mark, base};

/// One of the two configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Side {
    /// That of the node that keeps its line.
    Ours,
    /// That of the node that gives its line up.
    Theirs,
}

/// Who has changed an object since the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Fate {
    /// Only one side: its word is taken.
    Only(Side),
    /// Both, to the same.
    Alike,
    /// Both, to different things: somebody has to decide.
    Conflict,
}

/// An object that is not on both sides what it was in the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its name, as [`Choices::take`] has it.
    pub object: String,
    /// Who has changed it.
    pub fate: Fate,
    /// Its statement in the base; `None`: it was not there.
    pub base: Option<String>,
    /// Its statement on our side.
    pub ours: Option<String>,
    /// Its statement on their side.
    pub theirs: Option<String>,
}

impl Difference {
    /// What this side has done to it, if anything.
    #[must_use]
    pub fn change(&self, side: Side) -> Option<Change> {
        let object = self.object.clone();
        let now = match side {
            Side::Ours => self.ours.clone(),
            Side::Theirs => self.theirs.clone(),
        };
        match (self.base.clone(), now) {
            (None, None) => None,
            (None, Some(text)) => Some(Change::Added { object, text }),
            (Some(text), None) => Some(Change::Removed { object, text }),
            (Some(from), Some(to)) => (from != to).then_some(Change::Changed { object, from, to }),
        }
    }
}

/// What a person has decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choices {
    /// Whose word counts in conflicts that are not decided one by one.
    pub prefer: Option<Side>,
    /// Whose word counts for these objects, also where only one side has changed them.
    pub take: BTreeMap<String, Side>,
}

/// Why nothing comes of two configurations.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Trouble {
    /// Objects that both have changed, and nobody has decided.
    #[error("both sides have changed {}", .0.join(", "))]
    Undecided(Vec<String>),
    /// Decided about, and no difference.
    #[error("{} is no object in which the two differ", .0.join(", "))]
    Unknown(Vec<String>),
    /// The objects that would be left do not fit together.
    #[error("the objects do not fit together: {}", .0.join("; "))]
    Torn(Vec<String>),
}

/// The objects of a configuration, for comparing it with another one.
#[derive(Debug)]
struct Three<'a> {
    base: Option<&'a Cib>,
    flat: Flat,
    ours: Flat,
    theirs: Flat,
}

/// An object with the state that it has in each of the three.
struct Object<'a> {
    key: &'a Key,
    base: Option<&'a Piece>,
    ours: Option<&'a Piece>,
    theirs: Option<&'a Piece>,
}

impl<'a> Object<'a> {
    /// `None`: it is on both sides what it was.
    fn fate(&self) -> Option<Fate> {
        if self.ours == self.theirs {
            return (self.ours != self.base).then_some(Fate::Alike);
        }
        Some(if self.theirs == self.base {
            Fate::Only(Side::Ours)
        } else if self.ours == self.base {
            Fate::Only(Side::Theirs)
        } else {
            Fate::Conflict
        })
    }

    const fn on(&self, side: Side) -> Option<&'a Piece> {
        match side {
            Side::Ours => self.ours,
            Side::Theirs => self.theirs,
        }
    }
}

impl<'a> Three<'a> {
    fn new(base: Option<&'a Cib>, ours: &Cib, theirs: &Cib) -> Self {
        let flat = base.map(Flat::of).unwrap_or_default();
        Self { base, flat, ours: Flat::of(ours), theirs: Flat::of(theirs) }
    }

    /// Ours as they stand, then those that only they have, then those that nobody has any more.
    fn objects(&self) -> Vec<Object<'_>> {
        let mut seen = BTreeSet::new();
        let all = [&self.ours, &self.theirs, &self.flat].into_iter().flat_map(|f| &f.order);
        all.filter(|key| seen.insert(*key))
            .map(|key| Object {
                key,
                base: self.flat.pieces.get(key),
                ours: self.ours.pieces.get(key),
                theirs: self.theirs.pieces.get(key),
            })
            .collect()
    }
}

/// The objects in which the three differ. Without a base whatever only one side has is taken for new there.
#[must_use]
pub fn compare(base: Option<&Cib>, ours: &Cib, theirs: &Cib) -> Vec<Difference> {
    let three = Three::new(base, ours, theirs);
    let texts = [three.base, Some(ours), Some(theirs)].map(|cib| cib.map(pieces::texts));
    let mut out: Vec<(&Key, Difference)> = Vec::new();
    for object in three.objects() {
        let Some(fate) = object.fate() else { continue };
        let text = |at: usize| texts.get(at)?.as_ref()?.get(object.key).cloned();
        let named = object.key.name();
        let (base, ours, theirs) = (text(0), text(1), text(2));
        out.push((object.key, Difference { object: named, fate, base, ours, theirs }));
    }
    out.sort_by_key(|(key, _)| *key);
    out.into_iter().map(|(_, difference)| difference).collect()
}

/// What comes of both: ours, with what only they have changed, and what was decided.
///
/// # Errors
/// When something is not decided, or the result would not hold together. It may still be invalid as a configuration.
pub fn merge(
    base: Option<&Cib>,
    ours: &Cib,
    theirs: &Cib,
    choices: &Choices,
) -> Result<Cib, Trouble> {
    let three = Three::new(base, ours, theirs);
    let (mut order, mut kept) = (Vec::new(), BTreeMap::new());
    let mut open = Vec::new();
    let mut unknown: BTreeSet<&String> = choices.take.keys().collect();
    for object in three.objects() {
        let name = object.key.name();
        let fate = object.fate();
        let side = match (choices.take.get(&name), fate) {
            (Some(side), Some(_)) => {
                unknown.remove(&name);
                Some(*side)
            }
            (_, None | Some(Fate::Alike)) => Some(Side::Ours),
            (None, Some(Fate::Only(side))) => Some(side),
            (None, Some(Fate::Conflict)) => choices.prefer,
        };
        let Some(side) = side else {
            open.push(name);
            continue;
        };
        if let Some(piece) = object.on(side) {
            order.push(object.key.clone());
            kept.insert(object.key.clone(), piece.clone());
        }
    }
    if !unknown.is_empty() {
        return Err(Trouble::Unknown(unknown.into_iter().cloned().collect()));
    }
    if !open.is_empty() {
        open.sort();
        return Err(Trouble::Undecided(open));
    }
    build(&order, kept).map_err(Trouble::Torn)
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
        })
    }
}
