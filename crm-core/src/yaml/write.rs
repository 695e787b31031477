//! CIB to YAML.

use super::tree::{Map, Tree};
use crate::cib::{
    Bundle, Cib, CloneResource, Constraint, FencingRule, FencingTarget, Group, LocationTarget,
    NvSet, OrderKind, Primitive, Resource, ResourceSet, Role, Score, Section, Volume,
};
use crate::text::show::{action_word, kind_word};
use crate::text::show_size;

/// The CIB as a YAML document; the empty CIB is `{}`.
///
/// # Panics
/// Never: text keys and scalars can all be written to a string.
#[must_use]
pub fn to_yaml(cib: &Cib) -> String {
    let mut out = Map::default();
    out.put("cluster", set(&cib.properties));
    let mut defaults = Map::default();
    defaults.put("resources", set(&cib.rsc_defaults));
    defaults.put("operations", set(&cib.op_defaults));
    out.put("defaults", defaults.tree());
    let node = |n: &crate::cib::Node| {
        let mut pairs = Vec::new();
        if n.id != 0 {
            pairs.push(("$id".to_owned(), Tree::text(n.id.to_string())));
        }
        pairs.extend(n.attributes.pairs.iter().map(pair));
        (n.name.clone(), Tree::Map(pairs))
    };
    out.put("nodes", Tree::Map(cib.nodes.iter().map(node).collect()));
    let able = cib.nodes.iter().filter(|n| !n.utilization.is_empty());
    let able = able.map(|n| (n.name.clone(), set(&n.utilization)));
    out.put("capacities", Tree::Map(able.collect()));
    let volumes = cib.volumes.iter().map(|v| (v.name.clone(), volume(v)));
    out.put("volumes", Tree::Map(volumes.collect()));
    out.put("resources", Tree::List(cib.resources.iter().map(resource).collect()));
    out.put("constraints", Tree::List(cib.constraints.iter().map(constraint).collect()));
    out.put("fencing", Tree::List(cib.fencing.iter().map(fencing).collect()));
    serde_saphyr::to_string(&out.tree())
        .expect("maps with text keys, lists and scalars can all be written to a string")
}

fn pair(nv: &crate::cib::Nv) -> (String, Tree) {
    (nv.name.clone(), Tree::Scalar(nv.value.clone()))
}

fn set(set: &NvSet) -> Tree {
    let id = set.id.as_ref().map(|id| ("$id".to_owned(), Tree::text(id)));
    Tree::Map(id.into_iter().chain(set.pairs.iter().map(pair)).collect())
}

fn volume(v: &Volume) -> Tree {
    let mut out = Map::default();
    out.text("size", show_size(v.size_bytes));
    out.text("device", &v.device);
    if v.port != 0 {
        out.text("port", v.port.to_string());
    }
    if v.day0 != 0 {
        out.text("day0", format!("{:016X}", v.day0));
    }
    if v.assume_clean {
        out.text("assume-clean", "true");
    }
    let replica = |r: &crate::cib::Replica| (r.node.clone(), Tree::text(&r.disk));
    out.put("replicas", Tree::Map(v.replicas.iter().map(replica).collect()));
    out.tree()
}

fn fencing(rule: &FencingRule) -> Tree {
    let mut out = Map::default();
    match &rule.target {
        FencingTarget::Every => {}
        FencingTarget::Node(name) => out.text("node", name),
        FencingTarget::Pattern(regex) => out.text("pattern", regex),
        FencingTarget::Attribute { name, value } => {
            out.put("attribute", Tree::Map(vec![(name.clone(), Tree::text(value))]));
        }
    }
    let level = |level: &Vec<String>| Tree::List(level.iter().map(Tree::text).collect());
    out.put("levels", Tree::List(rule.levels.iter().map(level).collect()));
    out.tree()
}

fn resource(resource: &Resource) -> Tree {
    match resource {
        Resource::Primitive(p) => primitive(p),
        Resource::Group(g) => group(g),
        Resource::Clone(c) => clone(c),
        Resource::Bundle(b) => bundle(b),
    }
}

const fn section_word(section: Section) -> &'static str {
    match section {
        Section::Params => "params",
        Section::Meta => "meta",
        Section::Utilization => "utilization",
        Section::Operations => "operations",
    }
}

