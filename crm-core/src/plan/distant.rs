//! Phase 9: what is done on remote and guest nodes goes over their connections: after they begin, before they end. What turns out to be
//! unreachable is fenced.

use super::actions::{ActIx, Flag, Table, Task};
use super::model::{Model, NodeIx, NodeKind, RscIx};
use super::order::{End, Link};
use crate::cib::Role;

/// How the connection to a remote node fares in this plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is up, where it was.
    Alive,
    /// It has to begin elsewhere first.
    Resurrect,
    /// Nothing can be said before it was tried.
    Unknown,
    /// It is gone and does not come back.
    Failed,
    /// It ends, in good order.
    Stopped,
}

/// Orders all actions on such nodes. Only in plans made as Pacemaker makes them.
pub(super) fn order(model: &mut Model<'_>, table: &mut Table) {
    if !model.props.exact || model.nodes.iter().all(|n| n.kind == NodeKind::Cluster) {
        return;
    }
    for act in 0..table.acts.len() {
        let entry = &table.acts[act];
        let (Some(r), Some(n)) = (entry.rsc, entry.node) else { continue };
        let task = entry.task;
        if task == Task::ClearFailures && model.rscs[r].connection_of.is_some() {
            // The connection is tried again when its failures are forgotten.
            table.order(model, End::Act(act), End::Op(r, Task::Start), Link::ORDERED);
            continue;
        }
        let kind = model.nodes[n].kind;
        let Some(connection) = kind.connection() else { continue };
        if table.flags(act).pseudo() {
            continue;
        }
        if task == Task::Start {
            // What comes from elsewhere stays there until the connection is up.
            for stop in table.all(r, Task::Stop) {
                if table.acts[stop].node.is_some_and(|from| from != n) {
                    let up = End::Op(connection, Task::Start);
                    table.order(model, up, End::Act(stop), Link::ORDERED);
                }
            }
        }
        match kind {
            NodeKind::Guest { container, .. } => guest(model, table, (act, n), container),
            NodeKind::Remote { .. } => remote(model, table, (act, n), connection),
            NodeKind::Cluster => {}
        }
    }
}

fn after(model: &Model<'_>, table: &mut Table, up: RscIx, act: ActIx, more: Link) {
    table.order(
        model,
        End::Op(up, Task::Start),
        End::Act(act),
        Link::ORDERED | Link::BLOCKS | more,
    );
}

fn before(model: &Model<'_>, table: &mut Table, act: ActIx, down: RscIx, more: Link) {
    table.order(model, End::Act(act), End::Op(down, Task::Stop), Link::ORDERED | more);
}

fn recurring(table: &Table, act: ActIx) -> bool {
    table.acts[act].interval_ms > 0
}

#[expect(clippy::wildcard_enum_match_arm, reason = "everything else is alike")]
fn guest(model: &mut Model<'_>, table: &mut Table, (act, n): (ActIx, NodeIx), container: RscIx) {
    let Some(connection) = model.nodes[n].kind.connection() else { return };
    let failed = model.rscs[container].now.failed;
    if failed {
        model.fence_node(n, "container failed");
    }
    match table.acts[act].task {
        Task::Start | Task::Promote => {
            after(model, table, container, act, Link::FIRST_IMPLIES_THEN);
            after(model, table, connection, act, Link::NONE);
        }
        // A failed container takes what runs in it with it.
        Task::Stop | Task::Demote if failed => {}
        Task::Stop | Task::Demote => before(model, table, act, connection, Link::NONE),
        // A monitor ends whether the connection begins anew or not.
        Task::Cancel => {}
        _ if recurring(table, act) => {
            after(model, table, connection, act, Link::FIRST_IMPLIES_THEN);
        }
        _ => after(model, table, connection, act, Link::NONE),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "everything else is alike")]
