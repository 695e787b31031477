//! Phase 8: probes where the state of a resource is not known, and what waits for them.

use super::actions::{ActIx, Flag, Table, Task};
use super::collective;
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::{End, Link};
use super::{Habit, unfence};
use crate::cib::Role;
use crate::status::rc;

/// Makes the probes.
pub(super) fn schedule(model: &mut Model<'_>, table: &mut Table) {
    if model.props.exact && !model.props.startup_probes {
        return;
    }
    let mut probes = Vec::new();
    for (r, node) in model.probes.clone() {
        let n = &model.nodes[node];
        let pending = n.pending && !model.props.exact;
        let usable = n.online && n.clean && !pending && n.fence.is_none();
        if model.rscs[r].no_probe.contains(&node) || !usable || empty(model, node) {
            continue;
        }
        if let Some(container) = ending(model, node) {
            // What may still run there is gone after that.
            let whole = whole(model, r);
            let stop = (container, Task::Stop);
            table.sequence(model, stop, (whole, Task::Start), Link::ORDERED);
            continue;
        }
        let r = if model.props.exact { instance_at(model, r, node) } else { r };
        let probe = table.make(model, r, Task::Monitor, Some(node), false);
        table.clear(probe, Flag::OPTIONAL);
        table.acts[probe].expected_rc = rc::NOT_RUNNING;
        unfence::before(model, table, r, node, (probe, Link::ORDERED));
        probes.push((r, probe));
        if model.props.exact {
            super::bundle_order::probed(model, table, r, probe);
            before_start(model, table, r, probe);
        }
    }
    if !model.props.exact {
        barriers(model, table, &probes);
    }
}

/// What a node lives in is not up yet: nothing runs there.
fn empty(model: &Model<'_>, node: NodeIx) -> bool {
    let Some(container) = model.nodes[node].kind.container() else { return false };
    model.role(container) == Role::Stopped
}

/// What a guest lives in, when that is going to stop, be it only to start again.
fn ending(model: &Model<'_>, node: NodeIx) -> Option<RscIx> {
    let n = &model.nodes[node];
    let container = n.kind.container()?;
    let rsc = &model.rscs[container];
    let here = |at: NodeIx| rsc.active.iter().any(|a| a.node == at);
    let moves = model.props.exact && rsc.assigned.is_some_and(|to| !here(to));
    let ends = n.reset || rsc.now.failed || rsc.next_role == Role::Stopped || moves;
    ends.then_some(container)
}

/// Of instances that are alike the one that is to be on the node is probed there; otherwise the first.
fn instance_at(model: &Model<'_>, r: RscIx, node: NodeIx) -> RscIx {
    let Some(clone) = model.rscs[r].clone else { return r };
    if model.rscs[clone].clone_info().is_some_and(|i| i.globally_unique) {
        return r;
    }
    let instances = &model.rscs[clone].children;
    let Some(there) = instances.iter().find(|i| model.rscs[**i].assigned == Some(node)) else {
        return r;
    };
    let id = model.rscs[r].id;
    model.leaves(*there).into_iter().find(|l| model.rscs[*l].id == id).unwrap_or(r)
}

/// The clone it is in, or itself.
fn whole(model: &Model<'_>, r: RscIx) -> RscIx {
    let top = model.top(r);
    if model.rscs[top].clone_info().is_some() { top } else { r }
}

/// A resource starts after its probes; of a clone's instances none starts before all are probed.
fn before_start(model: &Model<'_>, table: &mut Table, r: RscIx, probe: ActIx) {
    let (top, whole) = (model.top(r), whole(model, r));
    let known = if model.habit(Habit::ProbesStop) { r } else { top };
    let blocks = !table.flags(probe).runnable() && model.places(known).is_empty();
    let link = if blocks { Link::ORDERED | Link::BLOCKS } else { Link::ORDERED };
    table.order(model, End::Act(probe), End::Op(whole, Task::Start), link);
    table.order(model, End::Act(probe), End::Op(r, Task::Reload), Link::ORDERED);
}

/// In our own plans nothing of a family of resources (bound by constraints) changes before all of it is known.
fn barriers(model: &mut Model<'_>, table: &mut Table, probes: &[(RscIx, ActIx)]) {
    let mut family = petgraph::unionfind::UnionFind::new(model.rscs.len());
    for (r, rsc) in model.rscs.iter().enumerate() {
        if let Some(parent) = rsc.parent {
            family.union(r, parent);
        }
    }
    for c in &model.colocs {
        family.union(c.dependent, c.primary);
    }
    for order in &table.orders {
        if let ((Some(a), _), (Some(b), _)) = (table.end(order.first), table.end(order.then)) {
            family.union(a, b);
        }
    }
    let mut barrier: Vec<Option<ActIx>> = vec![None; model.rscs.len()];
    for (r, probe) in probes {
        let head = family.find(*r);
        let name = format!("{}_probed_0", model.rscs[model.top(*r)].id);
        let point = *barrier[head].get_or_insert_with(|| table.named(&name, Task::Point, None));
        let link = Link::ORDERED | Link::FIRST_IMPLIES_THEN | Link::BLOCKS;
        table.order(model, End::Act(*probe), End::Act(point), link);
    }
    for r in 0..model.rscs.len() {
        let Some(point) = barrier[family.find(r)] else { continue };
        if !matches!(model.rscs[r].kind, Kind::Primitive) {
            continue;
        }
        for task in [Task::Start, Task::Stop, Task::Promote, Task::Demote] {
            table.order(model, End::Act(point), End::Op(r, task), Link::ORDERED);
        }
    }
}

