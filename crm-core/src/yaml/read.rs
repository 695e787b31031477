//! YAML to CIB: the shape is checked by serde, the words here.

use super::raw::{self, Pairs};
use crate::cib::{
    Bundle, Cib, CloneResource, Colocation, Constraint, Container, Engine, FencingRule,
    FencingTarget, Group, Location, LocationTarget, Network, Node, Nv, NvSet, Op, Order,
    OrderAction, OrderKind, PortMapping, Primitive, Replica, Resource, ResourceSet, Role, Score,
    Section, SetMember, StorageMapping, Volume,
};
use crate::text::known::FENCING;
use crate::text::parser::{agent_name, constraint_action, constraint_role, is_id, order_kind};
use crate::text::{AgentCatalog, Diagnostic, Place, Severity, Spans, nearest, parse_size, resolve};
use serde_saphyr::Spanned;
use std::sync::Arc;

/// Reads a YAML document.
///
/// # Errors
/// All that is wrong with it; the shape first, then the words.
pub fn from_yaml(file: &str, text: &str) -> Result<Cib, Vec<Diagnostic>> {
    read(file, text, None).map(|(cib, _)| cib)
}

/// Reads a YAML document, with the places of its parts; bare agent types are found in `catalog`.
///
/// # Errors
/// All that is wrong with it.
pub fn read(
    file: &str,
    text: &str,
    catalog: Option<&dyn AgentCatalog>,
) -> Result<(Cib, Spans), Vec<Diagnostic>> {
    let mut reader = Reader {
        file: Arc::from(file),
        lines: text.lines().collect(),
        catalog,
        spans: Spans::new(),
        wrong: Vec::new(),
    };
    let document: raw::Document =
        serde_saphyr::from_str(text).map_err(|error| vec![reader.shape(&error)])?;
    let cib = reader.document(document);
    if reader.wrong.is_empty() { Ok((cib, reader.spans)) } else { Err(reader.wrong) }
}

