//! Meta attributes: inheritance (own, then parents, then `rsc_defaults`) and their typed values.

use super::model::{CloneInfo, Meta, MultipleActive, NoQuorum, Properties, Strategy};
use crate::cib::{
    AgentName, Cib, INSTANCES_MAX, NvSet, Resource, Role, Score, parse_bool, parse_duration_ms,
};

/// Attribute sets from the nearest to the farthest.
pub(super) type Chain<'a> = Vec<&'a NvSet>;

/// First value of `name` in the chain; the spelling with underscores counts too.
pub(super) fn lookup<'a>(chain: &[&'a NvSet], name: &str) -> Option<&'a str> {
    chain.iter().find_map(|set| set.get(name).or_else(|| set.get(&name.replace('-', "_"))))
}

fn flag(chain: &[&NvSet], name: &str, default: bool) -> bool {
    lookup(chain, name).and_then(parse_bool).unwrap_or(default)
}

/// A score as Pacemaker reads it.
fn score(text: &str) -> Option<Score> {
    Score::parse(text).or_else(|| Score::leading(text))
}

fn count(chain: &[&NvSet], names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| lookup(chain, name)).and_then(|v| v.parse().ok())
}

/// Reads a role word; old and new spellings.
#[must_use]
pub fn parse_role(text: &str) -> Option<Role> {
    match text.to_ascii_lowercase().as_str() {
        "started" => Some(Role::Started),
        "stopped" => Some(Role::Stopped),
        "slave" | "unpromoted" => Some(Role::Unpromoted),
        "master" | "promoted" => Some(Role::Promoted),
        _ => None,
    }
}

/// Typed meta attributes of a resource; `cloned` resources stick to their node by default.
pub(super) fn resolve(chain: &[&NvSet], cloned: bool, props: &Properties) -> Meta {
    let stickiness = lookup(chain, "resource-stickiness").and_then(score);
    let default_stickiness = if cloned { Score::new(1) } else { Score::ZERO };
    let threshold = lookup(chain, "migration-threshold").map(|v| match score(v) {
        Some(score) if !score.is_infinite() || props.exact => {
            u32::try_from(score.value()).unwrap_or(0)
        }
        Some(_) | None => 0,
    });
    let multiple_active = match lookup(chain, "multiple-active") {
        Some("block") => MultipleActive::Block,
        Some("stop_only") => MultipleActive::StopOnly,
        Some("stop_unexpected") if props.exact => MultipleActive::StopUnexpected,
        Some(_) | None => MultipleActive::StopStart,
    };
    let requires = lookup(chain, "requires");
    Meta {
        container: lookup(chain, "container").map(str::to_owned),
        priority: lookup(chain, "priority").and_then(score).map_or(0, Score::value),
        target_role: lookup(chain, "target-role").and_then(parse_role),
        is_managed: flag(chain, "is-managed", true),
        maintenance: flag(chain, "maintenance", false),
        stickiness: stickiness.unwrap_or(default_stickiness),
        migration_threshold: match threshold {
            Some(limit) => limit,
            None if props.exact => 1_000_000,
            None => 0,
        },
        failure_timeout_ms: lookup(chain, "failure-timeout")
            .and_then(parse_duration_ms)
            .unwrap_or(0),
        multiple_active,
        critical: flag(chain, "critical", true),
        allow_unhealthy: flag(chain, "allow-unhealthy-nodes", false),
        // Our histories do not tell the instances of a clone apart.
        allow_migrate: (props.exact || !cloned) && flag(chain, "allow-migrate", false),
        needs_fencing: props.fencing && !matches!(requires, Some("nothing" | "quorum")),
        needs_unfencing: props.exact
            && props.fencing
            && requires.map_or(props.unfencing, |r| r == "unfencing"),
        needs_quorum: !props.exact || requires != Some("nothing"),
    }
}

/// What connections and fence devices have as defaults: they run before anything could be fenced, and a connection moves
/// without letting its node go.
pub(super) fn agent_defaults(
    meta: &mut Meta,
    chain: &[&NvSet],
    agent: &AgentName,
    props: &Properties,
) {
    if !props.exact {
        return;
    }
    let connection = super::implicit::is_connection(agent);
    let requires = lookup(chain, "requires");
    // What gives access cannot wait for it.
    let circular = agent.class == "stonith" && requires == Some("unfencing");
    if circular || (connection || agent.class == "stonith") && requires.is_none() {
        meta.needs_fencing = false;
        meta.needs_unfencing = false;
    }
    if connection && lookup(chain, "allow-migrate").is_none() {
        meta.allow_migrate = true;
    }
}