fn primitive(p: &Primitive) -> Tree {
    let mut out = Map::default();
    out.text("primitive", &p.id);
    out.text("agent", p.agent.to_string());
    out.option("description", p.description.as_deref());
    for section in p.sections() {
        let part = match section {
            Section::Params => set(&p.params),
            Section::Meta => set(&p.meta),
            Section::Utilization => set(&p.utilization),
            Section::Operations => {
                let op = |op: &crate::cib::Op| Tree::Map(vec![(op.name.clone(), set(&op.attrs))]);
                Tree::List(p.ops.iter().map(op).collect())
            }
        };
        out.put(section_word(section), part);
    }
    let layout = p.layout.iter().map(|s| Tree::text(section_word(*s)));
    out.put("layout", Tree::List(layout.collect()));
    out.tree()
}

fn group(g: &Group) -> Tree {
    let mut out = Map::default();
    out.text("group", &g.id);
    out.option("description", g.description.as_deref());
    out.put("params", set(&g.params));
    out.put("meta", set(&g.meta));
    out.put("members", Tree::List(g.members.iter().map(primitive).collect()));
    out.tree()
}

fn bundle(b: &Bundle) -> Tree {
    let mut out = Map::default();
    out.text("bundle", &b.id);
    out.option("description", b.description.as_deref());
    out.put(b.container.engine.name(), set(&b.container.attrs));
    if let Some(network) = &b.network {
        out.put("network", set(&network.attrs));
        let port = |p: &crate::cib::PortMapping| (p.id.clone(), set(&p.attrs));
        out.put("ports", Tree::Map(network.ports.iter().map(port).collect()));
    }
    let mapping = |s: &crate::cib::StorageMapping| (s.id.clone(), set(&s.attrs));
    out.put("storage", Tree::Map(b.storage.iter().map(mapping).collect()));
    out.put("meta", set(&b.meta));
    if let Some(child) = &b.child {
        out.put("of", primitive(child));
    }
    out.tree()
}

fn clone(c: &CloneResource) -> Tree {
    let mut out = Map::default();
    out.text(if c.ms { "promotable" } else { "clone" }, &c.id);
    out.option("description", c.description.as_deref());
    out.put("params", set(&c.params));
    out.put("meta", set(&c.meta));
    out.put("of", resource(&c.child));
    out.tree()
}

const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Stopped => "stopped",
        Role::Started => "started",
        Role::Unpromoted => "unpromoted",
        Role::Promoted => "promoted",
    }
}

fn member(id: &str, word: Option<&str>) -> String {
    word.map_or_else(|| id.to_owned(), |word| format!("{id}:{word}"))
}

fn sets(sets: &[ResourceSet]) -> Tree {
    let one = |set: &ResourceSet| {
        let mut out = Map::default();
        let members = set.members.iter().map(|m| Tree::text(&m.resource));
        out.put("resources", Tree::List(members.collect()));
        out.option("role", set.role.map(role_word));
        out.option("action", set.action.map(action_word));
        if !set.sequential {
            out.text("sequential", "false");
        }
        if !set.require_all {
            out.text("require-all", "false");
        }
        out.tree()
    };
    Tree::List(sets.iter().map(one).collect())
}

fn constraint(constraint: &Constraint) -> Tree {
    let mut out = Map::default();
    out.text("id", constraint.id());
    let kind = match constraint {
        Constraint::Location(c) => {
            match &c.target {
                LocationTarget::Resource(id) => out.text("resource", id),
                LocationTarget::Pattern(regex) => out.text("pattern", regex),
            }
            out.option("role", c.role.map(role_word));
            out.text("node", &c.node);
            out.text("score", c.score.to_string());
            out.option("discovery", c.discovery.as_deref());
            "location"
        }
        Constraint::Colocation(c) => {
            if c.sets.is_empty() {
                out.text("follower", member(&c.rsc, c.rsc_role.map(role_word)));
                out.text("leader", member(&c.with, c.with_role.map(role_word)));
            }
            if c.score != Score::INF {
                out.text("score", c.score.to_string());
            }
            out.option("node-attribute", c.node_attribute.as_deref());
            out.put("sets", sets(&c.sets));
            "colocate"
        }
        Constraint::Order(c) => {
            if c.kind != OrderKind::Mandatory {
                out.text("kind", kind_word(c.kind).to_ascii_lowercase());
            }
            if c.sets.is_empty() {
                out.text("first", member(&c.first, c.first_action.map(action_word)));
                out.text("then", member(&c.then, c.then_action.map(action_word)));
            }
            if let Some(symmetrical) = c.symmetrical {
                out.text("symmetrical", symmetrical.to_string());
            }
            out.put("sets", sets(&c.sets));
            "order"
        }
    };
    Tree::Map(vec![(kind.to_owned(), out.tree())])
}
