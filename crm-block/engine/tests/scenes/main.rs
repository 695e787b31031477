//! Scenes of two and three replicas, step by step: who may overwrite whom, and exactly how many blocks are copied.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod stage;

use crm_block_engine::{Disk, Link, Refusal};
use stage::{EXTENT_BLOCKS, Stage};

/// In every extent of the volume one block, so that all of them are hot.
fn warm_up(stage: &mut Stage, at: usize) {
    for extent in 0..stage::EXTENTS {
        stage.write(at, extent * EXTENT_BLOCKS, 1);
    }
}

// ---- a primary without its peers

#[test]
fn a_minority_primary_demotes_although_writes_are_unanswered_and_resyncs_by_itself() {
    let mut stage = Stage::new(3);
    stage.promote(0, &[]).unwrap();
    warm_up(&mut stage, 0);
    stage.flush(0);
    let unanswered = stage.begin_write(0, 7, 3);
    stage.cut_off(0);
    stage.settle();
    stage.begin_demote(0);
    stage.pass(4000);
    assert_eq!(stage.answer(unanswered), Some(false));
    assert!(!stage.engine(0).is_primary(), "the demotion does not wait for peers that are lost");

    stage.promote(1, &[0]).unwrap();
    stage.write(1, 2 * EXTENT_BLOCKS + 50, 5);
    stage.mend();
    stage.assert_in_sync();
    let view = stage.engine(1).view();
    assert_eq!(view.peers[0].resynced, 3 + 5, "what either side wrote, nothing else");
}

#[test]
fn a_generation_that_no_peer_has_stored_is_not_a_split_brain() {
    let mut stage = Stage::new(3);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 1, 1);
    stage.flush(0);
    // The third is left behind while the second is lost at the same moment: the new generation reaches nobody.
    stage.cut(0, 2);
    stage.cut(1, 2);
    stage.settle();
    stage.begin_allow(0, &[2], 1);
    stage.cut(0, 1);
    stage.settle();
    let unanswered = stage.begin_write(0, 9, 1);
    stage.begin_demote(0);
    stage.pass(4000);
    assert_eq!(stage.answer(unanswered), Some(false));
    // The record names the second, which goes on with the third.
    stage.join(1, 2);
    stage.settle();
    stage.promote(1, &[0]).unwrap();
    stage.write(1, 3, 1);
    stage.mend();
    stage.assert_in_sync();
}

#[test]
fn a_promotion_whose_generation_no_peer_has_stored_is_not_a_split_brain() {
    let mut stage = Stage::new(3);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 1, 1);
    stage.flush(0);
    stage.kill(0);
    stage.begin_promote(1, &[0]);
    stage.until_generation(1);
    stage.cut_off(1);
    stage.settle();
    assert!(stage.engine(1).is_primary());
    let unanswered = stage.begin_write(1, 9, 1);
    stage.pass(4000);
    assert_eq!(stage.answer(unanswered), Some(false));
    stage.begin_demote(1);
    stage.settle();
    stage.start(0);
    stage.join(0, 2);
    stage.settle();
    stage.promote(2, &[1]).unwrap();
    stage.write(2, 5, 1);
    stage.mend();
    stage.assert_in_sync();
}

#[test]
fn nobody_hears_of_a_generation_that_its_maker_has_not_stored() {
    let mut stage = Stage::new(3);
    stage.promote(0, &[]).unwrap();
    stage.cut_off(2);
    stage.settle();
    let (old, second) = (stage.engine(0).view().current, 1);
    stage.hangs = true;
    stage.allow(0, &[2], 1);
    assert_ne!(stage.engine(0).view().current, old);
    assert_eq!(stage.engine(second).view().current, old);
}

#[test]
fn one_that_follows_a_primary_is_no_majority_for_another() {
    let mut stage = Stage::new(3);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 1, 1);
    stage.cut_off(0);
    stage.settle();
    stage.promote(1, &[0]).unwrap();
    stage.write(1, 2, 1);
    stage.mend();
    let view = stage.engine(0).view();
    assert!(
        view.primary && view.peers.iter().all(|p| p.link == Link::Connecting && p.why.is_some()),
        "{view:#?}"
    );
    stage.write(1, 3, 1);
    stage.demote(0);
    stage.mend();
    stage.assert_in_sync();
}

