//! Each kind of mistake is refused with its place, a caret and the nearest known name.

use super::super::{AgentInfo, Diagnostic, ListedAgents, Session, read};
use crate::cib::Cib;

fn catalog() -> ListedAgents {
    let agent = |name: &str, params: &[(&str, bool)]| {
        let params = params.iter().map(|(name, required)| ((*name).to_owned(), *required));
        (name.to_owned(), AgentInfo { params: params.collect() })
    };
    ListedAgents(
        [
            agent("ocf:heartbeat:Dummy", &[("state", false), ("fake", false)]),
            agent(
                "ocf:heartbeat:Filesystem",
                &[("device", true), ("directory", true), ("fstype", true)],
            ),
            agent("ocf:crm:volume", &[("volume", true)]),
            agent("ocf:pacemaker:Stateful", &[("state", false)]),
        ]
        .into(),
    )
}

/// All that is wrong with a text.
fn wrong(text: &str) -> Vec<Diagnostic> {
    let mut session = Session::new(Cib::default(), 1).with_catalog(Box::new(catalog()));
    match read("f.crm", text, &mut session) {
        Err(wrong) => wrong,
        Ok(()) => session.validate(&catalog()),
    }
}

/// The first finding, rendered.
fn first(text: &str) -> String {
    wrong(text).first().map(Diagnostic::render).unwrap_or_default()
}

/// Codes and places.
fn found(text: &str) -> Vec<String> {
    wrong(text).iter().map(|d| format!("{} {}:{}", d.code, d.line, d.column)).collect()
}

#[test]
fn an_unknown_agent_is_shown_with_the_nearest_one() {
    assert_eq!(
        first("primitive fs Filesystme \\\n\tparams device=x\n"),
        "error[CRM0014]: there is no agent `ocf:heartbeat:Filesystme` (for `fs`)\n --> f.crm:1:14\n  |\n1 | primitive fs Filesystme \\\n  |              ^^^^^^^^^^\n  = help: did you mean `ocf:heartbeat:Filesystem`?\n"
    );
}

#[test]
fn an_unknown_and_a_missing_parameter_are_found() {
    assert_eq!(
        first("primitive fs Filesystem \\\n\tparams devcie=\"/dev/x\" directory=/a fstype=ext4\n"),
        "error[CRM0016]: `fs` lacks the parameter `device` of `ocf:heartbeat:Filesystem`\n --> f.crm:1:14\n  |\n1 | primitive fs Filesystem \\\n  |              ^^^^^^^^^^\n  = help: add `params device=...`\n"
    );
    assert_eq!(
        wrong("primitive fs Filesystem \\\n\tparams devcie=\"/dev/x\" directory=/a fstype=ext4\n")
            [1]
        .render(),
        "error[CRM0015]: `ocf:heartbeat:Filesystem` has no parameter `devcie`\n --> f.crm:2:9\n  |\n2 | \tparams devcie=\"/dev/x\" directory=/a fstype=ext4\n  | \t       ^^^^^^^^^^^^^^^\n  = help: did you mean `device`?\n"
    );
}

#[test]
fn unknown_nodes_resources_scores_roles_and_actions_are_found() {
    let base = "node alpha\nprimitive aa Dummy\nprimitive bb Dummy\n";
    let one = |line: &str| {
        let found = wrong(&format!("{base}{line}\n"));
        let d = found.first().unwrap_or_else(|| panic!("{line} is accepted"));
        format!("{} {}:{} {}", d.code, d.line, d.column, d.help.clone().unwrap_or_default())
    };
    assert_eq!(one("location l aa 100: alhpa"), "CRM0013 4:20 did you mean `alpha`?");
    assert_eq!(one("order o inf: aaa bb"), "CRM0012 4:14 did you mean `aa`?");
    assert_eq!(one("colocation c inf: aa bb:Mastr"), "CRM0007 4:25 did you mean `Master`?");
    assert_eq!(one("colocation c inf_: aa bb"), "CRM0006 4:14 did you mean `inf`?");
    assert_eq!(one("order o inf: aa:strat bb"), "CRM0008 4:17 did you mean `start`?");
    assert_eq!(one("order o madnatory: aa bb"), "CRM0008 4:9 did you mean `Mandatory`?");
    assert_eq!(one("group g aa bbb"), "CRM0011 4:12 did you mean `bb`?");
    assert_eq!(one("locaton l aa 100: alpha"), "CRM0002 4:1 did you mean `location`?");
    assert_eq!(one("location l aa role=Boss 100: alpha"), "CRM0007 4:20 ");
    assert_eq!(
        one("group g aa\ngroup h aa"),
        "CRM0022 5:9 a resource can be in one group or clone; `delete g` frees it"
    );
    assert_eq!(one("primitive aa Dummy"), "CRM0010 4:11 it was first defined at f.crm:2:11");
    assert_eq!(
        one("property a=\"b"),
        "CRM0001 4:12 close the quote, or write the character as `\\\"` inside double quotes"
    );
    assert_eq!(one("ms m aa notify=true"), "CRM0028 4:9 write `meta notify=true`");
    assert_eq!(
        one("rsc_ticket t x: aa"),
        "CRM0003 4:1 tickets (multi-site clusters) are not supported"
    );
    assert_eq!(one("location l aa rule 100: x eq y"), "CRM0026 4:15 write `SCORE: NODE`");
}

