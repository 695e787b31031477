//! Claims about fencing. Tables of words first, then the machine step by step (`requests`), then laws on random worlds (`laws`).

mod laws;
mod requests;

use super::{Abilities, Action, Answers, Config, Query, Reach, Verb};
use crate::cib::Cib;
use crate::text::{Session, read};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn cib(text: &str) -> Cib {
    let mut session = Session::new(Cib::default(), 1);
    read("t", text, &mut session).unwrap();
    session.cib().clone()
}

/// Agents of the tests: one for each kind of ability.
pub(super) fn abilities() -> BTreeMap<String, Abilities> {
    let with = |actions: &str, host: Option<&str>| Abilities {
        actions: actions.split_whitespace().map(str::to_owned).collect(),
        host_parameter: host.map(str::to_owned),
        ..Abilities::default()
    };
    let all = "on off reboot status list monitor metadata";
    let scsi = Abilities { on_target: true, unfences: true, ..with("on off status monitor", None) };
    [
        ("fence_full", with(all, Some("plug"))),
        ("fence_status", with("on off reboot status monitor", Some("port"))),
        ("fence_plain", with("on off reboot monitor", Some("port"))),
        ("fence_power", with("on off status monitor", Some("plug"))),
        ("fence_scsi", scsi),
    ]
    .map(|(name, abilities)| (name.to_owned(), abilities))
    .into()
}

pub(super) fn config(text: &str) -> Config {
    Config::read(&cib(text), &abilities(), 5_000)
}

fn set(words: &str) -> BTreeSet<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn hosts_are_matched_as_the_table_says() {
    // agent and parameters | node | answer before the device was asked | port
    let table = r#"
        plain                                                  | alpha | yes    | alpha
        status                                                 | alpha | status | alpha
        full                                                   | alpha | list   | alpha
        full pcmk_host_list="alpha delta"                      | alpha | yes    | alpha
        full pcmk_host_list="alpha,delta;x"                    | delta | yes    | delta
        full pcmk_host_list="ALPHA"                            | alpha | yes    | alpha
        full pcmk_host_list="alpha"                            | delta | no     | delta
        full pcmk_host_map="alpha:1;delta:2,3"                 | delta | yes    | 2,3
        full pcmk_host_map="alpha=1 delta=2"                   | alpha | yes    | 1
        full pcmk_host_map="alpha:a\\:b"                       | alpha | yes    | a:b
        full pcmk_host_map="alpha:1"                           | delta | no     | delta
        full pcmk_host_list="delta" pcmk_host_map="alpha:1"    | delta | yes    | delta
        full pcmk_host_check=none                              | omega | yes    | omega
        full pcmk_host_check=status                            | alpha | status | alpha
        full pcmk_host_check=dynamic-list pcmk_host_list=alpha | alpha | list   | alpha
        full pcmk_host_check=static-list                       | alpha | no     | alpha
        full pcmk_host_check=oracle                            | alpha | no     | alpha
    "#;
    for line in table.trim().lines() {
        let [device, node, answer, port] =
            line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap();
        let c =
            config(&format!("primitive f stonith:fence_{}\n", device.replacen(' ', " params ", 1)));
        let found = c.device("f").unwrap();
        let word = match found.reach(node, &Answers::default(), &set(""), 0) {
            Reach::Yes => "yes",
            Reach::No(_) => "no",
            Reach::Ask(Query::List) => "list",
            Reach::Ask(Query::Status) => "status",
        };
        assert_eq!((word, found.port(node).as_str()), (answer, port), "{line}");
    }
}

#[test]
fn what_a_device_answered_is_taken_for_a_minute() {
    let c = config(
        "primitive f stonith:fence_full params pcmk_host_check=dynamic-list pcmk_host_map=delta:2\n",
    );
    let f = c.device("f").unwrap();
    let mut answers = Answers::default();
    let at = |answers: &Answers, node: &str, now| f.reach(node, answers, &set(""), now);
    answers.listed(1_000, "f", Some("alpha,\n2,second\n"));
    assert_eq!(at(&answers, "alpha", 60_999), Reach::Yes);
    // The list names ports, the map makes them nodes.
    assert_eq!(at(&answers, "delta", 2_000), Reach::Yes);
    assert_eq!(at(&answers, "omega", 2_000), Reach::No("it does not list omega".to_owned()));
    assert_eq!(at(&answers, "alpha", 61_000), Reach::Ask(Query::List));
    // An older list outlives a failure ...
    answers.listed(61_000, "f", None);
    assert_eq!(at(&answers, "alpha", 61_000), Reach::Yes);
    // ... and who never could list is asked about the node.
    let mut answers = Answers::default();
    answers.listed(0, "f", None);
    assert_eq!(at(&answers, "alpha", 1), Reach::Ask(Query::Status));
    answers.checked(1, "f", "alpha", None);
    answers.checked(1, "f", "delta", Some("it does not know it: no".to_owned()));
    assert_eq!(at(&answers, "alpha", 2), Reach::Yes);
    assert_eq!(at(&answers, "delta", 2), Reach::No("it does not know it: no".to_owned()));
}

