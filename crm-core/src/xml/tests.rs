//! Claims about the reader.

use super::{parse_time_ms, read};
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

/// What becomes of delta and why it is fenced, in a cluster with fencing. Its lasting attribute `terminate` and the words of its state are given.
fn delta(terminate: &str, state: &str) -> (NodeView, Option<String>) {
    let lasting = format!(
        r#"<node id="2" uname="delta"><instance_attributes id="i"><nvpair id="t" name="terminate" value="{terminate}"/></instance_attributes></node>"#
    );
    let status = format!(r#"{ONLINE}</node_state><node_state id="2" uname="delta" {state}/>"#);
    let text = document("", "", &status)
        .replace("value=\"false\"", "value=\"true\"")
        .replace(r#"<node id="2" uname="delta"/>"#, &lasting);
    let seen = read(&text, 0).unwrap();
    (seen.nodes["delta"], seen.fence.get("delta").cloned())
}

#[test]
fn a_node_that_is_to_be_terminated_for_good_is_fenced() {
    let up = r#"in_ccm="true" crmd="online" join="member" expected="member""#;
    let (view, why) = delta("true", up);
    assert_eq!(why.as_deref(), Some("fencing was requested"));
    assert!(!view.clean, "{view:?}");
    assert_eq!(delta("false", up), (NodeView::ONLINE, None));
}

#[test]
fn a_node_that_was_fenced_as_requested_is_gone_and_not_fenced_again() {
    let down = r#"in_ccm="false" crmd="offline" join="down" expected="member""#;
    assert_eq!(delta("true", down), (NodeView::GONE, None));
    let (view, why) = delta("false", down);
    assert_eq!(
        (view.clean, why.is_some()),
        (false, true),
        "one that nobody asked to fence is lost"
    );
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
    assert_eq!((problems[0].line, problems[0].column, problems.len()), (4, 1, 1));
    assert_eq!(problems[0].text, "`bottle` in `resources` is not supported");
    let expected = problems[0].expected.as_deref().unwrap();
    assert!(expected.starts_with("primitive, group, clone"), "{expected}");
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

const TWO: &str = r#"<primitive id="a" class="ocf" provider="crm" type="Dummy"/><primitive id="b" class="ocf" provider="crm" type="Dummy"/>"#;

/// Codes of what is doubted, with the help.
fn doubts(resources: &str, constraints: &str) -> Vec<(&'static str, String)> {
    let text = document(&(TWO.to_owned() + resources), constraints, "");
    let seen = read(&text, 0).unwrap_or_else(|p| panic!("{p:?}"));
    let told = |p: &super::Problem| {
        assert!(p.line > 0 && p.column > 0, "{p:?}");
        let help = p.help.clone().or_else(|| p.expected.clone()).unwrap_or_default();
        assert!(!help.is_empty(), "{p:?} says nothing of what to do");
        (p.code, help)
    };
    seen.warnings.iter().map(told).collect()
}

#[test]
fn what_has_no_effect_is_told_with_the_nearest_name() {
    let cases = [
        (r#"<rsc_location id="l" rsc="zz" node="alpha" score="1"/>"#, "CRM0012", "take it out"),
        (r#"<rsc_location id="l" rsc="a" node="alhpa" score="1"/>"#, "CRM0013", "`alpha`"),
        (r#"<rsc_colocation id="l" rsc="a" with-rsc="b" scores="1"/>"#, "CRM0052", "`score`"),
        (r#"<rsc_order id="l" first="a" then="b" kind="Mandatry"/>"#, "CRM0031", "`Mandatory`"),
        (r#"<rsc_order id="l" first="a" then="b" symmetrical="so"/>"#, "CRM0031", "true or false"),
        (r#"<rsc_order id="l" first="a"/>"#, "CRM0004", "`then`"),
        (r#"<rsc_order id="l" first="a" then="a"/>"#, "CRM0021", "take it out"),
        (r#"<rsc_location id="a" rsc="a" node="alpha" score="1"/>"#, "CRM0010", "rename"),
        (r#"<rsc_location id="l" rsc-pattern="a(" node="alpha"/>"#, "CRM0031", "regular"),
        (
            r#"<rsc_location id="l" rsc="a"><rule id="r" score="1"/></rsc_location>"#,
            "CRM0004",
            "one of",
        ),
        (
            r#"<rsc_location id="l" rsc="a" node="alpha" score="1"><wish/></rsc_location>"#,
            "CRM0052",
            "rule",
        ),
    ];
    assert_eq!(doubts("", r#"<rsc_order id="l" first="a" then="b"/>"#), []);
    for (constraint, code, part) in cases {
        let found = doubts("", constraint);
        let [(told, help)] = found.as_slice() else { panic!("{constraint}: {found:?}") };
        assert_eq!(*told, code, "{constraint}: {help}");
        assert!(help.contains(part), "{constraint}: {help}");
    }
}

#[test]
fn options_that_were_mistyped_are_told() {
    let with = |pair: &str| {
        format!(
            r#"<primitive id="c" class="ocf" provider="crm" type="Dummy"><meta_attributes id="cm"><nvpair id="cn" {pair}/></meta_attributes></primitive>"#
        )
    };
    for (pair, code, part) in [
        (r#"name="target-roel" value="Stopped""#, "CRM0018", "`target-role`"),
        (r#"name="target-role" value="Stoped""#, "CRM0007", "`Stopped`"),
        (r#"name="resource-stickiness" value="much""#, "CRM0006", "INFINITY"),
        (r#"name="is-managed" value="perhaps""#, "CRM0031", "true or false"),
        (r#"name="failure-timeout" value="soon""#, "CRM0017", "15s"),
    ] {
        let found = doubts(&with(pair), "");
        assert!(found.iter().any(|(c, h)| *c == code && h.contains(part)), "{pair}: {found:?}");
    }
    // Meta attributes of one's own, and old spellings, are nobody's mistake.
    for pair in [r#"name="our-own-note" value="x""#, r#"name="target_role" value="Stopped""#] {
        assert_eq!(doubts(&with(pair), ""), [], "{pair}");
    }
    let op = r#"<primitive id="c" class="ocf" provider="crm" type="Dummy"><operations>
        <op id="co" name="monitor" interval="10x" on-fail="explode"/></operations></primitive>"#;
    let codes: Vec<_> = doubts(op, "").into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["CRM0017", "CRM0031"]);
}

#[test]
fn loops_are_told_with_what_makes_them() {
    let orders = r#"<rsc_order id="x" first="a" then="b"/><rsc_order id="y" first="b" then="a"/>"#;
    let found = doubts("", orders);
    assert_eq!(found, [("CRM0020", "it is made by x, y: remove one of them".to_owned())]);
    let colocations = r#"<rsc_colocation id="x" rsc="a" with-rsc="b" score="INFINITY"/>
        <rsc_colocation id="y" rsc="b" with-rsc="a" score="INFINITY"/>"#;
    assert_eq!(doubts("", colocations)[0].0, "CRM0021");
    assert_eq!(doubts("", &colocations.replace("INFINITY", "10")), []);
}

#[test]
fn what_no_cluster_could_be_is_refused() {
    let refused = |resources: &str| {
        let problems = read(&document(resources, "", ""), 0).unwrap_err();
        (problems[0].code, problems[0].text.clone())
    };
    let (code, text) = refused(&(TWO.to_owned() + TWO));
    assert_eq!((code, text.as_str()), ("CRM0010", "the id `a` is used already, in line 3"));
    let clone = |max: &str| {
        format!(
            r#"<clone id="c"><meta_attributes id="m"><nvpair id="n" name="clone-max" value="{max}"/></meta_attributes>{}</clone>"#,
            r#"<primitive id="a" class="ocf" provider="crm" type="Dummy"/>"#
        )
    };
    assert!(refused(&clone("4000000000")).1.contains("`clone-max` is 4000000000"));
    assert!(
        refused(r#"<bundle id="b"><podman image="i" replicas="99999999999"/></bundle>"#)
            .1
            .contains("`replicas`")
    );
    assert!(refused(&format!(r#"<clone id="c">{TWO}</clone>"#)).1.contains("more than one"));
    let twice = document("", "", "").replace("uname=\"delta\"", "uname=\"alpha\"");
    assert!(read(&twice, 0).unwrap_err()[0].text.contains("there twice"));
}

#[test]
fn a_number_with_something_after_it_is_the_number() {
    let prim = r#"<primitive id="c" class="ocf" provider="crm" type="Dummy"/>"#;
    let location = r#"<rsc_location id="l" rsc="c" node="alpha" score="7.5"/>"#;
    let seen = read(&document(prim, location, ""), 0).unwrap();
    let [Constraint::Location(l)] = seen.cib.constraints.as_slice() else { panic!("{seen:?}") };
    assert_eq!(l.score, Score::new(7));
    assert_eq!(seen.warnings[0].code, "CRM0006");
    assert_eq!(Score::leading("-3x"), Some(Score::new(-3)));
    assert_eq!(Score::leading("x"), None);
}

#[test]
fn fencing_levels_are_read_in_the_order_of_their_numbers() {
    let levels = r#"<fencing-topology>
        <fencing-level id="a" target="delta" index="3" devices="f3"/>
        <fencing-level id="b" target="delta" index="1" devices="f1,f2"/>
        <fencing-level id="c" target-pattern="al.*" index="1" devices="f1"/>
        <fencing-level id="d" target="delta" index="1" devices="f4"/>
        <fencing-level id="e" target-attribute="rack" target-value="1" index="2" devices="f1"/>
        <fencing-level id="f" target="delta" index="12" devices="f1"/>
        <fencing-level id="g" index="1" devices="f1"/>
        </fencing-topology></configuration>"#;
    let text = document("", "", "").replace("</configuration>", levels);
    let seen = read(&text, 0).unwrap();
    let rule = |target, levels: &[&[&str]]| crate::cib::FencingRule {
        target,
        levels: levels.iter().map(|l| l.iter().map(|&d| d.to_owned()).collect()).collect(),
    };
    use crate::cib::FencingTarget::{Attribute, Node, Pattern};
    let attribute = Attribute { name: "rack".to_owned(), value: "1".to_owned() };
    assert_eq!(
        seen.cib.fencing,
        [
            rule(Node("delta".to_owned()), &[&["f1", "f2", "f4"], &["f3"]]),
            rule(Pattern("al.*".to_owned()), &[&["f1"]]),
            rule(attribute, &[&["f1"]]),
        ]
    );
    let told: Vec<&str> = seen.warnings.iter().map(|w| w.text.as_str()).collect();
    assert_eq!(told, ["`12` is no number of a level (1-9)", "this level names no node"]);
}
