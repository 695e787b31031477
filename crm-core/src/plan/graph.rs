//! Phase 12: what is needed and possible becomes the plan's graph; ids are a topological order.

use super::actions::{Act, ActIx, Link, Table, What};
use super::model::{Model, NodeIx};
use super::params::{OpCall, expected};
use super::{Action, ActionId, ActionKind, ClusterOp};
use crate::cib::Role;
use crate::status::rc;
use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeMap, BTreeSet};

/// The actions, in an order in which they could be run one by one.
pub(super) fn emit(model: &mut Model<'_>, table: &Table, only: Option<&str>) -> Vec<Action> {
    let mut kept: Vec<bool> = table.acts.iter().map(|a| a.required && a.runnable).collect();
    if let Some(only) = only {
        leave_to_others(model, table, only, &mut kept);
    }
    if !kept.iter().zip(&table.acts).any(|(k, a)| *k && is_real(a)) {
        return Vec::new();
    }
    let order = sort(model, table, &mut kept);
    let mut ids = BTreeMap::new();
    for act in &order {
        let id = ActionId(u32::try_from(ids.len()).unwrap_or(u32::MAX));
        ids.insert(*act, id);
    }
    order
        .iter()
        .map(|act| {
            let inputs = table.into[*act].iter().filter(|(_, link)| link.has(Link::ORDER));
            let needs: BTreeSet<ActionId> =
                inputs.filter_map(|(first, _)| ids.get(first).copied()).collect();
            let entry = &table.acts[*act];
            Action {
                kind: kind(model, entry),
                needs,
                priority: model.rscs[entry.rsc].meta.priority,
            }
        })
        .collect()
}

const fn is_real(act: &Act) -> bool {
    !matches!(act.what, What::Point(_))
}

/// A node that plans for itself drops the others' actions and all that waits for them.
fn leave_to_others(model: &Model<'_>, table: &Table, only: &str, kept: &mut [bool]) {
    let foreign = |a: &ActIx| {
        let node = table.acts[*a].node.map(|n| model.nodes[n].name);
        kept[*a] && is_real(&table.acts[*a]) && node.is_some_and(|n| n != only)
    };
    let dropped: Vec<ActIx> = (0..table.acts.len()).filter(foreign).collect();
    drop_with_followers(table, dropped, kept);
    // A monitor that ends for a change of role goes on when the change has to wait.
    for (act, entry) in table.acts.iter().enumerate() {
        let waits = |(then, _): &(ActIx, Link)| table.acts[*then].required && !kept[*then];
        if matches!(entry.what, What::Cancel(_)) && table.out[act].iter().any(waits) {
            kept[act] = false;
        }
    }
}

fn drop_with_followers(table: &Table, mut work: Vec<ActIx>, kept: &mut [bool]) {
    while let Some(act) = work.pop() {
        if !std::mem::replace(&mut kept[act], false) {
            continue;
        }
        let followers = table.out[act].iter().filter(|(_, link)| link.has(Link::ORDER));
        work.extend(followers.map(|(then, _)| *then).filter(|then| kept[*then]));
    }
}

/// Topological order; what is in a loop, and what waits for it, is left out with a reason.
fn sort(model: &mut Model<'_>, table: &Table, kept: &mut [bool]) -> Vec<ActIx> {
    let mut graph = graph_of(table, kept);
    let order = match toposort(&graph, None) {
        Ok(order) => order,
        Err(_) => {
            let mut looped = Vec::new();
            for part in tarjan_scc(&graph).into_iter().filter(|part| part.len() > 1) {
                looped.extend(part.into_iter().map(|n| graph[n]));
            }
            looped.sort_unstable();
            for act in looped.iter().filter(|a| is_real(&table.acts[**a])) {
                let entry = &table.acts[*act];
                let text = "waits for itself through order constraints: not done".to_owned();
                model.because(entry.rsc, entry.node, "order-loop", text);
            }
            drop_with_followers(table, looped, kept);
            graph = graph_of(table, kept);
            toposort(&graph, None).unwrap_or_default()
        }
    };
    order.into_iter().map(|n| graph[n]).collect()
}

