//! `crm fence` and `crm node fence`: cut nodes off, say that one is off, show what reaches what and what was done.

use crate::Shell;
use crate::args::{FenceAction, FenceArgs, FenceCmd, Format};
use crate::fail::Fail;
use crate::node::known;
use crate::ui::table;
use crm_core::cib::Role;
use crm_core::fencing::{Action, Coverage, History, Reached};
use crm_core::store::{FenceRequest, State};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// Records that are shown: the last ones.
const SHOWN: usize = 10;

/// `crm fence`.
pub(crate) fn run(shell: &mut Shell<'_>, command: FenceCmd) -> Result<(), Fail> {
    let output = match command {
        FenceCmd::Test(args) => return crate::fence_test::run(shell, &args),
        FenceCmd::Setup(args) => return crate::fence_setup::run(shell, &args),
        FenceCmd::Status { output } => output,
    };
    match output {
        Format::Json => {
            let (coverage, pending, history) = shell.daemon.fencing()?;
            let records: Vec<_> = history.records().collect();
            shell.json(&serde_json::json!({
                "coverage": coverage, "pending": pending, "history": records,
            }))
        }
        Format::Text => show(shell),
    }
}

/// The table of what covers what, what is under way and what was done.
pub(crate) fn show(shell: &mut Shell<'_>) -> Result<(), Fail> {
    let (coverage, pending, history) = shell.daemon.fencing()?;
    let state = shell.daemon.status()?.state;
    let mut out = String::new();
    if !state.cib.fencing_enabled() {
        out.push_str("Fencing is OFF, waived in writing (stonith-enabled=false): lost nodes are taken for dead\n");
    }
    out.push_str(&text(&coverage, &pending, &history, &shell.zone));
    let devices = devices(&state);
    if !devices.is_empty() {
        out.push_str(&format!("\nDevices:\n{}", table(&devices, "  ")));
    }
    shell.ui.data(&out);
    Ok(())
}

/// Where each device is started, and what its last monitor said.
fn devices(state: &State) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for device in state.cib.primitives().into_iter().filter(|p| p.agent.class == "stonith") {
        let known = state.status.nodes.iter().filter_map(|(node, status)| {
            let history = status.resources.get(&device.id)?;
            (history.role.is_some_and(|r| r != Role::Stopped) || history.failure.is_some())
                .then_some((node, history))
        });
        let before = rows.len();
        for (node, history) in known {
            let monitor = history.monitors.values().flatten().next_back();
            let last = history.failure.as_ref().or(monitor);
            let word = match last {
                Some(result) if result.failed() => format!("FAILED: {}", result.reason),
                Some(_) => "ok".to_owned(),
                None => "not yet".to_owned(),
            };
            rows.push(vec![device.id.clone(), device.agent.kind.clone(), node.clone(), word]);
        }
        if rows.len() == before {
            let nowhere = "not started".to_owned();
            rows.push(vec![device.id.clone(), device.agent.kind.clone(), nowhere, "-".to_owned()]);
        }
    }
    if !rows.is_empty() {
        rows.insert(0, ["DEVICE", "AGENT", "WATCHED BY", "MONITOR"].map(str::to_owned).to_vec());
    }
    rows
}

/// `crm node fence`.
pub(crate) fn node(shell: &mut Shell<'_>, args: FenceArgs) -> Result<(), Fail> {
    let FenceArgs { node, action, confirm, timeout } = args;
    let (_, cib) = shell.daemon.cib()?;
    known(&cib, &node)?;
    let action = action.map(|action| match action {
        FenceAction::Off => Action::Off,
        FenceAction::Reboot => Action::Reboot,
        FenceAction::On => Action::On,
    });
    let request = FenceRequest { target: node.clone(), action, by: "root".to_owned(), confirm };
    match shell.daemon.fence(request, timeout)? {
        Some(record) if record.evidence().is_some() => {
            shell.ui.say(&record.sentence());
            Ok(())
        }
        Some(record) => {
            let remedy = "see `crm fence status`";
            Err(Fail::with_remedy(record.sentence(), remedy))
        }
        None => Err(Fail::with_remedy(
            format!("{node} is not fenced after {}", crate::status::clock::span(timeout)),
            "it goes on; see `crm fence status`",
        )),
    }
}

fn text(
    coverage: &Coverage,
    pending: &BTreeSet<String>,
    history: &History,
    zone: &TimeZone,
) -> String {
    let mut out = String::from("Nodes:\n");
    for node in &coverage.nodes {
        if node.levels.is_empty() {
            out.push_str(&format!("  {}: no device\n", node.node));
        }
        for level in &node.levels {
            let devices: Vec<String> = level
                .devices
                .iter()
                .map(|(device, reached)| match reached {
                    Reached::Yes => device.clone(),
                    Reached::No(why) => format!("{device} (does not reach it: {why})"),
                    Reached::Unknown => format!("{device} (not asked yet)"),
                })
                .collect();
            let place = level.number.map(|n| format!(" level {n}")).unwrap_or_default();
            out.push_str(&format!("  {}{place}: {}\n", node.node, devices.join(" and ")));
        }
    }
    for finding in &coverage.findings {
        out.push_str(&format!("  WARNING: {finding}\n"));
    }
    for node in pending {
        out.push_str(&format!("Under way: {node}\n"));
    }
    let records: Vec<_> = history.records().rev().take(SHOWN).collect();
    out.push_str(if records.is_empty() { "History: none\n" } else { "History:\n" });
    for record in records {
        let at = crate::status::clock::sortable(record.ended_ms, zone);
        out.push_str(&format!("  {at}  {}\n", record.sentence()));
        for note in &record.notes {
            out.push_str(&format!("    {note}\n"));
        }
    }
    out.pop();
    out
}
