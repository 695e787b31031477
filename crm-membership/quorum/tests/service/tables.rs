//! Service quorum as tables: a cluster, its options, what happens to it, who may go on.
//!
//! A row: `NODES OPTION.. | STEP.. -> DECISION`. `votes1=3` gives node 1 three votes. Steps:
//! `12/34` who sees whom (a node not named is down; `+`: the arbiter's vote is in that group), `10s` time passes,
//! `unheard10` ten seconds pass and nobody has heard or noticed anything yet, `hear1` node 1 alone hears its peers, `leave4` a clean leave, `cancel` of the wait, told to node 1, `expect=2` told to node 1, `add4` `remove4` `set:OPTION=VALUE` in the configuration,
//! `forget3` loses its memory (while down).
//! Decision: the nodes that decide alike, their decision, votes present and expected.
//!
//! Rows marked `=` were played on the real votequorum (corosync 3.1.7 in namespaces), which decided the same;
//! `!` decided otherwise, on purpose: docs/compat.md, "Quorum options".

use crate::cluster::{Cluster, members};
use crm_quorum::votes::{Event, Memory};
use crm_quorum::{Policy, PolicyError, Quorum, Reason, Word};
use std::collections::{BTreeMap, BTreeSet};

/// The policy and the votes of `NODES OPTION..`.
#[expect(clippy::unwrap_in_result, reason = "a row that cannot be read is an error of the test")]
fn written(setup: &str) -> Result<(Policy, Vec<u32>), PolicyError> {
    let mut words = setup.split_whitespace().filter(|w| !matches!(*w, "=" | "!"));
    let count: usize = words.next().unwrap().parse().unwrap();
    let mut votes = vec![1; count];
    let mut policy = Policy::default();
    for option in words {
        let (name, value) = option.split_once('=').unwrap();
        match name.strip_prefix("votes") {
            Some(node) => votes[node.parse::<usize>().unwrap() - 1] = value.parse().unwrap(),
            None => policy.set(name, value)?,
        }
    }
    Ok((policy, votes))
}

/// Options and steps of a row, played.
fn play(row: &str) -> Cluster {
    let (setup, steps) = row.split_once('|').unwrap();
    let (policy, votes) = written(setup).unwrap();
    let mut cluster = Cluster::new(policy, &votes);
    for step in steps.split_whitespace() {
        run(&mut cluster, step);
    }
    cluster
}

fn run(cluster: &mut Cluster, step: &str) {
    if let Some(node) = step.strip_prefix("leave") {
        cluster.leave(node);
    } else if step == "cancel" {
        cluster.apply("1", Event::CancelWait);
        cluster.settle();
    } else if let Some(votes) = step.strip_prefix("expect=") {
        let now = cluster.now;
        let core = cluster.nodes.get_mut("1").unwrap().core.as_mut().unwrap();
        core.expect_votes(now, votes.parse().unwrap()).unwrap();
        cluster.settle();
    } else if let Some((name, value)) =
        step.strip_prefix("set:").and_then(|option| option.split_once('='))
    {
        cluster.policy.set(name, value).unwrap();
        for name in cluster.up() {
            cluster.apply(&name, Event::Policy(cluster.policy.clone()));
        }
        cluster.settle();
    } else if let Some(node) = step.strip_prefix("add") {
        cluster.seat(node.parse().unwrap(), true);
    } else if let Some(node) = step.strip_prefix("remove") {
        cluster.seat(node.parse().unwrap(), false);
    } else if let Some(node) = step.strip_prefix("forget") {
        cluster.nodes.get_mut(node).unwrap().memory = Memory::default();
    } else if let Some(node) = step.strip_prefix("hear") {
        cluster.hear(node);
    } else if let Some(seconds) = step.strip_prefix("unheard") {
        cluster.now += seconds.parse::<u64>().unwrap() * 1000;
    } else if let Some(seconds) = step.strip_suffix('s') {
        cluster.pass(seconds.parse::<u64>().unwrap() * 1000);
    } else {
        cluster.groups(step);
    }
}

fn decisions(cluster: &Cluster) -> String {
    let mut alike: Vec<(String, String)> = Vec::new();
    for name in cluster.up() {
        let verdict = cluster.core(&name).verdict();
        let word = match verdict.reason {
            Reason::Enough(_) => "quorate",
            Reason::TwoNode(_) => "two-node",
            Reason::TieBroken { .. } => "tie-won",
            Reason::TieLost { .. } => "tie-lost",
            Reason::TooFew { .. } => "refused",
            Reason::WaitingForAll { .. } => "waiting",
            Reason::Leaving | Reason::NoMember => "out",
        };
        let peers: Vec<String> = cluster.sees(&name).into_keys().collect();
        let text = format!("{word} {}/{}", verdict.count.have, verdict.count.expected);
        match alike
            .iter_mut()
            .find(|(nodes, t)| *t == text && peers.iter().any(|peer| nodes.contains(peer.as_str())))
        {
            Some((nodes, _)) => nodes.push_str(&name),
            None => alike.push((name, text)),
        }
    }
    let parts: Vec<String> = alike.iter().map(|(nodes, text)| format!("{nodes} {text}")).collect();
    parts.join(", ")
}

