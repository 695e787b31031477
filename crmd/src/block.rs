//! The link to the data plane: definitions go down, states and questions come up. Survives restarts of either side.

use crate::daemon::Input;
use anyhow::Context;
use crm_core::controller::{Event, VolumeSeen};
use crm_core::store::State;
use crm_proto::block::{
    Connection, DiskState, Event as BlockEvent, ReplicaSpec, Reply, Request, VolumeSpec,
    VolumeStatus, socket_path,
};
use crm_proto::line::Line;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

/// Pause before the socket is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// Limit for one request.
const LIMIT: Duration = Duration::from_secs(30);

/// The volumes of `me` that `state` wants, as the data plane needs them.
pub(crate) fn wanted(state: &State, me: &str) -> Vec<VolumeSpec> {
    let host = |node: &str| {
        let address = state.members.get(node).map(|m| m.address.as_str()).unwrap_or_default();
        address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
    };
    let volumes = state.cib.volumes.iter();
    let mine = volumes.filter(|v| v.replicas.iter().any(|r| r.node == me));
    mine.filter(|v| v.replicas.iter().all(|r| state.members.contains_key(&r.node)))
        .map(|v| VolumeSpec {
            name: v.name.clone(),
            size_bytes: v.size_bytes,
            device: v.device.clone(),
            me: me.to_owned(),
            replicas: v
                .replicas
                .iter()
                .map(|r| ReplicaSpec {
                    node: r.node.clone(),
                    address: format!("{}:{}", host(&r.node), v.port),
                    disk: r.disk.clone(),
                })
                .collect(),
            day0: v.day0,
            assume_clean: v.assume_clean,
        })
        .collect()
}

/// Sends one request, waits for the reply.
///
/// # Errors
/// When the data plane is not there or does not answer.
pub(crate) async fn call(request: Request) -> anyhow::Result<Reply> {
    let answer =
        tokio::task::spawn_blocking(move || Line::call(&socket_path(), Some(LIMIT), &request));
    answer.await.context("ask crm-blockd")?.context("ask crm-blockd")
}

/// Keeps the link up for the daemon's life.
pub(crate) async fn run(
    mut volumes: watch::Receiver<Vec<VolumeSpec>>,
    events: mpsc::UnboundedSender<Input>,
) {
    loop {
        if let Err(error) = session(&mut volumes, &events).await {
            tracing::debug!(error = format!("{error:#}"), "no link to crm-blockd");
        }
        // Without the link nothing is known of the peers' data planes.
        if events.send(Input::Event(Event::DataPeers(BTreeSet::new()))).is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn session(
    volumes: &mut watch::Receiver<Vec<VolumeSpec>>,
    events: &mpsc::UnboundedSender<Input>,
) -> anyhow::Result<()> {
    let stream = UnixStream::connect(socket_path()).await.context("connect to crm-blockd")?;
    let (read, mut write) = stream.into_split();
    let mut request = serde_json::to_vec(&Request::Watch)?;
    request.push(b'\n');
    write.write_all(&request).await?;
    let mut lines = BufReader::new(read).lines();
    let first = lines.next_line().await?.context("crm-blockd closed the link")?;
    let mut seen = Seen::default();
    if let Reply::Status(all) = serde_json::from_str(&first).context("read the first status")? {
        for status in all {
            seen.changed(status, events)?;
        }
    }
    let specs = volumes.borrow_and_update().clone();
    define(&specs).await?;
    loop {
        tokio::select! {
            biased;
            line = lines.next_line() => {
                let line = line?.context("crm-blockd closed the link")?;
                match serde_json::from_str(&line).context("read an event of crm-blockd")? {
                    BlockEvent::Changed(status) => seen.changed(status, events)?,
                    BlockEvent::MayIDrop { volume, peers, epoch: _ } => {
                        let peers = peers.into_iter().collect();
                        events.send(Input::Event(Event::MayDrop { volume, peers }))?;
                    }
                    BlockEvent::InSync { volume, peers, epoch: _ } => {
                        let peers = peers.into_iter().collect();
                        events.send(Input::Event(Event::Resynced { volume, peers }))?;
                    }
                }
            }
            changed = volumes.changed() => {
                changed?;
                let specs = volumes.borrow_and_update().clone();
                define(&specs).await?;
            }
        }
    }
}

async fn define(specs: &[VolumeSpec]) -> anyhow::Result<()> {
    for spec in specs {
        match call(Request::Define(spec.clone())).await? {
            Reply::Ok | Reply::Status(_) => {}
            Reply::Refused { code, why } => {
                tracing::error!(volume = spec.name, code, why, "volume not defined");
            }
        }
    }
    Ok(())
}

/// What was last heard of each volume.
#[derive(Default)]
struct Seen {
    connected: BTreeMap<String, BTreeSet<String>>,
}

impl Seen {
    fn changed(
        &mut self,
        status: VolumeStatus,
        events: &mpsc::UnboundedSender<Input>,
    ) -> anyhow::Result<()> {
        let connected = status.peers.iter().filter(|p| match p.connection {
            Connection::Connected | Connection::SyncSource | Connection::SyncTarget => true,
            Connection::StandAlone | Connection::Connecting => false,
        });
        let connected: BTreeSet<String> = connected.map(|p| p.node.clone()).collect();
        let peers = status.peers.iter().map(|p| p.node.clone());
        let away = peers.filter(|node| !connected.contains(node)).collect();
        self.connected.insert(status.name.clone(), connected);
        let nodes = self.connected.values().flatten().cloned().collect();
        events.send(Input::Event(Event::DataPeers(nodes)))?;
        events.send(Input::Event(Event::Volume(VolumeSeen {
            name: status.name,
            up: status.up,
            score: status.score,
            undecided: status.disk == DiskState::Consistent,
            primary: status.primary,
            away,
        })))?;
        Ok(())
    }
}
