//! The core by itself: who may talk to whom, when a takeover is decided, how it is resumed, what is said.

use super::*;
use crate::lineage::How;

fn gid(n: u8) -> GenerationId {
    GenerationId([n; 16])
}

fn voters(sets: &[&[RaftId]], at: u64) -> Voters {
    Voters { sets: sets.iter().map(|s| s.iter().copied().collect()).collect(), at }
}

const ME: Identity = Identity { id: 1, incarnation: 10, boot: BootId([1; 16]) };

fn durable(sets: &[&[RaftId]]) -> Durable {
    Durable { committed: voters(sets, 1), highest_id: 2, ..Durable::new(gid(0)) }
}

fn greeting(lineage: &[u8], incarnation: u64, heard: Option<u64>) -> Greeting {
    Greeting { lineage: lineage.iter().map(|n| gid(*n)).collect(), incarnation, heard }
}

/// Node 1 of {1, 2}, in contact with incarnation 20 of node 2.
fn pair() -> Takeover {
    let (mut core, out) = Takeover::start(ME, durable(&[&[1, 2]]), None, voters(&[&[1, 2]], 1));
    assert_eq!(out, []);
    let (verdict, out) = core.receive(Call::Append, 2, &greeting(&[0], 20, Some(10)));
    let mark = Mark { boot: ME.boot, head: gid(0), peer: 2, heard: BTreeMap::from([(2, 20)]) };
    assert_eq!((verdict, out), (Ok(()), vec![Effect::Mark(Some(mark))]));
    core
}

fn evidence(incarnation: u64) -> Evidence {
    let how = How::Device { agent: "fence_virsh".into(), device: "f-beta".into() };
    Evidence { peer: 2, incarnation, how, at_ms: 5 }
}

fn confirmed(incarnation: u64) -> Event {
    Event::Confirmed { evidence: evidence(incarnation), id: gid(1) }
}

/// A core whose takeover of node 2 is decided.
fn decided() -> Takeover {
    let mut core = pair();
    core.handle(Event::Lost { peer: 2 });
    core.handle(confirmed(20));
    core
}

fn sentence(core: &Takeover) -> String {
    let names = ["?", "alpha", "beta", "gamma"];
    core.state(|id| names[usize::try_from(id).unwrap()].to_owned()).to_string()
}

#[test]
fn every_kind_of_call_is_judged_by_lineage() {
    let kinds = [
        Call::Vote,
        Call::PreVote,
        Call::Append,
        Call::Snapshot,
        Call::Transfer,
        Call::Write,
        Call::Order,
        Call::Heartbeat,
        Call::Rejoin { empty: false },
    ];
    let brings_up = [Call::Vote, Call::PreVote, Call::Append, Call::Snapshot, Call::Heartbeat];
    let (no_vote, stale) = (Err(Refusal::MineStale), Err(Refusal::Stale));
    for call in kinds {
        let judge = |lineage: &[u8]| {
            let mut core = pair();
            core.handle(Event::Logged { generations: vec![generation(1)], at: 2 });
            core.handle(Event::Leadership { leads: true, quorate: true });
            core.receive(call, 2, &greeting(lineage, 20, Some(10))).0
        };
        let asks = matches!(call, Call::Rejoin { .. });
        assert_eq!(judge(&[0, 1]), Ok(()), "{call:?} of an equal");
        assert_eq!(judge(&[0]), if asks { Ok(()) } else { stale.clone() }, "{call:?} of a stale");
        let newer = if brings_up.contains(&call) { Ok(()) } else { no_vote.clone() };
        assert_eq!(judge(&[0, 1, 2]), newer, "{call:?} of a newer");
        assert_eq!(judge(&[0, 2]), Err(Refusal::Diverged), "{call:?} of another line");
    }
}

