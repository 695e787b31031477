//! Claims about what runs inside of containers and on nodes that are fenced, read from documents as Pacemaker writes them.

use super::recorded::{document, dummy, history, lrm, no_fencing, node, op, operations, pair};
use crate::plan::{ActionKind, Plan, plan};
use crate::simulate::input;
use crate::xml::Document;

const BUNDLE: &str = r#"<bundle id="web"><podman image="i" replicas="1" promoted-max="1"/><network control-port="3121"/>
    <primitive id="s" class="ocf" provider="pacemaker" type="Stateful"><operations><op id="m" name="monitor" interval="15s" role="Promoted"/></operations></primitive></bundle>"#;

fn position(plan: &Plan, wanted: impl Fn(&ActionKind) -> bool) -> Option<usize> {
    plan.actions.iter().position(|a| wanted(&a.kind))
}

fn point(plan: &Plan, wanted: &str) -> Option<usize> {
    position(plan, |k| matches!(k, ActionKind::Pseudo { name } if name == wanted))
}

fn operation(plan: &Plan, (resource, task, on): (&str, &str, &str)) -> Option<usize> {
    position(
        plan,
        |k| matches!(k, ActionKind::Op(s) if s.resource == resource && s.op == task && s.node == on),
    )
}

/// Does `then` wait for `first`, at once or in steps?
fn waits(plan: &Plan, then: usize, first: usize) -> bool {
    let needs = plan.actions.get(then).map(|a| a.needs.clone()).unwrap_or_default();
    needs.iter().any(|n| {
        let at = usize::try_from(n.0).unwrap_or(usize::MAX);
        at == first || waits(plan, at, first)
    })
}

fn located(mut doc: Document, resource: &str, places: &[(&str, bool, i64)]) -> Document {
    for (node, promoted, score) in places {
        doc.cib.constraints.push(crate::cib::Constraint::Location(crate::cib::Location {
            id: format!("l-{node}"),
            target: crate::cib::LocationTarget::Resource(resource.to_owned()),
            score: crate::cib::Score::new(*score),
            node: (*node).to_owned(),
            role: promoted.then_some(crate::cib::Role::Promoted),
            discovery: None,
        }));
    }
    doc
}

fn fresh() -> Document {
    document(&no_fencing(), BUNDLE, &(node(1, "alpha", &lrm("")) + &node(2, "delta", &lrm(""))))
}

#[test]
fn a_location_for_the_promoted_role_of_a_bundle_is_about_what_is_inside() {
    let promoted = |doc: &Document| {
        let plan = plan(&input(doc));
        operation(&plan, ("s", "promote", "web-0")).is_some()
    };
    assert!(!promoted(&fresh()));
    assert!(promoted(&located(fresh(), "web", &[("web-0", true, 100)])));
}

#[test]
fn what_is_inside_starts_after_the_probes_of_all_containers() {
    let plan = plan(&input(&fresh()));
    let start = point(&plan, "web-master_start_0").expect("the clone inside starts");
    for host in ["alpha", "delta"] {
        let probe = operation(&plan, ("web-podman-0", "monitor", host)).expect("it is probed");
        assert!(waits(&plan, start, probe), "{host}");
    }
}

