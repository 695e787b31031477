//! One simulated machine: its daemon's controller, its agents' states, its replica of the volume.

use crm_core::cib::Role;
use crm_core::controller::Controller;
use crm_core::plan::OpSpec;
use crm_core::status::{ExecStatus, OpResult, rc};
use crm_core::store::VolumeRecord;
use std::collections::{BTreeMap, BTreeSet};

/// The replica of the one volume of the world.
#[derive(Debug, Clone, Default)]
pub(super) struct Replica {
    /// Attached.
    pub(super) up: bool,
    /// Primary here.
    pub(super) primary: bool,
    /// Number of the last write it holds.
    pub(super) held: u64,
    /// Knows that it holds every acknowledged write (as far as anyone told it since it was attached).
    pub(super) up_to_date: bool,
    /// Peers that a primary has been allowed to leave behind.
    pub(super) dropped: BTreeSet<String>,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    /// Powered.
    pub(super) on: bool,
    /// Counts power-ons and daemon starts: events of an earlier life are dropped.
    pub(super) life: u64,
    /// Counts losses of power: an agent goes on without its daemon, not without power.
    pub(super) outages: u64,
    /// The daemon, when it runs.
    pub(super) daemon: Option<Controller>,
    /// The `current` mark in `/run`.
    pub(super) current: bool,
    /// Roles of primitives that are active.
    pub(super) active: BTreeMap<String, Role>,
    /// The replica.
    pub(super) replica: Replica,
    /// The replica was attached when power went: the data plane attaches it by itself at boot.
    pub(super) attached: bool,
    /// Volume records that the daemon keeps on disk.
    pub(super) kept: BTreeMap<String, VolumeRecord>,
    /// Peers that its data plane last said it is not connected to.
    pub(super) away: BTreeSet<String>,
    /// Its heartbeats are heard from then on.
    pub(super) heard_from: u64,
    /// A tick for its daemon is on the way for this time.
    pub(super) tick_at: Option<u64>,
    /// Operations that ended here, as `stop fs_nfs`, but for monitors.
    pub(super) log: Vec<String>,
}

impl Machine {
    pub(super) const fn new() -> Self {
        Self {
            on: false,
            life: 0,
            outages: 0,
            daemon: None,
            current: false,
            active: BTreeMap::new(),
            replica: Replica {
                up: false,
                primary: false,
                held: 0,
                up_to_date: true,
                dropped: BTreeSet::new(),
            },
            attached: false,
            kept: BTreeMap::new(),
            away: BTreeSet::new(),
            heard_from: 0,
            tick_at: None,
            log: Vec::new(),
        }
    }

    /// Runs an operation to its end; the replica's part is done by the world.
    pub(super) fn run(&mut self, spec: &OpSpec, call_id: u64) -> OpResult {
        let role = self.active.get(&spec.resource).copied();
        if !matches!(spec.op.as_str(), "monitor" | "notify") {
            self.log.push(format!("{} {}", spec.op, spec.resource));
        }
        let code = match spec.op.as_str() {
            "start" => {
                self.active.entry(spec.resource.clone()).or_insert(Role::Started);
                rc::OK
            }
            // It has left by now, or it could not.
            "migrate_to" if role.is_some() => rc::ERR_GENERIC,
            "migrate_to" => rc::OK,
            "migrate_from" if role.is_none() => rc::ERR_GENERIC,
            "migrate_from" => rc::OK,
            "stop" => {
                self.active.remove(&spec.resource);
                rc::OK
            }
            "promote" if role.is_some() => {
                self.active.insert(spec.resource.clone(), Role::Promoted);
                rc::OK
            }
            "promote" => rc::ERR_GENERIC,
            "notify" => rc::OK,
            "demote" => {
                if role.is_some() {
                    self.active.insert(spec.resource.clone(), Role::Started);
                }
                rc::OK
            }
            _ => match role {
                None | Some(Role::Stopped) => rc::NOT_RUNNING,
                Some(Role::Promoted) => rc::RUNNING_PROMOTED,
                Some(Role::Started | Role::Unpromoted) => rc::OK,
            },
        };
        result(spec, call_id, code)
    }
}

/// A complete result with this exit code.
pub(super) fn result(spec: &OpSpec, call_id: u64, code: i32) -> OpResult {
    OpResult {
        resource: spec.resource.clone(),
        op: spec.op.clone(),
        interval_ms: spec.interval_ms,
        rc: code,
        expected_rc: spec.expected_rc,
        status: ExecStatus::Complete,
        reason: String::new(),
        digest: spec.digest,
        call_id,
        when_ms: 0,
        exec_ms: 0,
        peer: spec.peer(),
    }
}
