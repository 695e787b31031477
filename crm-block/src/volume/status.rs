//! The state of a volume in the words of the control socket.

use super::{Core, Volume};
use crm_block_engine::bitmap::BLOCK;
use crm_block_engine::{Disk, Link, PeerView};
use crm_proto::block::{self as proto, Connection, Counters, DiskState, PeerStatus, VolumeStatus};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

fn disk(disk: Disk) -> DiskState {
    match disk {
        Disk::Diskless => DiskState::Diskless,
        Disk::Inconsistent => DiskState::Inconsistent,
        Disk::Outdated => DiskState::Outdated,
        Disk::Consistent => DiskState::Consistent,
        Disk::UpToDate => DiskState::UpToDate,
    }
}

fn connection(link: Link) -> Connection {
    match link {
        Link::StandAlone => Connection::StandAlone,
        Link::Connecting => Connection::Connecting,
        Link::Connected => Connection::Connected,
        Link::SyncSource => Connection::SyncSource,
        Link::SyncTarget => Connection::SyncTarget,
    }
}

/// Status of a volume that is defined but down.
pub(crate) fn down(spec: &proto::VolumeSpec) -> VolumeStatus {
    VolumeStatus {
        name: spec.name.clone(),
        up: false,
        primary: false,
        disk: DiskState::Diskless,
        device: None,
        front: None,
        suspended: None,
        generation: String::new(),
        epoch: 0,
        score: None,
        counters: Counters::default(),
        peers: Vec::new(),
    }
}

impl Volume {
    /// State now.
    pub(crate) fn status(&self) -> VolumeStatus {
        self.status_of(&self.lock())
    }

    /// What a new watcher has to be told besides the state.
    pub(crate) fn questions(&self) -> Vec<proto::Event> {
        let core = self.lock();
        let (lost, in_sync) = core.engine.questions();
        let epoch = core.engine.epoch();
        drop(core);
        let volume = || self.spec.name.clone();
        let mut events = Vec::new();
        if lost != 0 {
            events.push(proto::Event::MayIDrop {
                volume: volume(),
                peers: self.names(lost),
                epoch,
            });
        }
        if in_sync != 0 {
            events.push(proto::Event::InSync {
                volume: volume(),
                peers: self.names(in_sync),
                epoch,
            });
        }
        events
    }

    /// Notes how the device is made; `None` = there is none.
    pub(crate) fn set_shown(&self, kind: Option<&'static str>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = kind;
    }

    pub(super) fn status_of(&self, core: &Core) -> VolumeStatus {
        let view = core.engine.view();
        let shown = *self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        VolumeStatus {
            name: self.spec.name.clone(),
            up: !core.stopped,
            primary: view.primary,
            disk: disk(view.disk),
            device: shown.map(|_| self.spec.device.clone()),
            front: shown.map(str::to_owned),
            suspended: view.suspended,
            generation: format!("{:016x}", view.current),
            epoch: view.epoch,
            score: view.score,
            counters: Counters {
                written: self.written.load(Ordering::Relaxed),
                read: self.read.load(Ordering::Relaxed),
                sent: self.sent.load(Ordering::Relaxed),
                received: self.received.load(Ordering::Relaxed),
            },
            peers: view.peers.iter().map(|p| self.peer(p)).collect(),
        }
    }

    fn peer(&self, view: &PeerView) -> PeerStatus {
        let node = self.spec.replicas.get(usize::from(view.index)).map(|r| r.node.clone());
        PeerStatus {
            node: node.unwrap_or_default(),
            connection: connection(view.link),
            primary: view.primary,
            disk: view.disk.map_or(DiskState::Unknown, disk),
            out_of_sync_bytes: view.out_of_sync * BLOCK,
            resynced_bytes: view.resynced * BLOCK,
            why: view.why.clone(),
        }
    }
}
