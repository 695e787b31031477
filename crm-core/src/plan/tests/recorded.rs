//! Claims about recorded histories, remote and guest nodes, read from documents as Pacemaker writes them.

use crate::plan::{ActionKind, NodePlace, Plan, picture, plan};
use crate::simulate::input;
use crate::xml::{Document, read};

const NOW_MS: u64 = 2_000_000_000;

pub(super) fn node(id: u32, name: &str, inner: &str) -> String {
    format!(
        r#"<node_state id="{id}" uname="{name}" in_ccm="true" crmd="online" join="member" expected="member">{inner}</node_state>"#
    )
}

pub(super) fn lrm(resources: &str) -> String {
    format!(r#"<lrm id="x"><lrm_resources>{resources}</lrm_resources></lrm>"#)
}

pub(super) fn history(id: &str, kind: &str, ops: &str) -> String {
    format!(
        r#"<lrm_resource id="{id}" class="ocf" provider="pacemaker" type="{kind}">{ops}</lrm_resource>"#
    )
}

/// Task, call, exit code, expected code, further attributes.
pub(super) fn op(task: &str, call: i32, rc: i32, wanted: i32, more: &str) -> String {
    let status = if call < 0 { -1 } else { i32::from(rc != wanted) * 4 };
    let interval = if more.contains("interval=") { "" } else { r#"interval="0""# };
    format!(
        r#"<lrm_rsc_op id="x_{task}_{call}" operation="{task}" {interval} call-id="{call}" rc-code="{rc}" op-status="{status}" transition-key="1:2:{wanted}:u" transition-magic="{status}:{rc};1:2:{wanted}:u" {more}/>"#
    )
}

pub(super) fn dummy(id: &str, inner: &str) -> String {
    format!(
        r#"<primitive id="{id}" class="ocf" provider="pacemaker" type="Dummy">{inner}</primitive>"#
    )
}

pub(super) fn meta(pairs: &str) -> String {
    format!(r#"<meta_attributes id="m">{pairs}</meta_attributes>"#)
}

pub(super) fn pair(name: &str, value: &str) -> String {
    format!(r#"<nvpair id="n-{name}" name="{name}" value="{value}"/>"#)
}

pub(super) fn document(properties: &str, resources: &str, status: &str) -> Document {
    let text = format!(
        r#"<cib validate-with="pacemaker-3.9" have-quorum="1" dc-uuid="1"><configuration>
        <crm_config><cluster_property_set id="p">{properties}</cluster_property_set></crm_config>
        <nodes><node id="1" uname="alpha"/><node id="2" uname="delta"/></nodes>
        <resources>{resources}</resources><constraints/></configuration>
        <status>{status}</status></cib>"#
    );
    read(&text, NOW_MS).expect("the document is well-formed")
}

pub(super) fn no_fencing() -> String {
    pair("fencing-enabled", "false")
}

pub(super) fn operations(plan: &Plan) -> Vec<String> {
    let of = |kind: &ActionKind| match kind {
        ActionKind::Op(spec) if spec.interval_ms == 0 => {
            Some(format!("{} {} {}", spec.resource, spec.op, spec.node))
        }
        ActionKind::Op(_)
        | ActionKind::CancelMonitor { .. }
        | ActionKind::Cluster(_)
        | ActionKind::Pseudo { .. } => None,
    };
    plan.actions.iter().filter_map(|a| of(&a.kind)).collect()
}

fn active(document: &Document, id: &str) -> Vec<String> {
    let picture = picture(&input(document));
    let found = picture.resources.iter().flat_map(|r| r.leaves()).filter(|l| l.label == id);
    let mut out: Vec<String> =
        found.flat_map(|l| l.active.iter().map(|(node, _)| node.clone())).collect();
    out.sort_unstable();
    out
}

#[test]
fn a_migration_that_has_arrived_leaves_nothing_but_a_stop_behind() {
    let peer = r#"migrate_source="alpha" migrate_target="delta""#;
    let alpha =
        history("vm", "Dummy", &(op("start", 1, 0, 0, "") + &op("migrate_to", 2, 0, 0, peer)));
    let delta = history("vm", "Dummy", &op("migrate_from", 1, 0, 0, peer));
    let status = node(1, "alpha", &lrm(&alpha)) + &node(2, "delta", &lrm(&delta));
    let doc = document(&no_fencing(), &dummy("vm", ""), &status);
    assert_eq!(active(&doc, "vm"), ["delta"]);
    assert_eq!(operations(&plan(&input(&doc))), ["vm stop alpha"]);
}

#[test]
fn a_migration_whose_second_half_is_missing_counts_on_both_nodes() {
    let peer = r#"migrate_source="alpha" migrate_target="delta""#;
    let alpha =
        history("vm", "Dummy", &(op("start", 1, 0, 0, "") + &op("migrate_to", 2, 0, 0, peer)));
    let delta = history("vm", "Dummy", &op("monitor", 1, 7, 7, ""));
    let status = node(1, "alpha", &lrm(&alpha)) + &node(2, "delta", &lrm(&delta));
    let doc = document(&no_fencing(), &dummy("vm", ""), &status);
    // The probe is of no known time, so it does not say more than the migration.
    assert_eq!(active(&doc, "vm"), ["alpha", "delta"]);
}

#[test]
fn an_expired_failure_is_forgotten_and_its_monitor_begins_again() {
    let inner = meta(&pair("failure-timeout", "60s"))
        + r#"<operations><op id="o" name="monitor" interval="10s"/></operations>"#;
    let old = r#"interval="10000" last-rc-change="1000" op-digest="x""#;
    let ops = op("start", 1, 0, 0, "") + &op("monitor", 2, 7, 0, old);
    let status = node(1, "alpha", &lrm(&history("a", "Dummy", &ops)))
        + &node(2, "delta", &lrm(&history("a", "Dummy", &op("monitor", 1, 7, 7, ""))));
    let plan = plan(&input(&document(&no_fencing(), &dummy("a", &inner), &status)));
    assert!(operations(&plan).is_empty(), "{:?}", operations(&plan));
    let again = |k: &ActionKind| matches!(k, ActionKind::Op(s) if s.interval_ms == 10_000);
    assert!(plan.actions.iter().any(|a| again(&a.kind)));
}

#[test]
fn a_failed_stop_without_fencing_is_blocked_and_with_fencing_fences() {
    let ops = op("start", 1, 0, 0, "") + &op("stop", 2, 1, 0, "");
    let known = node(2, "delta", &lrm(&history("a", "Dummy", &op("monitor", 1, 7, 7, ""))));
    let status = node(1, "alpha", &lrm(&history("a", "Dummy", &ops))) + &known;
    let blocked = document(&no_fencing(), &dummy("a", ""), &status);
    assert!(plan(&input(&blocked)).actions.is_empty());
    let device = r#"<primitive id="f" class="stonith" type="fence_x"/>"#;
    let fencing = document("", &(dummy("a", "") + device), &status);
    let summary = plan(&input(&fencing)).summary;
    assert!(
        summary.iter().any(|l| l.contains("Fence (reboot) alpha 'a failed there'")),
        "{summary:?}"
    );
}

const GUEST: &str = r#"<primitive id="vm" class="ocf" provider="pacemaker" type="Dummy"><meta_attributes id="m"><nvpair id="n" name="remote-node" value="guest"/></meta_attributes></primitive>"#;

#[test]
fn a_guest_is_read_only_when_what_it_lives_in_and_its_connection_run() {
    let guest = format!(
        r#"<node_state remote_node="true" id="guest" uname="guest">{}</node_state>"#,
        lrm(&history("a", "Dummy", &op("start", 1, 0, 0, "")))
    );
    let up = history("vm", "Dummy", &op("start", 1, 0, 0, ""))
        + &history("guest", "remote", &op("start", 2, 0, 0, ""));
    let down = history("vm", "Dummy", &op("monitor", 1, 7, 7, ""))
        + &history("guest", "remote", &op("monitor", 2, 7, 7, ""));
    // The guest's state stands before that of its host.
    let with = |host: &str| {
        let status = guest.clone() + &node(1, "alpha", &lrm(host)) + &node(2, "delta", "");
        document(&no_fencing(), &(GUEST.to_owned() + &dummy("a", "")), &status)
    };
    assert_eq!(active(&with(&up), "a"), ["guest"]);
    assert!(active(&with(&down), "a").is_empty());
    let picture = picture(&input(&with(&up)));
    let guest = picture.nodes.iter().find(|n| n.name == "guest").expect("the guest is a node");
    assert_eq!((guest.place, guest.online), (NodePlace::Guest, true));
}

#[test]
fn what_is_placed_on_a_guest_starts_after_the_connection_to_it() {
    let none = |id: &str, kind: &str| history(id, kind, &op("monitor", 1, 7, 7, ""));
    let member = |n: u32, name: &str| {
        node(n, name, &lrm(&(none("vm", "Dummy") + &none("guest", "remote") + &none("a", "Dummy"))))
    };
    let doc = document(
        &no_fencing(),
        &(GUEST.to_owned() + &dummy("a", "")),
        &(member(1, "alpha") + &member(2, "delta")),
    );
    let mut doc = doc;
    for name in ["alpha", "delta"] {
        doc.cib.constraints.push(crate::cib::Constraint::Location(crate::cib::Location {
            id: format!("ban-{name}"),
            target: crate::cib::LocationTarget::Resource("a".to_owned()),
            score: crate::cib::Score::NEG_INF,
            node: name.to_owned(),
            role: None,
            discovery: None,
        }));
    }
    let plan = plan(&input(&doc));
    let at = |wanted: &str| operations(&plan).iter().position(|o| o.starts_with(wanted));
    let (connection, service) = (at("guest start").unwrap(), at("a start guest").unwrap());
    assert!(at("vm start").unwrap() < connection && connection < service);
}

#[test]
fn parameters_that_rules_give_on_single_nodes_are_those_of_each_node() {
    let on = |node: &str, value: &str| {
        format!(
            r##"<instance_attributes id="i-{node}"><rule id="r-{node}" score="INFINITY"><expression id="e-{node}" attribute="#uname" operation="eq" value="{node}"/></rule>{}</instance_attributes>"##,
            pair("nic", value).replace("n-nic", &format!("n-{node}"))
        )
    };
    let prim = dummy("a", &(on("alpha", "eth1") + &on("delta", "eth2")));
    // Started with what holds on alpha: nothing has changed.
    let digest = written_digest(&[("nic", "eth1")]);
    let start = op("start", 1, 0, 0, &format!(r#"op-digest="{digest}""#));
    let none = history("a", "Dummy", &op("monitor", 1, 7, 7, ""));
    let with = |start: &str| {
        let alpha = lrm(&history("a", "Dummy", start));
        let status = node(1, "alpha", &alpha) + &node(2, "delta", &lrm(&none));
        plan(&input(&document(&no_fencing(), &prim, &status)))
    };
    assert!(operations(&with(&start)).is_empty());
    let other = start.replace(&digest, &written_digest(&[("nic", "eth2")]));
    assert_eq!(operations(&with(&other)), ["a stop alpha", "a start alpha"]);
    // Probes ask with what holds where they ask.
    let status = node(1, "alpha", "") + &node(2, "delta", "");
    let asks = plan(&input(&document(&no_fencing(), &prim, &status)));
    let mut seen: Vec<(String, String)> = Vec::new();
    for action in &asks.actions {
        if let ActionKind::Op(spec) = &action.kind {
            seen.push((spec.node.clone(), spec.params["nic"].clone()));
        }
    }
    assert!(seen.contains(&("alpha".to_owned(), "eth1".to_owned())), "{seen:?}");
    assert!(seen.contains(&("delta".to_owned(), "eth2".to_owned())), "{seen:?}");
    assert_eq!(seen.len(), 3, "two probes and a start");
}

/// What Pacemaker notes of parameters.
pub(super) fn written_digest(pairs: &[(&str, &str)]) -> String {
    let pairs: std::collections::BTreeMap<String, String> =
        pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    crate::plan::md5::hex(&crate::plan::params::written(pairs.iter()))
}

#[test]
fn parameters_of_an_operation_reach_its_agent_and_its_settings_do_not() {
    let inner = r#"<operations><op id="o" name="monitor" interval="10s" timeout="7s" on-fail="stop"><instance_attributes id="oi">
        <nvpair id="oi1" name="trace_ra" value="1"/><nvpair id="oi2" name="OCF_CHECK_LEVEL" value="10"/></instance_attributes></op></operations>"#;
    let status = node(1, "alpha", "") + &node(2, "delta", "");
    let plan = plan(&input(&document(&no_fencing(), &dummy("a", inner), &status)));
    let watch = plan.actions.iter().find_map(|a| match &a.kind {
        ActionKind::Op(spec) if spec.interval_ms == 10_000 => Some(&spec.params),
        ActionKind::Op(_)
        | ActionKind::CancelMonitor { .. }
        | ActionKind::Cluster(_)
        | ActionKind::Pseudo { .. } => None,
    });
    let own: Vec<_> = watch.unwrap().keys().filter(|k| !k.starts_with("CRM_meta_")).collect();
    assert_eq!(own, ["OCF_CHECK_LEVEL", "trace_ra"]);
}

#[test]
fn without_startup_probes_nothing_is_looked_for_and_nothing_waits_for_that() {
    let status = node(1, "alpha", &lrm("")) + &node(2, "delta", &lrm(""));
    let off = no_fencing() + &pair("enable-startup-probes", "false");
    let of = |properties: &str| {
        let document = document(properties, &dummy("a", ""), &status);
        operations(&plan(&input(&document)))
    };
    assert_eq!(of(&off), ["a start alpha"]);
    assert_eq!(of(&no_fencing()).len(), 3, "two probes and the start");
}

#[test]
fn an_instance_whose_own_target_role_allows_it_is_promoted_whatever_its_clone_says() {
    let clone = |own: &str| {
        format!(
            r#"<clone id="c"><meta_attributes id="cm">{}{}</meta_attributes>
            <primitive id="p" class="ocf" provider="pacemaker" type="Stateful">{own}</primitive></clone>"#,
            pair("promotable", "true"),
            pair("target-role", "Unpromoted")
        )
    };
    let attributes = r#"<transient_attributes id="1"><instance_attributes id="t">
        <nvpair id="pr" name="master-p" value="5"/></instance_attributes></transient_attributes>"#;
    let status = node(1, "alpha", &(lrm("") + attributes)) + &node(2, "delta", &lrm(""));
    let promotes = |own: &str| {
        let document = document(&no_fencing(), &clone(own), &status);
        operations(&plan(&input(&document))).contains(&"p promote alpha".to_owned())
    };
    assert!(promotes(&meta(&pair("target-role", "Started"))));
    assert!(!promotes(""));
}