/// Plays every row of a table, and tells all that differ.
fn check(table: &str) {
    let mut wrong = String::new();
    let mut rows = 0;
    for row in table.lines().filter(|row| row.contains("->")) {
        let (input, want) = row.split_once("->").unwrap();
        let got = decisions(&play(input));
        if got != want.trim() {
            wrong.push_str(&format!("{}-> {got}\n", row.trim_start().split("->").next().unwrap()));
        }
        rows += 1;
    }
    assert!(rows > 0 && wrong.is_empty(), "decided otherwise:\n{wrong}");
}

#[test]
fn a_majority_of_the_expected_votes_is_needed() {
    check(
        "
        = 1                  | 1                -> 1 quorate 1/1
        = 2                  | 1                -> 1 refused 1/2
        = 2                  | 12               -> 12 quorate 2/2
        = 2                  | 12 1/2           -> 1 refused 1/2, 2 refused 1/2
        = 3                  | 12               -> 12 quorate 2/3
        = 3                  | 123 12/3         -> 12 quorate 2/3, 3 refused 1/3
        = 4                  | 1234 12/34       -> 12 refused 2/4, 34 refused 2/4
        = 4                  | 1234 123/4       -> 123 quorate 3/4, 4 refused 1/4
        = 5                  | 12345 123/45     -> 123 quorate 3/5, 45 refused 2/5
        = 5                  | 12345 12/345     -> 12 refused 2/5, 345 quorate 3/5
        = 3 votes1=3         | 123 1/23         -> 1 quorate 3/5, 23 refused 2/5
        = 3 votes3=0         | 123 1/23         -> 1 refused 1/2, 23 refused 1/2
        = 3 votes3=0         | 12               -> 12 quorate 2/2
    ",
    );
}

#[test]
fn expected_votes_never_fall_by_themselves_and_rise_with_the_members() {
    check(
        "
        = 3                        | 123 1               -> 1 refused 1/3
          3                        | 123 1 3600s         -> 1 refused 1/3
        = 3 expected_votes=5       | 12                  -> 12 refused 2/5
        = 3 expected_votes=5       | 123                 -> 123 quorate 3/5
        ! 3 expected_votes=1       | 1                   -> 1 refused 1/3
          3                        | 123 add4            -> 123 quorate 3/4
          3                        | 123 add4 1234 12/34 -> 12 refused 2/4, 34 refused 2/4
          3                        | 12/3 add4 12        -> 12 refused 2/4
          3 expected_votes=5       | 123 add4            -> 123 quorate 3/5
          3                        | 123 remove3 12 1/2  -> 1 refused 1/2, 2 refused 1/2
          3                        | 123 remove3         -> 12 quorate 2/2, 3 out 2/2
        = 5                        | 12345 expect=7 1234 12345     -> 12345 quorate 5/7
          5                        | 12345 expect=7 1234 forget5 12345 -> 12345 quorate 5/7
        = 5                        | 12345 123 expect=3 12     -> 12 quorate 2/3
        = 5                        | 12345 12 expect=2         -> 12 quorate 2/2
        = 5                        | 12345 12 expect=2 123     -> 123 quorate 3/3
        = 5                        | 12345 12 expect=2 12/345  -> 12 quorate 2/2, 345 quorate 3/5
        = 5                        | 12345 12 expect=2 12345 12/345  -> 12 refused 2/5, 345 quorate 3/5
        = 3                        | 123 expect=5 12     -> 12 refused 2/5
    ",
    );
}

#[test]
fn two_node_lets_one_of_two_go_on() {
    check(
        "
        = 2 two_node=1                  | 12                -> 12 quorate 2/2
        = 2 two_node=1                  | 12 1              -> 1 two-node 1/2
        = 2 two_node=1                  | 12 1/2            -> 1 two-node 1/2, 2 two-node 1/2
        = 2 two_node=1 wait_for_all=0   | 1                 -> 1 two-node 1/2
        = 1 two_node=1                  | 1                 -> 1 quorate 1/1
          2 two_node=1                  | 12 add3 123       -> 123 quorate 3/3
          2 two_node=1                  | 12 add3 1         -> 1 waiting 1/3
          2 two_node=1 wait_for_all=0   | 12 add3 123 1     -> 1 refused 1/3
          2 two_node=1                  | 12 add3 123 remove3 12 1 -> 1 two-node 1/2
        = 2 two_node=1 expected_votes=3 | 12                -> 12 waiting 2/3
        = 2 two_node=1 auto_tie_breaker=1 | 12 1/2          -> 1 tie-won 1/2, 2 waiting 1/2
    ",
    );
}