fn generation(n: u8) -> Generation {
    Generation {
        number: u64::from(n),
        id: gid(n),
        by: 1,
        evicted: BTreeSet::from([2]),
        cause: Cause::Fenced { evidence: evidence(20), currency: Currency::Up },
        at_ms: 5,
    }
}

#[test]
fn a_confirmed_loss_is_carried_through_step_by_step() {
    let mut core = pair();
    let out = core.handle(Event::Lost { peer: 2 });
    assert_eq!(out, [Effect::Fence { peer: 2, incarnation: 20 }]);
    assert_eq!(core.service(), Service::Hold);
    let out = core.handle(confirmed(20));
    let intent = Durable { intent: Some(generation(1)), ..durable(&[&[1, 2]]) };
    let want = [
        Effect::Store(Box::new(intent.clone())),
        Effect::Ghosts(BTreeSet::from([2])),
        Effect::Do(Step::Elect),
    ];
    assert_eq!(out, want);
    let out = core.handle(Event::Leadership { leads: true, quorate: true });
    assert_eq!(out, [Effect::Do(Step::Propose(generation(1)))]);
    let out = core.handle(Event::Logged { generations: vec![generation(1)], at: 7 });
    assert_eq!(out.last(), Some(&Effect::Do(Step::Alone)));
    assert_eq!(core.handle(Event::Tick), [Effect::Do(Step::Alone)], "asked for again");
    let alone = voters(&[&[1]], 9);
    let half = voters(&[&[1, 2], &[1]], 8);
    core.handle(Event::Voters { effective: alone.clone(), committed: half });
    assert_eq!(core.service(), Service::Hold, "not before it is committed");
    let out = core.handle(Event::Voters { effective: alone.clone(), committed: alone });
    assert!(out.contains(&Effect::Ghosts(BTreeSet::new())), "{out:?}");
    assert_eq!((core.service(), core.step()), (Service::Full, None));
    assert_eq!(core.durable().intent, None);
}

#[test]
fn fencing_is_asked_for_once_per_loss_and_when_it_becomes_possible() {
    let fence = Effect::Fence { peer: 2, incarnation: 20 };
    let mut core = pair();
    let both = voters(&[&[1, 2]], 3);
    let three = voters(&[&[1, 2], &[1, 2, 3]], 2);
    core.handle(Event::Voters { effective: three, committed: Voters::default() });
    assert_eq!(core.handle(Event::Lost { peer: 2 }), [], "three votes: a majority is needed");
    let out = core.handle(Event::Voters { effective: both.clone(), committed: both });
    assert_eq!(out.last(), Some(&fence));
    assert_eq!(core.handle(Event::Lost { peer: 2 }), [], "once");
    assert_eq!(core.receive(Call::Heartbeat, 2, &greeting(&[0], 20, None)).0, Ok(()));
    assert_eq!(core.handle(Event::Lost { peer: 2 }), [fence], "lost again");
}

#[test]
fn a_takeover_is_resumed_after_a_crash_at_each_step_even_by_a_reboot() {
    let text = serde_json::to_string(decided().durable()).unwrap();
    let stored: Durable = serde_json::from_str(&text).unwrap();
    let rebooted = Identity { incarnation: 11, boot: BootId([2; 16]), ..ME };
    let (core, out) = Takeover::start(rebooted, stored.clone(), None, voters(&[&[1, 2]], 1));
    assert_eq!(out, [Effect::Ghosts(BTreeSet::from([2])), Effect::Do(Step::Elect)]);
    assert_eq!(core.service(), Service::Hold);
    let mut logged = stored;
    logged.lineage.push(generation(1)).unwrap();
    let (mut core, _) = Takeover::start(rebooted, logged, None, voters(&[&[1]], 8));
    let out = core.handle(Event::Leadership { leads: true, quorate: true });
    assert_eq!(out, [Effect::Do(Step::Alone)], "the generation is not proposed twice");
}

