//! Clusters near those of others: an outside case with one to three small changes. Random clusters look everywhere; these look around
//! what people once had trouble with.

use crate::dice::Dice;
use crate::engine::NOW_MS;
use crate::tree::Xml;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The documents of a directory, and what they become.
#[derive(Debug, Clone)]
pub struct Cases(Vec<PathBuf>);

impl Cases {
    /// Those of `dir`, by name.
    ///
    /// # Errors
    /// There are none.
    pub fn of(dir: &Path) -> Result<Self, String> {
        let note = |e: std::io::Error| format!("{}: {e}", dir.display());
        let mut all = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(note)? {
            let path = entry.map_err(note)?.path();
            if path.extension().is_some_and(|e| e == "xml") {
                all.push(path);
            }
        }
        all.sort();
        if all.is_empty() {
            return Err(format!("{}: no .xml in it", dir.display()));
        }
        Ok(Self(all))
    }

    /// The case that a seed begins with.
    #[must_use]
    pub fn name(&self, seed: u64) -> String {
        let stem = self.path(seed).and_then(|p| p.file_stem()).map(|s| s.to_string_lossy());
        stem.unwrap_or_default().into_owned()
    }

    /// The seed that has the case of this one unchanged; nothing when it is this one.
    #[must_use]
    pub fn origin(&self, seed: u64) -> Option<u64> {
        let n = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        (seed >= n).then(|| seed % n)
    }

    fn path(&self, seed: u64) -> Option<&PathBuf> {
        let n = u64::try_from(self.0.len()).unwrap_or(u64::MAX);
        self.0.get(usize::try_from(seed % n).unwrap_or(0))
    }

    /// The document of a seed. The first round of seeds has the cases as they are.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn document(&self, seed: u64) -> Result<Xml, String> {
        let path = self.path(seed).ok_or("no cases")?;
        let note = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| note(&e))?;
        let mut document = Xml::parse(&text).map_err(|e| note(&e))?;
        if document.attr("execution-date").is_none() {
            document.set("execution-date", &(NOW_MS / 1000).to_string());
        }
        with_known_names(&mut document);
        // Old documents of the suite have been given the names of later releases, such as `fail-count-RSC#OP`: 2.1.5 looks for the old ones
        // in what says that it is old.
        document.set("crm_feature_set", "3.16.1");
        let mut dice = Dice::new(seed);
        if self.origin(seed).is_some() {
            for _ in 0..dice.between(1, 3) {
                change(&mut document, &mut dice);
            }
        }
        Ok(document)
    }
}

/// Options that newer releases call otherwise than 2.1.5 does.
const RENAMED: [(&str, &str); 3] = [
    ("fencing-enabled", "stonith-enabled"),
    ("fencing-action", "stonith-action"),
    ("fencing-timeout", "stonith-timeout"),
];

fn with_known_names(element: &mut Xml) {
    if element.name == "nvpair" {
        let known = RENAMED.iter().find(|(new, _)| element.attr("name") == Some(new));
        if let Some((_, old)) = known {
            element.set("name", old);
        }
    }
    for child in &mut element.children {
        with_known_names(child);
    }
}

const RESOURCES: [&str; 5] = ["primitive", "group", "clone", "master", "bundle"];

/// One small change.
fn change(document: &mut Xml, dice: &mut Dice) {
    match dice.below(16) {
        0 | 1 => node_state(document, dice),
        2 => node_attribute(document, dice),
        3 | 4 => property(document, dice),
        5..=7 => meta(document, dice),
        8 | 9 => constraint(document, dice),
        10 | 11 => history(document, dice),
        12 => operation(document, dice),
        13 => fail_count(document, dice),
        14 => removal(document, dice),
        _ => location(document, dice),
    }
}

/// One of the elements for which `is` holds.
fn one<'a>(
    document: &'a mut Xml,
    dice: &mut Dice,
    is: &dyn Fn(&Xml) -> bool,
) -> Option<&'a mut Xml> {
    let mut all = Vec::new();
    collect(document, is, &mut all);
    let at = dice.below(all.len());
    all.into_iter().nth(at)
}

/// Those for which `is` holds; what is inside one of them is not looked at.
fn collect<'a>(element: &'a mut Xml, is: &dyn Fn(&Xml) -> bool, out: &mut Vec<&'a mut Xml>) {
    if is(element) {
        out.push(element);
        return;
    }
    for child in &mut element.children {
        collect(child, is, out);
    }
}

