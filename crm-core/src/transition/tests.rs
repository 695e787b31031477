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
    let mut t = Transition::new(
        plan(vec![op("a", &[]), op("a", &[0]), op("b", &[])]),
        (1, 1),
        Limits::default(),
    );
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0, 2]);
    t.handle(1, Event::Done { action: ActionId(0), ok: false });
    t.handle(2, Event::Done { action: ActionId(2), ok: true });
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
}

#[test]
fn an_abort_starts_nothing_and_waits_for_what_runs() {
    let mut t = Transition::new(plan(vec![op("a", &[]), op("a", &[0])]), (1, 1), Limits::default());
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0]);
    t.handle(1, Event::Abort);
    assert_eq!(t.poll(), None);
    t.handle(2, Event::Done { action: ActionId(0), ok: true });
    assert_eq!(t.poll(), Some(Effect::Finished(End::Aborted)));
}

#[test]
fn an_overdue_action_counts_as_failed() {
    let mut t = Transition::new(plan(vec![op("a", &[])]), (1, 1), Limits::default());
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0]);
    let due = t.deadline().unwrap();
    t.handle(due, Event::Tick);
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
}

#[test]
fn a_lost_node_fails_what_it_was_doing() {
    let mut t = Transition::new(plan(vec![op("a", &[]), op("b", &[])]), (1, 1), Limits::default());
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0, 1]);
    t.handle(1, Event::NodeLost { node: "a".to_owned() });
    t.handle(2, Event::Done { action: ActionId(1), ok: true });
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
}

#[test]
fn a_report_that_comes_late_starts_nothing() {
    let mut t = Transition::new(
        plan(vec![op("a", &[]), op("a", &[0]), op("b", &[])]),
        (1, 1),
        Limits::default(),
    );
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0, 2]);
    t.handle(t.deadline().unwrap(), Event::Done { action: ActionId(2), ok: true });
    t.handle(1_000_000, Event::Done { action: ActionId(0), ok: true });
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
    assert_eq!(t.poll(), None);
}

#[test]
fn a_node_that_has_no_room_for_a_migration_has_room_for_others() {
    let mut actions: Vec<Action> = (0..4).map(|_| op("a", &[])).collect();
    for action in actions.iter_mut().take(3) {
        action.priority = 10;
        if let ActionKind::Op(spec) = &mut action.kind {
            spec.op = "migrate_to".to_owned();
        }
    }
    let limits = Limits { migrations: 2, ..Limits::default() };
    let mut t = Transition::new(plan(actions), (1, 1), limits);
    t.handle(0, Event::Tick);
    assert_eq!(started(&mut t), [0, 1, 3]);
    t.handle(1, Event::Done { action: ActionId(0), ok: true });
    assert_eq!(started(&mut t), [2]);
}

#[test]
fn what_waits_for_itself_ends_as_failed() {
    let mut t =
        Transition::new(plan(vec![op("a", &[1]), op("a", &[0])]), (1, 1), Limits::default());
    t.handle(0, Event::Tick);
    assert_eq!(t.poll(), Some(Effect::Finished(End::Failed)));
}

#[test]
fn the_limits_are_cluster_properties() {
    let mut cib = Cib::default();
    assert_eq!(Limits::of(&cib), Limits::default());
    for (name, value) in
        [("batch-limit", "3"), ("node-action-limit", "2"), ("migration-limit", "1")]
    {
        cib.properties.set(name, value);
    }
    assert_eq!(Limits::of(&cib), Limits { batch: 3, node: 2, migrations: 1 });
    for (name, value) in
        [("batch-limit", "0"), ("node-action-limit", "many"), ("migration-limit", "-1")]
    {
        cib.properties.set(name, value);
    }
    assert_eq!(Limits::of(&cib), Limits::default());
}

/// What a random world does with an action under way.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Succeeds,
    Fails,
    Refused,
    /// Never reported.
    Silent,
}

fn fate(dice: u8) -> Fate {
    match dice {
        0 => Fate::Fails,
        1 => Fate::Refused,
        2 => Fate::Silent,
        _ => Fate::Succeeds,
    }
}