fn remote(model: &mut Model<'_>, table: &mut Table, (act, n): (ActIx, NodeIx), connection: RscIx) {
    let way = model.way(n, connection);
    let ends = model.rscs[connection].next_role == Role::Stopped;
    match table.acts[act].task {
        Task::Start | Task::Promote => {
            let more = if way == Way::Failed { Link::FIRST_IMPLIES_THEN } else { Link::NONE };
            after(model, table, connection, act, more);
        }
        Task::Stop if way == Way::Alive => {
            before(model, table, act, connection, Link::THEN_IMPLIES_FIRST);
        }
        Task::Stop if way == Way::Failed => {
            // Nobody can be told to stop it: the node is fenced, and that stops it.
            model.fence_node(n, "resources are active but connection is unrecoverable");
        }
        Task::Stop if ends => before(model, table, act, connection, Link::THEN_IMPLIES_FIRST),
        Task::Stop => after(model, table, connection, act, Link::NONE),
        Task::Demote => {
            if matches!(way, Way::Resurrect | Way::Unknown) {
                after(model, table, connection, act, Link::NONE);
            }
        }
        _ if recurring(table, act) => {
            after(model, table, connection, act, Link::FIRST_IMPLIES_THEN);
        }
        task => {
            if task == Task::Monitor && way == Way::Failed {
                let why = "resources are in unknown state and connection is unrecoverable";
                model.fence_node(n, why);
            }
            if way == Way::Stopped && !model.rscs[connection].active.is_empty() {
                // It is about to end: what runs there is looked at before.
                before(model, table, act, connection, Link::BLOCKS);
            } else {
                after(model, table, connection, act, Link::NONE);
            }
        }
    }
}

impl Model<'_> {
    fn way(&self, n: NodeIx, connection: RscIx) -> Way {
        let rsc = &self.rscs[connection];
        let host = rsc.active.first().map(|a| &self.nodes[a.node]);
        if rsc.next_role == Role::Stopped || rsc.assigned.is_none() {
            if host.is_some_and(|h| !h.clean) {
                return Way::Failed;
            }
            if !rsc.now.failed {
                return Way::Stopped;
            }
            let leaving = self.nodes[n].attribute("shutdown").is_some_and(|v| v != "0");
            let later = rsc.next_role == Role::Stopped && rsc.reconnect_ms > 0;
            return if later && self.nodes[n].was_fenced && !leaving {
                Way::Unknown
            } else {
                Way::Failed
            };
        }
        match host {
            None => Way::Unknown,
            Some(host) if !host.clean || !host.online => Way::Resurrect,
            Some(_) if rsc.active.len() > 1 && rsc.now.partial.is_some() => Way::Unknown,
            Some(_) => Way::Alive,
        }
    }

    /// A remote node that cannot be reached any more and has to be fenced for that alone.
    pub(super) fn lost_remotes(&mut self) {
        for n in 0..self.nodes.len() {
            let NodeKind::Remote { connection } = self.nodes[n].kind else { continue };
            if !self.nodes[n].online && self.way(n, connection) == Way::Failed {
                self.fence_node(n, "the connection is unrecoverable");
            }
        }
    }
}

/// The point that stands for the fencing of a guest: what ran there is over when its container has stopped.
pub(super) fn recovered(
    model: &Model<'_>,
    table: &mut Table,
    n: NodeIx,
    (container, connection): (RscIx, RscIx),
) -> ActIx {
    let starts = !table.all(container, Task::Start).is_empty();
    let how = if starts { "reboot" } else { "off" };
    let name = format!("stonith-{}-{how}", model.nodes[n].name);
    let point = table.named(&name, Task::Fence, Some(n));
    table.clear(point, Flag::OPTIONAL);
    table.set(point, Flag::PSEUDO);
    table.set(point, Flag::RUNNABLE);
    let down = Link::BLOCKS | Link::FIRST_IMPLIES_THEN;
    match table.all(container, Task::Stop).first().copied() {
        Some(stop) if table.flags(stop).pseudo() => {
            // Its host is fenced: that stops it.
            if let Some(host) = table.acts[stop].node {
                let name = format!("stonith-{}-{}", model.nodes[host].name, model.props.fence_how);
                let fencing = table.named(&name, Task::Fence, Some(host));
                table.bind(fencing, point, down);
            }
        }
        Some(stop) => {
            table.bind(stop, point, down);
        }
        None => {
            // It is thought to be stopped already; a probe may know better, and the connection's stop comes after that.
            if let Some(stop) = table.all(connection, Task::Stop).first().copied() {
                table.bind(stop, point, Link::ORDERED);
            }
        }
    }
    point
}
