//! Sessions and one-shot commands against the real replicated state.

use crate::test_bed::{Bed, SEED, Scratch, shown};
use crm_core::cib::Role;
use crm_core::store::{Command, Edit};

#[test]
fn seed_002_commits_and_is_shown_as_crmsh_would() {
    let mut bed = Bed::seeded();
    let (code, out, _) = bed.crm(&["configure", "show"]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("node 1: alpha\nnode 2: delta\nprimitive drbd_nfs ocf:linbit:drbd \\\n"),
        "{out}"
    );
    assert!(
        out.contains("primitive fs_nfs Filesystem \\\n\tparams device=\"/dev/drbd0\""),
        "{out}"
    );
    assert!(out.contains("ms ms_drbd_nfs drbd_nfs \\\n\tmeta master-max=1"), "{out}");
    assert!(out.contains("stonith-enabled=false \\\n\tno-quorum-policy=ignore"), "{out}");
    let (code, one, _) = bed.crm(&["configure", "show", "loc"]);
    assert_eq!((code, one.as_str()), (0, "location loc ms_drbd_nfs 100: alpha\n"));
}

#[test]
fn an_error_in_a_text_means_that_nothing_of_it_is_committed() {
    let mut bed = Bed::new();
    let before = bed.state.clone();
    let text = SEED.replace("ms ms_drbd_nfs drbd_nfs", "ms ms_drbd_nfs drbd_nsf");
    let file = Scratch::new("bad.crm", &text);
    let (code, _, words) = bed.crm(&["configure", "-f", &file.path()]);
    assert_eq!(code, 1);
    assert!(words.contains("bad.crm:16:16"), "{words}");
    assert!(words.contains("did you mean `drbd_nfs`?"), "{words}");
    assert!(words.contains("not committed"), "{words}");
    assert_eq!(bed.state, before);
}

#[test]
fn an_unknown_parameter_is_refused_at_commit_with_its_place() {
    let mut bed = Bed::new();
    let before = bed.state.clone();
    let file = Scratch::new("param.crm", "# a\nprimitive d Dummy params stat=/x\ncommit\n");
    let (code, _, words) = bed.crm(&["configure", "-f", &file.path()]);
    assert_eq!(code, 1);
    assert!(words.contains("param.crm:2:26"), "{words}");
    assert!(words.contains("`state`"), "{words}");
    assert_eq!(bed.state, before);
}

#[test]
fn changes_without_commit_are_not_dropped_in_silence() {
    let mut bed = Bed::new();
    let file = Scratch::new("open.crm", "primitive d Dummy\n");
    let (code, _, words) = bed.crm(&["configure", "-f", &file.path()]);
    assert_eq!(code, 1);
    assert!(words.contains("not committed"), "{words}");
    assert!(bed.state.cib.resources.is_empty());
}

#[test]
fn an_outdated_commit_is_refused_and_shows_what_changed() {
    let mut bed = Bed::seeded();
    bed.meanwhile = Some(Command::Edit {
        edits: vec![Edit::NodeAttr {
            node: "delta".to_owned(),
            name: "standby".to_owned(),
            value: Some("on".to_owned()),
        }],
        author: "another".to_owned(),
        message: "crm node standby delta".to_owned(),
        when_ms: 1,
    });
    let (code, _, words) = bed.crm(&["configure", "primitive", "d", "Dummy"]);
    assert_eq!(code, 1);
    assert!(words.contains("standby=on"), "{words}");
    assert!(words.contains("+ primitive d Dummy"), "{words}");
    assert!(bed.state.cib.primitive("d").is_none());
}

#[test]
fn one_statement_on_the_command_line_is_committed_at_once() {
    let mut bed = Bed::new();
    let (code, _, words) =
        bed.crm(&["configure", "primitive", "d", "Dummy", "params", "fake=two words"]);
    assert_eq!(code, 0, "{words}");
    let primitive = bed.state.cib.primitive("d").unwrap();
    assert_eq!(primitive.params.get("fake"), Some("two words"));
    assert_eq!(bed.state.revisions.last().unwrap().message, "crm configure primitive d");
    let (code, _, words) = bed.crm(&["configure", "delete", "e"]);
    assert_eq!(code, 1);
    assert!(words.contains('e'), "{words}");
}

#[test]
fn an_unknown_command_is_not_run_and_the_nearest_is_named() {
    let mut bed = Bed::seeded();
    let version = bed.state.version;
    let (code, _, words) = bed.crm(&["configure", "locaton", "l1", "HA", "100:", "alpha"]);
    assert_eq!(code, 1);
    assert!(words.contains("did you mean `location`?"), "{words}");
    let (code, _, words) = bed.crm(&["stauts"]);
    assert_eq!(code, 1);
    assert!(words.contains("status"), "{words}");
    assert_eq!(bed.state.version, version);
}

