//! `crm simulate -o json`. The layout is described in `docs/semantics/simulate.md`.

use super::Told;
use super::graph::op_name;
use super::steps::{Step, steps};
use crm_core::plan::{Action, ActionKind, ClusterOp, Picture, ScorePhase};
use crm_core::simulate::Mind;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Version of the layout: counts up when a field changes its meaning or goes.
const LAYOUT: u32 = 1;

/// The whole simulation.
pub(super) fn render(told: &Told<'_>, scores: bool) -> Value {
    let run = told.run;
    let document = &told.scene.document;
    let at =
        i64::try_from(document.now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let steps = steps(run);
    let mut out = json!({
        "layout": LAYOUT,
        "decisions": match told.scene.mind { Mind::Pacemaker => "pacemaker", Mind::Crm => "crm" },
        "at": at.map(|t| t.to_string()),
        "quorum": document.quorate,
        "assumed": told.assumed,
        "warnings": told.scene.warnings,
        "before": picture(&run.before),
        "changes": changes(told),
        "summary": run.plan.summary,
        "actions": steps.iter().enumerate().map(|(n, s)| action(told, &steps, n, s)).collect::<Vec<_>>(),
        "placements": run.plan.placements,
        "reasons": run.plan.reasons,
        "after": run.end.as_ref().map(|end| picture(&end.after)),
    });
    if let (true, Some(map)) = (scores, out.as_object_mut()) {
        let rows = run.scores.iter().map(|r| {
            json!({
                "phase": phase(r.phase), "resource": r.resource, "node": r.node,
                "score": r.score.value(),
            })
        });
        map.insert("scores".to_owned(), rows.collect());
    }
    out
}

const fn phase(phase: ScorePhase) -> &'static str {
    match phase {
        ScorePhase::Primitive => "primitive",
        ScorePhase::Group => "group",
        ScorePhase::Clone => "clone",
        ScorePhase::Bundle => "bundle",
        ScorePhase::Promotion => "promotion",
    }
}

/// One entry per line of the summary: what changes, and why.
fn changes(told: &Told<'_>) -> Value {
    let lines = told.run.plan.summary.iter().map(|line| {
        let line = line.trim_start_matches("* ").trim();
        let what = line.split(" ( ").next().unwrap_or(line);
        let mut words = what.splitn(2, ' ');
        let verb = words.next().unwrap_or_default().to_ascii_lowercase();
        let label = words.next().unwrap_or_default();
        json!({
            "verb": verb,
            "resource": label,
            "blocked": line.ends_with("blocked"),
            "text": line,
            "why": told.causes.get(label),
        })
    });
    lines.collect()
}

fn action(told: &Told<'_>, steps: &[Step], number: usize, step: &Step) -> Value {
    let Some(action) = told.run.plan.actions.get(step.action) else { return Value::Null };
    let after: Vec<usize> = step.after.iter().filter(|n| **n < steps.len()).copied().collect();
    let mut out = json!({
        "step": number,
        "key": op_name(&action.kind),
        "text": step.text,
        "after": after,
        "priority": action.priority,
        "executed": step.executed,
    });
    if let (Some(map), Value::Object(more)) = (out.as_object_mut(), details(action)) {
        let resource = more.get("resource").and_then(Value::as_str).unwrap_or_default();
        let why = told.causes.get(resource).or_else(|| {
            let of = |label: &&String| label.rsplit_once(':').is_some_and(|(id, _)| id == resource);
            told.causes.iter().find(|(label, _)| of(label)).map(|(_, why)| why)
        });
        map.insert("why".to_owned(), json!(why));
        map.extend(more);
    }
    out
}

/// What it is done to, where and how.
fn details(action: &Action) -> Value {
    match &action.kind {
        ActionKind::Op(spec) => json!({
            "kind": "operation", "resource": spec.resource, "operation": spec.op,
            "interval_ms": spec.interval_ms, "node": spec.node, "agent": spec.agent,
            "timeout_ms": spec.timeout_ms, "expected_rc": spec.expected_rc,
        }),
        ActionKind::CancelMonitor { node, resource, interval_ms } => json!({
            "kind": "cancel", "resource": resource, "operation": "monitor",
            "interval_ms": interval_ms, "node": node,
        }),
        ActionKind::Cluster(what) => match what {
            ClusterOp::Fence { node, how } => {
                json!({ "kind": "fence", "operation": how, "node": node })
            }
            ClusterOp::Shutdown { node } => json!({ "kind": "shutdown", "node": node }),
            ClusterOp::ClearFailures { node, resource } => {
                json!({ "kind": "clear-failures", "resource": resource, "node": node })
            }
            ClusterOp::Forget { node, resource } => {
                json!({ "kind": "forget", "resource": resource, "node": node })
            }
        },
        ActionKind::Pseudo { name } => json!({ "kind": "point", "name": name }),
    }
}

/// Nodes and resources.
fn picture(picture: &Picture) -> Value {
    let nodes = picture.nodes.iter().map(|n| {
        json!({
            "name": n.name, "online": n.online, "clean": n.clean, "pending": n.pending,
            "standby": n.standby, "maintenance": n.maintenance,
        })
    });
    let leaves = picture.resources.iter().flat_map(|r| r.leaves());
    let resources = leaves.map(|r| {
        let at = r.active.iter().map(|(node, role)| {
            json!({ "node": node, "role": crate::status::picture::role_word(*role) })
        });
        json!({
            "resource": r.label, "active": at.collect::<Vec<_>>(), "failed": r.failed,
            "blocked": r.blocked, "managed": r.managed, "removed": r.removed,
        })
    });
    json!({ "nodes": nodes.collect::<Vec<_>>(), "resources": resources.collect::<Vec<_>>() })
}
