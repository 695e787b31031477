//! A configuration taken apart into objects that name each other instead of holding each other, and put together again.

use crate::cib::{
    Cib, CloneResource, Constraint, FencingRule, Group, Node, Nv, NvSet, Primitive, Resource,
    RscTicket, Volume,
};
use crate::text::known::FENCING;
use crate::text::show::pair;
use crate::text::{BundleStatement, CloneStatement, GroupStatement, objects};
use std::collections::{BTreeMap, BTreeSet};

/// Where names are unique. In the order in which objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    Node,
    Volume,
    /// Resources and constraints.
    Object,
    Ticket,
    Fencing,
    /// The id of an option set.
    SetId,
    Option(Set),
}

/// One of the option sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    Property,
    RscDefaults,
    OpDefaults,
}

impl Set {
    const ALL: [Self; 3] = [Self::Property, Self::RscDefaults, Self::OpDefaults];

    const fn word(self) -> &'static str {
        match self {
            Self::Property => "property",
            Self::RscDefaults => "rsc_defaults",
            Self::OpDefaults => "op_defaults",
        }
    }

    const fn of(self, cib: &Cib) -> &NvSet {
        match self {
            Self::Property => &cib.properties,
            Self::RscDefaults => &cib.rsc_defaults,
            Self::OpDefaults => &cib.op_defaults,
        }
    }

    const fn of_mut(self, cib: &mut Cib) -> &mut NvSet {
        match self {
            Self::Property => &mut cib.properties,
            Self::RscDefaults => &mut cib.rsc_defaults,
            Self::OpDefaults => &mut cib.op_defaults,
        }
    }
}

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    space: Space,
    id: String,
}

impl Key {
    fn new(space: Space, id: &str) -> Self {
        Self { space, id: id.to_owned() }
    }

    /// As people write it.
    pub(super) fn name(&self) -> String {
        match self.space {
            Space::Option(set @ (Set::RscDefaults | Set::OpDefaults)) => {
                format!("{}.{}", set.word(), self.id)
            }
            Space::SetId => format!("{}.id", self.id),
            Space::Option(Set::Property)
            | Space::Node
            | Space::Volume
            | Space::Object
            | Space::Ticket
            | Space::Fencing => self.id.clone(),
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Node(Node),
    Volume(Volume),
    Primitive(Primitive),
    Group(GroupStatement),
    Clone(CloneStatement),
    Bundle(Box<BundleStatement>),
    Constraint(Constraint),
    Ticket(RscTicket),
    Fencing(Vec<FencingRule>),
    SetId(String),
    Option(Nv),
}

/// All objects of a configuration, and how they stand in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Flat {
    pub(super) order: Vec<Key>,
    pub(super) pieces: BTreeMap<Key, Piece>,
}

impl Flat {
    pub(super) fn of(cib: &Cib) -> Self {
        let mut out = Self::default();
        for node in &cib.nodes {
            out.add(Space::Node, &node.name, Piece::Node(node.clone()));
        }
        for volume in &cib.volumes {
            out.add(Space::Volume, &volume.name, Piece::Volume(volume.clone()));
        }
        for resource in &cib.resources {
            out.resource(resource);
        }
        for constraint in &cib.constraints {
            out.add(Space::Object, constraint.id(), Piece::Constraint(constraint.clone()));
        }
        for ticket in &cib.rsc_tickets {
            out.add(Space::Ticket, &ticket.id, Piece::Ticket(ticket.clone()));
        }
        if !cib.fencing.is_empty() {
            out.add(Space::Fencing, FENCING, Piece::Fencing(cib.fencing.clone()));
        }
        for set in Set::ALL {
            let options = set.of(cib);
            if let Some(id) = &options.id {
                out.add(Space::SetId, set.word(), Piece::SetId(id.clone()));
            }
            for nv in &options.pairs {
                out.add(Space::Option(set), &nv.name, Piece::Option(nv.clone()));
            }
        }
        out
    }

