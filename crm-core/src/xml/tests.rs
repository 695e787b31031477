//! Claims about the reader.

use super::{Problem, parse_time_ms, read};
use crate::cib::{Constraint, Resource, Score};
use crate::plan::NodeView;

const HEAD: &str = r#"<cib validate-with="pacemaker-3.9" have-quorum="1" dc-uuid="1"><configuration>
<crm_config><cluster_property_set id="p"><nvpair id="p1" name="fencing-enabled" value="false"/></cluster_property_set></crm_config>
<nodes><node id="1" uname="alpha"/><node id="2" uname="delta"/></nodes>"#;

fn document(resources: &str, constraints: &str, status: &str) -> String {
    format!(
        "{HEAD}<resources>{resources}</resources><constraints>{constraints}</constraints>\
         </configuration><status>{status}</status></cib>"
    )
}

const ONLINE: &str = r#"<node_state id="1" uname="alpha" in_ccm="true" crmd="online" join="member" expected="member">"#;

#[test]
fn a_history_is_replayed_in_the_order_of_its_calls() {
    let prim = r#"<primitive id="a" class="ocf" provider="crm" type="Dummy"/>"#;
    let op = |task: &str, call: u32, rc: u32| {
        format!(
            r#"<lrm_rsc_op id="a_{task}" operation="{task}" interval="0" call-id="{call}" rc-code="{rc}" op-status="0" transition-key="1:2:0:x"/>"#
        )
    };
    let status = format!(
        r#"{ONLINE}<lrm id="1"><lrm_resources><lrm_resource id="a" class="ocf" provider="crm" type="Dummy">{}{}</lrm_resource></lrm_resources></lrm></node_state>"#,
        op("stop", 3, 0),
        op("start", 2, 0)
    );
    let seen = read(&document(prim, "", &status), 0).unwrap();
    let newest = crate::lrm::by_age(&seen.records[0].resources[0].ops).pop().map(|o| o.op.clone());
    assert_eq!(newest.as_deref(), Some("stop"));
    let picture = crate::plan::picture(&crate::simulate::input(&seen));
    assert!(picture.resources[0].active.is_empty());
    assert_eq!(seen.nodes["alpha"], NodeView::ONLINE);
    // Nobody has said anything about delta: only with fencing it may run things.
    assert_eq!(seen.nodes["delta"], NodeView::GONE);
    let fencing = document(prim, "", &status).replace("value=\"false\"", "value=\"true\"");
    assert_eq!(read(&fencing, 0).unwrap().nodes["delta"], NodeView::LOST);
    assert_eq!(seen.coordinator.as_deref(), Some("alpha"));
}

#[test]
fn a_rule_becomes_a_location_on_each_node_it_holds_for() {
    let prim = r#"<primitive id="a" class="ocf" provider="crm" type="Dummy"/>"#;
    let rule = r##"<rsc_location id="l" rsc="a"><rule id="r" score="-INFINITY" boolean-op="or">
        <expression id="e" attribute="#uname" operation="eq" value="delta"/></rule></rsc_location>"##;
    let seen = read(&document(prim, rule, ""), 0).unwrap();
    let [Constraint::Location(l)] = seen.cib.constraints.as_slice() else { panic!("{seen:?}") };
    assert_eq!((l.node.as_str(), l.score), ("delta", Score::NEG_INF));
}

#[test]
fn what_is_not_known_is_refused_with_its_place() {
    let text = document("<primitive id='a' class='ocf' type='x'/>\n<bottle id='b'/>", "", "");
    let problems = read(&text, 0).unwrap_err();
    let text = "`bottle` in `resources` is not supported".to_owned();
    assert_eq!(problems, [Problem { line: 4, column: 1, text }]);
    assert_eq!(read("<cib", 0).unwrap_err().len(), 1);
    assert!(read("<crm/>", 0).unwrap_err()[0].text.contains("begins with `cib`"));
}

#[test]
fn times_are_read_as_they_are_written() {
    assert_eq!(parse_time_ms("1970-01-02"), Some(86_400_000));
    assert_eq!(parse_time_ms("1970-002T00:00:01"), Some(86_401_000));
    assert_eq!(parse_time_ms("2014-05-07 00:28:00Z"), Some(1_399_422_480_000));
    assert_eq!(parse_time_ms("2014-05-07T02:28:00+02:00"), Some(1_399_422_480_000));
    assert_eq!(parse_time_ms("7"), Some(7000));
    assert_eq!(parse_time_ms("soon"), None);
}

#[test]
fn a_bundle_is_read_with_its_mappings_and_what_is_inside() {
    let bundle = r#"<bundle id="b"><podman image="i" replicas="3" promoted-max="1"/>
        <network control-port="3121"><port-mapping id="p" port="80"/></network>
        <storage><storage-mapping id="s" source-dir="/a" target-dir="/b"/></storage>
        <primitive id="a" class="ocf" provider="crm" type="Dummy"/></bundle>"#;
    let cib = read(&document(bundle, "", ""), 0).unwrap().cib;
    let Some(Resource::Bundle(b)) = cib.resource("b") else { panic!("{cib:?}") };
    assert_eq!((b.replicas(), b.replicas_per_host(), b.promotable()), (3, 1, true));
    assert_eq!(b.node_names(), ["b-0", "b-1", "b-2"]);
    assert_eq!(b.storage[0].attrs.get("target-dir"), Some("/b"));
    assert!(cib.primitive("a").is_some(), "constraints may name what is inside");
    let apart = bundle.replace("control-port=\"3121\"", "");
    let problems = read(&document(&apart, "", ""), 0).unwrap_err();
    assert!(problems[0].text.contains("cannot be reached"), "{problems:?}");
}