#[test]
fn two_that_both_went_on_alone_refuse_to_connect() {
    let mut stage = Stage::new(2);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 1, 1);
    stage.cut(0, 1);
    stage.settle();
    stage.allow(0, &[1], 1);
    stage.write(0, 2, 1);
    stage.promote(1, &[0]).unwrap();
    stage.allow(1, &[0], 1);
    stage.write(1, 3, 1);
    stage.demote(0);
    stage.demote(1);
    stage.mend();
    for node in 0..2 {
        let view = stage.engine(node).view();
        assert_eq!(view.peers[0].link, Link::StandAlone, "{view:#?}");
        assert!(view.peers[0].why.as_ref().unwrap().contains("split brain"));
    }
}

#[test]
fn a_replica_says_only_the_epoch_of_a_record_that_names_it() {
    let mut stage = Stage::new(2);
    stage.promote(0, &[]).unwrap();
    stage.cut(0, 1);
    stage.settle();
    stage.allow(0, &[1], 4);
    stage.write(0, 2, 1);
    stage.mend();
    stage.assert_in_sync();
    assert_eq!(stage.engine(0).epoch(), 4);
    assert_eq!(stage.engine(1).epoch(), 0, "record 4 left it behind: it is not its own word");
}

#[test]
fn a_write_waits_for_a_named_replica_whose_sync_may_have_ended() {
    let mut stage = Stage::new(3);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 1, 1);
    stage.flush(0);
    stage.kill(2);
    stage.allow(0, &[2], 1);
    // The primary dies and comes back; while it is made equal, the second becomes primary. The record names both.
    stage.begin_write(0, 2, 1);
    stage.kill(0);
    stage.start(0);
    stage.begin_join(0, 1);
    stage.until(|s| s.engine(1).view().peers[0].link == Link::SyncSource);
    stage.until(|s| s.engine(0).view().peers[0].link == Link::SyncTarget);
    stage.begin_promote(1, &[2]);
    stage.until(|s| s.engine(1).is_primary() && s.engine(0).view().disk == Disk::UpToDate);
    // It is whole, and the new primary has not heard of it yet.
    let write = stage.begin_write(1, 9, 1);
    stage.cut(0, 1);
    stage.settle();
    assert_eq!(stage.answer(write), None, "the record names one that does not have it");
    stage.allow(1, &[0], 2);
    assert_eq!(stage.answer(write), Some(true));
    stage.start(2);
    stage.mend();
    stage.assert_in_sync();
}

#[test]
fn one_that_cannot_ask_is_promoted_on_the_word_of_the_record_alone() {
    let mut stage = Stage::new(2);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 1, 1);
    stage.flush(0);
    stage.kill(0);
    stage.kill(1);
    stage.start(1);
    assert_eq!(stage.engine(1).view().disk, Disk::Consistent);
    assert_eq!(stage.promote(1, &[]), Err(Refusal::NotUpToDate), "nobody vouches for it");
    stage.promote(1, &[0]).unwrap();
    stage.write(1, 2, 1);
    stage.start(0);
    stage.mend();
    stage.assert_in_sync();
}

#[test]
fn the_word_of_the_record_does_not_make_an_old_or_torn_replica_primary() {
    let mut stage = Stage::new(2);
    stage.promote(0, &[]).unwrap();
    stage.cut(0, 1);
    stage.settle();
    stage.allow(0, &[1], 2);
    stage.write(0, 1, 3);
    // In the middle of the resync.
    stage.begin_join(0, 1);
    stage.until(|s| s.engine(1).view().disk == Disk::Inconsistent);
    stage.kill(0);
    stage.kill(1);
    stage.start(1);
    assert_eq!(stage.promote(1, &[0]), Err(Refusal::NotUpToDate));
    stage.start(0);
    stage.mend();
    stage.promote(0, &[]).unwrap();
    stage.mend();
    stage.assert_in_sync();
}

// ---- how much is copied

#[test]
fn after_a_clean_drain_only_what_changed_is_copied() {
    for replicas in [2, 3] {
        let mut stage = Stage::new(replicas);
        stage.promote(0, &[]).unwrap();
        warm_up(&mut stage, 0);
        // Not flushed: that is the demotion's business.
        stage.demote(0);
        stage.promote(1, &[]).unwrap();
        warm_up(&mut stage, 1);
        assert_eq!(stage.copied, 0, "{replicas} replicas: a hand-over copies nothing");
        stage.down(0);
        stage.allow(1, &[0], 1);
        for i in 0..25 {
            stage.write(1, 2 * EXTENT_BLOCKS + i, 1);
        }
        stage.start(0);
        stage.mend();
        stage.assert_in_sync();
        assert_eq!(stage.copied, 25, "{replicas} replicas: 100 KB changed");
        let view = stage.engine(1).view();
        assert_eq!(view.peers[0].resynced, 25);
    }
}

