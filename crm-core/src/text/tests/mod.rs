//! Claims about the configure text.

pub(crate) mod arbitrary;
mod errors;

use super::{Event, Session, read, show};
use crate::cib::{Cib, Resource};
use crate::yaml;
use arbitrary::sorted;
use proptest::prelude::*;

/// Reads a text that must be right.
pub(crate) fn cib(text: &str) -> Cib {
    let mut session = Session::new(Cib::default(), 1);
    if let Err(wrong) = read("t", text, &mut session) {
        panic!("{}", wrong.iter().map(super::Diagnostic::render).collect::<String>());
    }
    session.cib().clone()
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_as_the_same(c in arbitrary::cib()) {
        let text = show(&c);
        let again = cib(&text);
        prop_assert_eq!(show(&again), text.clone(), "\n{}", text);
        prop_assert_eq!(sorted(again), sorted(c), "\n{}", text);
    }

    #[test]
    fn yaml_reads_back_as_the_same(c in arbitrary::cib()) {
        let text = yaml::to_yaml(&c);
        match yaml::from_yaml("t", &text) {
            Ok(again) => prop_assert_eq!(again, c, "\n{}", text),
            Err(wrong) => prop_assert!(false, "{}\n{}", wrong[0].render(), text),
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place(text in "(?s).{0,200}") {
        let (_, wrong) = super::parse("t", &text);
        for diagnostic in wrong {
            prop_assert!(diagnostic.line > 0 && diagnostic.column > 0 && diagnostic.length > 0);
        }
    }

    #[test]
    fn any_words_are_applied_or_refused(words in proptest::collection::vec(
        proptest::sample::select(vec![
            "primitive", "group", "ms", "order", "colocation", "location", "a", "b", "Dummy", "inf:", "(", ")",
            "[", "]", "op", "monitor", "params", "meta", "x=1", "\\\n", "\n", "delete", "modgroup", "add",
            "remove", "rename", "set", "a.x", "n", "node", "volume", "size=1MiB", "replica=n:/x", "rule", "100:",
        ]), 0..40)) {
        let mut session = Session::new(Cib::default(), 1);
        session.feed("t", &words.join(" "));
        while session.next_event().or_else(|| session.end()).is_some() {}
        // Whatever was taken can be shown and read again.
        let text = show(session.cib());
        prop_assert_eq!(sorted(cib(&text)), sorted(session.cib().clone()));
    }

    #[test]
    fn the_order_of_independent_statements_does_not_matter(
        order in Just(vec![0_usize, 1, 2, 3, 4]).prop_shuffle()
    ) {
        let lines = ["primitive a Dummy", "property x=1", "order o inf: a b", "node n", "primitive b Dummy"];
        let text: Vec<&str> = order.iter().map(|i| lines[*i]).collect();
        prop_assert_eq!(show(&cib(&text.join("\n"))), show(&cib(&lines.join("\n"))));
    }
}

#[test]
fn an_error_poisons_the_session() {
    let mut session = Session::new(Cib::default(), 1);
    session.feed("t", "primitive a Dummy\nprimitive a Dummy\ncommit\n");
    assert_eq!(session.next_event(), Some(Event::Changed));
    assert!(matches!(session.next_event(), Some(Event::Refused(_))));
    assert!(session.poisoned());
    assert!(matches!(session.next_event(), Some(Event::Verb(v)) if v.name == "commit"));
    assert!(session.poisoned());
    session.forgive();
    assert!(!session.poisoned() && session.dirty());
}

#[test]
fn a_session_takes_lines_as_they_are_typed() {
    let mut session = Session::new(Cib::default(), 1);
    session.feed("<stdin>", "primitive a Dummy \\");
    assert_eq!(session.next_event(), None);
    assert!(session.incomplete());
    session.feed("<stdin>", "\top monitor interval=5s");
    assert_eq!(session.next_event(), Some(Event::Changed));
    assert!(!session.incomplete());
    assert_eq!(session.cib().primitive("a").unwrap().ops[0].interval_ms(), 5000);
}

#[test]
fn nothing_that_was_fed_is_lost_when_another_file_follows() {
    let mut session = Session::new(Cib::default(), 1);
    session.feed("a", "primitive a Dummy\nprimitive b \\\n");
    session.feed("b", "primitive c Dummy");
    assert_eq!(session.next_event(), Some(Event::Changed));
    assert!(
        matches!(session.next_event(), Some(Event::Refused(e)) if (e.file.as_str(), e.line) == ("a", 2))
    );
    assert_eq!(session.next_event(), Some(Event::Changed));
    assert_eq!(session.next_event(), None);
    assert_eq!(session.cib().resources.len(), 2);
}

#[test]
fn properties_merge_and_nodes_are_updated() {
    let c =
        cib("property a=1\nproperty b=2\nproperty a=3\nnode 4: n\nnode n attributes standby=on\n");
    assert_eq!(c.properties.get("a"), Some("3"));
    assert_eq!(c.nodes.len(), 1);
    assert_eq!((c.nodes[0].id, c.nodes[0].attributes.get("standby")), (4, Some("on")));
}

fn members(c: &Cib, id: &str) -> Vec<String> {
    match c.resource(id) {
        Some(Resource::Group(g)) => g.members.iter().map(|m| m.id.clone()).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn modgroup_adds_moves_and_removes() {
    let base = "primitive a Dummy\nprimitive b Dummy\nprimitive c Dummy\ngroup g a b\n";
    let with = |line: &str| members(&cib(&format!("{base}{line}\n")), "g");
    assert_eq!(with("modgroup g add c"), ["a", "b", "c"]);
    assert_eq!(with("modgroup g add c before b"), ["a", "c", "b"]);
    assert_eq!(with("modgroup g add a after b"), ["b", "a"]);
    assert_eq!(with("modgroup g remove a"), ["b"]);
}

#[test]
fn the_demo_text_goes_on_top_of_the_seed() {
    let c = cib(concat!(
        include_str!("../../../../config/examples/seed-002.crm"),
        include_str!("../../../../config/examples/seed-002-demo.crm")
    ));
    assert_eq!(members(&c, "HA"), ["fs_nfs", "nfs", "exp_srv", "vip"]);
}

#[test]
fn delete_asks_before_it_takes_constraints_along() {
    let base = "primitive a Dummy\nprimitive b Dummy\ngroup g a b\norder o inf: g a\n";
    let mut session = Session::new(cib(base), 1);
    session.feed("t", "delete g");
    assert!(matches!(session.next_event(), Some(Event::Refused(e)) if e.code == "CRM0027"));
    session.feed("t", "delete --cascade g");
    assert_eq!(session.next_event(), Some(Event::Changed));
    assert!(session.cib().constraints.is_empty());
    assert_eq!(session.cib().resources.len(), 2);
    session.feed("t", "delete a b");
    assert_eq!(session.next_event(), Some(Event::Changed));
    assert!(session.cib().resources.is_empty());
}

#[test]
fn a_group_and_its_members_are_deleted_together() {
    let base = "primitive a Dummy\nprimitive b Dummy\ngroup g a b\nclone c g\norder o inf: c a\n";
    for ids in ["c g a b o", "o a b g c", "b c o a g"] {
        let c = cib(&format!("{base}delete {ids}\n"));
        assert!(c.resources.is_empty() && c.constraints.is_empty(), "{ids}: {}", show(&c));
    }
}

#[test]
fn rename_takes_constraints_along() {
    let c = cib("primitive a Dummy\nprimitive b Dummy\norder o inf: a b\nrename a z\n");
    assert_eq!(show(&c), "primitive b Dummy\nprimitive z Dummy\norder o Mandatory: z b\n");
}

#[test]
fn set_changes_parameters_meta_attributes_and_operations() {
    let c = cib("primitive a.b Dummy params x=1 op monitor interval=5s\nset a.b.x 2\n\
        set a.b.target-role Stopped\nset a.b.monitor.timeout 9\nset a.b.monitor.5.timeout 10\n\
        set cib-bootstrap-options.stonith-enabled false\n");
    assert_eq!(
        show(&c),
        "primitive a.b Dummy \\\n\tparams x=2 \\\n\tmeta target-role=Stopped \\\n\top monitor interval=5s timeout=10\nproperty cib-bootstrap-options: \\\n\tstonith-enabled=false\n"
    );
}

#[test]
fn monitor_adds_an_operation() {
    let c = cib("primitive a Dummy\nmonitor a:Master 20s:10s\n");
    assert_eq!(
        show(&c),
        "primitive a Dummy \\\n\top monitor interval=20s timeout=10s role=Master\n"
    );
}

#[test]
fn volumes_get_a_device_and_the_next_port() {
    let c = cib("volume r0 size=256MiB device=/dev/drbd0 replica=alpha:/a replica=delta:/d\n\
        volume r1 size=1g day0=00000000000000AB assume-clean=true replica=alpha:/b\n");
    assert_eq!((c.volumes[0].port, c.volumes[1].port), (7789, 7790));
    assert_eq!(c.volumes[1].device, "/dev/crm/by-name/r1");
    assert_eq!((c.volumes[1].size_bytes, c.volumes[1].day0), (1 << 30, 0xAB));
    assert_eq!(sorted(cib(&show(&c))), sorted(c));
}

#[test]
fn complete_keeps_what_a_text_does_not_say() {
    let base = cib(
        "node 1: alpha\nnode 2: delta\nvolume r0 size=1MiB day0=7 port=9000 replica=alpha:/a\n",
    );
    let text = "nodes:\n  alpha: {standby: on}\nvolumes:\n  r0: {size: 1MiB, replicas: {alpha: /a}}\n  r1: {size: 1MiB, replicas: {alpha: /b}}\n";
    let mut wanted = yaml::from_yaml("t", text).unwrap();
    let mut random = [0, 99].into_iter();
    super::complete(&base, &mut wanted, &mut || random.next().unwrap());
    assert_eq!(wanted.nodes.iter().map(|n| n.id).collect::<Vec<_>>(), [1, 2]);
    let volumes: Vec<_> = wanted.volumes.iter().map(|v| (v.port, v.day0)).collect();
    assert_eq!(volumes, [(9000, 7), (7789, 99)]);
}

#[test]
fn the_example_in_yaml_is_right_and_lint_finds_what_two_nodes_cannot_help() {
    let text = include_str!("../../../../config/examples/nfs.yaml");
    let example = yaml::from_yaml("nfs.yaml", text).unwrap();
    let codes: Vec<_> = crate::lint::lint(&example).into_iter().map(|f| f.code).collect();
    assert_eq!(codes, ["LINT003", "LINT004"]);
}

const LEVELS: &str =
    "primitive f1 stonith:fence_a\nprimitive f2 stonith:fence_b\nprimitive f3 stonith:fence_c\n";

#[test]
fn fencing_levels_are_shown_as_crmsh_shows_them() {
    // Each answer is crmsh 4.4.1's own.
    for (written, shown) in [
        ("fencing_topology f1,f2 f3", "fencing_topology f1,f2 f3"),
        (
            "fencing_topology alpha: f1,f2 f3 delta: f3",
            "fencing_topology \\\n\talpha: f1,f2 f3 \\\n\tdelta: f3",
        ),
        (
            "fencing_topology pattern:al.* f1,f2 f3 attr:rack=1 f3 delta: f2",
            "fencing_topology \\\n\tpattern:al.* f1,f2 f3 \\\n\tattr:rack=1 f3 \\\n\tdelta: f2",
        ),
    ] {
        let c = cib(&format!("{LEVELS}{written}\n"));
        assert_eq!(super::show_object(&c, "fencing_topology").as_deref(), Some(shown));
    }
}

#[test]
fn fencing_levels_that_cannot_be_read_are_refused_with_their_place() {
    for (text, code, column) in [
        ("fencing_topology", "CRM0004", 17),
        ("fencing_topology alpha:", "CRM0004", 24),
        ("fencing_topology alpha: delta: f1", "CRM0005", 25),
        ("fencing_topology alpha: f1,,f2", "CRM0024", 25),
        ("fencing_topology alpha: f1 alpha: f2", "CRM0023", 28),
        ("fencing_topology attr:rack f1", "CRM0009", 18),
    ] {
        let (_, wrong) = super::parse("t", text);
        let found: Vec<_> = wrong.iter().map(|d| (d.code.as_str(), d.column)).collect();
        assert_eq!(found, [(code, column)], "{text}");
    }
    let mut session = Session::new(cib(&format!("{LEVELS}fencing_topology f1\n")), 1);
    session.feed("t", "fencing_topology f2");
    assert!(matches!(session.next_event(), Some(Event::Refused(e)) if e.code == "CRM0010"));
}

#[test]
fn fencing_levels_follow_their_devices() {
    let base = format!("{LEVELS}node alpha\nfencing_topology alpha: f1,f2 f3 delta: f2\n");
    let levels =
        |text: &str| super::show_object(&cib(&format!("{base}{text}\n")), "fencing_topology");
    let shown = levels("rename f2 ipmi");
    assert_eq!(
        shown.as_deref(),
        Some("fencing_topology \\\n\talpha: f1,ipmi f3 \\\n\tdelta: ipmi")
    );
    let mut session = Session::new(cib(&base), 1);
    session.feed("t", "delete f2");
    assert!(matches!(session.next_event(), Some(Event::Refused(e)) if e.code == "CRM0027"));
    // A level without one of its devices would confirm what it cannot: it goes as a whole.
    let shown = levels("delete --cascade f2");
    assert_eq!(shown.as_deref(), Some("fencing_topology \\\n\talpha: f3"));
    assert_eq!(levels("delete fencing_topology"), None);
    assert_eq!(
        levels("delete --cascade alpha").as_deref(),
        Some("fencing_topology \\\n\tdelta: f2")
    );
}

#[test]
fn fencing_levels_name_fencing_devices_and_nodes_that_are_there() {
    let c = cib(&format!(
        "{LEVELS}node alpha\nprimitive d Dummy\nfencing_topology alpha: f1,f9 d omega: f2 pattern:( f3\n"
    ));
    let catalog = super::ListedAgents::default();
    let found = super::validate(&c, &super::Spans::new(), &catalog);
    let levels: Vec<_> = found
        .iter()
        .filter(|d| d.code != "CRM0014")
        .map(|d| (d.code.as_str(), d.message.as_str()))
        .collect();
    assert_eq!(
        levels,
        [
            ("CRM0012", "there is no fencing device `f9`"),
            ("CRM0012", "`d` is no fencing device (class `stonith`)"),
            ("CRM0013", "there is no node `omega` (in `fencing_topology`)"),
            ("CRM0031", "`(` is not a regular expression"),
        ]
    );
}

#[test]
fn parameters_of_fencing_devices_are_those_of_the_agent_and_of_the_cluster() {
    let c = cib(
        "primitive f stonith:fence_a params ip=1 adress=2 pcmk_host_list=x pcmk_reboot_retires=3 pcmk_list_timeout=4\n",
    );
    let params = [("ip".to_owned(), true), ("address".to_owned(), false)].into();
    let info = super::AgentInfo { params };
    let catalog = super::ListedAgents([("stonith:fence_a".to_owned(), info)].into());
    let found = super::validate(&c, &super::Spans::new(), &catalog);
    let told: Vec<_> =
        found.iter().map(|d| (d.code.as_str(), d.help.as_deref().unwrap_or_default())).collect();
    assert_eq!(
        told,
        [
            ("CRM0015", "did you mean `address`?"),
            ("CRM0018", "did you mean `pcmk_reboot_retries`?")
        ]
    );
}