fn graph_of(table: &Table, kept: &[bool]) -> DiGraph<ActIx, ()> {
    let mut graph = DiGraph::new();
    let mut index: Vec<Option<NodeIndex>> = vec![None; kept.len()];
    for (act, _) in kept.iter().enumerate().filter(|(_, k)| **k) {
        index[act] = Some(graph.add_node(act));
    }
    for (first, targets) in table.out.iter().enumerate() {
        for (then, link) in targets {
            if let (true, Some(a), Some(b)) = (link.has(Link::ORDER), index[first], index[*then]) {
                graph.add_edge(a, b, ());
            }
        }
    }
    graph
}

fn kind(model: &Model<'_>, act: &Act) -> ActionKind {
    if let (What::Do(task), true) = (&act.what, act.implied) {
        return ActionKind::Pseudo { name: format!("{}_{}_0", model.label(act.rsc), task.op()) };
    }
    let Some(node) = act.node else {
        let name = match &act.what {
            What::Point(text) => text.clone(),
            What::Do(_)
            | What::Probe
            | What::Monitor(_)
            | What::Cancel(_)
            | What::MigrateTo
            | What::MigrateFrom
            | What::Reload
            | What::Fence
            | What::Shutdown
            | What::Forget => format!("{}_nowhere_0", model.label(act.rsc)),
        };
        return ActionKind::Pseudo { name };
    };
    let rsc = act.rsc;
    match &act.what {
        What::Do(task) => one_shot(model, act, node, task.op()),
        What::MigrateTo => one_shot(model, act, node, "migrate_to"),
        What::MigrateFrom => one_shot(model, act, node, "migrate_from"),
        What::Reload => one_shot(model, act, node, "reload-agent"),
        What::Probe => ActionKind::Op(Box::new(model.op_spec(OpCall {
            rsc,
            node,
            op: "monitor",
            interval_ms: 0,
            config: model.probe_config(rsc),
            expected_rc: rc::NOT_RUNNING,
        }))),
        What::Monitor(op) => {
            let config = model.rscs[rsc].prim.and_then(|p| p.ops.get(*op));
            let promoted = config.and_then(super::history::op_role) == Some(Role::Promoted);
            let role = if promoted { Role::Promoted } else { Role::Started };
            ActionKind::Op(Box::new(model.op_spec(OpCall {
                rsc,
                node,
                op: "monitor",
                interval_ms: config.map_or(0, crate::cib::Op::interval_ms),
                config,
                expected_rc: expected(role),
            })))
        }
        What::Cancel(interval_ms) => ActionKind::CancelMonitor {
            node: model.nodes[node].name.to_owned(),
            resource: model.key(rsc),
            interval_ms: *interval_ms,
        },
        What::Fence => ActionKind::Cluster(ClusterOp::Fence {
            node: model.nodes[node].name.to_owned(),
            how: model.props.fence_how.to_owned(),
        }),
        What::Shutdown => {
            ActionKind::Cluster(ClusterOp::Shutdown { node: model.nodes[node].name.to_owned() })
        }
        What::Forget => ActionKind::Cluster(ClusterOp::Forget {
            node: model.nodes[node].name.to_owned(),
            resource: model.key(rsc),
        }),
        What::Point(text) => ActionKind::Pseudo { name: text.clone() },
    }
}

fn one_shot(model: &Model<'_>, act: &Act, node: NodeIx, op: &str) -> ActionKind {
    ActionKind::Op(Box::new(model.op_spec(OpCall {
        rsc: act.rsc,
        node,
        op,
        interval_ms: 0,
        config: model.configured(act.rsc, op),
        expected_rc: rc::OK,
    })))
}