/// Settings of a clone on a cluster of `nodes` nodes.
pub(super) fn clone_info(
    chain: &[&NvSet],
    promotable: bool,
    nodes: usize,
    exact: bool,
) -> CloneInfo {
    let node_max = count(chain, &["clone-node-max"]).unwrap_or(1);
    // Pacemaker takes what it cannot read, or what is below, as none.
    let none = || lookup(chain, "clone-max").filter(|_| exact).map(|_| 0);
    let max = count(chain, &["clone-max"]).or_else(none);
    CloneInfo {
        promotable,
        max: max.unwrap_or(nodes).min(usize::try_from(INSTANCES_MAX).unwrap_or(usize::MAX)),
        // Status knows one state per node and primitive: a second instance on a node cannot be told apart.
        node_max: if exact { node_max } else { node_max.min(1) },
        min: count(chain, &["clone-min"]).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        promoted_max: count(chain, &["promoted-max", "master-max"]).unwrap_or(1),
        promoted_node_max: count(chain, &["promoted-node-max", "master-node-max"]).unwrap_or(1),
        interleave: flag(chain, "interleave", false),
        ordered: flag(chain, "ordered", false),
        notify: flag(chain, "notify", false),
        globally_unique: exact && flag(chain, "globally-unique", node_max > 1),
    }
}

/// Does a device provide it or a resource require it? One word of it anywhere makes it the default of all.
fn mentions_unfencing(cib: &Cib) -> bool {
    fn of(resource: &Resource) -> bool {
        let says = |meta: &NvSet| {
            ["provides", "requires"].iter().any(|name| meta.get(name) == Some("unfencing"))
        };
        match resource {
            Resource::Primitive(p) => says(&p.meta),
            Resource::Group(g) => says(&g.meta) || g.members.iter().any(|m| says(&m.meta)),
            Resource::Clone(c) => says(&c.meta) || of(&c.child),
            Resource::Bundle(b) => says(&b.meta) || b.child.iter().any(|p| says(&p.meta)),
        }
    }
    cib.resources.iter().any(of)
}

/// Typed cluster properties.
pub(super) fn properties(cib: &Cib) -> Properties {
    let chain = [&cib.properties];
    let no_quorum = match lookup(&chain, "no-quorum-policy") {
        Some("ignore") => NoQuorum::Ignore,
        Some("freeze") => NoQuorum::Freeze,
        Some("demote") => NoQuorum::Demote,
        Some("suicide" | "fence") => NoQuorum::Suicide,
        Some(_) | None => NoQuorum::Stop,
    };
    Properties {
        symmetric: flag(&chain, "symmetric-cluster", true),
        maintenance_mode: flag(&chain, "maintenance-mode", false),
        stop_all: flag(&chain, "stop-all-resources", false),
        no_quorum,
        start_failure_is_fatal: flag(&chain, "start-failure-is-fatal", true),
        fencing: cib.fencing_enabled(),
        strategy: match lookup(&chain, "placement-strategy") {
            Some("utilization") => Strategy::Utilization,
            Some("minimal") => Strategy::Minimal,
            Some("balanced") => Strategy::Balanced,
            Some(_) | None => Strategy::Default,
        },
        unfencing: mentions_unfencing(cib),
        startup_probes: flag(&chain, "enable-startup-probes", true),
        concurrent: flag(&chain, "concurrent-fencing", true),
        fence_device: cib.primitives().iter().any(|p| p.agent.class == "stonith")
            || flag(&chain, "have-watchdog", false),
        exact: false,
        habits: super::Habits::default(),
        stop_removed: flag(&chain, "stop-removed-resources", true)
            && flag(&chain, "stop-orphan-resources", true),
        shutdown_lock_ms: flag(&chain, "shutdown-lock", false).then(|| {
            lookup(&chain, "shutdown-lock-limit").and_then(parse_duration_ms).unwrap_or(0)
        }),
        fence_how: match lookup(&chain, "stonith-action") {
            Some("off" | "poweroff") => "off",
            Some(_) | None => "reboot",
        },
    }
}

/// Is the primitive an instance of a globally unique clone?
#[must_use]
pub fn globally_unique(cib: &Cib, primitive: &str) -> bool {
    match cib.top_of(primitive) {
        Some(Resource::Clone(clone)) => {
            let several = count(&[&clone.meta], &["clone-node-max"]).is_some_and(|n| n > 1);
            flag(&[&clone.meta], "globally-unique", several)
        }
        Some(Resource::Bundle(bundle)) => bundle.replicas_per_host() > 1,
        Some(Resource::Primitive(_) | Resource::Group(_)) | None => false,
    }
}
