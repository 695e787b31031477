//! Real nodes on loopback: removed, told so, back only as somebody new; certificates renewed while everything goes on.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]

use crm_core::store::{Command, Outcome, State};
use crm_membership::bootstrap::Newcomer;
use crm_membership::{Dirs, Handle, Settings, StartError, bootstrap};
use crm_proto::pb;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

const TTL: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

struct World {
    dir: tempfile::TempDir,
    port: u16,
}

impl World {
    fn new() -> Self {
        let probe = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        Self { dir: tempfile::tempdir().unwrap(), port: probe.local_addr().unwrap().port() }
    }

    fn dirs(&self, name: &str) -> Dirs {
        let root = self.dir.path().join(name);
        Dirs { settings: root.join("node.yaml"), data: root.join("data"), tls: root.join("tls") }
    }

    /// What a reboot empties.
    fn run_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name).join("run");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn address(&self, name: &str) -> String {
        format!("127.0.1.{}:{}", name.trim_start_matches('n'), self.port)
    }

    fn settings(&self, name: &str) -> Settings {
        let mut settings = Settings::load(&self.dirs(name).settings).unwrap();
        settings.realtime = false;
        settings
    }

    async fn start(&self, name: &str) -> Handle {
        crm_membership::start(self.settings(name), self.run_dir(name)).await.unwrap()
    }

    async fn join(&self, door: &Handle, name: &str) -> Handle {
        let token = door.make_token(TTL).unwrap();
        let (dirs, address) = (self.dirs(name), self.address(name));
        bootstrap::join(&dirs, Newcomer::node(name, &address), None, &token).await.unwrap();
        self.start(name).await
    }

    /// `n1`, `n2`, ... all of them voters whose certificates are known.
    async fn cluster(&self, nodes: usize) -> Vec<Handle> {
        bootstrap::init(&self.dirs("n1"), "lab", "n1", &self.address("n1")).unwrap();
        let mut all = vec![self.start("n1").await];
        voters(&all[0], 1).await;
        for number in 2..=nodes {
            let node = self.join(&all[0], &format!("n{number}")).await;
            all.push(node);
        }
        for handle in &all {
            voters(handle, nodes).await;
            state(handle, |s| s.certificates.len() == nodes).await;
        }
        all
    }

    fn identity(&self, name: &str) -> (String, String) {
        let tls = self.dirs(name).tls;
        let read = |file: &str| std::fs::read_to_string(tls.join(file)).unwrap();
        (read("node.pem"), read("node.key"))
    }

    /// What n1 says to a call with this certificate.
    async fn refusal(&self, (cert, key): (String, String)) -> String {
        let settings = self.settings("n1");
        let ca = std::fs::read_to_string(self.dirs("n1").tls.join("ca.pem")).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .domain_name(format!("n1.{}", settings.cluster.uuid))
            .identity(Identity::from_pem(cert, key));
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address("n1"))).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let mut client = pb::peer_client::PeerClient::new(channel);
        let question = pb::Propose { kind: 77, ..pb::Propose::default() };
        client.propose(question).await.unwrap_err().message().to_owned()
    }
}

async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(SOON, event).await;
    ended.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

async fn voters(handle: &Handle, count: usize) {
    let mut seen = handle.leadership();
    let want = seen.wait_for(|l| l.voters.len() == count && l.leader.is_some());
    within("voters", want).await.unwrap();
}

async fn state(handle: &Handle, want: impl FnMut(&Arc<State>) -> bool) {
    let mut seen = handle.state();
    within("a state", seen.wait_for(want)).await.unwrap();
}

async fn told(handle: &Handle) -> String {
    let mut expelled = handle.expelled();
    let words = within("to be told", expelled.wait_for(Option::is_some)).await.unwrap().clone();
    words.unwrap()
}

fn removal(of: &Handle, by: &Handle) -> (u64, Command) {
    let name = of.name().to_owned();
    let raft_id = by.members()[&name].raft_id;
    let by = "root@n1".to_owned();
    (raft_id, Command::RemoveMember { name, raft_id, force: true, by, when_ms: 1 })
}

