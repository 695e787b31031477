//! The CIB as configure text, laid out as crmsh 4.4.1 does.

use super::known;
use super::size::show_size;
use crate::cib::{
    Bundle, Cib, CloneResource, Colocation, Constraint, FencingRule, FencingTarget, Group,
    Location, LocationTarget, Node, Nv, NvSet, Order, OrderAction, OrderKind, Primitive, Resource,
    ResourceSet, Role, Section, Volume,
};
use std::fmt::Write as _;

const JOIN: &str = " \\\n\t";

/// All objects as configure statements; empty for an empty CIB, else ends with a line feed.
#[must_use]
pub fn show(cib: &Cib) -> String {
    let mut out = String::new();
    for (_, text) in objects(cib) {
        out.push_str(&text);
        out.push('\n');
    }
    out
}

/// The object called `id` (a resource, constraint, node or volume) as one statement without a last line feed.
#[must_use]
pub fn show_object(cib: &Cib, id: &str) -> Option<String> {
    objects(cib).into_iter().find(|(name, _)| name == id).map(|(_, text)| text)
}

/// Every object in the order in which it is shown, with its name.
#[must_use]
pub fn objects(cib: &Cib) -> Vec<(String, String)> {
    let mut ranked: Vec<(u8, String, String, String)> = Vec::new();
    for n in &cib.nodes {
        let key = if n.id == 0 { n.name.clone() } else { n.id.to_string() };
        ranked.push((0, key, n.name.clone(), node(n)));
    }
    for v in &cib.volumes {
        ranked.push((1, v.name.clone(), v.name.clone(), volume(v)));
    }
    for resource in &cib.resources {
        visit(resource, &mut ranked);
    }
    for constraint in &cib.constraints {
        let id = constraint.id().to_owned();
        let text = match constraint {
            Constraint::Location(c) => location(c),
            Constraint::Colocation(c) => colocation(c),
            Constraint::Order(c) => order(c),
        };
        ranked.push((6, id.clone(), id, text));
    }
    if !cib.fencing.is_empty() {
        let id = known::FENCING.to_owned();
        ranked.push((7, id.clone(), id, fencing(&cib.fencing)));
    }
    let sets = [
        (8, "property", &cib.properties, "cib-bootstrap-options"),
        (9, "rsc_defaults", &cib.rsc_defaults, "rsc-options"),
        (10, "op_defaults", &cib.op_defaults, "op-options"),
    ];
    for (rank, keyword, set, default_id) in sets {
        if set.id.is_some() || !set.is_empty() {
            let id = set.id.as_deref().unwrap_or(default_id);
            let mut text = format!("{keyword} {id}:");
            for nv in &set.pairs {
                let _ = write!(text, "{JOIN}{}", pair(nv));
            }
            ranked.push((rank, id.to_owned(), id.to_owned(), text));
        }
    }
    ranked.sort();
    ranked.into_iter().map(|(_, _, name, text)| (name, text)).collect()
}

fn visit(resource: &Resource, out: &mut Vec<(u8, String, String, String)>) {
    let id = resource.id().to_owned();
    match resource {
        Resource::Primitive(p) => out.push((2, id.clone(), id, primitive(p))),
        Resource::Group(g) => {
            for member in &g.members {
                out.push((2, member.id.clone(), member.id.clone(), primitive(member)));
            }
            out.push((3, id.clone(), id, group(g)));
        }
        Resource::Clone(c) => {
            visit(&c.child, out);
            out.push((if c.ms { 4 } else { 5 }, id.clone(), id, clone(c)));
        }
        Resource::Bundle(b) => {
            if let Some(child) = &b.child {
                out.push((2, child.id.clone(), child.id.clone(), primitive(child)));
            }
            out.push((5, id.clone(), id, bundle(b)));
        }
    }
}

