//! Nodes: their attributes, and from `node_state` what membership would say of them.

use super::Reader;
use super::attributes::Sets;
use super::tree::Element;
use crate::cib::{Node, NvSet, parse_bool};
use crate::plan::NodeView;
use crate::status::{NodeStatus, Ticket};
use std::collections::BTreeMap;

impl<'a> Reader<'a> {
    /// Configured nodes, then their states.
    pub(super) fn nodes(&mut self, configuration: Element<'a>, states: Option<Element<'a>>) {
        let section = configuration.child("nodes");
        for element in section.into_iter().flat_map(Element::children) {
            match element.name() {
                "node" => self.node(element),
                _ => self.unknown(element, "nodes"),
            }
        }
        let elements = section.into_iter().flat_map(Element::children);
        let distant = |e: &Element<'_>| e.attr("type") == Some("remote");
        let names = elements.filter(distant).filter_map(|e| e.attr("uname"));
        let distant: Vec<String> = names.map(str::to_owned).collect();
        let mut seen = Vec::new();
        for element in states.into_iter().flat_map(Element::children) {
            match element.name() {
                "node_state" => {
                    if let Some(name) = self.state_name(element) {
                        self.transient(element, &name);
                        if self.out.uuids.contains_key(&name) && !distant.contains(&name) {
                            let view = self.view(element, &name);
                            self.out.nodes.insert(name.clone(), view);
                        }
                        seen.push(name);
                    }
                }
                "tickets" => self.tickets(element),
                _ => self.unknown(element, "status"),
            }
        }
        self.unseen(&seen, &distant);
    }

    fn node(&mut self, element: Element<'a>) {
        let Some(name) = element.attr("uname") else {
            self.wrong(element, "`node` without `uname`".to_owned());
            return;
        };
        let id = element.attr("id").unwrap_or(name);
        let mut known = self.out.uuids.iter();
        if let Some((other, _)) = known.find(|(known, uuid)| *known == name || *uuid == id) {
            let text = match other == name {
                true => format!("the node `{name}` is there twice"),
                false => format!("the nodes `{other}` and `{name}` have the same id"),
            };
            self.note(|| {
                let help = "a node has one name and one id: take one of the two out";
                element.problem("CRM0010", text).helping(help)
            });
            return;
        }
        let mut attributes = self.attributes(element, "instance_attributes", Sets::Plain);
        if element.attr("type") == Some("ping") {
            return;
        }
        attributes.id = None;
        let utilization = self.attributes(element, "utilization", Sets::Plain);
        let number = id.parse().unwrap_or(self.out.cib.nodes.len() as u64 + 1);
        self.out.uuids.insert(name.to_owned(), id.to_owned());
        self.out.cib.nodes.push(Node {
            id: number,
            name: name.to_owned(),
            attributes,
            utilization,
        });
    }

    /// A state belongs to the node with its id; its name is only a word. Nodes that are reached over connections need not be configured.
    pub(super) fn state_name(&self, state: Element<'_>) -> Option<String> {
        let id = state.attr("id");
        let by_id = self.out.uuids.iter().find(|(_, uuid)| Some(uuid.as_str()) == id);
        by_id.map(|(name, _)| name.clone()).or_else(|| state.attr("uname").map(str::to_owned))
    }

    /// Configured nodes and those that are reached over connections.
    pub(super) fn all_nodes(&self) -> Vec<Node> {
        let mut out = self.out.cib.nodes.clone();
        for (name, _) in &self.remotes {
            if !out.iter().any(|n| n.name == *name) {
                out.push(Node {
                    id: 0,
                    name: name.clone(),
                    attributes: NvSet::default(),
                    utilization: NvSet::default(),
                });
            }
        }
        out
    }

    fn transient(&mut self, state: Element<'a>, name: &str) {
        let mut attrs = BTreeMap::new();
        for group in state.named("transient_attributes") {
            for pair in self.attributes(group, "instance_attributes", Sets::Plain).pairs {
                if let Some(value) = pair.value {
                    attrs.insert(pair.name, value);
                }
            }
            let more = self.attributes(group, "utilization", Sets::Plain).pairs;
            if let Some(node) = self.out.cib.node_mut(name) {
                let known = |p: &crate::cib::Nv| node.utilization.get(&p.name).is_some();
                let more: Vec<_> = more.into_iter().filter(|p| !known(p)).collect();
                node.utilization.pairs.extend(more);
            }
        }
        let node = self.out.status.nodes.entry(name.to_owned()).or_default();
        *node = NodeStatus { session: 1, attrs, ..NodeStatus::default() };
    }

    fn tickets(&mut self, section: Element<'a>) {
        for element in section.children() {
            if element.name() != "ticket_state" {
                self.unknown(element, "tickets");
                continue;
            }
            let ticket = Ticket {
                granted: element.flag("granted").unwrap_or(false),
                standby: element.flag("standby").unwrap_or(false),
            };
            self.out.status.tickets.insert(element.word("id").to_owned(), ticket);
        }
    }

    pub(super) fn fencing(&self) -> bool {
        self.out.cib.fencing_enabled()
    }

