//! Orders that change neither placements nor what is executed, only when: who waits for whom. Each was compared with a live `crm_simulate`.

use super::places::{Active, TWO, decided, document, dummy, prefers};
use crate::cib::Role;
use crate::plan::{ActionKind, ClusterOp, Plan};
use std::collections::BTreeSet;

/// `stop a n1`, `fence n1`, `load_stopped_n1`.
fn name(kind: &ActionKind) -> String {
    match kind {
        ActionKind::Op(spec) => format!("{} {} {}", spec.op, spec.resource, spec.node),
        ActionKind::CancelMonitor { node, resource, .. } => format!("cancel {resource} {node}"),
        ActionKind::Cluster(ClusterOp::Fence { node, how }) if how == "on" => {
            format!("unfence {node}")
        }
        ActionKind::Cluster(ClusterOp::Fence { node, .. }) => format!("fence {node}"),
        ActionKind::Cluster(other) => format!("{other:?}"),
        ActionKind::Pseudo { name } => name.clone(),
    }
}

/// A plan with who waits for whom, over any number of steps.
struct Waits {
    names: Vec<String>,
    next: Vec<BTreeSet<usize>>,
    before: Vec<BTreeSet<usize>>,
}

impl Waits {
    fn of(plan: &Plan) -> Self {
        let names = plan.actions.iter().map(|a| name(&a.kind)).collect();
        let mut next = Vec::new();
        let mut before: Vec<BTreeSet<usize>> = Vec::new();
        // Ids are a topological order.
        for action in &plan.actions {
            let needs = action.needs.iter().map(|need| usize::try_from(need.0).unwrap());
            let own: BTreeSet<usize> = needs.collect();
            let mut all = own.clone();
            all.extend(own.iter().flat_map(|need| before[*need].iter().copied()));
            next.push(own);
            before.push(all);
        }
        Self { names, next, before }
    }

    fn find(&self, wanted: &str) -> usize {
        let found = self.names.iter().position(|n| n == wanted);
        found.unwrap_or_else(|| panic!("no `{wanted}` in {:#?}", self.names))
    }

    fn has(&self, wanted: &str) -> bool {
        self.names.iter().any(|n| n == wanted)
    }

    /// Does `then` wait for `first` itself, with nothing between?
    fn next(&self, then: &str, first: &str) -> bool {
        self.next[self.find(then)].contains(&self.find(first))
    }

    /// Does `then` wait for `first`?
    fn after(&self, then: &str, first: &str) -> bool {
        self.before[self.find(then)].contains(&self.find(first))
    }
}

fn waits(text: &str) -> Waits {
    Waits::of(&decided(text).plan)
}

