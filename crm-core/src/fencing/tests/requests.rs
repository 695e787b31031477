//! Claims about single requests, step by step.

use super::config;
use crate::fencing::{
    Action, Answer, Effect, Event, Fencer, History, Means, Order, Record, Verdict, World,
};

/// A fencer on alpha, with delta to be fenced and omega to help.
struct Scene {
    fencer: Fencer,
    now: u64,
    next: u64,
    ended: Vec<(Vec<u64>, Record)>,
    /// Attempts that run: number, node, "VERB DEVICE TARGET", limit.
    runs: Vec<(u64, String, String, u64)>,
    cancelled: Vec<u64>,
}

const NODES: &str = "node alpha\nnode delta\nnode omega\n";

impl Scene {
    fn new(text: &str) -> Self {
        let mut scene = Self {
            fencer: Fencer::new(History::default()),
            now: 1_000,
            next: 0,
            ended: Vec::new(),
            runs: Vec::new(),
            cancelled: Vec::new(),
        };
        scene.event(Event::Configure(Box::new(config(&format!("{NODES}{text}")))));
        scene.world("alpha omega", "");
        scene
    }

    fn world(&mut self, live: &str, armed: &str) {
        let world =
            World { here: "alpha".to_owned(), live: super::set(live), armed: super::set(armed) };
        self.event(Event::World(world));
    }

    fn event(&mut self, event: Event) {
        for effect in self.fencer.handle(self.now, event) {
            match effect {
                Effect::Run { attempt, node, task, limit_ms } => {
                    let about = task.target.map(|t| format!(" {t}")).unwrap_or_default();
                    let text = format!("{} {}{about}", task.verb.word(), task.device);
                    self.runs.push((attempt, node, text, limit_ms));
                }
                Effect::Cancel { attempt, .. } => {
                    self.runs.retain(|(n, ..)| *n != attempt);
                    self.cancelled.push(attempt);
                }
                Effect::Ended { ids, record } => self.ended.push((ids, *record)),
            }
        }
    }

    fn order(&mut self, target: &str, action: Action) -> Order {
        self.next += 1;
        Order {
            id: self.next,
            target: target.to_owned(),
            action: Some(action),
            reason: "it is silent".to_owned(),
            origin: "alpha".to_owned(),
            automatic: true,
            timeout_ms: None,
            delay_ms: 0,
            dice: 0,
        }
    }

    fn ask(&mut self, target: &str, action: Action) -> u64 {
        let order = self.order(target, action);
        self.event(Event::Request(order));
        self.next
    }

    /// What runs, with the node that runs it.
    fn running(&self) -> Vec<String> {
        self.runs.iter().map(|(_, node, text, _)| format!("{text} on {node}")).collect()
    }

    /// The oldest attempt ends.
    fn answer(&mut self, exit: Option<i32>, stdout: &str, message: &str) {
        let (attempt, ..) = self.runs.remove(0);
        let (stdout, message) = (stdout.to_owned(), message.to_owned());
        self.event(Event::Answer { attempt, answer: Answer { exit, stdout, message } });
    }

    fn ok(&mut self) {
        self.answer(Some(0), "", "");
    }

    fn at(&mut self, ms: u64) {
        self.now = ms;
        self.event(Event::Tick);
    }

    /// How the one request ended.
    fn verdict(&self) -> String {
        match self.ended.as_slice() {
            [] => "pending".to_owned(),
            [(_, record)] => record.sentence(),
            more => panic!("{more:?}"),
        }
    }
}

#[test]
fn the_device_of_a_node_fences_it() {
    let mut s = Scene::new("primitive ipmi stonith:fence_plain params pcmk_host_list=delta\n");
    let id = s.ask("delta", Action::Reboot);
    assert_eq!(s.running(), ["reboot ipmi delta on alpha"]);
    s.ok();
    assert_eq!(s.verdict(), "delta was rebooted by ipmi (run by alpha), because it is silent");
    assert_eq!(s.ended[0].0, [id]);
    assert_eq!(
        s.fencer.history().fenced_because("delta").unwrap(),
        "fenced because it is silent: rebooted by ipmi (run by alpha)"
    );
}

#[test]
fn the_node_on_which_a_device_is_started_runs_it_and_the_target_never_does() {
    let mut s = Scene::new("primitive ipmi stonith:fence_plain\n");
    s.world("alpha delta omega", "");
    for node in ["delta", "omega"] {
        let (device, node) = ("ipmi".to_owned(), node.to_owned());
        s.event(Event::Registered { device, node });
    }
    s.ask("delta", Action::Off);
    assert_eq!(s.running(), ["off ipmi delta on omega"]);
    // A second try is made from elsewhere.
    s.answer(Some(1), "", "no route");
    assert_eq!(s.running(), ["off ipmi delta on alpha"]);
    s.answer(Some(1), "", "");
    assert_eq!(
        s.verdict(),
        "delta could not be switched off: ipmi on alpha: it ended with 1 without a message; it was to be, because it is silent"
    );
    // The only other node is the target itself.
    let mut s = Scene::new("primitive ipmi stonith:fence_plain\nlocation l ipmi -inf: omega\n");
    s.ask("alpha", Action::Off);
    assert!(s.verdict().contains("ipmi: no node that lives may run it"), "{}", s.verdict());
}

