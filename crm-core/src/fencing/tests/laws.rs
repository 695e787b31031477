//! Laws on random devices, topologies, requests and agents.

use super::{abilities, cib};
use crate::fencing::{
    Action, Answer, Config, Effect, Event, Fencer, History, Means, Order, Record, Task, Verb, World,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NODES: [&str; 3] = ["alpha", "delta", "omega"];

#[derive(Debug, Clone)]
struct Case {
    devices: Vec<String>,
    topology: Option<String>,
    /// When, node, action, delay.
    requests: Vec<(u64, usize, Action, u64)>,
    /// Decides what agents answer, and when.
    seed: u64,
    /// Of 16 actions so many succeed.
    luck: u64,
}

fn device() -> impl Strategy<Value = String> {
    let agent = proptest::sample::select(vec!["full", "status", "plain", "power", "scsi"]);
    let hosts = proptest::sample::select(vec![
        "",
        " pcmk_host_list=\"alpha,delta,omega\"",
        " pcmk_host_list=delta",
        " pcmk_host_map=\"delta:1;omega:2\"",
        " pcmk_host_check=none",
    ]);
    let more = proptest::sample::select(vec![
        "",
        " pcmk_delay_base=3s",
        " pcmk_action_limit=-1",
        " pcmk_off_retries=4 pcmk_reboot_retries=1",
        " pcmk_off_timeout=7 pcmk_list_timeout=2",
    ]);
    (agent, hosts, more, 0..3_u32).prop_map(|(agent, hosts, more, priority)| {
        format!("stonith:fence_{agent} params ip=1{hosts}{more} meta priority={priority}")
    })
}

fn case() -> impl Strategy<Value = Case> {
    let level = vec(0..4_usize, 1..3).prop_map(|mut ids| {
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().map(|n| format!("f{n}")).collect::<Vec<_>>().join(",")
    });
    let levels = vec(level, 1..4).prop_map(|l| format!("fencing_topology {}\n", l.join(" ")));
    let action = proptest::sample::select(vec![Action::Off, Action::Reboot, Action::On]);
    let delay = prop_oneof![3 => Just(0_u64), 1 => 1_u64..9_000];
    let requests = vec((0..40_000_u64, 0..3_usize, action, delay), 1..6);
    let topology = proptest::option::of(levels);
    (vec(device(), 0..4), topology, requests, any::<u64>(), 0..17_u64).prop_map(
        |(devices, topology, requests, seed, luck)| Case {
            devices,
            topology,
            requests,
            seed,
            luck,
        },
    )
}

fn config(case: &Case, reversed: bool) -> Config {
    let mut lines: Vec<String> =
        (0..).zip(&case.devices).map(|(n, d)| format!("primitive f{n} {d}\n")).collect();
    if reversed {
        lines.reverse();
    }
    let nodes: String = NODES.iter().map(|n| format!("node {n}\n")).collect();
    let topology = case.topology.clone().unwrap_or_default();
    Config::read(&cib(&format!("{nodes}{}{topology}", lines.concat())), &abilities(), 0)
}

/// A number that depends on what is asked and how often it was asked before, not on when.
fn hash(seed: u64, words: &str, nth: u64) -> u64 {
    let mut x = words.bytes().fold(seed ^ nth.rotate_left(32), |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
    });
    x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

#[derive(Default)]
struct Run {
    ended: BTreeMap<u64, (u64, Record)>,
    twice: bool,
    /// What was run: when, task, node, exit code.
    ran: Vec<(u64, Task, String, Option<i32>)>,
    /// More ran at once on a device, or against a node, than may.
    crowded: Vec<String>,
    unfinished: bool,
}

struct Sim<'a> {
    case: &'a Case,
    config: Config,
    fencer: Fencer,
    /// When an attempt ends, and how.
    due: BTreeMap<u64, (u64, Answer)>,
    running: BTreeMap<u64, Task>,
    asked: BTreeMap<String, u64>,
    out: Run,
}

