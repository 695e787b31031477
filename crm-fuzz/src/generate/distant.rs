//! Remote nodes, guests and bundles, added to a cluster that is made already: clusters of seeds without them stay what they are.

use super::Mask;
use crate::dice::Dice;
use crate::tree::Xml;

/// Features that are made here.
const DISTANT: [&str; 3] = ["bundles", "guests", "remotes"];

const CONNECTION: [&str; 3] = ["ocf", "pacemaker", "remote"];
const DUMMY: [&str; 3] = ["ocf", "pacemaker", "Dummy"];
const STATEFUL: [&str; 3] = ["ocf", "pacemaker", "Stateful"];
const CONTAINER: [&str; 3] = ["ocf", "heartbeat", "docker"];

struct Extra {
    dice: Dice,
    document: Xml,
    /// Members that live.
    hosts: Vec<String>,
    /// Names for constraints.
    names: Vec<String>,
    calls: u32,
}

/// The document with what `mask` asks for.
pub(super) fn add(document: Xml, seed: u64, mask: &Mask) -> Xml {
    let wanted: Vec<&str> = DISTANT.into_iter().filter(|f| mask.wants(f)).collect();
    if wanted.is_empty() {
        return document;
    }
    let lives = |s: &&Xml| s.attr("crmd") == Some("online") && s.attr("join") == Some("member");
    let states = document.find("node_state");
    let hosts: Vec<String> = states
        .into_iter()
        .filter(lives)
        .filter_map(|s| s.attr("uname"))
        .map(str::to_owned)
        .collect();
    let names = document.find("primitive").into_iter().filter_map(|p| p.attr("id"));
    let names = names.filter(|id| id.starts_with('p')).map(str::to_owned).collect();
    let dice = Dice::new(seed ^ 0x0064_6973_7461_6e74);
    let mut extra = Extra { dice, document, hosts, names, calls: 100 };
    if extra.hosts.is_empty() {
        return extra.document;
    }
    for feature in wanted {
        for number in 0..extra.dice.between(1, 2) {
            match feature {
                "bundles" => extra.bundle(number),
                "guests" => extra.guest(number),
                _ => extra.remote(number),
            }
        }
    }
    extra.constraints();
    extra.document
}

pub(super) fn section<'x>(at: &'x mut Xml, name: &str) -> Option<&'x mut Xml> {
    if at.name == name {
        return Some(at);
    }
    at.children.iter_mut().find_map(|child| section(child, name))
}

fn primitive(id: &str, [class, provider, kind]: [&str; 3]) -> Xml {
    let attrs = [("id", id), ("class", class), ("provider", provider), ("type", kind)];
    Xml::new("primitive", &attrs)
}

impl Extra {
    fn push(&mut self, name: &str, child: Xml) {
        if let Some(at) = section(&mut self.document, name) {
            at.push(child);
        }
    }

    /// One operation that has been done: name, result, expected result.
    fn op(&mut self, id: &str, (op, rc, expected): (&str, u8, u8)) -> Xml {
        self.calls += 1;
        let (call, key) = (self.calls.to_string(), format!("{id}_{op}_0"));
        let transition = format!("{call}:0:{expected}:7d0bf35c-0000-4000-8000-000000000000");
        let magic = format!("0:{rc};{transition}");
        Xml::new("lrm_rsc_op", &[("id", &format!("{id}_last_{call}")), ("operation_key", &key)])
            .with("operation", op)
            .with("transition-key", &transition)
            .with("transition-magic", &magic)
            .with("call-id", &call)
            .with("rc-code", &rc.to_string())
            .with("op-status", "0")
            .with("interval", "0")
            .with("crm_feature_set", "3.16.1")
            .with("op-digest", super::DIGESTS[0])
            .with("last-rc-change", "1699999900")
    }

    fn history(&mut self, id: &str, agent: [&str; 3], ops: &[(&str, u8, u8)]) -> Xml {
        let [class, provider, kind] = agent;
        let attrs = [("id", id), ("class", class), ("provider", provider), ("type", kind)];
        let mut out = Xml::new("lrm_resource", &attrs);
        for op in ops {
            let op = self.op(id, *op);
            out.push(op);
        }
        out
    }

    /// The history of something on all members: up at `home`, down elsewhere.
    fn remember(&mut self, id: &str, agent: [&str; 3], home: Option<&str>) {
        let broken = self.dice.percent(8);
        for host in self.hosts.clone() {
            let ops: &[(&str, u8, u8)] = if home != Some(host.as_str()) {
                &[("monitor", 7, 7)]
            } else if broken {
                &[("start", 1, 0)]
            } else {
                &[("start", 0, 0)]
            };
            let told = self.history(id, agent, ops);
            let states = section(&mut self.document, "status").map(|s| &mut s.children);
            let own = states.into_iter().flatten().find(|s| s.attr("uname") == Some(&host));
            if let Some(list) = own.and_then(|s| section(s, "lrm_resources")) {
                list.push(told);
            }
        }
    }