/// What seed 002 has in its corosync.conf.
#[test]
fn the_seed_goes_on_with_one_node_and_waits_for_both_at_a_cold_start() {
    check(
        "
        = 2 two_node=1 wait_for_all=1 last_man_standing=1 auto_tie_breaker=0 | 1         -> 1 waiting 1/2
        = 2 two_node=1 wait_for_all=1 last_man_standing=1 auto_tie_breaker=0 | 12 1      -> 1 two-node 1/2
        = 2 two_node=1 wait_for_all=1 last_man_standing=1 auto_tie_breaker=0 | 12 1/2    -> 1 two-node 1/2, 2 two-node 1/2
        = 2 two_node=1 wait_for_all=1 last_man_standing=1 auto_tie_breaker=0 | 12 1/2 12 -> 12 quorate 2/2
        = 2 two_node=1 wait_for_all=1 last_man_standing=1 auto_tie_breaker=0 | 12 1 2    -> 2 waiting 1/2
    ",
    );
}

#[test]
fn wait_for_all_holds_until_all_were_seen_at_once() {
    check(
        "
        = 2 two_node=1                  | 1                 -> 1 waiting 1/2
          2 two_node=1                  | 1 3600s           -> 1 waiting 1/2
        = 2 two_node=1                  | 1 12 1            -> 1 two-node 1/2
        = 2 two_node=1                  | 12 1 2            -> 2 waiting 1/2
        = 2 two_node=1                  | 12 1 12           -> 12 quorate 2/2
        = 2 two_node=1                  | 1 cancel          -> 1 two-node 1/2
        = 3 wait_for_all=1              | 12                -> 12 waiting 2/3
        = 3 wait_for_all=1              | 123               -> 123 quorate 3/3
        = 3 wait_for_all=1              | 123 12            -> 12 quorate 2/3
        = 3 wait_for_all=1              | 123 12/3 123      -> 123 quorate 3/3
        = 3 wait_for_all=1              | 123 12 123 1/23   -> 1 waiting 1/3, 23 quorate 2/3
        = 3 wait_for_all=1              | 12 cancel         -> 12 quorate 2/3
        = 3 wait_for_all=1              | 1 cancel          -> 1 waiting 1/3
        = 3 wait_for_all=1              | 1 cancel 12       -> 12 waiting 2/3
        = 3 wait_for_all=1              | 123 1 12          -> 12 waiting 2/3
        = 3 wait_for_all=1              | 123 1 12 123      -> 123 quorate 3/3
        = 3 wait_for_all=1              | 123 1/2/3 12/3    -> 12 waiting 2/3, 3 waiting 1/3
        = 3 wait_for_all=1              | 1/23 13/2 12/3    -> 12 waiting 2/3, 3 waiting 1/3
        = 3 wait_for_all=1 expected_votes=4 | 123           -> 123 waiting 3/4
        = 4 wait_for_all=1              | 1234 12/34        -> 12 waiting 2/4, 34 waiting 2/4
        = 5 wait_for_all=1              | 12345 123 1234    -> 1234 quorate 4/5
    ",
    );
}

