//! `crm status -o json`: the elements and attributes of `crm_mon --output-as=xml` as JSON, our additions under `crm`.

use super::picture::{CloneRow, Flags, NodeState, Picture, Prim, Tree, rc_word, role_word};
use crm_core::cib::Role;
use crm_core::status::{ExecStatus, OpResult};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// Version of the layout: counts up when a field changes its meaning or goes.
const LAYOUT: u32 = 1;

/// The whole picture.
pub(crate) fn render(picture: &Picture<'_>) -> Value {
    let reply = picture.reply;
    json!({
        "layout": LAYOUT,
        "summary": summary(picture),
        "nodes": picture.nodes.iter().map(|n| json!({
            "name": n.name,
            "id": n.id,
            "online": n.state == NodeState::Online,
            "standby": n.standby,
            "maintenance": n.maintenance,
            "pending": n.state == NodeState::Pending,
            "unclean": n.state == NodeState::Unclean,
            "is_dc": n.leader,
            "resources_running": n.running,
            "type": "member",
        })).collect::<Vec<_>>(),
        "witnesses": reply.witnesses.iter().map(|(name, alive)| json!({
            "name": name,
            "online": alive,
            "type": "witness",
        })).collect::<Vec<_>>(),
        "resources": picture.resources.iter().map(|t| top(t, picture)).collect::<Vec<_>>(),
        "node_attributes": reply.state.status.nodes.iter().map(|(name, status)| json!({
            "name": name,
            "attributes": status.attrs.iter()
                .map(|(name, value)| json!({ "name": name, "value": value }))
                .collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "node_history": history(picture),
        "failures": picture.failures.iter().map(|(node, f)| failure(node, f)).collect::<Vec<_>>(),
        "crm": ours(picture),
    })
}

/// The resources alone.
pub(crate) fn resources(picture: &Picture<'_>) -> Value {
    Value::Array(picture.resources.iter().map(|t| top(t, picture)).collect())
}

fn summary(picture: &Picture<'_>) -> Value {
    let reply = picture.reply;
    let (all, disabled) = picture.instances();
    json!({
        "stack": { "type": "crm" },
        "current_dc": {
            "present": reply.leader.is_some(),
            "name": reply.leader,
            "version": reply.version,
            "with_quorum": reply.may_run(),
        },
        "last_update": { "time": time(reply.now_ms), "origin": reply.me },
        "last_change": reply.state.revisions.last().map(|r| json!({
            "time": time(r.when_ms),
            "user": r.author,
            "client": r.message,
        })),
        "nodes_configured": { "number": picture.nodes.len() },
        "resources_configured": { "number": all, "disabled": disabled },
        "cluster_options": {
            "stonith-enabled": picture.flag("stonith-enabled", true),
            "symmetric-cluster": picture.flag("symmetric-cluster", true),
            "maintenance-mode": picture.flag("maintenance-mode", false),
            "no-quorum-policy": picture.property("no-quorum-policy").unwrap_or("stop"),
        },
    })
}

fn top(tree: &Tree<'_>, picture: &Picture<'_>) -> Value {
    match tree {
        Tree::Prim(p) => primitive(p, picture, None),
        Tree::Group(g) => with_flags(
            json!({
                "kind": "group",
                "id": g.id,
                "number_resources": g.members.len(),
                "resources": g.members.iter().map(|p| primitive(p, picture, None)).collect::<Vec<_>>(),
            }),
            g.flags,
        ),
        Tree::Clone(c) => with_flags(clone(c, picture), c.flags),
    }
}

/// A clone has one entry per active instance; the instances that run nowhere share one.
fn clone(row: &CloneRow<'_>, picture: &Picture<'_>) -> Value {
    let mut instances = Vec::new();
    for prim in &row.members {
        for (node, _) in &prim.active {
            instances.push(primitive(prim, picture, Some(node)));
        }
        if prim.active.is_empty() {
            instances.push(primitive(prim, picture, None));
        }
    }
    json!({
        "kind": "clone",
        "id": row.clone.id,
        "multi_state": row.clone.promotable(),
        "unique": row.clone.meta.flag("globally-unique").unwrap_or(false),
        "instances": row.instances,
        "failed": row.members.iter().any(|p| !p.failed.is_empty()),
        "target_role": row.clone.meta.get("target-role"),
        "resources": instances,
    })
}

fn primitive(prim: &Prim<'_>, picture: &Picture<'_>, only: Option<&str>) -> Value {
    let at: Vec<&(String, Role)> =
        prim.active.iter().filter(|(n, _)| only.is_none_or(|o| o == n)).collect();
    let role = at.iter().map(|(_, r)| *r).max().unwrap_or(Role::Stopped);
    let failed = match only {
        Some(node) => prim.failed.contains(node),
        None => !prim.failed.is_empty(),
    };
    let id_of = |name: &str| picture.nodes.iter().find(|n| n.name == name).map(|n| n.id);
    with_flags(
        json!({
            "kind": "resource",
            "id": prim.primitive.id,
            "resource_agent": prim.primitive.agent.to_string(),
            "role": role_word(role),
            "target_role": prim.target_role,
            "active": !at.is_empty(),
            "orphaned": prim.orphaned,
            "failed": failed,
            "nodes_running_on": at.len(),
            "nodes": at.iter().map(|(name, _)| json!({ "name": name, "id": id_of(name) })).collect::<Vec<_>>(),
        }),
        prim.flags,
    )
}

fn with_flags(mut value: Value, flags: Flags) -> Value {
    if let Value::Object(map) = &mut value {
        map.insert("managed".to_owned(), flags.managed.into());
        map.insert("maintenance".to_owned(), flags.maintenance.into());
        map.insert("disabled".to_owned(), flags.disabled.into());
    }
    value
}

fn history(picture: &Picture<'_>) -> Value {
    let mut nodes = Vec::new();
    for (name, status) in &picture.reply.state.status.nodes {
        let mut entries = Vec::new();
        for (id, h) in &status.resources {
            let results = h.last.iter().chain(h.monitors.values().flatten());
            entries.push(json!({
                "id": id,
                "orphan": picture.reply.state.cib.primitive(id).is_none(),
                "role": h.role.map(role_word),
                "fail-count": h.fail_count,
                "start_failed": h.start_failed,
                "operation_history": results.map(operation).collect::<Vec<_>>(),
            }));
        }
        nodes.push(json!({ "name": name, "resource_history": entries }));
    }
    Value::Array(nodes)
}

fn operation(op: &OpResult) -> Value {
    json!({
        "call": op.call_id,
        "task": op.op,
        "interval_ms": op.interval_ms,
        "rc": op.rc,
        "rc_text": rc_word(op.rc),
        "status": status_word(op.status),
        "last-rc-change": time(op.when_ms),
        "exec_ms": op.exec_ms,
        "exitreason": op.reason,
    })
}

fn failure(node: &str, op: &OpResult) -> Value {
    json!({
        "op_key": format!("{}_{}_{}", op.resource, op.op, op.interval_ms),
        "node": node,
        "resource": op.resource,
        "task": op.op,
        "interval_ms": op.interval_ms,
        "exitstatus": rc_word(op.rc),
        "exitcode": op.rc,
        "exitreason": op.reason,
        "status": status_word(op.status),
        "call": op.call_id,
        "last-rc-change": time(op.when_ms),
        "exec_ms": op.exec_ms,
    })
}

const fn status_word(status: ExecStatus) -> &'static str {
    match status {
        ExecStatus::Complete => "complete",
        ExecStatus::Timeout => "timeout",
        ExecStatus::NotInstalled => "not-installed",
        ExecStatus::Cancelled => "cancelled",
    }
}

fn ours(picture: &Picture<'_>) -> Value {
    let reply = picture.reply;
    json!({
        "cluster_name": reply.state.cluster_name,
        "cluster_uuid": reply.state.cluster_uuid,
        "me": reply.me,
        "mode": reply.mode,
        "waiting": reply.waiting,
        "alarms": picture.alarms(&TimeZone::UTC),
        "busy": reply.busy,
        "cib_version": reply.state.version,
        "pending_actions": picture.pending(),
        "pending": reply.plan.summary,
        "volumes": reply.state.cib.volumes.iter().map(|v| {
            let record = reply.state.volumes.get(&v.name);
            json!({
                "name": v.name,
                "device": v.device,
                "size_bytes": v.size_bytes,
                "replicas": v.replicas.iter().map(|r| &r.node).collect::<Vec<_>>(),
                "in_sync": record.map(|r| &r.in_sync),
                "epoch": record.map(|r| r.epoch),
            })
        }).collect::<Vec<_>>(),
    })
}

fn time(when_ms: u64) -> Option<String> {
    let ms = i64::try_from(when_ms).ok()?;
    Timestamp::from_millisecond(ms).ok().map(|t| t.to_string())
}
