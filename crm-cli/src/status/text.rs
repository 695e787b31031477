//! `crm status` as text, in the layout of Pacemaker 2.1's `crm_mon`, with our own lines where we know more.

use super::clock;
use super::picture::{
    CloneRow, Flags, NodeRow, NodeState, Picture, Prim, Tree, exec_word, rc_word, role_word,
};
use crm_core::cib::Role;
use crm_core::status::{ExecStatus, OpResult};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// How to show the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    /// One list of all resources.
    ByResource,
    /// The active ones under their node (`-n`).
    ByNode,
}

/// The whole text.
pub(crate) fn render(picture: &Picture<'_>, grouping: Grouping, zone: &TimeZone) -> String {
    let mut page = Page::default();
    for alarm in picture.alarms(zone) {
        page.line(0, &format!("*** {alarm} ***"));
    }
    summary(&mut page, picture, zone);
    node_list(&mut page, picture, grouping);
    match grouping {
        Grouping::ByResource => {
            resource_list(&mut page, picture, "Full List of Resources:", &picture.resources);
        }
        Grouping::ByNode => inactive_list(&mut page, picture),
    }
    volumes(&mut page, picture);
    failures(&mut page, picture, zone);
    pending(&mut page, picture);
    page.text
}

/// The list of resources alone (`crm resource status`).
pub(crate) fn resources(picture: &Picture<'_>) -> String {
    let mut page = Page::default();
    for top in &picture.resources {
        resource(&mut page, 1, top, picture);
    }
    if picture.resources.is_empty() {
        page.item(1, "No resources");
    }
    page.text
}

/// A text with indented bullet lines.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, depth: usize, text: &str) {
        self.text.extend(std::iter::repeat_n(' ', depth * 2));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn item(&mut self, depth: usize, text: &str) {
        self.line(depth, &format!("* {text}"));
    }

    fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(0, title);
    }
}

fn summary(page: &mut Page, picture: &Picture<'_>, zone: &TimeZone) {
    let reply = picture.reply;
    if page.text.is_empty() {
        page.line(0, "Cluster Summary:");
    } else {
        page.section("Cluster Summary:");
    }
    page.item(1, "Stack: crm");
    let quorum = if reply.may_run() { "partition with quorum" } else { "partition WITHOUT quorum" };
    match &reply.leader {
        Some(dc) => {
            page.item(1, &format!("Current DC: {dc} (version {}) - {quorum}", reply.version));
        }
        None => page.item(1, "Current DC: NONE"),
    }
    page.item(1, &format!("Last updated: {} on {}", clock::long(reply.now_ms, zone), reply.me));
    if let Some(last) = reply.state.revisions.last() {
        let when = match last.when_ms {
            0 => String::new(),
            ms => format!("{} ", clock::long(ms, zone)),
        };
        page.item(1, &format!("Last change:  {when}by {} via {}", last.author, last.message));
    }
    page.item(1, &format!("{} configured", count(picture.nodes.len(), "node")));
    let (all, disabled) = picture.instances();
    let off = if disabled > 0 { format!(" ({disabled} DISABLED)") } else { String::new() };
    page.item(1, &format!("{} configured{off}", count(all, "resource instance")));
    if picture.flag("maintenance-mode", false) {
        page.line(0, "");
        page.line(7, "*** Resource management is DISABLED ***");
        page.line(1, "The cluster will not attempt to start, stop or recover services");
    }
    if !picture.flag("stonith-enabled", true) {
        page.item(1, "Fencing: OFF (stonith-enabled=false): a node that hangs is not stopped before its resources are taken over");
    }
}

fn node_list(page: &mut Page, picture: &Picture<'_>, grouping: Grouping) {
    page.section("Node List:");
    if grouping == Grouping::ByNode {
        for node in &picture.nodes {
            node_with_resources(page, node, picture);
        }
        return;
    }
    let mut online = Vec::new();
    let mut offline = Vec::new();
    for node in &picture.nodes {
        match node_words(node) {
            words if words == "online" => online.push(node.name.as_str()),
            words if words == "OFFLINE" => offline.push(node.name.as_str()),
            words => page.item(1, &format!("Node {}: {words}", node.name)),
        }
    }
    if !online.is_empty() {
        page.item(1, &format!("Online: {}", list(&online)));
    }
    if !offline.is_empty() {
        page.item(1, &format!("OFFLINE: {}", list(&offline)));
    }
    for (name, alive) in &picture.reply.witnesses {
        let how = if *alive { "online" } else { "OFFLINE" };
        page.item(1, &format!("Witness {name}: {how}"));
    }
}

