//! What Pacemaker takes without a word and was probably not meant so: names nothing has, values nothing knows, ids given twice, loops.

use super::shape::{self, Shape, Value};
use super::time::parse_time_ms;
use super::tree::Element;
use super::{PROBLEMS_MAX, Problem, Reader};
use crate::cib::{Cib, Constraint, Score, parse_bool, parse_duration_ms};
use crate::text::{known, loops, nearest};
use std::collections::{BTreeMap, BTreeSet};

/// Looks through the configuration of a document that could be read.
pub(super) fn find<'a>(root: Element<'a>, reader: &'a Reader<'a>) -> Vec<Problem> {
    let Some(configuration) = root.child("configuration") else { return Vec::new() };
    let mut resources: BTreeSet<&str> = BTreeSet::new();
    let named = |e: &Element<'_>| {
        matches!(
            e.name(),
            "primitive" | "group" | "clone" | "master" | "bundle" | "template" | "tag"
        )
    };
    resources.extend(configuration.descendants().filter(named).filter_map(|e| e.attr("id")));
    resources.extend(reader.remotes.iter().map(|(name, _)| name.as_str()));
    let mut nodes: BTreeSet<&str> = reader.out.uuids.keys().map(String::as_str).collect();
    nodes.extend(reader.remotes.iter().map(|(name, _)| name.as_str()));
    let all = &reader.ids;
    let mut doubts = Doubts { resources, nodes, all, ids: BTreeMap::new(), found: Vec::new() };
    doubts.element(configuration);
    doubts.loops(&reader.out.cib);
    doubts.found
}

struct Doubts<'a> {
    /// Ids that constraints may name.
    resources: BTreeSet<&'a str>,
    nodes: BTreeSet<&'a str>,
    /// All that has an id.
    all: &'a BTreeMap<&'a str, Element<'a>>,
    /// Who has an id, of those seen so far.
    ids: BTreeMap<&'a str, Element<'a>>,
    found: Vec<Problem>,
}

impl<'a> Doubts<'a> {
    fn add(&mut self, problem: impl FnOnce() -> Problem) {
        if !self.full() {
            self.found.push(problem());
        }
    }

    /// More is not told: then it need not be looked for.
    const fn full(&self) -> bool {
        self.found.len() >= PROBLEMS_MAX
    }

    fn element(&mut self, element: Element<'a>) {
        self.id(element);
        match element.name() {
            "op" => self.operation(element),
            "obj_ref" => self.tagged(element),
            "acls" | "alerts" | "fencing-topology" => return,
            name => {
                if let Some(shape) = shape::of(name) {
                    self.attributes(element, shape);
                    self.needs(element, shape);
                    self.children(element, shape);
                }
            }
        }
        for child in element.children() {
            self.pairs(child, element);
            self.element(child);
        }
    }

    fn id(&mut self, element: Element<'a>) {
        // What names something else, and nodes: their ids are their own affair.
        if matches!(element.name(), "resource_ref" | "obj_ref" | "node" | "role" | "acl_target") {
            return;
        }
        let Some(id) = element.attr("id") else { return };
        match self.ids.get(id).copied() {
            None => {
                self.ids.insert(id, element);
            }
            Some(first) => self.add(|| {
                let text = format!("the id `{id}` is used already, in line {}", first.line());
                let help = "ids are unique in a CIB, and what refers to this one means the first: rename one of them";
                element.problem_of("id", "CRM0010", text).helping(help)
            }),
        }
    }

    fn attributes(&mut self, element: Element<'a>, shape: &Shape) {
        if shape.attributes.is_empty() {
            return;
        }
        for (name, value) in element.attrs() {
            match shape.attributes.iter().find(|(known, _)| *known == name) {
                Some((_, kind)) => self.value(element, name, value, *kind),
                None => self.add(|| {
                    let of = element.name();
                    let text = format!("`{of}` has no attribute `{name}`; it has no effect");
                    let known = || shape.attributes.iter().map(|(known, _)| *known);
                    let names: Vec<&str> = known().collect();
                    element
                        .problem_of(name, "CRM0052", text)
                        .expecting(names.join(", "))
                        .near(nearest(name, known()))
                }),
            }
        }
    }