/// A value as the lexer reads it back.
fn value(text: &str) -> String {
    if text.chars().any(char::is_control) {
        let mut out = String::from("$'");
        for c in text.chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\'' => out.push_str("\\'"),
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => {
                    let _ = write!(out, "\\u{{{:X}}}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push('\'');
        return out;
    }
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !text.is_empty() && text.chars().all(bare) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek();
        match c {
            '"' => out.push_str("\\\""),
            // Only a backslash that would escape something is doubled.
            '\\' if next.is_none_or(|n| matches!(n, '"' | '\\')) => out.push_str("\\\\"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(crate) fn pair(nv: &Nv) -> String {
    match &nv.value {
        Some(text) => format!("{}={}", nv.name, value(text)),
        None => nv.name.clone(),
    }
}

fn section(out: &mut String, name: &str, pairs: &[Nv]) {
    if !pairs.is_empty() {
        let _ = write!(out, "{JOIN}{name}");
        self::pairs(out, pairs);
    }
}

fn pairs(out: &mut String, pairs: &[Nv]) {
    for nv in pairs {
        let _ = write!(out, " {}", pair(nv));
    }
}

fn description(out: &mut String, text: Option<&str>) {
    if let Some(text) = text {
        let _ = write!(out, "{JOIN}description={}", value(text));
    }
}

fn node(node: &Node) -> String {
    let mut out = match node.id {
        0 => format!("node {}", node.name),
        id => format!("node {id}: {}", node.name),
    };
    section(&mut out, "attributes", &node.attributes.pairs);
    section(&mut out, "utilization", &node.utilization.pairs);
    out
}

fn volume(v: &Volume) -> String {
    let mut out = format!(
        "volume {}{JOIN}size={} device={}",
        v.name,
        show_size(v.size_bytes),
        value(&v.device)
    );
    if v.port != 0 {
        let _ = write!(out, " port={}", v.port);
    }
    if v.day0 != 0 {
        let _ = write!(out, " day0={:016X}", v.day0);
    }
    if v.assume_clean {
        out.push_str(" assume-clean=true");
    }
    for replica in &v.replicas {
        let _ =
            write!(out, "{JOIN}replica={}", value(&format!("{}:{}", replica.node, replica.disk)));
    }
    out
}

fn primitive(p: &Primitive) -> String {
    let agent = p.agent.to_string();
    let agent = agent.strip_prefix("ocf:heartbeat:").unwrap_or(&agent);
    let mut out = format!("primitive {} {agent}", p.id);
    description(&mut out, p.description.as_deref());
    for part in p.sections() {
        match part {
            Section::Params => section(&mut out, "params", &p.params.pairs),
            Section::Meta => section(&mut out, "meta", &p.meta.pairs),
            Section::Utilization => section(&mut out, "utilization", &p.utilization.pairs),
            Section::Operations => operations(&mut out, p),
        }
    }
    out
}

fn operations(out: &mut String, p: &Primitive) {
    for op in &p.ops {
        let own = |nv: &&Nv| known::OP_ATTRIBUTES.contains(&nv.name.as_str());
        let attributes: Vec<Nv> = op.attrs.pairs.iter().filter(own).cloned().collect();
        let params: Vec<Nv> = op.attrs.pairs.iter().filter(|nv| !own(nv)).cloned().collect();
        let _ = write!(out, "{JOIN}op {}", op.name);
        for nv in &attributes {
            let _ = write!(out, " {}", pair(nv));
        }
        section(out, "op_params", &params);
    }
}

fn holder(out: &mut String, text: Option<&str>, params: &NvSet, meta: &NvSet) {
    description(out, text);
    section(out, "params", &params.pairs);
    section(out, "meta", &meta.pairs);
}

fn group(g: &Group) -> String {
    let mut out = format!("group {}", g.id);
    for member in &g.members {
        let _ = write!(out, " {}", member.id);
    }
    holder(&mut out, g.description.as_deref(), &g.params, &g.meta);
    out
}

fn clone(c: &CloneResource) -> String {
    let keyword = if c.ms { "ms" } else { "clone" };
    let mut out = format!("{keyword} {} {}", c.id, c.child.id());
    holder(&mut out, c.description.as_deref(), &c.params, &c.meta);
    out
}

fn bundle(b: &Bundle) -> String {
    let mut out = format!("bundle {}", b.id);
    description(&mut out, b.description.as_deref());
    section(&mut out, b.container.engine.name(), &b.container.attrs.pairs);
    if let Some(network) = &b.network {
        let _ = write!(out, "{JOIN}network");
        pairs(&mut out, &network.attrs.pairs);
        for port in &network.ports {
            let _ = write!(out, " port-mapping id={}", value(&port.id));
            pairs(&mut out, &port.attrs.pairs);
        }
    }
    if !b.storage.is_empty() {
        let _ = write!(out, "{JOIN}storage");
        for mapping in &b.storage {
            let _ = write!(out, " storage-mapping id={}", value(&mapping.id));
            pairs(&mut out, &mapping.attrs.pairs);
        }
    }
    if let Some(child) = &b.child {
        let _ = write!(out, "{JOIN}primitive {}", child.id);
    }
    section(&mut out, "meta", &b.meta.pairs);
    out
}

/// Levels without a target come first: only there they can be read back.
fn fencing(rules: &[FencingRule]) -> String {
    let mut ordered: Vec<&FencingRule> = rules.iter().collect();
    ordered.sort_by_key(|rule| rule.target != FencingTarget::Every);
    let mut out = known::FENCING.to_owned();
    for rule in ordered {
        let target = match &rule.target {
            FencingTarget::Every => None,
            FencingTarget::Node(name) => Some(format!("{name}:")),
            FencingTarget::Pattern(regex) => Some(format!("pattern:{regex}")),
            FencingTarget::Attribute { name, value } => Some(format!("attr:{name}={value}")),
        };
        match target {
            Some(target) => {
                let _ = write!(out, "{JOIN}{}", word(&target));
            }
            None if rules.len() > 1 => out.push_str(" \\\n\t"),
            None => out.push(' '),
        }
        let levels: Vec<String> = rule.levels.iter().map(|level| level.join(",")).collect();
        if rule.target != FencingTarget::Every {
            out.push(' ');
        }
        out.push_str(&levels.join(" "));
    }
    out
}

/// A role in the words that crmsh 4.4.1 and the seed use.
pub(crate) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Stopped => "Stopped",
        Role::Started => "Started",
        Role::Unpromoted => "Slave",
        Role::Promoted => "Master",
    }
}

/// An action in words.
pub(crate) const fn action_word(action: OrderAction) -> &'static str {
    match action {
        OrderAction::Start => "start",
        OrderAction::Stop => "stop",
        OrderAction::Promote => "promote",
        OrderAction::Demote => "demote",
    }
}

/// A kind of order in words.
pub(crate) const fn kind_word(kind: OrderKind) -> &'static str {
    match kind {
        OrderKind::Mandatory => "Mandatory",
        OrderKind::Optional => "Optional",
        OrderKind::Serialize => "Serialize",
    }
}

fn location(c: &Location) -> String {
    let target = match &c.target {
        LocationTarget::Resource(id) => id.clone(),
        LocationTarget::Pattern(regex) => format!("/{regex}/"),
    };
    let mut out = format!("location {} {}", c.id, word(&target));
    if let Some(role) = c.role {
        let _ = write!(out, " role={}", role_word(role));
    }
    if let Some(discovery) = &c.discovery {
        let _ = write!(out, " resource-discovery={}", value(discovery));
    }
    let _ = write!(out, " {}: {}", c.score, c.node);
    out
}

/// A word that is quoted only where it must be.
fn word(text: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\');
    if text.chars().all(plain) { text.to_owned() } else { value(text) }
}

fn member(id: &str, qualifier: Option<&str>) -> String {
    match qualifier {
        Some(q) => format!("{id}:{q}"),
        None => id.to_owned(),
    }
}

fn sets(out: &mut String, sets: &[ResourceSet]) {
    let members: usize = sets.iter().map(|s| s.members.len()).sum();
    let plain = |s: &ResourceSet| s.sequential && s.require_all;
    let same = |a: &ResourceSet, b: &ResourceSet| a.role == b.role && a.action == b.action;
    if members <= 2 && sets.iter().all(plain) {
        out.push_str(" _rsc_set_");
    }
    let mut before: Option<&ResourceSet> = None;
    for set in sets {
        let qualifier = match (set.role, set.action) {
            (Some(role), _) => Some(role_word(role)),
            (None, Some(action)) => Some(action_word(action)),
            (None, None) => None,
        };
        // Parallel sets have brackets; square ones are enough with any one of their members.
        let (open, close, note) = match (set.sequential, set.require_all) {
            // Two neighbours without brackets would be read as one set.
            (true, true) if before.is_some_and(|b| plain(b) && same(b, set)) => {
                (" (", " )", " sequential=true")
            }
            (true, true) => ("", "", ""),
            (false, true) => (" (", " )", ""),
            (false, false) => (" [", " ]", ""),
            (true, false) => (" [", " ]", " sequential=true"),
        };
        out.push_str(open);
        for m in &set.members {
            let _ = write!(out, " {}", member(&m.resource, qualifier));
        }
        out.push_str(note);
        out.push_str(close);
        before = Some(set);
    }
}

fn colocation(c: &Colocation) -> String {
    let mut out = format!("colocation {} {}:", c.id, c.score);
    if c.sets.is_empty() {
        let _ = write!(
            out,
            " {} {}",
            member(&c.rsc, c.rsc_role.map(role_word)),
            member(&c.with, c.with_role.map(role_word))
        );
    } else {
        sets(&mut out, &c.sets);
    }
    if let Some(attribute) = &c.node_attribute {
        let _ = write!(out, " node-attribute={}", value(attribute));
    }
    out
}

fn order(c: &Order) -> String {
    let mut out = format!("order {} {}:", c.id, kind_word(c.kind));
    if c.sets.is_empty() {
        let _ = write!(
            out,
            " {} {}",
            member(&c.first, c.first_action.map(action_word)),
            member(&c.then, c.then_action.map(action_word))
        );
    } else {
        sets(&mut out, &c.sets);
    }
    if let Some(symmetrical) = c.symmetrical {
        let _ = write!(out, " symmetrical={symmetrical}");
    }
    out
}