/// Pacemaker's words for what a node is.
pub(crate) fn node_words(node: &NodeRow) -> String {
    match (node.state, node.standby, node.maintenance) {
        (NodeState::Unclean, ..) => "UNCLEAN (online)".to_owned(),
        (NodeState::Pending, ..) => "pending".to_owned(),
        (NodeState::Online, true, _) if node.running > 0 => {
            "standby (with active resources)".to_owned()
        }
        (NodeState::Online, true, _) => "standby".to_owned(),
        (NodeState::Online, false, true) => "maintenance".to_owned(),
        (NodeState::Online, false, false) => "online".to_owned(),
        (NodeState::Offline, true, _) => "OFFLINE (standby)".to_owned(),
        (NodeState::Offline, false, true) => "OFFLINE (maintenance)".to_owned(),
        (NodeState::Offline, false, false) => "OFFLINE".to_owned(),
    }
}

fn node_with_resources(page: &mut Page, node: &NodeRow, picture: &Picture<'_>) {
    page.item(1, &format!("Node {}: {}:", node.name, node_words(node)));
    let here: Vec<(&Prim<'_>, Role)> = picture
        .resources
        .iter()
        .flat_map(Tree::prims)
        .filter_map(|p| p.role_on(&node.name).map(|role| (p, role)))
        .collect();
    if here.is_empty() {
        return;
    }
    page.item(2, "Resources:");
    for (prim, role) in here {
        let failed = if prim.failed.contains(&node.name) { "FAILED " } else { "" };
        let agent = &prim.primitive.agent;
        let id = &prim.primitive.id;
        page.item(3, &format!("{id}\t({agent}):\t {failed}{}", role_word(role)));
    }
}

fn inactive_list(page: &mut Page, picture: &Picture<'_>) {
    let idle: Vec<&Prim<'_>> =
        picture.resources.iter().flat_map(Tree::prims).filter(|p| p.active.is_empty()).collect();
    if idle.is_empty() {
        return;
    }
    page.section("Inactive Resources:");
    for prim in idle {
        page.item(1, &prim_words(prim));
    }
}

fn resource_list(page: &mut Page, picture: &Picture<'_>, title: &str, all: &[Tree<'_>]) {
    page.section(title);
    for top in all {
        resource(page, 1, top, picture);
    }
    if all.is_empty() {
        page.item(1, "No resources");
    }
}

fn resource(page: &mut Page, depth: usize, top: &Tree<'_>, picture: &Picture<'_>) {
    match top {
        Tree::Prim(p) => page.item(depth, &prim_words(p)),
        Tree::Group(g) => {
            page.item(depth, &format!("Resource Group: {}{}:", g.id, flag_words(g.flags)));
            for member in &g.members {
                page.item(depth + 1, &prim_words(member));
            }
        }
        Tree::Clone(c) => clone_set(page, depth, c, picture),
    }
}

/// `nfs<TAB>(ocf:heartbeat:nfsserver):<TAB> Started alpha`.
fn prim_words(prim: &Prim<'_>) -> String {
    let id = &prim.primitive.id;
    let state = match prim.active.as_slice() {
        [] if prim.failed.is_empty() => "Stopped".to_owned(),
        [] => format!("Stopped (failed on {})", join(prim.failed.iter().map(String::as_str))),
        [(node, role)] => format!("{}{} {node}", failed(prim, node), role_word(*role)),
        many => {
            let names: Vec<&str> = many.iter().map(|(n, _)| n.as_str()).collect();
            format!("{} {}", role_word(many[0].1), list(&names))
        }
    };
    let orphaned = if prim.orphaned { "ORPHANED " } else { "" };
    format!("{id}\t({}):\t {orphaned}{state}{}", prim.primitive.agent, flag_words(prim.flags))
}

