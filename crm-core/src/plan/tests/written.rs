//! What can be written in Pacemaker's CIB and is rare: lifetimes, options of single sets, defaults by rules, words of old schemas, what a
//! node remembers of the devices that gave it access. They were found as differences from a live `crm_simulate`
//! by the fuzzer, on clusters that are decided alike now.

use super::places::{Active, TWO, at, decided, document, dummy, on, prefers};
use crate::cib::Role;
use crate::plan::{ActionKind, Explained, digest_of};
use std::collections::BTreeMap;

fn pair(id: &str, name: &str, value: &str) -> String {
    format!(r#"<nvpair id="{id}" name="{name}" value="{value}"/>"#)
}

fn metas(id: &str, pairs: &[(&str, &str)]) -> String {
    let inner = pairs.iter().map(|(name, value)| pair(&format!("{id}-{name}"), name, value));
    format!(r#"<meta_attributes id="{id}">{}</meta_attributes>"#, inner.collect::<String>())
}

fn prim(id: &str, kind: &str, inner: &str) -> String {
    format!(
        r#"<primitive id="{id}" class="ocf" provider="pacemaker" type="{kind}">{inner}</primitive>"#
    )
}

fn with_section(text: &str, section: &str) -> String {
    text.replace("</configuration>", &format!("{section}</configuration>"))
}

fn place(e: &Explained, id: &str) -> Option<String> {
    at(e, id).into_iter().next().and_then(|(node, _)| node)
}

/// `start a n1`, also for nodes that get their access back: `unfence n1`.
fn steps(e: &Explained) -> Vec<String> {
    let one = |kind: &ActionKind| match kind {
        ActionKind::Op(spec) if spec.op != "monitor" => {
            Some(format!("{} {} {}", spec.op, spec.resource, spec.node))
        }
        ActionKind::Op(spec) if spec.interval_ms == 0 => {
            Some(format!("probe {} {}", spec.resource, spec.node))
        }
        ActionKind::Cluster(op) => Some(format!("cluster {}", op.node())),
        ActionKind::Op(_) | ActionKind::CancelMonitor { .. } | ActionKind::Pseudo { .. } => None,
    };
    e.plan.actions.iter().filter_map(|a| one(&a.kind)).collect()
}

#[test]
fn a_constraint_holds_only_during_its_lifetime() {
    let there = |lifetime: &str| {
        let ban = format!(
            r#"<rsc_location id="l" rsc="p" node="n1" score="-INFINITY">{lifetime}</rsc_location>"#
        );
        place(&decided(&document(TWO, "", &dummy("p"), &ban, &[])), "p")
    };
    let rule = |id: &str, part: &str| format!(r#"<rule id="{id}">{part}</rule>"#);
    let live = |rules: &str| format!("<lifetime>{rules}</lifetime>");
    // It is 1970 here.
    let past = rule("r", r#"<date_expression id="d" operation="gt" start="2020-01-01"/>"#);
    let now = rule("s", r#"<date_expression id="e" operation="lt" end="2020-01-01"/>"#);
    // Nobody is asked for a node: an expression about one never holds.
    let node = rule("t", r##"<expression id="x" attribute="#uname" operation="ne" value="n9"/>"##);
    assert_eq!(there("").as_deref(), Some("n2"));
    assert_eq!(there(&live(&now)).as_deref(), Some("n2"));
    assert_eq!(there(&live(&past)).as_deref(), Some("n1"));
    assert_eq!(there(&live(&node)).as_deref(), Some("n1"));
    assert_eq!(there(&live(&(past + &now))).as_deref(), Some("n2"), "one of its rules suffices");
}

fn set(id: &str, words: &str, members: &[&str]) -> String {
    let members = members.iter().map(|m| format!(r#"<resource_ref id="{m}"/>"#));
    format!(r#"<resource_set id="{id}" {words}>{}</resource_set>"#, members.collect::<String>())
}

#[test]
fn a_score_of_a_set_is_about_its_members_and_the_constraints_one_about_the_sets() {
    let there = |words: &str, score: &str| {
        let sets = set("one", words, &["a", "b"]);
        let c = format!(r#"<rsc_colocation id="c" score="{score}">{sets}</rsc_colocation>"#);
        let text = document(TWO, "", &(dummy("a") + &dummy("b")), &c, &[]);
        let e = decided(&text);
        place(&e, "a") == place(&e, "b")
    };
    assert!(there("", "INFINITY"));
    assert!(!there(r#"score="-INFINITY""#, "INFINITY"));
    assert!(there(r#"score="INFINITY""#, "-INFINITY"));
    // Nothing is written: nothing is wanted.
    let text = document(
        TWO,
        "",
        &(dummy("a") + &dummy("b")),
        r#"<rsc_colocation id="c" rsc="a" with-rsc="b"/>"#,
        &[],
    );
    let e = decided(&text);
    assert_ne!(place(&e, "a"), place(&e, "b"));
}

#[test]
fn listed_members_go_each_with_the_next_one_and_the_first_one_meets_the_other_set() {
    let resources = dummy("a") + &dummy("b") + &dummy("z");
    let here = prefers("z", "n1", "INFINITY") + &prefers("b", "n2", "1000");
    let there = |words: &str| {
        let sets = set("one", words, &["a", "b"]) + &set("two", "", &["z"]);
        let c = format!(r#"<rsc_colocation id="c" score="100">{sets}</rsc_colocation>"#);
        place(&decided(&document(TWO, "", &resources, &(here.clone() + &c), &[])), "a")
    };
    // With z only, or with z and b.
    assert_eq!(there("").as_deref(), Some("n1"));
    assert_eq!(there(r#"ordering="listed" score="500""#).as_deref(), Some("n2"));
}

#[test]
fn a_kind_of_a_set_is_about_its_members() {
    let resources = dummy("a") + &dummy("b");
    let active: [Active<'_>; 1] = [("n1", "b", "Dummy", Role::Started)];
    let restarts = |words: &str, kind: &str| {
        let order =
            format!(r#"<rsc_order id="o" {kind}>{}</rsc_order>"#, set("s", words, &["a", "b"]));
        let places = prefers("a", "n2", "10") + &prefers("b", "n1", "10");
        steps(&decided(&document(TWO, "", &resources, &(places + &order), &active)))
            .contains(&"stop b n1".to_owned())
    };
    assert!(restarts("", ""));
    assert!(!restarts(r#"kind="Optional""#, ""));
    assert!(restarts(r#"kind="Mandatory""#, r#"kind="Optional""#));
    assert!(
        restarts(r#"kind="Mandatory""#, r#"kind="Serialize""#),
        "symmetrical as its own kind is"
    );
    // Of scores only 0 makes it optional.
    assert!(!restarts("", r#"score="0""#));
    assert!(restarts("", r#"score="-INFINITY""#));
}

#[test]
fn a_role_of_a_location_is_about_the_node_it_names_not_about_its_rules() {
    let rule = r##"<rule id="r" score="INFINITY"><expression id="e" attribute="#uname" operation="eq" value="n2"/></rule>"##;
    let by_rule = format!(r#"<rsc_location id="l" rsc="p" role="Promoted">{rule}</rsc_location>"#);
    let by_name = r#"<rsc_location id="l" rsc="p" role="Promoted" node="n2" score="INFINITY"/>"#;
    let there = |c: &str| place(&decided(&document(TWO, "", &dummy("p"), c, &[])), "p");
    assert_eq!(there(&by_rule).as_deref(), Some("n2"));
    assert_eq!(there(by_name).as_deref(), Some("n1"));
}

#[test]
fn defaults_by_rules_come_after_what_is_said_of_the_resource_and_what_it_is_in() {
    let group = |inner: &str| format!(r#"<group id="g">{inner}{}</group>"#, dummy("p"));
    let agent = r#"<rule id="r"><rsc_expression id="x" class="ocf" provider="pacemaker" type="Dummy"/></rule>"#;
    let defaults = format!(
        r#"<rsc_defaults><meta_attributes id="d">{agent}{}</meta_attributes></rsc_defaults>"#,
        pair("k", "target-role", "Stopped")
    );
    let there = |resources: &str| {
        let text = document(TWO, "", resources, "", &[]);
        place(&decided(&with_section(&text, &defaults)), "p")
    };
    assert_eq!(there(&dummy("p")), None);
    assert_eq!(there(&prim("p", "Stateful", "")).as_deref(), Some("n1"), "another agent");
    assert_eq!(there(&group("")), None);
    let own = metas("m", &[("target-role", "Started")]);
    assert_eq!(there(&group(&own)).as_deref(), Some("n1"));
    assert_eq!(there(&prim("p", "Dummy", &own)).as_deref(), Some("n1"));
}

#[test]
fn defaults_of_operations_hold_for_those_that_are_not_written_down() {
    let rule = r#"<rule id="r"><op_expression id="x" name="start"/></rule>"#;
    let defaults = |rule: &str| {
        let set = format!(
            r#"<meta_attributes id="d">{rule}{}</meta_attributes>"#,
            pair("k", "on-fail", "block")
        );
        format!("<op_defaults>{set}</op_defaults>")
    };
    let mut text = document(TWO, "", &dummy("p"), "", &[("n1", "p", "Dummy", Role::Started)]);
    text = text.replace(r#"rc-code="0""#, r#"rc-code="1""#).replace("0:0;", "0:1;");
    let stops = |rule: &str| {
        let e = decided(&with_section(&text, &defaults(rule)));
        steps(&e).contains(&"stop p n1".to_owned())
    };
    assert!(!stops(rule), "a failed start blocks");
    assert!(stops(&rule.replace("start", "promote")));
}

#[test]
fn of_equal_sets_the_last_one_counts() {
    let twice =
        metas("m", &[("target-role", "Stopped")]) + &metas("n", &[("target-role", "Started")]);
    let there =
        |inner: &str| place(&decided(&document(TWO, "", &prim("p", "Dummy", inner), "", &[])), "p");
    assert_eq!(there(&twice).as_deref(), Some("n1"));
    let first = twice.replace(r#"<meta_attributes id="m""#, r#"<meta_attributes id="m" score="1""#);
    assert_eq!(there(&first), None);
}

#[test]
fn words_of_old_schemas_mean_what_they_meant() {
    let there = |schema: &str, options: &str, inner: &str| {
        let text = document(TWO, options, &prim("p", "Dummy", inner), "", &[]);
        place(&decided(&text.replace("pacemaker-3.9", schema)), "p")
    };
    let unmanaged = pair("u", "is-managed-default", "false");
    assert_eq!(there("pacemaker-2.10", &unmanaged, ""), None);
    assert_eq!(there("pacemaker-1.3", &unmanaged.replace('-', "_"), ""), None);
    assert_eq!(there("pacemaker-3.9", &unmanaged, "").as_deref(), Some("n1"), "no word any more");
    let closed = pair("c", "symmetric_cluster", "false");
    assert_eq!(there("pacemaker-2.10", &closed, ""), None);
    let isolated = metas("m", &[("isolation", "docker")]);
    assert_eq!(there("pacemaker-2.10", "", &isolated), None);
    assert_eq!(there("pacemaker-3.9", "", &isolated).as_deref(), Some("n1"));
}

#[test]
fn the_old_default_of_stickiness_is_one_of_resources() {
    let stays = |schema: &str| {
        let sticky = pair("s", "default-resource-stickiness", "500");
        let active: [Active<'_>; 1] = [("n1", "p", "Dummy", Role::Started)];
        let text = document(TWO, &sticky, &dummy("p"), &prefers("p", "n2", "100"), &active);
        at(&decided(&text.replace("pacemaker-3.9", schema)), "p") == [on("n1", Role::Started)]
    };
    assert!(stays("pacemaker-2.10"));
    assert!(!stays("pacemaker-3.9"));
}

#[test]
fn a_failed_start_bans_after_the_first_failure_where_failures_once_stuck() {
    // `-INFINITY` was the word for it; any other value had no meaning left.
    let inner = |value: &str| metas("m", &[("resource-failure-stickiness", value)]);
    let there = |value: &str| {
        let count = pair("f", "fail-count-p#monitor_10000", "1");
        let nodes = [("n1", count.as_str()), ("n2", "")];
        let active: [Active<'_>; 1] = [("n1", "p", "Dummy", Role::Started)];
        let text = document(&nodes, "", &prim("p", "Dummy", &inner(value)), "", &active);
        place(&decided(&text.replace("pacemaker-3.9", "pacemaker-2.10")), "p")
    };
    assert_eq!(there("-INFINITY").as_deref(), Some("n2"));
    assert_eq!(there("-20").as_deref(), Some("n1"));
}

/// A device that gives access, running on n1, and what needs it.
fn access(remembered: Option<&str>) -> Explained {
    let mut transient = pair("u", "#node-unfenced", "1");
    if let Some(remembered) = remembered {
        transient += &pair("d", "#digests-all", remembered);
    }
    let device = r#"<primitive id="dev" class="stonith" type="fence_scsi">"#.to_owned()
        + &metas("m", &[("provides", "unfencing")])
        + "</primitive>";
    let active: [Active<'_>; 2] =
        [("n1", "dev", "fence_scsi", Role::Started), ("n1", "p", "Dummy", Role::Started)];
    let text = document(&[("n1", &transient)], "", &(device + &dummy("p")), "", &active);
    decided(&text.replacen(r#"value="false""#, r#"value="true""#, 1))
}

#[test]
fn a_node_that_remembers_other_devices_gets_access_anew() {
    let right = format!("dev:fence_scsi:{},", digest_of(&BTreeMap::new()));
    assert_eq!(steps(&access(None)), Vec::<String>::new());
    assert_eq!(steps(&access(Some(&right))), Vec::<String>::new());
    let other = access(Some("dev:fence_scsi:00000000000000000000000000000000,"));
    let steps = steps(&other);
    for step in ["stop p n1", "cluster n1", "start p n1"] {
        assert!(steps.iter().any(|s| s == step), "{step} in {steps:?}");
    }
    let lines = other.plan.summary.join("\n");
    assert!(!lines.contains("Fence (on)"), "no reason, no line: {lines}");
}

#[test]
fn without_startup_probes_nothing_is_looked_for() {
    let probes = |options: &str| {
        let e = decided(&document(TWO, options, &dummy("p"), "", &[]));
        steps(&e).iter().filter(|s| s.starts_with("probe")).count()
    };
    assert_eq!(probes(""), 2);
    assert_eq!(probes(&pair("e", "enable-startup-probes", "false")), 0);
}

#[test]
fn a_failed_stop_cannot_be_answered_by_stopping() {
    let answer = |word: &str| {
        let op = format!(
            r#"<operations><op id="o" name="stop" interval="0" on-fail="{word}"/></operations>"#
        );
        let mut text =
            document(TWO, "", &prim("p", "Dummy", &op), "", &[("n1", "p", "Dummy", Role::Started)]);
        text = text
            .replace(r#"operation="start""#, r#"operation="stop""#)
            .replace("p_start_0", "p_stop_0");
        text = text.replace(r#"rc-code="0""#, r#"rc-code="1""#).replace("0:0;", "0:1;");
        steps(&decided(&text))
    };
    // Without fencing it is blocked, whatever is written.
    let blocked = answer("block");
    assert_eq!(answer("stop"), blocked);
    assert_eq!(answer("standby"), blocked);
    assert_ne!(answer("ignore"), blocked);
}
