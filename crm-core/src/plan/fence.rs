//! Phase 10: nodes are cut off or shut down, and what waits for that.

use super::actions::{ActIx, Flag, Needs, Table, Task};
use super::model::{Kind, Model, NodeIx, NodeKind, RscIx};
use super::order::{End, Link};
use super::{distant, notify};

/// Makes fencing and shutdowns. Only in plans made as Pacemaker makes them.
pub(super) fn schedule(model: &mut Model<'_>, table: &mut Table) {
    if !model.props.exact {
        return;
    }
    let managed = anything_managed(model);
    let (mut fencings, mut shutdowns, mut last) = (Vec::new(), Vec::new(), None);
    for n in 0..model.nodes.len() {
        if let NodeKind::Guest { container, connection } = model.nodes[n].kind {
            // It is fenced by the recovery of what it lives in.
            if model.nodes[n].reset && model.can_fence(n) {
                let point = distant::recovered(model, table, n, (container, connection));
                order(model, table, point, n);
            }
            continue;
        }
        let member = model.nodes[n].kind == NodeKind::Cluster;
        let coordinates = model.pacemaker.and_then(|p| p.coordinator) == Some(model.nodes[n].name);
        if managed && model.will_fence(n) {
            let fencing = fence(model, table, n);
            if coordinates {
                last = Some(fencing);
                continue;
            }
            if let (false, Some(before)) = (model.props.concurrent, fencings.last()) {
                table.bind(*before, fencing, Link::ORDERED);
            }
            fencings.push(fencing);
        } else if member && model.nodes[n].online && model.nodes[n].leaving {
            let down = shutdown(model, table, n);
            if coordinates {
                last = Some(down);
            } else {
                shutdowns.push(down);
            }
        }
    }
    let Some(last) = last else { return };
    // The node that coordinates goes last: it has the others to see off.
    if table.acts[last].task == Task::Shutdown {
        for down in shutdowns {
            table.bind(down, last, Link::ORDERED);
        }
    }
    for fencing in fencings {
        table.bind(fencing, last, Link::ORDERED);
    }
}

/// Where nothing is managed, nothing is lost by waiting.
pub(super) fn anything_managed(model: &Model<'_>) -> bool {
    let primitive = |r: RscIx| matches!(model.rscs[r].kind, Kind::Primitive);
    (0..model.rscs.len()).any(|r| primitive(r) && model.movable(r))
}

/// The node's fencing, whether it is needed or not.
pub(super) fn action(model: &Model<'_>, table: &mut Table, node: NodeIx) -> ActIx {
    let name = format!("stonith-{}-{}", model.nodes[node].name, model.props.fence_how);
    table.named(&name, Task::Fence, Some(node))
}

fn fence(model: &mut Model<'_>, table: &mut Table, node: NodeIx) -> ActIx {
    let fencing = action(model, table, node);
    table.clear(fencing, Flag::OPTIONAL);
    order(model, table, fencing, node);
    fencing
}

/// Starts wait for every fencing; stops on the node are done by it.
pub(super) fn order(model: &mut Model<'_>, table: &mut Table, fencing: ActIx, node: NodeIx) {
    for r in 0..model.rscs.len() {
        if !matches!(model.rscs[r].kind, Kind::Primitive) || !model.movable(r) {
            continue;
        }
        starts(model, table, r, fencing, node);
        stops(model, table, r, fencing, node);
    }
}

fn starts(model: &Model<'_>, table: &mut Table, r: RscIx, fencing: ActIx, node: NodeIx) {
    for act in table.of[r].clone() {
        match table.acts[act].needs {
            Needs::Nothing => {}
            Needs::Fencing => {
                table.bind(fencing, act, Link::ORDERED);
            }
            Needs::Quorum => {
                let unknown = !model.is_known(r, node) && model.listed(r, node);
                if table.acts[act].task == Task::Start && unknown {
                    table.bind(fencing, act, Link::ORDERED | Link::BLOCKS);
                }
            }
        }
    }
}

fn stops(model: &mut Model<'_>, table: &mut Table, r: RscIx, fencing: ActIx, node: NodeIx) {
    // What fencing a guest means is that its container stops: all that ran there is over after that.
    let guest = matches!(model.nodes[node].kind, NodeKind::Guest { .. });
    let implied = model.needs_fencing(r) || guest;
    // What is inside of a bundle follows the bundle's own points; to follow the fencing too would be a loop.
    let bundled = model.bundled(r);
    let whole = table.find(model.top(r), Task::Stop, None);
    for stop in table.all_on(r, Task::Stop, node) {
        table.set(stop, Flag::PSEUDO);
        table.set(stop, Flag::RUNNABLE);
        if implied {
            if !bundled {
                table.bind(fencing, stop, Link::GUEST);
            }
            if let Some(whole) = whole {
                table.bind(fencing, whole, Link::GUEST);
            }
        }
        notify::after_fencing(model, table, r, fencing);
    }
    let failed = model.rscs[r].active.iter().any(|a| a.failed);
    if !(failed || !model.nodes[node].online || model.unclean(node)) {
        return;
    }
    for demote in table.all_on(r, Task::Demote, node) {
        table.set(demote, Flag::PSEUDO);
        table.set(demote, Flag::RUNNABLE);
        if implied && !bundled {
            table.bind(fencing, demote, Link::GUEST | Link::ORDERED);
        }
    }
}

/// A node's services end after all that runs there.
fn shutdown(model: &mut Model<'_>, table: &mut Table, node: NodeIx) -> ActIx {
    let name = format!("do_shutdown-{}", model.nodes[node].name);
    let down = table.named(&name, Task::Shutdown, Some(node));
    table.clear(down, Flag::OPTIONAL);
    for r in 0..model.rscs.len() {
        let frozen = model.rscs[r].meta.maintenance
            || model.props.maintenance_mode
            || model.nodes[node].maintenance;
        if frozen || !(model.managed(r) || model.rscs[r].blocked()) {
            continue;
        }
        for stop in table.all_on(r, Task::Stop, node) {
            table.clear(stop, Flag::OPTIONAL);
            table.order(model, End::Act(stop), End::Act(down), Link::ORDERED | Link::BLOCKS);
        }
    }
    down
}

impl Model<'_> {
    /// The node is among those that the resource could ever be on.
    fn listed(&self, r: RscIx, node: NodeIx) -> bool {
        let container = self.nodes[node].kind.container();
        let closed = container.is_some_and(|c| self.is_container(c));
        let apart = closed && self.own_inside(r) != Some(node);
        self.rscs[r].opted_in.get(node) != Some(&false) && !apart
    }

    /// The node has told what it knows of the resource.
    pub(super) fn is_known(&self, r: RscIx, node: NodeIx) -> bool {
        self.rscs[r].now.known.contains(&node)
    }
}
