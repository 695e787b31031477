//! What to type to change the answer.

use super::{Cause, Facts, Remedy, Standing, Told};
use crate::plan::Placement;

/// Remedies, most direct first, none twice.
pub(super) fn all(facts: &Facts<'_>, subject: &Placement, told: &Told<'_>) -> Vec<Remedy> {
    let mut out: Vec<Remedy> = Vec::new();
    let mut add = |remedy: Remedy| {
        if !out.contains(&remedy) {
            out.push(remedy);
        }
    };
    let id = subject.instance.resource.as_str();
    let chain = facts.chain(id);
    for reason in facts.reasons(&chain) {
        if let Some(remedy) = of_resource(&reason.code, &reason.resource, &reason.text, facts) {
            add(remedy);
        }
    }
    for cause in told.waits {
        if let Some(remedy) = of_wait(cause) {
            add(remedy);
        }
    }
    for failure in told.failures.iter().filter(|f| f.fail_count > 0) {
        let id = failure.resource.split(':').next().unwrap_or_default();
        let command = format!("crm resource cleanup {id} {}", failure.node);
        let effect = format!("forgets the failures of {id} on {}", failure.node);
        add(Remedy { command, effect });
    }
    for verdict in told.nodes.iter().filter(|v| v.standing != Standing::Runs) {
        for cause in &verdict.parts {
            if let Some(remedy) = of_node(cause, &verdict.node) {
                add(remedy);
            }
        }
    }
    out
}

fn remedy(command: impl Into<String>, effect: impl Into<String>) -> Remedy {
    Remedy { command: command.into(), effect: effect.into() }
}

/// What is said about the resource as a whole.
fn of_resource(code: &str, resource: &str, text: &str, facts: &Facts<'_>) -> Option<Remedy> {
    let properties = &facts.document.cib.properties;
    match code {
        "target-role" if text.contains("Unpromoted") => {
            Some(remedy(format!("crm resource promote {resource}"), "sets target-role=Promoted"))
        }
        "target-role" => {
            Some(remedy(format!("crm resource start {resource}"), "sets target-role=Started"))
        }
        "unmanaged" => {
            Some(remedy(format!("crm resource manage {resource}"), "sets is-managed=true"))
        }
        "maintenance" if properties.flag("maintenance-mode").unwrap_or(false) => Some(remedy(
            "crm configure property maintenance-mode=false",
            "lets the cluster act again",
        )),
        "no-fencing" => Some(remedy(
            "crm configure property stonith-enabled=false",
            "does without fencing; better: configure a fence device (class stonith)",
        )),
        "stop-all-resources" => Some(remedy(
            "crm configure property stop-all-resources=false",
            "lets resources run again",
        )),
        "orphan" => Some(remedy(
            "crm configure show",
            format!(
                "{resource} is not in the configuration any more: add it again, or let it stop"
            ),
        )),
        _ => None,
    }
}

/// What it waits for.
fn of_wait(cause: &Cause) -> Option<Remedy> {
    match (cause.code.as_str(), &cause.by) {
        ("order" | "blocked", Some(other)) => Some(remedy(
            format!("crm why {other}"),
            format!("{} waits for {other}", cause.resource),
        )),
        ("no-quorum", _) => {
            Some(remedy("crm cluster status", "bring back enough nodes for a majority"))
        }
        ("unclean", _) => {
            Some(remedy("crm status", "a lost node has to come back or to be confirmed off"))
        }
        ("order-loop", _) => {
            Some(remedy("crm configure show type:order", "break the loop of order constraints"))
        }
        _ => None,
    }
}

/// What keeps it from a node.
fn of_node(cause: &Cause, node: &str) -> Option<Remedy> {
    let forbids = cause.score.is_some_and(|s| s < crate::cib::Score::ZERO);
    match (cause.code.as_str(), &cause.by) {
        ("standby", _) => {
            Some(remedy(format!("crm node online {node}"), format!("lets {node} run resources")))
        }
        ("maintenance", _) => {
            Some(remedy(format!("crm node ready {node}"), format!("ends maintenance of {node}")))
        }
        ("offline", _) => {
            Some(remedy(String::new(), format!("start crm on {node} (systemctl start crm)")))
        }
        ("failed" | "migration-threshold", _) => Some(remedy(
            format!("crm resource cleanup {} {node}", cause.resource),
            format!("forgets the failures of {} on {node}", cause.resource),
        )),
        ("location" | "discovery", Some(id)) if forbids => {
            Some(remedy(format!("crm configure delete {id}"), format!("lets it run on {node}")))
        }
        ("colocation", Some(other)) if forbids => Some(remedy(
            format!("crm why {other}"),
            format!("{} depends on where {other} runs", cause.resource),
        )),
        ("ticket", Some(ticket)) => {
            Some(remedy(String::new(), format!("grant the ticket {ticket} to this cluster")))
        }
        ("capacity", _) => Some(remedy(
            String::new(),
            format!("free capacity on {node}, or ask for less (utilization)"),
        )),
        ("health", _) if forbids => {
            Some(remedy(String::new(), format!("mend what makes {node} unhealthy (#health-...)")))
        }
        _ => None,
    }
}
