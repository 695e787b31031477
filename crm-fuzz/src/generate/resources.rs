//! Resources: primitives, groups, clones, promotable clones, with meta attributes and operations.

use super::{DIGESTS, Kind, Leaf, Maker, Top};
use crate::tree::Xml;

/// Where a primitive stands.
#[derive(Clone, Copy, Default)]
struct Place {
    grouped: bool,
    promotable: bool,
}

impl Maker {
    pub(super) fn resources(&mut self) -> Xml {
        let mut section = Xml::new("resources", &[]);
        let mut made = Vec::new();
        if self.has("fencing") && self.dice.percent(90) {
            made.push(self.device());
        }
        let count = self.dice.between(1, 5);
        for index in 0..count {
            let top = match self.dice.below(10) {
                0..=2 if self.has("groups") => self.group(index),
                3 | 4 if self.has("clones") || self.has("unique") => self.clone_of(index, false),
                5 | 6 if self.has("promotable") => self.clone_of(index, true),
                7 if self.has("cloned-groups") => {
                    let promotable = self.maybe("promotable", 40);
                    self.clone_of_group(index, promotable)
                }
                _ => {
                    let leaf = self.leaves.len();
                    let id = format!("p{index}");
                    let element = self.primitive(&id, Place::default());
                    let kind = Kind::Primitive;
                    self.tops.push(Top { id, kind, leaves: vec![leaf], unique: false });
                    element
                }
            };
            made.push(top);
        }
        section.children.append(&mut self.templates);
        section.children.extend(made);
        section
    }

    fn device(&mut self) -> Xml {
        let id = "fence".to_owned();
        let leaf = self.leaves.len();
        self.leaves.push(Leaf {
            id: id.clone(),
            stonith: true,
            promotable: false,
            monitors: Vec::new(),
            digest: DIGESTS[0],
        });
        self.tops.push(Top {
            id: id.clone(),
            kind: Kind::Primitive,
            leaves: vec![leaf],
            unique: false,
        });
        Xml::new("primitive", &[("id", &id), ("class", "stonith"), ("type", "fence_dummy")])
    }

    fn primitive(&mut self, id: &str, place: Place) -> Xml {
        let kind = if place.promotable { "Stateful" } else { "Dummy" };
        let agent = [("class", "ocf"), ("provider", "pacemaker"), ("type", kind)];
        let mut element = Xml::new("primitive", &[("id", id)]);
        if self.maybe("templates", 40) {
            let name = self.fresh("t");
            let mut template = Xml::new("template", &[("id", &name)]);
            template.attrs.extend(agent.map(|(k, v)| (k.to_owned(), v.to_owned())));
            let stickiness = self.dice.pick(&["0", "10", "100"]).to_owned();
            self.set(&mut template, "meta_attributes", &[("resource-stickiness", stickiness)]);
            self.templates.push(template);
            element = element.with("template", &name);
        } else {
            element.attrs.extend(agent.map(|(k, v)| (k.to_owned(), v.to_owned())));
        }
        let mut digest = DIGESTS[0];
        if self.maybe("digests", 50) {
            self.set(&mut element, "instance_attributes", &[("a", "1".to_owned())]);
            digest = if self.dice.percent(60) { DIGESTS[1] } else { DIGESTS[0] };
        }
        let pairs = self.primitive_meta(place);
        self.set(&mut element, "meta_attributes", &pairs);
        if self.maybe("utilization", 70) {
            let cpu = self.dice.between(0, 4).to_string();
            let mut pairs = vec![("cpu", cpu)];
            if self.dice.percent(40) {
                pairs.push(("memory", self.dice.between(1, 4).to_string()));
            }
            self.set(&mut element, "utilization", &pairs);
        }
        let monitors = self.operations(&mut element, place);
        self.leaves.push(Leaf {
            id: id.to_owned(),
            stonith: false,
            promotable: place.promotable,
            monitors,
            digest,
        });
        element
    }

