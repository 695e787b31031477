//! The live view: nodes, resources, volume and client, drawn anew twice a second.

use crate::lab::{DEVICE, Lab, VIP, VIP_NAME, VOLUME};
use crate::{client, cluster, net, node, ui, wait};
use anyhow::Result;
use crm_core::cib::Role;
use std::time::{Duration, Instant};

const REDRAW: Duration = Duration::from_millis(500);

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Stopped => "Stopped",
        Role::Started => "Started",
        Role::Unpromoted => "Unpromoted",
        Role::Promoted => "Promoted",
    }
}

fn node_line(lab: &Lab, name: &str) -> Result<String> {
    if !node::is_on(lab, name) {
        return Ok(format!("  {name:<7} off          (`crm demo heal` starts it)"));
    }
    let wire = if net::is_plugged(lab, name) { "" } else { "  LINK CUT" };
    let picture = match node::status(lab, name) {
        Ok(picture) => picture,
        Err(error) => return Ok(format!("  {name:<7} on, crmd does not answer: {error:#}{wire}")),
    };
    let standby = picture.nodes.get(name).is_some_and(|line| line.standby);
    let mode = format!("{:?}", picture.mode);
    let mut held = Vec::new();
    if let Some(entry) = picture.state.status.nodes.get(name) {
        for (id, history) in &entry.resources {
            match history.role {
                None | Some(Role::Stopped) => {}
                Some(role) => held.push(format!("{id} {}", role_word(role))),
            }
        }
    }
    let what = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
    let standby = if standby { "standby " } else { "" };
    let waiting = picture.waiting.map(|w| format!("  {w}")).unwrap_or_default();
    Ok(format!("  {name:<7} {mode:<10} {standby}{what}{wire}{waiting}"))
}

fn volume_line(lab: &Lab, name: &str) -> Option<String> {
    let status = node::volume(lab, name).ok()??;
    let role = if status.primary { "Primary" } else { "Secondary" };
    let mut line = format!("  {VOLUME}@{name:<6} {role:<9} {:?}", status.disk);
    for peer in &status.peers {
        line.push_str(&format!("  {}: {:?} {:?}", peer.node, peer.connection, peer.disk));
        if peer.out_of_sync_bytes > 0 {
            line.push_str(&format!(" {} KiB to go", peer.out_of_sync_bytes / 1024));
        }
    }
    if let Some(why) = status.suspended {
        line.push_str(&format!("  waits: {why}"));
    }
    Some(line)
}

/// The picture as text.
pub(crate) fn picture(lab: &Lab) -> Result<String> {
    let nodes = lab.nodes()?;
    let mut lines = Vec::new();
    let holder = cluster::active(lab)?.unwrap_or_else(|| "nobody".to_owned());
    if lab.is_loopback() {
        lines.push(format!("  {VOLUME} is primary: {holder}"));
    } else {
        lines.push(format!("  {VIP_NAME} {VIP}:/srv on {DEVICE}: {holder}"));
    }
    for name in &nodes {
        lines.push(node_line(lab, name)?);
    }
    for name in nodes.iter().filter(|n| node::is_on(lab, n)) {
        lines.extend(volume_line(lab, name));
    }
    match client::ask(lab, client::Question::Tally) {
        Ok(tally) => lines.push(format!("  client  {}", tally.line())),
        Err(_) => lines.push("  client  not running".to_owned()),
    }
    Ok(lines.join("\n"))
}

/// Draws until the limit, or for ever; the lab stays when the viewer goes.
pub(crate) fn watch(lab: &Lab, limit: Option<Duration>) -> Result<()> {
    let start = Instant::now();
    let mut drawn = 0;
    while limit.is_none_or(|limit| start.elapsed() < limit) {
        let text = match picture(lab) {
            Ok(text) => text,
            // A node may be switched off between two questions about it.
            Err(error) => format!("  {error:#}"),
        };
        let help = "  from another shell: crm demo standby|online|kill NODE, partition, heal, status, down; Ctrl-C leaves the lab running";
        if ui::terminal() && drawn > 0 {
            ui::raw(&format!("\x1b[{drawn}A\x1b[J"));
        }
        ui::say(&format!("{text}\n{help}"));
        drawn = text.lines().count() + 1;
        wait::pause(REDRAW);
    }
    Ok(())
}
