//! A simulation in the sections and words of `crm_simulate -S`.

use super::Told;
use super::graph::{fenced_guest, op_name};
use crm_core::cib::Role;
use crm_core::plan::{
    ActionKind, ClusterOp, Made, NodePicture, NodePlace, Picture, RscPicture, picture,
};
use crm_core::simulate::{Run, input_for};
use std::fmt::Write as _;

/// All sections.
pub(super) fn render(told: &Told<'_>, scores: bool) -> String {
    let run = told.run;
    let mut out = String::from("Current cluster status:\n");
    if told.assumed.is_empty() {
        status(&mut out, &run.before);
    } else {
        // As it is, then what is assumed: the plan is made from both.
        let scene = told.scene;
        status(&mut out, &picture(&input_for(scene.unchanged(), scene.mind)));
        out.push_str("\nPerforming Requested Modifications:\n");
        for line in told.assumed {
            let _infallible = writeln!(out, "  * {line}");
        }
    }
    if scores {
        out.push_str("\nAssignment Scores:\n");
        for line in super::scores::pacemaker(&run.scores).lines() {
            let _infallible = writeln!(out, "  * {line}");
        }
    }
    decided(&mut out, run);
    out
}

/// The same of a simulation alone: nothing assumed, no scores.
pub(super) fn render_run(run: &Run) -> String {
    let mut out = String::from("Current cluster status:\n");
    status(&mut out, &run.before);
    decided(&mut out, run);
    out
}

/// What is done, and what is seen then.
fn decided(out: &mut String, run: &Run) {
    if !run.plan.summary.is_empty() {
        out.push_str("\nTransition Summary:\n");
        for line in &run.plan.summary {
            let _infallible = writeln!(out, "  {line}");
        }
    }
    let Some(end) = &run.end else { return };
    out.push_str("\nExecuting Cluster Transition:\n");
    for index in &end.executed {
        if let Some(action) = run.plan.actions.get(*index) {
            let _infallible = writeln!(out, "  * {}", executed(&action.kind));
        }
    }
    out.push_str("\nRevised Cluster Status:\n");
    let mut after = end.after.clone();
    after.resources.iter_mut().for_each(forget_what_is_under_way);
    status(out, &after);
}

/// Afterwards Pacemaker does not name what is still under way, only its node.
fn forget_what_is_under_way(r: &mut RscPicture) {
    if let Some((op, _)) = &mut r.pending {
        op.clear();
    }
    r.children.iter_mut().for_each(forget_what_is_under_way);
}

fn executed(kind: &ActionKind) -> String {
    match kind {
        ActionKind::Op(spec) if spec.interval_ms > 0 => {
            format!(
                "Resource action: {:<15} {}={} on {}",
                spec.resource, spec.op, spec.interval_ms, spec.node
            )
        }
        ActionKind::Op(spec) => {
            format!("Resource action: {:<15} {} on {}", spec.resource, spec.op, spec.node)
        }
        ActionKind::CancelMonitor { node, resource, interval_ms } => {
            format!("Resource action: {resource:<15} cancel={interval_ms} on {node}")
        }
        ActionKind::Cluster(ClusterOp::Fence { node, how }) => format!("Fencing {node} ({how})"),
        ActionKind::Cluster(ClusterOp::Shutdown { node }) => {
            format!("Cluster action:  do_shutdown on {node}")
        }
        ActionKind::Cluster(ClusterOp::ClearFailures { node, resource }) => {
            format!("Cluster action:  clear_failcount for {resource} on {node}")
        }
        ActionKind::Cluster(ClusterOp::Forget { node, resource }) => {
            format!("Resource action: {resource:<15} delete on {node}")
        }
        ActionKind::Pseudo { name } => {
            let at = fenced_guest(name).map(|node| format!(" on {node}")).unwrap_or_default();
            format!("Pseudo action:   {}{at}", op_name(kind))
        }
    }
}

fn status(out: &mut String, picture: &Picture) {
    out.push_str("  * Node List:\n");
    let prefix = |node: &NodePicture| match node.place {
        NodePlace::Member => "",
        NodePlace::Remote => "Remote",
        NodePlace::Guest => "Guest",
    };
    let mut lists: Vec<(String, Vec<&str>)> =
        ["Online", "OFFLINE", "RemoteOnline", "RemoteOFFLINE", "GuestOnline"]
            .map(|word| (word.to_owned(), Vec::new()))
            .into();
    for node in &picture.nodes {
        if let Some(words) = words(picture, node) {
            let _infallible = writeln!(out, "    * {}Node {}: {words}", prefix(node), node.name);
            continue;
        }
        let word = format!("{}{}", prefix(node), if node.online { "Online" } else { "OFFLINE" });
        if let Some((_, names)) = lists.iter_mut().find(|(list, _)| *list == word) {
            names.push(node.name.as_str());
        }
    }
    for (word, names) in lists {
        if !names.is_empty() {
            let _infallible = writeln!(out, "    * {word}: [ {} ]", names.join(" "));
        }
    }
    out.push_str("\n  * Full List of Resources:\n");
    for resource in picture.resources.iter().filter(|r| !r.hidden) {
        show(out, picture, resource, 4);
    }
}

