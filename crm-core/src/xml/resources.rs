//! Resources with their templates, defaults and operations.

use super::Reader;
use super::attributes::Sets;
use super::rule::About;
use super::tree::Element;
use crate::cib::{
    AgentName, CloneResource, Group, INSTANCES_MAX, Nv, NvSet, Op, Primitive, Resource, Role,
    Section,
};

impl<'a> Reader<'a> {
    pub(super) fn resources(&mut self, configuration: Element<'a>) {
        let defaults = configuration.child("rsc_defaults");
        let op_defaults = configuration.child("op_defaults");
        if let Some(section) = defaults {
            self.out.cib.rsc_defaults = self.attributes(section, "meta_attributes", Sets::Plain);
        }
        if let Some(section) = op_defaults {
            self.out.cib.op_defaults = self.attributes(section, "meta_attributes", Sets::Plain);
        }
        let (of_resources, of_operations) = std::mem::take(&mut self.moved);
        fill(&mut self.out.cib.rsc_defaults, of_resources);
        fill(&mut self.out.cib.op_defaults, of_operations);
        let defaults = Defaults { resources: defaults, operations: op_defaults, set: Vec::new() };
        let Some(section) = configuration.child("resources") else { return };
        for element in section.children() {
            if element.name() == "template" {
                continue;
            }
            if let Some(resource) = self.resource(element, &defaults) {
                self.out.cib.resources.push(resource);
            }
        }
    }

    fn resource(&mut self, element: Element<'a>, defaults: &Defaults<'a>) -> Option<Resource> {
        match element.name() {
            "primitive" => self.primitive(element, defaults).map(Resource::Primitive),
            "group" => self.group(element, defaults).map(Resource::Group),
            "clone" | "master" => self.clone_of(element, defaults).map(Resource::Clone),
            "bundle" => self.bundle(element, defaults).map(Box::new).map(Resource::Bundle),
            _ => {
                self.unknown(element, "resources");
                None
            }
        }
    }

    /// The id of a resource: there, and no other resource's.
    pub(super) fn id(&mut self, element: Element<'a>) -> Option<String> {
        let Some(id) = element.attr("id").filter(|id| !id.is_empty()) else {
            self.wrong(element, format!("`{}` without an id", element.name()));
            return None;
        };
        match self.taken.get(id).copied() {
            None => {
                self.taken.insert(id, element);
            }
            Some(first) => self.note(|| {
                let text = format!("the id `{id}` is used already, in line {}", first.line());
                element
                    .problem_of("id", "CRM0010", text)
                    .helping("ids are unique in a CIB: rename one of the two resources")
            }),
        }
        Some(id.to_owned())
    }

    /// Instances are made one by one: a number that no cluster has is refused.
    pub(super) fn instances(&mut self, element: Element<'a>, what: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        let many = value.trim().parse::<i128>().is_ok_and(|n| n > i128::from(INSTANCES_MAX));
        let huge = value.trim().len() > 30;
        if many || huge {
            self.note(|| {
                let text = format!("`{what}` is {value}: that many instances run on no cluster");
                element
                    .problem("CRM0031", text)
                    .expecting(format!("at most {INSTANCES_MAX}"))
                    .helping("without it there is one for each node")
            });
        }
    }

    fn group(&mut self, element: Element<'a>, defaults: &Defaults<'a>) -> Option<Group> {
        let mut members = Vec::new();
        let meta = self.attributes(element, "meta_attributes", Sets::Plain);
        let defaults = defaults.inside(&meta);
        for child in element.children() {
            match child.name() {
                "primitive" => members.extend(self.primitive(child, &defaults)),
                "meta_attributes" | "instance_attributes" => {}
                _ => self.unknown(child, "group"),
            }
        }
        Some(Group {
            id: self.id(element)?,
            description: element.attr("description").map(str::to_owned),
            members,
            params: self.attributes(element, "instance_attributes", Sets::Plain),
            meta,
        })
    }

