//! Status: node states, transient attributes, and what each node remembers of each resource.

use super::{Kind, Life, Maker};
use crate::tree::Xml;

/// What a node remembers of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Unprobed,
    NotRunning,
    Stopped,
    Running,
    Promoted,
    FailedMonitor(u8),
    FailedPromotedMonitor,
    FailedStart,
    FailedStop,
    FailedProbe(u8),
    FailedPromote,
    FailedDemote,
    Pending(&'static str),
    /// Source of a migration; the target's index.
    Sent(usize),
    /// Target of a migration; the source's index.
    Received(usize),
}

impl Fact {
    const fn active(self) -> bool {
        matches!(self, Self::Running | Self::Promoted)
    }
}

/// One operation in a history.
struct Entry<'a> {
    op: &'a str,
    interval: u32,
    rc: u8,
    expected: u8,
    status: i8,
    /// Kept under the name of the last failure.
    failure: bool,
    peers: Option<(&'a str, &'a str)>,
}

impl<'a> Entry<'a> {
    const fn ok(op: &'a str, interval: u32, rc: u8) -> Self {
        Self { op, interval, rc, expected: rc, status: 0, failure: false, peers: None }
    }

    const fn failed(op: &'a str, interval: u32, rc: u8, expected: u8) -> Self {
        Self { op, interval, rc, expected, status: 0, failure: false, peers: None }
    }
}

/// A history of one resource on one node: its key, facts for each.
struct Line {
    leaf: usize,
    key: String,
    facts: Vec<Fact>,
}

impl Maker {
    pub(super) fn status(&mut self) -> Xml {
        let mut section = Xml::new("status", &[]);
        let lines = self.histories();
        let mut calls = 0_u32;
        for node in 0..self.nodes.len() {
            if self.nodes[node].life == Life::Unseen {
                continue;
            }
            let state = self.node_state(node, &lines, &mut calls);
            section.push(state);
        }
        if self.has("tickets") {
            let mut tickets = Xml::new("tickets", &[]);
            for id in ["ticketA", "ticketB"] {
                if self.dice.percent(75) {
                    let granted = if self.dice.percent(60) { "true" } else { "false" };
                    let attrs = [("id", id), ("granted", granted), ("last-granted", "1600000000")];
                    let mut ticket = Xml::new("ticket_state", &attrs);
                    if self.dice.percent(20) {
                        ticket = ticket.with("standby", "true");
                    }
                    tickets.push(ticket);
                }
            }
            section.push(tickets);
        }
        section
    }

    fn histories(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for top in 0..self.tops.len() {
            let made = if matches!(self.tops[top].kind, Kind::Clone | Kind::Promotable) {
                if self.tops[top].unique { self.unique_lines(top) } else { self.clone_lines(top) }
            } else {
                self.single_lines(top)
            };
            lines.extend(made);
        }
        for line in &mut lines {
            self.disturb(line);
        }
        lines
    }

    /// What a node says that does not run it.
    fn idle(&mut self) -> Fact {
        if self.maybe("cold", 50) {
            Fact::Unprobed
        } else if self.dice.percent(20) {
            Fact::Stopped
        } else {
            Fact::NotRunning
        }
    }

    /// Nodes that may have run something.
    fn hosts(&self) -> Vec<usize> {
        let runs = |i: &usize| !matches!(self.nodes[*i].life, Life::Unseen | Life::Pending);
        (0..self.nodes.len()).filter(runs).collect()
    }

    fn single_lines(&mut self, top: usize) -> Vec<Line> {
        let hosts = self.hosts();
        let runs = self.dice.percent(75);
        let home = hosts[self.dice.below(hosts.len())];
        let leaves = self.tops[top].leaves.clone();
        let cut = if self.maybe("wrong-place", 30) {
            self.dice.below(leaves.len() + 1)
        } else {
            leaves.len()
        };
        let mut lines = Vec::new();
        for (position, leaf) in leaves.into_iter().enumerate() {
            let mut facts: Vec<Fact> = (0..self.nodes.len()).map(|_| self.idle()).collect();
            if runs && position < cut {
                facts[home] = Fact::Running;
                if self.maybe("wrong-place", 10) {
                    facts[home] = Fact::Stopped;
                    facts[hosts[self.dice.below(hosts.len())]] = Fact::Running;
                }
                if self.maybe("multiple-active", 40) {
                    facts[hosts[self.dice.below(hosts.len())]] = Fact::Running;
                }
            }
            lines.push(Line { leaf, key: self.leaves[leaf].id.clone(), facts });
        }
        lines
    }