#[test]
fn nothing_is_taken_over_without_all_preconditions() {
    let refused = |core: &mut Takeover, incarnation: u64| {
        core.handle(Event::Lost { peer: 2 });
        core.handle(confirmed(incarnation));
        assert_eq!(core.durable().intent, None);
    };
    refused(&mut pair(), 19); // a confirmation of an older start
    let boot = ME.boot;
    let mark = Mark { boot, head: gid(0), peer: 2, heard: BTreeMap::from([(2, 20)]) };
    let start = |who, mark, effective: &[&[RaftId]]| {
        Takeover::start(who, durable(&[&[1, 2]]), Some(mark), voters(effective, 1)).0
    };
    let rebooted = Identity { boot: BootId([2; 16]), ..ME };
    refused(&mut start(rebooted, mark.clone(), &[&[1, 2]]), 20);
    refused(&mut start(ME, Mark { head: gid(9), ..mark.clone() }, &[&[1, 2]]), 20);
    refused(&mut start(ME, mark.clone(), &[&[1, 2, 3]]), 20);
    refused(&mut start(ME, mark.clone(), &[&[1, 2], &[2]]), 20);
    refused(&mut start(ME, Mark { peer: 3, ..mark.clone() }, &[&[1, 2]]), 20);
    let mut restarted = start(ME, mark, &[&[1, 2]]);
    restarted.handle(confirmed(20));
    assert!(restarted.durable().intent.is_some(), "the mark survives a restart of the daemon");
}

#[test]
fn who_was_confirmed_off_and_is_heard_again_cancels_what_is_not_decided() {
    let mut core = pair();
    core.handle(Event::Voters {
        effective: voters(&[&[1, 2, 3]], 2),
        committed: Voters::default(),
    });
    core.handle(confirmed(20));
    let (_, out) = core.receive(Call::Heartbeat, 2, &greeting(&[0], 20, None));
    assert_eq!(out, [Effect::Alarm(Alarm::FencingDoubtful(2))]);
    core.handle(Event::Voters { effective: voters(&[&[1, 2]], 3), committed: Voters::default() });
    assert_eq!(core.durable().intent, None);
}

#[test]
fn a_late_message_of_an_earlier_start_is_no_contact() {
    let mut core = pair();
    assert_eq!(core.receive(Call::Heartbeat, 2, &greeting(&[0], 21, None)).0, Ok(()));
    let (verdict, out) = core.receive(Call::Append, 2, &greeting(&[0], 20, Some(10)));
    assert_eq!((verdict, out), (Err(Refusal::Late), vec![]));
    let (mut fresh, _) = Takeover::start(ME, durable(&[&[1, 2]]), None, voters(&[&[1, 2]], 1));
    let (_, out) = fresh.receive(Call::Append, 2, &greeting(&[0], 20, Some(9)));
    assert_eq!(out, [], "it was meant for the start before this one");
    fresh.handle(Event::Lost { peer: 2 });
    assert_eq!(fresh.service(), Service::No);
}

#[test]
fn who_is_told_that_he_is_stale_stops_then_asks_then_serves_again() {
    let mut core = pair();
    core.handle(Event::Leadership { leads: true, quorate: true });
    assert_eq!(core.service(), Service::Full);
    let (used, out) = core.answered(Call::Append, 2, &greeting(&[0, 1], 20, Some(10)));
    assert!(!used);
    assert_eq!(out, [Effect::Mark(None), Effect::Yield { by: 2 }]);
    assert_eq!((core.service(), core.may_elect()), (Service::No, false));
    assert_eq!(core.wants_rejoin(), None, "not before it has stopped");
    let word = Order::CancelWait { operator: "root".into() };
    assert_eq!(core.order(word), Err(Refused::GoneOn));
    assert_eq!(core.handle(Event::Stopped), [Effect::AskRejoin { of: 2 }]);
    assert_eq!(core.handle(Event::Tick), [Effect::AskRejoin { of: 2 }]);
    let by_two = Generation { by: 2, evicted: BTreeSet::from([1]), ..generation(1) };
    core.handle(Event::Logged { generations: vec![by_two], at: 5 });
    let both = voters(&[&[1, 2]], 8);
    core.handle(Event::Voters { effective: both.clone(), committed: voters(&[&[2]], 6) });
    assert_eq!(core.service(), Service::No);
    core.handle(Event::Voters { effective: both.clone(), committed: both });
    assert_eq!(core.service(), Service::No, "not before the peer is known to know this start");
    let (verdict, _) = core.receive(Call::Append, 2, &greeting(&[0, 1], 20, Some(10)));
    assert_eq!((verdict, core.service()), (Ok(()), Service::Full));
}

