//! Constraints: locations, colocations, orders, tickets; tags.

use super::{Kind, Maker, Top};
use crate::tree::Xml;

const SCORES: [&str; 9] =
    ["INFINITY", "-INFINITY", "100", "200", "1", "0", "-50", "-100", "INFINITY"];

impl Maker {
    pub(super) fn constraints(&mut self) -> (Xml, Option<Xml>) {
        let mut section = Xml::new("constraints", &[]);
        let tops = self.tops.len();
        for _ in 0..self.dice.between(0, tops + 1) {
            if self.has("locations") || self.has("asymmetric") {
                let location = self.location();
                section.push(location);
            }
        }
        for _ in 0..self.dice.between(0, tops) {
            if self.has("colocations")
                && let Some(colocation) = self.colocation()
            {
                section.push(colocation);
            }
            if self.has("orders")
                && let Some(order) = self.order()
            {
                section.push(order);
            }
        }
        if self.has("colocation-sets") {
            let set = self.colocation_of_sets();
            section.push(set);
        }
        if self.has("order-sets") {
            let set = self.order_of_sets();
            section.push(set);
        }
        if self.has("tickets") {
            for _ in 0..self.dice.between(1, 3) {
                let ticket = self.ticket();
                section.push(ticket);
            }
        }
        let tags = self.tags(&mut section);
        (section, tags)
    }

    fn some_top(&mut self) -> usize {
        self.dice.below(self.tops.len())
    }

    fn node_name(&mut self) -> String {
        let at = self.dice.below(self.nodes.len());
        self.nodes[at].name.clone()
    }

    /// A resource by a name that constraints may use: rarely a member of a group.
    fn target(&mut self, top: usize) -> String {
        let Top { id, kind, leaves, .. } = &self.tops[top];
        let inner = (*kind == Kind::Group).then(|| leaves.clone());
        let id = id.clone();
        match inner {
            Some(leaves) if self.dice.percent(15) => {
                let at = self.dice.below(leaves.len());
                self.leaves[leaves[at]].id.clone()
            }
            _ => id,
        }
    }

    fn location(&mut self) -> Xml {
        let top = self.some_top();
        let target = self.target(top);
        let id = self.fresh("loc");
        let mut location = Xml::new("rsc_location", &[("id", &id), ("rsc", &target)]);
        if self.maybe("discovery", 50) {
            let of = ["never", "exclusive", "always"];
            location = location.with("resource-discovery", self.dice.pick(&of));
        }
        let promotable = self.tops[top].kind == Kind::Promotable;
        let role = if promotable && self.dice.percent(40) {
            Some(self.dice.pick(&["Master", "Slave"]))
        } else if self.dice.percent(5) {
            Some(self.dice.pick(&["Master", "Started"]))
        } else {
            None
        };
        if self.maybe("rules", 60) {
            let rule = self.rule(role);
            return location.holding(rule);
        }
        if let Some(role) = role {
            location = location.with("role", role);
        }
        let node = self.node_name();
        // Where nothing is allowed unless said, most of what is said allows.
        let score = if self.has("asymmetric") && self.dice.percent(60) {
            self.dice.pick(&["0", "1", "100", "INFINITY"])
        } else {
            self.dice.pick(&SCORES)
        };
        location.with("node", &node).with("score", score)
    }

    fn rule(&mut self, role: Option<&str>) -> Xml {
        let id = self.fresh("rule");
        let mut rule = Xml::new("rule", &[("id", &id)]);
        if self.dice.percent(20) {
            rule = rule.with("score-attribute", "rank");
        } else {
            rule = rule.with("score", self.dice.pick(&SCORES));
        }
        if let Some(role) = role {
            rule = rule.with("role", role);
        }
        if self.dice.percent(40) {
            rule = rule.with("boolean-op", self.dice.pick(&["and", "or"]));
        }
        for _ in 0..self.dice.between(1, 2) {
            let expression = self.expression();
            rule.push(expression);
        }
        rule
    }

