//! Rules of placement that no public case can see, on Pacemaker's CIB: the expected scores and roles are those of a live `crm_simulate`.

use crate::cib::Role;
use crate::plan::{Explained, ScorePhase, explain};
use crate::simulate::input;
use crate::xml;

/// Where something is active: node, id, agent, role.
pub(super) type Active<'a> = (&'a str, &'a str, &'a str, Role);

/// A cluster that can fence nothing, all of its nodes up.
pub(super) fn document(
    nodes: &[(&str, &str)],
    options: &str,
    resources: &str,
    constraints: &str,
    active: &[Active<'_>],
) -> String {
    let node = |(n, (name, transient)): (usize, &(&str, &str))| {
        let ops: String = active
            .iter()
            .enumerate()
            .filter(|(_, a)| a.0 == *name)
            .map(|(call, (_, id, kind, role))| {
                let op = |op: &str, call: usize, rc: u8| {
                    format!(
                        r#"<lrm_rsc_op id="{id}_{op}_0" operation_key="{id}_{op}_0" operation="{op}" crm_feature_set="3.16.1" transition-key="1:1:{rc}:u" transition-magic="0:{rc};1:1:{rc}:u" call-id="{call}" rc-code="{rc}" op-status="0" interval="0"/>"#
                    )
                };
                // What is stopped was looked for.
                let start = match role {
                    Role::Stopped => op("monitor", 1 + call, 7),
                    Role::Started | Role::Unpromoted | Role::Promoted => op("start", 1 + call, 0),
                };
                let promote = match role {
                    Role::Promoted => op("promote", 50 + call, 0),
                    Role::Stopped | Role::Started | Role::Unpromoted => String::new(),
                };
                let class = match *kind {
                    "podman" => r#"class="ocf" provider="heartbeat""#,
                    kind if kind.starts_with("fence_") => r#"class="stonith""#,
                    _ => r#"class="ocf" provider="pacemaker""#,
                };
                format!(
                    r#"<lrm_resource id="{id}" {class} type="{kind}">{start}{promote}</lrm_resource>"#
                )
            })
            .collect();
        format!(
            r#"<node_state id="{n}" uname="{name}" in_ccm="true" crmd="online" join="member" expected="member">
            <transient_attributes id="{n}"><instance_attributes id="t{n}">{transient}</instance_attributes></transient_attributes>
            <lrm id="{n}"><lrm_resources>{ops}</lrm_resources></lrm></node_state>"#
        )
    };
    let states: String = nodes.iter().enumerate().map(node).collect();
    let names: String = nodes
        .iter()
        .enumerate()
        .map(|(n, (name, _))| format!(r#"<node id="{n}" uname="{name}"/>"#))
        .collect();
    format!(
        r#"<cib validate-with="pacemaker-3.9" admin_epoch="0" epoch="1" num_updates="1" have-quorum="1"><configuration>
        <crm_config><cluster_property_set id="o"><nvpair id="f" name="stonith-enabled" value="false"/>{options}</cluster_property_set></crm_config>
        <nodes>{names}</nodes><resources>{resources}</resources><constraints>{constraints}</constraints></configuration>
        <status>{states}</status></cib>"#
    )
}

pub(super) fn decided(text: &str) -> Explained {
    let document = xml::read(text, 0).unwrap_or_else(|problems| panic!("{problems:?}"));
    explain(&input(&document))
}

/// Score of a resource on a node just before its node was chosen.
fn score(e: &Explained, resource: &str, node: &str) -> i32 {
    let row = e
        .scores
        .iter()
        .rfind(|r| r.phase == ScorePhase::Primitive && r.resource == resource && r.node == node);
    row.unwrap_or_else(|| panic!("no score of {resource} on {node}")).score.value()
}

/// Nodes of all instances of a primitive, with their roles.
pub(super) fn at(e: &Explained, primitive: &str) -> Vec<(Option<String>, Role)> {
    let all = e.plan.placements.iter().filter(|p| p.instance.resource == primitive);
    let mut out: Vec<_> = all.map(|p| (p.node.clone(), p.role)).collect();
    out.sort();
    out
}

pub(super) fn on(node: &str, role: Role) -> (Option<String>, Role) {
    (Some(node.to_owned()), role)
}

pub(super) fn dummy(id: &str) -> String {
    format!(r#"<primitive id="{id}" class="ocf" provider="pacemaker" type="Dummy"/>"#)
}

pub(super) fn promotable(id: &str) -> String {
    format!(
        r#"<clone id="{id}"><meta_attributes id="{id}-m"><nvpair id="{id}-p" name="promotable" value="true"/></meta_attributes>
        <primitive id="{id}p" class="ocf" provider="pacemaker" type="Stateful"/></clone>"#
    )
}

pub(super) fn prefers(rsc: &str, node: &str, score: &str) -> String {
    format!(r#"<rsc_location id="l-{rsc}-{node}" rsc="{rsc}" node="{node}" score="{score}"/>"#)
}

pub(super) fn with(rsc: &str, other: &str, score: &str) -> String {
    format!(
        r#"<rsc_colocation id="c-{rsc}-{other}" rsc="{rsc}" with-rsc="{other}" score="{score}"/>"#
    )
}

pub(super) const TWO: &[(&str, &str)] = &[("n1", ""), ("n2", "")];

#[test]
fn of_equal_scores_above_zero_the_current_node_wins_though_it_carries_more() {
    let resources = dummy("a") + &dummy("p");
    let equal = prefers("p", "n1", "10") + &prefers("p", "n2", "10") + &prefers("a", "n2", "5");
    let active = [("n2", "p", "Dummy", Role::Started)];
    let e = decided(&document(TWO, "", &resources, &equal, &active));
    assert_eq!(at(&e, "p"), [on("n2", Role::Started)]);
    // Without a preference the emptier node is taken.
    let e = decided(&document(TWO, "", &resources, &prefers("a", "n2", "5"), &active));
    assert_eq!(at(&e, "p"), [on("n1", Role::Started)]);
}

#[test]
fn of_equal_promotion_scores_the_promoted_instance_stays_promoted() {
    let wish = r#"<nvpair id="w" name="master-mp" value="10"/>"#;
    let nodes = [("n1", wish), ("n2", &wish.replace("\"w\"", "\"v\""))];
    let active =
        [("n1", "mp", "Stateful", Role::Unpromoted), ("n2", "mp", "Stateful", Role::Promoted)];
    let e = decided(&document(&nodes, "", &promotable("m"), "", &active));
    assert_eq!(at(&e, "mp"), [on("n1", Role::Unpromoted), on("n2", Role::Promoted)]);
}

#[test]
fn a_location_of_a_group_allows_all_members_and_counts_for_the_first() {
    let opt_in = r#"<nvpair id="s" name="symmetric-cluster" value="false"/>"#;
    let group = format!(r#"<group id="g">{}{}</group>"#, dummy("a"), dummy("b"));
    let e = decided(&document(TWO, opt_in, &group, &prefers("g", "n2", "50"), &[]));
    assert_eq!((score(&e, "a", "n2"), score(&e, "b", "n2")), (50, 0));
    assert_eq!(at(&e, "b"), [on("n2", Role::Started)]);
    assert!(!e.scores.iter().any(|r| r.node == "n1"), "n1 is no choice at all");
}

#[test]
fn what_was_not_zero_is_never_rounded_to_zero() {
    let resources = dummy("a") + &dummy("p");
    let constraints = with("p", "a", "1") + &prefers("p", "n2", "10");
    let e = decided(&document(TWO, "", &resources, &constraints, &[]));
    assert_eq!((score(&e, "a", "n1"), score(&e, "a", "n2")), (0, 1));
    // A half is rounded away from zero.
    let constraints = with("p", "a", "500000") + &prefers("p", "n2", "5");
    let e = decided(&document(TWO, "", &resources, &constraints, &[]));
    assert_eq!(score(&e, "a", "n2"), 3);
}

#[test]
fn two_promoted_roles_go_together_and_the_other_instances_still_start() {
    let wish = |id: &str, name: &str| format!(r#"<nvpair id="{id}" name="{name}" value="10"/>"#);
    let nodes = [("n1", String::new()), ("n2", wish("w", "master-xp") + &wish("v", "master-yp"))];
    let nodes: Vec<(&str, &str)> = nodes.iter().map(|(n, t)| (*n, t.as_str())).collect();
    let resources = promotable("x") + &promotable("y");
    let constraint = r#"<rsc_colocation id="c" rsc="y" rsc-role="Master" with-rsc="x" with-rsc-role="Master" score="INFINITY"/>"#;
    let e = decided(&document(&nodes, "", &resources, constraint, &[]));
    for id in ["xp", "yp"] {
        assert_eq!(at(&e, id), [on("n1", Role::Unpromoted), on("n2", Role::Promoted)], "{id}");
    }
}

#[test]
fn the_last_member_of_a_group_hears_who_follows_an_inner_one() {
    let group = format!(r#"<group id="g">{}{}{}</group>"#, dummy("a"), dummy("b"), dummy("c"));
    let resources = group + &dummy("x");
    let constraints = with("x", "b", "INFINITY") + &prefers("x", "n2", "50");
    let e = decided(&document(TWO, "", &resources, &constraints, &[]));
    // Debian's 2.1.5 did not have this rule yet: newer ones do.
    assert_eq!(score(&e, "c", "n2"), 50);
    assert_eq!(at(&e, "x"), [on("n2", Role::Started)]);
}

#[test]
fn what_runs_twice_does_not_stick_to_either_node() {
    let sticky = r#"<primitive id="p" class="ocf" provider="pacemaker" type="Dummy">
        <meta_attributes id="m"><nvpair id="k" name="resource-stickiness" value="100"/></meta_attributes></primitive>"#;
    let twice = [("n1", "p", "Dummy", Role::Started), ("n2", "p", "Dummy", Role::Started)];
    let e = decided(&document(TWO, "", sticky, "", &twice));
    assert_eq!((score(&e, "p", "n1"), score(&e, "p", "n2")), (0, 0));
    let e = decided(&document(TWO, "", sticky, "", &twice[1..]));
    assert_eq!((score(&e, "p", "n1"), score(&e, "p", "n2")), (0, 100));
}

#[test]
fn placement_ties_are_broken_by_plain_names_though_nodes_are_listed_as_one_counts() {
    let nodes = [("node2", ""), ("node10", "")];
    let e = decided(&document(&nodes, "", &dummy("p"), "", &[]));
    assert_eq!(at(&e, "p"), [on("node10", Role::Started)]);
    let listed: Vec<&str> = e.scores.iter().map(|r| r.node.as_str()).collect();
    assert_eq!(listed, ["node2", "node10"]);
}

#[test]
fn the_clone_that_a_resource_follows_is_heard_before_the_primitive() {
    let resources = format!(r#"<clone id="z">{}</clone>"#, dummy("zp")) + &dummy("a") + &dummy("p");
    let model_order = with("p", "a", "100") + &with("p", "z", "100");
    let document = xml::read(&document(TWO, "", &resources, &model_order, &[]), 0)
        .unwrap_or_else(|problems| panic!("{problems:?}"));
    let input = input(&document);
    let implicit = super::super::implicit::Implicit::of(&input);
    let mut model = super::super::read::read(&input, &implicit);
    super::super::criteria::apply(&mut model);
    let p = model.by_id["p"];
    let ids: Vec<&str> = model.this_with_list(p).iter().map(|c| model.colocs[*c].id).collect();
    assert_eq!(ids, ["c-p-z", "c-p-a"]);
}

#[test]
fn an_unmanaged_resource_draws_what_follows_it() {
    let held = r#"<primitive id="a" class="ocf" provider="pacemaker" type="Dummy">
        <meta_attributes id="m"><nvpair id="k" name="is-managed" value="false"/></meta_attributes></primitive>"#;
    let resources = held.to_owned() + &dummy("p");
    let active = [("n2", "a", "Dummy", Role::Started)];
    let e = decided(&document(TWO, "", &resources, &with("p", "a", "INFINITY"), &active));
    assert_eq!(score(&e, "a", "n2"), 1_000_000);
    assert_eq!(at(&e, "p"), [on("n2", Role::Started)]);
}

const BUNDLE: &str = r#"<bundle id="b"><podman image="i" replicas="1"/><network control-port="3121"/>
    <primitive id="in" class="ocf" provider="pacemaker" type="Dummy"/></bundle>"#;

#[test]
fn the_connection_into_a_container_that_runs_does_not_draw_it_away() {
    let there = |active: &[Active<'_>]| {
        let e = decided(&document(TWO, "", BUNDLE, &prefers("b-0", "n2", "500"), active));
        assert_eq!(at(&e, "b-podman-0"), at(&e, "b-0"), "they go together");
        at(&e, "b-podman-0")
    };
    let runs =
        [("n1", "b-podman-0", "podman", Role::Started), ("n1", "b-0", "remote", Role::Started)];
    assert_eq!(there(&runs), [on("n1", Role::Started)]);
    // One that has to be started anyway starts where its connection would rather be.
    assert_eq!(there(&[]), [on("n2", Role::Started)]);
}

#[test]
fn of_instances_alike_the_one_beside_what_the_clone_follows_comes_first() {
    let wish = r#"<nvpair id="w" name="master-mp" value="10"/>"#;
    let nodes = [("n1", wish), ("n2", &wish.replace("\"w\"", "\"v\""))];
    let active = [
        ("n1", "mp", "Stateful", Role::Unpromoted),
        ("n2", "mp", "Stateful", Role::Unpromoted),
        ("n2", "a", "Dummy", Role::Started),
    ];
    let resources = promotable("m") + &dummy("a");
    let there = prefers("a", "n2", "100");
    let e = decided(&document(&nodes, "", &resources, &there, &active));
    assert_eq!(at(&e, "mp"), [on("n1", Role::Promoted), on("n2", Role::Unpromoted)]);
    // Neither says anything of roles: it is the order of the instances that decides who is promoted.
    let beside = there + &with("m", "a", "50");
    let e = decided(&document(&nodes, "", &resources, &beside, &active));
    assert_eq!(at(&e, "mp"), [on("n1", Role::Unpromoted), on("n2", Role::Promoted)]);
}