#[test]
fn the_last_men_stop_counting_the_lost() {
    check(
        "
        = 5 last_man_standing=1 last_man_standing_window=30s | 12345 123 8s 12  -> 12 refused 2/5
        = 5 last_man_standing=1                       | 12345 123 10s          -> 123 quorate 3/3
        = 5 last_man_standing=1                       | 12345 123 10s 12       -> 12 quorate 2/3
        = 5 last_man_standing=1                       | 12345 123 10s 12 10s   -> 12 quorate 2/2
        = 5 last_man_standing=1                       | 12345 123 10s 12 10s 1 -> 1 refused 1/2
          5 last_man_standing=1                       | 12345 123 10s 12 10s 1 3600s -> 1 refused 1/2
        = 5 last_man_standing=1                       | 12345 12 10s           -> 12 refused 2/5
        = 5 last_man_standing=1 last_man_standing_window=20s | 12345 1234 12s 123 12s 12 -> 12 refused 2/5
        = 5 last_man_standing=1                       | 12345 1234 6s 123 10s 12 -> 12 quorate 2/3
        = 5 last_man_standing=1                       | 123 10s 12             -> 12 refused 2/5
        = 5 last_man_standing=1 last_man_standing_window=3s | 12345 123 3s 12  -> 12 quorate 2/3
        = 5 last_man_standing=1                       | 12345 123 10s 12345    -> 12345 quorate 5/5
        = 5 last_man_standing=1                       | 12345 123 10s 1234 12  -> 12 refused 2/4
        = 3 last_man_standing=1 votes1=2              | 123 12 10s             -> 12 quorate 3/4
        = 3 last_man_standing=1                       | 123 12 10s 1           -> 1 refused 1/2
        = 2 last_man_standing=1                       | 12 1 10s               -> 1 refused 1/2
        = 2 last_man_standing=1 two_node=1            | 12 1 10s               -> 1 two-node 1/2
        = 4 last_man_standing=1 auto_tie_breaker=1    | 1234 12 10s            -> 12 quorate 2/2
        = 4 last_man_standing=1 auto_tie_breaker=1    | 1234 12 10s 1          -> 1 tie-won 1/2
        = 4 last_man_standing=1 auto_tie_breaker=1    | 1234 12 10s 1 10s      -> 1 quorate 1/1
        = 4 last_man_standing=1 auto_tie_breaker=1    | 1234 12 10s 2          -> 2 tie-lost 1/2
        = 3 last_man_standing=1 auto_tie_breaker=1 wait_for_all=1 | 123 12 10s 1 10s -> 1 quorate 1/1
        = 3 last_man_standing=1 auto_tie_breaker=1 wait_for_all=1 | 123 12 10s 1 10s 123 -> 123 quorate 3/3
    ",
    );
}

#[test]
fn who_was_struck_out_does_not_help_others_to_a_majority() {
    check(
        "
        ! 5 last_man_standing=1                | 12345 123/45 10s 12/345       -> 12 quorate 2/3, 345 refused 1/3
        ! 5 last_man_standing=1                | 12345 123/45 10s 12/345 10s   -> 12 quorate 2/2, 345 refused 1/3
        ! 5 last_man_standing=1                | 12345 123/45 10s 12/45 12/345 -> 12 quorate 2/3, 345 refused 1/3
          5 last_man_standing=1 wait_for_all=1 | 12345 123/45 10s 12/45 forget3 12/345 -> 12 quorate 2/3, 345 waiting 3/5
        ! 5 last_man_standing=1                | 12345 123 10s 12 10s 345      -> 345 refused 1/3
        ! 5 last_man_standing=1                | 12345 123 10s 1/2/345         -> 1 refused 1/3, 2 refused 1/3, 345 refused 1/3
        = 5 last_man_standing=1                | 12345 123 10s 45              -> 45 refused 2/5
        = 5 last_man_standing=1                | 12345 123 10s 45 1245         -> 1245 quorate 4/5
    ",
    );
}

#[test]
fn wait_for_all_does_not_make_up_for_it_alone() {
    check(
        "
        ! 5 wait_for_all=1 last_man_standing=1 | 12345 123/45 10s 12/345  -> 12 quorate 2/3, 345 waiting 1/3
        = 5 wait_for_all=1 last_man_standing=1 | 12345 123 10s 12 10s 345 -> 345 waiting 1/3
        = 5 wait_for_all=1 last_man_standing=1 | 12345 123 10s 1 12       -> 12 waiting 2/3
    ",
    );
}

#[test]
fn a_lower_number_counts_only_when_enough_nodes_have_listed_it() {
    check(
        "
          5 last_man_standing=1 | 12345 123/45 unheard10 hear1                        -> 1 quorate 3/3, 23 quorate 3/5, 45 refused 2/5
          5 last_man_standing=1 | 12345 123/45 unheard10 hear1 12/345                 -> 12 refused 2/5, 345 quorate 3/5
          5 last_man_standing=1 | 12345 123/45 unheard10 hear1 hear2 hear1 12/345     -> 12 refused 2/5, 345 quorate 3/5
          5 last_man_standing=1 | 12345 123/45 unheard10 hear1 hear3 12/345           -> 12 refused 2/5, 345 refused 1/3
          5 last_man_standing=1 | 12345 123/45 unheard10 hear1 hear2 hear3 12/345     -> 12 refused 2/5, 345 refused 1/3
          5 last_man_standing=1 | 12345 123/45 unheard10 hear1 hear2 hear3 hear1 12/345 -> 12 quorate 2/3, 345 refused 1/3
          5 last_man_standing=1 | 12345 123/45 unheard10 hear1 hear2 hear3 12/345 12345 -> 12345 quorate 5/5
        ",
    );
}