    fn expression(&mut self) -> Xml {
        let id = self.fresh("ex");
        match self.dice.below(5) {
            0 => {
                let node = self.node_name();
                let operation = self.dice.pick(&["eq", "ne"]);
                let attrs =
                    [("id", id.as_str()), ("attribute", "#uname"), ("operation", operation)];
                Xml::new("expression", &attrs).with("value", &node)
            }
            1 => {
                let operation = self.dice.pick(&["defined", "not_defined"]);
                let attrs = [("id", id.as_str()), ("attribute", "rank"), ("operation", operation)];
                Xml::new("expression", &attrs)
            }
            2 => {
                let operation = self.dice.pick(&["lt", "gte", "gt", "lte"]);
                let attrs = [("id", id.as_str()), ("attribute", "rank"), ("operation", operation)];
                Xml::new("expression", &attrs).with("type", "number").with("value", "100")
            }
            3 => {
                let date = self.dice.pick(&["2020-01-01", "2030-01-01"]);
                let attrs = [("id", id.as_str()), ("operation", "gt"), ("start", date)];
                Xml::new("date_expression", &attrs)
            }
            _ => {
                let value = self.dice.pick(&["a", "b"]);
                let attrs = [("id", id.as_str()), ("attribute", "site"), ("operation", "eq")];
                Xml::new("expression", &attrs).with("value", value)
            }
        }
    }

    /// Two different resources, the later one first: no loops that way.
    fn two(&mut self) -> Option<(usize, usize)> {
        let (a, b) = (self.some_top(), self.some_top());
        (a != b).then(|| (a.max(b), a.min(b)))
    }

