//! What is rare in clusters and only made on request, put into a cluster that is made already: patterns, rules in defaults, lifetimes of
//! constraints, options of sets, fencing levels, unfencing, histories that tell what needs a restart, names of old schemas.

use super::distant::section;
use super::{Mask, old_names};
use crate::dice::Dice;
use crate::tree::Xml;
use std::collections::BTreeMap;

const SCORES: [&str; 6] = ["INFINITY", "-INFINITY", "100", "20", "1", "-50"];

pub(super) struct Asked {
    pub(super) dice: Dice,
    pub(super) document: Xml,
    ids: usize,
}

/// The document with what `mask` asks for.
pub(super) fn add(document: Xml, seed: u64, mask: &Mask) -> Xml {
    let mut asked = Asked { dice: Dice::new(seed ^ 0x0061_736b_6564), document, ids: 0 };
    type Add = fn(&mut Asked);
    let all: [(&str, Add); 8] = [
        ("patterns", Asked::patterns),
        ("default-rules", Asked::default_rules),
        ("set-options", Asked::set_options),
        ("lifetimes", Asked::lifetimes),
        ("levels", Asked::levels),
        ("unfencing", Asked::unfencing),
        ("reloads", Asked::reloads),
        // It changes the schema: nothing can come after it.
        ("old-names", old_names::apply),
    ];
    for (feature, add) in all {
        if mask.wants(feature) {
            add(&mut asked);
        }
    }
    asked.document
}

impl Asked {
    pub(super) fn fresh(&mut self, stem: &str) -> String {
        self.ids += 1;
        format!("asked-{stem}-{}", self.ids)
    }

    pub(super) fn push(&mut self, name: &str, child: Xml) {
        if let Some(at) = section(&mut self.document, name) {
            at.push(child);
        }
    }

    /// A set of pairs.
    pub(super) fn set(&mut self, name: &'static str, pairs: &[(&str, &str)]) -> Xml {
        let mut set = Xml::new(name, &[("id", &self.fresh("set"))]);
        for (name, value) in pairs {
            let id = self.fresh("nv");
            set.push(Xml::new("nvpair", &[("id", &id), ("name", name), ("value", value)]));
        }
        set
    }

    fn ids_of(&self, elements: &[&str]) -> Vec<String> {
        let all = self.document.all().into_iter().filter(|e| elements.contains(&e.name));
        all.filter_map(|e| e.attr("id")).map(str::to_owned).collect()
    }

    fn names(&self) -> Vec<String> {
        let nodes = self.document.find("node").into_iter();
        nodes.filter_map(|n| n.attr("uname")).map(str::to_owned).collect()
    }

    fn some(&mut self, of: &[String]) -> String {
        of.get(self.dice.below(of.len())).cloned().unwrap_or_default()
    }

    /// Attributes that single nodes have, each more often than not.
    fn mark_nodes(&mut self, pairs: &[(&str, &[&str])]) {
        for name in self.names() {
            let mut own = Vec::new();
            for (attribute, values) in pairs {
                if self.dice.percent(60) {
                    own.push((*attribute, self.dice.pick(values)));
                }
            }
            let set = self.set("instance_attributes", &own);
            if let Some(node) = self.element("node", "uname", &name).filter(|_| !own.is_empty()) {
                node.children.insert(0, set);
            }
        }
    }