    /// The state of a node that is no member.
    fn state(&mut self, name: &str, told: Vec<Xml>) {
        let mut list = Xml::new("lrm_resources", &[]);
        list.children = told;
        let lrm = Xml::new("lrm", &[("id", name)]).holding(list);
        let attrs = [("remote_node", "true"), ("id", name), ("uname", name)];
        self.push("status", Xml::new("node_state", &attrs).holding(lrm));
    }

    fn home(&mut self) -> Option<String> {
        let at = self.dice.below(self.hosts.len());
        self.dice.percent(75).then(|| self.hosts[at].clone())
    }

    /// What the other resources do there: nothing, mostly.
    fn visited(&mut self, name: &str) {
        let mut told = Vec::new();
        let ids: Vec<String> = self.names.iter().filter(|n| n.starts_with('p')).cloned().collect();
        for id in ids {
            let runs = self.dice.percent(20);
            let agent = self.agent_of(&id);
            let op = if runs { ("start", 0, 0) } else { ("monitor", 7, 7) };
            told.push(self.history(&id, agent, &[op]));
        }
        self.state(name, told);
    }

    fn agent_of(&self, id: &str) -> [&'static str; 3] {
        let all = self.document.find("primitive");
        let own = all.into_iter().find(|p| p.attr("id") == Some(id));
        if own.and_then(|p| p.attr("type")) == Some("Stateful") { STATEFUL } else { DUMMY }
    }

    fn meta(&mut self, id: &str, pairs: &[(&str, &str)]) -> Xml {
        let mut set = Xml::new("meta_attributes", &[("id", &format!("{id}-meta"))]);
        for (name, value) in pairs {
            let own = format!("{id}-{name}");
            set.push(Xml::new("nvpair", &[("id", &own), ("name", name), ("value", value)]));
        }
        set
    }

    fn remote(&mut self, number: usize) {
        let name = format!("r{number}");
        self.push("resources", primitive(&name, CONNECTION));
        let home = self.home();
        self.remember(&name, CONNECTION, home.as_deref());
        self.visited(&name);
    }

    fn guest(&mut self, number: usize) {
        let (machine, name) = (format!("vm{number}"), format!("g{number}"));
        let meta = self.meta(&machine, &[("remote-node", &name)]);
        self.push("resources", primitive(&machine, DUMMY).holding(meta));
        let home = self.home();
        self.remember(&machine, DUMMY, home.as_deref());
        let connected = home.filter(|_| self.dice.percent(85));
        self.remember(&name, CONNECTION, connected.as_deref());
        self.visited(&name);
        self.names.push(machine);
    }

    fn bundle(&mut self, number: usize) {
        let (id, inner) = (format!("b{number}"), format!("s{number}"));
        let (replicas, roles) = (self.dice.between(1, 3), self.dice.percent(50));
        let mut docker = Xml::new("docker", &[("image", "i")]);
        docker = docker.with("replicas", &replicas.to_string());
        if roles {
            docker = docker.with("promoted-max", "1");
        }
        let told = self.dice.percent(30);
        let mut bundle = Xml::new("bundle", &[("id", &id)]);
        if told {
            let meta = self.meta(&id, &[("notify", "true")]);
            bundle.push(meta);
        }
        let agent = if roles { STATEFUL } else { DUMMY };
        let port = Xml::new("network", &[("control-port", "3121")]);
        self.push(
            "resources",
            bundle.holding(docker).holding(port).holding(primitive(&inner, agent)),
        );
        for replica in 0..replicas {
            let home = self.hosts.get(replica).filter(|_| self.dice.percent(75)).cloned();
            let node = format!("{id}-{replica}");
            self.remember(&format!("{id}-docker-{replica}"), CONTAINER, home.as_deref());
            self.remember(&node, CONNECTION, home.as_deref());
            let up: &[(&str, u8, u8)] = if roles && replica == 0 {
                &[("start", 0, 0), ("promote", 0, 0)]
            } else {
                &[("start", 0, 0)]
            };
            let told = home.map(|_| self.history(&inner, agent, up));
            self.state(&node, told.into_iter().collect());
        }
        self.names.push(id);
    }

    fn constraints(&mut self) {
        for number in 0..self.dice.between(0, 3) {
            let two = [
                self.dice.below(self.names.len().max(1)),
                self.dice.below(self.names.len().max(1)),
            ];
            let pair = two.map(|at| self.names.get(at).cloned());
            let [Some(first), Some(then)] = pair else { return };
            if first == then {
                continue;
            }
            let id = format!("x{number}");
            let mut added =
                Xml::new("rsc_order", &[("id", &id), ("first", &first), ("then", &then)]);
            if self.dice.percent(40) {
                let score = self.dice.pick(&["INFINITY", "-INFINITY", "50"]);
                let attrs =
                    [("id", id.as_str()), ("rsc", &then), ("with-rsc", &first), ("score", score)];
                added = Xml::new("rsc_colocation", &attrs);
            }
            self.push("constraints", added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mask, cluster};

    #[test]
    fn bundles_guests_and_remotes_come_when_they_are_asked_for() {
        let mut mask = Mask::default();
        let any =
            |mask: &Mask, name: &str| (0..40).any(|s| !cluster(s, mask).find(name).is_empty());
        assert!(!any(&mask, "bundle"));
        mask.only.insert("bundles".to_owned());
        assert!(any(&mask, "bundle"));
    }
}