#[test]
fn what_is_promoted_in_a_container_that_loses_its_place_is_demoted_before_it_stops() {
    let up = |id: &str, kind: &str| history(id, kind, &op("start", 1, 0, 0, ""));
    let inner = op("promote", 1, 0, 0, "") + &op("monitor", 2, 8, 8, r#"interval="15000""#);
    let inside = format!(
        r#"<node_state remote_node="true" id="web-0" uname="web-0">{}</node_state>"#,
        lrm(&history("s", "Stateful", &inner))
    );
    let container = up("web-podman-0", "podman").replace("pacemaker", "heartbeat");
    let host = node(1, "alpha", &lrm(&(container + &up("web-0", "remote"))));
    let doc = document(&no_fencing(), BUNDLE, &(host + &node(2, "delta", &lrm("")) + &inside));
    let never = -1_000_000;
    let banned = located(doc, "web", &[("alpha", false, never), ("delta", false, never)]);
    let plan = plan(&input(&banned));
    let demote = operation(&plan, ("s", "demote", "web-0")).expect("it is demoted");
    let stop = operation(&plan, ("s", "stop", "web-0")).expect("it is stopped");
    assert!(waits(&plan, stop, demote));
}

#[test]
fn the_others_are_told_after_an_instance_was_fenced() {
    let clone = format!(
        r#"<clone id="c"><meta_attributes id="n">{}</meta_attributes>{}</clone>"#,
        pair("notify", "true"),
        dummy("a", "")
    );
    let device = r#"<primitive id="f" class="stonith" type="fence_x"/>"#;
    let up = lrm(&history("a", "Dummy", &op("start", 1, 0, 0, "")));
    let lost = node(1, "alpha", &up)
        .replace(r#"in_ccm="true" crmd="online""#, r#"in_ccm="false" crmd="offline""#);
    let doc = document("", &(clone + device), &(lost + &node(2, "delta", &up)));
    let plan = plan(&input(&doc));
    let after = point(&plan, "a_post_notify_stop_0").expect("there is a point after the fencing");
    let post = |k: &ActionKind| matches!(k, ActionKind::Op(s) if s.op == "notify" && s.params["CRM_meta_notify_type"] == "post");
    let told = position(&plan, post).expect("the other instance is told");
    let done = point(&plan, "a_notified_0").expect("there is a point for all being told");
    assert!(waits(&plan, told, after) && waits(&plan, done, told));
}

#[test]
fn a_code_without_a_meaning_is_a_failure_even_when_it_was_expected() {
    let start = lrm(&history("a", "Dummy", &op("start", 1, 1, 1, "")));
    let doc = document(
        &no_fencing(),
        &dummy("a", ""),
        &(node(1, "alpha", &start) + &node(2, "delta", &lrm(""))),
    );
    let plan = plan(&input(&doc));
    assert!(operations(&plan).iter().any(|o| o == "a stop alpha"), "{:?}", plan.summary);
}

#[test]
fn what_is_ordered_after_a_bundle_restarts_with_it_on_any_node() {
    let up = lrm(&history("a", "Dummy", &op("start", 1, 0, 0, "")));
    let states = node(1, "alpha", &lrm("")) + &node(2, "delta", &up);
    let mut doc = document(&no_fencing(), &(BUNDLE.to_owned() + &dummy("a", "")), &states);
    doc = located(doc, "web", &[("alpha", false, 100)]);
    doc.cib.constraints.push(crate::cib::Constraint::Order(order("web", "a")));
    let plan = plan(&input(&doc));
    assert!(operations(&plan).iter().any(|o| o == "a stop delta"), "{:?}", plan.summary);
}

fn order(first: &str, then: &str) -> crate::cib::Order {
    crate::cib::Order {
        id: "o".to_owned(),
        kind: crate::cib::OrderKind::Mandatory,
        first: first.to_owned(),
        first_action: None,
        then: then.to_owned(),
        then_action: None,
        symmetrical: None,
        sets: Vec::new(),
    }
}

#[test]
fn what_runs_in_a_guest_is_not_ordered_before_the_machine_it_lives_in() {
    let machine = dummy("vm", &super::recorded::meta(&pair("remote-node", "guest")));
    let states = node(1, "alpha", &lrm("")) + &node(2, "delta", &lrm(""));
    let doc = document(&no_fencing(), &(machine + &dummy("a", "")), &states);
    let never = -1_000_000;
    let mut doc = located(doc, "a", &[("alpha", false, never), ("delta", false, never)]);
    doc.cib.constraints.push(crate::cib::Constraint::Order(order("a", "vm")));
    let plan = plan(&input(&doc));
    assert!(operation(&plan, ("a", "start", "guest")).is_some(), "{:?}", plan.summary);
}