    fn clone_lines(&mut self, top: usize) -> Vec<Line> {
        let hosts = self.hosts();
        let promotable = self.tops[top].kind == Kind::Promotable;
        let all = !self.dice.percent(30);
        let promoted = self.dice.percent(70).then(|| hosts[self.dice.below(hosts.len())]);
        let second = if self.maybe("wrong-place", 20) {
            Some(hosts[self.dice.below(hosts.len())])
        } else {
            None
        };
        let mut lines: Vec<Line> = Vec::new();
        let active: Vec<bool> = (0..self.nodes.len())
            .map(|n| hosts.contains(&n) && (all || self.dice.percent(60)))
            .collect();
        for leaf in self.tops[top].leaves.clone() {
            let mut facts = Vec::new();
            for (node, active) in active.iter().enumerate() {
                let idle = self.idle();
                let master = promotable && (promoted == Some(node) || second == Some(node));
                let missing = self.maybe("wrong-place", 10);
                facts.push(match (*active && !missing, master) {
                    (true, true) => Fact::Promoted,
                    (true, false) => Fact::Running,
                    (false, _) => idle,
                });
            }
            lines.push(Line { leaf, key: self.leaves[leaf].id.clone(), facts });
        }
        lines
    }

    /// Instances by number, each at one place at most.
    fn unique_lines(&mut self, top: usize) -> Vec<Line> {
        let hosts = self.hosts();
        let promotable = self.tops[top].kind == Kind::Promotable;
        let count = self.dice.between(1, self.nodes.len());
        let mut lines = Vec::new();
        for number in 0..count {
            let home = hosts[self.dice.below(hosts.len())];
            let runs = self.dice.percent(80);
            for leaf in self.tops[top].leaves.clone() {
                let mut facts: Vec<Fact> = (0..self.nodes.len()).map(|_| self.idle()).collect();
                if runs {
                    let master = promotable && number == 0;
                    facts[home] = if master { Fact::Promoted } else { Fact::Running };
                }
                lines.push(Line { leaf, key: format!("{}:{number}", self.leaves[leaf].id), facts });
            }
        }
        lines
    }

    /// Failures, operations under way, migrations.
    fn disturb(&mut self, line: &mut Line) {
        let leaf = line.leaf;
        let (promotable, device) = (self.leaves[leaf].promotable, self.leaves[leaf].stonith);
        let monitored = self.leaves[leaf].monitors.iter().any(|(_, r)| *r != Some("Stopped"));
        for node in 0..line.facts.len() {
            let fact = line.facts[node];
            if self.maybe("failures", 20) && !device {
                line.facts[node] = match (fact, self.dice.below(6)) {
                    (Fact::Running, 0..=2) if monitored => {
                        Fact::FailedMonitor(if self.dice.percent(50) { 7 } else { 1 })
                    }
                    (Fact::Promoted, 0 | 1) if monitored => Fact::FailedPromotedMonitor,
                    (Fact::Running, 3) => Fact::FailedStart,
                    (Fact::Running | Fact::Promoted, 4) => Fact::FailedStop,
                    (Fact::Running, 5) if promotable => Fact::FailedPromote,
                    (Fact::Promoted, 5) => Fact::FailedDemote,
                    (Fact::NotRunning, 0) => {
                        Fact::FailedProbe(self.dice.pick(&["1", "5", "6"]).parse().unwrap_or(1))
                    }
                    (Fact::NotRunning, 1) => Fact::FailedStart,
                    _ => fact,
                };
            } else if self.maybe("pending-ops", 20) {
                let of: &[&'static str] = match fact {
                    Fact::Promoted => &["demote", "stop"],
                    Fact::Running if promotable => &["promote", "stop", "start"],
                    Fact::Running => &["stop", "start"],
                    Fact::NotRunning => &["start"],
                    Fact::Unprobed => &["probe"],
                    _ => &[],
                };
                if !of.is_empty() {
                    line.facts[node] = Fact::Pending(self.dice.pick(of));
                }
            }
        }
        if self.maybe("migrations", 60) && !promotable && !device {
            self.migrated(line);
        }
    }

