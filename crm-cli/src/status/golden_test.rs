//! Golden texts of `crm status`: seed 002's cluster in the states that its owner knows.

use crate::test_bed::Bed;
use crm_core::cib::Role;
use crm_core::status::{ExecStatus, OpResult, Removed, ResourceHistory};
use crm_proto::local::Mode;

fn healthy() -> Bed {
    let mut bed = Bed::seeded();
    bed.runs("alpha", "drbd_nfs", Role::Promoted);
    bed.runs("delta", "drbd_nfs", Role::Started);
    bed.runs("alpha", "fs_nfs", Role::Started);
    bed.runs("alpha", "nfs", Role::Started);
    bed
}

fn status(bed: &mut Bed, words: &[&str]) -> String {
    let mut all = vec!["status"];
    all.extend(words);
    let (code, out, err) = bed.crm(&all);
    assert_eq!((code, err.as_str()), (0, ""));
    out
}

fn check(got: &str, want: &str) {
    assert!(got == want, "--- got\n{got}\n--- want\n{want}");
}

const HEAD: &str = "\
Cluster Summary:
  * Stack: crm
  * Current DC: delta (version 0.1.0) - partition with quorum
  * Last updated: Mon Dec 10 13:53:21 2018 on alpha
  * Last change:  Mon Dec 10 13:40:23 2018 by root@alpha via crm configure
  * 2 nodes configured
  * 4 resource instances configured
  * Fencing: OFF (stonith-enabled=false): a node that hangs is not stopped before its resources are taken over

";

#[test]
fn a_healthy_cluster_reads_like_pacemakers() {
    let want = format!(
        "{HEAD}\
Node List:
  * Online: [ alpha delta ]

Full List of Resources:
  * Resource Group: HA:
    * fs_nfs\t(ocf:heartbeat:Filesystem):\t Started alpha
    * nfs\t(ocf:heartbeat:nfsserver):\t Started alpha
  * Clone Set: ms_drbd_nfs [drbd_nfs] (promotable):
    * Promoted: [ alpha ]
    * Unpromoted: [ delta ]
"
    );
    check(&status(&mut healthy(), &["-r"]), &want);
}

#[test]
fn by_node_lists_what_each_node_runs() {
    let got = status(&mut healthy(), &["bynode"]);
    check(
        got.strip_prefix(HEAD).unwrap(),
        "\
Node List:
  * Node alpha: online:
    * Resources:
      * fs_nfs\t(ocf:heartbeat:Filesystem):\t Started
      * nfs\t(ocf:heartbeat:nfsserver):\t Started
      * drbd_nfs\t(ocf:linbit:drbd):\t Promoted
  * Node delta: online:
    * Resources:
      * drbd_nfs\t(ocf:linbit:drbd):\t Unpromoted
",
    );
}

#[test]
fn a_drained_node_is_standby_and_its_instance_is_stopped() {
    let mut bed = Bed::seeded();
    bed.runs("delta", "drbd_nfs", Role::Promoted);
    bed.runs("alpha", "drbd_nfs", Role::Stopped);
    bed.runs("delta", "fs_nfs", Role::Started);
    bed.runs("delta", "nfs", Role::Started);
    let (code, _, words) = bed.crm(&["node", "standby", "alpha", "--wait"]);
    assert_eq!((code, words.as_str()), (0, "alpha is standby; nothing runs on it\n"));
    let got = status(&mut bed, &[]);
    let (_, rest) = got.split_once("Node List:\n").unwrap();
    check(
        rest,
        "  * Node alpha: standby
  * Online: [ delta ]

Full List of Resources:
  * Resource Group: HA:
    * fs_nfs\t(ocf:heartbeat:Filesystem):\t Started delta
    * nfs\t(ocf:heartbeat:nfsserver):\t Started delta
  * Clone Set: ms_drbd_nfs [drbd_nfs] (promotable):
    * Promoted: [ delta ]
    * Stopped: [ alpha ]
",
    );
}