#[test]
fn every_device_of_a_level_must_succeed_else_the_next_level_is_tried() {
    let text = "primitive p1 stonith:fence_plain\nprimitive p2 stonith:fence_plain params pcmk_off_retries=1\n\
                primitive p3 stonith:fence_plain\nfencing_topology delta: p1,p2 p3\n";
    let mut s = Scene::new(text);
    s.ask("delta", Action::Off);
    s.ok();
    assert_eq!(s.running(), ["off p2 delta on alpha"]);
    assert_eq!(s.verdict(), "pending");
    s.answer(Some(1), "", "outlet is stuck");
    assert_eq!(s.running(), ["off p3 delta on alpha"]);
    s.ok();
    let record = &s.ended[0].1;
    let said: Vec<_> = record.attempts.iter().map(|a| (a.level, a.device.as_str(), a.ok)).collect();
    assert_eq!(said, [(Some(1), "p1", true), (Some(1), "p2", false), (Some(2), "p3", true)]);
    assert_eq!(record.evidence().unwrap().devices, ["p3"]);
}

#[test]
fn a_reboot_over_two_supplies_is_both_off_then_both_on() {
    let mut s = Scene::new(
        "primitive p1 stonith:fence_plain\nprimitive p2 stonith:fence_plain\nfencing_topology p1,p2\n",
    );
    s.ask("delta", Action::Reboot);
    let mut seen = Vec::new();
    for n in 0..4 {
        seen.extend(s.running());
        // The power of the second does not come back: the node is off all the same.
        if n < 3 { s.ok() } else { s.answer(None, "", "") }
    }
    assert_eq!(s.running(), ["on p2 delta on omega"]);
    s.answer(None, "", "");
    assert_eq!(
        seen,
        [
            "off p1 delta on alpha",
            "off p2 delta on alpha",
            "on p1 delta on alpha",
            "on p2 delta on alpha"
        ]
    );
    assert_eq!(s.verdict(), "delta was rebooted by p1 and p2 (run by alpha), because it is silent");
    assert_eq!(s.ended[0].1.notes, ["p2 did not switch it on again: it is off"]);
}

#[test]
fn a_device_without_reboot_switches_off_and_on_unless_it_guards_access() {
    let mut s = Scene::new("primitive p stonith:fence_power params pcmk_host_list=delta\n");
    s.ask("delta", Action::Reboot);
    assert_eq!(s.running(), ["off p delta on alpha"]);
    s.ok();
    assert_eq!(s.running(), ["on p delta on alpha"]);
    s.ok();
    assert!(s.verdict().starts_with("delta was rebooted by p"));

    let mut s = Scene::new("primitive p stonith:fence_scsi params pcmk_host_list=delta\n");
    s.ask("delta", Action::Reboot);
    assert_eq!(s.running(), ["off p delta on alpha"]);
    s.ok();
    assert!(s.running().is_empty() && s.verdict().starts_with("delta was"), "{}", s.verdict());
    // When it joins again it gives itself access.
    s.world("alpha delta omega", "");
    s.ended.clear();
    s.ask("delta", Action::On);
    assert_eq!(s.running(), ["on p delta on delta"]);
    s.ok();
    assert!(s.verdict().starts_with("delta was given access by p"));
}

#[test]
fn access_is_given_by_all_that_guard_it_and_reach_the_node() {
    let mut s = Scene::new(
        "primitive a stonith:fence_status params pcmk_host_list=delta meta provides=unfencing\n\
         primitive b stonith:fence_status meta provides=unfencing\n\
         primitive c stonith:fence_status params pcmk_host_list=alpha meta provides=unfencing\n\
         primitive d stonith:fence_plain\n",
    );
    s.ask("delta", Action::On);
    s.ok();
    assert_eq!(s.running(), ["status b delta on alpha"]);
    s.answer(Some(2), "", "");
    assert_eq!(s.running(), ["on b delta on alpha"]);
    s.ok();
    assert_eq!(s.ended[0].1.evidence().unwrap().devices, ["a", "b"]);
    // Nobody reaches omega: nothing is confirmed.
    let mut s = Scene::new(
        "primitive a stonith:fence_plain params pcmk_host_list=delta meta provides=unfencing\n",
    );
    s.ask("omega", Action::On);
    assert!(s.verdict().starts_with("omega could not be given access"), "{}", s.verdict());
}

