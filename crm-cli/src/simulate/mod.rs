//! `crm simulate`: the policy engine on a configuration with its status, as files; changes nothing anywhere.

mod graph;
mod pacemaker;

use crate::Shell;
use crate::args::{Format, SimulateArgs, Style};
use crate::fail::Fail;
use crate::source::read_text;
use crate::text_file::whole_text;
use anyhow::Context;
use crm_core::cib::Cib;
use crm_core::plan::{NodeView, Picture};
use crm_core::simulate::{Outcome, Run, run as simulate};
use crm_core::status::{NodeStatus, Status};
use crm_core::xml::{self, Document};
use serde_json::{Value, json};
use std::path::Path;

/// Carries the command out.
pub(crate) fn run(shell: &mut Shell<'_>, args: &SimulateArgs) -> Result<(), Fail> {
    let now_ms = match &args.at {
        Some(text) => xml::parse_time_ms(text).ok_or_else(|| {
            let remedy = "--at '2026-03-01 12:00:00Z', or seconds since the epoch";
            Fail::with_remedy(format!("`{text}` is not a time"), remedy)
        })?,
        None => u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0),
    };
    let mut document = load(shell, &args.cib, now_ms)?;
    change(&mut document, args)?;
    let outcomes: Vec<Outcome> =
        args.op_result.iter().map(|text| outcome(text)).collect::<Result<_, _>>()?;
    let run = simulate(&document, &outcomes);
    if let Some(path) = &args.graph {
        write(path, &graph::xml(&run.plan, &document))?;
    }
    if let Some(path) = &args.dot {
        write(path, &graph::dot(&run.plan))?;
    }
    if args.output == Format::Json {
        return shell.json(&as_json(&run, args.scores));
    }
    let mut text = match args.style {
        Style::Pacemaker => pacemaker::render(&run),
        Style::Plain => plain(&run),
    };
    if args.scores {
        text.push_str(&reasons(&run));
    }
    shell.ui.data(&text);
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Fail> {
    Ok(std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?)
}

/// XML, YAML or crm text, by what is in it. Without a status all nodes are up and nothing is known of any resource.
fn load(shell: &Shell<'_>, path: &Path, now_ms: u64) -> Result<Document, Fail> {
    let text = read_text(path)?;
    if text.trim_start().starts_with('<') {
        return xml::read(&text, now_ms).map_err(|problems| {
            let name =
                if path.as_os_str() == "-" { "<stdin>".into() } else { path.display().to_string() };
            let lines: Vec<String> = problems.iter().map(|p| format!("{name}:{p}")).collect();
            Fail::refused(lines.join("\n"))
        });
    }
    let (cib, _) = whole_text(shell, path, &text, &Cib::default(), 0)?;
    let names = || cib.nodes.iter().map(|n| n.name.clone());
    Ok(Document {
        nodes: names().map(|name| (name, NodeView::ONLINE)).collect(),
        status: Status {
            nodes: names().map(|name| (name, NodeStatus::default())).collect(),
            ..Status::default()
        },
        uuids: cib.nodes.iter().map(|n| (n.name.clone(), n.id.to_string())).collect(),
        quorate: true,
        now_ms,
        cib,
        ..Document::default()
    })
}

/// The "what if" options.
fn change(document: &mut Document, args: &SimulateArgs) -> Result<(), Fail> {
    let views = [
        (&args.node_up, NodeView::ONLINE),
        (&args.node_down, NodeView::GONE),
        (&args.node_lost, NodeView::LOST),
    ];
    for (names, view) in views {
        for name in names {
            known(document, name)?;
            document.nodes.insert(name.clone(), view);
            if view == NodeView::LOST {
                document.fence.insert(name.clone(), "peer is lost (--node-lost)".to_owned());
            } else {
                document.fence.remove(name);
            }
        }
    }
    for name in &args.node_standby {
        known(document, name)?;
        if let Some(node) = document.cib.node_mut(name) {
            node.attributes.set("standby", "on");
        }
    }
    if let Some(quorate) = args.quorum {
        document.quorate = quorate;
    }
    Ok(())
}

fn known(document: &Document, name: &str) -> Result<(), Fail> {
    if document.cib.node(name).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = document.cib.nodes.iter().map(|n| n.name.as_str()).collect();
    Err(Fail::with_remedy(
        format!("no node is called `{name}`"),
        format!("one of {}", names.join(" ")),
    ))
}

/// Reads `RSC_OP_INTERVAL@NODE=RC`.
fn outcome(text: &str) -> Result<Outcome, Fail> {
    let read = || {
        let (key, rest) = text.split_once('@')?;
        let (node, rc) = rest.split_once('=')?;
        let (key, interval) = key.rsplit_once('_')?;
        let (resource, op) = key.rsplit_once('_')?;
        Some(Outcome {
            resource: resource.to_owned(),
            op: op.to_owned(),
            interval_ms: interval.parse().ok()?,
            node: node.to_owned(),
            rc: rc.parse().ok()?,
        })
    };
    read().ok_or_else(|| {
        let remedy = "--op-result web_monitor_10000@alpha=7";
        Fail::with_remedy(format!("`{text}` is not RSC_OP_INTERVAL@NODE=RC"), remedy)
    })
}

fn plain(run: &Run) -> String {
    if run.plan.summary.is_empty() {
        return "nothing to do\n".to_owned();
    }
    let mut out = String::new();
    for line in &run.plan.summary {
        out.push_str(line.trim_start_matches("* "));
        out.push('\n');
    }
    out
}

fn reasons(run: &Run) -> String {
    let mut out = String::from("\nReasons:\n");
    for reason in &run.plan.reasons {
        let node = reason.node.as_ref().map(|n| format!(" on {n}")).unwrap_or_default();
        out.push_str(&format!("  * {}{node}: {}\n", reason.resource, reason.text));
    }
    out
}

fn as_json(run: &Run, scores: bool) -> Value {
    let mut out = json!({
        "before": picture(&run.before),
        "summary": run.plan.summary,
        "actions": run.plan.actions,
        "placements": run.plan.placements,
        "executed": run.executed,
        "after": picture(&run.after),
    });
    if let (true, Some(map)) = (scores, out.as_object_mut()) {
        map.insert("reasons".to_owned(), json!(run.plan.reasons));
    }
    out
}

fn picture(picture: &Picture) -> Value {
    let nodes = picture.nodes.iter().map(|n| {
        json!({
            "name": n.name, "online": n.online, "clean": n.clean, "pending": n.pending,
            "standby": n.standby, "maintenance": n.maintenance,
        })
    });
    let leaves = picture.resources.iter().flat_map(|r| r.leaves());
    let resources = leaves.map(|r| {
        json!({
            "resource": r.label, "active": r.active, "failed": r.failed,
            "blocked": r.blocked, "managed": r.managed, "removed": r.removed,
        })
    });
    json!({ "nodes": nodes.collect::<Vec<_>>(), "resources": resources.collect::<Vec<_>>() })
}
