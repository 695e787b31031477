//! `crm audit`: all decisions of the cluster, and where it is weak.

use crate::Shell;
use crate::args::{AuditArgs, Format};
use crate::fail::Fail;
use crate::scene::{Extent, load};
use crate::ui::table;
use crate::why::failure_words;
use crm_core::audit::{Audit, Decision, audit};
use crm_core::cib::Role;
use crm_core::simulate::Mind;
use crm_core::why::Facts;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Version of the JSON layout: counts up when a field changes its meaning or goes.
const LAYOUT: u32 = 1;

/// Carries the command out.
pub(crate) fn run(shell: &mut Shell<'_>, args: &AuditArgs) -> Result<(), Fail> {
    let scene = load(shell, &args.scene, Extent::All)?;
    let facts = Facts::new(&scene.document, scene.mind);
    let audit = audit(&facts);
    match args.output {
        Format::Json => {
            let mut value = serde_json::to_value(&audit)
                .map_err(|e| Fail::Broken(anyhow::Error::new(e).context("write JSON")))?;
            if let Value::Object(map) = &mut value {
                map.insert("layout".to_owned(), LAYOUT.into());
                map.insert("assumed".to_owned(), json!(scene.assumed));
                map.insert("warnings".to_owned(), json!(scene.warnings));
                let mind = if scene.mind == Mind::Crm { "crm" } else { "pacemaker" };
                map.insert("decisions".to_owned(), mind.into());
            }
            shell.json(&value)
        }
        Format::Text => {
            let text = render(&audit, &shell.zone);
            shell.ui.data(&text);
            Ok(())
        }
    }
}

fn render(audit: &Audit, zone: &TimeZone) -> String {
    let mut out = String::from("Decisions:\n");
    let mut rows =
        vec![["RESOURCE", "NODE", "SCORE", "NEXT BEST", "WHY"].map(str::to_owned).to_vec()];
    rows.extend(audit.resources.iter().map(row));
    out.push_str(&if audit.resources.is_empty() {
        "  no resources\n".to_owned()
    } else {
        table(&rows, "  ")
    });
    losses(&mut out, audit);
    if !audit.capacity.is_empty() {
        let unused = audit.capacity.iter().any(|c| !c.counts);
        let note = if unused { " (not counted: placement-strategy=default)" } else { "" };
        let _infallible = writeln!(out, "Capacity{note}:");
        let mut rows = vec![["NODE", "WHAT", "USED", "OF", "FREE"].map(str::to_owned).to_vec()];
        rows.extend(audit.capacity.iter().map(|c| {
            let free = c.total - c.used;
            vec![
                c.node.clone(),
                c.name.clone(),
                c.used.to_string(),
                c.total.to_string(),
                if free < 0 { format!("{free} (too much)") } else { free.to_string() },
            ]
        }));
        out.push_str(&table(&rows, "  "));
    }
    out.push_str("Not as it is to be:\n");
    for instance in &audit.disagreements {
        let _infallible = writeln!(out, "  {}", instance.answer);
    }
    if audit.disagreements.is_empty() {
        out.push_str("  nothing\n");
    }
    if !audit.failures.is_empty() {
        out.push_str("Failures:\n");
        for failure in &audit.failures {
            let _infallible = writeln!(out, "  {}", failure_words(failure, zone));
        }
    }
    out.push_str("Lint:\n");
    for finding in &audit.findings {
        for line in finding.to_string().lines() {
            let _infallible = writeln!(out, "  {line}");
        }
    }
    if audit.findings.is_empty() {
        out.push_str("  no findings\n");
    }
    out
}

fn losses(out: &mut String, audit: &Audit) {
    out.push_str("If a node is lost:\n");
    let mut rows = Vec::new();
    for loss in &audit.losses {
        let mut words = Vec::new();
        if !loss.stops.is_empty() {
            words.push(format!("STOPS for good: {}", loss.stops.join(", ")));
        }
        if !loss.demotes.is_empty() {
            words.push(format!("nobody promoted: {}", loss.demotes.join(", ")));
        }
        if !loss.moves.is_empty() {
            words.push(format!("moves: {}", loss.moves.join(", ")));
        }
        if words.is_empty() {
            words.push("nothing changes".to_owned());
        }
        rows.push(vec![loss.node.clone(), words.join("; ")]);
    }
    if rows.is_empty() {
        out.push_str("  no node is online\n");
    }
    out.push_str(&table(&rows, "  "));
}

fn row(decision: &Decision) -> Vec<String> {
    let instance = &decision.instance;
    let cloned = instance.answer.starts_with(&format!("{}:", instance.resource));
    let label = if cloned {
        format!("{}:{}", instance.resource, instance.number)
    } else {
        instance.resource.clone()
    };
    let role = match instance.role {
        Role::Promoted => " (promoted)",
        Role::Unpromoted => " (unpromoted)",
        Role::Started | Role::Stopped => "",
    };
    let node = match (&instance.node, instance.now.as_slice()) {
        (Some(to), [(from, _)]) if from != to => format!("{from} -> {to}{role}"),
        (Some(to), _) => format!("{to}{role}"),
        (None, []) => "stopped".to_owned(),
        (None, [(from, _), ..]) => format!("{from} -> stopped"),
    };
    let next = match &decision.runner_up {
        None => "-".to_owned(),
        Some(r) if r.less == 0 => format!("{}, the same", r.node),
        Some(r) => format!("{}, {} less", r.node, r.less),
    };
    let score = decision.score.map(|s| s.to_string()).unwrap_or_default();
    vec![label, node, score, next, decision.why.clone()]
}
