//! What lost nodes hold back. Fencing itself is decided elsewhere; until a lost node is confirmed to run nothing,
//! what it may run is not started anywhere else.

use super::model::{Model, NodeIx, RscIx};

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
}