    fn clone_of(&mut self, element: Element<'a>, defaults: &Defaults<'a>) -> Option<CloneResource> {
        let mut inner = None;
        let meta = self.attributes(element, "meta_attributes", Sets::Plain);
        let defaults = defaults.inside(&meta);
        for child in element.children() {
            match child.name() {
                "primitive" | "group" if inner.is_some() => self.note(|| {
                    let text = format!("`{}` contains more than one resource", element.name());
                    child
                        .problem("CRM0050", text)
                        .helping("put them into a group, or into clones of their own")
                }),
                "primitive" | "group" => inner = self.resource(child, &defaults),
                "meta_attributes" | "instance_attributes" => {}
                _ => self.unknown(child, element.name()),
            }
        }
        let Some(child) = inner else {
            // What is wrong with what is inside has been told.
            if !element.children().any(|c| matches!(c.name(), "primitive" | "group")) {
                self.wrong(element, format!("`{}` contains no resource", element.name()));
            }
            return None;
        };
        let max = meta.get("clone-max").or_else(|| self.out.cib.rsc_defaults.get("clone-max"));
        let max = max.map(str::to_owned);
        self.instances(element, "clone-max", max.as_deref());
        Some(CloneResource {
            id: self.id(element)?,
            description: element.attr("description").map(str::to_owned),
            child: Box::new(child),
            ms: element.name() == "master",
            params: self.attributes(element, "instance_attributes", Sets::Plain),
            meta,
        })
    }

    /// Rules about nodes may make parameters differ from node to node.
    pub(super) fn params_on_nodes(&mut self, configuration: Element<'a>) {
        let name = "instance_attributes";
        let ruled = |e: Element<'a>| e.named(name).any(|set| set.child("rule").is_some());
        let section = configuration.child("resources");
        for element in section.into_iter().flat_map(Element::descendants) {
            if !matches!(element.name(), "primitive" | "group" | "clone" | "master") {
                continue;
            }
            let template = element.attr("template").and_then(|t| self.ids.get(t).copied());
            if !ruled(element) && !template.is_some_and(ruled) {
                continue;
            }
            for node in self.all_nodes() {
                let facts = self.node_facts(&node);
                let mut on = |e| {
                    let about = About { node: Some(&facts), ..About::default() };
                    self.attributes(e, name, Sets::Of(about))
                };
                let mut own = on(element);
                if let Some(template) = template {
                    fill(&mut own, on(template));
                }
                let id = element.word("id").to_owned();
                self.out.params.entry(id).or_default().insert(node.name, own);
            }
        }
    }

    /// The template of a primitive, if it has one.
    ///
    /// # Errors
    /// There is no such template: that has been noted.
    fn template(&mut self, element: Element<'a>) -> Result<Option<Element<'a>>, ()> {
        let Some(name) = element.attr("template") else { return Ok(None) };
        let found = self.ids.get(name).copied().filter(|t| t.name() == "template");
        if found.is_none() {
            self.wrong(element, format!("no template is called `{name}`"));
            return Err(());
        }
        Ok(found)
    }

    pub(super) fn primitive(
        &mut self,
        element: Element<'a>,
        defaults: &Defaults<'a>,
    ) -> Option<Primitive> {
        let id = self.id(element)?;
        let template = self.template(element).ok()?;
        let agent_of = template.unwrap_or(element);
        let agent = AgentName {
            class: agent_of.word("class").to_owned(),
            provider: agent_of.attr("provider").map(str::to_owned),
            kind: agent_of.word("type").to_owned(),
        };
        let mut merged = |name: &'static str| {
            let mut of = |from| {
                let mut set = self.attributes(from, name, Sets::Plain);
                if self.old {
                    super::upgraded::attributes(&mut set, name, &agent);
                }
                set
            };
            let mut own = of(element);
            if let Some(template) = template {
                fill(&mut own, of(template));
            }
            own
        };
        let params = merged("instance_attributes");
        let mut meta = merged("meta_attributes");
        let utilization = merged("utilization");
        let about = About { agent: Some(triple(&agent)), ..About::default() };
        let mut ops = self.operations(element, &agent, defaults.operations);
        if let Some(template) = template {
            // An operation of the resource's own replaces all of that name and role, whatever their intervals.
            let own = ops.len();
            for op in self.operations(template, &agent, defaults.operations) {
                let same = |o: &Op| o.name == op.name && role_class(o) == role_class(&op);
                if !ops.iter().take(own).any(same) {
                    ops.push(op);
                }
            }
        }
        if self.old {
            fill(&mut meta, super::upgraded::required(&ops));
        }
        if let Some(section) = defaults.resources {
            let mut ruled = self.attributes(section, "meta_attributes", Sets::Of(about));
            // What it is in has been told more of it than the defaults.
            ruled.pairs.retain(|p| !defaults.set.contains(&p.name));
            fill_ruled(&mut meta, ruled, &self.out.cib.rsc_defaults);
        }
        if let Some(section) = defaults.operations {
            self.unwritten(&mut ops, &agent, section);
        }
        for child in element.children() {
            match child.name() {
                "instance_attributes" | "meta_attributes" | "utilization" | "operations" => {}
                _ => self.unknown(child, "primitive"),
            }
        }
        Some(Primitive {
            id,
            agent,
            description: element.attr("description").map(str::to_owned),
            params,
            meta,
            utilization,
            ops,
            layout: Vec::<Section>::new(),
        })
    }

