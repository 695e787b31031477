//! Constraints; locations with rules become one location for each node that the rule holds for.

use super::Reader;
use super::rule::About;
use super::tree::Element;
use crate::cib::{
    Colocation, Constraint, Location, LocationTarget, LossPolicy, NvSet, Order, OrderAction,
    OrderKind, ResourceSet, Role, RscTicket, Score, SetMember,
};
use std::collections::BTreeMap;

impl<'a> Reader<'a> {
    pub(super) fn constraints(&mut self, configuration: Element<'a>) {
        let tags = tags(configuration);
        let Some(section) = configuration.child("constraints") else { return };
        for element in section.children() {
            match element.name() {
                "rsc_location" => self.location(element, &tags),
                "rsc_colocation" => self.colocation(element, &tags),
                "rsc_order" => self.order(element, &tags),
                "rsc_ticket" => self.ticket(element, &tags),
                _ => self.unknown(element, "constraints"),
            }
        }
    }

    fn role(&mut self, at: Element<'a>, name: &str) -> Option<Role> {
        let word = at.attr(name)?;
        let role = crate::plan::parse_role(word);
        if role.is_none() {
            self.wrong(at, format!("no such role: `{word}`"));
        }
        role
    }

    fn score(&mut self, at: Element<'a>, name: &str) -> Option<Score> {
        let word = at.attr(name)?;
        let score = Score::parse(word);
        if score.is_none() {
            self.wrong(at, format!("`{word}` is no score"));
        }
        score
    }

    fn location(&mut self, element: Element<'a>, tags: &Tags<'a>) {
        let role = self.role(element, "role");
        let mut targets = Vec::new();
        if let Some(pattern) = element.attr("rsc-pattern") {
            targets.push((LocationTarget::Pattern(pattern.to_owned()), role));
        }
        if let Some(id) = element.attr("rsc") {
            let ids = self.members(id, tags);
            targets.extend(ids.into_iter().map(|id| (LocationTarget::Resource(id), role)));
        }
        for set in element.named("resource_set") {
            for set in self.set(set, tags) {
                let of = |m: SetMember| (LocationTarget::Resource(m.resource), set.role.or(role));
                targets.extend(set.members.into_iter().map(of));
            }
        }
        let id = element.word("id").to_owned();
        let discovery = element.attr("resource-discovery").map(str::to_owned);
        let mut nodes: Vec<(String, Score, Option<Role>)> = Vec::new();
        if let Some(node) = element.attr("node") {
            let score = self.score(element, "score").unwrap_or_default();
            nodes.push((node.to_owned(), score, None));
        }
        let values = element.attr("rsc").and_then(|id| {
            let prim = self.out.cib.primitive(id)?;
            Some((prim.params.clone(), prim.meta.clone()))
        });
        for rule in element.named("rule") {
            nodes.extend(self.located(rule, values.as_ref()));
        }
        for (target, role) in targets {
            for (node, score, rule_role) in &nodes {
                self.out.cib.constraints.push(Constraint::Location(Location {
                    id: id.clone(),
                    target: target.clone(),
                    score: *score,
                    node: node.clone(),
                    role: rule_role.or(role),
                    discovery: discovery.clone(),
                }));
            }
        }
    }

    /// Nodes a rule holds for, with its score there.
    fn located(
        &mut self,
        rule: Element<'a>,
        values: Option<&(NvSet, NvSet)>,
    ) -> Vec<(String, Score, Option<Role>)> {
        let Some(rule) = self.resolve(rule) else {
            self.wrong(rule, format!("no rule has the id `{}`", rule.word("id-ref")));
            return Vec::new();
        };
        let role = self.role(rule, "role");
        let fixed = self.score(rule, "score");
        let mut out = Vec::new();
        for node in self.all_nodes() {
            let facts = self.node_facts(&node);
            let about = About {
                node: Some(&facts),
                values: values.map(|(p, m)| (p, m)),
                ..About::default()
            };
            if !self.rule(rule, &about) {
                continue;
            }
            let read = |name| facts.get(name).map_or(Some(Score::NEG_INF), |v| Score::parse(v));
            let score = fixed.or_else(|| rule.attr("score-attribute").and_then(read));
            if let Some(score) = score {
                out.push((node.name, score, role));
            }
        }
        out
    }

    /// Pacemaker leaves a constraint about a resource that does not exist out, with an error in its log.
    fn known(&self, rsc: &str, other: &str) -> bool {
        self.knows(rsc) && self.knows(other)
    }

    fn colocation(&mut self, element: Element<'a>, tags: &Tags<'a>) {
        let score = self.score(element, "score").unwrap_or(Score::INF);
        let sets: Vec<ResourceSet> =
            element.named("resource_set").flat_map(|s| self.set(s, tags)).collect();
        let rsc_role = self.role(element, "rsc-role");
        let with_role = self.role(element, "with-rsc-role");
        let base = Colocation {
            id: element.word("id").to_owned(),
            score,
            rsc: String::new(),
            rsc_role,
            with: String::new(),
            with_role,
            node_attribute: element.attr("node-attribute").map(str::to_owned),
            influence: element.flag("influence"),
            sets,
        };
        if !base.sets.is_empty() {
            self.out.cib.constraints.push(Constraint::Colocation(base));
            return;
        }
        for rsc in self.members(element.word("rsc"), tags) {
            for with in self.members(element.word("with-rsc"), tags) {
                if self.known(&rsc, &with) {
                    let one = Colocation { rsc: rsc.clone(), with, ..base.clone() };
                    self.out.cib.constraints.push(Constraint::Colocation(one));
                }
            }
        }
    }