async fn works(handle: &Handle, value: &str) {
    let attrs = vec![("colour".to_owned(), Some(value.to_owned()))];
    let command = Command::SetAttrs { node: "n1".to_owned(), session: None, attrs };
    assert!(matches!(handle.propose(command).await.unwrap(), Outcome::Done { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_removed_while_it_was_off_is_told_and_comes_back_only_as_somebody_new() {
    let world = World::new();
    let nodes = world.cluster(3).await;
    let old = world.identity("n3");
    let (raft_id, command) = removal(&nodes[2], &nodes[0]);
    nodes[2].shutdown().await;
    assert!(matches!(nodes[0].propose(command).await.unwrap(), Outcome::Done { .. }));
    assert!(nodes[0].without(raft_id, SOON).await, "raft's membership did not follow");
    voters(&nodes[0], 2).await;
    works(&nodes[1], "red").await;

    let back = world.start("n3").await;
    let words = told(&back).await;
    assert!(words.contains("n3 was removed from cluster lab by root@n1"), "{words}");
    back.lay_down(&words).unwrap();
    back.shutdown().await;
    drop(back);
    let refused =
        crm_membership::start(world.settings("n3"), world.run_dir("n3")).await.unwrap_err();
    assert!(matches!(refused, StartError::Departed { .. }), "{refused}");
    assert!(refused.to_string().contains("crm cluster token"), "{refused}");
    assert!(world.refusal(old.clone()).await.contains("was removed"));

    let anew = world.join(&nodes[0], "n3").await;
    voters(&anew, 3).await;
    assert!(anew.members()["n3"].raft_id > raft_id, "an id was used twice");
    works(&anew, "blue").await;
    // The old certificate has the name of a member again, and is no good all the same.
    assert!(world.refusal(old).await.contains("was removed"));
    for node in nodes.iter().take(2).chain([&anew]) {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_removed_is_told_and_the_others_go_on() {
    let world = World::new();
    let nodes = world.cluster(3).await;
    let leads = |n: &&Handle| n.leadership().borrow().me_leader;
    let leader = nodes.iter().find(leads).unwrap();
    let others: Vec<&Handle> = nodes.iter().filter(|n| n.name() != leader.name()).collect();
    let (raft_id, command) = removal(leader, others[0]);
    assert!(matches!(others[0].propose(command).await.unwrap(), Outcome::Done { .. }));
    for node in &others {
        assert!(node.without(raft_id, SOON).await, "raft's membership did not follow");
        voters(node, 2).await;
        works(node, node.name()).await;
    }
    told(leader).await;
    for node in &nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_while_everything_goes_on_and_the_old_ones_are_refused() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    for (node, asked) in [("n2", 1), ("n2", 0), ("n1", 1), ("n1", 0)] {
        let (old, lost) = (world.identity(node), nodes[asked].leadership());
        let before = lost.borrow().term;
        nodes[asked].renew(node).await.unwrap();
        assert_ne!(world.identity(node), old);
        let refusal = world.refusal(old).await;
        assert!(refusal.contains(&format!("certificate of {node} is revoked")), "{refusal}");
        let accepted = world.refusal(world.identity(node)).await;
        // Past the door: what is missing is what only a node says.
        assert!(accepted.contains("no greeting"), "{accepted}");
        for handle in &nodes {
            works(handle, node).await;
        }
        assert_eq!(lost.borrow().term, before, "the leader changed");
    }
    nodes[1].shutdown().await;
    let back = world.start("n2").await;
    voters(&back, 2).await;
    works(&back, "green").await;
    back.shutdown().await;
    nodes[0].shutdown().await;
}

/// Answers for `node` with a certificate and key of it; whether the first who calls believes it.
async fn poses(world: &World, node: &str, identity: (String, String)) -> Result<(), String> {
    let chain = CertificateDer::pem_slice_iter(identity.0.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.1.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind(world.address(node)).await.unwrap();
    let (stream, _) = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let mut stream = stream.into_std().unwrap();
    let shaken = tokio::task::spawn_blocking(move || {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        server.complete_io(&mut stream).map(drop).map_err(|e| e.to_string())
    });
    shaken.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_revoked_certificate_is_not_believed() {
    let world = World::new();
    let mut nodes = world.cluster(2).await;
    let old = world.identity("n2");
    nodes[1].renew("n2").await.unwrap();
    state(&nodes[0], |s| !s.revoked.is_empty()).await;
    nodes.pop().unwrap().shutdown().await;
    let refused = poses(&world, "n2", old).await.unwrap_err();
    assert!(refused.contains("Revoked"), "{refused}");
    // That of now is believed.
    poses(&world, "n2", world.identity("n2")).await.unwrap();
    nodes.pop().unwrap().shutdown().await;
}
