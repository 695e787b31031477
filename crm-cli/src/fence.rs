//! `crm fence` and `crm node fence`: cut nodes off, say that one is off, show what reaches what and what was done.

use crate::Shell;
use crate::args::{FenceAction, FenceArgs, FenceCmd, Format};
use crate::fail::Fail;
use crate::node::known;
use crm_core::fencing::{Action, Coverage, History, Reached};
use crm_core::store::FenceRequest;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// Records that are shown: the last ones.
const SHOWN: usize = 10;

/// `crm fence`.
pub(crate) fn run(shell: &mut Shell<'_>, command: FenceCmd) -> Result<(), Fail> {
    let FenceCmd::Status { output } = command;
    let (coverage, pending, history) = shell.daemon.fencing()?;
    match output {
        Format::Json => {
            let records: Vec<_> = history.records().collect();
            shell.json(&serde_json::json!({
                "coverage": coverage, "pending": pending, "history": records,
            }))
        }
        Format::Text => {
            shell.ui.data(&text(&coverage, &pending, &history, &shell.zone));
            Ok(())
        }
    }
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
