//! Replicated volumes as the control plane sees them: the in-sync record guards promotion and leaving peers behind (ADR-0004).

use super::{Controller, Effect, Mode};
use crate::plan::OpSpec;
use crate::status::Token;
use crate::store::{Command, State, VolumeRecord};
use std::collections::{BTreeMap, BTreeSet};

/// A volume as this node's data plane reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSeen {
    /// Name.
    pub name: String,
    /// Attached.
    pub up: bool,
    /// Promotion score; `None` = must not be promoted.
    pub score: Option<i32>,
    /// Whole, and not known to be the newest (`Consistent`): not all peers could be asked since it booted.
    pub undecided: bool,
    /// Primary here, with its device.
    pub primary: bool,
    /// Peers that the data plane is not connected to.
    pub away: BTreeSet<String>,
}

/// Promotion score of a replica that only the record vouches for: any other one that may be promoted is better.
const VOUCHED_SCORE: i32 = 100;

/// How long the former primary's word is waited for after both went on alone, in milliseconds.
const HEAR_FIRST_MS: u64 = 10_000;

#[derive(Debug)]
struct Held {
    spec: OpSpec,
    token: Token,
    volume: String,
    without: BTreeSet<String>,
}

/// What is known and pending about volumes.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// Records made while there was no quorum, newer than the replicated ones.
    pub(super) local_records: BTreeMap<String, VolumeRecord>,
    /// Epochs that were proposed when the quorum was lost: they may or may not have got into the log.
    floor: BTreeMap<String, u64>,
    asks: BTreeMap<String, BTreeSet<String>>,
    back: BTreeMap<String, BTreeSet<String>>,
    proposed: BTreeMap<String, u64>,
    held: Vec<Held>,
    /// Peers that the data plane here is not connected to, by volume.
    away: BTreeMap<String, BTreeSet<String>>,
    /// Volumes that the data plane here said it is primary of.
    primary: BTreeSet<String>,
    /// Volumes that this node went on with alone, and the node that the log had as their primary.
    taken_from: BTreeMap<String, String>,
    /// Volumes whose replica here is whole and waits to hear from those that are away.
    undecided: BTreeSet<String>,
}

impl Volumes {
    /// Starts from the records that an earlier daemon kept.
    pub(super) fn with_records(local_records: BTreeMap<String, VolumeRecord>) -> Self {
        Self { local_records, ..Self::default() }
    }

    /// Promotions that waited for a record belong to a plan that is over.
    pub(super) fn forget_held(&mut self) {
        self.held.clear();
    }

    pub(super) fn ask(&mut self, volume: String, peers: BTreeSet<String>) {
        subtract(&mut self.back, &volume, &peers);
        self.asks.insert(volume, peers);
    }

    pub(super) fn resynced(&mut self, volume: String, peers: BTreeSet<String>) {
        subtract(&mut self.asks, &volume, &peers);
        self.back.entry(volume).or_default().extend(peers);
    }
}

/// Takes peers out of what is pending for a volume; what concerns others stays.
fn subtract(
    pending: &mut BTreeMap<String, BTreeSet<String>>,
    volume: &str,
    peers: &BTreeSet<String>,
) {
    if let Some(left) = pending.get_mut(volume) {
        left.retain(|n| !peers.contains(n));
        if left.is_empty() {
            pending.remove(volume);
        }
    }
}

/// Name of the volume that a primitive with this agent and these parameters manages, if it does.
pub(super) fn volume_of<'a>(
    agent: &str,
    param: impl Fn(&str) -> Option<&'a str>,
) -> Option<&'a str> {
    match agent {
        "ocf:crm:volume" => param("volume").or_else(|| param("drbd_resource")),
        "ocf:linbit:drbd" => param("drbd_resource"),
        _ => None,
    }
}

impl Controller {
    /// The newest record of a volume, replicated or local.
    fn record(&self, volume: &str) -> VolumeRecord {
        let replicated = self.state.volumes.get(volume).cloned().unwrap_or_default();
        match self.volumes.local_records.get(volume) {
            Some(local) if local.epoch > replicated.epoch => local.clone(),
            _ => replicated,
        }
    }

    fn managers(&self, volume: &str) -> Vec<String> {
        let cib = &self.state.cib;
        let primitives = cib.primitives().into_iter();
        let managing = primitives
            .filter(|p| volume_of(&p.agent.to_string(), |n| p.params.get(n)) == Some(volume));
        managing.map(|p| p.id.clone()).collect()
    }

    /// Takes in the data plane's report: the promotion score becomes a node attribute at once.
    pub(super) fn volume_seen(&mut self, seen: &VolumeSeen) {
        self.volumes.away.insert(seen.name.clone(), seen.away.clone());
        self.primary_seen(seen);
        if !seen.primary {
            // Its questions and its news were those of a primary; others may have gone on since.
            self.volumes.asks.remove(&seen.name);
            self.volumes.back.remove(&seen.name);
        }
        if seen.up && seen.undecided {
            self.volumes.undecided.insert(seen.name.clone());
            self.score_undecided();
            return;
        }
        self.volumes.undecided.remove(&seen.name);
        self.score(&seen.name, if seen.up { seen.score } else { None });
    }