    fn role_of(&mut self, top: usize, percent: usize) -> Option<&'static str> {
        let promotable = self.tops[top].kind == Kind::Promotable;
        if promotable && self.dice.percent(percent) {
            Some(self.dice.pick(&["Master", "Master", "Slave", "Started"]))
        } else {
            None
        }
    }

    fn colocation(&mut self) -> Option<Xml> {
        let (rsc, with) = self.two()?;
        let (a, b) = (self.target(rsc), self.target(with));
        let id = self.fresh("col");
        let score = self.dice.pick(&SCORES);
        let attrs = [("id", id.as_str()), ("score", score), ("rsc", &a), ("with-rsc", &b)];
        let mut colocation = Xml::new("rsc_colocation", &attrs);
        if let Some(role) = self.role_of(rsc, 50) {
            colocation = colocation.with("rsc-role", role);
        }
        if let Some(role) = self.role_of(with, 60) {
            colocation = colocation.with("with-rsc-role", role);
        }
        if self.maybe("node-attributes", 40) {
            colocation = colocation.with("node-attribute", "site");
        }
        if self.maybe("influence", 50) {
            colocation = colocation.with("influence", self.dice.pick(&["true", "false"]));
        }
        Some(colocation)
    }

    fn action_of(&mut self, top: usize) -> &'static str {
        if self.tops[top].kind == Kind::Promotable && self.dice.percent(60) {
            self.dice.pick(&["promote", "promote", "demote", "start"])
        } else {
            self.dice.pick(&["start", "start", "start", "stop"])
        }
    }

    fn order(&mut self) -> Option<Xml> {
        let (then, first) = self.two()?;
        let (a, b) = (self.target(first), self.target(then));
        let id = self.fresh("ord");
        let mut order = Xml::new("rsc_order", &[("id", &id), ("first", &a), ("then", &b)]);
        if self.dice.percent(40) {
            order = order.with("first-action", self.action_of(first));
        }
        if self.dice.percent(30) {
            order = order.with("then-action", self.action_of(then));
        }
        if self.dice.percent(50) {
            let of = ["Mandatory", "Optional", "Serialize"];
            order = order.with("kind", self.dice.pick(&of));
        }
        if self.dice.percent(20) && order.attr("kind") != Some("Serialize") {
            order = order.with("symmetrical", "false");
        }
        if self.dice.percent(10) {
            order = order.with("require-all", "false");
        }
        Some(order)
    }

    /// Resources in sets of two or three, each once.
    fn sets(&mut self) -> Vec<Vec<usize>> {
        let mut left: Vec<usize> = (0..self.tops.len()).collect();
        let mut sets = Vec::new();
        while !left.is_empty() && sets.len() < 3 {
            let mut set = Vec::new();
            for _ in 0..self.dice.between(1, 3) {
                if !left.is_empty() {
                    let at = self.dice.below(left.len());
                    set.push(left.remove(at));
                }
            }
            set.sort_unstable();
            sets.push(set);
        }
        sets
    }

    fn set_of(&mut self, members: &[usize]) -> Xml {
        let id = self.fresh("rs");
        let mut set = Xml::new("resource_set", &[("id", &id)]);
        for top in members {
            let id = self.tops[*top].id.clone();
            set.push(Xml::new("resource_ref", &[("id", &id)]));
        }
        if self.dice.percent(40) {
            set = set.with("sequential", self.dice.pick(&["true", "false"]));
        }
        set
    }

    fn colocation_of_sets(&mut self) -> Xml {
        let id = self.fresh("cols");
        let score = self.dice.pick(&["INFINITY", "INFINITY", "100", "-100"]);
        let mut colocation = Xml::new("rsc_colocation", &[("id", &id), ("score", score)]);
        for members in self.sets() {
            let mut set = self.set_of(&members);
            let all = members.iter().all(|t| self.tops[*t].kind == Kind::Promotable);
            if all && self.dice.percent(60) {
                set = set.with("role", self.dice.pick(&["Master", "Slave"]));
            }
            colocation.push(set);
        }
        colocation
    }

    fn order_of_sets(&mut self) -> Xml {
        let id = self.fresh("ords");
        let mut order = Xml::new("rsc_order", &[("id", &id)]);
        if self.dice.percent(40) {
            order = order.with("kind", self.dice.pick(&["Mandatory", "Optional", "Serialize"]));
        }
        if self.dice.percent(20) && order.attr("kind") != Some("Serialize") {
            order = order.with("symmetrical", "false");
        }
        for members in self.sets() {
            let mut set = self.set_of(&members);
            if self.dice.percent(20) && set.attr("sequential") == Some("false") {
                set = set.with("require-all", "false");
            }
            let all = members.iter().all(|t| self.tops[*t].kind == Kind::Promotable);
            if all && self.dice.percent(60) {
                set = set.with("action", self.dice.pick(&["promote", "start"]));
            }
            order.push(set);
        }
        order
    }

    fn ticket(&mut self) -> Xml {
        let top = self.some_top();
        let target = self.tops[top].id.clone();
        let id = self.fresh("tick");
        let ticket = self.dice.pick(&["ticketA", "ticketB"]);
        let mut element =
            Xml::new("rsc_ticket", &[("id", &id), ("rsc", &target), ("ticket", ticket)]);
        if self.dice.percent(70) {
            let of = ["stop", "demote", "fence", "freeze"];
            element = element.with("loss-policy", self.dice.pick(&of));
        }
        if let Some(role) = self.role_of(top, 60) {
            element = element.with("rsc-role", role);
        }
        element
    }

    /// A tag for two resources, with a constraint that uses it.
    fn tags(&mut self, constraints: &mut Xml) -> Option<Xml> {
        if !self.has("tags") || self.tops.len() < 2 {
            return None;
        }
        let mut tag = Xml::new("tag", &[("id", "some")]);
        for top in self.tops.iter().take(2) {
            tag.push(Xml::new("obj_ref", &[("id", &top.id)]));
        }
        let id = self.fresh("loc");
        let (node, score) = (self.node_name(), self.dice.pick(&SCORES));
        let attrs = [("id", id.as_str()), ("rsc", "some"), ("node", &node), ("score", score)];
        constraints.push(Xml::new("rsc_location", &attrs));
        Some(Xml::new("tags", &[]).holding(tag))
    }
}
