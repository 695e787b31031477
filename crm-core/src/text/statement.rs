//! What one statement of a configure text says.

use super::diagnostic::Place;
use crate::cib::{Bundle, Constraint, FencingRule, NvSet, Primitive, Replica};

/// One statement with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The statement's first word.
    pub place: Place,
    /// What it says.
    pub kind: StatementKind,
    /// Places of its parts, as in [`super::Spans`]: the object's key and the part (empty for the object itself).
    pub marks: Vec<(String, String, Place)>,
}

/// A command of the session that the text reader does not carry out itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verb {
    /// Name, lower case.
    pub name: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Where it stands.
    pub place: Place,
}

/// `volume`: like [`crate::cib::Volume`], with what may be left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatement {
    /// Name.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Device; default `/dev/crm/by-name/NAME`.
    pub device: Option<String>,
    /// Port; default the lowest free one from [`super::FIRST_VOLUME_PORT`].
    pub port: Option<u16>,
    /// First generation; 0 until [`super::complete()`] chooses one.
    pub day0: u64,
    /// Replicas start as equal.
    pub assume_clean: bool,
    /// Replicas.
    pub replicas: Vec<Replica>,
}

/// `group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatement {
    /// Id.
    pub id: String,
    /// Free text.
    pub description: Option<String>,
    /// Members by id.
    pub members: Vec<String>,
    /// Instance attributes.
    pub params: NvSet,
    /// Meta attributes.
    pub meta: NvSet,
}

/// `clone`, `ms`, `master`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneStatement {
    /// Id.
    pub id: String,
    /// Free text.
    pub description: Option<String>,
    /// What is cloned, by id.
    pub child: String,
    /// Written as `ms` or `master`.
    pub ms: bool,
    /// Instance attributes.
    pub params: NvSet,
    /// Meta attributes.
    pub meta: NvSet,
}

/// `bundle`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleStatement {
    /// All but what is inside.
    pub bundle: Bundle,
    /// What is inside, by id.
    pub child: Option<String>,
}

/// `modgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModgroupStatement {
    /// Group.
    pub group: String,
    /// `add` (true) or `remove`.
    pub add: bool,
    /// Member.
    pub member: String,
    /// `after X` (true) or `before X`.
    pub anchor: Option<(bool, String)>,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatementKind {
    /// `node`: number (0 when not given), name, attributes.
    Node {
        /// Number; 0 when not given.
        id: u64,
        /// Name.
        name: String,
        /// Attributes.
        attributes: NvSet,
        /// Capacities.
        utilization: NvSet,
    },
    /// `primitive`; the flag tells that the agent was written without class and provider.
    Primitive(Box<Primitive>, bool),
    /// `group`.
    Group(GroupStatement),
    /// `clone`, `ms`, `master`.
    Clone(CloneStatement),
    /// `bundle`.
    Bundle(Box<BundleStatement>),
    /// `location`, `colocation`, `order`.
    Constraint(Constraint),
    /// `fencing_topology`.
    Fencing(Vec<FencingRule>),
    /// `property`.
    Property(NvSet),
    /// `rsc_defaults`.
    RscDefaults(NvSet),
    /// `op_defaults`.
    OpDefaults(NvSet),
    /// `volume`.
    Volume(VolumeStatement),
    /// `monitor RSC[:ROLE] INTERVAL[:TIMEOUT]`: one more operation.
    Monitor {
        /// Primitive.
        resource: String,
        /// Attributes of the operation.
        attrs: NvSet,
    },
    /// `delete [--cascade] ID...`.
    Delete {
        /// Ids.
        ids: Vec<String>,
        /// Constraints that mention them go too.
        cascade: bool,
    },
    /// `modgroup`.
    Modgroup(ModgroupStatement),
    /// `rename OLD NEW`.
    Rename {
        /// Old id.
        from: String,
        /// New id.
        to: String,
    },
    /// `set ID.NAME VALUE`, `set ID.OP[.INTERVAL].NAME VALUE`.
    Set {
        /// Object, then the parts of the path.
        path: String,
        /// Value.
        value: String,
    },
    /// A command for the caller.
    Verb(Verb),
}