    fn add(&mut self, space: Space, id: &str, piece: Piece) {
        let key = Key::new(space, id);
        self.order.push(key.clone());
        self.pieces.insert(key, piece);
    }

    fn resource(&mut self, resource: &Resource) {
        let piece = match resource {
            Resource::Primitive(primitive) => Piece::Primitive(primitive.clone()),
            Resource::Group(group) => {
                for member in &group.members {
                    self.add(Space::Object, &member.id, Piece::Primitive(member.clone()));
                }
                Piece::Group(GroupStatement {
                    id: group.id.clone(),
                    description: group.description.clone(),
                    members: group.members.iter().map(|m| m.id.clone()).collect(),
                    params: group.params.clone(),
                    meta: group.meta.clone(),
                })
            }
            Resource::Clone(clone) => {
                self.resource(&clone.child);
                Piece::Clone(CloneStatement {
                    id: clone.id.clone(),
                    description: clone.description.clone(),
                    child: clone.child.id().to_owned(),
                    ms: clone.ms,
                    params: clone.params.clone(),
                    meta: clone.meta.clone(),
                })
            }
            Resource::Bundle(bundle) => {
                let mut bundle = (**bundle).clone();
                let child = bundle.child.take();
                if let Some(child) = &child {
                    self.add(Space::Object, &child.id, Piece::Primitive(child.clone()));
                }
                let child = child.map(|child| child.id);
                Piece::Bundle(Box::new(BundleStatement { bundle, child }))
            }
        };
        self.add(Space::Object, resource.id(), piece);
    }
}

/// The statements of all objects, in the words of the configure text.
pub(super) fn texts(cib: &Cib) -> BTreeMap<Key, String> {
    let mut out = BTreeMap::new();
    for (name, text) in objects(cib) {
        let space = match text.split(' ').next().unwrap_or_default() {
            "node" => Space::Node,
            "volume" => Space::Volume,
            FENCING => Space::Fencing,
            // These are shown one by one.
            "property" | "rsc_defaults" | "op_defaults" => continue,
            _ => Space::Object,
        };
        out.insert(Key::new(space, &name), text);
    }
    for ticket in &cib.rsc_tickets {
        let role = ticket.role.map(|role| format!(":{role:?}")).unwrap_or_default();
        let RscTicket { id, ticket: name, rsc, role: _, loss } = ticket;
        let text = format!("rsc_ticket {id} {name}: {rsc}{role} loss-policy={loss:?}");
        out.insert(Key::new(Space::Ticket, id), text.to_lowercase());
    }
    for set in Set::ALL {
        let options = set.of(cib);
        let word = set.word();
        if let Some(id) = &options.id {
            out.insert(Key::new(Space::SetId, word), format!("{word} {id}:"));
        }
        for nv in &options.pairs {
            let text = format!("{word} {}", pair(nv));
            out.insert(Key::new(Space::Option(set), &nv.name), text);
        }
    }
    out
}

/// What is inside of something, and inside of what.
fn inside(pieces: &BTreeMap<Key, Piece>, faults: &mut Vec<String>) -> BTreeSet<String> {
    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    for (key, piece) in pieces {
        let names: Vec<&str> = match piece {
            Piece::Group(group) => group.members.iter().map(String::as_str).collect(),
            Piece::Clone(clone) => vec![&clone.child],
            Piece::Bundle(bundle) => bundle.child.iter().map(String::as_str).collect(),
            Piece::Node(_)
            | Piece::Volume(_)
            | Piece::Primitive(_)
            | Piece::Constraint(_)
            | Piece::Ticket(_)
            | Piece::Fencing(_)
            | Piece::SetId(_)
            | Piece::Option(_) => Vec::new(),
        };
        if matches!(piece, Piece::Group(_)) && names.is_empty() {
            faults.push(format!("nothing is left in group {}", key.id));
        }
        for name in names {
            if let Some(other) = holders.insert(name, &key.id) {
                faults.push(format!("{name} would be in {other} and in {}", key.id));
            }
        }
    }
    holders.into_keys().map(str::to_owned).collect()
}

/// Takes what is held out of the pieces.
struct Builder {
    pieces: BTreeMap<Key, Piece>,
    faults: Vec<String>,
}

impl Builder {
    fn take(&mut self, id: &str) -> Option<Piece> {
        self.pieces.remove(&Key::new(Space::Object, id))
    }

