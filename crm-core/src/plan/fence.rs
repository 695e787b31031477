//! What lost nodes hold back, and the fencing and shutdown of nodes.
//! Fencing itself is decided elsewhere; until a lost node is confirmed to run nothing,
//! what it may run is not started anywhere else.

use super::actions::{ActIx, Link, Table, Task, What};
use super::model::{Kind, Model, NodeIx, NodeKind, RscIx};
use crate::cib::Role;

impl Model<'_> {
    /// A node that is lost and may still run things.
    pub(super) fn unclean_node(&self) -> Option<NodeIx> {
        self.nodes.iter().position(|n| !n.online && !n.clean)
    }

    /// Why a start or promote of `r` has to wait for fencing, if it has to.
    pub(super) fn waits_for_fencing(&self, r: RscIx) -> Option<String> {
        if !self.rscs[r].meta.needs_fencing || self.props.exact {
            return None;
        }
        let node = self.unclean_node()?;
        Some(format!("waits until {} is confirmed to run nothing", self.nodes[node].name))
    }

    /// Why a start or promote of `r` has to wait for a node that lives and has not told what it runs, if it has to: `r` is active (promoted)
    /// nowhere that is known, so it may be so there.
    pub(super) fn waits_for_report(&self, r: RscIx) -> Option<String> {
        let node = self.nodes.iter().find(|n| n.pending && !self.props.exact)?;
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

/// Fencing and shutdowns, and what waits for them. Only in plans made as Pacemaker makes them.
pub(super) fn bind(model: &Model<'_>, table: &mut Table) {
    if !model.props.exact {
        return;
    }
    let mut fences: Vec<(NodeIx, ActIx)> = Vec::new();
    for n in 0..model.nodes.len() {
        if model.will_fence(n) {
            let fence = table.add(What::Fence, 0, Some(n));
            table.acts[fence].required = true;
            fences.push((n, fence));
        } else if model.nodes[n].leaving
            && model.nodes[n].online
            && model.nodes[n].clean
            && model.nodes[n].kind == NodeKind::Cluster
        {
            shutdown(model, table, n);
        }
    }
    last_is_the_coordinator(model, table, &fences);
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Primitive) || !model.rscs[r].meta.needs_fencing {
            continue;
        }
        for (node, fence) in &fences {
            for task in [Task::Stop, Task::Demote] {
                for act in table.tasks(r, task).to_vec() {
                    if table.acts[act].node == Some(*node) {
                        table.link(*fence, act, Link::ORDER);
                    }
                }
            }
            for task in [Task::Start, Task::Promote] {
                for act in table.tasks(r, task).to_vec() {
                    table.link(*fence, act, Link::ORDER | Link::BLOCKS);
                }
            }
        }
    }
}

/// The node that coordinates goes last: it has the others to fence.
fn last_is_the_coordinator(model: &Model<'_>, table: &mut Table, fences: &[(NodeIx, ActIx)]) {
    let Some(name) = model.pacemaker.and_then(|p| p.coordinator) else { return };
    let Some((_, last)) = fences.iter().find(|(n, _)| model.nodes[*n].name == name) else { return };
    for (_, fence) in fences {
        table.link(*fence, *last, Link::ORDER);
    }
}

fn shutdown(model: &Model<'_>, table: &mut Table, node: NodeIx) {
    let act = table.add(What::Shutdown, 0, Some(node));
    table.acts[act].required = true;
    for r in 0..model.rscs.len() {
        let rsc = &model.rscs[r];
        if rsc.blocked() && rsc.active.iter().any(|a| a.node == node) {
            table.acts[act].runnable = false;
        }
        for stop in table.tasks(r, Task::Stop).to_vec() {
            if table.acts[stop].node == Some(node) {
                table.link(stop, act, Link::ORDER | Link::BLOCKS_IF_NEEDED);
            }
        }
    }
}

/// What is not configured any more is forgotten where it has been stopped.
pub(super) fn forget(model: &Model<'_>, table: &mut Table) {
    for r in 0..model.rscs.len() {
        if !model.rscs[r].removed {
            continue;
        }
        for stop in table.tasks(r, Task::Stop).to_vec() {
            if table.acts[stop].implied {
                continue;
            }
            let forget = table.add(What::Forget, r, table.acts[stop].node);
            table.acts[forget].required = true;
            table.link(stop, forget, Link::ORDER | Link::BLOCKS);
        }
    }
}