    fn action(&mut self, at: Element<'a>, name: &str) -> Option<OrderAction> {
        match at.attr(name)? {
            "start" => Some(OrderAction::Start),
            "stop" => Some(OrderAction::Stop),
            "promote" => Some(OrderAction::Promote),
            "demote" => Some(OrderAction::Demote),
            other => {
                self.wrong(at, format!("orders on `{other}` are not supported"));
                None
            }
        }
    }

    fn order(&mut self, element: Element<'a>, tags: &Tags<'a>) {
        let score = self.score(element, "score");
        let kind = match element.attr("kind") {
            Some(word) if word.eq_ignore_ascii_case("optional") => OrderKind::Optional,
            Some(word) if word.eq_ignore_ascii_case("serialize") => OrderKind::Serialize,
            // Pacemaker takes a kind it does not know as Mandatory.
            Some(_) => OrderKind::Mandatory,
            None if score.is_some_and(|s| s <= Score::ZERO) => OrderKind::Optional,
            None => OrderKind::Mandatory,
        };
        let sets = element.named("resource_set").flat_map(|s| self.set(s, tags)).collect();
        let base = Order {
            id: element.word("id").to_owned(),
            kind,
            first: String::new(),
            first_action: self.action(element, "first-action"),
            then: String::new(),
            then_action: self.action(element, "then-action"),
            symmetrical: element.flag("symmetrical"),
            sets,
        };
        if !base.sets.is_empty() {
            self.out.cib.constraints.push(Constraint::Order(base));
            return;
        }
        for first in self.members(element.word("first"), tags) {
            for then in self.members(element.word("then"), tags) {
                if self.known(&first, &then) {
                    let one = Order { first: first.clone(), then, ..base.clone() };
                    self.out.cib.constraints.push(Constraint::Order(self.any_of(element, one)));
                }
            }
        }
    }

    /// `require-all=false` of a pair is that of a set with one member.
    fn any_of(&self, element: Element<'_>, order: Order) -> Order {
        if element.flag("require-all") != Some(false) {
            return order;
        }
        let set = |resource: &str, action, require_all| ResourceSet {
            members: vec![SetMember { resource: resource.to_owned() }],
            sequential: false,
            require_all,
            role: None,
            action,
        };
        let sets = vec![
            set(&order.first, order.first_action, false),
            set(&order.then, order.then_action.or(order.first_action), true),
        ];
        Order { sets, first: String::new(), then: String::new(), ..order }
    }

    fn set(&mut self, element: Element<'a>, tags: &Tags<'a>) -> Vec<ResourceSet> {
        let Some(element) = self.resolve(element) else {
            self.wrong(element, format!("no set has the id `{}`", element.word("id-ref")));
            return Vec::new();
        };
        let mut members = Vec::new();
        for child in element.children() {
            if child.name() == "resource_ref" {
                let ids = self.members(child.word("id"), tags);
                members.extend(ids.into_iter().map(|resource| SetMember { resource }));
            } else {
                self.unknown(child, "resource_set");
            }
        }
        members.retain(|m| self.knows(&m.resource));
        vec![ResourceSet {
            members,
            sequential: element.flag("sequential").unwrap_or(true),
            require_all: element.flag("require-all").unwrap_or(true),
            role: self.role(element, "role"),
            action: self.action(element, "action"),
        }]
    }

    fn ticket(&mut self, element: Element<'a>, tags: &Tags<'a>) {
        let loss = match element.attr("loss-policy") {
            Some("demote") => LossPolicy::Demote,
            Some("fence") => LossPolicy::Fence,
            Some("freeze") => LossPolicy::Freeze,
            Some("stop") | None => LossPolicy::Stop,
            Some(other) => {
                self.wrong(element, format!("no such loss-policy: `{other}`"));
                return;
            }
        };
        let role = self.role(element, "rsc-role");
        let mut targets: Vec<(String, Option<Role>)> = Vec::new();
        if let Some(id) = element.attr("rsc") {
            targets.extend(self.members(id, tags).into_iter().map(|id| (id, role)));
        }
        for set in element.named("resource_set") {
            for set in self.set(set, tags) {
                targets.extend(set.members.into_iter().map(|m| (m.resource, set.role)));
            }
        }
        for (rsc, role) in targets {
            self.out.cib.rsc_tickets.push(RscTicket {
                id: element.word("id").to_owned(),
                ticket: element.word("ticket").to_owned(),
                rsc,
                role,
                loss,
            });
        }
    }

    /// A tag or a template stands for its resources, a resource for itself.
    fn members(&self, id: &str, tags: &Tags<'a>) -> Vec<String> {
        if self.knows(id) {
            return vec![id.to_owned()];
        }
        if let Some(of) = tags.get(id) {
            return of.iter().map(|m| (*m).to_owned()).collect();
        }
        vec![id.split(':').next().filter(|base| self.knows(base)).unwrap_or(id).to_owned()]
    }
}

/// What tags and templates stand for.
type Tags<'a> = BTreeMap<&'a str, Vec<&'a str>>;

fn tags<'a>(configuration: Element<'a>) -> Tags<'a> {
    let mut out: Tags<'a> = BTreeMap::new();
    for tag in configuration.child("tags").into_iter().flat_map(|t| t.named("tag")) {
        let refs = tag.named("obj_ref").filter_map(|r| r.attr("id"));
        out.entry(tag.word("id")).or_default().extend(refs);
    }
    for element in configuration.descendants().filter(|e| e.name() == "primitive") {
        if let (Some(template), Some(id)) = (element.attr("template"), element.attr("id")) {
            out.entry(template).or_default().push(id);
        }
    }
    out
}