/// Of three one went on alone and took another one back; the third hears of it from that one, which does not lead.
#[test]
fn whoever_does_not_know_the_leader_asks_one_after_another() {
    let three = voters(&[&[1, 2, 3]], 1);
    let asks = |core: &mut Takeover| match core.handle(Event::Tick).as_slice() {
        [Effect::AskRejoin { of }] => *of,
        other => panic!("{other:?}"),
    };
    let (mut stale, _) = Takeover::start(ME, durable(&[&[1, 2, 3]]), None, three.clone());
    stale.handle(Event::Heard { peer: 3, incarnation: 30 });
    stale.answered(Call::PreVote, 2, &greeting(&[0, 1], 20, Some(10)));
    assert_eq!(stale.handle(Event::Stopped), [Effect::AskRejoin { of: 2 }]);
    assert_eq!([asks(&mut stale), asks(&mut stale), asks(&mut stale)], [3, 2, 3]);

    let two = voters(&[&[2, 3]], 4);
    let (mut outside, _) = Takeover::start(ME, durable(&[&[1, 2, 3]]), None, two);
    outside.handle(Event::Heard { peer: 2, incarnation: 20 });
    outside.handle(Event::Heard { peer: 3, incarnation: 30 });
    assert_eq!([asks(&mut outside), asks(&mut outside), asks(&mut outside)], [3, 2, 3]);
}

#[test]
fn the_survivor_takes_the_other_back_as_learner_then_voter() {
    let own = Durable { since: 5, committed: voters(&[&[1]], 7), ..durable(&[&[1]]) };
    let (mut core, _) = Takeover::start(ME, own, None, voters(&[&[1]], 7));
    let hello = greeting(&[0], 21, None);
    let ask = |core: &mut Takeover, empty| core.receive(Call::Rejoin { empty }, 2, &hello);
    assert_eq!(ask(&mut core, false).0, Err(Refusal::NotNow), "it does not lead");
    core.handle(Event::Leadership { leads: true, quorate: true });
    assert_eq!(ask(&mut core, true).0, Err(Refusal::IdUsed { id: 2 }));
    assert_eq!(ask(&mut core, false), (Ok(()), vec![Effect::AddLearner(2)]));
    let out = core.handle(Event::CaughtUp { peer: 2 });
    assert_eq!(out, [Effect::ChangeMembers(BTreeSet::from([1, 2]))]);
    core.handle(Event::Leadership { leads: false, quorate: false });
    assert_eq!(core.handle(Event::CaughtUp { peer: 2 }), [], "late: it leads no more");
}

/// `last_man_standing` went down to one of three, and the third was back before the second.
#[test]
fn the_other_is_taken_back_beside_a_third_that_was_faster() {
    let now = voters(&[&[1, 3]], 9);
    let own = Durable { since: 5, committed: now.clone(), ..durable(&[&[1]]) };
    let (mut core, _) = Takeover::start(ME, own, None, now);
    core.handle(Event::Leadership { leads: true, quorate: true });
    let hello = greeting(&[0], 21, None);
    let (verdict, out) = core.receive(Call::Rejoin { empty: false }, 2, &hello);
    assert_eq!((verdict, out), (Ok(()), vec![Effect::AddLearner(2)]));
    let out = core.handle(Event::CaughtUp { peer: 2 });
    assert_eq!(out, [Effect::ChangeMembers(BTreeSet::from([1, 2, 3]))]);
}

