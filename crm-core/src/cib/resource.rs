//! Resources: primitives, groups, clones (promotable ones included).

use super::bundle::Bundle;
use super::nv::{NvSet, parse_duration_ms};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Instances of one clone: each is planned by itself, so that a number beyond this is a mistake.
pub const INSTANCES_MAX: u32 = 1_000;

/// `class:provider:type` of an agent, e.g. `ocf:heartbeat:Filesystem`, `systemd:nginx`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AgentName {
    /// `ocf`, `systemd`, `stonith`, `lsb`, `service`.
    pub class: String,
    /// Provider; only `ocf` has one.
    pub provider: Option<String>,
    /// Type.
    pub kind: String,
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.provider {
            Some(provider) => write!(f, "{}:{provider}:{}", self.class, self.kind),
            None => write!(f, "{}:{}", self.class, self.kind),
        }
    }
}

/// A configured operation of a primitive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// `monitor`, `start`, `stop`, `promote`, `demote`, ...
    pub name: String,
    /// All attributes as written (`interval`, `timeout`, `role`, `on-fail`, ...), in order.
    pub attrs: NvSet,
}

impl Op {
    /// Interval in milliseconds; 0 for one-shot operations and unreadable values.
    #[must_use]
    pub fn interval_ms(&self) -> u64 {
        self.attrs.get("interval").and_then(parse_duration_ms).unwrap_or(0)
    }

    /// Timeout in milliseconds, when one is configured and readable.
    #[must_use]
    pub fn timeout_ms(&self) -> Option<u64> {
        self.attrs.get("timeout").and_then(parse_duration_ms)
    }
}

/// One agent's instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Primitive {
    /// Id.
    pub id: String,
    /// Agent.
    pub agent: AgentName,
    /// Free text.
    pub description: Option<String>,
    /// Instance attributes.
    pub params: NvSet,
    /// Meta attributes.
    pub meta: NvSet,
    /// Utilization.
    pub utilization: NvSet,
    /// Operations in document order.
    pub ops: Vec<Op>,
    /// Order in which the parts were written, for showing them again; empty = [`Section::USUAL`].
    pub layout: Vec<Section>,
}

/// A part of a primitive as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Section {
    /// `params`
    Params,
    /// `meta`
    Meta,
    /// `utilization`
    Utilization,
    /// `op`
    Operations,
}

impl Section {
    /// The usual order.
    pub const USUAL: [Self; 4] = [Self::Params, Self::Meta, Self::Utilization, Self::Operations];
}

impl Primitive {
    /// All sections in the order in which they are shown.
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        let mut out = self.layout.clone();
        out.extend(Section::USUAL.into_iter().filter(|s| !self.layout.contains(s)));
        out
    }

    /// Notes the order in which the sections were written; the usual order is not noted.
    pub fn set_layout(&mut self, written: &[Section]) {
        let mut layout: Vec<Section> = Vec::new();
        for section in written {
            if !layout.contains(section) {
                layout.push(*section);
            }
        }
        let usual = Section::USUAL.into_iter().filter(|s| layout.contains(s));
        self.layout = if usual.eq(layout.iter().copied()) { Vec::new() } else { layout };
    }
}

/// Members that run together, started in order, stopped in reverse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Id.
    pub id: String,
    /// Free text.
    pub description: Option<String>,
    /// Members in order.
    pub members: Vec<Primitive>,
    /// Instance attributes, inherited by members.
    pub params: NvSet,
    /// Meta attributes, inherited by members.
    pub meta: NvSet,
}

/// A resource that runs on several nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneResource {
    /// Id.
    pub id: String,
    /// Free text.
    pub description: Option<String>,
    /// What is cloned: a primitive or a group.
    pub child: Box<Resource>,
    /// Written as `ms`/`master`, or `promotable=true` in meta. Shown as `ms` when written so.
    pub ms: bool,
    /// Instance attributes.
    pub params: NvSet,
    /// Meta attributes (`clone-max`, `promoted-max` or `master-max`, `notify`, ...).
    pub meta: NvSet,
}

impl CloneResource {
    /// True for promotable clones, however written.
    #[must_use]
    pub fn promotable(&self) -> bool {
        self.ms || self.meta.flag("promotable").unwrap_or(false)
    }
}

/// A resource of the CIB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// A primitive.
    Primitive(Primitive),
    /// A group.
    Group(Group),
    /// A clone or promotable clone.
    Clone(CloneResource),
    /// Containers, perhaps with a primitive inside of each.
    Bundle(Box<Bundle>),
}

impl Resource {
    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Primitive(p) => &p.id,
            Self::Group(g) => &g.id,
            Self::Clone(c) => &c.id,
            Self::Bundle(b) => &b.id,
        }
    }

    /// Meta attributes set on this resource itself.
    #[must_use]
    pub const fn meta(&self) -> &NvSet {
        match self {
            Self::Primitive(p) => &p.meta,
            Self::Group(g) => &g.meta,
            Self::Clone(c) => &c.meta,
            Self::Bundle(b) => &b.meta,
        }
    }

    /// Same as [`Self::meta`], mutable.
    pub const fn meta_mut(&mut self) -> &mut NvSet {
        match self {
            Self::Primitive(p) => &mut p.meta,
            Self::Group(g) => &mut g.meta,
            Self::Clone(c) => &mut c.meta,
            Self::Bundle(b) => &mut b.meta,
        }
    }

    /// Adds the primitives of this resource to `out`, in order.
    pub fn collect_primitives<'a>(&'a self, out: &mut Vec<&'a Primitive>) {
        match self {
            Self::Primitive(p) => out.push(p),
            Self::Group(g) => out.extend(&g.members),
            Self::Clone(c) => c.child.collect_primitives(out),
            Self::Bundle(b) => out.extend(&b.child),
        }
    }

    /// This resource, or the one inside it, called `id`. Members of groups and what is in bundles are not [`Resource`]s: a member's id gives `None`; use [`Self::primitive`].
    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Self> {
        if self.id() == id {
            return Some(self);
        }
        match self {
            Self::Primitive(_) | Self::Group(_) | Self::Bundle(_) => None,
            Self::Clone(c) => c.child.find(id),
        }
    }

    /// Same as [`Self::find`], mutable.
    pub fn find_mut(&mut self, id: &str) -> Option<&mut Self> {
        if self.id() == id {
            return Some(self);
        }
        match self {
            Self::Primitive(_) | Self::Group(_) | Self::Bundle(_) => None,
            Self::Clone(c) => c.child.find_mut(id),
        }
    }

    /// The primitive called `id` in this resource (itself, a group's member, a clone's child).
    #[must_use]
    pub fn primitive(&self, id: &str) -> Option<&Primitive> {
        match self {
            Self::Primitive(p) => (p.id == id).then_some(p),
            Self::Group(g) => g.members.iter().find(|p| p.id == id),
            Self::Clone(c) => c.child.primitive(id),
            Self::Bundle(b) => b.child.as_ref().filter(|p| p.id == id),
        }
    }

    /// Same as [`Self::primitive`], mutable.
    pub fn primitive_mut(&mut self, id: &str) -> Option<&mut Primitive> {
        match self {
            Self::Primitive(p) => (p.id == id).then_some(p),
            Self::Group(g) => g.members.iter_mut().find(|p| p.id == id),
            Self::Clone(c) => c.child.primitive_mut(id),
            Self::Bundle(b) => b.child.as_mut().filter(|p| p.id == id),
        }
    }
}