    fn element(&mut self, name: &str, attribute: &str, value: &str) -> Option<&mut Xml> {
        fn find<'x>(at: &'x mut Xml, (n, a, v): (&str, &str, &str)) -> Option<&'x mut Xml> {
            if at.name == n && at.attr(a) == Some(v) {
                return Some(at);
            }
            at.children.iter_mut().find_map(|child| find(child, (n, a, v)))
        }
        find(&mut self.document, (name, attribute, value))
    }

    /// Locations for all whose name fits a pattern, with what its parts matched in names of attributes.
    fn patterns(&mut self) {
        let of =
            ["^p", "^(p|c)([0-9])$", "[13]$", "!^p", "(.)([0-9])", "^m", "0|2", ".*", "!^[gm]"];
        for _ in 0..self.dice.between(1, 3) {
            let pattern = self.dice.pick(&of);
            let id = self.fresh("loc");
            let mut location = Xml::new("rsc_location", &[("id", &id), ("rsc-pattern", pattern)]);
            if self.dice.percent(15) {
                let of = ["never", "exclusive"];
                location = location.with("resource-discovery", self.dice.pick(&of));
            }
            if self.dice.percent(20) {
                location = location.with("role", self.dice.pick(&["Master", "Slave", "Started"]));
            }
            location = match self.dice.below(3) {
                0 => {
                    let (nodes, score) = (self.names(), self.dice.pick(&SCORES));
                    location.with("node", &self.some(&nodes)).with("score", score)
                }
                1 => {
                    let attribute = self.dice.pick(&["mark-%2", "mark-%0", "mark-%1"]);
                    let operation = self.dice.pick(&["eq", "ne", "defined"]);
                    let score = self.dice.pick(&SCORES);
                    let mut expression = Xml::new("expression", &[("id", &self.fresh("ex"))])
                        .with("attribute", attribute)
                        .with("operation", operation);
                    if operation != "defined" {
                        expression = expression.with("value", "100");
                    }
                    let rule = Xml::new("rule", &[("id", &self.fresh("rule")), ("score", score)]);
                    location.holding(rule.holding(expression))
                }
                _ => {
                    let attribute = self.dice.pick(&["mark-%2", "mark-%0", "mark-%1"]);
                    let rule = Xml::new("rule", &[("id", &self.fresh("rule"))])
                        .with("score-attribute", attribute);
                    let any = Xml::new("expression", &[("id", &self.fresh("ex"))])
                        .with("attribute", "#uname")
                        .with("operation", "defined");
                    location.holding(rule.holding(any))
                }
            };
            self.push("constraints", location);
        }
        let scores: &[&str] = &["100", "5", "-INFINITY", "INFINITY"];
        let names = ["mark-0", "mark-1", "mark-2", "mark-p0", "mark-p1", "mark-p", "mark-c"];
        self.mark_nodes(&names.map(|name| (name, scores)));
    }

    fn date(&mut self) -> Xml {
        let date = Xml::new("date_expression", &[("id", &self.fresh("date"))]);
        match self.dice.below(5) {
            0 => date
                .with("operation", "gt")
                .with("start", self.dice.pick(&["2020-01-01", "2030-01-01"])),
            1 => date
                .with("operation", "lt")
                .with("end", self.dice.pick(&["2020-01-01", "2030-01-01"])),
            2 => date.with("operation", "in_range").with("start", "2020-01-01").with(
                "end",
                self.dice.pick(&["2023-11-14 22:13:19Z", "2023-11-14 22:13:20Z", "2030-01-01"]),
            ),
            3 => {
                let length = Xml::new("duration", &[("id", &self.fresh("length"))])
                    .with("months", self.dice.pick(&["1", "10", "11", "12"]));
                date.with("operation", "in_range").with("start", "2023-01-01").holding(length)
            }
            // It is a Tuesday, 22:13 UTC, the 46th week.
            _ => {
                let mut spec = Xml::new("date_spec", &[("id", &self.fresh("spec"))]);
                let of =
                    [("hours", "22"), ("hours", "9-17"), ("weekdays", "2-5"), ("weekdays", "6-7")];
                let (name, value) = of[self.dice.below(of.len())];
                spec = spec.with(name, value);
                let of = [
                    ("months", "11"),
                    ("weeks", "46"),
                    ("years", "2023"),
                    ("yeardays", "1-200"),
                    ("monthdays", "14-"),
                ];
                let (name, value) = of[self.dice.below(of.len())];
                date.with("operation", "date_spec").holding(spec.with(name, value))
            }
        }
    }

    fn agent(&mut self) -> Xml {
        let mut out = Xml::new("rsc_expression", &[("id", &self.fresh("agent"))]);
        // 2.1.5 takes a provider that is not named as one that must not be there.
        if self.dice.percent(20) {
            return out.with("class", "stonith");
        }
        out = out.with("provider", self.dice.pick(&["pacemaker", "pacemaker", "heartbeat"]));
        if self.dice.percent(50) {
            out = out.with("class", self.dice.pick(&["ocf", "ocf", "stonith"]));
        }
        if self.dice.percent(70) {
            out = out.with("type", self.dice.pick(&["Dummy", "Stateful"]));
        }
        out
    }

    fn operation(&mut self) -> Xml {
        let of = ["monitor", "monitor", "start", "stop", "promote"];
        let name = self.dice.pick(&of);
        let mut out = Xml::new("op_expression", &[("id", &self.fresh("of")), ("name", name)]);
        if name == "monitor" && self.dice.percent(60) {
            out = out.with("interval", self.dice.pick(&["10s", "11s", "10000ms", "0"]));
        }
        out
    }

    fn default_rule(&mut self, operations: bool) -> Xml {
        let mut rule = Xml::new("rule", &[("id", &self.fresh("rule"))]);
        if self.dice.percent(40) {
            rule = rule.with("boolean-op", self.dice.pick(&["or", "and"]));
        }
        for _ in 0..self.dice.between(1, 2) {
            let part = match self.dice.below(if operations { 5 } else { 3 }) {
                0 if self.dice.percent(60) => self.date(),
                0..=2 => self.agent(),
                _ => self.operation(),
            };
            rule.push(part);
        }
        rule
    }

    /// Defaults that hold for some agents, operations, times.
    fn default_rules(&mut self) {
        for (name, chance) in [("rsc_defaults", 85), ("op_defaults", 60)] {
            if !self.dice.percent(chance) {
                continue;
            }
            let operations = name == "op_defaults";
            if self.document.find(name).is_empty() {
                self.push("configuration", Xml::new(name, &[]));
            }
            for _ in 0..self.dice.between(1, 3) {
                let pairs: &[(&str, &[&str])] = if operations {
                    &[
                        ("on-fail", &["block", "stop", "restart", "ignore", "standby"]),
                        ("enabled", &["true", "false"]),
                    ]
                } else {
                    &[
                        ("resource-stickiness", &["0", "7", "200", "INFINITY", "-30"]),
                        ("migration-threshold", &["1", "2"]),
                        ("is-managed", &["false", "true"]),
                        ("target-role", &["Stopped", "Started"]),
                        ("priority", &["3", "9"]),
                        ("clone-max", &["1", "2"]),
                    ]
                };
                let mut own = Vec::new();
                for (name, values) in pairs {
                    let chance = if *name == "resource-stickiness" || operations { 60 } else { 20 };
                    if self.dice.percent(chance) {
                        own.push((*name, self.dice.pick(values)));
                    }
                }
                let mut set = self.set("meta_attributes", &own);
                if self.dice.percent(75) {
                    let rule = self.default_rule(operations);
                    set.children.insert(0, rule);
                }
                if self.dice.percent(30) {
                    set = set.with("score", self.dice.pick(&["10", "20", "-5"]));
                }
                self.push(name, set);
            }
        }
    }

    /// Scores, kinds and orders that single sets have, scores of orders.
    fn set_options(&mut self) {
        for name in ["rsc_colocation", "rsc_order"] {
            let listed = self.ids_of(&[name]);
            if listed.is_empty() || self.dice.percent(50) {
                let made = self.constraint_of_sets(name);
                self.push("constraints", made);
            }
        }
        for id in self.ids_of(&["resource_set"]) {
            let colocation = self.document.find("rsc_colocation");
            let colocated =
                colocation.iter().any(|c| c.children.iter().any(|s| s.attr("id") == Some(&id)));
            let (option, value) = match (colocated, self.dice.below(3)) {
                (true, 0) => ("ordering", self.dice.pick(&["group", "listed"])),
                (true, _) => ("score", self.dice.pick(&SCORES)),
                (false, _) => ("kind", self.dice.pick(&["Mandatory", "Optional", "Serialize"])),
            };
            let chosen = self.dice.percent(60);
            if let Some(set) = self.element("resource_set", "id", &id).filter(|_| chosen) {
                set.attrs.push((option.to_owned(), value.to_owned()));
            }
        }
        for id in self.ids_of(&["rsc_order"]) {
            let score = self.dice.pick(&["0", "INFINITY", "100", "-INFINITY", "-1"]);
            let chosen = self.dice.percent(40);
            if let Some(order) = self.element("rsc_order", "id", &id).filter(|_| chosen)
                && order.attr("kind").is_none()
            {
                order.attrs.push(("score".to_owned(), score.to_owned()));
            }
        }
    }

    fn constraint_of_sets(&mut self, name: &'static str) -> Xml {
        let mut left = self.tops();
        let mut out = Xml::new(name, &[("id", &self.fresh("sets"))]);
        if name == "rsc_colocation" && self.dice.percent(70) {
            out = out.with("score", self.dice.pick(&SCORES));
        }
        for _ in 0..self.dice.between(1, 3) {
            let mut set = Xml::new("resource_set", &[("id", &self.fresh("rs"))]);
            if self.dice.percent(50) {
                set = set.with("sequential", self.dice.pick(&["true", "false"]));
            }
            if name == "rsc_order" && self.dice.percent(25) {
                set = set.with("require-all", self.dice.pick(&["true", "false"]));
            }
            for _ in 0..self.dice.between(1, 3) {
                if !left.is_empty() {
                    let id = left.remove(self.dice.below(left.len()));
                    set.push(Xml::new("resource_ref", &[("id", &id)]));
                }
            }
            if !set.children.is_empty() {
                out.push(set);
            }
        }
        out
    }

    fn tops(&self) -> Vec<String> {
        let resources = self.document.find("resources");
        let own = resources.iter().flat_map(|r| &r.children).filter(|e| e.name != "template");
        own.filter_map(|e| e.attr("id")).map(str::to_owned).collect()
    }

    /// Constraints that hold only for a time.
    fn lifetimes(&mut self) {
        let tops = self.tops();
        for _ in 0..self.dice.between(1, 3) {
            let (nodes, score) = (self.names(), self.dice.pick(&SCORES));
            let location = Xml::new("rsc_location", &[("id", &self.fresh("loc"))])
                .with("rsc", &self.some(&tops))
                .with("node", &self.some(&nodes))
                .with("score", score);
            self.push("constraints", location);
        }
        for id in self.ids_of(&["rsc_location", "rsc_colocation", "rsc_order"]) {
            if self.dice.percent(40) {
                continue;
            }
            let mut lifetime = Xml::new("lifetime", &[]);
            for _ in 0..self.dice.between(1, 2) {
                let mut rule = Xml::new("rule", &[("id", &self.fresh("rule"))]);
                if self.dice.percent(40) {
                    rule = rule.with("boolean-op", self.dice.pick(&["or", "and"]));
                }
                for _ in 0..self.dice.between(1, 2) {
                    let part = if self.dice.percent(15) {
                        // No node is asked for: it never holds.
                        let operation = self.dice.pick(&["eq", "ne"]);
                        Xml::new("expression", &[("id", &self.fresh("ex"))])
                            .with("attribute", "#uname")
                            .with("operation", operation)
                            .with("value", "n1")
                    } else {
                        self.date()
                    };
                    rule.push(part);
                }
                lifetime.push(rule);
            }
            for name in ["rsc_location", "rsc_colocation", "rsc_order"] {
                if let Some(constraint) = self.element(name, "id", &id) {
                    let at = if name == "rsc_location" { constraint.children.len() } else { 0 };
                    constraint.children.insert(at, lifetime.clone());
                }
            }
        }
    }

    pub(super) fn property(&mut self, name: &str, value: &str) {
        let id = self.fresh("nv");
        let Some(set) = section(&mut self.document, "cluster_property_set") else { return };
        set.children.retain(|p| p.attr("name") != Some(name));
        set.push(Xml::new("nvpair", &[("id", &id), ("name", name), ("value", value)]));
    }

    /// A fence device, up somewhere or not.
    fn device(&mut self, id: &str, kind: &str, sets: Vec<Xml>, digest: &str) {
        let attrs = [("id", id), ("class", "stonith"), ("type", kind)];
        let mut device = Xml::new("primitive", &attrs);
        device.children = sets;
        self.push("resources", device);
        let nodes = self.names();
        let home = self.dice.percent(70).then(|| self.some(&nodes));
        for name in nodes {
            if self.dice.percent(20) {
                continue;
            }
            let (op, rc) = if home.as_ref() == Some(&name) { ("start", 0) } else { ("monitor", 7) };
            let told = told(id, [("class", "stonith"), ("type", kind)], &[(op, rc, 900)], digest);
            if let Some(state) = self.element("node_state", "uname", &name)
                && let Some(list) = section(state, "lrm_resources")
            {
                list.push(told);
            }
        }
    }

    /// Levels say how a node is fenced, never whether.
    fn levels(&mut self) {
        self.property("stonith-enabled", "true");
        for id in ["l0", "l1"] {
            self.device(id, "fence_dummy", Vec::new(), &digest(&[]));
        }
        let mut topology = Xml::new("fencing-topology", &[]);
        for name in self.names() {
            for index in 1..=self.dice.between(0, 2) {
                let level = Xml::new("fencing-level", &[("id", &self.fresh("level"))]);
                let level = match self.dice.below(3) {
                    0 => level.with("target", &name),
                    1 => level.with("target-pattern", &format!("^{name}$")),
                    _ => level.with("target-attribute", "site").with("target-value", "a"),
                };
                let devices = self.dice.pick(&["l0", "l1", "l0,l1", "gone"]);
                topology.push(level.with("index", &index.to_string()).with("devices", devices));
            }
        }
        self.push("configuration", topology);
    }

    /// Devices that give nodes access to storage, and what needs that.
    fn unfencing(&mut self) {
        self.property("stonith-enabled", "true");
        let count = self.dice.between(1, 2);
        for number in 0..count {
            let (mut sets, mut params) = (Vec::new(), Vec::new());
            if self.dice.percent(40) {
                params.push(("devices", "/dev/sda"));
                sets.push(self.set("instance_attributes", &params));
            }
            let mut meta = vec![("provides", "unfencing")];
            if self.dice.percent(10) {
                meta.push(("requires", self.dice.pick(&["unfencing", "nothing"])));
            }
            sets.push(self.set("meta_attributes", &meta));
            let before: &[(&str, &str)] =
                if self.dice.percent(20) { &[("devices", "/dev/sdb")] } else { &params };
            self.device(&format!("u{number}"), "fence_scsi", sets, &digest(before));
        }
        for id in self.ids_of(&["primitive"]) {
            let requires = self.dice.pick(&["unfencing", "fencing", "quorum", "nothing"]);
            let chosen = self.dice.percent(60) && !id.starts_with('u');
            let set = self.set("meta_attributes", &[("requires", requires)]);
            if let Some(prim) = self.element("primitive", "id", &id).filter(|_| chosen)
                && prim.attr("class") != Some("stonith")
                && prim.values("requires").is_empty()
            {
                let operations = prim.children.iter().position(|c| c.name == "operations");
                prim.children.insert(operations.unwrap_or(prim.children.len()), set);
            }
        }
        let right = |params: &[(&str, &str)]| format!("u0:fence_scsi:{},", digest(params));
        let all = [
            right(&[]),
            right(&[("devices", "/dev/sda")]),
            format!("{}u1:fence_scsi:{},", right(&[]), digest(&[])),
        ];
        for name in self.names() {
            let mut pairs = Vec::new();
            match self.dice.below(10) {
                0..=2 => {}
                3 => pairs.push(("#node-unfenced", "0")),
                _ => pairs.push(("#node-unfenced", "1699999000")),
            }
            if self.dice.percent(50) {
                pairs.push(("#digests-all", all[self.dice.below(all.len())].as_str()));
                if self.dice.percent(30) {
                    pairs.push(("#digests-secure", all[self.dice.below(all.len())].as_str()));
                }
            }
            let set = self.set("instance_attributes", &pairs);
            let Some(state) = self.element("node_state", "uname", &name) else { continue };
            let id = state.attr("id").unwrap_or_default().to_owned();
            match section(state, "transient_attributes") {
                Some(transient) => transient.push(set),
                None => state.push(Xml::new("transient_attributes", &[("id", &id)]).holding(set)),
            }
        }
    }

    /// Histories that tell which parameters need a restart: the others are reloaded.
    fn reloads(&mut self) {
        for id in self.ids_of(&["primitive"]) {
            let mut draw = || self.dice.pick(&["1", "2"]);
            let now = [("a", draw()), ("b", draw())];
            let then = if self.dice.percent(40) {
                now
            } else {
                [("a", now[0].1), ("b", draw_other(now[1].1))]
            };
            let then =
                if self.dice.percent(15) { [("a", draw_other(now[0].1)), then[1]] } else { then };
            let lists = self.dice.percent(85);
            let secrets = self.dice.percent(15);
            let set = self.set("instance_attributes", &now);
            let chosen = self.dice.percent(80);
            let Some(prim) = self.element("primitive", "id", &id).filter(|_| chosen) else {
                continue;
            };
            if prim.children.iter().any(|c| c.name == "instance_attributes")
                || prim.attr("class") == Some("stonith")
            {
                continue;
            }
            prim.children.insert(0, set);
            let base = format!("{id}:");
            remember(&mut self.document, &mut |history: &mut Xml| {
                let own = history.attr("id").is_some_and(|i| i == id || i.starts_with(&base));
                if own {
                    for op in &mut history.children {
                        rewrite(op, &then, (lists, secrets));
                    }
                }
            });
        }
    }
}

