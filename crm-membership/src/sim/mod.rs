//! Whole nodes (gRPC, TLS, raft, the durable log, snapshots, joining) on turmoil's network and on disks that lose what was not synced,
//! in virtual time and with one source of chance: the same seed is the same run.
//!
//! What is not in it: the heartbeats' own thread (their view comes from the run's knowledge of crashes and cuts) and wall clocks (raft and
//! the leadership use none). The nodes' monotonic clocks leap and drift. Each seed has a process of its own, because tokio counts its runtimes per process.
#![expect(clippy::unwrap_in_result, reason = "tests fail by panicking")]

mod claims;
mod clock;
mod disk;
mod entropy;
mod lab;
mod net;
mod run;

use run::Plan;
use std::sync::mpsc::RecvTimeoutError;

/// The golden ratio's: any odd number that is not small would do.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A run takes a second or a few.
const STUCK: std::time::Duration = std::time::Duration::from_secs(100);

/// Spreads a number over all bits (splitmix64).
const fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Seeded chance.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    /// A number below `limit`.
    const fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mixed(self.0) % limit
    }
}

#[expect(clippy::disallowed_methods, reason = "each seed runs in a process of its own")]
fn in_a_process(seed: u64, plan: &str) -> Result<String, String> {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "sim::one_seed"])
        .env("CRM_SIM_SEED", seed.to_string())
        .env("CRM_SIM_PLAN", plan)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line =
        |mark: &str| said.lines().find_map(|l| l.split_once(mark)).map(|(_, l)| l.to_owned());
    match (line("HELD "), line("BROKEN ")) {
        (Some(held), None) if output.status.success() => Ok(held),
        (_, Some(broken)) => Err(broken),
        _ => Err(format!("{said}\n{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Runs the seeds, two at a time; what broke, by seed.
fn sweep(seeds: std::ops::Range<u64>, plan: &'static str) -> Vec<(u64, String)> {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let broken = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match in_a_process(seed, plan) {
                        Ok(held) => println!("seed {seed}: {held}"),
                        Err(why) => broken.lock().unwrap().push((seed, why)),
                    }
                }
            });
        }
    });
    broken.into_inner().unwrap()
}

/// `CRM_SIM_SEED=7 cargo test -p crm-membership sim::one_seed -- --ignored --nocapture` repeats a run; `RUST_LOG` shows its inside.
#[test]
#[ignore = "one run, for a process of its own: the other tests start it"]
fn one_seed() {
    let number = std::env::var("CRM_SIM_SEED").map_or(0, |seed| seed.parse().unwrap());
    let plan = match std::env::var("CRM_SIM_PLAN").as_deref() {
        Ok("lying") => Plan::Lying,
        Ok("dateless") => Plan::Dateless,
        _ => Plan::Honest,
    };
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        entropy::fix(number);
        tell.send(run::run(number, plan)).unwrap();
    });
    // Virtual time stands still when the nodes turn round and round.
    match told.recv_timeout(STUCK) {
        Ok(Ok(report)) => println!("\nHELD {report}"),
        Ok(Err(why)) => panic!("\nBROKEN {why}"),
        Err(RecvTimeoutError::Disconnected) => panic!("\nBROKEN a panic, see above"),
        Err(RecvTimeoutError::Timeout) => panic!("\nBROKEN no end within {STUCK:?}"),
    }
}

#[test]
fn no_seed_breaks_consensus_under_crashes_cuts_losses_lost_writes_and_leaps_of_clocks() {
    let seeds = std::env::var("CRM_SIM_SEEDS").map_or(50, |seeds| seeds.parse().unwrap());
    let broken = sweep(0..seeds, "honest");
    assert!(broken.is_empty(), "{} of {seeds} seeds: {broken:#?}", broken.len());
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2] {
        let (first, second) = (in_a_process(seed, "honest"), in_a_process(seed, "honest"));
        assert_eq!(first.unwrap(), second.unwrap());
    }
}

#[test]
fn disks_that_lie_about_their_syncs_are_found_out() {
    assert!((0..12).any(|seed| in_a_process(seed, "lying").is_err()));
}

#[test]
fn leaders_whose_evidence_has_no_date_are_found_out() {
    let broken = (12..24).find_map(|seed| in_a_process(seed, "dateless").err());
    assert!(broken.is_some_and(|why| why.contains("says that it leads term")));
}

/// The laws of the claims would hold of runs without leaps too: here is what only a leap brings about.
#[test]
fn leaps_of_clocks_bring_elections_on_while_the_old_lease_runs() {
    let bites = |seed| {
        let held = in_a_process(seed, "honest").unwrap();
        !held.contains(" 0 just after a leap") && !held.contains(" outlived their term 0 ms")
    };
    assert!((0..40).any(bites));
}
