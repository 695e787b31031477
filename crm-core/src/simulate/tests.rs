//! What may be assumed, and what it does.

use super::{Change, NodeChange, Outcome, TicketChange, assume, parse_failure, parse_outcome, run};
use crate::xml::{Document, read};

const CIB: &str = r#"<cib have-quorum="1" dc-uuid="1"><configuration>
 <crm_config><cluster_property_set id="p">
  <nvpair id="p1" name="stonith-enabled" value="false"/></cluster_property_set></crm_config>
 <nodes><node id="1" uname="alpha"/><node id="2" uname="delta"/></nodes>
 <resources><primitive id="web" class="ocf" provider="pacemaker" type="Dummy">
  <operations><op id="m" name="monitor" interval="10s"/></operations></primitive></resources>
 <constraints><rsc_location id="l" rsc="web" node="alpha" score="100"/>
  <rsc_ticket id="t" rsc="web" ticket="site" loss-policy="stop"/></constraints></configuration>
 <status><tickets><ticket_state id="site" granted="true"/></tickets>
 <node_state id="1" uname="alpha" in_ccm="true" crmd="online" join="member" expected="member">
  <lrm id="1"><lrm_resources><lrm_resource id="web" class="ocf" provider="pacemaker" type="Dummy">
   <lrm_rsc_op id="s" operation="start" operation_key="web_start_0" call-id="2" rc-code="0" op-status="0" interval="0" transition-key="1:1:0:x"/>
   <lrm_rsc_op id="w" operation="monitor" operation_key="web_monitor_10000" call-id="3" rc-code="0" op-status="0" interval="10000" transition-key="2:1:0:x"/>
  </lrm_resource></lrm_resources></lrm></node_state>
 <node_state id="2" uname="delta" in_ccm="true" crmd="online" join="member" expected="member">
  <lrm id="2"><lrm_resources><lrm_resource id="web" class="ocf" provider="pacemaker" type="Dummy">
   <lrm_rsc_op id="q" operation="monitor" operation_key="web_monitor_0" call-id="2" rc-code="7" op-status="0" interval="0" transition-key="3:1:7:x"/>
  </lrm_resource></lrm_resources></lrm></node_state></status></cib>"#;

fn document() -> Document {
    read(CIB, 1_000_000).unwrap()
}

fn node(name: &str, what: NodeChange) -> Change {
    Change::Node(name.to_owned(), what)
}

/// What would be done after the change.
fn lines(change: &Change) -> Vec<String> {
    let mut document = document();
    assume(&mut document, change).unwrap();
    run(&document, &[]).plan.summary
}

fn fails(change: &Change) -> (String, String) {
    let wrong = assume(&mut document(), change).unwrap_err();
    (wrong.why, wrong.remedy)
}

#[test]
fn without_an_assumption_nothing_is_done() {
    assert!(run(&document(), &[]).plan.summary.is_empty());
}

#[test]
fn a_resource_leaves_a_node_that_goes_to_standby_and_a_node_that_leaves() {
    assert_eq!(lines(&node("alpha", NodeChange::Standby)), ["* Move web ( alpha -> delta )"]);
    assert_eq!(lines(&node("alpha", NodeChange::Down)), ["* Start web ( delta )"]);
    assert!(lines(&node("delta", NodeChange::Down)).is_empty());
}

#[test]
fn standby_is_taken_back_by_online_and_up_brings_a_node_back() {
    let mut document = document();
    for what in [NodeChange::Standby, NodeChange::Online] {
        assume(&mut document, &node("alpha", what)).unwrap();
    }
    assert!(run(&document, &[]).plan.summary.is_empty());
    assume(&mut document, &node("alpha", NodeChange::Lost)).unwrap();
    assert!(!document.nodes["alpha"].clean && document.fence.contains_key("alpha"));
    assume(&mut document, &node("alpha", NodeChange::Up)).unwrap();
    assert!(document.nodes["alpha"].online && document.fence.is_empty());
}

#[test]
fn without_quorum_and_without_its_ticket_it_stops() {
    assert_eq!(lines(&Change::Quorum(false)), ["* Stop web ( alpha )"]);
    let revoke = Change::Ticket("site".to_owned(), TicketChange::Revoke);
    assert_eq!(lines(&revoke), ["* Stop web ( alpha )"]);
    let mut document = document();
    assume(&mut document, &revoke).unwrap();
    assume(&mut document, &Change::Ticket("site".to_owned(), TicketChange::Grant)).unwrap();
    assert!(run(&document, &[]).plan.summary.is_empty());
}

#[test]
fn a_failure_is_what_the_monitor_would_report() {
    let change = parse_failure("web@alpha").unwrap();
    let mut document = document();
    let said = assume(&mut document, &change).unwrap();
    assert_eq!(said, "Injecting web_monitor_10000@alpha=7 into the configuration");
    assert_eq!(document.status.nodes["alpha"].resources["web"].fail_count, 1);
    assert_eq!(run(&document, &[]).plan.summary, ["* Recover web ( alpha )"]);
}

#[test]
fn a_failed_start_keeps_it_away_from_the_node() {
    let change = parse_failure("web:start@alpha=5").unwrap();
    assert_eq!(lines(&change), ["* Recover web ( alpha -> delta )"]);
    let mut document = document();
    assume(&mut document, &change).unwrap();
    assert_eq!(document.status.nodes["alpha"].resources["web"].fail_count, 1_000_000);
}

#[test]
fn what_is_not_there_is_refused_with_the_nearest_name() {
    let (why, remedy) = fails(&node("alfa", NodeChange::Up));
    assert_eq!(
        (why.as_str(), remedy.as_str()),
        ("there is no node `alfa`", "did you mean `alpha`?")
    );
    let (why, remedy) = fails(&parse_failure("webb@alpha").unwrap());
    assert_eq!(
        (why.as_str(), remedy.as_str()),
        ("there is no resource `webb`", "did you mean `web`?")
    );
    let (why, remedy) = fails(&parse_failure("web@delta").unwrap());
    assert_eq!(
        (why.as_str(), remedy.as_str()),
        ("`web` does not run on delta", "it runs on alpha")
    );
    let (why, _) = fails(&Change::Ticket("sight".to_owned(), TicketChange::Grant));
    assert_eq!(why, "nothing depends on a ticket `sight`");
}

#[test]
fn results_are_read_from_the_right_so_that_names_may_have_underscores() {
    let read = |text: &str| parse_outcome(text).map(|o| (o.resource, o.op, o.interval_ms, o.rc));
    let want = |r: &str, o: &str, i, rc| Some((r.to_owned(), o.to_owned(), i, rc));
    assert_eq!(read("my_web_monitor_10000@a=7"), want("my_web", "monitor", 10_000, 7));
    assert_eq!(read("vm_migrate_to_0@a=1"), want("vm", "migrate_to", 0, 1));
    assert_eq!(read("web:1_start_0@a=0"), want("web:1", "start", 0, 0));
    for wrong in ["web_monitor@a=7", "web_monitor_0@a", "monitor_0@a=1", "web_probe_0@a=1"] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
    let outcome = parse_outcome("web_monitor_0@a=7");
    assert_eq!(outcome.as_ref().map(Outcome::to_string).as_deref(), Some("web_monitor_0@a=7"));
    assert_eq!(parse_failure("web:explode@a"), None);
    assert_eq!(parse_failure("web"), None);
}