    fn primitive(&mut self, holder: &str, id: &str) -> Option<Primitive> {
        match self.take(id) {
            Some(Piece::Primitive(primitive)) => return Some(primitive),
            Some(_) => self.faults.push(format!("{id} in {holder} is no primitive")),
            None => self.faults.push(format!("{holder} holds {id}, which is not there")),
        }
        None
    }

    fn group(&mut self, statement: GroupStatement) -> Group {
        let GroupStatement { id, description, members, params, meta } = statement;
        let members = members.iter().filter_map(|m| self.primitive(&id, m)).collect();
        Group { id, description, members, params, meta }
    }

    fn clone_of(&mut self, statement: CloneStatement) -> Option<CloneResource> {
        let CloneStatement { id, description, child, ms, params, meta } = statement;
        let child = match self.take(&child) {
            Some(Piece::Primitive(primitive)) => Resource::Primitive(primitive),
            Some(Piece::Group(group)) => Resource::Group(self.group(group)),
            Some(_) => {
                self.faults.push(format!("{child} in {id} is neither primitive nor group"));
                return None;
            }
            None => {
                self.faults.push(format!("{id} holds {child}, which is not there"));
                return None;
            }
        };
        Some(CloneResource { id, description, child: Box::new(child), ms, params, meta })
    }

    fn place(&mut self, cib: &mut Cib, space: Space, piece: Piece) {
        match (space, piece) {
            (_, Piece::Node(node)) => cib.nodes.push(node),
            (_, Piece::Volume(volume)) => cib.volumes.push(volume),
            (_, Piece::Primitive(primitive)) => {
                cib.resources.push(Resource::Primitive(primitive));
            }
            (_, Piece::Group(group)) => {
                let group = self.group(group);
                cib.resources.push(Resource::Group(group));
            }
            (_, Piece::Clone(clone)) => {
                cib.resources.extend(self.clone_of(clone).map(Resource::Clone));
            }
            (_, Piece::Bundle(statement)) => {
                let BundleStatement { mut bundle, child } = *statement;
                bundle.child = child.and_then(|child| self.primitive(&bundle.id, &child));
                cib.resources.push(Resource::Bundle(Box::new(bundle)));
            }
            (_, Piece::Constraint(constraint)) => cib.constraints.push(constraint),
            (_, Piece::Ticket(ticket)) => cib.rsc_tickets.push(ticket),
            (_, Piece::Fencing(rules)) => cib.fencing = rules,
            (Space::Option(set), Piece::Option(nv)) => set.of_mut(cib).pairs.push(nv),
            (_, Piece::SetId(_) | Piece::Option(_)) => {}
        }
    }
}

/// Puts the objects together, in this order. What does not fit is told.
pub(super) fn build(order: &[Key], pieces: BTreeMap<Key, Piece>) -> Result<Cib, Vec<String>> {
    let mut faults = Vec::new();
    let held = inside(&pieces, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut builder = Builder { pieces, faults };
    let mut cib = Cib::default();
    for key in order {
        if key.space == Space::Object && held.contains(&key.id) {
            continue;
        }
        match builder.pieces.remove(key) {
            Some(Piece::SetId(id)) => {
                for set in Set::ALL.into_iter().filter(|set| set.word() == key.id) {
                    set.of_mut(&mut cib).id = Some(id.clone());
                }
            }
            Some(piece) => builder.place(&mut cib, key.space, piece),
            None => {}
        }
    }
    if builder.faults.is_empty() { Ok(cib) } else { Err(builder.faults) }
}
