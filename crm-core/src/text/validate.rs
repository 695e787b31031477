//! What a whole CIB must be to be committed: names that exist, values that can be read, no loops.

use super::catalog::{AgentCatalog, AgentInfo, nearest_agent};
use super::diagnostic::{Diagnostic, Severity, Spans};
use super::nearest::nearest;
use super::parser::constraint_role;
use super::{edit, known, loops};
use crate::cib::{
    Cib, Constraint, FencingTarget, INSTANCES_MAX, NvSet, Primitive, QUORUM_OPTIONS, Resource,
    parse_bool, parse_duration_ms,
};
use crate::fencing::is_own_parameter;
use crm_quorum::{Policy, PolicyError};
use std::collections::{BTreeMap, BTreeSet};

/// Checks a CIB; `spans` says where its parts were written. Errors first, then by place.
#[must_use]
pub fn validate(cib: &Cib, spans: &Spans, catalog: &dyn AgentCatalog) -> Vec<Diagnostic> {
    let resources: BTreeSet<String> = edit::resource_ids(cib).into_iter().collect();
    let mut check = Check { cib, spans, resources, found: Vec::new() };
    for primitive in cib.primitives() {
        check.agent(primitive, catalog);
        check.operations(primitive);
    }
    for resource in &cib.resources {
        check.metas(resource, false);
    }
    check.ids();
    check.node_numbers();
    for constraint in &cib.constraints {
        check.constraint(constraint);
    }
    check.fencing();
    check.volumes();
    check.properties();
    check.set("rsc_defaults:", "options", &cib.rsc_defaults, known::META, "resource default");
    check.set(
        "op_defaults:",
        "options",
        &cib.op_defaults,
        known::OP_ATTRIBUTES,
        "operation default",
    );
    check.meta_values("rsc_defaults:", "options", &cib.rsc_defaults);
    check.loops();
    let mut found = check.found;
    found.sort_by(|a, b| {
        (b.severity, &a.file, a.line, a.column).cmp(&(a.severity, &b.file, b.line, b.column))
    });
    found
}

struct Check<'a> {
    cib: &'a Cib,
    spans: &'a Spans,
    resources: BTreeSet<String>,
    found: Vec<Diagnostic>,
}

/// One finding in the making.
struct Finding<'a> {
    code: &'a str,
    object: &'a str,
    part: &'a str,
    message: String,
    help: Option<String>,
    expected: Option<String>,
}

impl<'a> Finding<'a> {
    const fn new(code: &'a str, object: &'a str, part: &'a str, message: String) -> Self {
        Self { code, object, part, message, help: None, expected: None }
    }

    fn near(mut self, name: Option<&str>) -> Self {
        self.help = name.map(|name| format!("did you mean `{name}`?"));
        self
    }

    fn expected(mut self, what: impl Into<String>) -> Self {
        self.expected = Some(what.into());
        self
    }

    fn help(mut self, what: impl Into<String>) -> Self {
        self.help = Some(what.into());
        self
    }
}