impl Sim<'_> {
    fn take(&mut self, now: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Run { attempt, node, task, limit_ms } => {
                    self.run(now, attempt, node, task, limit_ms);
                }
                Effect::Cancel { attempt, .. } => {
                    self.due.remove(&attempt);
                    self.running.remove(&attempt);
                }
                Effect::Ended { ids, record } => {
                    for id in ids {
                        let old = self.out.ended.insert(id, (now, (*record).clone()));
                        self.out.twice |= old.is_some();
                    }
                }
            }
        }
    }

    fn run(&mut self, now: u64, attempt: u64, node: String, task: Task, limit: u64) {
        let device = self.config.device(&task.device).unwrap();
        let busy = self.running.values().filter(|t| t.device == task.device).count();
        if device.slots().is_some_and(|slots| busy >= slots) {
            self.out.crowded.push(task.device.clone());
        }
        let about = |t: &&Task| t.target == task.target && task.target.is_some();
        if self.running.values().any(|t| about(&t)) {
            self.out.crowded.push(format!("{:?}", task.target));
        }
        let words = format!("{} {} {:?}", task.device, task.verb.word(), task.target);
        let nth = self.asked.entry(words.clone()).or_default();
        *nth += 1;
        let dice = hash(self.case.seed, &words, *nth);
        let good = dice % 16 < self.case.luck;
        let exit = match (good, dice >> 8 & 3) {
            (true, _) => Some(0),
            (false, 0) => None,
            (false, code) => Some(i32::try_from(code).unwrap()),
        };
        self.out.ran.push((now, task.clone(), node, exit));
        self.running.insert(attempt, task);
        // One in eight never answers.
        if good || dice >> 16 & 7 != 0 {
            let stdout = if dice >> 20 & 1 == 0 { "alpha\ndelta,1\n" } else { "2,omega\n1\n" };
            let answer = Answer { exit, stdout: stdout.to_owned(), message: "said".to_owned() };
            self.due.insert(attempt, (now + 1 + (dice >> 24) % limit.max(1), answer));
        }
    }
}

fn play(case: &Case, reversed: bool) -> Run {
    let config = config(case, reversed);
    let mut sim = Sim {
        case,
        config: config.clone(),
        fencer: Fencer::new(History::default()),
        due: BTreeMap::new(),
        running: BTreeMap::new(),
        asked: BTreeMap::new(),
        out: Run::default(),
    };
    let live: BTreeSet<String> = NODES.iter().map(|n| (*n).to_owned()).collect();
    let world = World { here: "alpha".to_owned(), live, armed: BTreeSet::new() };
    sim.fencer.handle(0, Event::Configure(Box::new(config)));
    sim.fencer.handle(0, Event::World(world));
    let mut later: Vec<(u64, Order)> = (0..)
        .zip(&case.requests)
        .map(|(id, (at, node, action, delay_ms))| {
            let order = Order {
                id,
                target: NODES[*node].to_owned(),
                action: Some(*action),
                reason: "r".to_owned(),
                origin: "o".to_owned(),
                automatic: false,
                timeout_ms: None,
                delay_ms: *delay_ms,
                dice: case.seed,
            };
            (*at, order)
        })
        .collect();
    later.sort_by_key(|(at, order)| (*at, order.id));
    for _ in 0..2_000 {
        let answer = sim.due.iter().map(|(n, (at, _))| (*at, *n)).min();
        let request = later.first().map(|(at, _)| *at);
        let wake = sim.fencer.next_wake_ms();
        let Some(now) = [answer.map(|(at, _)| at), request, wake].into_iter().flatten().min()
        else {
            return sim.out;
        };
        let event = if request == Some(now) {
            Event::Request(later.remove(0).1)
        } else if let Some((_, attempt)) = answer.filter(|(at, _)| *at == now) {
            sim.running.remove(&attempt);
            let (_, answer) = sim.due.remove(&attempt).unwrap();
            Event::Answer { attempt, answer }
        } else {
            Event::Tick
        };
        let effects = sim.fencer.handle(now, event);
        sim.take(now, effects);
    }
    sim.out.unfinished = true;
    sim.out
}