/// What makes a node more than online or offline.
fn words(picture: &Picture, node: &NodePicture) -> Option<String> {
    let busy = picture.resources.iter().any(|r| {
        r.any(&|r| r.children.is_empty() && r.active.iter().any(|(n, _)| *n == node.name))
    });
    let text = if !node.clean && node.online {
        "UNCLEAN (online)"
    } else if node.pending && node.online {
        "pending"
    } else if !node.clean {
        "UNCLEAN (offline)"
    } else if node.standby && node.online {
        if busy { "standby (with active resources)" } else { "standby" }
    } else if node.standby {
        "OFFLINE (standby)"
    } else if node.maintenance {
        if node.online { "maintenance" } else { "OFFLINE (maintenance)" }
    } else {
        return None;
    };
    Some(text.to_owned())
}

fn show(out: &mut String, picture: &Picture, r: &RscPicture, indent: usize) {
    let pad = " ".repeat(indent);
    match &r.made {
        Made::Primitive { agent } => {
            let _infallible = writeln!(out, "{pad}* {}\t({agent}):\t {}", r.label, state(r));
        }
        Made::Group => {
            let _infallible = writeln!(out, "{pad}* Resource Group: {}:", r.label);
            for member in &r.children {
                show(out, picture, member, indent + 2);
            }
        }
        Made::Bundle { unique, image } => {
            let word =
                if r.children.len() == 1 { "Container bundle" } else { "Container bundle set" };
            let unique = if *unique { " (unique)" } else { "" };
            let managed = if r.managed { "" } else { " (unmanaged)" };
            let _infallible =
                writeln!(out, "{pad}* {word}: {} [{image}]{unique}{managed}:", r.label);
            for replica in &r.children {
                show(out, picture, replica, indent + 2);
            }
        }
        Made::Clone { promotable, unique, of } => {
            let mut notes = Vec::new();
            if *promotable {
                notes.push("promotable");
            }
            if *unique {
                notes.push("unique");
            }
            let notes =
                if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
            let _infallible = writeln!(out, "{pad}* Clone Set: {} [{of}]{notes}:", r.label);
            instances(out, picture, r, (*promotable, *unique), indent + 2);
        }
    }
}

/// Instances one by one where there is something to say of them, the others as lists of nodes.
fn instances(
    out: &mut String,
    picture: &Picture,
    clone: &RscPicture,
    (promotable, unique): (bool, bool),
    indent: usize,
) {
    let (mut promoted, mut started) = (Vec::new(), Vec::new());
    for instance in &clone.children {
        let leaves = instance.leaves();
        let active = leaves.iter().filter(|l| !l.active.is_empty() && !l.gone).count();
        let noteworthy = leaves.iter().any(|l| l.failed || l.blocked || l.unclean || l.removed)
            || (active > 0 && leaves.iter().any(|l| !l.managed));
        let busy = instance.pending.as_ref().is_some_and(|(op, _)| under_way(op).is_some());
        if unique || noteworthy || busy || (active > 0 && active < leaves.len()) {
            if active > 0 || unique || busy {
                show(out, picture, instance, indent);
            }
            continue;
        }
        let first = leaves.first().and_then(|l| l.active.first());
        let Some((node, _)) = first.filter(|_| active > 0) else { continue };
        let role = leaves.iter().flat_map(|l| l.active.iter().map(|(_, role)| *role)).max();
        if role == Some(Role::Promoted) {
            promoted.push(node.as_str());
        } else {
            started.push(node.as_str());
        }
    }
    let pad = " ".repeat(indent);
    let usual = if promotable { "Unpromoted" } else { "Started" };
    for (word, mut nodes) in [("Promoted", promoted), (usual, started)] {
        if !nodes.is_empty() {
            nodes.sort_unstable();
            let _infallible = writeln!(out, "{pad}* {word}: [ {} ]", nodes.join(" "));
        }
    }
}

/// Pacemaker's word for an operation that has begun and not ended.
fn under_way(op: &str) -> Option<&'static str> {
    Some(match op {
        "start" => "Starting",
        "stop" => "Stopping",
        "promote" => "Promoting",
        "demote" => "Demoting",
        "migrate_to" | "migrate_from" => "Migrating",
        _ => return None,
    })
}

fn state(r: &RscPicture) -> String {
    let role = r.active.iter().map(|(_, role)| *role).max().unwrap_or(Role::Stopped);
    let mut words = Vec::new();
    if r.removed {
        words.push("ORPHANED");
    }
    if r.failed {
        words.push("FAILED");
    }
    if !r.failed || role == Role::Promoted {
        let busy = r.pending.as_ref().and_then(|(op, _)| under_way(op));
        words.push(match role {
            _ if busy.is_some() => busy.unwrap_or_default(),
            Role::Stopped => "Stopped",
            Role::Started => "Started",
            Role::Unpromoted => "Unpromoted",
            Role::Promoted => "Promoted",
        });
    }
    let mut text = words.join(" ");
    let node = match (r.active.as_slice(), &r.pending) {
        ([(node, _)], _) | ([], Some((_, node))) => Some(node),
        _ => None,
    };
    if let Some(node) = node {
        let _infallible = write!(text, " {node}");
    }
    let mut notes = Vec::new();
    if r.unclean {
        notes.push("UNCLEAN");
    }
    if r.blocked {
        notes.push("blocked");
    }
    if !r.managed {
        notes.push("unmanaged");
    }
    if !notes.is_empty() {
        let _infallible = write!(text, " ({})", notes.join(", "));
    }
    if r.active.len() > 1 {
        let nodes: Vec<&str> = r.active.iter().map(|(n, _)| n.as_str()).collect();
        let _infallible = write!(text, " [ {} ]", nodes.join(" "));
    }
    text
}