    /// Nodes nobody has told anything about.
    fn unseen(&mut self, seen: &[String], distant: &[String]) {
        let startup =
            self.fencing() && self.out.cib.properties.flag("startup-fencing").unwrap_or(true);
        let names: Vec<String> = self.out.uuids.keys().cloned().collect();
        for name in names.into_iter().filter(|n| !seen.contains(n) && !distant.contains(n)) {
            let view = if startup { NodeView::LOST } else { NodeView::GONE };
            self.out.nodes.insert(name.clone(), view);
            if startup {
                self.out.fence.insert(name, "node is unclean".to_owned());
            }
        }
    }

    /// `node-pending-timeout` for a node that is a member since then and does not run the cluster yet.
    fn waited_enough(&self, since_s: u64) -> bool {
        let timeout = self.out.cib.properties.get("node-pending-timeout");
        let timeout = timeout.and_then(crate::cib::parse_duration_ms).unwrap_or(0);
        timeout > 0 && self.now_ms >= since_s.saturating_mul(1000).saturating_add(timeout)
    }

    fn view(&mut self, state: Element<'_>, name: &str) -> NodeView {
        // A boolean, or since when (0 = not).
        let up = |attr: &str, word: &str| match state.attr(attr) {
            Some(value) if value.eq_ignore_ascii_case(word) => true,
            Some(value) => parse_bool(value)
                .unwrap_or_else(|| value.parse::<u64>().is_ok_and(|since| since > 0)),
            None => false,
        };
        let since = |attr: &str| state.attr(attr).and_then(|v| v.parse::<u64>().ok());
        let (member, process) = (up("in_ccm", "true"), up("crmd", "online"));
        let join = state.attr("join").unwrap_or("down");
        let expected_up = state.attr("expected") == Some("member");
        let expected_down = state.attr("expected").is_none_or(|e| e == "down");
        let attribute = |attr: &str| self.out.status.nodes.get(name)?.attrs.get(attr).cloned();
        let leaving = attribute("shutdown").is_some_and(|v| v != "0");
        // Written for as long as the node lives, or for good.
        let lasting = || self.out.cib.node(name)?.attributes.get("terminate").map(str::to_owned);
        let terminate = attribute("terminate").or_else(lasting).is_some_and(|v| {
            parse_bool(&v).unwrap_or_else(|| v.parse::<u64>().is_ok_and(|at| at > 0))
        });
        if !self.fencing() {
            if !member || (!process && !expected_up) || (process && join != "member") {
                return NodeView::GONE;
            }
            if process {
                return NodeView::ONLINE;
            }
            self.out.fence.insert(name.to_owned(), "peer is unexpectedly down".to_owned());
            return NodeView::LOST;
        }
        let pending = NodeView { online: true, clean: true, pending: true };
        let why = if leaving {
            return if process {
                NodeView::ONLINE
            } else if member {
                pending
            } else {
                NodeView::GONE
            };
        } else if state.attr("in_ccm").is_none() {
            "peer has not been seen by the cluster"
        } else if join == "nack" {
            "peer failed Pacemaker membership criteria"
        } else if member && !process && self.waited_enough(since("in_ccm").unwrap_or(0)) {
            "peer pending timed out on joining the process group"
        } else if !terminate && expected_down {
            return if member || process { pending } else { NodeView::GONE };
        } else if terminate && !member && !process && join == "down" {
            return NodeView::GONE; // it was fenced as requested
        } else if !member {
            "peer is no longer part of the cluster"
        } else if !process {
            "peer process is no longer available"
        } else if terminate {
            "fencing was requested"
        } else if join == "member" {
            return NodeView::ONLINE;
        } else if matches!(join, "down" | "pending" | "banned") {
            return pending;
        } else {
            "peer was in an unknown state"
        };
        self.out.fence.insert(name.to_owned(), why.to_owned());
        NodeView { online: member, clean: false, pending: false }
    }

    /// What rules may ask about a node.
    pub(super) fn node_facts(&self, node: &Node) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        let mut put = |set: &NvSet| {
            for pair in &set.pairs {
                facts.insert(pair.name.clone(), pair.value.clone().unwrap_or_default());
            }
        };
        put(&node.attributes);
        if let Some(status) = self.out.status.nodes.get(&node.name) {
            facts.extend(status.attrs.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        let site = facts.get("site-name").cloned();
        let cluster = self.out.cib.properties.get("cluster-name").map(str::to_owned);
        facts.insert("#uname".to_owned(), node.name.clone());
        let kind = self.remotes.iter().find(|(name, _)| *name == node.name);
        let kind = kind.map_or("cluster", |(_, kind)| *kind);
        facts.insert("#kind".to_owned(), kind.to_owned());
        if let Some(id) = self.out.uuids.get(&node.name) {
            facts.insert("#id".to_owned(), id.clone());
        }
        let dc = self.out.coordinator.as_deref() == Some(&node.name);
        facts.insert("#is_dc".to_owned(), dc.to_string());
        facts.extend(cluster.clone().map(|name| ("#cluster-name".to_owned(), name)));
        facts.extend(site.or(cluster).map(|name| ("#site-name".to_owned(), name)));
        facts
    }
}