#[test]
fn a_script_enters_levels_and_keeps_its_line_numbers() {
    let mut bed = Bed::new();
    let good = "# script\nconfigure\nprimitive d Dummy\ncommit\nup\nnode standby delta\n";
    let file = Scratch::new("good.crm", good);
    let (code, _, words) = bed.crm(&["-f", &file.path()]);
    assert_eq!(code, 0, "{words}");
    assert!(bed.state.cib.primitive("d").is_some());
    assert_eq!(bed.state.cib.node("delta").unwrap().attributes.get("standby"), Some("on"));
    let bad = "status\nconfigure\nprimitive e\ncommit\nup\nnode online delta\n";
    let file = Scratch::new("bad.crm", bad);
    let (code, _, words) = bed.crm(&["-f", &file.path()]);
    assert_eq!(code, 1);
    assert!(words.contains("bad.crm:3:"), "{words}");
    assert_eq!(bed.state.cib.node("delta").unwrap().attributes.get("standby"), Some("on"));
}

#[test]
fn load_update_replaces_what_has_the_same_name_and_keeps_the_rest() {
    let mut bed = Bed::seeded();
    let new = "primitive nfs nfsserver params nfs_ip=10.0.0.9\nproperty no-quorum-policy=stop\nprimitive d Dummy\n";
    let file = Scratch::new("new.crm", new);
    let (code, _, words) = bed.crm(&["configure", "load", "update", &file.path()]);
    assert_eq!(code, 0, "{words}");
    let cib = &bed.state.cib;
    assert_eq!(cib.primitive("nfs").unwrap().params.get("nfs_ip"), Some("10.0.0.9"));
    assert_eq!(cib.properties.get("no-quorum-policy"), Some("stop"));
    assert_eq!(cib.properties.get("stonith-enabled"), Some("false"));
    assert_eq!(cib.top_of("nfs").unwrap().id(), "HA");
    assert!(cib.primitive("d").is_some());
    assert_eq!(cib.constraints.len(), 4);
}

#[test]
fn what_export_prints_apply_takes_and_finds_no_difference() {
    let mut bed = Bed::seeded();
    let (code, yaml, _) = bed.crm(&["export"]);
    assert_eq!(code, 0);
    let file = Scratch::new("same.yaml", &yaml);
    let (code, out, words) = bed.crm(&["apply", &file.path()]);
    assert_eq!((code, out.as_str(), words.as_str()), (0, "", "nothing to change\n"));
    let text = shown(&bed.state.cib).replace("100: alpha", "50: delta");
    let file = Scratch::new("other.crm", &text);
    let (code, out, words) = bed.crm(&["diff", &file.path()]);
    assert_eq!(code, 0, "{words}");
    assert!(out.contains("loc") && out.contains("50: delta"), "{out}");
    let (code, _, words) = bed.crm(&["apply", &file.path(), "--wait"]);
    assert_eq!(code, 0, "{words}");
    assert!(shown(&bed.state.cib).contains("location loc ms_drbd_nfs 50: delta"));
}

#[test]
fn standby_and_online_write_the_attribute_that_crmsh_writes() {
    let mut bed = Bed::seeded();
    assert_eq!(bed.crm(&["node", "standby", "delta"]).0, 0);
    assert_eq!(bed.crm(&["node", "online", "delta"]).0, 0);
    let (_, out, _) = bed.crm(&["configure", "show", "delta"]);
    assert_eq!(out, "node 2: delta \\\n\tattributes standby=off\n");
    let (code, _, words) = bed.crm(&["node", "standby", "detla"]);
    assert_eq!(code, 1);
    assert!(words.contains("did you mean `delta`?"), "{words}");
}

#[test]
fn stopping_what_is_cloned_stops_the_clone_and_start_undoes_it() {
    let mut bed = Bed::seeded();
    let (code, _, words) = bed.crm(&["resource", "stop", "drbd_nfs"]);
    assert_eq!(code, 0, "{words}");
    let role = |bed: &Bed| {
        let clone = bed.state.cib.resource("ms_drbd_nfs").unwrap();
        clone.meta().get("target-role").map(str::to_owned)
    };
    assert_eq!(role(&bed).as_deref(), Some("Stopped"));
    let (code, _, words) = bed.crm(&["resource", "restart", "ms_drbd_nfs"]);
    assert_eq!(code, 1);
    assert!(words.contains("crm resource start ms_drbd_nfs"), "{words}");
    assert_eq!(bed.crm(&["resource", "start", "drbd_nfs"]).0, 0);
    assert_eq!(role(&bed).as_deref(), Some("Started"));
    let (code, _, words) = bed.crm(&["resource", "promote", "nfs"]);
    assert_eq!(code, 1);
    assert!(words.contains("not promotable"), "{words}");
}