fn node_state(document: &mut Xml, dice: &mut Dice) {
    let Some(state) = one(document, dice, &|e| e.name == "node_state") else { return };
    let (member, peer, join, expected) = match dice.below(5) {
        0 | 1 => ("false", "offline", "down", "down"),
        2 => ("false", "offline", "down", "member"),
        3 => ("true", "online", "down", "member"),
        _ => ("true", "online", "member", "member"),
    };
    for (name, value) in
        [("in_ccm", member), ("crmd", peer), ("join", join), ("expected", expected)]
    {
        state.set(name, value);
    }
}

/// The pairs of an element in a set of that kind; the set is made where there is none.
fn pair(element: &mut Xml, set: &'static str, name: &str, value: &str) {
    let at = element.children.iter().position(|c| c.name == set).unwrap_or_else(|| {
        let id = format!("near-{set}-{}", element.attr("id").unwrap_or_default());
        // Sets come before what an element holds.
        let at = element.children.iter().position(|c| {
            !["instance_attributes", "meta_attributes", "utilization"].contains(&c.name)
        });
        let at = at.unwrap_or(element.children.len());
        element.children.insert(at, Xml::new(set, &[("id", &id)]));
        at
    });
    let Some(set) = element.children.get_mut(at) else { return };
    let known = set.children.iter_mut().find(|p| p.attr("name") == Some(name));
    if let Some(known) = known {
        known.set("value", value);
        return;
    }
    let id = format!("{}-near-{name}", set.attr("id").unwrap_or_default());
    set.push(Xml::new("nvpair", &[("id", &id), ("name", name), ("value", value)]));
}

fn node_attribute(document: &mut Xml, dice: &mut Dice) {
    let is = |e: &Xml| e.name == "node" && e.attr("uname").is_some();
    let Some(node) = one(document, dice, &is) else { return };
    let name = dice.pick(&["standby", "standby", "maintenance", "terminate"]);
    let value = dice.pick(&["true", "true", "false"]);
    pair(node, "instance_attributes", name, value);
}

const PROPERTIES: &[(&str, &[&str])] = &[
    ("no-quorum-policy", &["stop", "freeze", "ignore", "demote", "suicide"]),
    ("stonith-enabled", &["true", "false"]),
    ("symmetric-cluster", &["true", "false"]),
    ("maintenance-mode", &["true", "false"]),
    ("stop-all-resources", &["true", "false"]),
    ("stop-orphan-resources", &["true", "false"]),
    ("stop-orphan-actions", &["true", "false"]),
    ("start-failure-is-fatal", &["true", "false"]),
    ("enable-startup-probes", &["true", "false"]),
    ("concurrent-fencing", &["true", "false"]),
    ("placement-strategy", &["default", "utilization", "minimal", "balanced"]),
    ("shutdown-lock", &["true", "false"]),
    ("startup-fencing", &["true", "false"]),
    ("stonith-action", &["reboot", "off"]),
    ("priority-fencing-delay", &["15s", "0"]),
    ("node-health-strategy", &["none", "migrate-on-red", "only-green", "progressive", "custom"]),
];

fn property(document: &mut Xml, dice: &mut Dice) {
    if dice.percent(20) {
        document.set("have-quorum", dice.pick(&["0", "1"]));
        return;
    }
    let (name, values) = PROPERTIES[dice.below(PROPERTIES.len())];
    let value = dice.pick(values);
    let Some(options) = one(document, dice, &|e| e.name == "crm_config") else { return };
    pair(options, "cluster_property_set", name, value);
}

const METAS: &[(&str, &[&str])] = &[
    ("target-role", &["Started", "Stopped", "Stopped", "Slave", "Master"]),
    ("is-managed", &["true", "false"]),
    ("maintenance", &["true", "false"]),
    ("priority", &["0", "10", "-5"]),
    ("resource-stickiness", &["0", "100", "INFINITY", "-INFINITY"]),
    ("migration-threshold", &["1", "3", "INFINITY"]),
    ("failure-timeout", &["0", "60", "1000000"]),
    ("multiple-active", &["stop_start", "stop_only", "block", "stop_unexpected"]),
    ("allow-migrate", &["true", "false"]),
    ("requires", &["nothing", "quorum", "fencing", "unfencing"]),
    ("critical", &["true", "false"]),
    ("allow-unhealthy-nodes", &["true"]),
    ("clone-max", &["0", "1", "2", "3", "5"]),
    ("clone-node-max", &["0", "1", "2"]),
    ("clone-min", &["1", "2"]),
    ("interleave", &["true", "false"]),
    ("ordered", &["true", "false"]),
    ("notify", &["true", "false"]),
    ("globally-unique", &["true", "false"]),
    ("promotable", &["true", "false"]),
    ("promoted-max", &["0", "1", "2"]),
    ("promoted-node-max", &["1", "2"]),
];
/// As many at the end of `METAS` are of clones.
const OF_CLONES: usize = 10;