#[test]
fn the_tie_breaker_decides_between_halves() {
    check(
        "
        = 4 auto_tie_breaker=1                               | 1234 12/34      -> 12 tie-won 2/4, 34 tie-lost 2/4
        = 4 auto_tie_breaker=1                               | 1234 1/234      -> 1 refused 1/4, 234 quorate 3/4
        = 4 auto_tie_breaker=1                               | 1234 12 1       -> 1 refused 1/4
        = 4 auto_tie_breaker=1 auto_tie_breaker_node=highest | 1234 12/34      -> 12 tie-lost 2/4, 34 tie-won 2/4
        = 4 auto_tie_breaker=1 auto_tie_breaker_node=3       | 1234 12/34      -> 12 tie-lost 2/4, 34 tie-won 2/4
        = 4 auto_tie_breaker=1 auto_tie_breaker_node=2,3     | 1234 13/24      -> 13 tie-lost 2/4, 24 tie-won 2/4
        = 4 auto_tie_breaker=1 auto_tie_breaker_node=2,3     | 1234 134 10s 13/4 -> 13 tie-won 2/4, 4 refused 1/4
        ! 4 auto_tie_breaker=1 auto_tie_breaker_node=2,3     | 1234 134 10s 13 12/34 -> 12 tie-lost 2/4, 34 tie-won 2/4
        = 2 auto_tie_breaker=1                               | 12 1            -> 1 tie-won 1/2
        = 2 auto_tie_breaker=1                               | 12 2            -> 2 tie-lost 1/2
        = 4 auto_tie_breaker=1                               | 1234 234 10s 23     -> 23 tie-won 2/4
        = 4 auto_tie_breaker=1                               | 1234 234 10s 34     -> 34 tie-lost 2/4
        = 4 auto_tie_breaker=1                               | 1234 234 10s 23/14  -> 14 tie-lost 2/4, 23 tie-won 2/4
        = 4 auto_tie_breaker=1                               | 1234 234 10s 1234 12/34 -> 12 tie-won 2/4, 34 tie-lost 2/4
        = 4 auto_tie_breaker=1                               | 1234 12/34 1/2/34 12/34 -> 12 tie-won 2/4, 34 tie-lost 2/4
        ! 4 auto_tie_breaker=1                               | 1234 234 23     -> 23 tie-lost 2/4
        ! 4 auto_tie_breaker=1                               | 12              -> 12 tie-won 2/4
        = 4 auto_tie_breaker=1                               | 34              -> 34 tie-lost 2/4
        = 4 auto_tie_breaker=1 wait_for_all=1                | 12              -> 12 waiting 2/4
        = 4 auto_tie_breaker=1 votes1=3                      | 1234 1/234      -> 1 tie-won 3/6, 234 tie-lost 3/6
    ",
    );
}

#[test]
fn the_tie_breaker_of_an_odd_cluster_needs_wait_for_all_and_one_lost_before() {
    check(
        "
        = 4 auto_tie_breaker=1 votes2=2       | 1234 12/34             -> 12 quorate 3/5, 34 refused 2/5
        = 5 auto_tie_breaker=1                | 12345 1234 10s 12/34     -> 12 refused 2/5, 34 refused 2/5
        = 5 auto_tie_breaker=1 wait_for_all=1 | 12345 12/345             -> 12 waiting 2/5, 345 quorate 3/5
        = 5 auto_tie_breaker=1 wait_for_all=1 | 12345 1234 10s 12/34     -> 12 tie-won 2/4, 34 waiting 2/4
        = 5 auto_tie_breaker=1 wait_for_all=1 | 12345 1234 10s 12/345    -> 12 tie-won 2/4, 345 waiting 2/4
        ! 5 auto_tie_breaker=1 wait_for_all=1 | 12345 1234 4s 12/34      -> 12 waiting 2/5, 34 waiting 2/5
        = 5 auto_tie_breaker=1 wait_for_all=1 | 12345 123 10s 12/3       -> 12 tie-won 2/4, 3 waiting 1/4
        = 5 auto_tie_breaker=1 wait_for_all=1 | 12345 1234 10s 12345     -> 12345 quorate 5/5
        = 3 auto_tie_breaker=1 wait_for_all=1 | 123 12 10s 1/2           -> 1 tie-won 1/2, 2 waiting 1/2
    ",
    );
}