#[test]
fn what_is_not_configured_any_more_is_shown_as_long_as_it_runs() {
    let mut bed = healthy();
    let history = ResourceHistory { role: Some(Role::Started), ..ResourceHistory::default() };
    bed.history("delta").insert("old".to_owned(), history);
    let mut old = bed.state.cib.primitive("nfs").unwrap().clone();
    old.id = "old".to_owned();
    let removed = Removed { primitive: old, cloned: false, promotable: false };
    bed.state.status.removed.insert("old".to_owned(), removed);
    let got = status(&mut bed, &[]);
    assert!(
        got.contains("  * old\t(ocf:heartbeat:nfsserver):\t ORPHANED Started delta\n"),
        "{got}"
    );
}

#[test]
fn a_failure_is_named_with_its_action_reason_and_time() {
    let mut bed = healthy();
    let failure = OpResult {
        resource: "nfs".to_owned(),
        op: "monitor".to_owned(),
        interval_ms: 5000,
        rc: 7,
        expected_rc: 0,
        status: ExecStatus::Complete,
        reason: "no process".to_owned(),
        digest: 0,
        call_id: 9,
        when_ms: 1_544_449_900_000,
        exec_ms: 20,
        peer: None,
    };
    bed.history("alpha").insert(
        "nfs".to_owned(),
        ResourceHistory {
            role: Some(Role::Started),
            failure: Some(failure),
            fail_count: 1,
            last_failure_ms: 1_544_449_900_000,
            ..ResourceHistory::default()
        },
    );
    let got = status(&mut bed, &[]);
    assert!(
        got.contains("    * nfs\t(ocf:heartbeat:nfsserver):\t FAILED Started alpha\n"),
        "{got}"
    );
    let (_, rest) = got.split_once("Migration Summary:\n").unwrap();
    check(
        rest,
        "  * Node: alpha:
    * nfs: migration-threshold=1000000 fail-count=1 last-failure='Mon Dec 10 13:51:40 2018'

Failed Resource Actions:
  * nfs 5s-interval monitor on alpha returned 'not running' (no process) at Mon Dec 10 13:51:40 2018 after 20ms
",
    );
    let json: serde_json::Value = serde_json::from_str(&status(&mut bed, &["-o", "json"])).unwrap();
    assert_eq!(json["failures"][0]["op_key"], "nfs_monitor_5000");
    assert_eq!(json["resources"][0]["resources"][1]["failed"], true);
}

#[test]
fn a_node_that_runs_alone_says_so_first() {
    let mut bed = healthy();
    bed.mode = Mode::Alone;
    let got = status(&mut bed, &[]);
    assert!(
        got.starts_with("*** ALONE: alpha has lost its peer and runs on from its last state"),
        "{got}"
    );
    assert!(got.contains("  * Current DC: NONE\n"), "{got}");
    assert!(got.contains("  * Online: [ alpha ]\n  * OFFLINE: [ delta ]\n"), "{got}");
    assert!(got.contains("    * Promoted: [ alpha ]\n    * Stopped: [ delta ]\n"), "{got}");
}

#[test]
fn json_has_crm_mons_field_names() {
    let json: serde_json::Value =
        serde_json::from_str(&status(&mut healthy(), &["-o", "json"])).unwrap();
    assert_eq!(json["summary"]["current_dc"]["name"], "delta");
    assert_eq!(json["summary"]["current_dc"]["with_quorum"], true);
    assert_eq!(json["summary"]["resources_configured"]["number"], 4);
    assert_eq!(json["nodes"][0]["name"], "alpha");
    assert_eq!(json["nodes"][0]["resources_running"], 3);
    assert_eq!(json["nodes"][1]["is_dc"], true);
    let clone = &json["resources"][1];
    assert_eq!(clone["multi_state"], true);
    assert_eq!(clone["resources"][0]["role"], "Promoted");
    assert_eq!(clone["resources"][0]["nodes"][0]["name"], "alpha");
    assert_eq!(clone["resources"][1]["role"], "Unpromoted");
}

#[test]
fn no_resources_is_said() {
    let got = status(&mut Bed::new(), &[]);
    assert!(got.ends_with("Full List of Resources:\n  * No resources\n"), "{got}");
}