fn meta(document: &mut Xml, dice: &mut Dice) {
    // The outer one or one inside.
    let kind = dice.pick(&["primitive", "primitive", "group", "clone", "master"]);
    let Some(resource) = one(document, dice, &|e| e.name == kind) else { return };
    let clone = matches!(kind, "clone" | "master");
    let (from, to) = if clone && dice.percent(70) {
        (METAS.len() - OF_CLONES, METAS.len())
    } else {
        (0, METAS.len() - OF_CLONES)
    };
    let (name, values) = METAS[dice.between(from, to - 1)];
    let value = dice.pick(values);
    pair(resource, "meta_attributes", name, value);
}

fn constraint(document: &mut Xml, dice: &mut Dice) {
    let is =
        |e: &Xml| matches!(e.name, "rsc_location" | "rsc_colocation" | "rsc_order" | "rsc_ticket");
    let Some(found) = one(document, dice, &is) else { return };
    let scores = ["INFINITY", "-INFINITY", "100", "-100", "0"];
    let roles = ["Started", "Slave", "Master"];
    let score = dice.pick(&scores);
    let role = dice.pick(&roles);
    let of_sets = !found.children.is_empty();
    match (found.name, dice.below(3)) {
        ("rsc_location", _) if found.attr("score").is_some() => found.set("score", score),
        ("rsc_location", _) => {
            if let Some(rule) = found.children.iter_mut().find(|c| c.name == "rule") {
                rule.unset("score-attribute");
                rule.set("score", score);
            }
        }
        ("rsc_colocation", 0) if !of_sets => found.set("rsc-role", role),
        ("rsc_colocation", 1) if !of_sets => found.set("with-rsc-role", role),
        ("rsc_colocation", _) => {
            found.set("score", score);
            if dice.percent(20) {
                found.set("influence", dice.pick(&["true", "false"]));
            }
        }
        ("rsc_order", 0) => {
            found.unset("score");
            found.set("kind", dice.pick(&["Mandatory", "Optional", "Serialize"]));
        }
        ("rsc_order", 1) => found.set("symmetrical", dice.pick(&["true", "false"])),
        ("rsc_order", _) if !of_sets => {
            let which = dice.pick(&["first-action", "then-action"]);
            found.set(which, dice.pick(&["start", "stop", "promote", "demote"]));
        }
        ("rsc_ticket", _) => {
            found.set("loss-policy", dice.pick(&["stop", "demote", "fence", "freeze"]));
        }
        _ => {}
    }
}

fn history(document: &mut Xml, dice: &mut Dice) {
    if dice.percent(25) {
        let Some(all) = one(document, dice, &|e| e.name == "lrm_resource") else { return };
        if dice.percent(50) {
            all.children.clear();
        } else if !all.children.is_empty() {
            let at = dice.below(all.children.len());
            all.children.remove(at);
        }
        return;
    }
    let Some(record) = one(document, dice, &|e| e.name == "lrm_rsc_op") else { return };
    let (code, status) = match dice.below(8) {
        0 | 1 => ("7", None),
        2 => ("0", None),
        3 => ("1", Some("4")),
        4 => ("5", Some("4")),
        5 => ("8", None),
        6 => ("198", Some("2")),
        _ => ("9", Some("4")),
    };
    let status = status.unwrap_or("0");
    record.set("rc-code", code);
    record.set("op-status", status);
    let key = record.attr("transition-key").map(str::to_owned);
    if let Some(key) = key {
        record.set("transition-magic", &format!("{status}:{code};{key}"));
    }
}

fn operation(document: &mut Xml, dice: &mut Dice) {
    let Some(op) = one(document, dice, &|e| e.name == "op") else { return };
    match dice.below(4) {
        0 => op.set(
            "on-fail",
            dice.pick(&["ignore", "block", "stop", "restart", "fence", "standby", "demote"]),
        ),
        1 => op.set("enabled", dice.pick(&["true", "false"])),
        2 => op.set("interval", dice.pick(&["7s", "13s"])),
        _ => op.set("role", dice.pick(&["Started", "Slave", "Master", "Stopped"])),
    }
}