/// Thirty actions on three nodes, some of them points and halves of migrations.
fn random(edges: &[(u32, u32)], kinds: &[u8]) -> Vec<Action> {
    let make = |n: u32| {
        let needs: BTreeSet<u32> =
            edges.iter().filter(|(a, b)| *b == n && a < b).map(|(a, _)| *a).collect();
        let needs: Vec<u32> = needs.into_iter().collect();
        let mut action = op(["a", "b", "c"][n as usize % 3], &needs);
        match (kinds[n as usize], &mut action.kind) {
            (0, kind) => *kind = ActionKind::Pseudo { name: "point".to_owned() },
            (1, ActionKind::Op(spec)) => spec.op = "migrate_from".to_owned(),
            (2, _) => action.priority = 5,
            _ => {}
        }
        action
    };
    (0..30).map(make).collect()
}

proptest! {
    /// Every action starts at most once, never before what it needs has succeeded, never more at a time than allowed, none on a lost node's
    /// account or after an abort; and the transition always ends, complete exactly when everything succeeded.
    #[test]
    fn order_and_limits_are_kept_and_the_end_is_reached(
        edges in proptest::collection::vec((0u32..30, 0u32..30), 0..80),
        kinds in proptest::collection::vec(0u8..8, 30),
        fates in proptest::collection::vec(0u8..20, 30),
        (batch, node, migrations) in (1usize..8, 1usize..4, 1usize..3),
        abort_at in proptest::option::of(0usize..30),
        lost_at in proptest::option::of(0usize..30),
    ) {
        let actions = random(&edges, &kinds);
        let real = |n: &usize| !matches!(actions[*n].kind, ActionKind::Pseudo { .. });
        let limits = Limits { batch, node, migrations };
        let mut t = Transition::new(plan(actions.clone()), (1, 1), limits);
        let (mut begun, mut good) = (BTreeSet::new(), BTreeSet::new());
        let (mut running, mut aborted, mut lost) = (Vec::<usize>::new(), false, false);
        let (mut now, mut end) = (0, None);
        t.handle(now, Event::Tick);
        for step in 0..500 {
            while let Some(effect) = t.poll() {
                prop_assert!(end.is_none(), "nothing comes after the end");
                match effect {
                    Effect::Run { action, .. } => {
                        let at = action.0 as usize;
                        prop_assert!(!aborted, "started after an abort");
                        prop_assert!(begun.insert(at), "started twice");
                        running.push(at);
                    }
                    Effect::Finished(how) => end = Some(how),
                }
            }
            for at in &running {
                // Points succeed by themselves once what they need has.
                let mut needs: Vec<usize> = actions[*at].needs.iter().map(|n| n.0 as usize).collect();
                while let Some(need) = needs.pop() {
                    prop_assert!(!real(&need) || good.contains(&need));
                    if !real(&need) {
                        needs.extend(actions[need].needs.iter().map(|n| n.0 as usize));
                    }
                }
            }
            prop_assert!(running.len() <= batch);
            for name in ["a", "b", "c"] {
                let here: Vec<_> = running.iter().filter(|at| node_of(&actions[**at].kind) == Some(name)).collect();
                prop_assert!(here.len() <= node);
                prop_assert!(here.iter().filter(|at| is_migration(&actions[***at].kind)).count() <= migrations);
            }
            if end.is_some() { break; }
            if abort_at == Some(step) {
                aborted = true;
                t.handle(now, Event::Abort);
            } else if lost_at == Some(step) {
                lost |= running.iter().any(|at| node_of(&actions[*at].kind) == Some("b"));
                running.retain(|at| node_of(&actions[*at].kind) != Some("b"));
                t.handle(now, Event::NodeLost { node: "b".to_owned() });
            } else if let Some(place) = running.iter().position(|at| !matches!(fate(fates[*at]), Fate::Silent)) {
                let at = running.remove(place);
                let action = ActionId(u32::try_from(at).unwrap());
                t.handle(now, match fate(fates[at]) {
                    Fate::Succeeds => {
                        good.insert(at);
                        Event::Done { action, ok: true }
                    }
                    Fate::Fails | Fate::Silent => Event::Done { action, ok: false },
                    Fate::Refused => Event::Refused { action },
                });
            } else {
                // Only silent ones are left: their time comes.
                now = t.deadline().unwrap();
                running.clear();
                t.handle(now, Event::Tick);
            }
        }
        let all = (0..30).filter(real).all(|at| good.contains(&at));
        let expected = if aborted { End::Aborted } else if all && !lost { End::Complete } else { End::Failed };
        prop_assert_eq!(end, Some(expected));
    }
}
