//! More rules that no public case can see: health as scores, frozen tickets, several orders of one pair, histories without digests, guests
//! of nodes that are fenced. Frozen tickets were compared with a live `crm_simulate` by hand, health, orders and guests by the fuzzer's clusters; the digests are what newer
//! releases than 2.1.5 do.

use super::places::{Active, TWO, at, decided, document, dummy, on, prefers};
use crate::cib::Role;
use crate::plan::{ActionKind, ClusterOp, Plan, plan};
use crate::simulate::input;
use std::collections::BTreeSet;

fn pair(id: &str, name: &str, value: &str) -> String {
    format!(r#"<nvpair id="{id}" name="{name}" value="{value}"/>"#)
}

const ON_N1: [Active<'_>; 1] = [("n1", "p", "Dummy", Role::Started)];

#[test]
fn the_health_of_a_node_is_a_location_score_of_all_resources() {
    let there = |strategy: &str, colour: &str, wish: &str| {
        let health = pair("h", "#health-disk", colour);
        let nodes = [("n1", health.as_str()), ("n2", "")];
        let strategy = pair("s", "node-health-strategy", strategy)
            + &pair("r", "node-health-red", "-30")
            + &pair("y", "node-health-yellow", "-10");
        let text = document(&nodes, &strategy, &dummy("p"), &prefers("p", "n1", wish), &[]);
        at(&decided(&text), "p") == [on("n1", Role::Started)]
    };
    assert!(there("none", "red", "1"));
    assert!(!there("migrate-on-red", "red", "INFINITY"));
    assert!(there("migrate-on-red", "yellow", "1"));
    assert!(!there("only-green", "yellow", "INFINITY"));
    // The words are numbers now: what is left of the wish decides.
    assert!(there("progressive", "red", "31"));
    assert!(!there("progressive", "red", "29"));
    assert!(there("progressive", "yellow", "29"));
    assert!(!there("custom", "-100", "99"));
}

#[test]
fn what_a_lost_ticket_freezes_stays_and_nothing_starts_on_the_strength_of_it() {
    let decide = |policy: &str, active: &[Active<'_>]| {
        let ticket = format!(r#"<rsc_ticket id="t" rsc="p" ticket="T" loss-policy="{policy}"/>"#);
        let order = r#"<rsc_order id="o" first="p" then="q"/>"#;
        let text = document(TWO, "", &(dummy("p") + &dummy("q")), &(ticket + order), active);
        let e = decided(&text);
        let starts = |kind: &ActionKind| matches!(kind, ActionKind::Op(spec) if spec.op == "start" && spec.resource == "q");
        let started = e.plan.actions.iter().any(|a| starts(&a.kind));
        let stopped = e.plan.summary.iter().any(|line| line.contains("Stop p"));
        (started, stopped)
    };
    let q = ("n2", "q", "Dummy", Role::Stopped);
    assert_eq!(decide("freeze", &[ON_N1[0], q]), (false, false));
    assert_eq!(decide("stop", &[ON_N1[0], q]), (false, true));
    // What does not run is not frozen: it may not start.
    assert_eq!(decide("freeze", &[q]), (false, false));
}

#[test]
fn of_several_orders_of_one_pair_the_first_one_counts() {
    let restarts = |kinds: [&str; 2]| {
        let order = |id: &str, kind: &str| {
            format!(r#"<rsc_order id="{id}" first="a" then="p" kind="{kind}"/>"#)
        };
        let places = prefers("a", "n2", "10") + &prefers("p", "n1", "10");
        let constraints = places + &order("one", kinds[0]) + &order("two", kinds[1]);
        let e = decided(&document(TWO, "", &(dummy("a") + &dummy("p")), &constraints, &ON_N1));
        e.plan.summary.iter().any(|line| line.contains("Restart p"))
    };
    assert!(restarts(["Mandatory", "Optional"]));
    assert!(!restarts(["Optional", "Mandatory"]));
}

#[test]
fn an_operation_without_a_digest_counts_as_unchanged() {
    let resource = r#"<primitive id="p" class="ocf" provider="pacemaker" type="Dummy">
        <instance_attributes id="i"><nvpair id="ia" name="a" value="1"/></instance_attributes></primitive>"#;
    let text = document(TWO, "", resource, "", &ON_N1);
    let restarts = |digest: &str| {
        let text = text.replace(r#"interval="0"/>"#, &format!(r#"interval="0" {digest}/>"#));
        decided(&text).plan.summary.iter().any(|line| line.contains("Restart p"))
    };
    assert!(!restarts(""));
    assert!(restarts(r#"op-digest="f2317cad3d54cec5d7d7aa7d0bf35cf8""#));
    assert!(!restarts(r#"op-digest="371f0a162b188dbc06a3e2ab24f27abd""#));
}

fn find(plan: &Plan, wanted: &dyn Fn(&ActionKind) -> bool) -> usize {
    let found = plan.actions.iter().position(|a| wanted(&a.kind));
    found.unwrap_or_else(|| panic!("missing in {:#?}", plan.summary))
}

/// All that an action waits for.
fn before(plan: &Plan, at: usize) -> BTreeSet<usize> {
    let (mut out, mut open) = (BTreeSet::new(), vec![at]);
    while let Some(next) = open.pop() {
        for need in &plan.actions[next].needs {
            let need = usize::try_from(need.0).unwrap();
            if out.insert(need) {
                open.push(need);
            }
        }
    }
    out
}

#[test]
fn what_ran_in_a_guest_starts_after_the_host_of_that_guest_was_fenced() {
    let guest = r#"<primitive id="vm" class="ocf" provider="pacemaker" type="Dummy"><meta_attributes id="m">
        <nvpair id="n" name="remote-node" value="g"/></meta_attributes></primitive>"#;
    let device = r#"<primitive id="f" class="stonith" type="fence_x"/>"#;
    let active = [
        ("n2", "vm", "Dummy", Role::Started),
        ("n2", "g", "remote", Role::Started),
        ("n1", "f", "fence_x", Role::Started),
    ];
    let text = document(TWO, "", &(guest.to_owned() + device + &dummy("a")), "", &active);
    let inside = r#"<node_state remote_node="true" id="g" uname="g"><lrm id="g"><lrm_resources>
        <lrm_resource id="a" class="ocf" provider="pacemaker" type="Dummy"><lrm_rsc_op id="a1" operation_key="a_start_0" operation="start"
        crm_feature_set="3.16.1" transition-key="1:1:0:u" transition-magic="0:0;1:1:0:u" call-id="9" rc-code="0" op-status="0" interval="0"/>
        </lrm_resource></lrm_resources></lrm></node_state>"#;
    let gone = r#"uname="n2" in_ccm="false" crmd="offline" join="down""#;
    let text = text
        .replacen(r#"value="false""#, r#"value="true""#, 1)
        .replace(r#"uname="n2" in_ccm="true" crmd="online" join="member""#, gone)
        .replace("</status>", &format!("{inside}</status>"));
    let document = crate::xml::read(&text, 0).unwrap_or_else(|problems| panic!("{problems:?}"));
    let plan = plan(&input(&document));
    let fence = find(
        &plan,
        &|kind| matches!(kind, ActionKind::Cluster(ClusterOp::Fence { node, .. }) if node == "n2"),
    );
    let start = find(
        &plan,
        &|kind| matches!(kind, ActionKind::Op(spec) if spec.op == "start" && spec.resource == "a"),
    );
    assert!(before(&plan, start).contains(&fence), "{:#?}", plan.summary);
}
