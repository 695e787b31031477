//! Random clusters as CIB documents with status, in the words that Debian 12's `crm_simulate` 2.1.5 reads. Small: two to five nodes, up to a dozen resources.
//!
//! Each seed has a few features only: what a difference is about is seen sooner, and features that hide each other are also seen alone.

mod asked;
mod constraints;
mod distant;
mod old_names;
mod resources;
mod status;

use crate::dice::Dice;
use crate::tree::Xml;
use std::collections::BTreeSet;

/// Features that are only there when they are named, with `--only` or `--with`: clusters of seeds without them stay what they are.
pub const ON_REQUEST: &[&str] = &[
    "bundles",
    "default-rules",
    "guests",
    "levels",
    "lifetimes",
    "old-names",
    "patterns",
    "reloads",
    "remotes",
    "set-options",
    "unfencing",
];

/// All features that a cluster may have; names for `--only` and `--without`.
pub const FEATURES: &[&str] = &[
    "asymmetric",
    "clone-limits",
    "cloned-groups",
    "clones",
    "cold",
    "colocation-sets",
    "colocations",
    "defaults",
    "digests",
    "discovery",
    "failcounts",
    "failures",
    "fencing",
    "groups",
    "health",
    "influence",
    "locations",
    "lost",
    "maintenance",
    "migrate",
    "migrations",
    "monitor-roles",
    "monitors",
    "multiple-active",
    "node-attributes",
    "on-fail",
    "options",
    "order-sets",
    "orders",
    "orphans",
    "pending-nodes",
    "pending-ops",
    "priority",
    "promotable",
    "quorum",
    "requires",
    "rules",
    "shutdown",
    "standby",
    "stickiness",
    "tags",
    "target-role",
    "templates",
    "tickets",
    "unique",
    "unmanaged",
    "utilization",
    "wrong-place",
];
/// Most clusters have these.
const USUAL: &[&str] = &["locations", "colocations", "orders", "monitors", "groups", "stickiness"];

/// Which features may be used.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// These alone; all when empty.
    pub only: BTreeSet<String>,
    /// Not these.
    pub without: BTreeSet<String>,
    /// These too, of those on request.
    pub with: BTreeSet<String>,
}

impl Mask {
    /// Is something wanted that is only there on request?
    fn wants(&self, feature: &str) -> bool {
        (self.only.contains(feature) || self.with.contains(feature))
            && !self.without.contains(feature)
    }
}

/// What became of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Up,
    Lost,
    Gone,
    Pending,
    Unseen,
    Leaving,
}

#[derive(Debug)]
struct NodeMade {
    name: String,
    life: Life,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Primitive,
    Group,
    Clone,
    Promotable,
}

#[derive(Debug)]
struct Top {
    id: String,
    kind: Kind,
    /// Indices into [`Maker::leaves`].
    leaves: Vec<usize>,
    unique: bool,
}

#[derive(Debug)]
struct Leaf {
    id: String,
    stonith: bool,
    promotable: bool,
    /// Interval in milliseconds, role.
    monitors: Vec<(u32, Option<&'static str>)>,
    digest: &'static str,
}

struct Maker {
    dice: Dice,
    active: BTreeSet<&'static str>,
    nodes: Vec<NodeMade>,
    tops: Vec<Top>,
    leaves: Vec<Leaf>,
    templates: Vec<Xml>,
    ids: usize,
}

/// Digest of no parameters at all, and of `a=1`.
const DIGESTS: [&str; 2] = ["f2317cad3d54cec5d7d7aa7d0bf35cf8", "371f0a162b188dbc06a3e2ab24f27abd"];

/// The same for recurring monitors, whose timeout counts too.
const MONITOR_DIGESTS: [&str; 2] =
    ["4811cef7f7f94e3a35a70be7916cb2fd", "686c7f11bb21594d5a1b72f514086047"];

/// The cluster of a seed.
#[must_use]
pub fn cluster(seed: u64, mask: &Mask) -> Xml {
    let mut dice = Dice::new(seed);
    let mut active = BTreeSet::new();
    for feature in FEATURES {
        let chance = if USUAL.contains(feature) { 55 } else { 22 };
        let allowed = (mask.only.is_empty() || mask.only.contains(*feature))
            && !mask.without.contains(*feature);
        // Drawn in any case: a mask changes nothing but what it names.
        if dice.percent(chance) && allowed {
            active.insert(*feature);
        }
    }
    let mut maker = Maker {
        dice,
        active,
        nodes: Vec::new(),
        tops: Vec::new(),
        leaves: Vec::new(),
        templates: Vec::new(),
        ids: 0,
    };
    asked::add(distant::add(maker.document(), seed, mask), seed, mask)
}

impl Maker {
    fn has(&self, feature: &str) -> bool {
        self.active.contains(feature)
    }