    fn migrated(&mut self, line: &mut Line) {
        let hosts = self.hosts();
        let Some(source) = line.facts.iter().position(|f| f.active()) else { return };
        let target = hosts[self.dice.below(hosts.len())];
        if source == target || line.facts[target].active() {
            return;
        }
        match self.dice.below(3) {
            // Arrived, not yet stopped at the source.
            0 => {
                line.facts[source] = Fact::Sent(target);
                line.facts[target] = Fact::Received(source);
            }
            // Sent, and nothing known of the arrival.
            1 => line.facts[source] = Fact::Sent(target),
            // Done.
            _ => {
                line.facts[source] = Fact::Stopped;
                line.facts[target] = Fact::Received(source);
            }
        }
    }

    fn node_state(&mut self, node: usize, lines: &[Line], calls: &mut u32) -> Xml {
        let id = (node + 1).to_string();
        let name = self.nodes[node].name.clone();
        let life = self.nodes[node].life;
        let (member, process, join, expected) = match life {
            Life::Up | Life::Unseen | Life::Leaving => ("true", "online", "member", "member"),
            Life::Lost => ("false", "offline", "down", "member"),
            Life::Gone => ("false", "offline", "down", "down"),
            Life::Pending => ("true", "online", "down", "member"),
        };
        let attrs = [
            ("id", id.as_str()),
            ("uname", &name),
            ("in_ccm", member),
            ("crmd", process),
            ("join", join),
            ("expected", expected),
        ];
        let mut state = Xml::new("node_state", &attrs);
        let mut pairs: Vec<(String, String)> = Vec::new();
        if life == Life::Leaving {
            pairs.push(("shutdown".to_owned(), "1699999000".to_owned()));
        }
        if self.maybe("health", 40) {
            let colour = self.dice.pick(&["red", "yellow", "green", "-10"]);
            pairs.push(("#health-disk".to_owned(), colour.to_owned()));
        }
        if self.maybe("standby", 10) {
            pairs.push(("standby".to_owned(), "on".to_owned()));
        }
        let mut resources = Xml::new("lrm_resources", &[]);
        if life != Life::Pending {
            for line in lines {
                if let Some(history) = self.history(line, node, calls, &mut pairs) {
                    resources.push(history);
                }
            }
            if self.maybe("orphans", 30) {
                let orphan = self.orphan(node, calls);
                resources.push(orphan);
            }
        }
        self.promotion_scores(node, life, &mut pairs);
        state.push(Xml::new("lrm", &[("id", &id)]).holding(resources));
        if !pairs.is_empty() {
            let mut transient = Xml::new("transient_attributes", &[("id", &id)]);
            let pairs: Vec<(&str, String)> =
                pairs.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
            self.set(&mut transient, "instance_attributes", &pairs);
            state.push(transient);
        }
        state
    }

    fn promotion_scores(&mut self, node: usize, life: Life, pairs: &mut Vec<(String, String)>) {
        if !matches!(life, Life::Up | Life::Leaving) {
            return;
        }
        for leaf in 0..self.leaves.len() {
            if self.leaves[leaf].promotable && self.dice.percent(75) {
                let score = self.dice.pick(&["5", "10", "10", "100", "1", "-1", "0"]);
                pairs.push((format!("master-{}", self.leaves[leaf].id), score.to_owned()));
            }
        }
        let _ = node;
    }