    /// One attribute, or a pair's value (`name` is then `value`).
    fn value(&mut self, element: Element<'a>, name: &str, value: &'a str, kind: Value) {
        if kind == Value::Resource {
            return self.reference(element, name, value);
        }
        if kind == Value::Node {
            return self.node(element, name, value);
        }
        let Some((code, expected)) = misfit(value, kind) else { return };
        let words = match kind {
            Value::Word(words) => words,
            Value::Role => known::ROLES,
            Value::Text
            | Value::Bool
            | Value::Score
            | Value::Number
            | Value::Span
            | Value::Time
            | Value::Pattern
            | Value::Resource
            | Value::Node => &[],
        };
        let near = nearest(value, words.iter().copied());
        let pair = element.attr("name").filter(|_| element.name() == "nvpair");
        let what = pair.unwrap_or(name);
        let effect = effect(element, what, value, kind);
        self.add(|| {
            let text = format!("`{value}` is no value for `{what}`: {effect}");
            element.problem_of(name, code, text).expecting(expected).near(near)
        });
    }

    fn reference(&mut self, element: Element<'a>, name: &str, value: &str) {
        let base = value.split(':').next().unwrap_or_default();
        if self.full() || self.resources.contains(value) || self.resources.contains(base) {
            return;
        }
        let near = nearest(value, self.resources.iter().copied());
        self.add(|| {
            let text = format!(
                "there is no resource `{value}`: what is said of it has no effect, as with Pacemaker"
            );
            let help = "take it out, or name a resource, a tag or a template that exists";
            element.problem_of(name, "CRM0012", text).helping(help).near(near)
        });
    }

    /// A tag may stand for anything that has an id.
    fn tagged(&mut self, element: Element<'a>) {
        let id = element.word("id");
        if !self.full() && !self.all.contains_key(id) && !self.resources.contains(id) {
            let near = nearest(id, self.resources.iter().copied());
            self.add(|| {
                let text = format!("nothing has the id `{id}`: the tag does without it");
                element.problem_of("id", "CRM0011", text).helping("take it out").near(near)
            });
        }
    }

    fn node(&mut self, element: Element<'a>, name: &str, value: &str) {
        if self.full() || self.nodes.contains(value) {
            return;
        }
        let near = nearest(value, self.nodes.iter().copied());
        let names: Vec<&str> = self.nodes.iter().take(20).copied().collect();
        self.add(|| {
            let text = format!("there is no node `{value}`: the location has no effect there");
            element
                .problem_of(name, "CRM0013", text)
                .expecting(names.join(", "))
                .helping("take it out, or correct the name")
                .near(near)
        });
    }

    /// What an element says nothing without.
    fn needs(&mut self, element: Element<'a>, shape: &Shape) {
        for need in shape.needs {
            let there = |one: &str| {
                element.attr(one).is_some() || element.children().any(|c| c.name() == one)
            };
            if !need.split('|').any(there) {
                self.add(|| {
                    let wanted = need.replace('|', "`, `");
                    let id = element.attr("id").map(|id| format!(" `{id}`")).unwrap_or_default();
                    let effect = match element.name() {
                        "primitive" | "template" => "no agent is named",
                        _ => "it has no effect",
                    };
                    let text = format!("`{}`{id} is incomplete: {effect}", element.name());
                    let one = if need.contains('|') { "one of " } else { "" };
                    element.problem("CRM0004", text).expecting(format!("{one}`{wanted}`"))
                });
            }
        }
    }

    /// What the readers of constraints do not look at.
    fn children(&mut self, element: Element<'a>, shape: &Shape) {
        let constraint = element.name().starts_with("rsc_") && !shape.children.is_empty();
        for child in
            element.children().filter(|c| constraint && !shape.children.contains(&c.name()))
        {
            self.add(|| {
                let text = format!("`{}` in `{}` has no effect", child.name(), element.name());
                let near = nearest(child.name(), shape.children.iter().copied());
                child.problem("CRM0052", text).expecting(shape.children.join(", ")).near(near)
            });
        }
    }