#[test]
fn a_device_is_asked_what_it_reaches_before_it_is_used() {
    let mut s = Scene::new(
        "primitive p stonith:fence_full\nprimitive q stonith:fence_plain meta priority=-1\n",
    );
    s.ask("delta", Action::Off);
    assert_eq!(s.running(), ["list p on alpha"]);
    s.answer(Some(0), "alpha,\nomega,\n", "");
    assert_eq!(s.running(), ["off q delta on alpha"]);
    s.ok();
    assert_eq!(s.ended[0].1.attempts[0].message, "it does not list delta");
    // It cannot list: it is asked about the one node.
    let mut s = Scene::new("primitive p stonith:fence_full\n");
    s.ask("delta", Action::Off);
    s.answer(Some(1), "", "no list");
    assert_eq!(s.running(), ["status p delta on alpha"]);
    s.answer(Some(2), "", "");
    assert_eq!(s.running(), ["off p delta on alpha"]);
}

#[test]
fn a_device_has_its_time_for_all_its_tries() {
    let mut s = Scene::new(
        "primitive p stonith:fence_plain params pcmk_off_timeout=20 pcmk_off_retries=3\n",
    );
    s.ask("delta", Action::Off);
    assert_eq!(s.runs[0].3, 20_000);
    s.now += 15_000;
    s.answer(Some(1), "", "busy");
    assert_eq!(s.runs[0].3, 5_000);
    // No answer at all: it is given up after its time and a grace.
    assert_eq!(s.fencer.next_wake_ms(), Some(s.now + 5_000 + 10_000));
    s.at(s.now + 15_000);
    assert!(s.verdict().contains("p on omega: no answer from omega"), "{}", s.verdict());
    assert_eq!(s.cancelled.len(), 1);
}

#[test]
fn an_attempt_is_lost_with_the_node_that_runs_it() {
    let mut s = Scene::new("primitive p stonith:fence_plain\nlocation l p -inf: alpha\n");
    s.ask("delta", Action::Off);
    assert_eq!(s.running(), ["off p delta on omega"]);
    s.world("alpha", "");
    assert!(s.verdict().contains("p: no node that lives may run it"), "{}", s.verdict());
    let first = &s.ended[0].1.attempts[0];
    assert_eq!(first.message, "omega was lost while it ran this");
}

#[test]
fn requests_for_one_node_and_one_result_are_one() {
    let mut s = Scene::new("primitive p stonith:fence_plain\n");
    let off = s.ask("delta", Action::Off);
    let again = s.ask("delta", Action::Off);
    let reboot = s.ask("delta", Action::Reboot);
    assert_eq!(s.running(), ["off p delta on alpha"]);
    s.ok();
    assert_eq!(s.ended.len(), 1);
    assert_eq!(s.ended[0].0, [off, again, reboot]);
    assert!(s.running().is_empty());
    // The other way round the second wants more: it waits.
    s.ended.clear();
    let reboot = s.ask("delta", Action::Reboot);
    let off = s.ask("delta", Action::Off);
    assert_eq!(s.running(), ["reboot p delta on alpha"]);
    s.ok();
    assert_eq!(s.running(), ["off p delta on alpha"]);
    s.ok();
    let ids: Vec<_> = s.ended.iter().map(|(ids, _)| ids.clone()).collect();
    assert_eq!(ids, [vec![reboot], vec![off]]);
}

#[test]
fn what_is_asked_while_the_power_comes_back_is_a_request_of_its_own() {
    let mut s = Scene::new("primitive p stonith:fence_power\n");
    s.ask("delta", Action::Reboot);
    s.answer(Some(2), "", "");
    s.ok();
    assert_eq!(s.running(), ["on p delta on alpha"]);
    s.ask("delta", Action::Reboot);
    s.ok();
    assert_eq!(s.ended[0].0, [1]);
    assert_eq!(s.running(), ["off p delta on alpha"]);
}

#[test]
fn a_device_does_one_thing_at_a_time_unless_it_is_told_otherwise() {
    let both = |text: &str| {
        let mut s = Scene::new(text);
        s.ask("delta", Action::Off);
        s.ask("omega", Action::Off);
        s
    };
    let mut s = both("primitive p stonith:fence_plain\n");
    assert_eq!(s.running(), ["off p delta on alpha"]);
    s.ok();
    assert_eq!(s.running(), ["off p omega on alpha"]);
    assert_eq!(
        both("primitive p stonith:fence_plain params pcmk_action_limit=-1\n").running().len(),
        2
    );
}