fn order(first: &str, then: &str) -> String {
    format!(r#"<rsc_order id="o-{first}-{then}" first="{first}" then="{then}"/>"#)
}

fn ban(rsc: &str, node: &str) -> String {
    prefers(rsc, node, "-INFINITY")
}

fn metas(id: &str, pairs: &[(&str, &str)]) -> String {
    let pairs: String = pairs
        .iter()
        .map(|(n, v)| format!(r#"<nvpair id="{id}-{n}" name="{n}" value="{v}"/>"#))
        .collect();
    format!(r#"<meta_attributes id="{id}-m">{pairs}</meta_attributes>"#)
}

fn prim(id: &str, inner: &str) -> String {
    format!(
        r#"<primitive id="{id}" class="ocf" provider="pacemaker" type="Dummy">{inner}</primitive>"#
    )
}

fn on<'a>(node: &'a str, id: &'a str) -> Active<'a> {
    (node, id, "Dummy", Role::Started)
}

fn off<'a>(node: &'a str, id: &'a str) -> Active<'a> {
    (node, id, "Dummy", Role::Stopped)
}

/// The same cluster, which can fence, with `node` lost.
fn lost(text: &str, node: &str) -> String {
    let up = format!(r#"uname="{node}" in_ccm="true" crmd="online" join="member""#);
    let down = format!(r#"uname="{node}" in_ccm="false" crmd="offline" join="down""#);
    assert!(text.contains(&up));
    fencing(text).replace(&up, &down)
}

fn fencing(text: &str) -> String {
    text.replace(
        r#"name="stonith-enabled" value="false""#,
        r#"name="stonith-enabled" value="true""#,
    )
}

const DEVICE: &str = r#"<primitive id="dev" class="stonith" type="fence_x"/>"#;

#[test]
fn what_needs_fencing_starts_after_every_fencing_and_the_rest_only_where_it_may_run() {
    let quorum = [("requires", "quorum")];
    let resources = dummy("ran")
        + &dummy("new")
        + &prim("known", &metas("known", &quorum))
        + &prim("unknown", &metas("unknown", &quorum))
        + DEVICE;
    let active = [
        on("n1", "ran"),
        off("n2", "ran"),
        off("n1", "new"),
        off("n2", "new"),
        off("n1", "known"),
        off("n2", "known"),
        off("n2", "unknown"),
        ("n2", "dev", "fence_x", Role::Started),
    ];
    let text = lost(&document(TWO, "", &resources, "", &active), "n1");
    let waits = waits(&text);
    assert!(waits.after("start ran n2", "fence n1"));
    assert!(waits.after("start new n2", "fence n1"), "it never ran there, and needs fencing");
    assert!(waits.after("start unknown n2", "fence n1"), "nobody knows that it does not run there");
    assert!(!waits.after("start known n2", "fence n1"));
}

#[test]
fn orders_hold_for_the_halves_of_migrations_too() {
    let moves = [("allow-migrate", "true")];
    let resources = prim("a", &metas("a", &moves)) + &prim("b", &metas("b", &moves));
    let away = order("a", "b") + &ban("a", "n1") + &ban("b", "n1");
    let active = [on("n1", "a"), on("n1", "b"), off("n2", "a"), off("n2", "b")];
    let both = waits(&document(TWO, "", &resources, &away, &active));
    assert!(both.after("migrate_from b n2", "migrate_to b n1"));
    assert!(both.after("migrate_to b n1", "migrate_from a n2"), "a has arrived before b leaves");
    assert!(both.after("stop b n1", "migrate_from b n2"));
    // What cannot migrate stops before what it stands on leaves.
    let resources = prim("a", &metas("a", &moves)) + &dummy("b");
    let one = waits(&document(TWO, "", &resources, &away, &active));
    assert!(one.after("migrate_to a n1", "stop b n1"));
    assert!(one.after("start b n2", "migrate_from a n2"));
}

#[test]
fn what_leaves_a_node_makes_room_before_others_come() {
    let needs = |id: &str| {
        format!(
            r#"<utilization id="{id}-u"><nvpair id="{id}-c" name="cpu" value="1"/></utilization>"#
        )
    };
    let resources = prim("a", &needs("a")) + &prim("b", &needs("b"));
    let strategy = r#"<nvpair id="ps" name="placement-strategy" value="utilization"/>"#;
    let constraints = ban("a", "n1") + &ban("b", "n2");
    let active = [on("n1", "a"), off("n2", "a"), off("n1", "b"), off("n2", "b")];
    let text = document(TWO, strategy, &resources, &constraints, &active);
    let room = |id: &str| {
        format!(
            r#"<node id="{id}" uname="n{}"><utilization id="nu{id}"><nvpair id="nc{id}" name="cpu" value="1"/></utilization></node>"#,
            if id == "0" { "1" } else { "2" }
        )
    };
    let text = text
        .replace(r#"<node id="0" uname="n1"/>"#, &room("0"))
        .replace(r#"<node id="1" uname="n2"/>"#, &room("1"));
    let waits = waits(&text);
    assert!(waits.after("load_stopped_n1", "stop a n1"));
    assert!(waits.after("start b n1", "load_stopped_n1"));
    assert!(waits.after("start b n1", "stop a n1"));
}

#[test]
fn a_resource_is_looked_for_before_what_stands_on_it_stops() {
    let stopped = [("target-role", "Stopped")];
    let resources = prim("a", &metas("a", &stopped)) + &prim("b", &metas("b", &stopped));
    let active = [on("n1", "b"), off("n2", "b")];
    let text = document(TWO, "", &resources, &order("b", "a"), &active);
    let waits = waits(&text);
    assert!(waits.after("stop b n1", "monitor a n1"), "a may run, and stops before b then");
    assert!(waits.after("stop b n1", "monitor a n2"));
}

#[test]
fn what_keeps_apart_leaves_before_the_other_comes() {
    let apart = r#"<rsc_colocation id="c" rsc="b" with-rsc="a" score="-INFINITY"/>"#.to_owned();
    let constraints = apart + &ban("a", "n1") + &ban("b", "n2");
    let active = [on("n1", "a"), off("n2", "a"), off("n1", "b"), off("n2", "b")];
    let text = document(TWO, "", &(dummy("a") + &dummy("b")), &constraints, &active);
    assert!(waits(&text).after("start b n1", "stop a n1"));
    let free = text.replace(r#"score="-INFINITY"/><rsc_location"#, r#"score="-1"/><rsc_location"#);
    assert!(free != text && !waits(&free).after("start b n1", "stop a n1"));
}

#[test]
fn what_a_probe_may_restart_waits_with_its_stop() {
    // a is probed on the returning node; b runs, and is restarted by the start of a.
    let resources = dummy("a") + &dummy("b");
    let active = [off("n1", "a"), on("n1", "b"), off("n2", "b")];
    let constraints = order("a", "b") + &prefers("b", "n1", "100");
    let waits = waits(&document(TWO, "", &resources, &constraints, &active));
    assert!(waits.has("monitor a n2"));
    assert!(waits.after("stop b n1", "monitor a n2"), "what the probe finds may make it needless");
    assert!(waits.after("start b n1", "start a n1"));
}

/// Two clones of one another; the way up and down of the instances on n1.
fn clones(first: &str, then: &str, stop: bool) -> Waits {
    let role = if stop { "Stopped" } else { "Started" };
    let clone = |id: &str, interleave: &str| {
        let meta = metas(id, &[("interleave", interleave), ("target-role", role)]);
        format!(r#"<clone id="{id}">{meta}{}</clone>"#, dummy(&format!("{id}p")))
    };
    let resources = clone("x", first) + &clone("y", then);
    let here = |node, id| if stop { on(node, id) } else { off(node, id) };
    let active = [here("n1", "xp"), here("n2", "xp"), here("n1", "yp"), here("n2", "yp")];
    waits(&document(TWO, "", &resources, &order("x", "y"), &active))
}

#[test]
fn the_clone_that_follows_decides_on_interleaving_up_and_down() {
    let start = |waits: &Waits| waits.next("start yp n1", "start xp n1");
    let stop = |waits: &Waits| waits.next("stop xp n1", "stop yp n1");
    // An instance waits for its neighbour; without interleaving, for all of the other clone.
    assert!(!start(&clones("false", "false", false)) && !stop(&clones("false", "false", true)));
    assert!(start(&clones("false", "true", false)) && !start(&clones("true", "false", false)));
    assert!(stop(&clones("false", "true", true)) && !stop(&clones("true", "false", true)));
    assert!(clones("false", "false", false).after("start yp n1", "start xp n2"));
}

#[test]
fn what_needs_unfencing_stops_before_its_node_is_unfenced_and_starts_after() {
    let device = r#"<primitive id="dev" class="stonith" type="fence_x"><meta_attributes id="dev-m"><nvpair id="dev-p" name="provides" value="unfencing"/></meta_attributes></primitive>"#;
    let resources = dummy("a") + &dummy("b") + device;
    let ops = |id| [on("n1", id), off("n2", id)];
    let mut active: Vec<Active<'_>> = ops("a").to_vec();
    active.extend([off("n1", "b"), off("n2", "b"), ("n2", "dev", "fence_x", Role::Started)]);
    let text = fencing(&document(TWO, "", &resources, "", &active));
    let waits = waits(&text);
    assert!(waits.after("unfence n1", "stop a n1"), "unfencing would take its storage away");
    assert!(waits.after("start a n1", "unfence n1"));
}