#[test]
fn levels_are_those_of_the_name_then_of_the_first_match_then_of_all() {
    let devices: String = (1..=5)
        .map(|n| format!("primitive f{n} stonith:fence_plain meta priority={}\n", n % 3))
        .collect();
    let nodes = "node alpha\nnode delta attributes rack=1\nnode dora attributes rack=1\n";
    let levels = |topology: &str, node: &str| -> String {
        let c = config(&format!("{devices}{nodes}{topology}\n"));
        let text = |level: super::Level| level.devices.join(",");
        c.levels(node, Action::Reboot).into_iter().map(text).collect::<Vec<_>>().join(" ")
    };
    // topology | node | levels
    let table = "
                                                                | alpha | f2 f5 f1 f4 f3
        fencing_topology f1,f2 f3                               | alpha | f1,f2 f3
        fencing_topology f1 alpha: f2                           | alpha | f2
        fencing_topology f1 alpha: f2                           | delta | f1
        fencing_topology alpha: f2                              | delta | f2 f5 f1 f4 f3
        fencing_topology pattern:^d f1 attr:rack=1 f2           | delta | f1
        fencing_topology attr:rack=1 f2 pattern:^d f1           | delta | f2
        fencing_topology attr:rack=2 f2 pattern:a$ f1           | delta | f1
        fencing_topology pattern:el f1 delta: f3                | delta | f3
        fencing_topology pattern:^do f1 f5 attr:rack=1 f2,f4    | dora  | f1 f5
    ";
    for line in table.trim_end().lines().skip(1) {
        let [topology, node, expected] =
            line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(levels(topology, node), expected, "{line}");
    }
}

#[test]
fn an_agent_is_given_its_parameters_and_the_name_of_the_machine() {
    // device | verb | node | what its agent gets
    let table = r#"
        plain ip=1 pcmk_host_map="delta:7" pcmk_reboot_timeout=9 | reboot  | delta | reboot ip=1 nodename=delta port=7
        full ip=1                                                | off     | delta | off ip=1 nodename=delta plug=delta
        full plug=3                                              | off     | delta | off nodename=delta plug=3
        full plug=dynamic pcmk_off_action=cycle                  | off     | delta | cycle nodename=delta plug=delta
        full pcmk_host_argument=vm                               | off     | delta | off nodename=delta vm=delta
        full pcmk_host_argument=none                             | off     | delta | off nodename=delta
        full action=off nodename=x ip=2                          | monitor |       | monitor ip=2
        full pcmk_list_action=names                              | list    |       | names
    "#;
    for line in table.trim().lines() {
        let [device, verb, node, expected] =
            line.split('|').map(str::trim).collect::<Vec<_>>().try_into().unwrap();
        let c =
            config(&format!("primitive f stonith:fence_{}\n", device.replacen(' ', " params ", 1)));
        let verb = [Verb::Reboot, Verb::Off, Verb::Monitor, Verb::List]
            .into_iter()
            .find(|v| v.word() == verb);
        let task = super::Task {
            device: "f".to_owned(),
            verb: verb.unwrap(),
            target: (!node.is_empty()).then(|| node.to_owned()),
        };
        let call = c.call(&task, 1).unwrap();
        let params: Vec<String> = call.params.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let got = [vec![call.action], params].concat().join(" ");
        assert_eq!(got, expected, "{line}");
    }
}

#[test]
fn passwords_are_not_shown() {
    let c = config(
        "primitive f stonith:fence_plain params passwd=hunter2 ip=1 snmp_priv_passwd=hunter3 secret_key=hunter4\n",
    );
    let call = c.device("f").unwrap().call(Verb::Off, Some("alpha"), 1);
    assert_eq!(call.params.get("passwd"), Some("hunter2"));
    let shown = format!("{:?} {call:?}", c.device("f"));
    assert!(!shown.contains("hunter") && shown.contains("\"ip\": \"1\""), "{shown}");
}