impl Check<'_> {
    fn add(&mut self, severity: Severity, finding: Finding<'_>) {
        let place = self.spans.find(finding.object, finding.part);
        let mut out = Diagnostic::new(severity, finding.code, place, finding.message);
        out.help = finding.help;
        out.expected = finding.expected;
        self.found.push(out);
    }

    fn agent(&mut self, p: &Primitive, catalog: &dyn AgentCatalog) {
        let Some(info) = catalog.agent(&p.agent) else {
            let near = nearest_agent(&p.agent, catalog);
            let message = format!("there is no agent `{}` (for `{}`)", p.agent, p.id);
            let finding = Finding::new("CRM0014", &p.id, "agent", message).near(near.as_deref());
            self.add(Severity::Error, finding);
            return;
        };
        for nv in &p.params.pairs {
            if info.params.contains_key(&nv.name) || self.of_device(p, &nv.name, &info) {
                continue;
            }
            let near = nearest(&nv.name, info.params.keys().map(String::as_str));
            let part = format!("params/{}", nv.name);
            let message = format!("`{}` has no parameter `{}`", p.agent, nv.name);
            let mut finding = Finding::new("CRM0015", &p.id, &part, message).near(near);
            if near.is_none() {
                let names: Vec<&str> = info.params.keys().map(String::as_str).collect();
                finding = finding.expected(names.join(", "));
            }
            self.add(Severity::Error, finding);
        }
        let inherited = self.inherited_params(&p.id);
        for (name, _) in info.params.iter().filter(|(_, required)| **required) {
            if p.params.get(name).is_none() && !inherited.contains(name) {
                let message = format!("`{}` lacks the parameter `{name}` of `{}`", p.id, p.agent);
                let finding = Finding::new("CRM0016", &p.id, "agent", message)
                    .help(format!("add `params {name}=...`"));
                self.add(Severity::Error, finding);
            }
        }
    }

    /// True for a parameter of a fencing device that its agent need not know: the cluster reads it, or nothing is known of the agent.
    fn of_device(&mut self, p: &Primitive, name: &str, info: &AgentInfo) -> bool {
        if p.agent.class != "stonith" {
            return false;
        }
        if name.starts_with("pcmk_") && !is_own_parameter(name) {
            let part = format!("params/{name}");
            let message = format!("`{name}` is not a known parameter of devices; it has no effect");
            let near = nearest(name, known::DEVICE_PARAMETERS.iter().copied());
            let finding = Finding::new("CRM0018", &p.id, &part, message).near(near);
            self.add(Severity::Warning, finding);
        }
        name.starts_with("pcmk_") || info.params.is_empty()
    }

    /// Names of the parameters that a primitive gets from its group or clone.
    fn inherited_params(&self, id: &str) -> Vec<String> {
        fn visit(resource: &Resource, out: &mut Vec<String>) {
            let own = match resource {
                Resource::Primitive(_) | Resource::Bundle(_) => return,
                Resource::Group(g) => &g.params,
                Resource::Clone(c) => {
                    visit(&c.child, out);
                    &c.params
                }
            };
            out.extend(own.pairs.iter().map(|nv| nv.name.clone()));
        }
        let mut out = Vec::new();
        if let Some(top) = self.cib.top_of(id) {
            visit(top, &mut out);
        }
        out
    }

    fn operations(&mut self, p: &Primitive) {
        for (index, op) in p.ops.iter().enumerate() {
            for nv in &op.attrs.pairs {
                let part = format!("op/{index}/{}", nv.name);
                let value = nv.value.as_deref().unwrap_or_default();
                match nv.name.as_str() {
                    "interval" | "timeout" | "start-delay" => {
                        self.duration(&p.id, &part, nv.name.as_str(), value);
                    }
                    "role" if constraint_role(value).is_none() => self.role(&p.id, &part, value),
                    _ => {}
                }
            }
            let same = p.ops.iter().take(index).any(|other| {
                other.name == op.name
                    && other.interval_ms() == op.interval_ms()
                    && other.attrs.get("role") == op.attrs.get("role")
            });
            if same {
                let message = format!("`{}` has `op {}` with this interval twice", p.id, op.name);
                let part = format!("op/{index}");
                let finding = Finding::new("CRM0023", &p.id, &part, message)
                    .help("give one of them another interval, or remove it");
                self.add(Severity::Error, finding);
            }
        }
    }

    fn duration(&mut self, object: &str, part: &str, name: &str, value: &str) {
        if parse_duration_ms(value).is_none() {
            let message = format!("`{value}` is not a duration (for `{name}`)");
            let finding = Finding::new("CRM0017", object, part, message)
                .expected("a number and a unit: 500ms, 15s, 2min, 1h; seconds without a unit");
            self.add(Severity::Error, finding);
        }
    }

    fn role(&mut self, object: &str, part: &str, value: &str) {
        let near = nearest(value, known::ROLES.iter().copied());
        let message = format!("`{value}` is not a role");
        let finding = Finding::new("CRM0007", object, part, message)
            .near(near)
            .expected(known::ROLES.join(", "));
        self.add(Severity::Error, finding);
    }

    fn metas(&mut self, resource: &Resource, cloned: bool) {
        let mut allowed: Vec<&str> = known::META.to_vec();
        match resource {
            Resource::Primitive(_) => {}
            Resource::Group(group) => {
                allowed.extend(known::GROUP_META);
                for member in &group.members {
                    self.meta(&member.id, &member.meta, known::META);
                }
            }
            Resource::Bundle(bundle) => {
                let message = format!("`bundle` is not supported yet (`{}`)", bundle.id);
                let finding = Finding::new("CRM0003", &bundle.id, "", message)
                    .help("nodes do not run containers yet; `crm simulate` plans with bundles");
                self.add(Severity::Error, finding);
                allowed.extend(known::CLONE_META);
                if let Some(child) = &bundle.child {
                    self.meta(&child.id, &child.meta, known::META);
                }
            }
            Resource::Clone(clone) => {
                allowed.extend(known::CLONE_META);
                self.metas(&clone.child, true);
            }
        }
        if cloned {
            allowed.extend(known::CLONE_META);
        }
        self.meta(resource.id(), resource.meta(), &allowed);
    }

    fn meta(&mut self, id: &str, set: &NvSet, allowed: &[&str]) {
        self.set(id, "meta", set, allowed, "meta attribute");
        self.meta_values(id, "meta", set);
    }

    /// Unknown names of a set are warned about.
    fn set(&mut self, object: &str, part: &str, set: &NvSet, allowed: &[&str], what: &str) {
        for nv in &set.pairs {
            if allowed.contains(&nv.name.as_str()) {
                continue;
            }
            let part = format!("{part}/{}", nv.name);
            let near = nearest(&nv.name, allowed.iter().copied());
            let message = format!("`{}` is not a known {what}; it has no effect", nv.name);
            self.add(Severity::Warning, Finding::new("CRM0018", object, &part, message).near(near));
        }
    }

    fn meta_values(&mut self, object: &str, part: &str, set: &NvSet) {
        for nv in &set.pairs {
            let part = format!("{part}/{}", nv.name);
            let Some(value) = nv.value.as_deref() else { continue };
            let bad = match nv.name.as_str() {
                "target-role" if constraint_role(value).is_none() => {
                    self.role(object, &part, value);
                    continue;
                }
                "resource-stickiness" | "priority" if crate::cib::Score::parse(value).is_none() => {
                    self.add(
                        Severity::Error,
                        Finding::new("CRM0006", object, &part, format!("`{value}` is not a score"))
                            .expected("a number, `inf` or `-inf`"),
                    );
                    continue;
                }
                "failure-timeout" => {
                    self.duration(object, &part, &nv.name, value);
                    continue;
                }
                "is-managed" | "maintenance" | "notify" | "interleave" | "globally-unique"
                | "promotable" | "allow-migrate"
                    if parse_bool(value).is_none() =>
                {
                    "true or false"
                }
                "clone-max" if value.parse::<u32>().is_ok_and(|n| n > INSTANCES_MAX) => {
                    "a whole number, at most 1000"
                }
                "clone-max" | "clone-node-max" | "master-max" | "master-node-max"
                | "promoted-max" | "promoted-node-max" | "clone-min"
                    if value.parse::<u32>().is_err() =>
                {
                    "a whole number"
                }
                _ => continue,
            };
            let message = format!("`{value}` is no value for `{}`", nv.name);
            let finding = Finding::new("CRM0031", object, &part, message).expected(bad);
            self.add(Severity::Error, finding);
        }
    }

    fn ids(&mut self) {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for id in edit::ids(self.cib) {
            *seen.entry(id).or_default() += 1;
        }
        for (id, times) in seen.into_iter().filter(|(_, times)| *times > 1) {
            let in_groups = self.cib.primitives().iter().filter(|p| p.id == id).count() > 1;
            let (code, message) = match in_groups {
                true => (
                    "CRM0022",
                    format!("`{id}` is in {times} places: a resource can be in one group or clone"),
                ),
                false => ("CRM0010", format!("the id `{id}` is used {times} times")),
            };
            self.add(Severity::Error, Finding::new(code, &id, "", message));
        }
    }

    /// Numbers of nodes are theirs alone.
    fn node_numbers(&mut self) {
        let nodes = &self.cib.nodes;
        for (index, node) in nodes.iter().enumerate() {
            let first = nodes
                .iter()
                .take(index)
                .find(|other| other.name == node.name || (node.id != 0 && other.id == node.id));
            if let Some(first) = first {
                let object = format!("node:{}", node.name);
                let message = match first.name == node.name {
                    true => format!("the node `{}` is there twice", node.name),
                    false => {
                        format!(
                            "the nodes `{}` and `{}` have the same number",
                            first.name, node.name
                        )
                    }
                };
                self.add(Severity::Error, Finding::new("CRM0010", &object, "", message));
            }
        }
    }

    fn constraint(&mut self, constraint: &Constraint) {
        let id = constraint.id();
        for resource in constraint.resources() {
            if self.resources.contains(resource) {
                continue;
            }
            let near = nearest(resource, self.resources.iter().map(String::as_str));
            let near = near.map(str::to_owned);
            let part = format!("ref/{resource}");
            let message = format!("there is no resource `{resource}` (in `{id}`)");
            let finding = Finding::new("CRM0012", id, &part, message).near(near.as_deref());
            self.add(Severity::Error, finding);
        }
        if let Constraint::Colocation(c) = constraint
            && c.sets.is_empty()
            && c.rsc == c.with
        {
            let message = format!("`{}` is colocated with itself", c.rsc);
            self.add(
                Severity::Error,
                Finding::new("CRM0021", id, &format!("ref/{}", c.rsc), message),
            );
        }
        if let Constraint::Location(c) = constraint {
            self.node(id, &c.node);
        }
    }

    fn node(&mut self, object: &str, node: &str) {
        if self.cib.node(node).is_some() {
            return;
        }
        let near = nearest(node, self.cib.nodes.iter().map(|n| n.name.as_str()));
        let mut finding = Finding::new(
            "CRM0013",
            object,
            "",
            format!("there is no node `{node}` (in `{object}`)"),
        )
        .near(near);
        let part = format!("node/{node}");
        finding.part = &part;
        if near.is_none() {
            let names: Vec<&str> = self.cib.nodes.iter().map(|n| n.name.as_str()).collect();
            finding = match names.is_empty() {
                true => finding.help("no node is configured; nodes appear when they join"),
                false => finding.expected(names.join(", ")),
            };
        }
        self.add(Severity::Error, finding);
    }

    fn fencing(&mut self) {
        let primitives = self.cib.primitives();
        let of_class = |p: &&&Primitive| p.agent.class == "stonith";
        let devices: Vec<&str> =
            primitives.iter().filter(of_class).map(|p| p.id.as_str()).collect();
        for rule in &self.cib.fencing {
            match &rule.target {
                FencingTarget::Node(name) => self.node(known::FENCING, name),
                FencingTarget::Pattern(regex) if regex::Regex::new(regex).is_err() => {
                    let message = format!("`{regex}` is not a regular expression");
                    let part = format!("pattern/{regex}");
                    self.add(
                        Severity::Error,
                        Finding::new("CRM0031", known::FENCING, &part, message),
                    );
                }
                FencingTarget::Every
                | FencingTarget::Pattern(_)
                | FencingTarget::Attribute { .. } => {}
            }
            for device in rule.devices().filter(|id| !devices.contains(id)) {
                let message = match self.cib.primitive(device) {
                    Some(_) => format!("`{device}` is no fencing device (class `stonith`)"),
                    None => format!("there is no fencing device `{device}`"),
                };
                let part = format!("ref/{device}");
                let finding = Finding::new("CRM0012", known::FENCING, &part, message)
                    .near(nearest(device, devices.iter().copied()));
                self.add(Severity::Error, finding);
            }
        }
    }

    fn volumes(&mut self) {
        for v in &self.cib.volumes {
            let object = format!("volume:{}", v.name);
            for replica in &v.replicas {
                if self.cib.node(&replica.node).is_none() {
                    let near =
                        nearest(&replica.node, self.cib.nodes.iter().map(|n| n.name.as_str()));
                    let message =
                        format!("there is no node `{}` (in the volume `{}`)", replica.node, v.name);
                    let part = format!("replica/{}", replica.node);
                    self.add(
                        Severity::Error,
                        Finding::new("CRM0013", &object, &part, message).near(near),
                    );
                }
            }
        }
        let volumes: Vec<&str> = self.cib.volumes.iter().map(|v| v.name.as_str()).collect();
        for p in self.cib.primitives() {
            let name = match (p.agent.provider.as_deref(), p.agent.kind.as_str()) {
                (Some("linbit"), "drbd") => "drbd_resource",
                (Some("crm"), "volume") => "volume",
                _ => continue,
            };
            let Some(volume) = p.params.get(name) else { continue };
            if !volumes.is_empty() && !volumes.contains(&volume) {
                let near = nearest(volume, volumes.iter().copied());
                let message = format!("there is no volume `{volume}` yet (for `{}`)", p.id);
                let part = format!("params/{name}");
                let mut finding = Finding::new("CRM0032", &p.id, &part, message).near(near);
                if near.is_none() {
                    finding =
                        finding.help(format!("make it with `crm volume create {volume} ...`"));
                }
                self.add(Severity::Warning, finding);
            }
        }
    }

    fn properties(&mut self) {
        for nv in &self.cib.properties.pairs {
            let part = format!("options/{}", nv.name);
            let name = nv.name.as_str();
            let value = nv.value.as_deref().unwrap_or_default();
            if !known::PROPERTIES.contains(&name) {
                let near = nearest(name, known::PROPERTIES.iter().copied());
                let message = format!("`{name}` is not a known cluster property; it has no effect");
                let finding = Finding::new("CRM0019", "property:", &part, message).near(near);
                self.add(Severity::Warning, finding);
            } else if known::DURATION_PROPERTIES.contains(&name) {
                self.duration("property:", &part, name, value);
            } else if known::BOOLEAN_PROPERTIES.contains(&name) && parse_bool(value).is_none() {
                let message = format!("`{value}` is no value for `{name}`");
                let finding =
                    Finding::new("CRM0031", "property:", &part, message).expected("true or false");
                self.add(Severity::Error, finding);
            } else if name == "no-quorum-policy" && !known::NO_QUORUM_POLICIES.contains(&value) {
                let near = nearest(value, known::NO_QUORUM_POLICIES.iter().copied());
                let message = format!("`{value}` is no value for `{name}`");
                let finding = Finding::new("CRM0031", "property:", &part, message)
                    .near(near)
                    .expected(known::NO_QUORUM_POLICIES.join(", "));
                self.add(Severity::Error, finding);
            } else if QUORUM_OPTIONS.contains(&name)
                && let Err(PolicyError::BadValue { takes, .. }) = Policy::default().set(name, value)
            {
                let message = format!("`{value}` is no value for `{name}`");
                let finding = Finding::new("CRM0031", "property:", &part, message).expected(takes);
                self.add(Severity::Error, finding);
            }
        }
    }

    fn loops(&mut self) {
        let kinds = [
            ("CRM0020", "order", loops::order_loops(self.cib)),
            ("CRM0021", "colocation", loops::colocation_loops(self.cib)),
        ];
        for (code, what, all) in kinds {
            for found in all {
                // The last one written closed the loop.
                let last = self
                    .cib
                    .constraints
                    .iter()
                    .rev()
                    .map(Constraint::id)
                    .find(|id| found.constraints.iter().any(|c| c == id))
                    .unwrap_or_default();
                let message =
                    format!("{what} loop: {} wait for each other", found.members.join(", "));
                let message = if what == "order" {
                    message
                } else {
                    format!("colocation loop: {} follow each other", found.members.join(", "))
                };
                let finding = Finding::new(code, last, "", message).help(format!(
                    "the loop is made by {}; remove one of them",
                    found.constraints.join(", ")
                ));
                self.add(Severity::Error, finding);
            }
        }
    }
}
