//! Constraints; locations with rules become one location for each node that the rule holds for.

use super::Reader;
use super::attributes::Sets;
use super::rule::About;
use super::tree::Element;
use crate::cib::{
    Colocation, Constraint, Location, LocationTarget, LossPolicy, NvSet, Order, OrderAction,
    OrderKind, Resource, ResourceSet, Role, RscTicket, Score, SetMember,
};
use crate::plan::SetWords;
use std::collections::BTreeMap;

/// Pairs of resources that one constraint may stand for.
const PAIRS_MAX: usize = 1_000_000;

impl<'a> Reader<'a> {
    pub(super) fn constraints(&mut self, configuration: Element<'a>) {
        let tags = tags(configuration);
        let Some(section) = configuration.child("constraints") else { return };
        for element in section.children() {
            if !self.lives(element) {
                continue;
            }
            match element.name() {
                "rsc_location" => self.location(element, &tags),
                "rsc_colocation" => self.colocation(element, &tags),
                "rsc_order" => self.order(element, &tags),
                "rsc_ticket" => self.ticket(element, &tags),
                _ => self.unknown(element, "constraints"),
            }
        }
    }

    /// A constraint with a lifetime holds while one of its rules does; no node is asked for.
    fn lives(&mut self, constraint: Element<'a>) -> bool {
        let Some(lifetime) = constraint.child("lifetime") else { return true };
        let rules: Vec<Element<'a>> = lifetime.named("rule").collect();
        rules.is_empty() || rules.into_iter().any(|rule| self.rule(rule, &About::default()))
    }

    fn role(&mut self, at: Element<'a>, name: &str) -> Option<Role> {
        let word = at.attr(name)?;
        let role = crate::plan::parse_role(word);
        if role.is_none() {
            let roles = crate::text::known::ROLES;
            self.note(|| {
                at.problem_of(name, "CRM0007", format!("`{word}` is not a role"))
                    .expecting(roles.join(", "))
                    .near(crate::text::nearest(word, roles.iter().copied()))
            });
        }
        role
    }

    fn score(&mut self, at: Element<'a>, name: &str) -> Option<Score> {
        let word = at.attr(name)?;
        let score = Score::parse(word).or_else(|| Score::leading(word));
        if score.is_none() {
            self.note(|| {
                at.problem_of(name, "CRM0006", format!("`{word}` is no score"))
                    .expecting("a whole number, INFINITY or -INFINITY")
            });
        }
        score
    }

    fn location(&mut self, element: Element<'a>, tags: &Tags<'a>) {
        let role = self.role(element, "role");
        let mut targets: Vec<Target> = Vec::new();
        if let Some(pattern) = element.attr("rsc-pattern") {
            targets.push((LocationTarget::Pattern(pattern.to_owned()), role, Vec::new()));
        }
        if let Some(id) = element.attr("rsc") {
            let ids = self.members(id, tags);
            let of = |id| (LocationTarget::Resource(id), role, Vec::new());
            targets.extend(ids.into_iter().map(of));
        }
        for set in element.named("resource_set") {
            for set in self.set(set, tags) {
                let role = set.role.or(role);
                let of = |m: SetMember| (LocationTarget::Resource(m.resource), role, Vec::new());
                targets.extend(set.members.into_iter().map(of));
            }
        }
        let id = element.word("id").to_owned();
        let discovery = element.attr("resource-discovery").map(str::to_owned);
        let mut named: Vec<(String, Score)> = Vec::new();
        if let Some(node) = element.attr("node") {
            let score = self.score(element, "score").unwrap_or_default();
            named.push((node.to_owned(), score));
        }
        let rules: Vec<Element<'a>> = element.named("rule").collect();
        if rules.iter().any(|rule| asks_the_resource(*rule)) {
            targets = targets.into_iter().flat_map(|t| self.spelled_out(t)).collect();
        }
        for (target, role, captures) in targets {
            let of = |(node, score): &(String, Score)| (node.clone(), *score, role);
            let mut nodes: Vec<(String, Score, Option<Role>)> = named.iter().map(of).collect();
            // A rule has a role of its own, or none: that of the constraint is about the node that it names.
            for rule in &rules {
                nodes.extend(self.located(*rule, &target, &captures));
            }
            if nodes.is_empty() && discovery.as_deref() == Some("exclusive") {
                // Rules that hold nowhere: then it is looked for nowhere.
                nodes.push((String::new(), Score::ZERO, None));
            }
            for (node, score, role) in nodes {
                self.out.cib.constraints.push(Constraint::Location(Location {
                    id: id.clone(),
                    target: target.clone(),
                    score,
                    node,
                    role,
                    discovery: discovery.clone(),
                }));
            }
        }
    }