    /// A feature that this cluster has, so many times in a hundred.
    fn maybe(&mut self, feature: &str, percent: usize) -> bool {
        self.has(feature) && self.dice.percent(percent)
    }

    fn fresh(&mut self, stem: &str) -> String {
        self.ids += 1;
        format!("{stem}-{}", self.ids)
    }

    fn pair(&mut self, name: &str, value: &str) -> Xml {
        let id = self.fresh("nv");
        Xml::new("nvpair", &[("id", &id), ("name", name), ("value", value)])
    }

    /// A set of pairs below `owner`, if there are any.
    fn set(&mut self, owner: &mut Xml, name: &'static str, pairs: &[(&str, String)]) {
        if pairs.is_empty() {
            return;
        }
        let id = self.fresh("set");
        let mut set = Xml::new(name, &[("id", &id)]);
        for (name, value) in pairs {
            let pair = self.pair(name, value);
            set.push(pair);
        }
        owner.push(set);
    }

    fn document(&mut self) -> Xml {
        self.make_nodes();
        let properties = self.properties();
        let nodes = self.nodes_section();
        let resources = self.resources();
        let (constraints, tags) = self.constraints();
        let defaults = self.defaults();
        let status = self.status();
        let quorate = if self.maybe("quorum", 60) { "0" } else { "1" };
        let mut configuration = Xml::new("configuration", &[])
            .holding(properties)
            .holding(nodes)
            .holding(resources)
            .holding(constraints);
        configuration.children.extend(tags);
        configuration.children.extend(defaults);
        let attrs = [
            ("crm_feature_set", "3.16.1"),
            ("validate-with", "pacemaker-3.9"),
            ("epoch", "1"),
            ("num_updates", "0"),
            ("admin_epoch", "0"),
            ("have-quorum", quorate),
            ("dc-uuid", "1"),
            ("execution-date", "1700000000"),
        ];
        Xml::new("cib", &attrs).holding(configuration).holding(status)
    }

    fn make_nodes(&mut self) {
        let names = ["n1", "n2", "n10", "n3", "n4"];
        let count = self.dice.between(2, 5);
        for (index, name) in names.iter().take(count).enumerate() {
            let mut life = Life::Up;
            // The first one stays: somebody has to coordinate.
            if index > 0 {
                if self.maybe("lost", 45) {
                    life = if self.dice.percent(60) { Life::Lost } else { Life::Gone };
                }
                if self.maybe("pending-nodes", 25) {
                    life = if self.dice.percent(70) { Life::Pending } else { Life::Unseen };
                }
            }
            if self.maybe("shutdown", 30) {
                life = Life::Leaving;
            }
            self.nodes.push(NodeMade { name: (*name).to_owned(), life });
        }
    }

