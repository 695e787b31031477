//! The same cluster in the words of the schemas before 3.0: what was an option of the cluster then and is a default now, `master`, other names.

use super::asked::Asked;
use super::distant::section;
use crate::tree::Xml;

/// Options with a dash that were once written with an underscore.
const UNDERSCORED: [&str; 7] = [
    "no-quorum-policy",
    "startup-fencing",
    "stonith-action",
    "stonith-enabled",
    "stop-orphan-actions",
    "stop-orphan-resources",
    "symmetric-cluster",
];

pub(super) fn apply(asked: &mut Asked) {
    let schema = asked.dice.pick(&["pacemaker-2.10", "pacemaker-2.5", "pacemaker-1.3"]);
    let schema = if asked.document.find("bundle").is_empty() { schema } else { "pacemaker-2.10" };
    for (name, value) in &mut asked.document.attrs {
        if name == "validate-with" {
            schema.clone_into(value);
        }
    }
    without_newer(&mut asked.document);
    options(asked);
    let mut names = Vec::new();
    for clone in asked.document.find("clone") {
        if clone.values("promotable").contains(&"true") {
            names.extend(clone.attr("id").map(str::to_owned));
        }
    }
    names.retain(|_| asked.dice.percent(70));
    masters(&mut asked.document, &names);
    primitives(asked);
}

/// What the old schemas do not have.
fn without_newer(at: &mut Xml) {
    at.attrs.retain(|(name, _)| name != "influence");
    for child in &mut at.children {
        without_newer(child);
    }
}

fn options(asked: &mut Asked) {
    let mut moved = Vec::new();
    let defaults: [(&str, &str, &[&str]); 4] = [
        ("resource-stickiness", "default-resource-stickiness", &["50", "INFINITY", "0"]),
        ("is-managed", "is-managed-default", &["true", "true", "false"]),
        ("migration-threshold", "default-migration-threshold", &["1", "3"]),
        ("none", "default-resource-failure-stickiness", &["-INFINITY", "-100"]),
    ];
    for (new, old, values) in defaults {
        if !asked.dice.percent(40) {
            continue;
        }
        // Sometimes both are there.
        let mut value = asked.dice.pick(values).to_owned();
        if asked.dice.percent(60)
            && let Some(section) = section(&mut asked.document, "rsc_defaults")
        {
            for set in &mut section.children {
                if let Some(at) = set.children.iter().position(|p| p.attr("name") == Some(new)) {
                    let pair = set.children.remove(at);
                    pair.attr("value").unwrap_or_default().clone_into(&mut value);
                }
            }
        }
        let name = if asked.dice.percent(30) { old.replace('-', "_") } else { old.to_owned() };
        moved.push((name, value));
    }
    for (name, value) in moved {
        asked.property(&name, &value);
    }
    for name in UNDERSCORED {
        let chosen = asked.dice.percent(40);
        let Some(set) = section(&mut asked.document, "cluster_property_set") else { continue };
        for pair in set.children.iter_mut().filter(|_| chosen) {
            for (key, value) in &mut pair.attrs {
                if key == "name" && value == name {
                    *value = name.replace('-', "_");
                }
            }
        }
    }
}

fn masters(at: &mut Xml, names: &[String]) {
    if at.name == "clone" && at.attr("id").is_some_and(|id| names.iter().any(|n| n == id)) {
        at.name = "master";
        for set in at.children.iter_mut().filter(|c| c.name == "meta_attributes") {
            set.children.retain(|p| p.attr("name") != Some("promotable"));
            for pair in &mut set.children {
                for (key, value) in &mut pair.attrs {
                    if key == "name" && value.starts_with("promoted-") {
                        *value = value.replace("promoted-", "master-");
                    }
                }
            }
        }
        at.children.retain(|c| c.name != "meta_attributes" || !c.children.is_empty());
    }
    for child in &mut at.children {
        masters(child, names);
    }
}

/// Old meta attributes; what an operation requires.
fn primitives(asked: &mut Asked) {
    let ids: Vec<String> = asked
        .document
        .find("primitive")
        .into_iter()
        .filter_map(|p| p.attr("id"))
        .map(str::to_owned)
        .collect();
    for id in ids {
        let of = [
            ("resource-failure-stickiness", "-INFINITY"),
            ("resource-failure-stickiness", "-20"),
            ("isolation", "docker"),
        ];
        let (name, value) = of[asked.dice.below(of.len())];
        let old = asked.dice.percent(20).then(|| asked.set("meta_attributes", &[(name, value)]));
        let requires = asked.dice.pick(&["nothing", "quorum", "fencing"]);
        let on = asked.dice.pick(&["start", "promote", "monitor", "stop"]);
        let requires = asked.dice.percent(25).then(|| {
            let attrs =
                [("id", asked.fresh("op")), ("name", on.to_owned()), ("interval", "0".to_owned())];
            let mut op = Xml::new("op", &[]);
            op.attrs.extend(attrs.map(|(key, value)| (key.to_owned(), value)));
            op.with("requires", requires)
        });
        change(&mut asked.document, &id, &mut |prim| {
            if let Some(old) = old.clone() {
                prim.children.insert(0, old);
            }
            let Some(op) = requires.clone() else { return };
            let Some(list) = prim.children.iter_mut().find(|c| c.name == "operations") else {
                prim.push(Xml::new("operations", &[]).holding(op));
                return;
            };
            let same =
                |o: &Xml| o.attr("name") == op.attr("name") && o.attr("interval") == Some("0");
            if !list.children.iter().any(same) {
                list.push(op);
            }
        });
    }
}

fn change(at: &mut Xml, id: &str, how: &mut dyn FnMut(&mut Xml)) {
    if at.name == "primitive" && at.attr("id") == Some(id) {
        return how(at);
    }
    for child in &mut at.children {
        change(child, id, how);
    }
}