/// `last_man_standing` strikes the third out, and the second dies before that change of raft's membership is complete.
#[test]
fn a_change_from_three_to_two_that_was_cut_short_does_not_bind_the_last_one() {
    let three = voters(&[&[1, 2, 3]], 1);
    let (joint, two) = (voters(&[&[1, 2, 3], &[1, 2]], 4), voters(&[&[1, 2]], 5));
    let takes_over = |effective: &Voters, committed: &Voters, peer: RaftId| {
        let own = durable(&[&[1, 2, 3]]);
        let (mut core, _) = Takeover::start(ME, own, None, three.clone());
        // All know each other: no mark is made as long as there are three.
        for id in [2, 3] {
            let (verdict, out) = core.receive(Call::Append, id, &greeting(&[0], 20, Some(10)));
            assert_eq!((verdict, out), (Ok(()), vec![]));
        }
        core.handle(Event::Leadership { leads: true, quorate: true });
        let (effective, committed) = (effective.clone(), committed.clone());
        core.handle(Event::Voters { effective, committed });
        assert_eq!(core.service(), Service::Full, "no moment without quorum");
        core.handle(Event::Leadership { leads: false, quorate: false });
        core.handle(Event::Lost { peer });
        let evidence = Evidence { peer, ..evidence(20) };
        core.handle(Event::Confirmed { evidence, id: gid(1) });
        let evicted = core.durable().intent.as_ref().map(|g| g.evicted.clone());
        assert_eq!(evicted.clone().unwrap_or_default(), core.ghosts());
        evicted.map(|ids| ids.into_iter().collect::<Vec<_>>())
    };
    assert_eq!(takes_over(&two, &two, 2), Some(vec![2]));
    assert_eq!(takes_over(&two, &joint, 2), Some(vec![2]));
    assert_eq!(takes_over(&joint, &joint, 2), Some(vec![2]), "3 is no longer asked");
    assert_eq!(takes_over(&joint, &joint, 3), None, "2 votes in both");
    assert_eq!(takes_over(&joint, &three, 2), None, "2 and 3 may have decided otherwise");
    // The other way round the third may vote already, without us.
    let grows = voters(&[&[1, 2], &[1, 2, 3]], 4);
    assert_eq!(takes_over(&grows, &two, 2), None);
    assert_eq!(takes_over(&grows, &grows, 2), None);
    // Two are no majority of four.
    let from_four = voters(&[&[1, 2, 3, 4], &[1, 2]], 4);
    assert_eq!(takes_over(&from_four, &from_four, 2), None);
}

/// What the peer knew of this start of ours does not outlast a generation.
#[test]
fn a_contact_counts_in_its_generation_only() {
    let (mut core, _) = Takeover::start(ME, durable(&[&[1, 2, 3]]), None, voters(&[&[1, 2, 3]], 1));
    assert_eq!(core.receive(Call::Append, 2, &greeting(&[0], 20, Some(10))).0, Ok(()));
    core.handle(Event::Logged { generations: vec![generation(1)], at: 2 });
    let two = voters(&[&[1, 2]], 5);
    core.handle(Event::Voters { effective: two.clone(), committed: two });
    core.handle(Event::Leadership { leads: true, quorate: true });
    assert_eq!(core.service(), Service::No);
    assert_eq!(core.receive(Call::Append, 2, &greeting(&[0, 1], 20, Some(10))).0, Ok(()));
    assert_eq!(core.service(), Service::Full);
}

#[test]
fn a_new_id_is_taken_in_only_after_the_old_one_was_evicted() {
    let mut core = pair();
    core.handle(Event::Leadership { leads: true, quorate: true });
    let hello = greeting(&[0], 30, None);
    let (verdict, out) = core.receive(Call::Rejoin { empty: true }, 3, &hello);
    assert_eq!(verdict, Err(Refusal::NotNow));
    assert!(!out.contains(&Effect::AddLearner(3)));
}