    fn properties(&mut self) -> Xml {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        pairs.push(("stonith-enabled", self.has("fencing").to_string()));
        if self.has("quorum") {
            let policy = self.dice.pick(&["stop", "stop", "ignore", "freeze", "suicide", "demote"]);
            pairs.push(("no-quorum-policy", policy.to_owned()));
        }
        if self.has("asymmetric") {
            pairs.push(("symmetric-cluster", "false".to_owned()));
        }
        if self.maybe("maintenance", 15) {
            pairs.push(("maintenance-mode", "true".to_owned()));
        }
        if self.has("utilization") {
            let strategy = self.dice.pick(&["default", "utilization", "minimal", "balanced"]);
            pairs.push(("placement-strategy", strategy.to_owned()));
        }
        if self.has("health") {
            let strategies = ["none", "migrate-on-red", "only-green", "progressive", "custom"];
            let strategy = self.dice.pick(&strategies);
            pairs.push(("node-health-strategy", strategy.to_owned()));
            if strategy == "progressive" && self.dice.percent(50) {
                pairs.push(("node-health-base", "10".to_owned()));
            }
        }
        if self.has("options") {
            let flags = [
                ("stop-orphan-resources", "false"),
                ("stop-orphan-actions", "false"),
                ("stop-all-resources", "true"),
                ("startup-fencing", "false"),
                ("start-failure-is-fatal", "false"),
                ("enable-startup-probes", "false"),
                ("stonith-action", "off"),
                ("concurrent-fencing", "true"),
                ("shutdown-lock", "true"),
                ("priority-fencing-delay", "30s"),
            ];
            for (name, value) in flags {
                if self.dice.percent(15) {
                    pairs.push((name, value.to_owned()));
                }
            }
        }
        let mut section = Xml::new("crm_config", &[]);
        self.set(&mut section, "cluster_property_set", &pairs);
        section
    }

    fn nodes_section(&mut self) -> Xml {
        let mut section = Xml::new("nodes", &[]);
        for index in 0..self.nodes.len() {
            let id = (index + 1).to_string();
            let name = self.nodes[index].name.clone();
            let mut node = Xml::new("node", &[("id", &id), ("uname", &name)]);
            let mut pairs: Vec<(&str, String)> = Vec::new();
            if self.maybe("standby", 35) {
                pairs.push(("standby", "on".to_owned()));
            }
            if self.maybe("maintenance", 30) {
                pairs.push(("maintenance", "true".to_owned()));
            }
            if self.has("node-attributes") || self.has("rules") {
                pairs.push(("site", self.dice.pick(&["a", "b"]).to_owned()));
                if self.dice.percent(60) {
                    pairs.push(("rank", self.dice.between(0, 300).to_string()));
                }
            }
            self.set(&mut node, "instance_attributes", &pairs);
            if self.has("utilization") {
                let cpu = self.dice.between(1, 8).to_string();
                let memory = self.dice.between(1, 8).to_string();
                self.set(&mut node, "utilization", &[("cpu", cpu), ("memory", memory)]);
            }
            section.push(node);
        }
        section
    }

    fn defaults(&mut self) -> Vec<Xml> {
        let mut out = Vec::new();
        let mut pairs: Vec<(&str, String)> = Vec::new();
        if self.maybe("stickiness", 70) {
            pairs
                .push(("resource-stickiness", self.dice.pick(&["1", "50", "INFINITY"]).to_owned()));
        }
        if self.has("defaults") {
            for (name, value) in
                [("migration-threshold", "2"), ("failure-timeout", "60s"), ("is-managed", "true")]
            {
                if self.dice.percent(40) {
                    pairs.push((name, value.to_owned()));
                }
            }
        }
        if !pairs.is_empty() {
            let mut section = Xml::new("rsc_defaults", &[]);
            self.set(&mut section, "meta_attributes", &pairs);
            out.push(section);
        }
        if self.maybe("on-fail", 15) {
            let policy = self.dice.pick(&["block", "stop", "restart", "ignore"]).to_owned();
            let mut section = Xml::new("op_defaults", &[]);
            self.set(&mut section, "meta_attributes", &[("on-fail", policy)]);
            out.push(section);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Mask, cluster};

    #[test]
    fn the_same_seed_gives_the_same_cluster() {
        assert_eq!(cluster(5, &Mask::default()), cluster(5, &Mask::default()));
        assert_ne!(cluster(5, &Mask::default()), cluster(6, &Mask::default()));
    }

    #[test]
    fn a_mask_keeps_features_out() {
        let mut mask = Mask::default();
        mask.without.insert("clones".to_owned());
        mask.without.insert("promotable".to_owned());
        mask.without.insert("unique".to_owned());
        mask.without.insert("cloned-groups".to_owned());
        for seed in 0..200 {
            assert!(cluster(seed, &mask).find("clone").is_empty(), "seed {seed}");
        }
    }
}