    fn primitive_meta(&mut self, place: Place) -> Vec<(&'static str, String)> {
        let mut pairs: Vec<(&'static str, String)> = self.general_meta(place);
        if self.maybe("migrate", 60) {
            pairs.push(("allow-migrate", "true".to_owned()));
        }
        if self.maybe("failcounts", 50) {
            pairs.push(("migration-threshold", self.dice.pick(&["1", "2", "3"]).to_owned()));
        }
        if self.maybe("failcounts", 20) {
            pairs.push(("failure-timeout", "100s".to_owned()));
        }
        if self.maybe("requires", 50) {
            let of = ["nothing", "quorum", "fencing"];
            pairs.push(("requires", self.dice.pick(&of).to_owned()));
        }
        if self.maybe("multiple-active", 60) {
            let of = ["stop_start", "stop_only", "block", "stop_unexpected"];
            pairs.push(("multiple-active", self.dice.pick(&of).to_owned()));
        }
        if self.maybe("influence", 30) {
            pairs.push(("critical", "false".to_owned()));
        }
        if self.maybe("health", 20) {
            pairs.push(("allow-unhealthy-nodes", "true".to_owned()));
        }
        pairs
    }

    /// What any kind of resource may have.
    fn general_meta(&mut self, place: Place) -> Vec<(&'static str, String)> {
        let mut pairs: Vec<(&'static str, String)> = Vec::new();
        if self.maybe("stickiness", 30) {
            let of = ["0", "1", "100", "-20", "INFINITY"];
            pairs.push(("resource-stickiness", self.dice.pick(&of).to_owned()));
        }
        if self.maybe("priority", 50) {
            pairs.push(("priority", self.dice.between(0, 20).to_string()));
        }
        // In a group they are rare: the first stopped member stops all the others.
        if self.maybe("target-role", if place.grouped { 8 } else { 30 }) {
            let of: &[&str] = if place.promotable {
                &["Stopped", "Started", "Slave", "Master"]
            } else {
                &["Stopped", "Started"]
            };
            pairs.push(("target-role", self.dice.pick(of).to_owned()));
        }
        if self.maybe("unmanaged", 20) {
            pairs.push(("is-managed", "false".to_owned()));
        }
        if self.maybe("maintenance", 15) {
            pairs.push(("maintenance", "true".to_owned()));
        }
        pairs
    }

    fn operations(&mut self, element: &mut Xml, place: Place) -> Vec<(u32, Option<&'static str>)> {
        let mut monitors = Vec::new();
        let mut ops = Vec::new();
        if self.maybe("monitors", 75) {
            let with_roles = place.promotable && self.dice.percent(70);
            let roles: &[(u32, Option<&'static str>)] = if with_roles {
                &[(10_000, Some("Slave")), (11_000, Some("Master"))]
            } else {
                &[(10_000, None)]
            };
            monitors.extend_from_slice(roles);
            if self.maybe("monitor-roles", 30) {
                monitors.push((20_000, Some("Stopped")));
            }
        }
        let fates = ["ignore", "block", "stop", "restart", "standby", "fence", "demote"];
        for (interval, role) in &monitors {
            let interval = format!("{}s", interval / 1000);
            let mut op = self.op("monitor", &interval);
            if let Some(role) = role {
                op = op.with("role", role);
            }
            if self.maybe("on-fail", 40) {
                let mut fate = self.dice.pick(&fates);
                if fate == "demote" && *role != Some("Master") {
                    fate = "restart";
                }
                op = op.with("on-fail", fate);
            }
            ops.push(op);
        }
        for name in ["start", "stop", "promote", "demote"] {
            let fits = place.promotable || matches!(name, "start" | "stop");
            if fits && self.maybe("on-fail", 25) {
                let fates: &[&str] = match name {
                    "stop" => &["ignore", "block", "fence"],
                    "promote" => &["restart", "demote", "block", "stop"],
                    _ => &["restart", "block", "stop", "ignore", "standby", "fence"],
                };
                let fate = self.dice.pick(fates);
                let op = self.op(name, "0").with("on-fail", fate);
                ops.push(op);
            }
        }
        if !ops.is_empty() {
            let mut section = Xml::new("operations", &[]);
            section.children = ops;
            element.push(section);
        }
        monitors
    }

    fn op(&mut self, name: &str, interval: &str) -> Xml {
        let id = self.fresh("op");
        Xml::new("op", &[("id", &id), ("name", name), ("interval", interval)])
    }

    fn members(&mut self, id: &str, promotable: bool) -> (Vec<Xml>, Vec<usize>) {
        let (mut elements, mut leaves) = (Vec::new(), Vec::new());
        for member in 0..self.dice.between(1, 3) {
            leaves.push(self.leaves.len());
            let place = Place { grouped: true, promotable };
            elements.push(self.primitive(&format!("{id}m{member}"), place));
        }
        (elements, leaves)
    }

    fn group(&mut self, index: usize) -> Xml {
        let id = format!("g{index}");
        let (elements, leaves) = self.members(&id, false);
        let mut group = Xml::new("group", &[("id", &id)]);
        let pairs = self.general_meta(Place::default());
        self.set(&mut group, "meta_attributes", &pairs);
        group.children.extend(elements);
        self.tops.push(Top { id, kind: Kind::Group, leaves, unique: false });
        group
    }

    fn clone_of(&mut self, index: usize, promotable: bool) -> Xml {
        let id = if promotable { format!("m{index}") } else { format!("c{index}") };
        let leaf = self.leaves.len();
        let (mut clone, unique) = self.clone_shell(&id, promotable);
        let place = Place { grouped: false, promotable };
        let inner = self.primitive(&format!("{id}p"), place);
        clone.push(inner);
        let kind = if promotable { Kind::Promotable } else { Kind::Clone };
        self.tops.push(Top { id, kind, leaves: vec![leaf], unique });
        clone
    }

    fn clone_of_group(&mut self, index: usize, promotable: bool) -> Xml {
        let id = format!("cg{index}");
        let (mut clone, unique) = self.clone_shell(&id, promotable);
        let inner = format!("{id}g");
        let mut group = Xml::new("group", &[("id", &inner)]);
        let (elements, leaves) = self.members(&inner, promotable);
        group.children = elements;
        clone.push(group);
        let kind = if promotable { Kind::Promotable } else { Kind::Clone };
        self.tops.push(Top { id, kind, leaves, unique });
        clone
    }

    fn clone_shell(&mut self, id: &str, promotable: bool) -> (Xml, bool) {
        let mut clone = Xml::new("clone", &[("id", id)]);
        let mut pairs = self.general_meta(Place { grouped: false, promotable });
        let unique = self.maybe("unique", if self.has("clones") { 50 } else { 100 });
        if unique {
            pairs.push(("globally-unique", "true".to_owned()));
            if self.dice.percent(50) {
                pairs.push(("clone-node-max", "2".to_owned()));
            }
        }
        if promotable {
            pairs.push(("promotable", "true".to_owned()));
            if self.maybe("clone-limits", 40) {
                pairs.push(("promoted-max", "2".to_owned()));
            }
        }
        if self.maybe("clone-limits", 50) {
            pairs.push(("clone-max", self.dice.between(1, 4).to_string()));
        }
        if self.maybe("clone-limits", 25) {
            pairs.push(("clone-min", self.dice.between(1, 3).to_string()));
        }
        if self.dice.percent(50) {
            pairs.push(("interleave", "true".to_owned()));
        }
        if self.maybe("clone-limits", 30) {
            pairs.push(("ordered", "true".to_owned()));
        }
        if self.maybe("clone-limits", 30) {
            pairs.push(("notify", "true".to_owned()));
        }
        self.set(&mut clone, "meta_attributes", &pairs);
        (clone, unique)
    }
}