/// The devices that confirmed are a level, and each of them succeeded in time.
fn is_true(record: &Record, config: &Config, run: &Run) -> bool {
    let Some(evidence) = record.evidence() else { return true };
    let succeeded = |id: &String| {
        let wanted = |task: &Task| match record.action {
            Action::On => task.verb == Verb::On,
            Action::Off | Action::Reboot => matches!(task.verb, Verb::Off | Verb::Reboot),
        };
        run.ran.iter().any(|(at, task, _, exit)| {
            let target = task.target.as_ref() == Some(&record.target);
            *at >= record.begun_ms
                && target
                && task.device == *id
                && *exit == Some(0)
                && wanted(task)
        })
    };
    let levels = config.levels(&record.target, record.action);
    let level = levels.iter().any(|level| match record.action {
        // Those that do not reach the node have no part in giving it access.
        Action::On => evidence.devices.iter().all(|d| level.devices.contains(d)),
        Action::Off | Action::Reboot => level.devices == evidence.devices,
    });
    evidence.means == Means::Devices
        && !evidence.devices.is_empty()
        && level
        && evidence.devices.iter().all(succeeded)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_request_ends_once_and_tells_the_truth(case in case()) {
        let run = play(&case, false);
        let config = config(&case, false);
        prop_assert!(!run.unfinished && !run.twice);
        let ids: Vec<u64> = run.ended.keys().copied().collect();
        prop_assert_eq!(ids, (0..).take(case.requests.len()).collect::<Vec<_>>());
        for (_, record) in run.ended.values() {
            prop_assert!(is_true(record, &config, &run), "{:?}\n{:?}", record, run.ran);
        }
    }

    #[test]
    fn no_node_fences_itself_and_nothing_is_crowded(case in case()) {
        let run = play(&case, false);
        prop_assert!(run.crowded.is_empty(), "{:?}", run.crowded);
        for (_, task, node, _) in &run.ran {
            let own = task.target.as_ref() == Some(node);
            prop_assert!(!own || task.verb == Verb::On, "{task:?} on {node}");
        }
    }

    #[test]
    fn nothing_is_done_to_a_node_before_the_delays_are_over(case in case()) {
        let run = play(&case, false);
        let config = config(&case, false);
        for (id, (_, record)) in &run.ended {
            // Merged requests have the delay of the first, and what runs while another is under way may be that one's.
            let order = case.requests[usize::try_from(*id).unwrap()];
            let other = |r: &Record| {
                let (begun, target) = (record.begun_ms, &record.target);
                r != record && r.target == *target && r.begun_ms <= begun && r.ended_ms >= begun
            };
            if record.begun_ms != order.0 || run.ended.values().any(|(_, r)| other(r)) {
                continue;
            }
            for attempt in &record.attempts {
                let Some(_) = &attempt.node else { continue };
                let device = config.device(&attempt.device).unwrap();
                let fences = matches!(attempt.verb, Verb::Off | Verb::Reboot);
                let own = if fences { device.delay_ms(&record.target, case.seed) } else { 0 };
                let first = run.ran.iter().find(|(at, task, ..)| {
                    task.device == attempt.device && task.verb == attempt.verb
                        && task.target.as_ref() == Some(&record.target) && *at >= record.begun_ms
                });
                prop_assert!(first.is_some_and(|(at, ..)| *at >= record.begun_ms + order.3 + own), "{record:?}");
            }
        }
    }

    #[test]
    fn the_order_in_which_devices_are_written_changes_nothing(case in case()) {
        prop_assert_eq!(play(&case, false).ended, play(&case, true).ended);
    }
}