    fn operations(
        &mut self,
        owner: Element<'a>,
        agent: &AgentName,
        defaults: Option<Element<'a>>,
    ) -> Vec<Op> {
        let mut out = Vec::new();
        for section in owner.named("operations") {
            let Some(section) = self.resolve(section) else {
                self.wrong(section, format!("no element has the id `{}`", section.word("id-ref")));
                continue;
            };
            for element in section.children() {
                if element.name() == "op" {
                    out.extend(self.operation(element, agent, defaults));
                } else {
                    self.unknown(element, "operations");
                }
            }
        }
        out
    }

    /// Defaults by rules hold also for operations that are not written down.
    fn unwritten(&mut self, ops: &mut Vec<Op>, agent: &AgentName, section: Element<'a>) {
        for name in ["start", "stop", "promote", "demote", "migrate_to", "migrate_from"] {
            if ops.iter().any(|op| op.name == name && op.interval_ms() == 0) {
                continue;
            }
            let op = Some((name, 0));
            let about = About { agent: Some(triple(agent)), op, ..About::default() };
            let ruled = self.attributes(section, "meta_attributes", Sets::Of(about));
            let mut attrs = NvSet::default();
            fill_ruled(&mut attrs, ruled, &self.out.cib.op_defaults);
            if !attrs.pairs.is_empty() {
                ops.push(Op { name: name.to_owned(), attrs });
            }
        }
    }

    fn operation(
        &mut self,
        element: Element<'a>,
        agent: &AgentName,
        defaults: Option<Element<'a>>,
    ) -> Option<Op> {
        let Some(element) = self.resolve(element) else {
            self.wrong(element, format!("no element has the id `{}`", element.word("id-ref")));
            return None;
        };
        let Some(name) = element.attr("name") else {
            self.wrong(element, "`op` without a name".to_owned());
            return None;
        };
        let mut attrs = NvSet::default();
        for (key, value) in element.attrs().filter(|(k, _)| !matches!(*k, "id" | "name")) {
            attrs.pairs.push(Nv { name: key.to_owned(), value: Some(value.to_owned()) });
        }
        fill(&mut attrs, self.attributes(element, "meta_attributes", Sets::Plain));
        fill(&mut attrs, self.attributes(element, "instance_attributes", Sets::Plain));
        let mut op = Op { name: name.to_owned(), attrs };
        if let Some(section) = defaults {
            let about = About {
                agent: Some(triple(agent)),
                op: Some((name, op.interval_ms())),
                ..About::default()
            };
            let ruled = self.attributes(section, "meta_attributes", Sets::Of(about));
            fill_ruled(&mut op.attrs, ruled, &self.out.cib.op_defaults);
        }
        Some(op)
    }
}

/// Sections `rsc_defaults` and `op_defaults`: their rules may be about the agent or the operation.
#[derive(Debug, Clone)]
pub(super) struct Defaults<'a> {
    resources: Option<Element<'a>>,
    operations: Option<Element<'a>>,
    /// Names that what a resource is in has values for.
    set: Vec<String>,
}

impl Defaults<'_> {
    /// The same for what is in a resource with these attributes.
    pub(super) fn inside(&self, meta: &NvSet) -> Self {
        let mut out = self.clone();
        out.set.extend(meta.pairs.iter().map(|p| p.name.clone()));
        out
    }
}

/// The role an operation is for, as far as templates tell roles apart: a running resource's are one.
fn role_class(op: &Op) -> Option<Role> {
    let role = op.attrs.get("role").and_then(crate::plan::parse_role);
    role.filter(|role| !matches!(role, Role::Started | Role::Unpromoted))
}

fn triple(agent: &AgentName) -> (&str, &str, &str) {
    (&agent.class, agent.provider.as_deref().unwrap_or_default(), &agent.kind)
}

/// Adds what is not there yet.
fn fill(own: &mut NvSet, more: NvSet) {
    for pair in more.pairs {
        if !own.pairs.iter().any(|p| p.name == pair.name) {
            own.pairs.push(pair);
        }
    }
}

/// Adds defaults that hold only for this agent or operation; what holds for all is found in the defaults themselves.
fn fill_ruled(own: &mut NvSet, mut ruled: NvSet, plain: &NvSet) {
    ruled.pairs.retain(|p| plain.get(&p.name) != p.value.as_deref());
    fill(own, ruled);
}