#[test]
fn a_volume_is_made_once_with_a_first_generation_and_a_port() {
    let mut bed = Bed::new();
    let words = [
        "volume",
        "create",
        "r0",
        "256M",
        "--replica",
        "alpha:/var/a.img",
        "--replica",
        "delta:/var/d.img",
        "--device",
        "/dev/drbd0",
        "--assume-clean",
        "--wait",
    ];
    let (code, _, said) = bed.crm(&words);
    assert_eq!(code, 0, "{said}");
    let volume = bed.state.cib.volume("r0").unwrap();
    assert_eq!((volume.size_bytes, volume.port), (256 << 20, 7789));
    assert_ne!(volume.day0, 0);
    assert_eq!(bed.state.volumes["r0"].in_sync.len(), 2);
    let (code, _, said) = bed.crm(&words);
    assert_eq!(code, 1);
    assert!(said.contains("exists already"), "{said}");
    let (code, out, _) = bed.crm(&["volume", "status"]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("r0  256MiB  /dev/drbd0\n  in sync: [ alpha delta ]  epoch 1\n"),
        "{out}"
    );
}

#[test]
fn lint_names_what_is_wrong_with_seed_002() {
    let mut bed = Bed::seeded();
    let (code, out, _) = bed.crm(&["lint"]);
    assert_eq!(code, 0);
    for object in ["ms-drbd-nfs-with-ha", "stonith-enabled", "no-quorum-policy", "fs_nfs", "loc"] {
        assert!(out.contains(object), "{object} is not in:\n{out}");
    }
}

#[test]
fn the_log_names_every_revision() {
    let mut bed = Bed::seeded();
    assert_eq!(bed.crm(&["node", "standby", "alpha"]).0, 0);
    let (code, out, _) = bed.crm(&["log"]);
    assert_eq!(code, 0);
    assert!(out.contains("crm node standby alpha") && out.contains("crm configure"), "{out}");
}

/// A text whose last statement is wrong, where that is, and what the refusal says.
const BAD: &[(&str, &str, &str)] = &[
    ("primitive d Dumy", ":1:13", "Dummy"),
    ("primitive d Dummy params fak=1", ":1:26", "fake"),
    ("primitive d Dummy\nlocation l d 100: alhpa", ":2:19", "alpha"),
    ("primitive d Dummy\nlocation l b 100: alpha", ":2:12", "d"),
    ("primitive d Dummy\nlocation l d 1oo: alpha", ":2:14", "1oo"),
    ("primitive d Dummy params fake=\"x", ":1:31", "quot"),
    (
        "primitive a Dummy\nprimitive b Dummy\ncolocation c1 inf: a b\ncolocation c2 inf: b a",
        ":4:12",
        "loop",
    ),
];

#[test]
fn bad_input_is_refused_with_its_place_and_nothing_is_committed() {
    for (text, place, word) in BAD {
        let mut bed = Bed::new();
        let before = bed.state.clone();
        let file = Scratch::new("bad.crm", &format!("{text}\ncommit\n"));
        let (code, _, words) = bed.crm(&["configure", "-f", &file.path()]);
        assert_eq!(code, 1, "{text}: {words}");
        assert!(words.contains(&format!("bad.crm{place}")), "{text}: not at {place}:\n{words}");
        assert!(words.contains(word) && words.contains('^'), "{text}: no {word}:\n{words}");
        assert_eq!(bed.state, before, "{text}");
    }
}

#[test]
fn where_a_resource_runs_is_told_in_crmshs_words() {
    let mut bed = Bed::seeded();
    bed.runs("alpha", "drbd_nfs", Role::Promoted);
    bed.runs("delta", "drbd_nfs", Role::Started);
    bed.runs("alpha", "fs_nfs", Role::Started);
    let mut say = |id: &str| bed.crm(&["resource", "status", id]).1;
    assert_eq!(say("HA"), "resource HA is running on: alpha\n");
    assert_eq!(say("nfs"), "resource nfs is NOT running\n");
    assert_eq!(
        say("ms_drbd_nfs"),
        "resource ms_drbd_nfs is running on: alpha Promoted\nresource ms_drbd_nfs is running on: delta\n"
    );
}

#[test]
fn cleanup_of_a_group_cleans_its_members() {
    let mut bed = Bed::seeded();
    bed.runs("alpha", "nfs", Role::Started);
    bed.runs("alpha", "fs_nfs", Role::Started);
    bed.runs("alpha", "drbd_nfs", Role::Started);
    let (code, _, words) = bed.crm(&["resource", "cleanup", "HA", "alpha"]);
    assert_eq!(code, 0);
    assert_eq!(words, "Cleaned up fs_nfs on alpha\nCleaned up nfs on alpha\n");
    assert_eq!(bed.history("alpha").keys().collect::<Vec<_>>(), ["drbd_nfs"]);
}

#[test]
fn a_plan_of_what_would_happen_is_shown_before_it_does() {
    let mut bed = Bed::seeded();
    let text = format!("{}primitive d Dummy op monitor interval=10\n", shown(&bed.state.cib));
    let file = Scratch::new("more.crm", &text);
    for node in ["alpha", "delta"] {
        bed.history(node);
    }
    let version = bed.state.version;
    let (code, out, words) = bed.crm(&["apply", &file.path(), "--dry-run"]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(out, "+ primitive d Dummy op monitor interval=10\n");
    assert!(words.contains("the cluster would:") && words.contains("* Start d ("), "{words}");
    assert_eq!(bed.state.version, version);
}
