//! Claims about the simulated block world, and that each planted bug is caught.

use super::*;

fn run(seed: u64, n: usize, plant: Plant) -> Result<Outcome, String> {
    World::new(seed, n, plant).run(2500).map_err(|e| format!("seed {seed}, {n} replicas: {e}"))
}

fn sweep(n: usize, seeds: u64) {
    let mut sum = Outcome::default();
    for seed in 0..seeds {
        let one = run(seed, n, Plant::Nothing).unwrap_or_else(|e| panic!("{e}"));
        sum.acked += one.acked;
        sum.promotions += one.promotions;
        sum.faults += one.faults;
        sum.resynced += one.resynced;
        sum.deposed += one.deposed;
    }
    eprintln!("{n} replicas, {seeds} seeds: {sum:?}");
    assert!(n < 3 || sum.deposed > seeds / 20, "minorities happen: {sum:?}");
    assert!(sum.acked > seeds * 20 && sum.promotions > seeds, "the world does something: {sum:?}");
}

#[test]
fn two_replicas_keep_their_promises() {
    sweep(2, 200);
}

#[test]
fn three_replicas_keep_their_promises() {
    sweep(3, 200);
}

#[test]
fn same_seed_same_run() {
    assert_eq!(run(7, 3, Plant::Nothing), run(7, 3, Plant::Nothing));
}

#[test]
fn forgotten_hot_extents_are_noticed() {
    let caught = (0..200).find_map(|seed| run(seed, 2, Plant::ForgetHot).err());
    eprintln!("{caught:?}");
    assert!(caught.is_some());
}

#[test]
fn a_disk_that_does_not_flush_is_noticed() {
    let caught = (0..200).find_map(|seed| run(seed, 2, Plant::LazyFlush).err());
    eprintln!("{caught:?}");
    assert!(caught.is_some());
}

/// All seeds, whatever is found on the way: one failure often explains another.
fn wide(n: usize) {
    let one = |seed: u64| {
        let failed = World::new(seed, n, Plant::Nothing).run(9000).err();
        failed.map(|e| format!("seed {seed}, {n} replicas: {e}"))
    };
    let failed: Vec<String> = (1000..4000).filter_map(one).inspect(|e| eprintln!("{e}")).collect();
    assert!(failed.is_empty(), "{} of 3000 seeds: {failed:#?}", failed.len());
}

#[test]
#[ignore = "minutes: the nightly suite runs it"]
fn wide_sweep_of_two() {
    wide(2);
}

#[test]
#[ignore = "minutes: the nightly suite runs it"]
fn wide_sweep_of_three() {
    wide(3);
}
