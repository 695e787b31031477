//! Claims about single rules of what is done and in which order, each on the smallest document that shows it.

use crate::plan::{Action, ActionId, ActionKind, ClusterOp, Plan, plan};
use crate::simulate::input;
use crate::xml::{Document, read};

const NOW_MS: u64 = 2_000_000_000;

/// A cluster of alpha and delta; `status` is what each of them has recorded and its attributes.
fn planned(properties: &str, resources: &str, status: [&str; 2]) -> Plan {
    planned_under(properties, resources, "", status)
}

/// The same with constraints.
fn planned_under(properties: &str, resources: &str, constraints: &str, status: [&str; 2]) -> Plan {
    plan(&input(&document(properties, resources, constraints, status)))
}

fn document(properties: &str, resources: &str, constraints: &str, status: [&str; 2]) -> Document {
    let [alpha, delta] = status;
    let state = |id: u32, name: &str, inner: &str| {
        format!(
            r#"<node_state id="{id}" uname="{name}" in_ccm="true" crmd="online" join="member" expected="member">{inner}</node_state>"#
        )
    };
    let text = format!(
        r#"<cib validate-with="pacemaker-3.9" have-quorum="1" dc-uuid="1"><configuration>
        <crm_config><cluster_property_set id="p">{properties}</cluster_property_set></crm_config>
        <nodes><node id="1" uname="alpha"/><node id="2" uname="delta"/></nodes>
        <resources>{resources}</resources><constraints>{constraints}</constraints></configuration>
        <status>{}{}</status></cib>"#,
        state(1, "alpha", alpha),
        state(2, "delta", delta)
    );
    read(&text, NOW_MS).expect("the document is well-formed")
}