    /// A pattern as the resources it matches, each with what the parts of the pattern matched.
    fn spelled_out(&self, target: Target) -> Vec<Target> {
        let (LocationTarget::Pattern(pattern), role, _) = &target else { return vec![target] };
        let Some(matches) = crate::plan::matches(pattern) else { return Vec::new() };
        let tops = self.out.cib.resources.iter().map(Resource::id);
        let found = tops.filter_map(|id| Some((id, matches(id)?)));
        found.map(|(id, parts)| (LocationTarget::Resource(id.to_owned()), *role, parts)).collect()
    }

    /// A resource's parameters and meta attributes as they are on one node: rules may make the parameters differ.
    fn values_on(
        &mut self,
        values: Option<(NvSet, NvSet)>,
        target: &LocationTarget,
        facts: &BTreeMap<String, String>,
    ) -> Option<(NvSet, NvSet)> {
        let (params, meta) = values?;
        let LocationTarget::Resource(id) = target else { return Some((params, meta)) };
        let ruled = self.ids.get(id.as_str()).copied().filter(|e| {
            e.named("instance_attributes").any(|set| set.named("rule").next().is_some())
        });
        let Some(element) = ruled else { return Some((params, meta)) };
        let about = About { node: Some(facts), ..About::default() };
        let mut own = self.attributes(element, "instance_attributes", Sets::Of(about));
        own.pairs.extend(params.pairs);
        Some((own, meta))
    }