    fn orphan(&mut self, node: usize, calls: &mut u32) -> Xml {
        let attrs =
            [("id", "orphan"), ("class", "ocf"), ("provider", "pacemaker"), ("type", "Dummy")];
        let mut history = Xml::new("lrm_resource", &attrs);
        let entry = if self.dice.percent(50) {
            Entry::ok("start", 0, 0)
        } else {
            Entry::ok("monitor", 0, 7)
        };
        let entry = self.entry("orphan", super::DIGESTS[0], node, &entry, calls);
        history.push(entry);
        history
    }

    fn history(
        &mut self,
        line: &Line,
        node: usize,
        calls: &mut u32,
        pairs: &mut Vec<(String, String)>,
    ) -> Option<Xml> {
        let fact = line.facts[node];
        if fact == Fact::Unprobed {
            return None;
        }
        let leaf = &self.leaves[line.leaf];
        let (digest, promotable, device) = (leaf.digest, leaf.promotable, leaf.stonith);
        let monitors = leaf.monitors.clone();
        let names: Vec<String> = self.nodes.iter().map(|n| n.name.clone()).collect();
        let of_role = |promoted: bool| {
            monitors
                .iter()
                .filter(|(_, role)| match role {
                    Some("Master") => promoted,
                    Some("Slave") => !promoted,
                    Some("Stopped") => false,
                    _ => true,
                })
                .map(|(interval, _)| *interval)
                .collect::<Vec<u32>>()
        };
        let entries = entries(fact, &names, node, (&of_role(false), &of_role(true)));
        let mut history = if device {
            Xml::new(
                "lrm_resource",
                &[("id", &line.key), ("class", "stonith"), ("type", "fence_dummy")],
            )
        } else {
            let kind = if promotable { "Stateful" } else { "Dummy" };
            let attrs = [
                ("id", line.key.as_str()),
                ("class", "ocf"),
                ("provider", "pacemaker"),
                ("type", kind),
            ];
            Xml::new("lrm_resource", &attrs)
        };
        for entry in &entries {
            // The failure is one operation under two names.
            if entry.failure {
                *calls -= 1;
            }
            let made = self.entry(&line.key, digest, node, entry, calls);
            history.push(made);
            if entry.failure && self.dice.percent(70) {
                let count = if entry.op == "monitor" {
                    self.dice.pick(&["1", "2", "3"])
                } else {
                    "INFINITY"
                };
                let what = format!("{}#{}_{}", line.key, entry.op, entry.interval);
                pairs.push((format!("fail-count-{what}"), count.to_owned()));
                pairs.push((format!("last-failure-{what}"), "1699999950".to_owned()));
            }
        }
        if self.maybe("failcounts", 15) && !entries.iter().any(|e| e.failure) {
            let count = self.dice.pick(&["1", "2", "5", "INFINITY"]);
            let what = format!("{}#monitor_10000", line.key);
            pairs.push((format!("fail-count-{what}"), count.to_owned()));
            let when = self.dice.pick(&["1699990000", "1699999990"]);
            pairs.push((format!("last-failure-{what}"), when.to_owned()));
        }
        Some(history)
    }

    fn entry(
        &mut self,
        key: &str,
        digest: &str,
        node: usize,
        entry: &Entry<'_>,
        calls: &mut u32,
    ) -> Xml {
        *calls += 1;
        let Entry { op, interval, rc, expected, status, failure, peers } = entry;
        let stem = match (failure, interval) {
            (true, _) => format!("{key}_last_failure_0"),
            (false, 0) => format!("{key}_last_0"),
            (false, interval) => format!("{key}_{op}_{interval}"),
        };
        let uuid = "7d0bf35c-0000-4000-8000-000000000000";
        let transition = format!("{calls}:0:{expected}:{uuid}");
        let magic = format!("{status}:{rc};{transition}");
        let mut out = Xml::new("lrm_rsc_op", &[("id", &stem)]);
        let mut put = |name: &str, value: &str| out.attrs.push((name.to_owned(), value.to_owned()));
        put("operation_key", &format!("{key}_{op}_{interval}"));
        put("operation", op);
        put("crm_feature_set", "3.16.1");
        put("transition-key", &transition);
        put("transition-magic", &magic);
        put("on_node", &self.nodes[node].name);
        put("call-id", &if *status == -1 { "-1".to_owned() } else { calls.to_string() });
        put("rc-code", &rc.to_string());
        put("op-status", &status.to_string());
        put("interval", &interval.to_string());
        put("last-rc-change", "1699999900");
        put("exec-time", "10");
        if *interval == 0 {
            put("op-digest", digest);
        } else {
            let of_monitors = super::MONITOR_DIGESTS[usize::from(digest != super::DIGESTS[0])];
            put("op-digest", of_monitors);
        }
        if let Some((source, target)) = peers {
            put("migrate_source", source);
            put("migrate_target", target);
        }
        out
    }
}

