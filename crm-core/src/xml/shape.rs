//! What a CIB is made of: elements, what may be in them, their attributes and what those may say. Of all schemas since 2.0.

/// What the value of an attribute has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    /// Anything.
    Text,
    /// `true` or `false` in one of their spellings.
    Bool,
    /// A whole number or an infinity.
    Score,
    /// A whole number.
    Number,
    /// A time span.
    Span,
    /// A point in time.
    Time,
    /// A role of resources.
    Role,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A regular expression.
    Pattern,
    /// The id of a resource, tag or template.
    Resource,
    /// The name of a node.
    Node,
}

/// An element: what may be in it, what its attributes may be.
pub(super) struct Shape {
    name: &'static str,
    /// What may be in it.
    pub(super) children: &'static [&'static str],
    /// Its attributes.
    pub(super) attributes: &'static [(&'static str, Value)],
    /// Attributes without which it says nothing; with `|` one of several will do, elements included.
    pub(super) needs: &'static [&'static str],
}

const ACTIONS: &[&str] = &["start", "stop", "promote", "demote"];
const OPERATIONS: &[&str] = &["lt", "lte", "gt", "gte", "eq", "ne", "defined", "not_defined"];
const DATE_OPERATIONS: &[&str] = &["gt", "lt", "in_range", "date_spec"];
/// What `on-fail` may be.
pub(super) const ON_FAIL: &[&str] = &[
    "ignore",
    "block",
    "stop",
    "restart",
    "standby",
    "fence",
    "demote",
    "restart-container",
    "reset-remote",
];
const SETS: &[&str] = &["instance_attributes", "meta_attributes", "utilization", "operations"];
const ID: (&str, Value) = ("id", Value::Text);
const ID_REF: (&str, Value) = ("id-ref", Value::Text);
const DESCRIPTION: (&str, Value) = ("description", Value::Text);
const CONTAINER: &[(&str, Value)] = &[
    ("image", Value::Text),
    ("replicas", Value::Number),
    ("replicas-per-host", Value::Number),
    ("promoted-max", Value::Number),
    ("masters", Value::Number),
    ("run-command", Value::Text),
    ("network", Value::Text),
    ("options", Value::Text),
];
const CALENDAR: &[(&str, Value)] = &[
    ID,
    ("seconds", Value::Text),
    ("minutes", Value::Text),
    ("hours", Value::Text),
    ("days", Value::Text),
    ("weeks", Value::Text),
    ("months", Value::Text),
    ("years", Value::Text),
    ("monthdays", Value::Text),
    ("weekdays", Value::Text),
    ("yeardays", Value::Text),
    ("yearsdays", Value::Text),
    ("weekyears", Value::Text),
    ("moon", Value::Text),
];

macro_rules! shapes {
    ($($name:literal [$($child:literal),*] $attributes:expr, [$($need:literal),*];)*) => {
        &[$(Shape { name: $name, children: &[$($child),*], attributes: $attributes, needs: &[$($need),*] }),*]
    };
}