    /// Nodes a rule holds for, with its score there.
    fn located(
        &mut self,
        rule: Element<'a>,
        target: &LocationTarget,
        captures: &[String],
    ) -> Vec<(String, Score, Option<Role>)> {
        let Some(rule) = self.resolve(rule) else {
            self.wrong(rule, format!("no rule has the id `{}`", rule.word("id-ref")));
            return Vec::new();
        };
        let role = self.role(rule, "role");
        let fixed = self.score(rule, "score");
        let values: Option<(NvSet, NvSet)> = match target {
            LocationTarget::Resource(id) => {
                let prim = self.out.cib.primitive(id);
                prim.map(|p| (p.params.clone(), p.meta.clone()))
            }
            LocationTarget::Pattern(_) => None,
        };
        let mut out = Vec::new();
        for node in self.all_nodes() {
            let facts = self.node_facts(&node);
            let values = self.values_on(values.clone(), target, &facts);
            let about = About {
                node: Some(&facts),
                values: values.as_ref().map(|(p, m)| (p, m)),
                captures,
                ..About::default()
            };
            if !self.rule(rule, &about) {
                continue;
            }
            let read = |name| {
                let value = facts.get(&super::rule::expand(name, captures));
                value.map_or(Some(Score::NEG_INF), |v| Score::parse(v))
            };
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
        let score = self.score(element, "score").unwrap_or_default();
        let sets: Vec<ResourceSet> =
            element.named("resource_set").flat_map(|s| self.set(s, tags)).collect();
        self.pairs(element, &sets, score < Score::ZERO);
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
        let (rsc, with) = (element.word("rsc"), element.word("with-rsc"));
        if [rsc, with].iter().all(|id| !self.knows(id) && tags.contains_key(id)) {
            // Pacemaker ignores it: two tags or templates cannot be colocated.
            return;
        }
        for rsc in self.members(rsc, tags) {
            for with in self.members(with, tags) {
                if self.known(&rsc, &with) {
                    let one = Colocation { rsc: rsc.clone(), with, ..base.clone() };
                    self.out.cib.constraints.push(Constraint::Colocation(one));
                }
            }
        }
    }

    /// Sets stand for pairs of their members: of all with all that soon are too many.
    fn pairs(&mut self, element: Element<'a>, sets: &[ResourceSet], apart: bool) {
        // A set that keeps apart has no order inside; order sets are only tied by their ends when they say that they are chains.
        let chained = |s: &ResourceSet| match (&s.id, element.name()) {
            (Some(id), "rsc_order") => self.out.sets.get(id).is_some_and(|words| words.chain),
            _ => s.sequential,
        };
        let inside = |s: &ResourceSet| match s.members.len() {
            all if apart && s.sequential => all * all / 2,
            all => all,
        };
        let ends = |s: &ResourceSet| if chained(s) { 1 } else { s.members.len() };
        let across = sets.windows(2).filter_map(|two| match two {
            [a, b] => Some(ends(a) * ends(b)),
            _ => None,
        });
        let pairs = sets.iter().map(inside).sum::<usize>() + across.sum::<usize>();
        if pairs > PAIRS_MAX {
            let id = element.word("id");
            let text = format!("the sets of `{id}` stand for {pairs} pairs, more than {PAIRS_MAX}");
            let help = "say it with sequential=true, or with a resource between the sets that all of one wait for";
            self.note(|| element.problem("CRM0050", text).helping(help));
        }
    }

    fn action(&mut self, at: Element<'a>, name: &str) -> Option<OrderAction> {
        match at.attr(name)? {
            "start" => Some(OrderAction::Start),
            "stop" => Some(OrderAction::Stop),
            "promote" => Some(OrderAction::Promote),
            "demote" => Some(OrderAction::Demote),
            other => {
                let known = ["start", "stop", "promote", "demote"];
                self.note(|| {
                    at.problem_of(name, "CRM0008", format!("`{other}` is no action of orders"))
                        .expecting(known.join(", "))
                        .near(crate::text::nearest(other, known))
                });
                None
            }
        }
    }

    fn order(&mut self, element: Element<'a>, tags: &Tags<'a>) {
        let score = self.score(element, "score");
        let kind = match element.attr("kind").map(kind_of) {
            Some(kind) => kind,
            // All other scores, those below zero too, are Mandatory.
            None if score == Some(Score::ZERO) => OrderKind::Optional,
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
        self.pairs(element, &base.sets, false);
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
        let clone = matches!(self.out.cib.resource(&order.first), Some(Resource::Clone(_)));
        if element.flag("require-all") != Some(false) || !clone {
            return order;
        }
        let set = |resource: &str, action, require_all| ResourceSet {
            id: None,
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
        let words = SetWords {
            chain: element.flag("sequential") == Some(true),
            score: self.score(element, "score"),
            kind: element.attr("kind").map(kind_of),
            listed: element.attr("ordering").is_some_and(|o| !o.eq_ignore_ascii_case("group")),
        };
        if let Some(id) = element.attr("id").filter(|_| words != SetWords::default()) {
            self.out.sets.insert(id.to_owned(), words);
        }
        vec![ResourceSet {
            id: element.attr("id").map(str::to_owned),
            members,
            sequential: element.flag("sequential").unwrap_or(true),
            require_all: element.flag("require-all").unwrap_or(true),
            role: self.role(element, "role"),
            action: self.action(element, "action"),
        }]
    }

    fn ticket(&mut self, element: Element<'a>, tags: &Tags<'a>) {
        let promoted =
            element.attr("rsc-role").and_then(crate::plan::parse_role) == Some(Role::Promoted);
        let loss = match element.attr("loss-policy") {
            None if promoted => LossPolicy::Demote,
            Some("fence") if !self.fencing() => LossPolicy::Stop,
            Some("demote") => LossPolicy::Demote,
            Some("fence") => LossPolicy::Fence,
            Some("freeze") => LossPolicy::Freeze,
            Some("stop") | None => LossPolicy::Stop,
            Some(other) => {
                let known = ["stop", "demote", "fence", "freeze"];
                self.note(|| {
                    let text = format!("`{other}` is no value for `loss-policy`");
                    element
                        .problem_of("loss-policy", "CRM0031", text)
                        .expecting(known.join(", "))
                        .near(crate::text::nearest(other, known))
                });
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

/// Pacemaker takes a kind it does not know as Mandatory.
fn kind_of(word: &str) -> OrderKind {
    match word.to_ascii_lowercase().as_str() {
        "optional" => OrderKind::Optional,
        "serialize" => OrderKind::Serialize,
        _ => OrderKind::Mandatory,
    }
}

/// Whom a location is about: the resource (or pattern), the role, and what the parts of a pattern matched.
type Target = (LocationTarget, Option<Role>, Vec<String>);

/// Does a rule depend on which resource it is asked for?
fn asks_the_resource(rule: Element<'_>) -> bool {
    let about = |e: Element<'_>| {
        let names = [e.attr("attribute"), e.attr("score-attribute")];
        e.attr("value-source").is_some_and(|s| s != "literal")
            || names.into_iter().flatten().any(|name| name.contains('%'))
    };
    about(rule) || rule.descendants().any(about)
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
