//! Documents of schemas before 3.0: names that Pacemaker changes when it reads such a document, and options of the cluster that are defaults now.

use crate::cib::{AgentName, Nv, NvSet, Op};

/// Is it a schema before 3.0?
pub(super) fn is_old(schema: Option<&str>) -> bool {
    let version = schema.and_then(|s| s.rsplit_once('-')).and_then(|(_, v)| v.split('.').next());
    version.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < 3)
}

/// Options that are defaults of resources now. `migration-threshold` is none: its old default never had an effect.
const OF_RESOURCES: [(&str, &str); 2] =
    [("default-resource-stickiness", "resource-stickiness"), ("is-managed-default", "is-managed")];
/// What is written with an underscore too.
const DASHED: [&str; 11] = [
    "cluster-recheck-interval",
    "dc-deadtime",
    "election-timeout",
    "no-quorum-policy",
    "remove-after-stop",
    "shutdown-escalation",
    "startup-fencing",
    "stonith-action",
    "stonith-enabled",
    "stop-orphan-actions",
    "stop-orphan-resources",
];

/// Renames cluster options; what is returned are defaults of resources and of operations.
pub(super) fn properties(options: &mut NvSet) -> (NvSet, NvSet) {
    let (mut of_resources, mut of_operations) = (NvSet::default(), NvSet::default());
    let mut kept: Vec<Nv> = Vec::new();
    for pair in std::mem::take(&mut options.pairs) {
        let name = pair.name.replace('_', "-");
        let put = |set: &mut NvSet, name: &str, value: Option<&str>| {
            if set.get(name).is_none() {
                set.pairs.push(Nv { name: name.to_owned(), value: value.map(str::to_owned) });
            }
        };
        let value = pair.value.as_deref();
        if let Some((_, new)) = OF_RESOURCES.iter().find(|(old, _)| *old == name) {
            put(&mut of_resources, new, value);
        } else if name == "default-resource-failure-stickiness" {
            if value == Some("-INFINITY") {
                put(&mut of_resources, "migration-threshold", Some("1"));
            }
        } else if name == "default-action-timeout" {
            put(&mut of_operations, "timeout", value);
        } else {
            let renamed = match name.as_str() {
                "transition-idle-timeout" => "cluster-delay".to_owned(),
                "symmetric-cluster" => name,
                _ if DASHED.contains(&name.as_str()) => name,
                _ => pair.name,
            };
            // The first one counts.
            if !kept.iter().any(|k| k.name == renamed) {
                kept.push(Nv { name: renamed, value: pair.value });
            }
        }
    }
    options.pairs = kept;
    (of_resources, of_operations)
}

/// Renames attributes of a primitive or template.
pub(super) fn attributes(set: &mut NvSet, kind: &str, agent: &AgentName) {
    let mut kept: Vec<Nv> = Vec::new();
    for pair in std::mem::take(&mut set.pairs) {
        let Some(pair) = renamed(pair, kind, agent) else { continue };
        if !kept.iter().any(|k| k.name == pair.name) {
            kept.push(pair);
        }
    }
    set.pairs = kept;
}

/// `None` for what has no meaning any more.
fn renamed(pair: Nv, kind: &str, agent: &AgentName) -> Option<Nv> {
    let other =
        |name: &str, value: &str| Some(Nv { name: name.to_owned(), value: Some(value.to_owned()) });
    match (kind, pair.name.as_str()) {
        // What was isolated that way cannot run any more: bundles took its place.
        (
            "meta_attributes",
            "isolation" | "isolation-host" | "isolation-instance" | "isolation-wrapper",
        ) => other("target-role", "Stopped"),
        ("meta_attributes", "resource-failure-stickiness" | "resource_failure_stickiness") => {
            let once = pair.value.as_deref() == Some("-INFINITY");
            if once { other("migration-threshold", "1") } else { None }
        }
        ("instance_attributes", name) if agent.class == "stonith" => {
            let action = name.strip_suffix("_cmd").filter(|n| n.starts_with("pcmk_"));
            match action {
                Some(stem) => Some(Nv { name: format!("{stem}_action"), value: pair.value }),
                None => Some(pair),
            }
        }
        _ => Some(pair),
    }
}

/// What the start or promotion requires, the resource requires.
pub(super) fn required(ops: &[Op]) -> NvSet {
    let rises = |op: &&Op| matches!(op.name.as_str(), "start" | "promote");
    let mut own = ops.iter().filter(rises).filter_map(|op| op.attrs.get("requires"));
    let pair = own.next().map(|value| Nv { name: "requires".into(), value: Some(value.into()) });
    NvSet { id: None, pairs: pair.into_iter().collect() }
}
