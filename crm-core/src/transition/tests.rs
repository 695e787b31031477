//! Laws of the runner over random graphs and random fates.

use super::*;
use crate::plan::{Action, OpSpec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn op(node: &str, needs: &[u32]) -> Action {
    let spec = OpSpec {
        node: node.to_owned(),
        resource: "r".to_owned(),
        agent: "ocf:crm:Dummy".to_owned(),
        op: "start".to_owned(),
        interval_ms: 0,
        timeout_ms: 1_000,
        expected_rc: 0,
        params: BTreeMap::new(),
        digest: 0,
    };
    let needs = needs.iter().map(|n| ActionId(*n)).collect();
    Action { kind: ActionKind::Op(Box::new(spec)), needs, priority: 0 }
}

fn plan(actions: Vec<Action>) -> Plan {
    Plan { actions, ..Plan::default() }
}

fn started(transition: &mut Transition) -> Vec<u32> {
    let mut out = Vec::new();
    while let Some(effect) = transition.poll() {
        if let Effect::Run { action, .. } = effect {
            out.push(action.0);
        }
    }
    out
}

#[test]
fn what_needs_a_failed_action_never_runs() {
    let mut t = Transition::new(plan(vec![op("a", &[]), op("a", &[0]), op("b", &[])]), (1, 1));
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0, 2]);
    t.handle(1, Event::Done { action: ActionId(0), ok: false });
    t.handle(2, Event::Done { action: ActionId(2), ok: true });
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
}

#[test]
fn an_abort_starts_nothing_and_waits_for_what_runs() {
    let mut t = Transition::new(plan(vec![op("a", &[]), op("a", &[0])]), (1, 1));
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0]);
    t.handle(1, Event::Abort);
    assert_eq!(t.poll(), None);
    t.handle(2, Event::Done { action: ActionId(0), ok: true });
    assert_eq!(t.poll(), Some(Effect::Finished(End::Aborted)));
}

#[test]
fn an_overdue_action_counts_as_failed() {
    let mut t = Transition::new(plan(vec![op("a", &[])]), (1, 1));
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0]);
    let due = t.deadline().unwrap();
    t.handle(due, Event::Tick);
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
}

#[test]
fn a_lost_node_fails_what_it_was_doing() {
    let mut t = Transition::new(plan(vec![op("a", &[]), op("b", &[])]), (1, 1));
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0, 1]);
    t.handle(1, Event::NodeLost { node: "a".to_owned() });
    t.handle(2, Event::Done { action: ActionId(1), ok: true });
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
}

proptest! {
    /// Every action starts at most once, never before what it needs has succeeded, and the transition always ends.
    #[test]
    fn order_is_kept_and_the_end_is_reached(
        edges in proptest::collection::vec((0u32..30, 0u32..30), 0..80),
        fates in proptest::collection::vec(0u8..10, 30),
    ) {
        let actions: Vec<Action> = (0..30u32)
            .map(|n| {
                let needs: BTreeSet<u32> =
                    edges.iter().filter(|(a, b)| *b == n && a < b).map(|(a, _)| *a).collect();
                op(if n % 2 == 0 { "a" } else { "b" }, &needs.into_iter().collect::<Vec<_>>())
            })
            .collect();
        let mut t = Transition::new(plan(actions.clone()), (1, 1));
        let (mut seen, mut succeeded, mut ended) = (BTreeSet::new(), BTreeSet::new(), false);
        t.handle(0, Event::Tick);
        for round in 0..200u64 {
            let mut running = Vec::new();
            while let Some(effect) = t.poll() {
                match effect {
                    Effect::Run { action, .. } => {
                        prop_assert!(seen.insert(action), "started twice");
                        let needs = &actions[action.0 as usize].needs;
                        prop_assert!(needs.iter().all(|n| succeeded.contains(n)));
                        running.push(action);
                    }
                    Effect::Finished(_) => ended = true,
                }
            }
            if ended { break; }
            for action in running {
                let ok = fates[action.0 as usize] != 0;
                if ok { succeeded.insert(action); }
                t.handle(round, Event::Done { action, ok });
            }
        }
        prop_assert!(ended);
    }
}