#[test]
fn what_a_secondary_missed_while_its_link_was_cut_is_all_that_is_copied() {
    for replicas in [2, 3] {
        let mut stage = Stage::new(replicas);
        stage.promote(0, &[]).unwrap();
        warm_up(&mut stage, 0);
        stage.flush(0);
        let flying = stage.begin_write(0, 500, 2);
        stage.cut_off(replicas - 1);
        stage.settle();
        stage.allow(0, &[replicas - 1], 1);
        assert_eq!(stage.answer(flying), Some(true));
        stage.write(0, 900, 4);
        stage.mend();
        stage.assert_in_sync();
        assert_eq!(stage.copied, 2 + 4);
    }
}

#[test]
fn what_a_killed_secondary_missed_is_all_that_is_copied() {
    for replicas in [2, 3] {
        let mut stage = Stage::new(replicas);
        stage.promote(0, &[]).unwrap();
        warm_up(&mut stage, 0);
        stage.flush(0);
        // Acknowledged, but perhaps only in the cache of the one that dies.
        stage.write(0, 70, 3);
        stage.kill(replicas - 1);
        stage.allow(0, &[replicas - 1], 1);
        stage.write(0, 900, 4);
        stage.start(replicas - 1);
        stage.mend();
        stage.assert_in_sync();
        assert_eq!(stage.copied, 3 + 4);
    }
}

#[test]
fn after_the_death_of_the_primary_its_hot_extents_are_copied() {
    let mut stage = Stage::new(2);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 0, 1);
    stage.flush(0);
    // On its disk only.
    stage.begin_write(0, 5, 1);
    stage.cut(0, 1);
    stage.settle();
    stage.kill(0);
    stage.promote(1, &[0]).unwrap();
    stage.allow(1, &[0], 1);
    stage.write(1, 3 * EXTENT_BLOCKS, 2);
    stage.start(0);
    stage.mend();
    stage.assert_in_sync();
    assert_eq!(
        stage.copied,
        EXTENT_BLOCKS + 2,
        "one hot extent of the dead, two blocks of the living"
    );
}

#[test]
fn a_new_primary_that_is_killed_at_once_still_makes_the_others_equal() {
    let mut stage = Stage::new(3);
    let there = EXTENT_BLOCKS + 3;
    stage.promote(0, &[]).unwrap();
    stage.write(0, 0, 1);
    stage.flush(0);
    // The last write of the primary reaches the third only; then it dies.
    stage.begin_write(0, there, 1);
    stage.deliver(0, 2);
    stage.kill(0);
    assert_ne!(stage.value(2, there), stage.value(1, there));
    // The second asks the third, becomes primary, and forgets the answer.
    stage.begin_promote(1, &[0]);
    stage.until_generation(2);
    assert!(stage.engine(1).is_primary());
    stage.replace(1);
    stage.join(1, 2);
    assert_eq!(stage.value(2, there), stage.value(1, there));
    stage.start(0);
    stage.mend();
    stage.assert_in_sync();
}

#[test]
fn a_third_replica_that_alone_had_a_dead_primarys_write_is_made_equal() {
    let mut stage = Stage::new(3);
    stage.promote(0, &[]).unwrap();
    stage.write(0, 0, 1);
    stage.flush(0);
    // The last write of the primary reaches the third only; then it dies, and the second goes on without the third.
    stage.begin_write(0, 3, 1);
    stage.cut(0, 1);
    stage.settle();
    stage.cut_off(2);
    stage.kill(0);
    stage.settle();
    assert_ne!(stage.value(2, 3), stage.value(1, 3));
    stage.start(0);
    stage.join(0, 1);
    stage.settle();
    stage.promote(1, &[2]).unwrap();
    stage.write(1, 2 * EXTENT_BLOCKS, 1);
    stage.mend();
    stage.assert_in_sync();
    assert_eq!(stage.engine(2).view().disk, Disk::UpToDate);
}
