//! What lost nodes hold back. Fencing itself is decided elsewhere; until a lost node is confirmed to run nothing,
//! what it may run is not started anywhere else.

use super::model::{Model, NodeIx, RscIx};
use crate::cib::Role;

impl Model<'_> {
    /// A node that is lost and may still run things.
    pub(super) fn unclean_node(&self) -> Option<NodeIx> {
        self.nodes.iter().position(|n| !n.online && !n.clean)
    }

    /// Why a start or promote of `r` has to wait for fencing, if it has to.
    pub(super) fn waits_for_fencing(&self, r: RscIx) -> Option<String> {
        if !self.rscs[r].meta.needs_fencing {
            return None;
        }
        let node = self.unclean_node()?;
        Some(format!("waits until {} is confirmed to run nothing", self.nodes[node].name))
    }

    /// Why a start or promote of `r` has to wait for a node that lives and has not told what it runs, if it has to: `r` is active (promoted)
    /// nowhere that is known, so it may be so there.
    pub(super) fn waits_for_report(&self, r: RscIx) -> Option<String> {
        let node = self.nodes.iter().find(|n| n.pending)?;
        let found = if self.rscs[r].next_role == Role::Promoted {
            let clone = self.rscs[r].clone.unwrap_or(r);
            self.leaves(clone).iter().any(|l| self.promoted_somewhere(*l))
        } else {
            !self.rscs[r].active.is_empty()
        };
        (!found).then(|| format!("waits until {} has told what it runs", node.name))
    }

    fn promoted_somewhere(&self, r: RscIx) -> bool {
        self.rscs[r].active.iter().any(|a| a.role == Role::Promoted)
    }
}
