//! Claims about what is out of our hands: on which nodes it counts, what it holds there, and what it does not hold up. Compared with a live `crm_simulate`.

use super::recorded::{
    document, dummy, history, lrm, meta, no_fencing, node, op, operations, pair,
};
use crate::plan::{Plan, picture, plan};
use crate::simulate::input;
use crate::xml::{Document, read};

const NOW_MS: u64 = 2_000_000_000;

fn started(id: &str) -> String {
    history(id, "Dummy", &op("start", 1, 0, 0, ""))
}

fn with_constraints(
    properties: &str,
    resources: &str,
    constraints: &str,
    status: &str,
) -> Document {
    let text = format!(
        r#"<cib validate-with="pacemaker-3.9" have-quorum="1" dc-uuid="1"><configuration>
        <crm_config><cluster_property_set id="p">{properties}</cluster_property_set></crm_config>
        <nodes><node id="1" uname="alpha"/><node id="2" uname="delta"/></nodes>
        <resources>{resources}</resources><constraints>{constraints}</constraints></configuration>
        <status>{status}</status></cib>"#
    );
    read(&text, NOW_MS).expect("the document is well-formed")
}

fn summary(document: &Document) -> Vec<String> {
    let Plan { summary, .. } = plan(&input(document));
    summary
}

#[test]
fn what_is_unmanaged_and_failed_restarts_nothing_that_comes_after_it() {
    let unmanaged = meta(&pair("is-managed", "false"));
    let resources = format!("{}{}", dummy("below", &unmanaged), dummy("above", ""));
    let order = r#"<rsc_order id="o" first="below" then="above"/>"#;
    let failed = history("below", "Dummy", &op("start", 1, 1, 0, ""));
    let status = node(1, "alpha", &lrm(&started("below")))
        + &node(2, "delta", &lrm(&(failed + &started("above"))));
    let document = with_constraints(&no_fencing(), &resources, order, &status);
    assert_eq!(summary(&document), Vec::<String>::new());
    // Managed, it is recovered, and what comes after it with it.
    let resources = format!("{}{}", dummy("below", ""), dummy("above", ""));
    let document = with_constraints(&no_fencing(), &resources, order, &status);
    assert!(summary(&document).iter().any(|l| l.contains("Restart above")));
}

#[test]
fn what_loses_its_ticket_and_was_unmanaged_before_still_drives_away_what_it_avoids() {
    let unmanaged = meta(&pair("is-managed", "false"));
    let resources = format!("{}{}", dummy("mover", ""), dummy("rock", &unmanaged));
    let constraints = r#"<rsc_colocation id="c" score="-100" rsc="rock" with-rsc="mover"/>
        <rsc_ticket id="t" rsc="rock" ticket="T" loss-policy="freeze"/>"#;
    let status = node(1, "alpha", &lrm(""))
        + &node(2, "delta", &lrm(&(started("mover") + &started("rock"))));
    let document = with_constraints(&no_fencing(), &resources, constraints, &status);
    assert_eq!(summary(&document), ["* Move mover ( delta -> alpha )"]);
}

#[test]
fn what_runs_twice_is_only_blocked_if_it_was_in_our_hands_when_that_was_found() {
    let block = meta(&pair("multiple-active", "block"));
    let status =
        node(1, "alpha", &lrm(&started("twice"))) + &node(2, "delta", &lrm(&started("twice")));
    let blocked = |resources: &str| {
        let document = document(&no_fencing(), resources, &status);
        picture(&input(&document)).resources.iter().any(|r| r.blocked)
    };
    assert!(blocked(&dummy("twice", &block)));
    let unmanaged = meta(&(pair("multiple-active", "block") + &pair("is-managed", "false")));
    assert!(!blocked(&dummy("twice", &unmanaged)));
}

#[test]
fn an_unmanaged_instance_too_many_is_counted_on_no_node() {
    let unmanaged = meta(&pair("is-managed", "false"));
    let clone = format!(
        r#"<clone id="c"><meta_attributes id="cm">{}</meta_attributes>{}</clone>"#,
        pair("clone-max", "1"),
        dummy("many", &unmanaged)
    );
    let status =
        node(1, "alpha", &lrm(&started("many"))) + &node(2, "delta", &lrm(&started("many")));
    let document = document(&no_fencing(), &(clone + &dummy("next", "")), &status);
    assert_eq!(summary(&document), ["* Start next ( delta )"]);
    let seen = picture(&input(&document));
    let removed: Vec<bool> = seen.resources[0].children.iter().map(|c| c.removed).collect();
    assert_eq!(removed, [false, true], "the second one is shown as one too many");
}

#[test]
fn a_primitive_that_was_promoted_is_demoted_before_it_stops() {
    let status = node(1, "alpha", &lrm(&history("x", "Dummy", &op("promote", 1, 0, 0, ""))));
    let stopped = meta(&pair("target-role", "Stopped"));
    let document = document(&no_fencing(), &dummy("x", &stopped), &status);
    let plan = plan(&input(&document));
    assert_eq!(plan.summary, ["* Stop x ( Promoted alpha )"]);
    assert_eq!(operations(&plan), ["x demote alpha", "x stop alpha"]);
}