    fn score(&mut self, volume: &str, score: Option<i32>) {
        for resource in self.managers(volume) {
            self.set_attr(&format!("master-{resource}"), score.map(|s| s.to_string()));
        }
    }

    /// Replicas that have booted while others are away for good: with a quorum, the newest record says which ones have every acknowledged write.
    fn score_undecided(&mut self) {
        for volume in self.volumes.undecided.clone() {
            let vouched = self.leadership.quorate
                && self.record(&volume).in_sync.contains(&self.me)
                && self.volumes.away.get(&volume).is_some_and(|away| {
                    !away.is_empty() && away.iter().all(|node| !self.alive(node))
                });
            self.score(&volume, vouched.then_some(VOUCHED_SCORE));
        }
    }

    /// A primary that is none any more although nobody demoted it: its device died with the data plane, and so did what is on it. Reported as a
    /// failed monitor, because the configuration may have no monitor for the promoted role (seed 002 has none).
    fn primary_seen(&mut self, seen: &VolumeSeen) {
        if seen.primary {
            self.volumes.primary.insert(seen.name.clone());
            return;
        }
        if !self.volumes.primary.remove(&seen.name) {
            return;
        }
        for resource in self.managers(&seen.name) {
            self.lost_primary(&resource, &seen.name);
        }
    }

    /// Takes away the promotion scores of replicas that lack acknowledged writes.
    pub(super) fn withhold_scores(&self, state: &mut State) {
        let mut behind: Vec<(String, String)> = Vec::new();
        for primitive in state.cib.primitives() {
            let agent = primitive.agent.to_string();
            let Some(volume) = volume_of(&agent, |n| primitive.params.get(n)) else { continue };
            let Some(record) = state.volumes.get(volume) else { continue };
            for node in state.status.nodes.keys() {
                if !record.in_sync.contains(node) {
                    behind.push((node.clone(), format!("master-{}", primitive.id)));
                }
            }
        }
        for (node, attr) in behind {
            if let Some(status) = state.status.nodes.get_mut(&node) {
                status.attrs.remove(&attr);
            }
        }
    }

    /// May this promotion run? `Ok(false)`: it is held until the record says that the missing peers are left behind.
    pub(super) fn clear_promotion(
        &mut self,
        spec: &mut OpSpec,
        token: Token,
    ) -> Result<bool, String> {
        let param = |name: &str| spec.params.get(name).map(String::as_str);
        let Some(volume) = volume_of(&spec.agent, param).map(str::to_owned) else {
            return Ok(true);
        };
        let Some(definition) = self.state.cib.volume(&volume) else { return Ok(true) };
        let record = self.record(&volume);
        if !record.in_sync.contains(&self.me) {
            return Err(format!(
                "the replica of {volume} here lacks acknowledged writes (in-sync record {}: {})",
                record.epoch,
                record.in_sync.iter().cloned().collect::<Vec<_>>().join(" ")
            ));
        }
        let others = definition.replicas.iter().map(|r| &r.node).filter(|n| **n != self.me);
        let lost: BTreeSet<String> = others
            .filter(|n| !self.alive(n) || !record.in_sync.contains(*n) || self.is_away(&volume, n))
            .cloned()
            .collect();
        spec.params.insert(
            "CRM_meta_lost_peers".to_owned(),
            lost.iter().cloned().collect::<Vec<_>>().join(" "),
        );
        if lost.is_disjoint(&record.in_sync) {
            return Ok(true);
        }
        self.volumes.held.push(Held { spec: spec.clone(), token, volume, without: lost });
        Ok(false)
    }

    /// The data plane is not connected to this peer (its replica was stopped, or its link is cut): it cannot be asked, so the record has
    /// to leave it behind first. The data plane's own word is newer than the peer's status, which comes through the log.
    fn is_away(&self, volume: &str, node: &str) -> bool {
        self.volumes.away.get(volume).is_some_and(|away| away.contains(node))
    }

    /// After a promotion without some peers: the data plane stores the epoch of the record that allowed it.
    pub(super) fn promoted_without(&mut self, spec: &OpSpec) {
        let param = |name: &str| spec.params.get(name).map(String::as_str);
        let lost = param("CRM_meta_lost_peers").unwrap_or_default();
        let peers: BTreeSet<String> = lost.split_whitespace().map(str::to_owned).collect();
        if spec.op != "promote" || peers.is_empty() {
            return;
        }
        if let Some(volume) = volume_of(&spec.agent, param).map(str::to_owned) {
            let epoch = self.record(&volume).epoch;
            self.effects.push_back(Effect::DropPeers { volume, peers, epoch });
        }
    }