#[test]
fn the_survivor_serves_on_while_it_takes_the_other_back() {
    let own = Durable { since: 5, committed: voters(&[&[1]], 7), ..durable(&[&[1]]) };
    let (mut core, _) = Takeover::start(ME, own, None, voters(&[&[1]], 7));
    let out = core.handle(Event::Leadership { leads: true, quorate: true });
    assert!(matches!(out.as_slice(), [Effect::Mark(Some(mark))] if mark.peer == 1), "{out:?}");
    let half = voters(&[&[1], &[1, 2]], 8);
    core.handle(Event::Voters { effective: half, committed: voters(&[&[1]], 7) });
    assert_eq!(core.service(), Service::Full);
    core.handle(Event::Leadership { leads: true, quorate: false });
    core.handle(Event::Lost { peer: 2 });
    assert_eq!(core.service(), Service::Hold, "the other died again, half-way");
    core.handle(confirmed(20));
    assert_eq!(core.ghosts(), BTreeSet::from([2]));
}

#[test]
fn force_is_refused_while_others_may_live_and_leaves_its_trace() {
    let order = |accept| Order::Force {
        operator: "root".into(),
        accept_divergence: accept,
        id: gid(7),
        at_ms: 9,
    };
    let mut core = pair();
    core.handle(Event::Leadership { leads: false, quorate: true });
    assert_eq!(core.order(order(true)), Err(Refused::HasQuorum));
    core.handle(Event::Leadership { leads: false, quorate: false });
    let living = Refused::MayLive { peers: BTreeSet::from([2]) };
    assert_eq!(core.order(order(false)), Err(living));
    core.order(order(true)).unwrap();
    let intent = core.durable().intent.clone().unwrap();
    assert_eq!(intent.cause, Cause::Forced { operator: "root".into() });
    assert_eq!(core.order(order(true)), Err(Refused::UnderWay));
    let want = "going on without beta (forced, UNFENCED): being elected";
    assert_eq!(sentence(&core), want);
}

#[test]
fn of_three_nobody_goes_on_by_force_while_a_majority_may_live() {
    let order = |accept| Order::Force {
        operator: "root".into(),
        accept_divergence: accept,
        id: gid(7),
        at_ms: 9,
    };
    let all: &[&[RaftId]] = &[&[1, 2, 3]];
    let (mut core, _) = Takeover::start(ME, durable(all), None, voters(all, 1));
    let off = |peer| Event::Confirmed { evidence: Evidence { peer, ..evidence(0) }, id: gid(8) };
    core.handle(off(2));
    let living = Refused::MayLive { peers: BTreeSet::from([3]) };
    assert_eq!(core.order(order(true)), Err(living));
    core.handle(off(3));
    assert_eq!(core.order(order(false)), Err(Refused::MayMiss));
    core.order(order(true)).unwrap();
    assert_eq!(core.ghosts(), BTreeSet::from([2, 3]));
}

#[test]
fn an_operator_can_end_the_wait_but_not_the_fencing() {
    let (mut core, _) = Takeover::start(ME, durable(&[&[1, 2]]), None, voters(&[&[1, 2]], 1));
    let want = "waiting for beta: this node was not up when the cluster last had quorum";
    assert_eq!(sentence(&core), want);
    let out = core.order(Order::CancelWait { operator: "root".into() }).unwrap();
    assert_eq!(out, [Effect::Fence { peer: 2, incarnation: 0 }]);
    assert_eq!(core.service(), Service::No);
    core.handle(confirmed(0));
    let intent = core.durable().intent.clone().unwrap();
    let currency = Currency::Word { operator: "root".into() };
    assert_eq!(intent.cause, Cause::Fenced { evidence: evidence(0), currency });
}

