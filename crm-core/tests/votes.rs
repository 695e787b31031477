//! Service quorum by the options of the CIB (ADR-0019) beside raft's majority: what a node does when the two differ.

mod stage;

use crm_core::controller::{Event, Mode, Votes};
use stage::{Actor, cluster};

const WEB: &str = "primitive web ocf:heartbeat:Dummy op monitor interval=10s\n";
const POWER: &str = "primitive power stonith:fence_x params pcmk_host_list=\"alpha beta gamma\"\n";
const UNFENCED: &str = "property stonith-enabled=false\n";

fn told(actor: &mut Actor, quorate: bool) {
    counted(actor, quorate, &[]);
}

fn counted(actor: &mut Actor, quorate: bool, seen: &[&str]) {
    let words = if quorate { "2 of 4 votes are here" } else { "only 1 of 2 votes is here" };
    let (words, seen) = (words.to_owned(), seen.iter().map(|n| (*n).to_owned()).collect());
    actor.happens(Event::Votes(Some(Votes { quorate, words, seen })));
}

/// Alpha of these nodes, which has led and runs `web`; the others have been heard.
fn alpha(nodes: &[&str], text: &str) -> Result<Actor, String> {
    let mut alpha = Actor::new("alpha", cluster(nodes, &format!("{WEB}{text}"))?, &["web"]);
    let others: Vec<(&str, bool)> = nodes.iter().skip(1).map(|n| (*n, true)).collect();
    alpha.hears(&others);
    alpha.leads(true, nodes);
    told(&mut alpha, true);
    alpha.passes(5_000);
    assert_eq!(
        (alpha.controller.mode(), alpha.active.contains(&"web".to_owned())),
        (Mode::Leader, true)
    );
    alpha.ran.clear();
    Ok(alpha)
}

#[test]
fn a_leader_that_is_outvoted_stops_what_runs_when_the_others_have_had_time_to_speak()
-> Result<(), String> {
    let mut alpha = alpha(&["alpha", "beta", "gamma"], UNFENCED)?;
    told(&mut alpha, false);
    assert_eq!(alpha.controller.mode(), Mode::Joining, "nothing is decided for a moment");
    alpha.passes(1_000);
    assert!(alpha.ran.is_empty(), "{:?}", alpha.ran);
    told(&mut alpha, true);
    alpha.passes(5_000);
    assert_eq!((alpha.controller.mode(), alpha.ran.len()), (Mode::Leader, 0));
    told(&mut alpha, false);
    alpha.passes(5_000);
    assert_eq!(alpha.controller.mode(), Mode::Leader);
    assert_eq!(alpha.ran, ["stop web"]);
    let words = alpha.controller.waiting().unwrap_or_default();
    assert!(words.contains("no service quorum: only 1 of 2 votes is here"), "{words}");
    alpha.hears(&[("beta", false), ("gamma", false)]);
    told(&mut alpha, true);
    alpha.passes(5_000);
    assert_eq!(alpha.ran, ["stop web", "start web"]);
    Ok(())
}

#[test]
fn nobody_is_fenced_by_who_is_outvoted() -> Result<(), String> {
    for (outvoted, fenced) in [(true, 0), (false, 1)] {
        let mut alpha = alpha(&["alpha", "beta", "gamma"], POWER)?;
        told(&mut alpha, !outvoted);
        alpha.hears(&[("beta", true), ("gamma", false)]);
        let gamma = crm_core::status::NodeStatus { session: 7, ..Default::default() };
        alpha.knows("gamma", gamma);
        alpha.passes(5_000);
        assert_eq!(alpha.fenced.iter().filter(|n| *n == "gamma").count().min(1), fenced);
        assert!(alpha.fenced.iter().all(|n| n == "gamma"), "{:?}", alpha.fenced);
    }
    Ok(())
}