    /// Records a change of who is in sync: through the log with a quorum, locally when alone. True when it holds now.
    fn write_record(&mut self, volume: &str, in_sync: BTreeSet<String>) -> bool {
        let record = self.record(volume);
        if self.volumes.proposed.get(volume).is_some_and(|proposed| *proposed > record.epoch) {
            return false; // a change is on its way: what holds is not known before it has arrived
        }
        if record.in_sync == in_sync {
            return true;
        }
        if self.leadership.quorate {
            let epoch = record.epoch + 1;
            self.volumes.proposed.insert(volume.to_owned(), epoch);
            self.propose(Command::VolumeInSync { volume: volume.to_owned(), epoch, in_sync });
            return false;
        }
        let leaves = |node: &&String| !in_sync.contains(*node);
        let unclean = record.in_sync.iter().filter(leaves).any(|node| !self.node_view(node).clean);
        if self.mode != Mode::Alone || unclean {
            // One that may live could be promoted with what it has: it is left behind when it is confirmed off.
            return false;
        }
        let floor = self.volumes.floor.get(volume).copied().unwrap_or_default();
        let epoch = record.epoch.max(floor) + 1;
        match self.logged_primary(volume) {
            Some(node) => self.volumes.taken_from.insert(volume.to_owned(), node),
            None => self.volumes.taken_from.remove(volume),
        };
        self.volumes.local_records.insert(volume.to_owned(), VolumeRecord { epoch, in_sync });
        self.keep_records();
        true
    }

    /// Another node on which the log has the volume's instance promoted.
    fn logged_primary(&self, volume: &str) -> Option<String> {
        let managers = self.managers(volume);
        let promoted = |status: &crate::status::NodeStatus| {
            let role = |id: &String| status.resources.get(id).and_then(|history| history.role);
            managers.iter().any(|id| role(id) == Some(crate::cib::Role::Promoted))
        };
        let mut nodes = self.state.status.nodes.iter();
        nodes.find(|(n, s)| **n != self.me && promoted(s)).map(|(n, _)| n.clone())
    }

    /// The node that had the volume before both went on alone is heard first: if it went on too, its clients did. Until it has told what it
    /// runs (records come before that), or has had the time.
    fn hears_first(&self, volume: &str) -> bool {
        self.now_ms < self.quorate_ms + HEAR_FIRST_MS
            && self
                .volumes
                .taken_from
                .get(volume)
                .is_some_and(|node| self.alive(node) && !self.node_view(node).online)
    }

    /// When this node stops hearing others first, if it does that now.
    pub(super) fn hears_until(&self) -> Option<u64> {
        let waits = self.leadership.quorate
            && self.volumes.local_records.keys().any(|volume| self.hears_first(volume));
        waits.then_some(self.quorate_ms + HEAR_FIRST_MS)
    }

    /// Moves everything pending about volumes as far as it may go.
    pub(super) fn settle_volumes(&mut self) {
        self.score_undecided();
        for (volume, peers) in self.volumes.asks.clone() {
            if peers.iter().any(|peer| !self.is_away(&volume, peer)) {
                continue; // connected again: it will be told to be in sync, or lost and asked for once more
            }
            let mut in_sync = self.record(&volume).in_sync;
            if !in_sync.contains(&self.me) {
                // The record has left this node behind: it may not go on alone, and its writes stay unacknowledged.
                continue;
            }
            in_sync.retain(|n| !peers.contains(n));
            if self.write_record(&volume, in_sync) {
                self.volumes.asks.remove(&volume);
                let epoch = self.record(&volume).epoch;
                self.effects.push_back(Effect::DropPeers { volume, peers, epoch });
            }
        }
        for (volume, peers) in self.volumes.back.clone() {
            let mut in_sync = self.record(&volume).in_sync;
            let named = in_sync.contains(&self.me);
            in_sync.extend(peers);
            if named && self.leadership.quorate && self.write_record(&volume, in_sync) {
                self.volumes.back.remove(&volume);
            }
        }
        for held in std::mem::take(&mut self.volumes.held) {
            let mut in_sync = self.record(&held.volume).in_sync;
            in_sync.retain(|n| !held.without.contains(n));
            if self.write_record(&held.volume, in_sync) {
                self.release_promotion(held.spec, held.token);
            } else {
                self.volumes.held.push(held);
            }
        }
    }

    fn keep_records(&mut self) {
        self.effects.push_back(Effect::KeepRecords(self.volumes.local_records.clone()));
    }

    /// With a quorum, proposes the records that were made without one; drops those that the log has overtaken. False when one has to wait.
    pub(super) fn publish_local_records(&mut self) -> bool {
        if !self.leadership.quorate {
            for (volume, epoch) in std::mem::take(&mut self.volumes.proposed) {
                let floor = self.volumes.floor.entry(volume).or_default();
                *floor = epoch.max(*floor);
            }
            return true;
        }
        let mut all = true;
        for (volume, local) in self.volumes.local_records.clone() {
            let replicated = self.state.volumes.get(&volume).map_or(0, |r| r.epoch);
            if local.epoch <= replicated {
                self.volumes.local_records.remove(&volume);
                self.volumes.taken_from.remove(&volume);
                self.keep_records();
            } else if self.hears_first(&volume) {
                all = false;
            } else if self.volumes.proposed.get(&volume) != Some(&local.epoch) {
                self.volumes.proposed.insert(volume.clone(), local.epoch);
                let VolumeRecord { epoch, in_sync } = local;
                self.propose(Command::VolumeInSync { volume, epoch, in_sync });
            }
        }
        all
    }
}