struct Reader<'a> {
    file: Arc<str>,
    lines: Vec<&'a str>,
    catalog: Option<&'a dyn AgentCatalog>,
    spans: Spans,
    wrong: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn place(&self, at: serde_saphyr::Location, length: usize) -> Place {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let line = number(at.line());
        let source = line.checked_sub(1).and_then(|i| self.lines.get(i)).copied();
        Place {
            file: Arc::clone(&self.file),
            line,
            column: number(at.column()),
            length: length.max(1),
            source: Arc::from(source.unwrap_or_default()),
        }
    }

    fn at<T>(&self, spanned: &Spanned<T>, length: usize) -> Place {
        self.place(spanned.referenced, length)
    }

    fn word(&self, spanned: &Spanned<String>) -> Place {
        self.at(spanned, spanned.value.chars().count())
    }

    fn shape(&self, error: &serde_saphyr::Error) -> Diagnostic {
        let error = error.without_snippet();
        let mut out = Diagnostic::new(Severity::Error, "CRM0040", None, String::new());
        let mut length = 1;
        if let serde_saphyr::Error::SerdeUnknownField { field: word, expected, .. }
        | serde_saphyr::Error::SerdeUnknownVariant { variant: word, expected, .. } = error
        {
            length = word.chars().count();
            out.message = format!("there is no field `{word}` here");
            out.expected = Some(expected.join(", "));
            let near = nearest(word, expected.iter().copied());
            out.help = near.map(|near| format!("did you mean `{near}`?"));
        } else {
            // The place is shown on a line of its own.
            let text = error.to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
            text.clone_into(&mut out.message);
        }
        match error.location() {
            Some(at) => out.placed(&self.place(at, length)),
            None => out,
        }
    }

    fn bad(&mut self, code: &str, place: &Place, message: String, expected: &str) {
        self.wrong.push(*Diagnostic::error(code, place, message).expecting(expected));
    }

    fn document(&mut self, document: raw::Document) -> Cib {
        let mut cib = Cib {
            properties: self.options("property:", document.cluster),
            rsc_defaults: self.options("rsc_defaults:", document.defaults.resources),
            op_defaults: self.options("op_defaults:", document.defaults.operations),
            ..Cib::default()
        };
        for (name, attributes) in document.nodes.0 {
            let node = self.node(name, attributes.unwrap_or_default());
            cib.nodes.push(node);
        }
        for (name, capacity) in document.capacities.0 {
            let place = self.at(&capacity, 1);
            let utilization = self.set(&format!("node:{name}"), "utilization", capacity.value);
            match cib.node_mut(&name) {
                Some(node) => node.utilization = utilization,
                None => {
                    let message = format!("`{name}` has a capacity and is not among the nodes");
                    self.bad("CRM0013", &place, message, "a node that stands under `nodes:`");
                }
            }
        }
        for (name, volume) in document.volumes.0 {
            let volume = self.volume(name, &volume);
            cib.volumes.push(volume);
        }
        for resource in document.resources {
            if let Some(resource) = self.resource(resource) {
                cib.resources.push(resource);
            }
        }
        for constraint in document.constraints {
            if let Some(constraint) = self.constraint(constraint) {
                cib.constraints.push(constraint);
            }
        }
        for rule in document.fencing {
            if let Some(rule) = self.fencing(rule) {
                cib.fencing.push(rule);
            }
        }
        cib
    }

    fn set(&mut self, object: &str, part: &str, pairs: Pairs) -> NvSet {
        let mut out = NvSet::default();
        for (name, value) in pairs.0 {
            let length = value.value.as_ref().map_or(1, |v| v.chars().count());
            let place = self.at(&value, length);
            if name == "$id" {
                out.id = value.value;
                continue;
            }
            if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '=') {
                let message = format!("`{name}` is not a name");
                self.bad("CRM0009", &place, message, "a name without blanks and `=`");
            }
            self.spans.note(format!("{object}/{part}/{name}"), place);
            out.pairs.push(Nv { name, value: value.value });
        }
        out
    }

    fn options(&mut self, object: &str, pairs: Pairs) -> NvSet {
        let default = match object {
            "property:" => "cib-bootstrap-options",
            "rsc_defaults:" => "rsc-options",
            _ => "op-options",
        };
        let mut set = self.set(object, "options", pairs);
        set.id = set.id.filter(|id| id != default);
        set
    }

    fn node(&mut self, name: String, attributes: Pairs) -> Node {
        let object = format!("node:{name}");
        let number = attributes.0.iter().find(|(n, _)| n == "$id").map(|(_, v)| self.at(v, 1));
        let mut attributes = self.set(&object, "attributes", attributes);
        let id = match attributes.id.take() {
            None => 0,
            Some(text) => text.parse().unwrap_or_else(|_| {
                if let Some(place) = number {
                    let message = format!("`{text}` is not a node number");
                    self.bad("CRM0024", &place, message, "a whole number");
                }
                0
            }),
        };
        Node { id, name, attributes, utilization: NvSet::default() }
    }

    fn volume(&mut self, name: String, spanned: &Spanned<raw::Volume>) -> Volume {
        let place = self.at(spanned, 1);
        self.spans.note(format!("volume:{name}"), place);
        let raw = &spanned.value;
        let size_bytes = parse_size(&raw.size.value).unwrap_or_else(|| {
            let message = format!("`{}` is not a size", raw.size.value);
            let place = self.word(&raw.size);
            self.bad("CRM0025", &place, message, "a multiple of 4096 bytes: 256MiB, 1GiB");
            0
        });
        let day0 = raw.day0.as_ref().map_or(0, |text| {
            u64::from_str_radix(&text.value, 16).unwrap_or_else(|_| {
                let message = format!("`{}` is not a generation", text.value);
                let place = self.word(text);
                self.bad("CRM0025", &place, message, "16 hexadecimal digits, not zero");
                0
            })
        });
        let replica =
            |(node, disk): &(String, String)| Replica { node: node.clone(), disk: disk.clone() };
        Volume {
            device: raw.device.clone().unwrap_or_else(|| format!("/dev/crm/by-name/{name}")),
            name,
            size_bytes,
            replicas: raw.replicas.0.iter().map(replica).collect(),
            port: raw.port.unwrap_or(0),
            day0,
            assume_clean: raw.assume_clean,
        }
    }

    fn id(&mut self, id: &Spanned<String>) -> String {
        let place = self.word(id);
        if !is_id(&id.value) {
            let message = format!("`{}` is not an id", id.value);
            self.bad(
                "CRM0024",
                &place,
                message,
                "a letter or `_`, then letters, digits, `_`, `-`, `.`",
            );
        }
        self.spans.note(id.value.clone(), place);
        id.value.clone()
    }

    fn resource(&mut self, spanned: Spanned<raw::Resource>) -> Option<Resource> {
        let place = self.at(&spanned, 1);
        let raw = spanned.value;
        let kinds = [&raw.primitive, &raw.group, &raw.clone, &raw.promotable, &raw.bundle];
        if kinds.iter().filter(|k| k.is_some()).count() != 1 {
            let message = "this is not exactly one kind of resource".to_owned();
            self.bad(
                "CRM0040",
                &place,
                message,
                "one of `primitive:`, `group:`, `clone:`, `promotable:`, `bundle:`",
            );
            return None;
        }
        if raw.primitive.is_some() {
            return self.primitive(raw, &place).map(Resource::Primitive);
        }
        let stray = raw.agent.is_some()
            || !raw.operations.is_empty()
            || !raw.utilization.0.is_empty()
            || raw.layout.is_some();
        if stray {
            let message =
                "`agent`, `operations`, `utilization` and `layout` belong to primitives".to_owned();
            self.bad(
                "CRM0040",
                &place,
                message,
                "`members` or `of`, `params`, `meta`, `description`",
            );
        }
        if raw.bundle.is_some() {
            return self.bundle(raw, &place).map(Box::new).map(Resource::Bundle);
        }
        match raw.group.is_some() {
            true => self.group(raw, &place).map(Resource::Group),
            false => self.clone_of(raw, &place).map(Resource::Clone),
        }
    }

    fn bundle(&mut self, raw: raw::Resource, place: &Place) -> Option<Bundle> {
        let id = self.id(raw.bundle.as_ref()?);
        let given = [raw.docker, raw.podman, raw.rkt].into_iter().zip(Engine::ALL);
        let mut given = given.filter_map(|(pairs, engine)| Some((engine, pairs?)));
        let (Some((engine, pairs)), None) = (given.next(), given.next()) else {
            let message = format!("the bundle `{id}` has not exactly one kind of containers");
            self.bad("CRM0040", place, message, "one of `docker:`, `podman:`");
            return None;
        };
        let container = Container { engine, attrs: self.set(&id, engine.name(), pairs) };
        let attrs = raw.network.map(|pairs| self.set(&id, "network", pairs));
        let ports: Vec<PortMapping> = raw
            .ports
            .0
            .into_iter()
            .map(|(name, pairs)| PortMapping { attrs: self.set(&id, "ports", pairs), id: name })
            .collect();
        let network = (attrs.is_some() || !ports.is_empty())
            .then(|| Network { attrs: attrs.unwrap_or_default(), ports });
        let storage = raw.storage.0.into_iter();
        let storage = storage
            .map(|(name, pairs)| StorageMapping {
                attrs: self.set(&id, "storage", pairs),
                id: name,
            })
            .collect();
        let child = match raw.of {
            None => None,
            Some(of) => {
                let at = self.at(&of, 1);
                match self.resource(*of) {
                    Some(Resource::Primitive(primitive)) => Some(primitive),
                    Some(Resource::Group(_) | Resource::Clone(_) | Resource::Bundle(_)) => {
                        let message = format!("what is in the bundle `{id}` is not a primitive");
                        self.bad("CRM0011", &at, message, "`primitive:`");
                        None
                    }
                    None => None,
                }
            }
        };
        let meta = self.set(&id, "meta", raw.meta);
        let description = raw.description;
        Some(Bundle { id, description, container, network, storage, child, meta })
    }

    fn group(&mut self, raw: raw::Resource, place: &Place) -> Option<Group> {
        let id = self.id(raw.group.as_ref()?);
        if raw.of.is_some() || raw.members.as_ref().is_none_or(Vec::is_empty) {
            self.bad(
                "CRM0040",
                place,
                format!("the group `{id}` has no members"),
                "`members:`, a list of primitives",
            );
        }
        let mut members = Vec::new();
        for member in raw.members.unwrap_or_default() {
            let at = self.at(&member, 1);
            match self.resource(member) {
                Some(Resource::Primitive(primitive)) => members.push(primitive),
                Some(Resource::Group(_) | Resource::Clone(_) | Resource::Bundle(_)) => {
                    let message = format!("a member of the group `{id}` is not a primitive");
                    self.bad("CRM0011", &at, message, "`primitive:`");
                }
                None => {}
            }
        }
        let params = self.set(&id, "params", raw.params);
        let meta = self.set(&id, "meta", raw.meta);
        Some(Group { id, description: raw.description, members, params, meta })
    }

    fn clone_of(&mut self, raw: raw::Resource, place: &Place) -> Option<CloneResource> {
        let ms = raw.promotable.is_some();
        let id = self.id(raw.clone.as_ref().or(raw.promotable.as_ref())?);
        let Some(of) = raw.of.filter(|_| raw.members.is_none()) else {
            self.bad(
                "CRM0040",
                place,
                format!("`{id}` does not say what is cloned"),
                "`of:`, a primitive or group",
            );
            return None;
        };
        let at = self.at(&of, 1);
        let child = self.resource(*of)?;
        if matches!(child, Resource::Clone(_)) {
            self.bad("CRM0011", &at, format!("`{id}` clones a clone"), "a primitive or group");
        }
        let params = self.set(&id, "params", raw.params);
        let meta = self.set(&id, "meta", raw.meta);
        let description = raw.description;
        Some(CloneResource { id, description, child: Box::new(child), ms, params, meta })
    }

    fn primitive(&mut self, raw: raw::Resource, place: &Place) -> Option<Primitive> {
        let id = self.id(raw.primitive.as_ref()?);
        if raw.members.is_some() || raw.of.is_some() {
            let message = "`members` and `of` do not belong to primitives".to_owned();
            self.bad("CRM0040", place, message, "`agent`, `params`, `meta`, `operations`");
        }
        let Some(agent) = &raw.agent else {
            self.bad(
                "CRM0040",
                place,
                format!("`{id}` has no agent"),
                "`agent: ocf:heartbeat:...`",
            );
            return None;
        };
        let at = self.word(agent);
        let Some((mut name, bare)) = agent_name(&agent.value) else {
            let message = format!("`{}` is not the name of an agent", agent.value);
            self.bad("CRM0014", &at, message, "TYPE, CLASS:TYPE or ocf:PROVIDER:TYPE");
            return None;
        };
        if bare && let Some(catalog) = self.catalog {
            name = resolve(&name.kind, catalog);
        }
        self.spans.note(format!("{id}/agent"), at);
        let mut ops = Vec::new();
        for op in raw.operations {
            let at = self.at(&op, 1);
            ops.extend(self.operation(&id, ops.len(), op.value.0, &at));
        }
        let mut out = Primitive {
            agent: name,
            description: raw.description,
            params: self.set(&id, "params", raw.params),
            meta: self.set(&id, "meta", raw.meta),
            utilization: self.set(&id, "utilization", raw.utilization),
            ops,
            layout: Vec::new(),
            id,
        };
        if let Some(layout) = raw.layout {
            self.layout(&mut out, &layout);
        }
        Some(out)
    }

    fn operation(
        &mut self,
        id: &str,
        index: usize,
        map: Vec<(String, Option<Pairs>)>,
        at: &Place,
    ) -> Option<Op> {
        let Ok([(name, attrs)]) = <[_; 1]>::try_from(map) else {
            let message = "an operation is one name with its attributes".to_owned();
            self.bad("CRM0040", at, message, "`- monitor: {interval: 10s}`");
            return None;
        };
        let part = format!("op/{index}");
        self.spans.note(format!("{id}/{part}"), at.clone());
        let mut attrs = self.set(id, &part, attrs.unwrap_or_default());
        if attrs.get("interval").is_none() {
            attrs.set("interval", "0");
        }
        let own = |nv: &Nv| !crate::text::known::OP_ATTRIBUTES.contains(&nv.name.as_str());
        attrs.pairs.sort_by_key(own);
        Some(Op { name, attrs })
    }

    fn layout(&mut self, primitive: &mut Primitive, words: &Spanned<Vec<String>>) {
        let mut written = Vec::new();
        for word in &words.value {
            match word.as_str() {
                "params" => written.push(Section::Params),
                "meta" => written.push(Section::Meta),
                "utilization" => written.push(Section::Utilization),
                "operations" => written.push(Section::Operations),
                other => {
                    let place = self.at(words, 1);
                    let message = format!("`{other}` is not a section");
                    self.bad("CRM0040", &place, message, "params, meta, utilization, operations");
                }
            }
        }
        primitive.set_layout(&written);
    }

    fn score(&mut self, text: &Spanned<String>) -> Score {
        Score::parse(&text.value).unwrap_or_else(|| {
            let place = self.word(text);
            let message = format!("`{}` is not a score", text.value);
            self.bad("CRM0006", &place, message, "a number, `inf` or `-inf`");
            Score::ZERO
        })
    }

    fn role(&mut self, word: &str, place: &Place) -> Option<Role> {
        let role = constraint_role(word);
        if role.is_none() {
            let message = format!("`{word}` is not a role");
            self.bad("CRM0007", place, message, "started, stopped, promoted, unpromoted");
        }
        role
    }

    fn action(&mut self, word: &str, place: &Place) -> Option<OrderAction> {
        let action = constraint_action(word);
        if action.is_none() {
            let message = format!("`{word}` is not an action");
            self.bad("CRM0008", place, message, "start, stop, promote, demote");
        }
        action
    }

    /// `ID` or `ID:WORD`.
    fn member(&mut self, owner: &str, text: &Spanned<String>) -> (String, Option<String>) {
        let (id, word) = match text.value.split_once(':') {
            Some((id, word)) => (id.to_owned(), Some(word.trim().to_owned())),
            None => (text.value.clone(), None),
        };
        let place = self.at(text, id.chars().count());
        if !is_id(&id) {
            self.bad("CRM0024", &place, format!("`{id}` is not an id"), "the id of a resource");
        }
        self.spans.note(format!("{owner}/ref/{id}"), place);
        (id, word)
    }

    fn sets(&mut self, owner: &str, sets: Vec<Spanned<raw::Set>>) -> Vec<ResourceSet> {
        let mut out = Vec::new();
        for spanned in sets {
            let at = self.at(&spanned, 1);
            let set = spanned.value;
            if set.resources.is_empty() {
                self.bad("CRM0004", &at, "the set is empty".to_owned(), "`resources: [a, b]`");
            }
            let mut members = Vec::new();
            for resource in &set.resources {
                let (resource, _) = self.member(owner, resource);
                members.push(SetMember { resource });
            }
            let role = set.role.and_then(|r| self.role(&r.value, &self.word(&r).clone()));
            let action = set.action.and_then(|a| self.action(&a.value, &self.word(&a).clone()));
            out.push(ResourceSet {
                id: None,
                members,
                sequential: set.sequential.unwrap_or(true),
                require_all: set.require_all.unwrap_or(true),
                role,
                action,
            });
        }
        out
    }

    fn constraint(&mut self, spanned: Spanned<raw::Constraint>) -> Option<Constraint> {
        let place = self.at(&spanned, 1);
        match spanned.value {
            raw::Constraint::Location(c) => self.location(c, &place).map(Constraint::Location),
            raw::Constraint::Colocate(c) => self.colocation(c, &place).map(Constraint::Colocation),
            raw::Constraint::Order(c) => self.order(c, &place).map(Constraint::Order),
        }
    }

    /// The id given, or one made of the kind and the two names.
    fn constraint_id(
        &mut self,
        given: Option<&Spanned<String>>,
        kind: &str,
        names: [Option<&Spanned<String>>; 2],
        place: &Place,
    ) -> String {
        if let Some(id) = given {
            return self.id(id);
        }
        let mut id = kind.to_owned();
        for name in names.into_iter().flatten() {
            id.push('-');
            id.push_str(name.value.split(':').next().unwrap_or_default());
        }
        self.spans.note(id.clone(), place.clone());
        id
    }

    fn location(&mut self, raw: raw::Location, place: &Place) -> Option<Location> {
        let names = [raw.resource.as_ref().or(raw.pattern.as_ref()), Some(&raw.node)];
        let id = self.constraint_id(raw.id.as_ref(), "location", names, place);
        let target = match (&raw.resource, &raw.pattern) {
            (Some(resource), None) => LocationTarget::Resource(self.member(&id, resource).0),
            (None, Some(pattern)) => LocationTarget::Pattern(pattern.value.clone()),
            (Some(_), Some(_)) | (None, None) => {
                let message = format!("`{id}` does not say whose preference it is");
                self.bad("CRM0040", place, message, "`resource:` or `pattern:`");
                return None;
            }
        };
        let node_place = self.word(&raw.node);
        self.spans.note(format!("{id}/node/{}", raw.node.value), node_place);
        let score = self.score(&raw.score);
        let role = raw.role.and_then(|r| self.role(&r.value, &self.word(&r).clone()));
        Some(Location { id, target, score, node: raw.node.value, role, discovery: raw.discovery })
    }

    fn colocation(&mut self, raw: raw::Colocate, place: &Place) -> Option<Colocation> {
        let names = [raw.follower.as_ref(), raw.leader.as_ref()];
        let id = self.constraint_id(raw.id.as_ref(), "colocate", names, place);
        let score = raw.score.as_ref().map_or(Score::INF, |score| self.score(score));
        let mut out = Colocation {
            score,
            rsc: String::new(),
            rsc_role: None,
            with: String::new(),
            with_role: None,
            node_attribute: raw.node_attribute,
            influence: None,
            sets: self.sets(&id, raw.sets),
            id,
        };
        match (raw.follower, raw.leader, out.sets.is_empty()) {
            (Some(follower), Some(leader), true) => {
                let (rsc, word) = self.member(&out.id, &follower);
                out.rsc = rsc;
                out.rsc_role = word.and_then(|w| self.role(&w, &self.word(&follower).clone()));
                let (with, word) = self.member(&out.id, &leader);
                out.with = with;
                out.with_role = word.and_then(|w| self.role(&w, &self.word(&leader).clone()));
            }
            (None, None, false) => {}
            _ => {
                let message = format!("`{}` does not say who follows whom", out.id);
                self.bad("CRM0040", place, message, "`follower:` and `leader:`, or `sets:`");
                return None;
            }
        }
        Some(out)
    }

    fn fencing(&mut self, spanned: Spanned<raw::Fencing>) -> Option<FencingRule> {
        let place = self.at(&spanned, 1);
        let raw::Fencing { node, pattern, attribute, levels } = spanned.value;
        let target = match (node, pattern, attribute.map(|a| a.0)) {
            (None, None, None) => FencingTarget::Every,
            (Some(node), None, None) => {
                let at = self.word(&node);
                self.spans.note(format!("{FENCING}/node/{}", node.value), at);
                FencingTarget::Node(node.value)
            }
            (None, Some(pattern), None) => {
                let at = self.word(&pattern);
                self.spans.note(format!("{FENCING}/pattern/{}", pattern.value), at);
                FencingTarget::Pattern(pattern.value)
            }
            (None, None, Some(pairs)) if pairs.len() == 1 => {
                let (name, value) = pairs.into_iter().next()?;
                FencingTarget::Attribute { name, value }
            }
            _ => {
                let message = "these levels have more than one target".to_owned();
                self.bad("CRM0040", &place, message, "`node:`, `pattern:` or `attribute: {A: B}`");
                return None;
            }
        };
        if levels.is_empty() || levels.iter().any(Vec::is_empty) {
            self.bad("CRM0004", &place, "a level is empty".to_owned(), "`levels: [[a, b], [c]]`");
        }
        let mut device = |id: &Spanned<String>| self.member(FENCING, id).0;
        let levels = levels.iter().map(|l| l.iter().map(&mut device).collect()).collect();
        Some(FencingRule { target, levels })
    }

    fn order(&mut self, raw: raw::Order, place: &Place) -> Option<Order> {
        let names = [raw.first.as_ref(), raw.then.as_ref()];
        let id = self.constraint_id(raw.id.as_ref(), "order", names, place);
        let kind = raw.kind.map_or(OrderKind::Mandatory, |kind| {
            order_kind(&kind.value).unwrap_or_else(|| {
                let at = self.word(&kind);
                let message = format!("`{}` is not a kind of order", kind.value);
                self.bad("CRM0008", &at, message, "mandatory, optional, serialize");
                OrderKind::Mandatory
            })
        });
        let mut out = Order {
            kind,
            first: String::new(),
            first_action: None,
            then: String::new(),
            then_action: None,
            symmetrical: raw.symmetrical,
            sets: self.sets(&id, raw.sets),
            id,
        };
        match (raw.first, raw.then, out.sets.is_empty()) {
            (Some(first), Some(then), true) => {
                let (id, word) = self.member(&out.id, &first);
                out.first = id;
                out.first_action = word.and_then(|w| self.action(&w, &self.word(&first).clone()));
                let (id, word) = self.member(&out.id, &then);
                out.then = id;
                out.then_action = word.and_then(|w| self.action(&w, &self.word(&then).clone()));
            }
            (None, None, false) => {}
            _ => {
                let message = format!("`{}` does not say what comes first", out.id);
                self.bad("CRM0040", place, message, "`first:` and `then:`, or `sets:`");
                return None;
            }
        }
        Some(out)
    }
}
