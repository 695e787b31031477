//! The transition graph as Pacemaker's XML and for graphviz.

use crm_core::cib::parse_bool;
use crm_core::plan::{Action, ActionKind, ClusterOp, Plan};
use crm_core::xml::Document;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

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
        ActionKind::Pseudo { name } => ("pseudo_event", point(name).to_owned(), fenced_guest(name)),
    }
}

/// The operation that a point in the order stands for: points around notifications are named after what they tell of.
fn point(name: &str) -> &str {
    if name.contains("_confirmed-pre_notify_") || name.contains("_confirmed-post_notify_") {
        return "notified";
    }
    if name.contains("_pre_notify_") || name.contains("_post_notify_") {
        return "notify";
    }
    if fenced_guest(name).is_some() {
        return "stonith";
    }
    name.rsplit('_').nth(1).unwrap_or(name)
}

/// The guest whose fencing a point stands for: its container is recovered.
pub(super) fn fenced_guest(point: &str) -> Option<&str> {
    let (node, how) = point.strip_prefix("stonith-")?.rsplit_once('-')?;
    matches!(how, "reboot" | "off").then_some(node)
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

/// As the value of an attribute: line feeds and tabs survive, what XML cannot say becomes the character for that.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\r' => {
                let _infallible = write!(out, "&#{};", u32::from(c));
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
    out
}

/// May it be the name of an attribute?
fn is_name(text: &str) -> bool {
    let begins = |c: char| c.is_alphabetic() || c == '_';
    let goes_on = |c: char| begins(c) || c.is_ascii_digit() || matches!(c, '-' | '.');
    text.chars().next().is_some_and(begins) && text.chars().all(goes_on)
}