#[test]
fn clean_leaves_lower_the_expected_votes_down_to_the_floor() {
    check(
        "
        = 5 allow_downscale=1 expected_votes=3 | 12345 leave5                -> 1234 quorate 4/4
        = 5 allow_downscale=1 expected_votes=3 | 12345 leave5 leave4         -> 123 quorate 3/3
        ! 5 allow_downscale=1 expected_votes=3 | 12345 leave5 leave4 leave3  -> 12 quorate 2/3
        = 5 allow_downscale=1 expected_votes=3 | 12345 leave5 leave4 leave3 leave2 -> 1 refused 1/3
        = 5 allow_downscale=1 expected_votes=3 | 12345 1234                  -> 1234 quorate 4/5
        = 5 allow_downscale=1 expected_votes=3 | 12345 leave5 leave4 12345   -> 12345 quorate 5/5
        ! 5 allow_downscale=1 expected_votes=3 | 12345 leave5 leave4 12/345  -> 12 quorate 2/3, 345 refused 1/3
        = 5 allow_downscale=1 expected_votes=3 | 12345 12 leave2             -> 1 refused 1/5
        = 5 allow_downscale=1                  | 12345 leave5                -> 1234 quorate 4/5
        = 5                                    | 12345 leave5 leave4 leave3  -> 12 refused 2/5
    ",
    );
}

#[test]
fn tracked_votes_are_a_floor_for_a_smaller_cluster() {
    check(
        "
          3                           | 123 add4 1234 remove4 123    -> 123 quorate 3/3
          3 expected_votes_tracking=1 | 123 add4 1234 remove4 123    -> 123 quorate 3/4
          3 expected_votes_tracking=1 | 123 add4 1234 remove4 / 12   -> 12 refused 2/4
          3 expected_votes_tracking=1 | 123 add4 1234 remove4 / forget1 forget2 forget3 12 -> 12 quorate 2/3
          3 expected_votes_tracking=1 | 123 add4 1234 remove4 / forget1 13 -> 13 refused 2/4
          3 expected_votes_tracking=1 | 123 add4 1234 remove4 123 expect=3 -> 123 quorate 3/3
    ",
    );
}

#[test]
fn the_arbiter_gives_its_votes_to_one_side() {
    check(
        "
          2 arbiter=ffsplit | 12 1+/2        -> 1 quorate 2/3, 2 refused 1/3
          2 arbiter=ffsplit | 12 1/2         -> 1 refused 1/3, 2 refused 1/3
          2 arbiter=ffsplit | 12             -> 12 quorate 2/3
          2 arbiter=ffsplit | 1+             -> 1 quorate 2/3
          4 arbiter=ffsplit | 1234+ 12/34+   -> 12 refused 2/5, 34 quorate 3/5
          4 arbiter=ffsplit | 1234+ 1+/234   -> 1 refused 2/5, 234 quorate 3/5
          4 arbiter=lms     | 1234+ 1+/234   -> 1 quorate 4/7, 234 refused 3/7
          4 arbiter=lms     | 1234           -> 1234 quorate 4/7
          4 arbiter=lms     | 1234+ 123      -> 123 refused 3/7
          4 arbiter=lms arbiter_votes=1 | 12/34+ -> 12 refused 2/5, 34 quorate 3/5
          3 arbiter=lms     | 123+ add4      -> 123 quorate 6/7
          2 arbiter=ffsplit wait_for_all=1 | 12  -> 12 waiting 2/3
          2 arbiter=ffsplit wait_for_all=1 | 12+ -> 12 quorate 3/3
          2 arbiter=ffsplit wait_for_all=1 | 12+ 1+ -> 1 quorate 2/3
    ",
    );
}

/// Node 3 of three, whose configuration expects 3, hears from 1 and 2, who expect 4.
#[test]
fn who_is_not_quorate_takes_over_what_a_quorate_peer_expects() {
    for (quorate, tracking, expected) in [(true, false, 4), (false, false, 3), (false, true, 4)] {
        let policy = Policy { expected_votes_tracking: tracking, ..Policy::default() };
        let mut quorum = Quorum::new("3", policy, &members(&[1; 3]), Memory::default());
        let mut word = Word { quorate, ..quorum.word() };
        word.ballots[0].total = 4;
        let peers = ["1", "2"].map(|name| (name.to_owned(), word.clone()));
        let verdict = quorum.apply(0, Event::View(BTreeMap::from(peers)));
        assert_eq!((verdict.count.have, verdict.count.expected), (3, expected));
        let verdict = quorum.apply(1, Event::View(BTreeMap::new()));
        assert_eq!(verdict.count.expected, expected, "and it does not fall again");
    }
}

