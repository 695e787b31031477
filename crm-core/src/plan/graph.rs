//! Phase 12: what is needed and possible becomes the plan's graph; ids are a topological order.

use super::actions::{Act, ActIx, Edge, Flag, Stage, Table, Task};
use super::model::{Model, NodeIx};
use super::notify_env::Told;
use super::order::Link;
use super::params::OpCall;
use super::{Action, ActionId, ActionKind, ClusterOp};
use crate::status::rc;
use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// The actions, in an order in which they could be run one by one.
pub(super) fn emit(model: &mut Model<'_>, table: &Table, only: Option<&str>) -> Vec<Action> {
    let mut kept: Vec<bool> = table.acts.iter().map(|a| belongs(model, a)).collect();
    if let Some(only) = only {
        leave_to_others(model, table, only, &mut kept);
    }
    if !model.props.exact {
        untell(model, table, &mut kept);
    }
    let any = |(act, kept): (&Act, &bool)| *kept && (model.props.exact || is_real(act));
    if !table.acts.iter().zip(&kept).any(any) {
        return Vec::new();
    }
    let order = sort(model, table, &mut kept);
    let mut ids = BTreeMap::new();
    for act in &order {
        let id = ActionId(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        ids.insert(*act, id);
    }
    let mut out = Vec::with_capacity(order.len());
    let mut told = Told::default();
    for act in &order {
        let entry = &table.acts[*act];
        let inputs = entry.before.iter().map(|e| table.edges[*e]);
        let needs: BTreeSet<ActionId> = inputs
            .filter(|edge| counts(model, table, edge))
            .filter_map(|edge| ids.get(&edge.first).copied())
            .collect();
        let priority = entry.rsc.map_or(0, |r| model.rscs[r].meta.priority);
        out.push(Action { kind: kind(model, table, *act, &mut told), needs, priority });
    }
    out
}

fn is_real(act: &Act) -> bool {
    !act.flags.pseudo()
}

/// Does the action take part in the transition?
fn belongs(model: &Model<'_>, act: &Act) -> bool {
    let flags = act.flags;
    if !flags.runnable() || (flags.optional() && !flags.has(Flag::ALWAYS)) {
        return false;
    }
    let spared = |r: usize| !model.movable(r);
    let monitors = matches!(act.task, Task::Monitor | Task::Cancel);
    if act.rsc.is_some_and(spared) && !monitors {
        return false;
    }
    if flags.pseudo() || matches!(act.task, Task::Fence | Task::Unfence | Task::Shutdown) {
        return true;
    }
    let Some(node) = act.node else { return false };
    model.nodes[node].online && (!model.unclean(node) || !model.props.exact)
}

/// Does the edge hold in the graph?
#[expect(clippy::wildcard_enum_match_arm, reason = "only a migration looks to another node")]
fn counts(model: &Model<'_>, table: &Table, edge: &Edge) -> bool {
    let (first, then) = (&table.acts[edge.first], &table.acts[edge.then]);
    let (link, flags) = (edge.link, first.flags);
    if link.is_none() || (!flags.runnable() && (link.only_orders() || link.any(Link::COUNTED))) {
        return false;
    }
    if link.any(Link::UNLESS_FIRST_MIGRATES) && flags.migratable() {
        return false;
    }
    if link == Link::ORDERED && flags.migratable() && first.task == Task::Stop {
        return false;
    }
    if link == Link::FREED {
        let there = match then.task {
            Task::MigrateTo => then.rsc.and_then(|r| model.rscs[r].assigned),
            _ => then.node,
        };
        return there == first.node && !flags.optional();
    }
    if link == Link::APART {
        let apart = first.node.is_some() && then.node.is_some() && first.node != then.node;
        return !apart && !flags.optional();
    }
    let stuck = |r: usize| {
        Some(r) != then.rsc
            && model.rscs[r].active.iter().any(|a| a.failed)
            && !model.movable(r)
            && first.task == Task::Stop
            && then.rsc.is_some_and(|t| model.rscs[t].clone_info().is_some())
    };
    !first.rsc.is_some_and(stuck)
}

/// Edges between the same two actions are one, with all that they mean.
pub(super) fn merge(table: &mut Table) {
    for act in 0..table.acts.len() {
        let mut known: BTreeMap<ActIx, usize> = BTreeMap::new();
        for edge in std::mem::take(&mut table.acts[act].before) {
            let Edge { first, link, .. } = table.edges[edge];
            match known.get(&first) {
                Some(kept) => table.edges[*kept].link = table.edges[*kept].link | link,
                None => {
                    known.insert(first, edge);
                    table.acts[act].before.push(edge);
                }
            }
        }
    }
}

/// Orders that cannot hold. Two that migrate to each other's nodes would wait for each other to leave: neither does. And what runs in a guest
/// cannot come before what the guest lives in.
pub(super) fn break_exchanges(model: &Model<'_>, table: &mut Table) {
    for act in (0..table.acts.len()).rev() {
        for edge in table.acts[act].before.clone() {
            if inside_out(model, table, edge) {
                table.edges[edge].link = Link::NONE;
            }
        }
        if table.acts[act].task != Task::MigrateTo {
            continue;
        }
        for edge in table.acts[act].before.clone() {
            if table.edges[edge].link == Link::FREED && loops(model, table, act, edge) {
                table.edges[edge].link = Link::NONE;
            }
        }
    }
}

/// Somebody's wish that something in a guest be done before something to the guest's container.
fn inside_out(model: &Model<'_>, table: &Table, edge: usize) -> bool {
    let Edge { first, then, link, .. } = table.edges[edge];
    let container = table.acts[first].node.and_then(|n| model.nodes[n].kind.container());
    let about = table.acts[first].rsc.is_some() && container == table.acts[then].rsc;
    about && container.is_some() && !link.any(Link::GUEST)
}

fn loops(model: &Model<'_>, table: &Table, act: ActIx, edge: usize) -> bool {
    let mut work = vec![edge];
    let mut seen = BTreeSet::new();
    while let Some(edge) = work.pop() {
        let edge = table.edges[edge];
        let taken = belongs(model, &table.acts[edge.first]);
        if !taken || !counts(model, table, &edge) {
            continue;
        }
        if edge.first == act {
            return true;
        }
        if seen.insert(edge.first) {
            work.extend(&table.acts[edge.first].before);
        }
    }
    false
}

/// A node that plans for itself drops the others' actions and all that waits for them.
fn leave_to_others(model: &Model<'_>, table: &Table, only: &str, kept: &mut [bool]) {
    let foreign = |a: &ActIx| {
        let node = table.acts[*a].node.map(|n| model.nodes[n].name);
        kept[*a] && is_real(&table.acts[*a]) && node.is_some_and(|n| n != only)
    };
    let dropped: Vec<ActIx> = (0..table.acts.len()).filter(foreign).collect();
    let told = |a: &ActIx| matches!(table.acts[*a].task, Task::Notify(..));
    let (told, dropped): (Vec<ActIx>, Vec<ActIx>) = dropped.into_iter().partition(told);
    for act in told {
        // Who cannot be told is not waited for.
        kept[act] = false;
    }
    drop_with_followers(model, table, dropped, kept);
    // A monitor that ends for a change of role goes on when the change has to wait.
    for (act, entry) in table.acts.iter().enumerate() {
        let waits = |e: &usize| {
            let then = table.edges[*e].then;
            !table.flags(then).optional() && !kept[then]
        };
        if entry.task == Task::Cancel && entry.after.iter().any(waits) {
            kept[act] = false;
        }
    }
}

/// Nobody is told beforehand of what has to wait.
fn untell(model: &Model<'_>, table: &Table, kept: &mut [bool]) {
    let mut coming = BTreeSet::new();
    for (act, _) in table.acts.iter().zip(&*kept).filter(|(a, k)| **k && is_real(a)) {
        coming.extend(act.rsc.and_then(|r| model.rscs[r].clone).map(|clone| (clone, act.task)));
    }
    for (entry, kept) in table.acts.iter().zip(kept) {
        let clone = entry.rsc.and_then(|r| model.rscs[r].clone);
        if let (Task::Notify(Stage::Pre, of), Some(clone)) = (entry.task, clone) {
            *kept = *kept && (!is_real(entry) || coming.contains(&(clone, of.task())));
        }
    }
}

fn drop_with_followers(model: &Model<'_>, table: &Table, mut work: Vec<ActIx>, kept: &mut [bool]) {
    while let Some(act) = work.pop() {
        if !std::mem::replace(&mut kept[act], false) {
            continue;
        }
        let after = table.acts[act].after.iter().map(|e| table.edges[*e]);
        let bound = after.filter(|edge| counts(model, table, edge)).map(|edge| edge.then);
        work.extend(bound.filter(|then| kept[*then]));
    }
}

/// Topological order; what is in a loop, and what waits for it, is left out with a reason.
fn sort(model: &mut Model<'_>, table: &Table, kept: &mut [bool]) -> Vec<ActIx> {
    let mut graph = graph_of(model, table, kept);
    let order = match toposort(&graph, None) {
        Ok(order) => order,
        Err(_) => {
            let mut looped = Vec::new();
            for part in kosaraju_scc(&graph).into_iter().filter(|part| part.len() > 1) {
                looped.extend(part.into_iter().map(|n| graph[n]));
            }
            looped.sort_unstable();
            for act in looped.iter().filter(|a| is_real(&table.acts[**a])) {
                let entry = &table.acts[*act];
                let text = "waits for itself through order constraints: not done".to_owned();
                if let Some(r) = entry.rsc {
                    model.because(r, entry.node, "order-loop", text);
                }
            }
            drop_with_followers(model, table, looped, kept);
            graph = graph_of(model, table, kept);
            toposort(&graph, None).unwrap_or_default()
        }
    };
    let order: Vec<ActIx> = order.into_iter().map(|n| graph[n]).collect();
    walk(model, table, order)
}

/// The order in which a walk over the resources' actions, newest first, repeated until all is done, would meet them.
fn walk(model: &Model<'_>, table: &Table, topological: Vec<ActIx>) -> Vec<ActIx> {
    let mut place = vec![0_usize; table.acts.len()];
    let mut listed = Vec::with_capacity(table.acts.len());
    for top in &model.tops {
        list(model, table, *top, &mut listed);
    }
    listed.extend((0..table.acts.len()).rev().filter(|a| table.acts[*a].rsc.is_none()));
    for (at, act) in listed.into_iter().enumerate() {
        place[act] = at;
    }
    let mut round = vec![0_usize; table.acts.len()];
    for act in &topological {
        for edge in &table.acts[*act].before {
            let edge = table.edges[*edge];
            if counts(model, table, &edge) {
                let later = round[edge.first] + usize::from(place[edge.first] > place[*act]);
                round[*act] = round[*act].max(later);
            }
        }
    }
    let mut out = topological;
    out.sort_by_key(|act| (round[*act], place[*act]));
    out
}

fn list(model: &Model<'_>, table: &Table, r: usize, out: &mut Vec<ActIx>) {
    let own = |out: &mut Vec<ActIx>| out.extend(table.of[r].iter().rev());
    let clone = model.rscs[r].clone_info().is_some();
    if !clone {
        own(out);
    }
    for child in &model.rscs[r].children {
        list(model, table, *child, out);
    }
    if clone {
        own(out);
    }
}

fn graph_of(model: &Model<'_>, table: &Table, kept: &[bool]) -> DiGraph<ActIx, ()> {
    let mut graph = DiGraph::new();
    let mut index: Vec<Option<NodeIndex>> = vec![None; kept.len()];
    for (act, _) in kept.iter().enumerate().filter(|(_, k)| **k) {
        index[act] = Some(graph.add_node(act));
    }
    for (act, at) in index.iter().enumerate() {
        let Some(then) = at else { continue };
        for edge in &table.acts[act].before {
            let edge = table.edges[*edge];
            if let (Some(first), true) = (index[edge.first], counts(model, table, &edge)) {
                graph.add_edge(first, *then, ());
            }
        }
    }
    graph
}

#[expect(clippy::wildcard_enum_match_arm, reason = "everything else is an operation of the agent")]
fn kind(model: &Model<'_>, table: &Table, at: ActIx, told: &mut Told) -> ActionKind {
    let act = &table.acts[at];
    let pseudo = || ActionKind::Pseudo { name: table.key(model, at) };
    if act.flags.pseudo() {
        return pseudo();
    }
    let Some(node) = act.node else { return pseudo() };
    let name = || model.nodes[node].name.to_owned();
    let Some(rsc) = act.rsc else {
        return match act.task {
            Task::Fence => ActionKind::Cluster(ClusterOp::Fence {
                node: name(),
                how: model.props.fence_how.to_owned(),
            }),
            Task::Unfence => {
                ActionKind::Cluster(ClusterOp::Fence { node: name(), how: "on".to_owned() })
            }
            Task::Shutdown => ActionKind::Cluster(ClusterOp::Shutdown { node: name() }),
            _ => pseudo(),
        };
    };
    match act.task {
        Task::Cancel => ActionKind::CancelMonitor {
            node: name(),
            resource: model.key(rsc),
            interval_ms: act.interval_ms,
        },
        Task::Delete => {
            ActionKind::Cluster(ClusterOp::Forget { node: name(), resource: model.key(rsc) })
        }
        Task::ClearFailures => {
            ActionKind::Cluster(ClusterOp::ClearFailures { node: name(), resource: model.key(rsc) })
        }
        Task::Monitor => monitor(model, act, (rsc, node)),
        _ => one_shot(model, table, (act, told), (rsc, node)),
    }
}

fn monitor(model: &Model<'_>, act: &Act, (rsc, node): (usize, NodeIx)) -> ActionKind {
    let recurring = act.config.and_then(|at| model.rscs[rsc].prim.and_then(|p| p.ops.get(at)));
    ActionKind::Op(Box::new(model.op_spec(OpCall {
        rsc,
        node,
        op: "monitor",
        interval_ms: act.interval_ms,
        config: recurring.or_else(|| model.probe_config(rsc)),
        expected_rc: act.expected_rc,
    })))
}

fn one_shot(
    model: &Model<'_>,
    table: &Table,
    (act, told): (&Act, &mut Told),
    (rsc, node): (usize, NodeIx),
) -> ActionKind {
    let op = act.task.word();
    let mut spec = model.op_spec(OpCall {
        rsc,
        node,
        op,
        interval_ms: 0,
        config: model.configured(rsc, op),
        expected_rc: rc::OK,
    });
    if matches!(act.task, Task::MigrateTo | Task::MigrateFrom) {
        let from = super::create::current_node(model, rsc);
        for (name, node) in [("source", from), ("target", model.rscs[rsc].assigned)] {
            if let Some(node) = node {
                let key = format!("CRM_meta_migrate_{name}");
                spec.params.insert(key, model.nodes[node].name.to_owned());
            }
        }
    }
    told.add(model, table, (rsc, act.task), &mut spec.params);
    ActionKind::Op(Box::new(spec))
}