/// What an agent is called with. A name that no attribute may have stands in an element of its own, as Pacemaker writes it.
fn attributes(params: &BTreeMap<String, String>, document: &Document) -> String {
    let mut out = String::from("        <attributes");
    let mut others = String::new();
    for (name, value) in params {
        let value = match name.as_str() {
            // Nodes are numbers inside; a document may call them otherwise.
            "CRM_meta_on_node_uuid" => params
                .get("CRM_meta_on_node")
                .and_then(|node| document.uuids.get(node))
                .unwrap_or(value),
            _ => value,
        };
        let value = escaped(value);
        let _infallible = if is_name(name) {
            write!(out, " {name}=\"{value}\"")
        } else {
            writeln!(others, "          <param name=\"{}\" value=\"{value}\"/>", escaped(name))
        };
    }
    if others.is_empty() {
        out.push_str("/>\n");
    } else {
        out.push_str(">\n");
        out.push_str(&others);
        out.push_str("        </attributes>\n");
    }
    out
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

/// The graph's own attributes: how long and how much at a time, for whoever carries it out.
fn head(document: &Document) -> String {
    let properties = &document.cib.properties;
    let word = |name: &str, default: &str| escaped(properties.get(name).unwrap_or(default));
    let fatal = properties.get("start-failure-is-fatal").and_then(parse_bool).unwrap_or(true);
    let mut out = format!(
        "<transition_graph cluster-delay=\"{}\" fencing-timeout=\"{}\" failed-stop-offset=\"INFINITY\" failed-start-offset=\"{}\"",
        word("cluster-delay", "60s"),
        word("stonith-timeout", "60s"),
        if fatal { "INFINITY" } else { "1" },
    );
    for name in ["batch-limit", "migration-limit"] {
        if let Some(value) = properties.get(name) {
            let _infallible = write!(out, " {name}=\"{}\"", escaped(value));
        }
    }
    out.push_str(" transition_id=\"1\">\n");
    out
}

/// What is said of an action of the cluster itself, and which node goes down by it.
fn cluster_op(what: &ClusterOp, document: &Document) -> String {
    let node = what.node();
    let uuid = document.uuids.get(node).map_or(node, String::as_str);
    let (more, down) = match what {
        ClusterOp::Fence { how, .. } => {
            (format!(" CRM_meta_stonith_action=\"{}\"", escaped(how)), how != "on")
        }
        ClusterOp::Shutdown { .. } => (" CRM_meta_op_no_wait=\"true\"".to_owned(), true),
        ClusterOp::ClearFailures { .. } | ClusterOp::Forget { .. } => (String::new(), false),
    };
    let (node, uuid) = (escaped(node), escaped(uuid));
    let mut out = format!(
        "        <attributes CRM_meta_on_node=\"{node}\" CRM_meta_on_node_uuid=\"{uuid}\"{more}/>\n"
    );
    if down {
        let _infallible =
            writeln!(out, "        <downed>\n          <node id=\"{uuid}\"/>\n        </downed>");
    }
    out
}

/// As `crm_simulate -G` writes it: action by action, for it may be longer than all else.
pub(super) fn xml(out: &mut dyn Write, plan: &Plan, document: &Document) -> io::Result<()> {
    out.write_all(head(document).as_bytes())?;
    for (index, action) in plan.actions.iter().enumerate() {
        if let Some((tag, own)) = element(plan, index, document) {
            let text = synapse(plan, document, (index, action), (tag, &own));
            out.write_all(text.as_bytes())?;
        }
    }
    out.write_all(b"</transition_graph>\n")
}

fn synapse(
    plan: &Plan,
    document: &Document,
    (index, action): (usize, &Action),
    (tag, own): (&str, &str),
) -> String {
    let mut out = format!(
        "  <synapse id=\"{index}\" priority=\"{}\">\n    <action_set>\n      {own}>\n",
        action.priority
    );
    if let ActionKind::Op(spec) = &action.kind {
        let mut names = spec.agent.split(':');
        let (class, rest): (&str, Vec<&str>) = (names.next().unwrap_or_default(), names.collect());
        let id = escaped(&spec.resource);
        let _infallible = write!(out, "        <primitive id=\"{id}\" class=\"{class}\"");
        if let [provider, kind] = *rest.as_slice() {
            let _infallible =
                write!(out, " provider=\"{}\" type=\"{}\"", escaped(provider), escaped(kind));
        } else {
            let _infallible = write!(out, " type=\"{}\"", escaped(&rest.join(":")));
        }
        out.push_str("/>\n");
        out.push_str(&attributes(&spec.params, document));
    }
    if let ActionKind::Cluster(what) = &action.kind {
        out.push_str(&cluster_op(what, document));
    }
    let _infallible = writeln!(out, "      </{tag}>\n    </action_set>\n    <inputs>");
    for need in &action.needs {
        let index = usize::try_from(need.0).unwrap_or(usize::MAX);
        if let Some((_, text)) = element(plan, index, document) {
            let _infallible = writeln!(out, "      <trigger>\n        {text}/>\n      </trigger>");
        }
    }
    out.push_str("    </inputs>\n  </synapse>\n");
    out
}

/// For graphviz: boxes are operations, ovals points in the order.
pub(super) fn dot(plan: &Plan) -> String {
    let mut out = String::from("digraph transition {\n");
    for (index, action) in plan.actions.iter().enumerate() {
        let (_, _, node) = parts(&action.kind);
        let place = node.map(|n| format!(" {n}")).unwrap_or_default();
        let label =
            format!("{}{place}", op_name(&action.kind)).replace('\\', "\\\\").replace('"', "\\\"");
        let shape = if node.is_some() { "box" } else { "oval" };
        let _infallible = writeln!(out, "  a{index} [label=\"{label}\" shape={shape}];");
        for need in &action.needs {
            let _infallible = writeln!(out, "  a{} -> a{index};", need.0);
        }
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::fenced_guest;

    #[test]
    fn only_the_fencing_of_a_guest_names_one() {
        assert_eq!(fenced_guest("stonith-web-0-off"), Some("web-0"));
        assert_eq!(fenced_guest("stonith-fence_x_stop_0"), None);
        assert_eq!(fenced_guest("web_stop_0"), None);
    }
}
