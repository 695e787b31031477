//! The transition graph as Pacemaker's XML and for graphviz.

use crm_core::plan::{ActionKind, ClusterOp, Plan};
use crm_core::xml::Document;
use std::fmt::Write as _;

/// Element, operation and node of an action.
fn parts(kind: &ActionKind) -> (&'static str, String, Option<&str>) {
    match kind {
        ActionKind::Op(spec) => ("rsc_op", spec.op.clone(), Some(&spec.node)),
        ActionKind::CancelMonitor { node, .. } => ("rsc_op", "cancel".to_owned(), Some(node)),
        ActionKind::Cluster(what) => {
            let (element, operation) = match what {
                ClusterOp::Fence { .. } => ("crm_event", "stonith"),
                ClusterOp::Shutdown { .. } => ("crm_event", "do_shutdown"),
                ClusterOp::ClearFailures { .. } => ("crm_event", "clear_failcount"),
                ClusterOp::Forget { .. } => ("rsc_op", "delete"),
            };
            (element, operation.to_owned(), Some(what.node()))
        }
        ActionKind::Pseudo { name } => {
            let operation = name.rsplit('_').nth(1).unwrap_or(name);
            ("pseudo_event", operation.to_owned(), None)
        }
    }
}

/// Pacemaker's key of an action.
pub(super) fn op_name(kind: &ActionKind) -> String {
    match kind {
        ActionKind::Op(spec) if spec.op == "notify" => {
            // Told before or after, and of what.
            let word = |name: &str| spec.params.get(name).map_or("", String::as_str);
            let (when, what) = (word("CRM_meta_notify_type"), word("CRM_meta_notify_operation"));
            format!("{}_{when}_notify_{what}_0", spec.resource)
        }
        ActionKind::Op(spec) => format!("{}_{}_{}", spec.resource, spec.op, spec.interval_ms),
        ActionKind::CancelMonitor { resource, interval_ms, .. } => {
            format!("{resource}_monitor_{interval_ms}")
        }
        ActionKind::Cluster(ClusterOp::Fence { node, how }) => format!("stonith-{node}-{how}"),
        ActionKind::Cluster(ClusterOp::Shutdown { node }) => format!("do_shutdown-{node}"),
        ActionKind::Cluster(ClusterOp::ClearFailures { resource, .. }) => {
            format!("{resource}_clear_failcount_0")
        }
        ActionKind::Cluster(ClusterOp::Forget { resource, .. }) => format!("{resource}_delete_0"),
        ActionKind::Pseudo { name } => name.clone(),
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn element(plan: &Plan, index: usize, document: &Document) -> Option<(&'static str, String)> {
    let action = plan.actions.get(index)?;
    let (tag, operation, node) = parts(&action.kind);
    let key = escaped(&op_name(&action.kind));
    let mut text = format!(
        "<{tag} id=\"{index}\" operation=\"{}\" operation_key=\"{key}\"",
        escaped(&operation)
    );
    if let Some(node) = node {
        let uuid = document.uuids.get(node).map_or(node, String::as_str);
        let _infallible =
            write!(text, " on_node=\"{}\" on_node_uuid=\"{}\"", escaped(node), escaped(uuid));
    }
    Some((tag, text))
}

/// As `crm_simulate -G` writes it.
pub(super) fn xml(plan: &Plan, document: &Document) -> String {
    let mut out = String::from("<transition_graph transition_id=\"1\">\n");
    for (index, action) in plan.actions.iter().enumerate() {
        let Some((tag, own)) = element(plan, index, document) else { continue };
        let _infallible = write!(
            out,
            "  <synapse id=\"{index}\" priority=\"{}\">\n    <action_set>\n",
            action.priority
        );
        let _infallible = writeln!(out, "      {own}>");
        if let ActionKind::Op(spec) = &action.kind {
            let mut names = spec.agent.split(':');
            let (class, rest): (&str, Vec<&str>) =
                (names.next().unwrap_or_default(), names.collect());
            let id = escaped(&spec.resource);
            let _infallible = write!(out, "        <primitive id=\"{id}\" class=\"{class}\"");
            if let [provider, kind] = *rest.as_slice() {
                let _infallible =
                    write!(out, " provider=\"{}\" type=\"{}\"", escaped(provider), escaped(kind));
            } else {
                let _infallible = write!(out, " type=\"{}\"", escaped(&rest.join(":")));
            }
            out.push_str("/>\n        <attributes");
            for (name, value) in &spec.params {
                let _infallible = write!(out, " {name}=\"{}\"", escaped(value));
            }
            out.push_str("/>\n");
        }
        let _infallible = writeln!(out, "      </{tag}>\n    </action_set>\n    <inputs>");
        for need in &action.needs {
            let index = usize::try_from(need.0).unwrap_or(usize::MAX);
            if let Some((_, text)) = element(plan, index, document) {
                let _infallible =
                    writeln!(out, "      <trigger>\n        {text}/>\n      </trigger>");
            }
        }
        out.push_str("    </inputs>\n  </synapse>\n");
    }
    out.push_str("</transition_graph>\n");
    out
}

/// For graphviz: boxes are operations, ovals points in the order.
pub(super) fn dot(plan: &Plan) -> String {
    let mut out = String::from("digraph transition {\n");
    for (index, action) in plan.actions.iter().enumerate() {
        let (_, _, node) = parts(&action.kind);
        let place = node.map(|n| format!(" {n}")).unwrap_or_default();
        let label = format!("{}{place}", op_name(&action.kind)).replace('"', "'");
        let shape = if node.is_some() { "box" } else { "oval" };
        let _infallible = writeln!(out, "  a{index} [label=\"{label}\" shape={shape}];");
        for need in &action.needs {
            let _infallible = writeln!(out, "  a{} -> a{index};", need.0);
        }
    }
    out.push_str("}\n");
    out
}
