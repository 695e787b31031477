//! What a resource thinks of each node, and who has changed its mind since that was last asked.

use super::model::RscIx;
use crate::cib::Score;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

/// Resources whose scores may have changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes(Rc<RefCell<Vec<RscIx>>>);

impl Changes {
    /// Who has changed since the last time.
    pub(super) fn take(&self) -> Vec<RscIx> {
        self.0.take()
    }
}

/// Scores by node. Whoever writes to them is noted.
#[derive(Debug)]
pub(super) struct Scores {
    values: Vec<Score>,
    rsc: RscIx,
    noted: bool,
    changes: Changes,
}

impl Scores {
    pub(super) fn new(nodes: usize, rsc: RscIx, changes: &Changes) -> Self {
        let values = vec![Score::ZERO; nodes];
        Self { values, rsc, noted: false, changes: changes.clone() }
    }

    /// The next change is to be noted again.
    pub(super) const fn watch(&mut self) {
        self.noted = false;
    }
}

impl Deref for Scores {
    type Target = Vec<Score>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl DerefMut for Scores {
    fn deref_mut(&mut self) -> &mut Self::Target {
        if !self.noted {
            self.noted = true;
            self.changes.0.borrow_mut().push(self.rsc);
        }
        &mut self.values
    }
}