fn draw_other(value: &str) -> &'static str {
    if value == "1" { "2" } else { "1" }
}

fn remember(at: &mut Xml, change: &mut dyn FnMut(&mut Xml)) {
    if at.name == "lrm_resource" {
        return change(at);
    }
    for child in &mut at.children {
        remember(child, change);
    }
}

/// An operation that ran with these parameters.
fn rewrite(op: &mut Xml, params: &[(&str, &str)], (lists, secrets): (bool, bool)) {
    let recurring = op.attr("interval").is_some_and(|i| i != "0");
    let mut all = params.to_vec();
    if recurring {
        all.push(("CRM_meta_timeout", "20000"));
    }
    op.attrs.retain(|(name, _)| name != "op-digest");
    let mut put = |name: &str, value: &str| op.attrs.push((name.to_owned(), value.to_owned()));
    put("op-digest", &digest(&all));
    if !recurring && lists {
        put("op-force-restart", "  a  ");
        put("op-restart-digest", &digest(&params[..1]));
    }
    if secrets {
        put("op-secure-params", "  b  ");
        put("op-secure-digest", &digest(&params[..1]));
    }
}

fn digest(params: &[(&str, &str)]) -> String {
    let owned = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    crm_core::plan::digest_of(&owned.collect::<BTreeMap<_, _>>())
}