#[test]
fn who_has_the_votes_and_no_leader_goes_on_with_what_it_runs_and_begins_nothing()
-> Result<(), String> {
    for (votes, policy, ran) in [
        (Some(true), "stop", 0),
        (Some(true), "ignore", 0),
        (Some(false), "stop", 1),
        (Some(false), "ignore", 1),
        (None, "stop", 1),
    ] {
        let text = format!("{UNFENCED}property no-quorum-policy={policy}\n");
        let mut alpha = alpha(&["alpha", "beta", "gamma", "delta"], &text)?;
        match votes {
            Some(quorate) => told(&mut alpha, quorate),
            None => alpha.happens(Event::Votes(None)),
        }
        alpha.hears(&[("beta", true), ("gamma", false), ("delta", false)]);
        alpha.leads(false, &["alpha", "beta", "gamma", "delta"]);
        alpha.passes(10_000);
        assert_eq!(alpha.controller.mode(), Mode::NoQuorum);
        assert_eq!(alpha.ran.len(), ran, "{votes:?} {policy}: {:?}", alpha.ran);
        let words = alpha.controller.waiting().unwrap_or_default();
        assert_eq!(words.contains("what runs goes on, nothing is begun"), votes == Some(true));
    }
    Ok(())
}

#[test]
fn the_last_of_those_who_stood_goes_on_where_it_breaks_the_tie() -> Result<(), String> {
    let three = ["alpha", "beta", "gamma"];
    for (votes, voters, mode) in [
        (Some(true), &three[..2], Mode::Alone),
        (Some(false), &three[..2], Mode::NoQuorum),
        (None, &three[..2], Mode::NoQuorum),
        // Of three that vote two may be anywhere.
        (Some(true), &three[..], Mode::NoQuorum),
    ] {
        let mut alpha = alpha(&three, POWER)?;
        match votes {
            Some(quorate) => told(&mut alpha, quorate),
            None => alpha.happens(Event::Votes(None)),
        }
        alpha.hears(&[("beta", false), ("gamma", false)]);
        alpha.leads(false, voters);
        alpha.passes(10_000);
        assert_eq!(alpha.controller.mode(), mode, "{votes:?} {voters:?}");
    }
    Ok(())
}

#[test]
fn of_two_whoever_does_not_break_the_tie_stops_and_fences_nobody() -> Result<(), String> {
    for (tie, mode, ran) in [(true, Mode::Alone, 0), (false, Mode::NoQuorum, 1)] {
        let mut alpha = alpha(&["alpha", "beta"], POWER)?;
        alpha.knows("beta", crm_core::status::NodeStatus { session: 7, ..Default::default() });
        told(&mut alpha, tie);
        alpha.hears(&[("beta", false)]);
        alpha.leads(false, &["alpha", "beta"]);
        alpha.passes(10_000);
        assert_eq!(alpha.controller.mode(), mode);
        let stopped = alpha.ran.iter().filter(|op| *op == "stop web").count();
        assert_eq!(stopped, ran, "{:?}", alpha.ran);
        assert_eq!(!alpha.fenced.is_empty(), tie, "{:?}", alpha.fenced);
    }
    Ok(())
}

/// The death of the peer is told before the votes are counted without it: what was counted with it says nothing of who breaks the tie.
#[test]
fn votes_that_were_counted_with_the_dead_fence_nobody() -> Result<(), String> {
    for (tie, fenced) in [(true, true), (false, false)] {
        let mut alpha = alpha(&["alpha", "beta"], POWER)?;
        alpha.knows("beta", crm_core::status::NodeStatus { session: 7, ..Default::default() });
        counted(&mut alpha, true, &["beta"]);
        alpha.hears(&[("beta", false)]);
        alpha.leads(false, &["alpha", "beta"]);
        alpha.passes(5_000);
        assert!(alpha.fenced.is_empty(), "{:?}", alpha.fenced);
        counted(&mut alpha, tie, &[]);
        alpha.passes(5_000);
        assert_eq!(!alpha.fenced.is_empty(), fenced, "{:?}", alpha.fenced);
    }
    Ok(())
}