#[test]
fn bad_values_are_found() {
    assert_eq!(found("primitive a Dummy op monitor interval=5parsecs\n"), ["CRM0017 1:30"]);
    assert_eq!(found("primitive a Dummy meta target-role=Stoped\n"), ["CRM0007 1:24"]);
    assert_eq!(found("primitive a Dummy meta target-rloe=Stopped\n"), ["CRM0018 1:24"]);
    assert_eq!(found("property stonith-enabeld=false\n"), ["CRM0019 1:10"]);
    assert_eq!(found("property stonith-enabled=flase\n"), ["CRM0031 1:10"]);
    assert_eq!(found("property no-quorum-policy=ingore\n"), ["CRM0031 1:10"]);
    assert_eq!(found("node 1: a\nnode 1: b\n"), ["CRM0010 2:9"]);
    assert_eq!(found("volume v size=5 replica=a:/x\n"), ["CRM0025 1:10"]);
    assert_eq!(found("volume v size=1MiB replica=a:/x\n"), ["CRM0013 1:20"]);
}

#[test]
fn loops_of_orders_and_colocations_are_found() {
    let base = "primitive a Dummy\nprimitive b Dummy\nprimitive c Dummy\nprimitive s ocf:pacemaker:Stateful\ngroup g a b\nms m s\n";
    let codes = |lines: &str| {
        wrong(&format!("{base}{lines}\n")).into_iter().map(|d| d.code).collect::<Vec<_>>()
    };
    assert_eq!(codes("order o1 inf: a c\norder o2 inf: c a"), ["CRM0020"]);
    assert_eq!(codes("order o1 inf: b c\norder o2 inf: c g"), ["CRM0020"]);
    assert_eq!(
        codes("order o1 inf: m:promote g:start\norder o2 inf: b:start m:start"),
        ["CRM0020"]
    );
    assert_eq!(codes("order o1 inf: m:promote g:start\norder o2 inf: m:start c:start"), [""; 0]);
    assert_eq!(codes("order o1 Optional: a c\norder o2 inf: c a"), [""; 0]);
    assert_eq!(codes("colocation c1 inf: g m:Master\ncolocation c2 inf: m:Master g"), ["CRM0021"]);
    assert_eq!(codes("colocation c1 inf: m:Master g"), [""; 0]);
    assert_eq!(codes("colocation c1 inf: c a\ncolocation c2 inf: a c"), ["CRM0021"]);
    assert_eq!(codes("colocation c1 inf: c a\ncolocation c2 -inf: a c"), [""; 0]);
    assert_eq!(codes("colocation c1 inf: c c"), ["CRM0021"]);
}

#[test]
fn a_bare_type_is_found_in_our_own_and_pacemakers_agents_too() {
    let mut session = Session::new(Cib::default(), 1).with_catalog(Box::new(catalog()));
    read(
        "t",
        "primitive a volume params volume=r0\nprimitive b Stateful\nprimitive c Dummy\n",
        &mut session,
    )
    .unwrap();
    let agents: Vec<String> =
        session.cib().primitives().iter().map(|p| p.agent.to_string()).collect();
    assert_eq!(agents, ["ocf:crm:volume", "ocf:pacemaker:Stateful", "ocf:heartbeat:Dummy"]);
}

#[test]
fn all_errors_of_a_text_are_reported_at_once() {
    assert_eq!(
        found("primtive a Dummy\nprimitive b Dummy x\norder o much: b b\nproperty a='\n"),
        ["CRM0002 1:1", "CRM0005 2:19", "CRM0008 3:9", "CRM0001 4:12"]
    );
}

#[test]
fn a_bundle_can_be_written_and_not_be_committed_yet() {
    let text = "primitive d Dummy\nbundle b podman image=i replicas=2 network control-port=3121 \\\n\tport-mapping id=p port=80 primitive d meta notify=true\n";
    assert_eq!(found(text), ["CRM0003 2:8"]);
    assert_eq!(found("bundle b network control-port=1\n"), ["CRM0025 1:32"]);
    let apart = "primitive d Dummy\nbundle b docker image=i primitive d\n";
    assert_eq!(found(apart), ["CRM0025 2:36"], "there is no way to talk to what is inside");
}

#[test]
fn a_value_that_an_option_of_quorum_does_not_take_is_shown() {
    assert_eq!(
        first("property last_man_standing=perhaps\n"),
        "error[CRM0031]: `perhaps` is no value for `last_man_standing`\n --> f.crm:1:10\n  |\n1 | property last_man_standing=perhaps\n  |          ^^^^^^^^^^^^^^^^^^^^^^^^^\n  = expected: `1` or `0`\n"
    );
    assert_eq!(found("property wait_for_all=1 auto_tie_breaker_node=\"alpha delta\"\n"), [""; 0]);
}
