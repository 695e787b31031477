//! Claims about lint.

use super::lint;
use crate::cib::Cib;
use crate::text::{Session, read};

fn codes(text: &str) -> Vec<String> {
    let mut session = Session::new(Cib::default(), 1);
    read("t", text, &mut session).unwrap();
    lint(session.cib()).into_iter().map(|f| format!("{} {}", f.code, f.object)).collect()
}

#[test]
fn the_seed_has_its_known_faults() {
    let text = include_str!("../../../config/examples/seed-002.crm");
    assert_eq!(
        codes(text),
        [
            "LINT001 ms-drbd-nfs-with-ha",
            "LINT002 loc",
            "LINT003 cib-bootstrap-options",
            "LINT004 cib-bootstrap-options",
            "LINT005 fs_nfs",
            "LINT006 nfs",
            "LINT008 drbd_nfs",
        ]
    );
}

#[test]
fn a_repaired_seed_has_none_of_them() {
    let text = "
        primitive st stonith:fence_dummy
        primitive drbd_nfs ocf:linbit:drbd params drbd_resource=r0 \\
            op monitor interval=15s role=Master op monitor interval=16s role=Slave
        primitive fs_nfs Filesystem params device=/dev/drbd0 directory=/srv fstype=ext4 op monitor interval=20s
        primitive nfs nfsserver params nfs_shared_infodir=/srv/nfs_shared op monitor interval=5s
        group HA fs_nfs nfs
        ms ms_drbd_nfs drbd_nfs meta notify=true
        order o Mandatory: ms_drbd_nfs:promote HA:start
        location loc ms_drbd_nfs 100: alpha
        colocation c inf: HA ms_drbd_nfs:Master
        rsc_defaults resource-stickiness=200
    ";
    assert_eq!(codes(text), [""; 0]);
}

#[test]
fn a_master_that_nothing_waits_for_is_found() {
    let text = "
        property stonith-enabled=false
        primitive s ocf:pacemaker:Stateful op monitor interval=5 role=Master
        ms m s
        primitive a Dummy op monitor interval=5
        colocation c inf: a m:Master
        location cli-prefer-a a inf: alpha
    ";
    assert_eq!(
        codes(text),
        [
            "LINT002 cli-prefer-a",
            "LINT003 cib-bootstrap-options",
            "LINT014 c",
            "LINT015 cli-prefer-a"
        ]
    );
}

#[test]
fn what_our_nodes_do_not_carry_out_is_told() {
    let text = "
        property stonith-enabled=false placement-strategy=balanced
        primitive vm ocf:heartbeat:VirtualDomain params config=/etc/vm.xml meta allow-migrate=true op monitor interval=10s on-fail=demote
        primitive s Dummy op monitor interval=5s op monitor interval=7s role=Stopped
        clone c s meta globally-unique=true clone-max=4 clone-node-max=2 allow-migrate=true
        primitive plain Dummy op monitor interval=5s on-fail=restart-container
    ";
    assert_eq!(
        codes(text),
        ["LINT003 cib-bootstrap-options", "LINT017 c", "LINT017 c", "LINT017 plain",]
    );
}

#[test]
fn nodes_that_no_device_can_fence_are_named() {
    let text = "node a\nnode b\nprimitive f stonith:fence_x params pcmk_host_list=b\nlocation l f -inf: a\n";
    assert_eq!(codes(text), ["LINT018 a", "LINT018 f"]);
    assert_eq!(
        codes(&format!("{text}property stonith-enabled=false\n")),
        ["LINT003 cib-bootstrap-options"]
    );
    assert_eq!(codes("node a\nnode b\nprimitive f stonith:fence_x\n"), [""; 0]);
    let on = "property stonith-watchdog-timeout=10s\n";
    let two = format!("node a\nnode b\n{on}");
    assert_eq!(
        codes(&two),
        ["LINT018 a", "LINT018 b"],
        "of two nodes each would wait for the other"
    );
    let three = "node a\nnode b\nnode c\nprimitive w stonith:fence_watchdog\n";
    assert_eq!(codes(three), ["LINT018 a", "LINT018 b", "LINT018 c"], "nobody relies on them");
    assert_eq!(codes(&format!("{three}{on}")), [""; 0]);
}