/// A history of successes: operation, code, number of the call.
fn told(id: &str, agent: [(&str, &str); 2], ops: &[(&str, u8, u32)], digest: &str) -> Xml {
    let mut out = Xml::new("lrm_resource", &[("id", id), agent[0], agent[1]]);
    for (op, rc, call) in ops {
        let transition = format!("{call}:0:{rc}:7d0bf35c-0000-4000-8000-000000000000");
        let attrs = [("id", format!("{id}_last_0")), ("operation_key", format!("{id}_{op}_0"))];
        let mut entry = Xml::new("lrm_rsc_op", &[]);
        entry.attrs.extend(attrs.map(|(name, value)| (name.to_owned(), value)));
        out.push(
            entry
                .with("operation", op)
                .with("crm_feature_set", "3.16.1")
                .with("transition-key", &transition)
                .with("transition-magic", &format!("0:{rc};{transition}"))
                .with("call-id", &call.to_string())
                .with("rc-code", &rc.to_string())
                .with("op-status", "0")
                .with("interval", "0")
                .with("last-rc-change", "1699999900")
                .with("op-digest", digest),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Mask, cluster};

    #[test]
    fn what_is_asked_for_comes_and_nothing_else_changes_without() {
        for (feature, element) in [
            ("patterns", "expression"),
            ("default-rules", "rsc_expression"),
            ("lifetimes", "lifetime"),
            ("levels", "fencing-level"),
            ("old-names", "master"),
        ] {
            let mut mask = Mask::default();
            mask.only.insert("promotable".to_owned());
            let any = |mask: &Mask| (0..60).any(|s| !cluster(s, mask).find(element).is_empty());
            assert!(!any(&mask), "{feature}");
            mask.with.insert(feature.to_owned());
            assert!(any(&mask), "{feature}");
        }
    }
}