#[test]
fn words_that_differ_have_different_fingerprints() {
    let told = |row: &str| play(row).core("1").word();
    let word = told("4 auto_tie_breaker=1 | 1234");
    let mut all: Vec<Word> = vec![word.clone(), Word::default()];
    for change in [
        |w: &mut Word| w.quorate = false,
        |w: &mut Word| w.waiting = true,
        |w: &mut Word| w.leaving = true,
        |w: &mut Word| w.ballots[0].version = 1,
        |w: &mut Word| w.ballots[0].total = 5,
        |w: &mut Word| w.ballots[0].tie = None,
        |w: &mut Word| w.ballots[0].counted = ["1".into(), "2".into(), "34".into()].into(),
        |w: &mut Word| w.ballots.push(w.ballots[0].clone()),
    ] {
        let mut changed = word.clone();
        change(&mut changed);
        all.push(changed);
    }
    let prints: BTreeSet<u64> = all.iter().map(Word::fingerprint).collect();
    assert_eq!(prints.len(), all.len());
    assert_eq!(Word::default().fingerprint(), 0xd94d_1218_6c0f_2fb7, "the same on all builds");
}

#[test]
fn the_next_tick_that_matters_is_known() {
    let mut cluster = play("5 last_man_standing=1 | 12345 7s 123");
    assert_eq!(cluster.core("1").wake_ms(), Some(17_000));
    cluster.now = 16_999;
    cluster.apply("1", Event::Tick);
    assert_eq!(cluster.core("1").word().ballots.len(), 1);
    cluster.now = 17_000;
    cluster.apply("1", Event::Tick);
    assert_eq!(cluster.core("1").word().ballots.len(), 2);
    assert_eq!(cluster.core("1").wake_ms(), None);
    assert_eq!(play("5 | 12345 123").core("1").wake_ms(), None);
}

#[test]
fn options_change_while_the_cluster_runs() {
    check(
        "
          2 two_node=1           | 12 1 set:two_node=0               -> 1 refused 1/2
          2                      | 12 1 set:two_node=1               -> 1 waiting 1/2
          2                      | 12 set:two_node=1 1               -> 1 two-node 1/2
          3 wait_for_all=1       | 12 set:wait_for_all=0             -> 12 quorate 2/3
          3                      | 12 set:wait_for_all=1             -> 12 quorate 2/3
          3                      | 123 set:expected_votes=5 12       -> 12 refused 2/5
          3 expected_votes=5     | 123 set:expected_votes=3 12       -> 12 refused 2/5
          3 expected_votes=5     | 123 set:expected_votes=3 expect=3 12 -> 12 quorate 2/3
          4                      | 1234 set:auto_tie_breaker=1 12/34 -> 12 tie-won 2/4, 34 tie-lost 2/4
          4 auto_tie_breaker=1   | 1234 set:auto_tie_breaker_node=highest 12/34 -> 12 tie-lost 2/4, 34 tie-won 2/4
          4 auto_tie_breaker=1   | 1234 12/34 set:auto_tie_breaker=0 -> 12 refused 2/4, 34 refused 2/4
          2                      | 12 set:arbiter=ffsplit 1+/2       -> 1 quorate 2/3, 2 refused 1/3
          3 last_man_standing=1  | 123 12 10s set:last_man_standing=0 1 -> 1 refused 1/2
        ",
    );
}

/// Every kind of reason, in the words that a person reads (node 1 speaks).
const REASONS: &str = "
    3                             | 12   -> 2 of 3 votes are here, 2 needed
    2 two_node=1                  | 12 1 -> 1 of 2 votes is here, enough with two_node
    4 auto_tie_breaker=1          | 1234 12 -> 2 of 4 votes are here, exactly half, and `1` breaks the tie (auto_tie_breaker)
    4 auto_tie_breaker=1 auto_tie_breaker_node=highest | 1234 12 -> 2 of 4 votes are here, exactly half, and `4`, which breaks the tie, is not: it or 1 more vote is needed
    3                             | 1    -> only 1 of 3 votes is here, 2 needed: 1 more vote (missing: 2, 3)
    5 expected_votes=9            | 12   -> only 2 of 9 votes are here, 5 needed: 3 more votes (missing: 3, 4, 5)
    2 arbiter=ffsplit             | 1    -> only 1 of 3 votes is here, 2 needed: 1 more vote (missing: 2, the arbiter)
    3 wait_for_all=1              | 12   -> wait_for_all: 2 of 3 votes are here; all of them are needed once (missing: 3), or a peer that is quorate, or 2 votes and the wait cancelled by hand
    3                             | 123 remove1 -> this node is not a member of the cluster; let it join first
";

#[test]
fn reasons_say_what_how_many_and_what_would_help() {
    for row in REASONS.lines().filter(|row| row.contains("->")) {
        let (input, want) = row.split_once("->").unwrap();
        let cluster = play(input);
        assert_eq!(cluster.core("1").verdict().reason.to_string(), want.trim(), "{input}");
    }
    assert!(play("3 | 123 remove1").core("1").word().leaving, "its vote is nobody's any more");
    let mut cluster = play("3 | 123");
    cluster.apply("1", Event::Leave);
    let verdict = cluster.core("1").verdict();
    assert!(!verdict.quorate);
    assert_eq!(
        verdict.reason.to_string(),
        "this node is leaving the cluster; start it again to take part"
    );
}