#[test]
fn devices_are_what_is_configured_and_not_switched_off() {
    let c = config(
        "node alpha\nnode delta\n\
         primitive f1 stonith:fence_plain params ip=1 meta target-role=Stopped\n\
         primitive f2 stonith:fence_plain params ip=2 meta is-managed=false maintenance=true\n\
         primitive f3 stonith:fence_plain params ip=3\nprimitive f4 stonith:fence_plain params ip=4\n\
         primitive f5 stonith:fence_plain\nprimitive d Dummy\n\
         group g f3 f4 params login=x ip=9\nclone c f5 meta target-role=Stopped\n\
         location l1 f2 -inf: alpha\nlocation l2 f2 100: delta\nlocation l3 g -1: delta\n\
         property stonith-watchdog-timeout=10s\n",
    );
    let ids: Vec<&str> = c.devices().map(|d| d.id.as_str()).collect();
    assert_eq!(ids, ["f2", "f3", "f4", "watchdog"]);
    let f4 = c.device("f4").unwrap();
    assert_eq!((f4.params.get("ip"), f4.params.get("login")), (Some("4"), Some("x")));
    assert_eq!(c.device("f2").unwrap().barred, set("alpha"));
    assert_eq!(f4.barred, set("delta"));
    assert_eq!(c.watchdog_ms, Some(10_000));
    assert_eq!(config("property stonith-watchdog-timeout=-1\n").watchdog_ms, Some(10_000));
}

#[test]
fn delays_are_those_of_the_node() {
    let delay = |params: &str, node: &str, dice| {
        let c = config(&format!("primitive f stonith:fence_plain params {params}\n"));
        c.device("f").unwrap().delay_ms(node, dice)
    };
    assert_eq!(delay("ip=1", "alpha", 7), 0);
    assert_eq!(delay("pcmk_delay_base=5s", "alpha", 7), 5_000);
    assert_eq!(delay("pcmk_delay_base=\"alpha:1s;delta:10\"", "delta", 7), 10_000);
    assert_eq!(delay("pcmk_delay_base=\"alpha:1s;delta:10\"", "omega", 7), 0);
    let spread: BTreeSet<u64> =
        (0..200).map(|dice| delay("pcmk_delay_base=2s pcmk_delay_max=4s", "alpha", dice)).collect();
    assert!(
        spread.iter().all(|ms| (2_000..=4_000).contains(ms)) && spread.len() > 150,
        "{spread:?}"
    );
}

#[test]
fn the_side_that_matters_more_does_not_wait() {
    use super::{priority_delay_ms, weight};
    assert_eq!((weight(0, true), weight(5, true), weight(5, false)), (0, 6, 5));
    for (here, there, wait) in [
        (("alpha", 6), ("delta", 5), 0),
        (("alpha", 5), ("delta", 6), 9_000),
        (("alpha", 5), ("delta", 5), 0),
        (("delta", 5), ("alpha", 5), 9_000),
    ] {
        assert_eq!(priority_delay_ms(9_000, here, there), wait, "{here:?} {there:?}");
    }
}

#[test]
fn coverage_names_nodes_and_devices_that_cannot_be_fenced_or_used() {
    let c = config(
        "node alpha\nnode delta\nnode omega\n\
         primitive f1 stonith:fence_plain params pcmk_host_list=alpha\n\
         primitive f2 stonith:fence_plain params pcmk_host_list=delta\n\
         primitive f3 stonith:fence_full\n\
         location l1 f2 -inf: alpha\nlocation l2 f2 -inf: omega\n\
         fencing_topology alpha: f1 f9 omega: f1,f3\n",
    );
    let table = c.coverage(&Answers::default(), &set(""), 0);
    let shown: Vec<String> = table.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "level 2 of alpha names f9, which is not there or is switched off: it never succeeds",
            "f2 may run only on delta, which it is to fence",
            "nothing can fence omega",
        ]
    );
    let node = |name: &str| table.nodes.iter().find(|n| n.node == name).unwrap();
    let devices = |name: &str| -> Vec<String> {
        let levels = node(name).levels.iter();
        levels.map(|l| format!("{:?} {:?}", l.number, l.devices)).collect()
    };
    assert_eq!(devices("delta"), ["None [(\"f2\", Yes)]", "None [(\"f3\", Unknown)]"]);
    assert_eq!(devices("omega").len(), 1);
    assert!(serde_json::to_string(&table).unwrap().contains("\"finding\":\"only-itself\""));
}

#[test]
fn a_started_device_is_one_whose_agent_has_answered() {
    use super::{DeviceOp, Operation};
    let c = config(
        "primitive f stonith:fence_full params pcmk_monitor_action=status pcmk_monitor_timeout=7\nproperty stonith-watchdog-timeout=5\n",
    );
    let op = |device, op| c.operation(device, op, None);
    let Some(DeviceOp::Check(call)) = op("f", Operation::Start) else { panic!() };
    assert_eq!((call.action.as_str(), call.limit_ms, call.params.0.len()), ("status", 7_000, 0));
    assert_eq!(op("f", Operation::Monitor { probe: true }), Some(DeviceOp::Tell));
    assert_eq!(op("f", Operation::Stop), Some(DeviceOp::Forget));
    assert_eq!(op("gone", Operation::Stop), Some(DeviceOp::Forget));
    assert_eq!(op("gone", Operation::Start), None);
    assert_eq!(op("watchdog", Operation::Start), Some(DeviceOp::Register));
}
