//! Fence agents: the protocol with one of our own, then Debian's, unmodified, where they are installed.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

use crm_agents::fence::{self, Metadata};
use crm_agents::{Executor, ExecutorConfig};
use crm_core::cib::Cib;
use crm_core::fencing::{Answer, Call, Config, Params, Verb};
use crm_core::plan::OpSpec;
use crm_core::status::{ExecStatus, rc};
use crm_core::text::{Session, read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// An agent that writes down what it is given, then goes on with `script`.
fn agent(script: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fence_ours");
    let log = dir.path().join("log");
    let text = format!("#!/bin/sh\ncat > {}\necho \"$*\" >> {0}\n{script}\n", log.display());
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn params(pairs: &[(&str, &str)]) -> Params {
    Params(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

fn call(verb: Verb, pairs: &[(&str, &str)]) -> Call {
    Call {
        agent: "fence_ours".to_owned(),
        verb,
        action: verb.word().to_owned(),
        params: params(pairs),
        limit_ms: 20_000,
    }
}

async fn answer(script: &str, verb: Verb, pairs: &[(&str, &str)]) -> Answer {
    fence::run(agent(script).path(), &call(verb, pairs)).await
}

#[tokio::test]
async fn parameters_go_to_stdin_and_nowhere_else() {
    let dir = agent("env >> \"$(dirname \"$0\")/log\"");
    let given = [("ip", "10.0.0.1"), ("passwd", "hunter2 $x=1"), ("plug", "delta")];
    let answer = fence::run(dir.path(), &call(Verb::Off, &given)).await;
    assert_eq!(answer.exit, Some(0), "{answer:?}");
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        lines.iter().take(5).copied().collect::<Vec<_>>(),
        ["action=off", "ip=10.0.0.1", "passwd=hunter2 $x=1", "plug=delta", ""],
        "no argument after the four lines"
    );
    assert_eq!(log.matches("hunter2").count(), 1, "{log}");
}

#[tokio::test]
async fn the_exit_code_and_the_last_words_are_the_answer() {
    let said = answer("echo Success; exit 0", Verb::Reboot, &[]).await;
    assert_eq!((said.exit, said.stdout.as_str(), said.message.as_str()), (Some(0), "", "Success"));
    let said = answer("exit 2", Verb::Status, &[]).await;
    assert_eq!((said.exit, said.message.as_str()), (Some(2), ""));
    let script = "echo out; printf 'ERROR:root: no route\\n\\n2026-11-21 ERROR:root: no route\\nlast\\n' >&2; exit 1";
    let said = answer(script, Verb::Off, &[]).await;
    assert_eq!(
        (said.exit, said.message.as_str()),
        (Some(1), "2026-11-21 ERROR:root: no route; last")
    );
    let said = answer("printf 'alpha,\\ndelta,2\\n'", Verb::List, &[]).await;
    assert_eq!((said.exit, said.stdout.as_str()), (Some(0), "alpha,\ndelta,2\n"));
}

#[tokio::test]
async fn passwords_are_taken_out_of_what_an_agent_says() {
    let given = [("password", "hunter2"), ("snmp_priv_passwd", "hunter22"), ("secret_key", "it's")];
    let script =
        "echo 'run: tool -P hunter2 -X hunter22 -s '\"it's\" \"'it'\\\"'\\\"'s'\" >&2; exit 1";
    let said = answer(script, Verb::Off, &given).await;
    assert_eq!(said.message, "run: tool -P (hidden) -X (hidden) -s (hidden) '(hidden)'");
    assert!(!format!("{:?}", call(Verb::Off, &given)).contains("hunter"));
}

#[tokio::test]
async fn an_agent_that_hangs_is_killed_with_its_children() {
    let dir = agent(
        "trap '' TERM; echo waiting >&2; sleep 600 & echo $! > \"$(dirname \"$0\")/child\"; wait; sleep 600",
    );
    let begun = Instant::now();
    let said = fence::run(dir.path(), &Call { limit_ms: 700, ..call(Verb::Off, &[]) }).await;
    assert_eq!(said.exit, None);
    assert_eq!(said.message, "it did not end within 700 ms and was killed; it had said: waiting");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
    // Gone, or a zombie that nobody has buried yet.
    let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    assert!(state.as_ref().map_or(true, |s| s.contains(") Z ")), "{state:?}");
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let run = |agent: &'static str, pairs: &'static [(&str, &str)]| {
        let call = Call { agent: agent.to_owned(), ..call(Verb::Off, pairs) };
        let dir = dir.path().to_owned();
        async move { fence::run(&dir, &call).await }
    };
    let said = run("fence_none", &[]).await;
    assert!(said.exit.is_none() && said.message.contains("could not be started"), "{said:?}");
    let said = run("../bin/sh", &[]).await;
    assert_eq!(said.message, "`../bin/sh` is not the name of a fence agent (fence_NAME)");
    let said = run("fence_none", &[("ip", "1\naction=on")]).await;
    assert_eq!(said.message, "the value of `ip` has a line break in it");
}

const XML: &str = r#"warning: old python
<?xml version="1.0" ?>
<resource-agent name="fence_x" shortdesc="An agent">
<parameters>
 <parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
 <parameter name="ip" required="1" obsoletes="ipaddr"><shortdesc lang="en">Address</shortdesc></parameter>
 <parameter name="ipaddr" required="1" deprecated="1"><shortdesc lang="en">Address</shortdesc></parameter>
 <parameter name="port" required="1" deprecated="1"/>
 <parameter name="plug" required="1" obsoletes="port"/>
 <parameter name="password" required="0"/>
 <parameter name="method" required="1"><shortdesc>How</shortdesc></parameter>
</parameters>
<actions><action name="on" automatic="1" on_target="1"/><action name="off"/><action name="list"/></actions>
</resource-agent>"#;

#[test]
fn metadata_tells_what_an_agent_can_do() {
    let m = Metadata::parse(XML).unwrap();
    let a = &m.abilities;
    assert_eq!((m.about.as_str(), a.host_parameter.as_deref()), ("An agent", Some("plug")));
    assert!(
        a.unfences && a.on_target && !a.actions.contains("reboot") && a.actions.contains("list")
    );
    assert!(Metadata::parse("<html/>").is_err());
    assert!(Metadata::parse("not found").is_err());
}

#[test]
fn parameters_are_checked_against_the_metadata() {
    let m = Metadata::parse(XML).unwrap();
    let wrong = |pairs: &[(&str, &str)]| m.validate("fence_x", &params(pairs));
    assert_eq!(wrong(&[("ip", "1"), ("method", "x"), ("pcmk_host_list", "a")]), [""; 0]);
    assert_eq!(wrong(&[("ipaddr", "1"), ("method", "x")]), [""; 0]);
    assert_eq!(
        wrong(&[("pasword", "hunter2"), ("method", "a\nb"), ("pcmk_host_lists", "a")]),
        [
            "the value of `method` has a line break in it",
            "fence_x has no parameter `pasword`; did you mean `password`?",
            "fence_x has no parameter `pcmk_host_lists`",
            "fence_x needs `ip`: Address",
        ]
    );
    assert_eq!(wrong(&[("ip", "1")]), ["fence_x needs `method`: How"]);
}

/// Debian's own agent, or a loud word that it is not there.
fn debian(agent: &str) -> bool {
    let there = Path::new(fence::DIR).join(agent).exists();
    if !there {
        eprintln!("SKIPPED: {agent} is not installed (apt-get install fence-agents)");
    }
    there
}

#[tokio::test]
async fn debians_own_dummy_agent_is_switched_off_and_on() {
    if !debian("fence_dummy") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("power").display().to_string();
    let step = |verb: Verb, more: Option<(&'static str, &'static str)>| {
        let mut pairs =
            vec![("status_file", file.as_str()), ("nodename", "delta"), ("power_timeout", "1")];
        pairs.extend(more);
        let call = Call { agent: "fence_dummy".to_owned(), ..call(verb, &pairs) };
        async move { fence::run(Path::new(fence::DIR), &call).await }
    };
    let codes = [
        (Verb::On, 0),
        (Verb::Status, 0),
        (Verb::Off, 0),
        (Verb::Status, 2),
        (Verb::Reboot, 0),
        (Verb::Monitor, 0),
    ];
    for (verb, code) in codes {
        let said = step(verb, None).await;
        assert_eq!(said.exit, Some(code), "{verb:?}: {said:?}");
    }
    let said = step(Verb::Off, Some(("type", "fail"))).await;
    assert!(said.exit == Some(1) && said.message.contains("Failed"), "{said:?}");
}

#[tokio::test]
async fn debians_own_agents_describe_themselves() {
    // agent, its parameter for the machine, has reboot, lists, gives access on the node itself
    for (agent, host, reboot, list, access) in [
        ("fence_dummy", None, true, false, false),
        ("fence_ipmilan", Some("plug"), true, false, false),
        ("fence_virsh", Some("plug"), true, true, false),
        ("fence_apc", Some("plug"), true, true, false),
        ("fence_scsi", Some("plug"), false, false, true),
    ] {
        if !debian(agent) {
            continue;
        }
        let m = fence::metadata(Path::new(fence::DIR), agent).await.unwrap();
        let has = |word| m.abilities.actions.contains(word);
        assert_eq!(
            (
                m.abilities.host_parameter.as_deref(),
                has("reboot"),
                has("list"),
                m.abilities.on_target
            ),
            (host, reboot, list, access),
            "{agent}"
        );
        assert_eq!(m.abilities.unfences, access, "{agent}");
    }
}

#[tokio::test]
async fn a_device_of_debians_virsh_agent_is_checked_and_its_failure_told() {
    if !debian("fence_virsh") {
        return;
    }
    let m = fence::metadata(Path::new(fence::DIR), "fence_virsh").await.unwrap();
    let wrong = m.validate("fence_virsh", &params(&[("ipaddr", "127.0.0.1"), ("usrname", "root")]));
    assert_eq!(
        wrong,
        [
            "fence_virsh has no parameter `usrname`; did you mean `username`?",
            "fence_virsh needs `username`: Login name",
        ]
    );
    let given = [
        ("ip", "127.0.0.1"),
        ("username", "root"),
        ("password", "hunter2"),
        ("plug", "vm"),
        ("ssh_options", "-p 1"),
        ("verbose", "1"),
    ];
    let call = Call { agent: "fence_virsh".to_owned(), ..call(Verb::Off, &given) };
    let said = fence::run(Path::new(fence::DIR), &call).await;
    assert!(said.exit == Some(1) && !said.message.is_empty(), "{said:?}");
    assert!(!said.message.contains("hunter2"), "{said:?}");
}

fn executor(run_dir: &Path) -> Executor {
    let config = ExecutorConfig {
        node: "alpha".to_owned(),
        run_dir: run_dir.to_owned(),
        self_exe: std::env::current_exe().unwrap(),
        prefer_native: true,
    };
    Executor::new(config).unwrap()
}

/// Runs an operation (with its interval) of the device `f`; its agent is asked with `word` whether it is there.
async fn step(
    executor: &Executor,
    agent: &str,
    (op, interval_ms): (&str, u64),
    word: &str,
) -> (ExecStatus, i32, String) {
    let params = [("pcmk_monitor_action", word), ("pcmk_host_list", "delta"), ("CRM_meta_x", "y")];
    let spec = OpSpec {
        node: "alpha".to_owned(),
        resource: "f".to_owned(),
        agent: format!("stonith:{agent}"),
        op: op.to_owned(),
        interval_ms,
        timeout_ms: 20_000,
        expected_rc: rc::OK,
        params: params.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        digest: 0,
    };
    let result = executor.run(&spec, 1).await;
    (result.status, result.rc, result.reason)
}

#[tokio::test]
async fn a_device_is_started_when_its_agent_answers_and_stops_without_it() {
    if !debian("fence_dummy") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let executor = executor(dir.path());
    let step = async |agent: &str, op: &str, interval_ms: u64, word: &str| {
        step(&executor, agent, (op, interval_ms), word).await
    };
    let ok = (ExecStatus::Complete, rc::OK, String::new());
    let dead = (ExecStatus::Complete, rc::NOT_RUNNING, String::new());
    assert_eq!(step("fence_dummy", "monitor", 0, "monitor").await, dead);
    assert_eq!(step("fence_dummy", "start", 0, "monitor").await, ok);
    assert_eq!(step("fence_dummy", "monitor", 0, "monitor").await, ok);
    assert_eq!(step("fence_dummy", "monitor", 10_000, "monitor").await, ok);
    let (status, code, reason) = step("fence_dummy", "monitor", 10_000, "sing").await;
    assert_eq!((status, code), (ExecStatus::Complete, rc::ERR_GENERIC));
    assert!(reason.contains("sing"), "{reason}");
    assert_eq!(step("fence_dummy", "stop", 0, "monitor").await, ok);
    assert_eq!(step("fence_dummy", "monitor", 0, "monitor").await, dead);
    // The watchdog is there without an agent; what is not installed says so.
    assert_eq!(step("fence_watchdog", "start", 0, "monitor").await, ok);
    let (status, code, reason) = step("fence_none", "start", 0, "monitor").await;
    assert_eq!((status, code), (ExecStatus::NotInstalled, rc::ERR_INSTALLED));
    assert!(reason.contains("fence_none"), "{reason}");
}

#[tokio::test]
async fn a_device_whose_mark_cannot_be_looked_for_is_not_taken_for_stopped() {
    let dir = tempfile::tempdir().unwrap();
    // Where the directory of the marks is to be, there is a file.
    std::fs::write(dir.path().join("devices"), "").unwrap();
    let probe = ("monitor", 0);
    let (status, code, reason) =
        step(&executor(dir.path()), "fence_watchdog", probe, "monitor").await;
    assert_eq!((status, code), (ExecStatus::Complete, rc::ERR_GENERIC));
    assert!(reason.contains("mark of the device"), "{reason}");
}

#[tokio::test]
async fn what_configured_agents_can_do_is_asked_of_themselves() {
    if !debian("fence_scsi") {
        return;
    }
    let text = "primitive a stonith:fence_scsi\nprimitive b stonith:fence_none\nprimitive c stonith:fence_watchdog\nprimitive d Dummy\n";
    let mut session = Session::new(Cib::default(), 1);
    read("t", text, &mut session).unwrap();
    let known = fence::abilities(Path::new(fence::DIR), session.cib()).await;
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    assert_eq!(names, ["fence_scsi"]);
    // Off, then nothing: access comes back when the node joins, on the node itself.
    let config = Config::read(session.cib(), &known, 0);
    let device = config.device("a").unwrap();
    assert!(device.unfences && device.abilities.on_target && !device.reboots());
}