    /// Names and values of a set of pairs, by what it belongs to.
    fn pairs(&mut self, set: Element<'a>, owner: Element<'a>) {
        let names: Vec<&str> = match (set.name(), owner.name()) {
            ("cluster_property_set", _) => known::PROPERTIES.to_vec(),
            ("meta_attributes", "op_defaults" | "op") => known::OP_ATTRIBUTES.to_vec(),
            ("meta_attributes", _) => {
                [known::META, known::GROUP_META, known::CLONE_META, OTHER_META].concat()
            }
            _ => return,
        };
        for pair in set.named("nvpair") {
            if self.full() {
                return;
            }
            let (Some(name), Some(value)) = (pair.attr("name"), pair.attr("value")) else {
                continue;
            };
            // Old documents write meta attributes with underscores.
            let dashed = name.replace('_', "-");
            if !names.contains(&name) && !names.contains(&dashed.as_str()) {
                // Other names are for agents; what is nearly known was mistyped.
                if let Some(near) = nearest(name, names.iter().copied()) {
                    self.add(|| {
                        let text = format!("`{name}` is not known here; it has no effect");
                        pair.problem_of("name", "CRM0018", text).near(Some(near))
                    });
                }
            } else if let Some(kind) = kind_of(&dashed).filter(|_| value != "#default") {
                self.value(pair, "value", value, kind);
            }
        }
    }

    fn operation(&mut self, op: Element<'a>) {
        for (name, value) in op.attrs() {
            let operation =
                known::OP_ATTRIBUTES.contains(&name) || matches!(name, "id" | "name" | "id-ref");
            match kind_of(name) {
                Some(kind) => self.value(op, name, value, kind),
                None if operation => {}
                None => {
                    if let Some(near) = nearest(name, known::OP_ATTRIBUTES.iter().copied()) {
                        self.add(|| {
                            let text = format!("`op` has no attribute `{name}`; it has no effect");
                            op.problem_of(name, "CRM0052", text).near(Some(near))
                        });
                    }
                }
            }
        }
    }

    fn loops(&mut self, cib: &Cib) {
        let ids = self.all;
        let kinds = [
            ("CRM0020", "wait for each other", "none of them is started", loops::order_loops(cib)),
            (
                "CRM0021",
                "follow each other",
                "where they go is decided by the one that is placed first",
                loops::colocation_loops(cib),
            ),
        ];
        for (code, how, effect, all) in kinds {
            for found in all.into_iter().filter(|l| l.members.len() > 1) {
                let ours = |id: &&str| found.constraints.iter().any(|c| c == id);
                let last = cib.constraints.iter().rev().map(Constraint::id).find(ours);
                let Some(at) = last.and_then(|id| ids.get(id).copied()) else { continue };
                self.add(|| {
                    let text = format!("a loop: {} {how}; {effect}", some(&found.members));
                    let by = some(&found.constraints);
                    at.problem(code, text)
                        .helping(format!("it is made by {by}: remove one of them"))
                });
            }
        }
        for constraint in &cib.constraints {
            let (id, one, other) = match constraint {
                Constraint::Colocation(c) if c.sets.is_empty() => (&c.id, &c.rsc, &c.with),
                Constraint::Order(o) if o.sets.is_empty() && o.first_action == o.then_action => {
                    (&o.id, &o.first, &o.then)
                }
                Constraint::Colocation(_) | Constraint::Order(_) | Constraint::Location(_) => {
                    continue;
                }
            };
            if let (true, Some(at)) = (one == other, ids.get(id.as_str()).copied()) {
                self.add(|| {
                    let text = format!("`{id}` is about `{one}` and itself: it has no effect");
                    at.problem("CRM0021", text).helping("take it out, or name another resource")
                });
            }
        }
    }
}

/// Words that are shown one by one.
const SHOWN: usize = 20;

/// The words; of very many the first ones.
fn some(words: &[String]) -> String {
    match words.get(..SHOWN) {
        Some(first) if words.len() > SHOWN => {
            format!("{} and {} more", first.join(", "), words.len() - SHOWN)
        }
        Some(_) | None => words.join(", "),
    }
}