/// All but what carries free names only.
const SHAPES: &[Shape] = shapes! {
    "cib" ["configuration", "status"] &[], [];
    "configuration" ["crm_config", "nodes", "resources", "constraints", "rsc_defaults", "op_defaults", "tags", "fencing-topology", "acls", "alerts"] &[], [];
    "status" ["node_state", "tickets"] &[], [];
    "crm_config" ["cluster_property_set"] &[], [];
    "nodes" ["node"] &[], [];
    "resources" ["primitive", "group", "clone", "master", "bundle", "template"] &[], [];
    "constraints" ["rsc_location", "rsc_colocation", "rsc_order", "rsc_ticket"] &[], [];
    "rsc_defaults" ["meta_attributes"] &[], [];
    "op_defaults" ["meta_attributes"] &[], [];
    "tags" ["tag"] &[], [];
    "tag" ["obj_ref"] &[ID, DESCRIPTION], ["id"];
    "obj_ref" [] &[ID], ["id"];
    "node" ["instance_attributes", "utilization"] &[ID, ("uname", Value::Text), ("type", Value::Word(&["normal", "member", "ping", "remote"])), ("score", Value::Score), DESCRIPTION], [];
    "primitive" ["instance_attributes", "meta_attributes", "utilization", "operations"] &[ID, ("class", Value::Text), ("provider", Value::Text), ("type", Value::Text), ("template", Value::Text), DESCRIPTION], ["class|template", "type|template"];
    "template" ["instance_attributes", "meta_attributes", "utilization", "operations"] &[ID, ("class", Value::Text), ("provider", Value::Text), ("type", Value::Text), DESCRIPTION], ["class", "type"];
    "group" ["primitive", "instance_attributes", "meta_attributes"] &[ID, DESCRIPTION], ["primitive"];
    "clone" ["primitive", "group", "instance_attributes", "meta_attributes"] &[ID, DESCRIPTION], [];
    "master" ["primitive", "group", "instance_attributes", "meta_attributes"] &[ID, DESCRIPTION], [];
    "bundle" ["podman", "docker", "rkt", "network", "storage", "primitive", "meta_attributes"] &[ID, DESCRIPTION], [];
    "podman" [] CONTAINER, ["image"];
    "docker" [] CONTAINER, ["image"];
    "rkt" [] CONTAINER, ["image"];
    "network" ["port-mapping"] &[ID, ("ip-range-start", Value::Text), ("control-port", Value::Number), ("host-interface", Value::Text), ("host-netmask", Value::Text), ("add-host", Value::Bool)], [];
    "port-mapping" [] &[ID, ("port", Value::Number), ("internal-port", Value::Number), ("range", Value::Text)], ["port|range"];
    "storage" ["storage-mapping"] &[], [];
    "storage-mapping" [] &[ID, ("source-dir", Value::Text), ("source-dir-root", Value::Text), ("target-dir", Value::Text), ("options", Value::Text)], ["source-dir|source-dir-root", "target-dir"];
    "operations" ["op"] &[ID, ID_REF, DESCRIPTION], [];
    "cluster_property_set" ["rule", "nvpair"] &[ID, ID_REF, ("score", Value::Score)], [];
    "instance_attributes" ["rule", "nvpair"] &[ID, ID_REF, ("score", Value::Score)], [];
    "meta_attributes" ["rule", "nvpair"] &[ID, ID_REF, ("score", Value::Score)], [];
    "utilization" ["rule", "nvpair"] &[ID, ID_REF, ("score", Value::Score)], [];
    "nvpair" [] &[ID, ID_REF, ("name", Value::Text), ("value", Value::Text)], [];
    "rule" ["rule", "expression", "date_expression", "rsc_expression", "op_expression"] &[ID, ID_REF, ("score", Value::Score), ("score-attribute", Value::Text), ("boolean-op", Value::Word(&["and", "or"])), ("role", Value::Role)], ["rule|expression|date_expression|rsc_expression|op_expression|id-ref"];
    "expression" [] &[ID, ("attribute", Value::Text), ("operation", Value::Word(OPERATIONS)), ("value", Value::Text), ("type", Value::Word(&["string", "integer", "number", "version"])), ("value-source", Value::Word(&["literal", "param", "meta"]))], ["attribute", "operation"];
    "date_expression" ["date_spec", "duration"] &[ID, ("operation", Value::Word(DATE_OPERATIONS)), ("start", Value::Time), ("end", Value::Time)], ["start|end|date_spec"];
    "date_spec" [] CALENDAR, [];
    "duration" [] CALENDAR, [];
    "rsc_expression" [] &[ID, ("class", Value::Text), ("provider", Value::Text), ("type", Value::Text)], [];
    "op_expression" [] &[ID, ("name", Value::Text), ("interval", Value::Span)], ["name"];
    "rsc_location" ["rule", "resource_set", "lifetime"] &[ID, ("rsc", Value::Resource), ("rsc-pattern", Value::Pattern), ("role", Value::Role), ("score", Value::Score), ("node", Value::Node), ("resource-discovery", Value::Word(&["always", "never", "exclusive"])), DESCRIPTION], ["rsc|rsc-pattern|resource_set", "node|rule"];
    "rsc_colocation" ["resource_set", "lifetime"] &[ID, ("rsc", Value::Resource), ("with-rsc", Value::Resource), ("rsc-role", Value::Role), ("with-rsc-role", Value::Role), ("score", Value::Score), ("node-attribute", Value::Text), ("influence", Value::Bool), ("score-attribute", Value::Text), ("score-attribute-mangle", Value::Text), ("rsc-instance", Value::Number), ("with-rsc-instance", Value::Number), DESCRIPTION], ["rsc|resource_set", "with-rsc|resource_set"];
    "rsc_order" ["resource_set", "lifetime"] &[ID, ("first", Value::Resource), ("then", Value::Resource), ("first-action", Value::Word(ACTIONS)), ("then-action", Value::Word(ACTIONS)), ("kind", Value::Word(&["Mandatory", "Optional", "Serialize"])), ("score", Value::Score), ("symmetrical", Value::Bool), ("require-all", Value::Bool), ("first-instance", Value::Number), ("then-instance", Value::Number), DESCRIPTION], ["first|resource_set", "then|resource_set"];
    "rsc_ticket" ["resource_set"] &[ID, ("rsc", Value::Resource), ("rsc-role", Value::Role), ("ticket", Value::Text), ("loss-policy", Value::Word(&["stop", "demote", "fence", "freeze"])), DESCRIPTION], ["ticket", "rsc|resource_set"];
    "lifetime" ["rule"] &[], [];
    "resource_set" ["resource_ref"] &[ID, ID_REF, ("sequential", Value::Bool), ("require-all", Value::Bool), ("ordering", Value::Word(&["group", "listed"])), ("action", Value::Word(ACTIONS)), ("role", Value::Role), ("score", Value::Score), ("kind", Value::Word(&["Mandatory", "Optional", "Serialize"])), DESCRIPTION], ["resource_ref|id-ref"];
    "resource_ref" [] &[("id", Value::Resource)], ["id"];
};

/// The shape of an element.
pub(super) fn of(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name)
}

/// What may be in an element.
pub(super) fn children(name: &str) -> &'static [&'static str] {
    match of(name) {
        Some(shape) => shape.children,
        None if matches!(name, "op") => SETS,
        None => &[],
    }
}
