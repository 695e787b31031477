//! Two replicas in one process over loopback: replicate, lose, resync, compare bytes.

use super::*;
use crate::aligned::AlignedBuf;
use crate::peers::Peers;
use crm_proto::block::{DiskState, ReplicaSpec};
use std::fs;
use std::path::PathBuf;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

struct Node {
    places: Places,
    spec: VolumeSpec,
    peers: Arc<Peers>,
    volume: Arc<Volume>,
    events: Receiver<proto::Event>,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn specs(dir: &Path, names: &[&str], size: u64, clean: bool) -> Vec<VolumeSpec> {
    let replicas: Vec<ReplicaSpec> = names
        .iter()
        .map(|n| ReplicaSpec {
            node: (*n).to_owned(),
            address: format!("127.0.0.1:{}", free_port()),
            disk: dir.join(format!("{n}.img")).display().to_string(),
        })
        .collect();
    names
        .iter()
        .map(|me| VolumeSpec {
            name: "v".into(),
            size_bytes: size,
            device: "/dev/none".into(),
            me: (*me).to_owned(),
            replicas: replicas.clone(),
            day0: 77,
            assume_clean: clean,
        })
        .collect()
}

impl Node {
    fn start(dir: &Path, spec: &VolumeSpec) -> Self {
        Self::start_with(dir, spec, None)
    }

    /// Like [`Self::start`], with the listener of an earlier run in this process.
    fn start_with(dir: &Path, spec: &VolumeSpec, peers: Option<Arc<Peers>>) -> Self {
        let home: PathBuf = dir.join(&spec.me);
        let places = Places::at(home.join("data"), home.join("run"));
        places.prepare().unwrap();
        fs::write(places.key(), KEY).unwrap();
        let disk = dir.join(format!("{}.img", spec.me));
        Disk::create_missing(&disk, spec.size_bytes).unwrap();
        places.create_meta(&spec.name, &config(spec).unwrap()).unwrap();
        let (sender, events) = channel();
        let bus: Bus = Arc::new(move |event| drop(sender.send(event)));
        let volume = Volume::attach(spec.clone(), &places, bus).unwrap();
        let peers = peers.unwrap_or_else(|| Peers::new(places.clone()));
        peers.join(&volume).unwrap();
        Self { places, spec: spec.clone(), peers, volume, events }
    }

    fn wait(&self, what: &str, test: impl Fn(&proto::VolumeStatus) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !test(&self.volume.status()) {
            assert!(Instant::now() < end, "{}: {what}: {:#?}", self.spec.me, self.volume.status());
            drop(self.events.recv_timeout(Duration::from_millis(20)));
        }
    }

    fn wait_in_sync(&self) {
        self.wait("all in sync", |s| {
            s.disk == DiskState::UpToDate
                && s.peers.iter().all(|p| p.disk == DiskState::UpToDate && p.out_of_sync_bytes == 0)
        });
    }

    fn wait_question(&self) -> u64 {
        loop {
            match self.events.recv_timeout(Duration::from_secs(10)).unwrap() {
                proto::Event::MayIDrop { epoch, .. } => return epoch,
                proto::Event::InSync { .. } | proto::Event::Changed(_) => {}
            }
        }
    }

    fn io(&self, io: Io) -> Receiver<io::Result<Option<Buffer>>> {
        let (done, result) = channel();
        self.volume.submit(io, Box::new(move |r| drop(done.send(r))));
        result
    }

    fn write(&self, offset: u64, byte: u8, len: usize) -> Receiver<io::Result<Option<Buffer>>> {
        let mut data = AlignedBuf::zeroed(len);
        data.fill(byte);
        self.io(Io::Write { offset, data: Arc::new(data), fua: false })
    }