/// Phase 11: what would be restarted by a start waits with its stop for that resource's probes, too.
pub(super) fn order(model: &Model<'_>, table: &mut Table) {
    if !model.props.exact {
        return;
    }
    let mut walk = Walk { leads: leads(model, table), seen: vec![0; table.acts.len()], walks: 0 };
    for r in 0..model.rscs.len() {
        for probe in table.all(r, Task::Monitor) {
            walk.restarts(model, table, r, probe);
        }
    }
    before_stops(model, table);
}

fn followers(table: &Table, act: ActIx) -> Vec<ActIx> {
    table.acts[act].after.iter().map(|e| table.edges[*e].then).collect()
}

/// What would go down before this comes up again.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only starts and promotions are undone for a restart"
)]
fn undone(model: &Model<'_>, table: &Table, act: ActIx) -> Vec<ActIx> {
    let Some(r) = table.acts[act].rsc.filter(|r| model.rscs[*r].children.is_empty()) else {
        return Vec::new();
    };
    let mut down = match table.acts[act].task {
        Task::Start => table.all(r, Task::Stop),
        Task::Promote => table.all(r, Task::Demote),
        _ => Vec::new(),
    };
    down.retain(|act| !table.flags(*act).pseudo());
    down
}

/// Actions from which anything that would go down can be reached: no walk goes elsewhere, and where nothing runs yet there is none at all.
fn leads(model: &Model<'_>, table: &Table) -> Vec<bool> {
    let mut leads = vec![false; table.acts.len()];
    let mut work: Vec<ActIx> =
        (0..table.acts.len()).filter(|a| !undone(model, table, *a).is_empty()).collect();
    while let Some(act) = work.pop() {
        if !std::mem::replace(&mut leads[act], true) {
            work.extend(table.acts[act].before.iter().map(|e| table.edges[*e].first));
        }
    }
    leads
}

/// The walks from the probes to what a found resource would restart.
struct Walk {
    leads: Vec<bool>,
    /// By action: the last walk that has come by.
    seen: Vec<usize>,
    walks: usize,
}

impl Walk {
    fn restarts(&mut self, model: &Model<'_>, table: &mut Table, probed: RscIx, probe: ActIx) {
        self.walks += 1;
        let mut work = followers(table, probe);
        work.reverse();
        while let Some(after) = work.pop() {
            let been = std::mem::replace(&mut self.seen[after], self.walks) == self.walks;
            if been || !self.leads[after] {
                continue;
            }
            if table.acts[after].rsc != Some(probed) {
                for act in undone(model, table, after) {
                    table.bind(probe, act, Link::ORDERED);
                }
            }
            let before = work.len();
            further(model, table, probed, after, &mut work);
            work[before..].reverse();
        }
    }
}

/// What a restart goes on to.
fn further(model: &Model<'_>, table: &Table, probed: RscIx, after: ActIx, work: &mut Vec<ActIx>) {
    let rsc = table.acts[after].rsc;
    let clone = rsc.filter(|r| model.rscs[*r].clone_info().is_some());
    let interleaves =
        clone.is_some_and(|c| model.rscs[c].clone_info().is_some_and(|i| i.interleave));
    let partner =
        clone.filter(|_| interleaves).and_then(|c| collective::partner(model, probed, c, false));
    for edge in &table.acts[after].after {
        let edge = table.edges[*edge];
        let next = edge.then;
        if !edge.made.any(Link::FIRST_IMPLIES_THEN) {
            // A collection's action leads to those of its members.
            let Some(r) = rsc.filter(|r| !model.rscs[*r].children.is_empty()) else { continue };
            let Some(child) = table.acts[next].rsc else { continue };
            let inside = model.rscs[child].parent == Some(r)
                && model.rscs[probed].parent != Some(r)
                && model.rscs[child].clone_info().is_none();
            if !inside || (interleaves && partner != Some(child)) {
                continue;
            }
        }
        work.push(next);
    }
}

/// A resource that may turn out to be active has to be known before what comes after its stop.
fn before_stops(model: &Model<'_>, table: &mut Table) {
    for at in 0..table.orders.len() {
        let order = table.orders[at];
        let (Some(first), task) = table.end(order.first) else { continue };
        let (then, then_task) = table.end(order.then);
        if then.is_none() && then_task != Task::Point {
            continue;
        }
        if task != Task::Stop || Some(first) == then || order.link.is_none() {
            continue;
        }
        if then_task == Task::Stop && then.is_some() && model.rscs[first].container == then {
            // What is inside may be probed when its container has started again.
            continue;
        }
        let probes = table.all(first, Task::Monitor);
        if probes.is_empty() {
            continue;
        }
        let link = if order.link == Link::APART || order.link == Link::FREED {
            order.link
        } else {
            let mut link = Link::ORDERED;
            for kept in [Link::UNLESS_FIRST_MIGRATES, Link::SAME_NODE] {
                if order.link.any(kept) {
                    link = link | kept;
                }
            }
            link
        };
        let thens = match order.then {
            End::Act(act) => vec![act],
            End::Op(r, task) => table.all(r, task),
        };
        for probe in probes {
            for then in &thens {
                table.bind(probe, *then, link);
            }
        }
    }
}
