//! Unfencing: a node that was cut off from storage gets its access back before what needs it is probed or started.

use super::actions::{ActIx, Flag, Table, Task};
use super::model::{Kind, Model, NodeIx, RscIx};
use super::order::{End, Link};
use std::collections::BTreeMap;

fn action(model: &Model<'_>, table: &mut Table, node: NodeIx) -> ActIx {
    let name = format!("stonith-{}-on", model.nodes[node].name);
    let new = !table.named.contains_key(&name);
    let act = table.named(&name, Task::Unfence, Some(node));
    if new && outdated(model, node) && model.can_fence(node) {
        table.clear(act, Flag::OPTIONAL);
        table.set(act, Flag::UNTOLD);
    }
    act
}

/// It is needed for a reason that is told.
fn need(table: &mut Table, act: ActIx) {
    table.clear(act, Flag::OPTIONAL);
    table.clear(act, Flag::UNTOLD);
}

/// The node remembers the devices that gave it access, with their parameters: one of them is another now, or new.
fn outdated(model: &Model<'_>, node: NodeIx) -> bool {
    let Some(known) = model.nodes[node].attribute("#digests-all") else { return false };
    let harmless = model.nodes[node].attribute("#digests-secure").unwrap_or_default();
    let devices = (0..model.rscs.len()).filter(|r| model.fences(*r) && gives_access(model, *r));
    let mut devices = devices.filter_map(|r| Some((r, model.rscs[r].agent?)));
    devices.any(|(r, agent)| {
        let all = model.attributes_of(r, node);
        let listed = |params: &BTreeMap<String, String>| {
            format!("{}:{}:{},", model.rscs[r].id, agent.kind, super::digest_of(params))
        };
        let mut public = all.clone();
        let secret =
            |name: &str| name.starts_with("pcmk_") || matches!(name, "password" | "passwd");
        public.retain(|name, _| !secret(name));
        !known.contains(&listed(&all)) && !harmless.contains(&listed(&public))
    })
}

fn gives_access(model: &Model<'_>, r: RscIx) -> bool {
    let provides = model.rscs[r].prim.and_then(|p| p.meta.get("provides"));
    model.rscs[r].meta.needs_unfencing
        || provides.is_some_and(|p| p.eq_ignore_ascii_case("unfencing"))
}

fn concerned(model: &Model<'_>, r: RscIx) -> bool {
    model.props.unfencing
        && model.props.exact
        && matches!(model.rscs[r].kind, Kind::Primitive)
        && (model.fences(r) || model.rscs[r].meta.needs_unfencing)
}

/// The orders a resource brings with it.
pub(super) fn order(model: &Model<'_>, table: &mut Table, r: RscIx) {
    if !concerned(model, r) || model.fences(r) {
        return;
    }
    for node in 0..model.nodes.len() {
        let unfence = action(model, table, node);
        let stop = End::Op(r, Task::Stop);
        let link = Link::ORDERED | Link::SAME_NODE;
        table.order(model, stop, End::Act(unfence), link);
        let start = End::Op(r, Task::Start);
        let link = Link::FIRST_IMPLIES_THEN_THERE | Link::SAME_NODE;
        table.order(model, End::Act(unfence), start, link);
    }
}

/// Unfencing comes before this action; it is needed where it has never been done.
pub(super) fn before(
    model: &Model<'_>,
    table: &mut Table,
    r: RscIx,
    node: NodeIx,
    (act, link): (ActIx, Link),
) {
    if !concerned(model, r) {
        return;
    }
    let unfence = action(model, table, node);
    table.bind(unfence, act, link);
    let n = &model.nodes[node];
    let done = n.attribute("#node-unfenced").is_some_and(|v| v != "0");
    if !done && reachable(model, node) {
        need(table, unfence);
    }
}

fn reachable(model: &Model<'_>, node: NodeIx) -> bool {
    let n = &model.nodes[node];
    n.online && !model.unclean(node) && !n.leaving
}

/// A device that gives access runs there by another definition: access has to be given anew.
pub(super) fn redefined(model: &Model<'_>, table: &mut Table, r: RscIx, node: NodeIx) {
    if concerned(model, r) && model.fences(r) && reachable(model, node) {
        let unfence = action(model, table, node);
        need(table, unfence);
    }
}

/// What needs unfencing stops before its node is unfenced.
pub(super) fn after_stop(
    model: &Model<'_>,
    table: &mut Table,
    r: RscIx,
    node: NodeIx,
    stop: ActIx,
) {
    if concerned(model, r) && !model.fences(r) {
        let unfence = action(model, table, node);
        table.bind(stop, unfence, Link::THEN_IMPLIES_FIRST);
    }
}