#[test]
fn a_divergence_lasts_until_a_merge_names_the_winner() {
    let mut core = decided();
    core.handle(Event::Leadership { leads: true, quorate: true });
    core.handle(Event::Logged { generations: vec![generation(1)], at: 7 });
    let alone = voters(&[&[1]], 8);
    core.handle(Event::Voters { effective: alone.clone(), committed: alone });
    let other = greeting(&[0, 2], 30, None);
    let (verdict, out) = core.receive(Call::Append, 2, &other);
    let foreign = Foreign { peer: 2, lineage: vec![gid(0), gid(2)], common: 1 };
    assert_eq!(verdict, Err(Refusal::Diverged));
    assert_eq!(out.last(), Some(&Effect::Alarm(Alarm::Diverged(foreign))));
    assert_eq!(core.receive(Call::Append, 2, &other).1, [], "once");
    assert_eq!(core.receive(Call::Parley, 2, &other), (Ok(()), vec![]), "they may talk of a merge");
    assert!(core.answered(Call::Parley, 2, &other).0 && !core.answered(Call::Append, 2, &other).0);
    assert_eq!(core.service(), Service::Full, "its side goes on");
    assert!(sentence(&core).starts_with("DIVERGED from beta after generation 0"));
    let merge = |winner| Order::Merge { winner: gid(winner) };
    assert_eq!(core.order(merge(9)), Err(Refused::UnknownWinner));
    let mut loser = core.clone();
    assert_eq!(loser.order(merge(2)).unwrap().last(), Some(&Effect::GiveUp { to: 2 }));
    assert_eq!(loser.service(), Service::No);
    let mut joined = core.clone();
    let both = voters(&[&[1, 3]], 12);
    joined.handle(Event::Voters { effective: both.clone(), committed: both });
    assert_eq!(joined.durable().diverged, None, "the loser is back under a new id");
    core.order(merge(1)).unwrap();
    assert_eq!(core.receive(Call::Append, 2, &other), (Err(Refusal::Diverged), vec![]));
    assert_eq!(sentence(&core), "in quorum: the only voter since generation 1");
    let (verdict, _) = core.receive(Call::Append, 2, &greeting(&[0, 2, 3], 30, None));
    assert_eq!(verdict, Err(Refusal::Diverged));
    assert!(sentence(&core).starts_with("DIVERGED"), "the loser has been forced to go on");
}

#[test]
fn every_situation_has_its_sentence() {
    let mut core = pair();
    assert_eq!(sentence(&core), "no leader yet: electing one with beta");
    core.handle(Event::Leadership { leads: false, quorate: true });
    assert_eq!(sentence(&core), "in quorum");
    core.handle(Event::Leadership { leads: false, quorate: false });
    core.handle(Event::Lost { peer: 2 });
    let want = "beta is lost: waiting until it is confirmed off; what runs here goes on, nothing new begins";
    assert_eq!(sentence(&core), want);
    core.handle(confirmed(20));
    assert_eq!(sentence(&core), "going on without beta (confirmed off): being elected");
    let at = |sets: &[&[RaftId]]| {
        let effective = voters(sets, 1);
        sentence(&Takeover::start(ME, durable(sets), None, effective).0)
    };
    assert_eq!(at(&[&[1]]), "starting: the only voter, about to lead");
    assert_eq!(at(&[&[1, 2, 3]]), "waiting for beta, gamma: a majority of the voters is needed");
    assert_eq!(at(&[&[2]]), "waiting for beta: this node does not vote yet");
    let mut stale = pair();
    assert_eq!(stale.receive(Call::Heartbeat, 2, &greeting(&[0, 1], 20, None)).0, Ok(()));
    assert_eq!(sentence(&stale), "beta has gone on without this node: stopping what runs here");
    stale.handle(Event::Stopped);
    assert_eq!(sentence(&stale), "beta has gone on without this node: asking to be taken back");
}