#[test]
fn delays_come_first_the_one_of_the_request_then_the_one_of_the_device() {
    let mut s = Scene::new("primitive p stonith:fence_plain params pcmk_delay_base=3s\n");
    let order = Order { delay_ms: 5_000, ..s.order("delta", Action::Off) };
    s.event(Event::Request(order));
    assert_eq!(s.fencer.next_wake_ms(), Some(6_000));
    s.at(5_999);
    assert_eq!(s.fencer.next_wake_ms(), Some(6_000));
    s.at(6_000);
    assert_eq!(s.fencer.next_wake_ms(), Some(9_000));
    s.at(9_000);
    assert_eq!(s.running(), ["off p delta on alpha"]);
    // Tries after the first do not wait again.
    s.answer(Some(1), "", "");
    assert_eq!(s.running(), ["off p delta on omega"]);
}

#[test]
fn a_person_ends_what_no_device_can() {
    let mut s = Scene::new("primitive p stonith:fence_plain\n");
    let id = s.ask("delta", Action::Reboot);
    s.event(Event::Confirm { target: "delta".to_owned(), by: "ops".to_owned() });
    assert_eq!(s.ended[0].0, [id]);
    assert_eq!(s.verdict(), "delta was confirmed to be off by ops, because it is silent");
    assert_eq!(s.cancelled, [2]);
    // Also before anybody asked; a late answer of the agent changes nothing.
    s.event(Event::Answer { attempt: 2, answer: Answer::default() });
    s.event(Event::Confirm { target: "omega".to_owned(), by: "ops".to_owned() });
    assert_eq!((s.ended.len(), s.ended[1].0.len()), (2, 0));
    assert_eq!(s.ended[1].1.evidence().unwrap().means, Means::Hand);
}

#[test]
fn the_watchdog_has_fired_after_its_time_and_only_where_there_is_one() {
    let text = "primitive p stonith:fence_plain params pcmk_off_retries=1\nproperty stonith-watchdog-timeout=10s\n";
    let mut s = Scene::new(text);
    s.world("alpha omega", "delta");
    s.ask("delta", Action::Off);
    s.answer(Some(1), "", "no route");
    assert_eq!(s.fencer.next_wake_ms(), Some(11_000));
    s.at(10_999);
    assert_eq!(s.verdict(), "pending");
    s.at(11_000);
    assert_eq!(s.verdict(), "delta was switched off by watchdog, because it is silent");
    assert_eq!(s.ended[0].1.evidence().unwrap().means, Means::Watchdog);
    let mut s = Scene::new(text);
    s.ask("delta", Action::Off);
    s.answer(Some(1), "", "no route");
    assert!(matches!(s.ended[0].1.verdict, Verdict::Failed { .. }), "{}", s.verdict());
}

#[test]
fn a_node_that_is_fenced_again_and_again_is_switched_off_in_the_end() {
    let mut s = Scene::new("primitive p stonith:fence_plain\n");
    let round = |s: &mut Scene, at: u64| {
        s.now = at;
        s.ask("delta", Action::Reboot);
        let ran = s.running();
        s.ok();
        ran[0].split(' ').next().unwrap().to_owned()
    };
    let first: Vec<String> = (0..4).map(|n| round(&mut s, 100_000 * (n + 1))).collect();
    assert_eq!(first, ["reboot", "reboot", "reboot", "off"]);
    let record = &s.ended[3].1;
    assert_eq!(record.action, Action::Off);
    assert!(record.notes[0].contains("fenced 3 times"), "{:?}", record.notes);
    // A person may; and so may the cluster once the node was healthy, or an hour has passed.
    s.now = 500_000;
    let order = Order { automatic: false, ..s.order("delta", Action::Reboot) };
    s.event(Event::Request(order));
    assert_eq!(s.running(), ["reboot p delta on alpha"]);
    s.ok();
    s.now = 600_000;
    s.event(Event::Healthy { node: "delta".to_owned() });
    assert_eq!(round(&mut s, 700_000), "reboot");
    let history = s.fencer.history().clone();
    assert_eq!(history.looping("delta", 700_000), None);
    let text = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
}

#[test]
fn a_request_ends_at_its_own_time_limit() {
    let mut s = Scene::new("primitive p stonith:fence_plain\n");
    let order = Order { timeout_ms: Some(30_000), ..s.order("delta", Action::Off) };
    s.event(Event::Request(order));
    assert_eq!(s.fencer.next_wake_ms(), Some(31_000));
    s.at(31_000);
    assert!(s.verdict().contains("it took longer than 30000 ms"), "{}", s.verdict());
    assert_eq!(s.cancelled.len(), 1);
}

#[test]
fn without_a_device_a_request_fails_at_once() {
    let mut s = Scene::new("");
    s.ask("delta", Action::Off);
    assert!(s.verdict().contains("no fencing device is configured for it"), "{}", s.verdict());
}