    fn stop(&self) {
        self.volume.down().unwrap();
        self.peers.leave(&self.spec.name);
    }
}

fn ok(result: &Receiver<io::Result<Option<Buffer>>>) {
    result.recv_timeout(Duration::from_secs(20)).expect("an answer").expect("success");
}

fn images_equal(dir: &Path, names: &[&str]) {
    let first = fs::read(dir.join(format!("{}.img", names[0]))).unwrap();
    for name in &names[1..] {
        let other = fs::read(dir.join(format!("{name}.img"))).unwrap();
        let differs = first.chunks(4096).zip(other.chunks(4096)).position(|(a, b)| a != b);
        assert_eq!(differs, None, "block of {name} differs");
    }
}

#[test]
fn pair_replicates_loses_a_peer_and_resyncs() {
    let dir = tempfile::tempdir().unwrap();
    let specs = specs(dir.path(), &["alpha", "beta"], 64 << 20, true);
    let (a, b) = (Node::start(dir.path(), &specs[0]), Node::start(dir.path(), &specs[1]));
    a.wait_in_sync();
    b.wait_in_sync();
    a.volume.promote(&[]).unwrap();
    assert!(b.volume.promote(&[]).is_err(), "one primary");
    let writes: Vec<_> =
        (0..200u64).map(|i| a.write(i * 65536, u8::try_from(i % 250).unwrap() + 1, 8192)).collect();
    writes.iter().for_each(ok);
    ok(&a.io(Io::Flush));
    ok(&a.io(Io::Zero { offset: 65536, len: 1 << 20 }));
    images_equal(dir.path(), &["alpha", "beta"]);

    b.stop();
    a.wait_question();
    let held = a.write(40 << 20, 7, 4096);
    assert!(
        held.recv_timeout(Duration::from_millis(300)).is_err(),
        "not acknowledged before the drop"
    );
    a.volume.drop_peers(&["beta".into()], 5);
    ok(&held);
    ok(&a.write(50 << 20, 9, 1 << 20));
    assert_eq!(a.volume.status().epoch, 5);

    let b = Node::start_with(dir.path(), &specs[1], Some(Arc::clone(&b.peers)));
    b.wait_in_sync();
    a.wait_in_sync();
    assert_eq!(a.volume.status().generation, b.volume.status().generation);
    ok(&a.write(0, 3, 4096));
    images_equal(dir.path(), &["alpha", "beta"]);

    a.volume.demote().unwrap();
    b.wait("sees no primary", |s| !s.peers[0].primary);
    b.volume.promote(&[]).unwrap();
    ok(&b.write(4096, 4, 4096));
    images_equal(dir.path(), &["alpha", "beta"]);
    b.volume.demote().unwrap();
    a.stop();
    b.stop();
}

#[test]
fn fresh_volume_is_fully_synced_fast_enough() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let size = 256 << 20;
    let specs = specs(dir.path(), &["alpha", "beta"], size, false);
    let image: Vec<u8> =
        (0..size).map(|i: u64| u8::try_from(i / 4096 % 255).unwrap() + 1).collect();
    fs::write(dir.path().join("alpha.img"), &image).unwrap();
    let a = Node::start(dir.path(), &specs[0]);
    assert_eq!(a.volume.status().disk, DiskState::UpToDate);
    a.volume.promote(&["beta".into()]).unwrap();
    ok(&a.write(8192, 200, 4096));
    let start = Instant::now();
    let b = Node::start(dir.path(), &specs[1]);
    b.wait_in_sync();
    let took = start.elapsed();
    eprintln!("full sync of {} MiB took {took:?}", size >> 20);
    ok(&a.write(0, 201, 4096));
    images_equal(dir.path(), &["alpha", "beta"]);
    a.volume.demote().unwrap();
    a.stop();
    b.stop();
}

#[test]
fn three_replicas_survive_the_loss_of_the_primary() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["alpha", "beta", "gamma"];
    let specs = specs(dir.path(), &names, 64 << 20, true);
    let nodes: Vec<Node> = specs.iter().map(|s| Node::start(dir.path(), s)).collect();
    nodes.iter().for_each(Node::wait_in_sync);
    nodes[0].volume.promote(&[]).unwrap();
    let writes: Vec<_> = (0..100u64).map(|i| nodes[0].write(i * 131_072, 1, 4096)).collect();
    writes.iter().for_each(ok);
    // No demotion, no clean end: the links just break and the primary is never heard of again.
    nodes[0].peers.leave("v");
    nodes[0].volume.vanish();
    for n in &nodes[1..] {
        n.wait("peer gone", |s| {
            s.peers.iter().any(|p| p.node == "alpha" && p.disk == DiskState::Unknown)
        });
    }
    assert!(nodes[1].volume.promote(&[]).is_err(), "alpha is not known to be gone");
    nodes[1].volume.promote(&["alpha".into()]).unwrap();
    ok(&nodes[1].write(1 << 20, 5, 4096));
    nodes[1].wait("gamma in sync", |s| {
        s.peers
            .iter()
            .any(|p| p.node == "gamma" && p.disk == DiskState::UpToDate && p.out_of_sync_bytes == 0)
    });
    images_equal(dir.path(), &["beta", "gamma"]);
    assert!(nodes[1].places.key().exists());
    nodes[1].volume.demote().unwrap();
    nodes[1].stop();
    nodes[2].stop();
}