/// Options as written for a cluster of N votes of one -> what `check` says: `ok`, an error, or what is without effect.
const CHECKS: &str = "
    3                                        -> ok
    3 expected_votes=0                       -> quorum option `expected_votes` does not take `0`; give it a number from 1
    3 two_node=maybe                         -> quorum option `two_node` does not take `maybe`; give it `1` or `0`
    3 last_man_standing_window=soon          -> quorum option `last_man_standing_window` does not take `soon`; give it milliseconds from 1, or `10s`
    3 last_man_standing_window=0             -> quorum option `last_man_standing_window` does not take `0`; give it milliseconds from 1, or `10s`
    3 arbiter=qnetd                          -> quorum option `arbiter` does not take `qnetd`; give it `ffsplit`, `lms` or `none`
    3 twonode=1                              -> unknown quorum option `twonode=1`; known: `expected_votes`, `two_node`, `wait_for_all`, `last_man_standing`, `last_man_standing_window`, `auto_tie_breaker`, `auto_tie_breaker_node`, `allow_downscale`, `expected_votes_tracking`, `arbiter`, `arbiter_votes`
    3 device=net                             -> unknown quorum option `device=net`; its place is taken by `arbiter=ffsplit` and `arbiter=lms`
    2 two_node=1 arbiter=ffsplit             -> `arbiter=ffsplit` does not go with `two_node=1`; drop `two_node`: the arbiter is the third vote
    3 last_man_standing=1 arbiter=lms        -> `arbiter=lms` does not go with `last_man_standing=1`; drop it; `arbiter=lms` does as much
    4 auto_tie_breaker=1 arbiter=ffsplit     -> `arbiter=ffsplit` does not go with `auto_tie_breaker=1`; drop it: the arbiter breaks ties
    4 allow_downscale=1 arbiter=lms          -> `arbiter=lms` does not go with `allow_downscale=1`; drop one of them
    4 arbiter=ffsplit arbiter_votes=3        -> `arbiter=ffsplit` does not go with `arbiter_votes=3`; it has one vote: drop `arbiter_votes`, or set `arbiter=lms`
    4 arbiter_votes=3                        -> `arbiter_votes=3` does not go with `arbiter=none`; set `arbiter=ffsplit` or `arbiter=lms`
    4 arbiter=lms arbiter_votes=3            -> ok
    5 auto_tie_breaker=1 last_man_standing=1 -> `auto_tie_breaker=1` does not go with `last_man_standing=1`; with an odd number of votes set `wait_for_all=1`, or drop one of them
    5 auto_tie_breaker=1 last_man_standing=1 wait_for_all=1 -> ok
    4 auto_tie_breaker=1 last_man_standing=1 -> ok
    4 auto_tie_breaker=1 auto_tie_breaker_node=2,7 -> `auto_tie_breaker_node` names `7`, which is no member; members: 1, 2, 3, 4
    5 auto_tie_breaker=1                     -> auto_tie_breaker has no effect with 5 expected votes, an odd number, unless wait_for_all=1
    3 two_node=1                             -> two_node has no effect with 3 expected votes: a majority is needed
    2 two_node=1 auto_tie_breaker=1          -> two_node has no effect with auto_tie_breaker: the tie node goes on, not the faster one
    3 votes1=2 last_man_standing=1           -> last_man_standing has no effect when a node has more than one vote: give each node 1
    3 expected_votes=2                       -> expected_votes=2 has no effect: the members have 3 votes, and no fewer are expected
    3 allow_downscale=1                      -> allow_downscale has no effect without expected_votes: set it to the fewest votes to expect
    5 allow_downscale=1 expected_votes=3     -> ok
    2 two_node=1 wait_for_all=1 last_man_standing=1 auto_tie_breaker=0 -> ok
";

#[test]
fn options_are_checked_with_the_option_the_value_and_the_remedy() {
    for row in CHECKS.lines().filter(|row| row.contains("->")) {
        let (input, want) = row.split_once("->").unwrap();
        let answer = match written(input) {
            Err(error) => error.to_string(),
            Ok((policy, votes)) => match policy.check(&members(&votes)) {
                Err(error) => error.to_string(),
                Ok(notices) if notices.is_empty() => "ok".to_owned(),
                Ok(notices) => {
                    notices.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
                }
            },
        };
        assert_eq!(answer, want.trim(), "{input}");
    }
}