fn fail_count(document: &mut Xml, dice: &mut Dice) {
    let names: Vec<String> =
        document.find("primitive").iter().filter_map(|p| p.attr("id").map(str::to_owned)).collect();
    let Some(name) = names.get(dice.below(names.len())) else { return };
    let op = dice.pick(&["monitor_10000", "start_0", "stop_0", "promote_0"]);
    let count = dice.pick(&["1", "3", "INFINITY"]);
    let before = dice.pick(&["10", "5000"]).parse().unwrap_or(0);
    let Some(state) = one(document, dice, &|e| e.name == "node_state") else { return };
    let id = format!("near-{}", state.attr("id").unwrap_or_default());
    let at = state.children.iter().position(|c| c.name == "transient_attributes");
    let at = at.unwrap_or_else(|| {
        let owner = state.attr("id").unwrap_or_default().to_owned();
        state.push(
            Xml::new("transient_attributes", &[("id", &owner)])
                .holding(Xml::new("instance_attributes", &[("id", &id)])),
        );
        state.children.len() - 1
    });
    let Some(all) = state.children.get_mut(at) else { return };
    let when = (NOW_MS / 1000).saturating_sub(before);
    pair(all, "instance_attributes", &format!("fail-count-{name}#{op}"), count);
    pair(all, "instance_attributes", &format!("last-failure-{name}#{op}"), &when.to_string());
}

/// A resource, a constraint, a set of attributes or a node's state is gone; its history stays.
fn removal(document: &mut Xml, dice: &mut Dice) {
    let kinds = ["primitive", "rsc_location", "rsc_colocation", "rsc_order", "node_state", "op"];
    let kind = dice.pick(&kinds);
    let mut ids: BTreeSet<String> =
        document.find(kind).iter().filter_map(|e| e.attr("id").map(str::to_owned)).collect();
    let at = dice.below(ids.len());
    let Some(id) = ids.iter().nth(at).cloned() else { return };
    ids.clear();
    drop_one(document, kind, &id);
}

fn drop_one(element: &mut Xml, kind: &str, id: &str) {
    let holder = matches!(element.name, "group" | "clone" | "master" | "bundle");
    // The last one in a group or clone stays: an empty one is not valid.
    let inside = element.children.iter().filter(|c| RESOURCES.contains(&c.name)).count();
    if !(holder && inside < 2) {
        element.children.retain(|c| c.name != kind || c.attr("id") != Some(id));
    }
    for child in &mut element.children {
        drop_one(child, kind, id);
    }
}

fn location(document: &mut Xml, dice: &mut Dice) {
    let names = |all: Vec<&Xml>, key: &str| -> Vec<String> {
        all.iter().filter_map(|e| e.attr(key).map(str::to_owned)).collect()
    };
    let resources = names(document.find(dice.pick(&RESOURCES)), "id");
    let nodes = names(document.find("node"), "uname");
    let (Some(rsc), Some(node)) =
        (resources.get(dice.below(resources.len())), nodes.get(dice.below(nodes.len())))
    else {
        return;
    };
    let score = dice.pick(&["INFINITY", "-INFINITY", "200", "-50"]);
    let id = format!("near-{}", dice.next());
    let mut made =
        Xml::new("rsc_location", &[("id", &id), ("rsc", rsc), ("node", node), ("score", score)]);
    if dice.percent(20) {
        made.set("role", dice.pick(&["Master", "Slave"]));
    } else if dice.percent(10) {
        made.set("resource-discovery", dice.pick(&["never", "exclusive"]));
    }
    if let Some(all) = one(document, dice, &|e| e.name == "constraints") {
        all.push(made);
    }
}

#[cfg(test)]
mod tests {
    use super::Cases;
    use crate::engine::ours;
    use crate::generate::{Mask, cluster};

    #[test]
    fn each_seed_has_a_document_of_its_own_near_a_case_and_the_first_round_has_the_cases() {
        let dir = std::env::temp_dir().join(format!("crm-near-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for seed in 0..3 {
            let path = dir.join(format!("case{seed}.xml"));
            std::fs::write(path, cluster(seed, &Mask::default()).to_string()).unwrap();
        }
        let cases = Cases::of(&dir).unwrap();
        let documents: Vec<_> = (0..60).map(|seed| cases.document(seed).unwrap()).collect();
        std::fs::remove_dir_all(&dir).unwrap();
        for (seed, document) in documents.iter().enumerate() {
            let first = &documents[seed % 3];
            let same = documents.iter().filter(|d| *d == document).count();
            assert!(seed < 3 || document != first || same < 6, "seed {seed} changes nothing");
            ours(document).unwrap();
        }
    }
}