/// What a value that nobody knows comes to.
fn effect(element: Element<'_>, what: &str, value: &str, kind: Value) -> String {
    if let Some(number) = Score::leading(value).filter(|_| kind == Value::Score) {
        return format!("{number} counts");
    }
    let words = match (element.name(), what) {
        ("expression" | "date_expression" | "date_spec" | "duration", _) => {
            "the condition does not hold"
        }
        (_, "clone-max") => "no instance is made",
        (_, "rsc-pattern") => "nothing matches",
        _ => "it counts as if it were not there",
    };
    words.to_owned()
}

/// Meta attributes that the configuration text does not have.
const OTHER_META: &[&str] =
    &["container", "internal_prefix", "remote-clear-port", "resource-failure-stickiness", "depth"];

/// What the value of a known option has to be.
fn kind_of(name: &str) -> Option<Value> {
    if known::DURATION_PROPERTIES.contains(&name) {
        return Some(Value::Span);
    }
    if known::BOOLEAN_PROPERTIES.contains(&name) {
        return Some(Value::Bool);
    }
    match name {
        "no-quorum-policy" => Some(Value::Word(known::NO_QUORUM_POLICIES)),
        "stonith-action" | "fencing-action" => Some(Value::Word(&["reboot", "off", "poweroff"])),
        "placement-strategy" => {
            Some(Value::Word(&["default", "utilization", "minimal", "balanced"]))
        }
        "node-health-strategy" => {
            Some(Value::Word(&["none", "migrate-on-red", "only-green", "progressive", "custom"]))
        }
        "multiple-active" => {
            Some(Value::Word(&["block", "stop_only", "stop_start", "stop_unexpected"]))
        }
        "requires" => Some(Value::Word(&["nothing", "quorum", "fencing", "unfencing"])),
        "on-fail" => Some(Value::Word(shape::ON_FAIL)),
        "target-role" | "role" => Some(Value::Role),
        "is-managed" | "maintenance" | "notify" | "interleave" | "globally-unique"
        | "promotable" | "allow-migrate" | "ordered" | "critical" | "enabled"
        | "record-pending" => Some(Value::Bool),
        "resource-stickiness" | "priority" | "migration-threshold" => Some(Value::Score),
        "clone-max" | "clone-node-max" | "clone-min" | "master-max" | "master-node-max"
        | "promoted-max" | "promoted-node-max" => Some(Value::Number),
        "interval" | "timeout" | "start-delay" | "failure-timeout" => Some(Value::Span),
        _ => None,
    }
}

/// What is expected, when a value does not fit: the code of the problem, and words.
fn misfit(value: &str, kind: Value) -> Option<(&'static str, String)> {
    let span = "a number and a unit: 500ms, 15s, 2min, 1h; seconds without a unit";
    let (fits, code, expected) = match kind {
        Value::Text | Value::Resource | Value::Node => return None,
        Value::Bool => (parse_bool(value).is_some(), "CRM0031", "true or false".to_owned()),
        Value::Score => (
            Score::parse(value).is_some(),
            "CRM0006",
            "a whole number, INFINITY or -INFINITY".to_owned(),
        ),
        Value::Number => (value.parse::<u32>().is_ok(), "CRM0031", "a whole number".to_owned()),
        Value::Span => {
            let fits = parse_duration_ms(value).is_some() || value.starts_with('P');
            (fits, "CRM0017", span.to_owned())
        }
        Value::Time => {
            (parse_time_ms(value).is_some(), "CRM0031", "a time: 2026-03-01 12:00:00Z".to_owned())
        }
        Value::Role => {
            (crate::plan::parse_role(value).is_some(), "CRM0007", known::ROLES.join(", "))
        }
        Value::Word(words) => {
            let fits = words.iter().any(|word| word.eq_ignore_ascii_case(value));
            (fits, "CRM0031", words.join(", "))
        }
        Value::Pattern => {
            (crate::plan::matches(value).is_some(), "CRM0031", "a regular expression".to_owned())
        }
    };
    (!fits).then_some((code, expected))
}
