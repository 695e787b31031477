//! Constraints: location, colocation, order, and the sets they may use.

use super::Role;
use super::score::Score;
use serde::{Deserialize, Serialize};

/// What a location constraint is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocationTarget {
    /// A resource by id.
    Resource(String),
    /// All resources whose id matches this regular expression.
    Pattern(String),
}

/// Preference of a resource for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// Id.
    pub id: String,
    /// Whose preference.
    pub target: LocationTarget,
    /// Score.
    pub score: Score,
    /// Node name.
    pub node: String,
    /// Only for this role.
    pub role: Option<Role>,
    /// `resource-discovery` as written (`always`, `never`, `exclusive`).
    pub discovery: Option<String>,
}

/// A member of a resource set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetMember {
    /// Resource id.
    pub resource: String,
}

/// A resource set of a colocation or order constraint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceSet {
    /// Id, where the set was written with one.
    #[serde(default)]
    pub id: Option<String>,
    /// Members in order.
    pub members: Vec<SetMember>,
    /// `sequential` (default true).
    pub sequential: bool,
    /// `require-all` (default true).
    pub require_all: bool,
    /// Role (colocation sets).
    pub role: Option<Role>,
    /// Action (order sets).
    pub action: Option<OrderAction>,
}

/// Colocation: `rsc` follows `with` (or sets).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Colocation {
    /// Id.
    pub id: String,
    /// Score.
    pub score: Score,
    /// The dependent resource (empty when `sets` is used).
    pub rsc: String,
    /// Role of the dependent.
    pub rsc_role: Option<Role>,
    /// The resource it follows (empty when `sets` is used).
    pub with: String,
    /// Role of the resource it follows.
    pub with_role: Option<Role>,
    /// `node-attribute`.
    pub node_attribute: Option<String>,
    /// `influence` as written: may the dependent pull the resource it follows?
    #[serde(default)]
    pub influence: Option<bool>,
    /// Resource sets, when the constraint has more than two resources.
    pub sets: Vec<ResourceSet>,
}

/// Action that an order constraint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OrderAction {
    /// start
    Start,
    /// stop
    Stop,
    /// promote
    Promote,
    /// demote
    Demote,
}

/// Kind of an order constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// Always.
    Mandatory,
    /// Only if both happen in one transition.
    Optional,
    /// Never at the same time.
    Serialize,
}

/// Order: `first` before `then` (or sets).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Id.
    pub id: String,
    /// Kind.
    pub kind: OrderKind,
    /// First resource (empty when `sets` is used).
    pub first: String,
    /// Its action; `None` = start.
    pub first_action: Option<OrderAction>,
    /// Second resource (empty when `sets` is used).
    pub then: String,
    /// Its action; `None` = the first one's.
    pub then_action: Option<OrderAction>,
    /// `symmetrical` as written; `None` = default (true, except for Serialize).
    pub symmetrical: Option<bool>,
    /// Resource sets, when the constraint has more than two resources.
    pub sets: Vec<ResourceSet>,
}

/// What happens to a resource whose ticket is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LossPolicy {
    /// It is stopped.
    Stop,
    /// It is demoted.
    Demote,
    /// Its nodes are fenced.
    Fence,
    /// It stays as it is and is not managed any more.
    Freeze,
}

/// A resource (in a role) runs only while the cluster has a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RscTicket {
    /// Id.
    pub id: String,
    /// The ticket's name.
    pub ticket: String,
    /// The resource.
    pub rsc: String,
    /// The role that needs the ticket; `None` = any.
    pub role: Option<Role>,
    /// What its loss means.
    pub loss: LossPolicy,
}

/// A constraint of the CIB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// location
    Location(Location),
    /// colocation
    Colocation(Colocation),
    /// order
    Order(Order),
}

impl Constraint {
    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Location(c) => &c.id,
            Self::Colocation(c) => &c.id,
            Self::Order(c) => &c.id,
        }
    }

    /// The resources that it names; of a pattern none.
    #[must_use]
    pub fn resources(&self) -> Vec<&str> {
        fn pair<'a>(a: &'a str, b: &'a str, sets: &'a [ResourceSet]) -> Vec<&'a str> {
            if sets.is_empty() {
                return vec![a, b];
            }
            sets.iter().flat_map(|s| s.members.iter().map(|m| m.resource.as_str())).collect()
        }
        match self {
            Self::Location(c) => match &c.target {
                LocationTarget::Resource(id) => vec![id],
                LocationTarget::Pattern(_) => Vec::new(),
            },
            Self::Colocation(c) => pair(&c.rsc, &c.with, &c.sets),
            Self::Order(c) => pair(&c.first, &c.then, &c.sets),
        }
    }
}