fn failed(prim: &Prim<'_>, node: &str) -> &'static str {
    if prim.failed.contains(node) { "FAILED " } else { "" }
}

fn flag_words(flags: Flags) -> String {
    let mut words = Vec::new();
    if flags.disabled {
        words.push("disabled");
    }
    if flags.maintenance {
        words.push("maintenance");
    } else if !flags.managed {
        words.push("unmanaged");
    }
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

fn clone_set(page: &mut Page, depth: usize, row: &CloneRow<'_>, picture: &Picture<'_>) {
    let promotable = if row.clone.promotable() { " (promotable)" } else { "" };
    let (id, child) = (&row.clone.id, row.clone.child.id());
    page.item(depth, &format!("Clone Set: {id} [{child}]{promotable}{}:", flag_words(row.flags)));
    let whole = row.whole();
    let is_failed = |node: &str| row.members.iter().any(|p| p.failed.contains(node));
    let whole_names: BTreeSet<&str> = whole.iter().map(|(n, _)| n.as_str()).collect();
    let touched = row.touched();
    for node in touched.iter().filter(|n| is_failed(n) || !whole_names.contains(*n)) {
        odd_instance(page, depth + 1, row, node);
    }
    let with = |wanted: Role| -> Vec<&str> {
        whole
            .iter()
            .filter(|(n, role)| *role == wanted && !is_failed(n))
            .map(|(n, _)| n.as_str())
            .collect()
    };
    for role in [Role::Promoted, Role::Unpromoted, Role::Started] {
        let names = with(role);
        if !names.is_empty() {
            page.item(depth + 1, &format!("{}: {}", role_word(role), list(&names)));
        }
    }
    if row.instances > touched.len() {
        let idle: Vec<&str> = picture
            .nodes
            .iter()
            .map(|n| n.name.as_str())
            .filter(|n| !touched.contains(n))
            .collect();
        let word = if row.flags.disabled { "Stopped (disabled)" } else { "Stopped" };
        if !idle.is_empty() {
            page.item(depth + 1, &format!("{word}: {}", list(&idle)));
        }
    }
}

/// An instance that is failed or only partly active: shown by itself.
fn odd_instance(page: &mut Page, depth: usize, row: &CloneRow<'_>, node: &str) {
    for member in &row.members {
        let agent = &member.primitive.agent;
        let role = member.role_on(node).map_or("Stopped", role_word);
        let failed = failed(member, node);
        page.item(depth, &format!("{}\t({agent}):\t {failed}{role} {node}", member.primitive.id));
    }
}

fn volumes(page: &mut Page, picture: &Picture<'_>) {
    let state = &picture.reply.state;
    if state.cib.volumes.is_empty() {
        return;
    }
    page.section("Replicated Volumes:");
    for volume in &state.cib.volumes {
        let record = state.volumes.get(&volume.name);
        let good = |node: &str| record.is_some_and(|r| r.in_sync.contains(node));
        let (fresh, stale): (Vec<&str>, Vec<&str>) =
            volume.replicas.iter().map(|r| r.node.as_str()).partition(|n| good(n));
        let mut words =
            format!("{}\t({}):\t UpToDate: {}", volume.name, volume.device, list(&fresh));
        if !stale.is_empty() {
            words.push_str("  not in sync: ");
            words.push_str(&list(&stale));
        }
        page.item(1, &words);
    }
}

fn failures(page: &mut Page, picture: &Picture<'_>, zone: &TimeZone) {
    if !picture.counts.is_empty() {
        page.section("Migration Summary:");
        let mut node = "";
        for entry in &picture.counts {
            if entry.node != node {
                node = entry.node;
                page.item(1, &format!("Node: {node}:"));
            }
            let count = if entry.fatal { "1000000".to_owned() } else { entry.count.to_string() };
            let last = clock::long(entry.last_ms, zone);
            page.item(
                2,
                &format!(
                    "{}: migration-threshold={} fail-count={count} last-failure='{last}'",
                    entry.resource, entry.threshold
                ),
            );
        }
    }
    if !picture.failures.is_empty() {
        page.section("Failed Resource Actions:");
        for (node, failure) in &picture.failures {
            page.item(1, &failure_words(node, failure, zone));
        }
    }
}

/// `nfs 5s-interval monitor on alpha returned 'not running' (reason) at TIME after 20ms`.
pub(crate) fn failure_words(node: &str, failure: &OpResult, zone: &TimeZone) -> String {
    let interval = match failure.interval_ms {
        0 => String::new(),
        ms => format!("{}-interval ", clock::span(ms)),
    };
    let probe = failure.op == "monitor" && failure.interval_ms == 0;
    let op = if probe { "probe" } else { failure.op.as_str() };
    let reason = failure.reason.trim();
    let result = match (failure.status, reason) {
        (ExecStatus::Complete, "") => format!("returned '{}'", rc_word(failure.rc)),
        (ExecStatus::Complete, _) => format!("returned '{}' ({reason})", rc_word(failure.rc)),
        (status, "") => format!("could not be executed ({})", exec_word(status)),
        (status, _) => format!("could not be executed ({}: {reason})", exec_word(status)),
    };
    let when = clock::long(failure.when_ms, zone);
    let took = match failure.exec_ms {
        0 => String::new(),
        ms => format!(" after {}", clock::span(ms)),
    };
    format!("{} {interval}{op} on {node} {result} at {when}{took}", failure.resource)
}

fn pending(page: &mut Page, picture: &Picture<'_>) {
    let actions = picture.pending();
    if actions == 0 {
        return;
    }
    let doing = if picture.reply.busy { "in progress" } else { "not begun" };
    page.section(&format!("Pending: {} ({doing})", count(actions, "action")));
    for line in &picture.reply.plan.summary {
        page.line(
            1,
            if line.starts_with('*') { line.clone() } else { format!("* {line}") }.as_str(),
        );
    }
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "[ ]".to_owned() } else { format!("[ {} ]", names.join(" ")) }
}

fn join<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
