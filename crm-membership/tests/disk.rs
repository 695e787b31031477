//! A node whose disk is full, or has changed what was written to it: it says so and stops, the others go on.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]
#![expect(clippy::print_stderr, reason = "a test that is skipped says so")]

mod world;

use crm_core::store::Outcome;
use crm_membership::StartError;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use world::*;

/// A file system of a megabyte. It goes when the test ends.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        Self(path.to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Not one more byte.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        let full = loop {
            if let Err(error) = file.write_all(&[1; 512]) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.0, MntFlags::MNT_DETACH) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// An error and all that caused it.
fn chain(error: &StartError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_says_so_and_stops_and_comes_back_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: a small file system needs root");
        return;
    }
    let world = World::new();
    let disk = SmallDisk::at(&world.dirs("n3").data);
    let nodes = world.cluster(3).await;
    disk.fill();
    let mut failure = nodes[2].failure();
    let writes = async {
        for number in 0.. {
            let value = format!("{number} {}", "x".repeat(20_000));
            let outcome = nodes[0].propose(attr("n1", &value)).await.unwrap();
            assert!(matches!(outcome, Outcome::Done { .. }), "the other two go on");
        }
    };
    let why = tokio::select! {
        () = writes => unreachable!(),
        why = within(Duration::from_secs(60), "the disk is full", failure.wait_for(Option::is_some)) => {
            why.unwrap().clone().unwrap()
        }
    };
    assert!(why.contains("No space left on device"), "{why}");
    nodes[0].propose(attr("n1", "after")).await.unwrap();
    assert!(nodes[0].leadership().borrow().quorate && nodes[1].leadership().borrow().quorate);
    nodes[2].shutdown().await;

    // Without room it does not start, and says why; unless the log finds some within its own file.
    disk.fill();
    match crm_membership::start(world.settings("n3"), world.run_dir("n3")).await {
        Ok(handle) => handle.shutdown().await,
        Err(error) => {
            let (refused, place) = (chain(&error), world.dirs("n3").data);
            assert!(refused.contains(&place.display().to_string()), "{refused}");
            assert!(refused.contains("No space left on device"), "{refused}");
        }
    }
    std::fs::remove_file(disk.ballast()).unwrap();
    let back = world.start("n3").await;
    state(&back, "what it missed", |s| has(s, "n1", "after")).await;
    quorate(&back, true, Duration::from_secs(20)).await;
    for node in nodes.iter().take(2).chain([&back]) {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_log_was_damaged_refuses_to_start_and_the_others_go_on() {
    let world = World::new();
    let nodes = world.cluster(3).await;
    nodes[0].propose(attr("n1", "red")).await.unwrap();
    nodes[2].shutdown().await;
    let path = world.dirs("n3").data.join("raft.redb");
    let good = std::fs::read(&path).unwrap();
    // The name of a field, in all pages that were ever written: the node would not find its vote any more.
    let mut changed = good.clone();
    for at in 0..good.len() - 4 {
        if good[at..].starts_with(b"vote") {
            changed[at] = b'w';
        }
    }
    let damages = [("a byte changed", changed), ("cut off", good[..good.len() - 4096].to_vec())];
    for (what, bytes) in damages {
        std::fs::write(&path, &bytes).unwrap();
        for _ in 0..2 {
            let refused = crm_membership::start(world.settings("n3"), world.run_dir("n3")).await;
            let refused = chain(&refused.err().unwrap_or_else(|| panic!("{what}: started")));
            eprintln!("{what}: {refused}");
            assert!(refused.contains("raft.redb"), "{what}: {refused}");
            assert!(refused.contains("rejoin this node"), "{what}: {refused}");
            assert!(std::fs::read(&path).unwrap() == bytes, "{what}: the evidence was changed");
        }
    }
    nodes[0].propose(attr("n1", "blue")).await.unwrap();
    std::fs::write(&path, &good).unwrap();
    let back = world.start("n3").await;
    state(&back, "what it missed", |s| has(s, "n1", "blue")).await;
    for node in nodes.iter().take(2).chain([&back]) {
        node.shutdown().await;
    }
}
