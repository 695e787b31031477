//! What our own plans hold back: starts and promotions that have to wait for a lost node, for one that has not told what it runs, or for quorum.

use super::actions::{Flag, Table, Task};
use super::create::needed;
use super::model::{Model, NoQuorum, NodeIx, RscIx};
use crate::cib::Role;

/// Makes the starts and promotions of a primitive impossible where they must not happen now.
pub(super) fn apply(model: &mut Model<'_>, table: &mut Table, r: RscIx) {
    if model.props.exact {
        return;
    }
    let node = model.rscs[r].assigned;
    let rising: Vec<_> =
        [Task::Start, Task::Promote].iter().flat_map(|t| needed(table, r, *t)).collect();
    if model.without_quorum(r) {
        model.because(r, node, "no-quorum", "no quorum: nothing new is started".to_owned());
    } else if let Some(text) = model.waits_for_fencing(r).or_else(|| model.waits_for_report(r)) {
        if rising.is_empty() {
            return;
        }
        model.because(r, node, "unclean", text);
    } else {
        return;
    }
    for act in rising {
        table.clear(act, Flag::RUNNABLE);
    }
}

impl Model<'_> {
    /// There is no quorum, and the policy does not allow this resource to go up.
    fn without_quorum(&self, r: RscIx) -> bool {
        let rsc = &self.rscs[r];
        let here = rsc.active.iter().find(|a| Some(a.node) == rsc.assigned).map(|a| a.role);
        !self.quorate
            && match self.props.no_quorum {
                NoQuorum::Freeze => {
                    rsc.active.is_empty() || here.is_some_and(|now| rsc.next_role > now)
                }
                NoQuorum::Demote => rsc.active.is_empty(),
                NoQuorum::Stop | NoQuorum::Suicide | NoQuorum::Ignore => false,
            }
    }

    /// A node that is lost and may still run things.
    pub(super) fn unclean_node(&self) -> Option<NodeIx> {
        self.nodes.iter().position(|n| !n.online && !n.clean)
    }

    /// Why a start or promote of `r` has to wait for fencing, if it has to.
    fn waits_for_fencing(&self, r: RscIx) -> Option<String> {
        if !self.rscs[r].meta.needs_fencing {
            return None;
        }
        let node = self.unclean_node()?;
        Some(format!("waits until {} is confirmed to run nothing", self.nodes[node].name))
    }

    /// Why a start or promote of `r` has to wait for a node that lives and has not told what it runs, if it has to: `r` is active (promoted)
    /// nowhere that is known, so it may be so there.
    fn waits_for_report(&self, r: RscIx) -> Option<String> {
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