fn pair(name: &str, value: &str) -> String {
    format!(r#"<nvpair id="n-{name}" name="{name}" value="{value}"/>"#)
}

fn no_fencing() -> String {
    pair("fencing-enabled", "false")
}

fn dummy(id: &str, inner: &str) -> String {
    format!(
        r#"<primitive id="{id}" class="ocf" provider="pacemaker" type="Dummy">{inner}</primitive>"#
    )
}

fn meta(name: &str, value: &str) -> String {
    format!(r#"<meta_attributes id="m-{name}">{}</meta_attributes>"#, pair(name, value))
}

fn lrm(histories: &[String]) -> String {
    format!(r#"<lrm id="x"><lrm_resources>{}</lrm_resources></lrm>"#, histories.concat())
}

fn history(id: &str, ops: &str) -> String {
    format!(
        r#"<lrm_resource id="{id}" class="ocf" provider="pacemaker" type="Dummy">{ops}</lrm_resource>"#
    )
}

/// Id of the entry, task, call, exit code, expected code, further attributes.
fn op(id: &str, task: &str, call: u32, (rc, wanted): (i32, i32), more: &str) -> String {
    let status = i32::from(rc != wanted) * 4;
    let interval = if more.contains("interval=") { "" } else { r#"interval="0""# };
    format!(
        r#"<lrm_rsc_op id="{id}" operation="{task}" {interval} call-id="{call}" rc-code="{rc}" op-status="{status}" transition-key="1:2:{wanted}:u" transition-magic="{status}:{rc};1:2:{wanted}:u" {more}/>"#
    )
}

fn started(id: &str) -> String {
    history(id, &op("s", "start", 1, (0, 0), ""))
}

fn stopped(id: &str) -> String {
    history(id, &op("m", "monitor", 1, (7, 7), ""))
}

fn attributes(pairs: &str) -> String {
    format!(
        r#"<transient_attributes id="1"><instance_attributes id="a">{pairs}</instance_attributes></transient_attributes>"#
    )
}

fn name(action: &Action) -> String {
    match &action.kind {
        ActionKind::Op(spec) => {
            let every = if spec.interval_ms == 0 {
                String::new()
            } else {
                format!("={}", spec.interval_ms)
            };
            format!("{} {}{every} {}", spec.resource, spec.op, spec.node)
        }
        ActionKind::CancelMonitor { node, resource, interval_ms } => {
            format!("{resource} cancel={interval_ms} {node}")
        }
        ActionKind::Cluster(ClusterOp::Forget { node, resource }) => {
            format!("{resource} forget {node}")
        }
        ActionKind::Cluster(ClusterOp::ClearFailures { node, resource }) => {
            format!("{resource} clear {node}")
        }
        ActionKind::Cluster(ClusterOp::Fence { node, how }) => format!("{how} {node}"),
        ActionKind::Cluster(ClusterOp::Shutdown { node }) => format!("shutdown {node}"),
        ActionKind::Pseudo { name } => name.clone(),
    }
}

/// Everything that is done, sorted.
fn steps(plan: &Plan) -> Vec<String> {
    let mut out: Vec<String> = plan.actions.iter().map(name).collect();
    out.sort_unstable();
    out
}

/// What a step waits for, directly.
fn needs(plan: &Plan, step: &str) -> Vec<String> {
    let action = plan.actions.iter().find(|a| name(a) == step).expect("the step is planned");
    let at = |id: &ActionId| usize::try_from(id.0).expect("few actions");
    action.needs.iter().map(|id| name(&plan.actions[at(id)])).collect()
}

#[test]
fn an_expired_probe_that_said_not_installed_is_repeated() {
    let old = op("r_last_failure_0", "monitor", 1, (5, 7), r#"last-rc-change="1000""#);
    let rsc = dummy("r", &meta("failure-timeout", "60s"));
    let plan = planned(&no_fencing(), &rsc, [&lrm(&[history("r", &old)]), &lrm(&[stopped("r")])]);
    assert!(steps(&plan).contains(&"r monitor alpha".to_owned()), "{:?}", steps(&plan));
}

#[test]
fn a_failure_before_the_last_start_begins_no_monitor_anew() {
    let digest = r#"interval="5000" op-digest="x" last-rc-change="1000""#;
    let ops = op("r_last_failure_0", "monitor", 1, (1, 0), digest)
        + &op("r_last_0", "start", 2, (0, 0), "")
        + &op("r_monitor_5000", "monitor", 3, (0, 0), r#"interval="5000""#);
    let monitor = r#"<operations><op id="o" name="monitor" interval="5s"/></operations>"#;
    let rsc = dummy("r", &(meta("failure-timeout", "60s") + monitor));
    let plan = planned(&no_fencing(), &rsc, [&lrm(&[history("r", &ops)]), &lrm(&[stopped("r")])]);
    assert_eq!(steps(&plan), Vec::<String>::new());
}

#[test]
fn a_failure_that_blocks_keeps_its_count_after_a_clean_stop() {
    let ops =
        op("r_monitor_5000", "monitor", 1, (1, 0), r#"interval="5000" last-rc-change="1000""#)
            + &op("r_last_0", "stop", 2, (0, 0), r#"last-rc-change="1000""#);
    let counted = attributes(
        &(pair("fail-count-r#monitor_5000", "1") + &pair("last-failure-r#monitor_5000", "1000")),
    );
    let clears = |on_fail: &str| {
        let monitor = format!(
            r#"<operations><op id="o" name="monitor" interval="5s" on-fail="{on_fail}"/></operations>"#
        );
        let rsc = dummy("r", &(meta("failure-timeout", "60s") + &monitor));
        let alpha = counted.clone() + &lrm(&[history("r", &ops)]);
        let plan = planned(&no_fencing(), &rsc, [&alpha, &lrm(&[stopped("r")])]);
        steps(&plan).contains(&"r clear alpha".to_owned())
    };
    assert!(clears("restart") && !clears("block"));
}

#[test]
fn what_is_not_configured_any_more_is_forgotten_by_its_own_name_and_its_failures_everywhere() {
    let alpha = lrm(&[stopped("gone:0"), stopped("gone:1")]);
    let counted = attributes(&pair("fail-count-gone:0#monitor_0", "1"));
    let plan = planned(&no_fencing(), "", [&alpha, &counted]);
    let wanted = ["gone:0 clear delta", "gone:0 forget alpha", "gone:1 forget alpha"];
    assert_eq!(steps(&plan), wanted);
}

#[test]
fn the_history_of_a_primitive_that_is_a_clone_now_is_forgotten() {
    let clone =
        format!(r#"<clone id="c">{}{}</clone>"#, dummy("r", ""), meta("target-role", "Stopped"));
    let plan = planned(
        &no_fencing(),
        &clone,
        [&lrm(&[stopped("c"), stopped("r")]), &lrm(&[stopped("r")])],
    );
    assert_eq!(steps(&plan), ["c forget alpha"]);
}

#[test]
fn an_own_operation_replaces_the_templates_of_that_name_and_role() {
    let template = r#"<template id="t" class="ocf" provider="pacemaker" type="Dummy"><operations>
        <op id="t5" name="monitor" interval="5s"/><op id="ts" name="monitor" interval="9s" role="Stopped"/></operations></template>"#;
    let rsc = r#"<primitive id="r" template="t"><operations><op id="r7" name="monitor" interval="7s" role="Started"/></operations></primitive>"#;
    let plan = planned(
        &no_fencing(),
        &format!("{template}{rsc}"),
        [&lrm(&[stopped("r")]), &lrm(&[stopped("r")])],
    );
    assert_eq!(steps(&plan), ["r monitor=7000 alpha", "r monitor=9000 delta", "r start alpha"]);
}

#[test]
fn a_changed_member_that_is_not_to_run_shows_the_start_of_its_group() {
    // The digest is of other parameters than none.
    let changed = history("b", &op("b_last_0", "start", 1, (0, 0), r#"op-digest="x""#));
    let group = format!(
        r#"<group id="g">{}{}</group>"#,
        dummy("a", &meta("target-role", "Started")),
        dummy("b", &meta("target-role", "Stopped"))
    );
    let other = lrm(&[stopped("a"), stopped("b")]);
    let plan = planned(&no_fencing(), &group, [&lrm(&[started("a"), changed]), &other]);
    assert_eq!(steps(&plan), ["b stop alpha", "g_start_0", "g_stop_0", "g_stopped_0"]);
    let plan = planned(&no_fencing(), &group, [&lrm(&[started("a"), started("b")]), &other]);
    assert_eq!(steps(&plan), ["b stop alpha", "g_stop_0", "g_stopped_0"]);
}

#[test]
fn a_device_that_is_another_one_now_gives_access_anew() {
    let device = format!(
        r#"<primitive id="f" class="stonith" type="fence_scsi">{}</primitive>"#,
        meta("provides", "unfencing")
    );
    let run = |kind: &str| {
        let ops = op("f_last_0", "start", 1, (0, 0), "");
        let history = |ops: &str| {
            format!(r#"<lrm_resource id="f" class="stonith" type="{kind}">{ops}</lrm_resource>"#)
        };
        let done = attributes(&pair("#node-unfenced", "5"));
        let alpha = done.clone() + &lrm(&[history(&ops)]);
        let delta = done + &lrm(&[history(&op("m", "monitor", 1, (7, 7), ""))]);
        steps(&planned("", &device, [&alpha, &delta]))
    };
    assert!(run("fence_virt").contains(&"on alpha".to_owned()), "{:?}", run("fence_virt"));
    assert_eq!(run("fence_scsi"), Vec::<String>::new());
}

#[test]
fn instances_that_are_ordered_wait_for_all_before_them_even_with_one_between_that_does_nothing() {
    let clone = format!(
        r#"<clone id="c">{}<meta_attributes id="m">{}{}{}</meta_attributes></clone>"#,
        dummy("r", ""),
        pair("ordered", "true"),
        pair("clone-max", "3"),
        pair("clone-node-max", "3") + &pair("globally-unique", "true")
    );
    let idle = lrm(&[stopped("r:0"), stopped("r:1"), stopped("r:2")]);
    let between = lrm(&[stopped("r:0"), started("r:1"), stopped("r:2")]);
    let plan = planned(&no_fencing(), &clone, [&between, &idle]);
    let last = steps(&plan).into_iter().find(|s| s.starts_with("r:2 start")).expect("it starts");
    assert!(
        needs(&plan, &last).iter().any(|s| s.starts_with("r:0 start")),
        "{:?}",
        needs(&plan, &last)
    );
}

#[test]
fn what_another_instance_has_left_on_a_node_changes_no_definition() {
    let clone = format!(r#"<clone id="c">{}</clone>"#, dummy("r", ""));
    let ops = |digest: &str| op("m", "monitor", 1, (7, 7), &format!(r#"op-digest="{digest}""#));
    // MD5 of no parameters; the other one is of something else.
    let now = r#"op-digest="f2317cad3d54cec5d7d7aa7d0bf35cf8""#;
    let runs = history("r:1", &op("s", "start", 2, (0, 0), now));
    let alpha = lrm(&[history("r:0", &op("s", "start", 2, (0, 0), now))]);
    let delta = lrm(&[history("r:0", &ops("x")), runs]);
    assert_eq!(steps(&planned(&no_fencing(), &clone, [&alpha, &delta])), Vec::<String>::new());
}

#[test]
fn a_group_takes_the_word_of_its_clone_for_being_ordered() {
    let run = |ordered: &str| {
        let group = format!(r#"<group id="g">{}{}</group>"#, dummy("a", ""), dummy("b", ""));
        let clone = format!(r#"<clone id="c">{group}{}</clone>"#, meta("ordered", ordered));
        let idle = lrm(&[stopped("a"), stopped("b")]);
        let plan = planned(&no_fencing(), &clone, [&idle, &idle]);
        needs(&plan, "b start alpha").contains(&"a start alpha".to_owned())
    };
    assert!(run("true") && !run("false"));
}

#[test]
fn what_is_thought_to_be_where_it_is_stopped_is_shown_as_restarted() {
    let peer = r#"migrate_source="alpha" migrate_target="delta""#;
    let rsc = dummy("r", &meta("allow-migrate", "true"));
    let alpha = op("s", "start", 1, (0, 0), "")
        + &op("m", "migrate_to", 2, (1, 0), peer)
        + &op("e", "stop", 3, (0, 0), "");
    let delta = op("p", "monitor", 1, (7, 7), "");
    let plan = planned(
        &no_fencing(),
        &rsc,
        [&lrm(&[history("r", &alpha)]), &lrm(&[history("r", &delta)])],
    );
    assert_eq!(plan.summary, ["* Restart r ( delta )"]);
}

#[test]
fn a_guest_that_moves_is_not_probed_and_what_might_run_there_starts_after_its_stop() {
    let vm = dummy("vm", &meta("remote-node", "g"));
    let connection = format!(
        r#"<lrm_resource id="g" class="ocf" provider="pacemaker" type="remote" container="vm">{}</lrm_resource>"#,
        op("s", "start", 2, (0, 0), "")
    );
    let standby = attributes(&pair("standby", "on"));
    let run = |attributes: &str| {
        let alpha =
            attributes.to_owned() + &lrm(&[started("vm"), connection.clone(), stopped("r")]);
        let delta = lrm(&[stopped("vm"), stopped("r")]);
        planned(&no_fencing(), &(vm.clone() + &dummy("r", "")), [&alpha, &delta])
    };
    let moves = run(&standby);
    assert!(!steps(&moves).contains(&"r monitor g".to_owned()), "{:?}", steps(&moves));
    let start = steps(&moves).into_iter().find(|s| s.starts_with("r start")).expect("it starts");
    assert!(
        needs(&moves, &start).contains(&"vm stop alpha".to_owned()),
        "{:?}",
        needs(&moves, &start)
    );
    assert!(steps(&run("")).contains(&"r monitor g".to_owned()));
}

#[test]
fn what_a_notification_came_to_says_nothing_of_the_state() {
    let ops = op("s", "start", 1, (0, 0), "") + &op("n", "notify", 2, (5, 0), "");
    let status = [&*lrm(&[history("r", &ops)]), &lrm(&[stopped("r")])];
    assert_eq!(steps(&planned(&no_fencing(), &dummy("r", ""), status)), Vec::<String>::new());
}

#[test]
fn what_is_demoted_for_a_failure_may_be_promoted_again_at_once() {
    let monitor = r#"<operations><op id="o" name="monitor" interval="5s" role="Promoted" on-fail="demote"/></operations>"#;
    let clone =
        format!(r#"<clone id="c">{}{}</clone>"#, meta("promotable", "true"), dummy("r", monitor));
    let ops = op("p", "promote", 1, (0, 0), "")
        + &op("f", "monitor", 2, (1, 8), r#"interval="5000" last-rc-change="1""#);
    let likes = attributes(&pair("master-r", "10"));
    let alpha = likes + &lrm(&[history("r", &ops)]);
    let plan = planned(&no_fencing(), &clone, [&alpha, &lrm(&[started("r")])]);
    assert_eq!(plan.summary, ["* Re-promote r:0 ( Promoted alpha )"]);
    let promote = steps(&plan).into_iter().find(|s| s.ends_with("promote alpha")).unwrap();
    assert!(steps(&plan).iter().any(|s| s.ends_with("demote alpha")), "{:?}", steps(&plan));
    assert!(!needs(&plan, &promote).is_empty());
}

#[test]
fn a_failed_monitor_that_is_not_configured_any_more_had_the_same_parameters() {
    let digest = super::recorded::written_digest(&[("CRM_meta_timeout", "20000")]);
    let more = format!(r#"interval="5000" op-digest="{digest}" last-rc-change="1""#);
    let ops =
        op("s", "start", 1, (0, 0), "") + &op("r_last_failure_0", "monitor", 2, (1, 0), &more);
    let alpha = lrm(&[history("r", &ops)]);
    let plan = planned(&no_fencing(), &dummy("r", ""), [&alpha, &lrm(&[stopped("r")])]);
    assert!(!steps(&plan).contains(&"r clear alpha".to_owned()), "{:?}", steps(&plan));
}

#[test]
fn a_device_that_is_not_configured_any_more_can_still_be_used_while_it_runs() {
    let device = |ops: &str| {
        format!(r#"<lrm_resource id="gone" class="stonith" type="fence_x">{ops}</lrm_resource>"#)
    };
    let alpha = lrm(&[device(&op("s", "start", 1, (0, 0), "")), stopped("r")]);
    let plan = planned("", &dummy("r", ""), [&alpha, &lrm(&[stopped("r")])]);
    let done = steps(&plan);
    assert!(done.contains(&"gone stop alpha".to_owned()), "{done:?}");
    assert!(done.iter().any(|s| s.starts_with("r start")), "{done:?}");
}

#[test]
fn a_constraint_about_what_is_in_a_clone_needs_the_clones_name_unless_its_instances_are_alike_and_known()
 {
    let runs = |unique: &str, known: &[String]| {
        let metas = meta("globally-unique", unique) + &meta("clone-max", "2").replace("m-", "n-");
        let clone = format!(r#"<clone id="c">{}{metas}</clone>"#, dummy("r", ""));
        let ban = r#"<rsc_location id="l" rsc="r" node="alpha" score="-INFINITY"/>"#;
        let status = [&*lrm(known), &lrm(known)];
        let plan = planned_under(&no_fencing(), &clone, ban, status);
        let told = plan.reasons.iter().any(|r| {
            r.code == "not-applied" && r.resource == "r" && r.text.starts_with("l is not applied")
        });
        (steps(&plan).iter().any(|s| s.contains("start alpha")), told)
    };
    // Where it starts all the same, the constraint was not applied, and that is told.
    let (heard, ignored) = ((false, false), (true, true));
    let known = [stopped("r")];
    assert_eq!((runs("false", &known), runs("true", &known)), (heard, ignored));
    assert_eq!((runs("false", &[]), runs("true", &[])), (ignored, ignored));
}

#[test]
fn a_clone_that_restarts_elsewhere_takes_the_migration_of_what_is_ordered_after_it() {
    let resources = format!(r#"<clone id="c">{}</clone>"#, dummy("a", ""))
        + &dummy("r", &meta("allow-migrate", "true"));
    let constraints = r#"<rsc_order id="o" first="c" then="r"/>
        <rsc_location id="l" rsc="r" node="delta" score="-INFINITY"/>"#;
    let run = |failure: &str| {
        let known = r#"op-digest="f2317cad3d54cec5d7d7aa7d0bf35cf8""#;
        let ops = op("s", "start", 1, (0, 0), known);
        let alpha = lrm(&[history("a", &(ops.clone() + failure)), stopped("r")]);
        let delta = lrm(&[history("a", &ops), history("r", &ops)]);
        planned_under(&no_fencing(), &resources, constraints, [&alpha, &delta]).summary
    };
    let failed = op("f", "monitor", 2, (1, 0), r#"interval="5000""#);
    assert_eq!(run(&failed), ["* Recover a:0 ( alpha )", "* Move r ( delta -> alpha )"]);
    assert_eq!(run(""), ["* Migrate r ( delta -> alpha )"]);
}

#[test]
fn without_fencing_under_its_newer_name_things_start_too() {
    let idle = lrm(&[stopped("r")]);
    let mut document = document(&no_fencing(), &dummy("r", ""), "", [&idle, &idle]);
    // The reader of XML turns the newer name into the older one; a configuration of our own has what was typed.
    assert!(document.cib.properties.unset("stonith-enabled"));
    document.cib.properties.set("fencing-enabled", "false");
    assert_eq!(steps(&plan(&input(&document))), ["r start alpha"]);
}