/// The operations that a fact leaves behind.
fn entries<'a>(
    fact: Fact,
    names: &'a [String],
    node: usize,
    (usual, promoted): (&[u32], &[u32]),
) -> Vec<Entry<'a>> {
    let failure = |op: &'a str, interval: u32, rc: u8, expected: u8| Entry {
        failure: true,
        ..Entry::failed(op, interval, rc, expected)
    };
    let monitors =
        |of: &[u32], rc: u8| of.iter().map(|i| Entry::ok("monitor", *i, rc)).collect::<Vec<_>>();
    let pending = |op: &'a str| Entry { rc: 193, expected: 0, status: -1, ..Entry::ok(op, 0, 0) };
    let mut out = Vec::new();
    match fact {
        Fact::Unprobed => {}
        Fact::NotRunning => out.push(Entry::ok("monitor", 0, 7)),
        Fact::Stopped => out.push(Entry::ok("stop", 0, 0)),
        Fact::Running => {
            out.push(Entry::ok("start", 0, 0));
            out.extend(monitors(usual, 0));
        }
        Fact::Promoted => {
            out.push(Entry::ok("promote", 0, 0));
            out.extend(monitors(promoted, 8));
        }
        Fact::FailedMonitor(rc) => {
            let interval = usual.first().copied().unwrap_or(10_000);
            out.push(Entry::ok("start", 0, 0));
            out.push(Entry::failed("monitor", interval, rc, 0));
            out.push(failure("monitor", interval, rc, 0));
        }
        Fact::FailedPromotedMonitor => {
            let interval = promoted.first().copied().unwrap_or(11_000);
            out.push(Entry::ok("promote", 0, 0));
            out.push(Entry::failed("monitor", interval, 9, 8));
            out.push(failure("monitor", interval, 9, 8));
        }
        Fact::FailedStart => once(&mut out, "start", failure("start", 0, 1, 0)),
        Fact::FailedStop => once(&mut out, "stop", failure("stop", 0, 1, 0)),
        Fact::FailedProbe(rc) => once(&mut out, "monitor", failure("monitor", 0, rc, 7)),
        Fact::FailedPromote => once(&mut out, "promote", failure("promote", 0, 1, 0)),
        Fact::FailedDemote => once(&mut out, "demote", failure("demote", 0, 1, 0)),
        Fact::Pending("probe") => out.push(Entry { expected: 7, ..pending("monitor") }),
        Fact::Pending(op) => out.push(pending(op)),
        Fact::Sent(target) => {
            let peers = Some((names[node].as_str(), names[target].as_str()));
            out.push(Entry { peers, ..Entry::ok("migrate_to", 0, 0) });
        }
        Fact::Received(source) => {
            let peers = Some((names[source].as_str(), names[node].as_str()));
            out.push(Entry { peers, ..Entry::ok("migrate_from", 0, 0) });
            out.extend(monitors(usual, 0));
        }
    }
    out
}

fn once<'a>(out: &mut Vec<Entry<'a>>, op: &'a str, failure: Entry<'a>) {
    out.push(Entry::failed(op, 0, failure.rc, failure.expected));
    out.push(failure);
}
