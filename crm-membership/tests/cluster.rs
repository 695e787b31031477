//! Real nodes on loopback: founding, joining, proposing, failing, coming back.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]

mod world;

use crm_core::store::Outcome;
use crm_membership::bootstrap::Newcomer;
use crm_membership::{
    Addresses, BootstrapError, Dirs, Handle, MoveError, Settings, StartError, TokenError, bootstrap,
};
use crm_proto::pb;
use crm_proto::peer::{Order, PlanId, Work};
use crm_quorum::lineage::GenerationId;
use crm_quorum::takeover::Greeting;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use world::*;

fn order(session: u64) -> Order {
    let work = Work::CancelMonitor { resource: "r".to_owned(), interval_ms: 10_000 };
    Order { plan: PlanId { term: 1, number: 1 }, action: 0, session, work }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_take_proposals_anywhere_and_survive_their_leader() {
    let world = World::new();
    let nodes = world.cluster(3).await;
    for (node, name) in nodes.iter().zip(["n1", "n2", "n3"]) {
        let outcome = node.propose(attr(name, "red")).await.unwrap();
        assert!(matches!(outcome, Outcome::Done { .. }));
        // Whoever has his answer finds it in his own state.
        assert!(has(&node.state().borrow(), name, "red"), "{name}");
    }
    for node in &nodes {
        state(node, "all three", |s| ["n1", "n2", "n3"].iter().all(|n| has(s, n, "red"))).await;
    }
    let ids: Vec<u64> = nodes[0].members().values().map(|m| m.raft_id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");

    let leader = nodes.iter().position(|n| n.leadership().borrow().me_leader).unwrap();
    nodes[leader].shutdown().await;
    let since = Instant::now();
    let rest: Vec<&Handle> =
        nodes.iter().enumerate().filter(|(i, _)| *i != leader).map(|(_, n)| n).collect();
    let outcome = rest[0].propose(attr("n1", "blue")).await.unwrap();
    assert!(matches!(outcome, Outcome::Done { .. }));
    eprintln!("first write after the leader's end: {:?}", since.elapsed());
    assert!(rest.iter().all(|n| n.leadership().borrow().quorate), "quorum was never lost");

    // The old leader comes back as a follower with everything it missed.
    let back = world.start(&format!("n{}", leader + 1)).await;
    state(&back, "missed write", |s| has(s, "n1", "blue")).await;
    quorate(&back, true, Duration::from_secs(10)).await;
    for node in rest {
        all_alive(node, 2).await;
        node.shutdown().await;
    }
    back.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_that_vanishes_is_replaced_and_found_dead() {
    let world = World::new();
    let mut nodes = world.cluster(3).await;
    let leader = nodes.iter().position(|n| n.leadership().borrow().me_leader).unwrap();
    let gone = nodes.remove(leader);
    let name = gone.name().to_owned();
    drop(gone);
    let since = Instant::now();
    nodes[0].propose(attr("n1", "red")).await.unwrap();
    eprintln!("first write after the leader vanished: {:?}", since.elapsed());
    for node in &nodes {
        let mut peers = node.peers();
        let dead = peers.wait_for(|p| !p[&name].alive && p.values().any(|h| h.alive));
        within(Duration::from_secs(5), "death noticed", dead).await.unwrap();
        assert!(node.leadership().borrow().quorate);
        assert_ne!(node.leadership().borrow().leader.as_deref(), Some(name.as_str()));
    }
    for node in &nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_nodes_alone_is_not_quorate_until_the_other_returns() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    nodes[1].shutdown().await;
    let since = Instant::now();
    quorate(&nodes[0], false, Duration::from_secs(3)).await;
    let lost = since.elapsed();
    assert!(lost < Duration::from_millis(1500), "{lost:?}");
    assert!(!nodes[0].leadership().borrow().me_leader);
    let refused = nodes[0].propose(attr("n1", "red")).await.unwrap_err();
    eprintln!("loss noticed after {lost:?}; a write gets: {refused}");
    let back = world.start("n2").await;
    quorate(&nodes[0], true, Duration::from_secs(10)).await;
    quorate(&back, true, Duration::from_secs(10)).await;
    nodes[0].propose(attr("n1", "green")).await.unwrap();
    nodes[0].shutdown().await;
    back.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_cluster_has_its_state_and_session_bytes_travel() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    nodes[1].propose(attr("n2", "red")).await.unwrap();
    for node in &nodes {
        node.shutdown().await;
    }
    let (one, two) = tokio::join!(world.start("n1"), world.start("n2"));
    for node in [&one, &two] {
        quorate(node, true, Duration::from_secs(20)).await;
        state(node, "old state", |s| has(s, "n2", "red") && s.members.len() == 2).await;
        assert_eq!(node.state().borrow().cluster_name, "lab");
    }
    two.set_session(42);
    two.set_mode_hint(3);
    let mut peers = one.peers();
    let told = peers
        .wait_for(|p| p.get("n2").is_some_and(|h| h.alive && (h.session, h.mode_hint) == (42, 3)));
    within(Duration::from_secs(5), "session", told).await.unwrap();
    one.shutdown().await;
    two.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_reach_their_node_and_bring_back_its_word() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    let mut inboxes: Vec<_> = nodes.iter().map(|n| n.orders().unwrap()).collect();
    assert!(nodes[0].orders().is_none(), "taken once");
    let controllers: Vec<_> = inboxes
        .drain(..)
        .map(|mut inbox| {
            tokio::spawn(async move {
                while let Some(incoming) = inbox.recv().await {
                    let session = incoming.order.session;
                    let word = if session == 7 { Ok(()) } else { Err("old session".to_owned()) };
                    incoming.reply.send(word).unwrap();
                }
            })
        })
        .collect();
    for target in ["n1", "n2"] {
        nodes[0].execute(target, &order(7)).await.unwrap();
        let refused = nodes[0].execute(target, &order(8)).await.unwrap_err().to_string();
        assert!(refused.contains("old session"), "{refused}");
    }
    let nobody = nodes[0].execute("n9", &order(7)).await.unwrap_err().to_string();
    assert_eq!(nobody, "`n9` is not a member");
    nodes[1].shutdown().await;
    assert!(nodes[0].execute("n2", &order(7)).await.is_err());
    nodes[0].shutdown().await;
    for controller in controllers {
        controller.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_and_second_memberships_are_refused() {
    let world = World::new();
    let n1 = world.found().await;
    let attempt = async |number: u8, token: &str| {
        let name = format!("n{number}");
        bootstrap::join(
            &world.dirs(&name),
            Newcomer::node(&name, &world.address(number)),
            None,
            token,
        )
        .await
    };
    let token = n1.make_token(TTL).unwrap();
    attempt(2, &token).await.unwrap();
    let used = attempt(3, &token).await.unwrap_err().to_string();
    assert!(used.contains("used already"), "{used}");
    assert!(!world.dirs("n3").settings.exists());

    let short = n1.make_token(Duration::from_secs(0)).unwrap();
    let late = attempt(3, &short).await.unwrap_err();
    assert!(matches!(late, BootstrapError::Token(TokenError::Expired)), "{late}");

    let again = n1.make_token(TTL).unwrap();
    let twice = attempt(2, &again).await.unwrap_err();
    assert!(matches!(twice, BootstrapError::Exists { .. }), "{twice}");

    // A node of another cluster at the same place: the pin does not match.
    let other = World::new();
    bootstrap::init(&other.dirs("n1"), "other", "n1", &other.address(1)).unwrap();
    let stranger = other.start("n1").await;
    leads(&stranger).await;
    let token = n1.make_token(TTL).unwrap();
    let dirs = world.dirs("n4");
    let pinned = bootstrap::join(
        &dirs,
        Newcomer::node("n4", &world.address(4)),
        Some(&other.address(1)),
        &token,
    )
    .await;
    assert!(matches!(pinned, Err(BootstrapError::Connect { .. })), "{pinned:?}");
    stranger.shutdown().await;
    n1.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_never_started_may_join_again_under_a_new_raft_id() {
    let world = World::new();
    let n1 = world.found().await;
    let token = n1.make_token(TTL).unwrap();
    let lost = Dirs { settings: world.dir.path().join("lost/node.yaml"), ..world.dirs("lost") };
    let first = bootstrap::join(&lost, Newcomer::node("n2", &world.address(2)), None, &token)
        .await
        .unwrap();
    assert!(n1.leadership().borrow().me_leader, "a learner that is down does no harm");
    let n2 = world.join(&n1, 2).await;
    voters(&n1, 2).await;
    assert!(n1.members()["n2"].raft_id > first.raft_id);
    let token = n1.make_token(TTL).unwrap();
    let taken =
        bootstrap::join(&world.dirs("x"), Newcomer::node("n2", &world.address(3)), None, &token)
            .await;
    assert!(taken.unwrap_err().to_string().contains("is a member already"));
    n2.shutdown().await;
    n1.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_node_with_the_ca_key_invites() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    let refused = nodes[1].make_token(TTL).unwrap_err().to_string();
    assert!(refused.contains("no CA key"), "{refused}");
    for node in &nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn founder_admits_although_another_leads() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    nodes[0].shutdown().await;
    let (lonely, n1) = (&nodes[1], world.start("n1").await);
    quorate(&n1, true, Duration::from_secs(10)).await;
    assert_eq!(n1.leadership().borrow().leader.as_deref(), Some("n2"));
    let n3 = world.join(&n1, 3).await;
    for node in [&n1, lonely, &n3] {
        all_alive(node, 2).await;
    }
    for node in [&n1, lonely, &n3] {
        voters(node, 3).await;
    }
    for node in [lonely, &n1, &n3] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_other_addresses_and_nobody_misses_a_beat() {
    let world = World::new();
    let nodes = world.cluster(3).await;
    let mover = nodes.iter().find(|n| !n.leadership().borrow().me_leader).unwrap();
    let name = mover.name().to_owned();
    let file = world.dirs(&name).settings;
    let taken = Addresses { links: vec![world.address(1)], ..(&world.address(77)).into() };
    let refused = mover.relocate(taken, &file).await.unwrap_err().to_string();
    assert!(refused.contains("is an address of n"), "{refused}");
    let far = Addresses::from("192.0.2.77:7631");
    assert!(matches!(mover.relocate(far, &file).await, Err(MoveError::Listen(_))));
    let before = std::fs::read_to_string(&file).unwrap();
    let term = mover.leadership().borrow().term;
    let felt = |node: &Handle| {
        let (mut peers, mut led) = (node.peers(), node.leadership());
        async move {
            tokio::select! {
                dead = peers.wait_for(|p| p.values().any(|p| !p.alive)) => format!("{:?}", *dead.unwrap()),
                led = led.wait_for(|l| !l.quorate || l.term != term) => format!("{:?}", *led.unwrap()),
            }
        }
    };
    let felt = futures::future::select_all(nodes.iter().map(felt).map(Box::pin));
    let to = Addresses { address: world.address(77), links: vec![world.address(78)] };
    let moving = async {
        mover.relocate(to.clone(), &file).await.unwrap();
        for node in &nodes {
            state(node, "the new address", |s| s.members[&name].address == to.address).await;
        }
        // Longer than anything may go unheard.
        tokio::time::sleep(Duration::from_secs(3)).await;
        for node in &nodes {
            node.propose(attr(&name, node.name())).await.unwrap();
            state(mover, "a write", |s| has(s, &name, node.name())).await;
        }
    };
    tokio::select! {
        biased;
        felt = felt => panic!("the move was felt: {}", felt.0),
        () = moving => {}
    }
    assert_ne!(std::fs::read_to_string(&file).unwrap(), before);
    assert_eq!(world.settings(&name).addresses(), to);
    // Nothing is left at the old address, and the node comes back at the new one, also when its file is changed by hand.
    let old = Settings { links: Vec::new(), ..world.settings(&name) };
    mover.shutdown().await;
    old.save(&file).unwrap();
    let back = world.start(&name).await;
    quorate(&back, true, Duration::from_secs(10)).await;
    state(&back, "what the file says", |s| s.members[&name].links.is_empty()).await;
    for node in nodes.iter().filter(|node| node.name() != name).chain([&back]) {
        all_alive(node, 2).await;
    }
    for node in nodes.iter().filter(|node| node.name() != name).chain([&back]) {
        node.shutdown().await;
    }
}

fn client_tls(ca: &Path, identity: Option<(String, String)>, server: &str) -> ClientTlsConfig {
    let ca = Certificate::from_pem(std::fs::read_to_string(ca).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name(server);
    match identity {
        Some((cert, key)) => tls.identity(Identity::from_pem(cert, key)),
        None => tls,
    }
}

/// Sends one raft envelope to n1 with this certificate.
async fn send(
    world: &World,
    uuid: &str,
    identity: Option<(String, String)>,
    envelope: pb::Raft,
    greeting: Option<&Greeting>,
) -> Result<(), String> {
    let tls = client_tls(&world.dirs("n1").tls.join("ca.pem"), identity, &format!("n1.{uuid}"));
    let channel = Endpoint::from_shared(format!("https://{}", world.address(1)))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .map_err(|e| format!("connect: {e:?}"))?;
    let mut client = pb::peer_client::PeerClient::new(channel);
    let mut request = tonic::Request::new(envelope);
    if let Some(greeting) = greeting {
        let bytes = postcard::to_stdvec(greeting).unwrap();
        let value = tonic::metadata::MetadataValue::from_bytes(&bytes);
        request.metadata_mut().insert_bin("crm-greeting-bin", value);
    }
    client.raft(request).await.map(|_| ()).map_err(|s| format!("{:?}: {}", s.code(), s.message()))
}

fn identity_of(dirs: &Dirs) -> (String, String) {
    let read = |name| std::fs::read_to_string(dirs.tls.join(name)).unwrap();
    (read("node.pem"), read("node.key"))
}

/// A certificate of the cluster's own CA for a node that is no member.
fn forged(dirs: &Dirs, name: &str) -> (String, String) {
    let read = |file| std::fs::read_to_string(dirs.tls.join(file)).unwrap();
    let ca_key = rcgen::KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (parameters.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn peer_service_is_for_members_who_mean_this_node() {
    let world = World::new();
    let nodes = world.cluster(2).await;
    let settings = world.settings("n2");
    let uuid = settings.cluster.uuid.clone();
    let member = identity_of(&world.dirs("n2"));
    let good = pb::Raft {
        kind: 9,
        from: settings.raft_id,
        to: 1,
        cluster: uuid.clone(),
        body: Vec::new(),
        quorate: false,
    };
    let refused =
        async |identity, envelope| send(&world, &uuid, identity, envelope, None).await.unwrap_err();
    // Past every check, to the unknown kind.
    let passed = refused(Some(member.clone()), good.clone()).await;
    assert!(passed.contains("raft call of kind 9"), "{passed}");

    let none = refused(None, good.clone()).await;
    assert!(none.contains("Unauthenticated"), "{none}");
    let other = World::new();
    bootstrap::init(&other.dirs("n2"), "lab", "n2", &other.address(2)).unwrap();
    let foreign = refused(Some(identity_of(&other.dirs("n2"))), good.clone()).await;
    assert!(!foreign.contains("kind 9"), "{foreign}");
    let outsider = forged(&world.dirs("n1"), &format!("n7.{uuid}"));
    let outsider = refused(Some(outsider), good.clone()).await;
    assert!(outsider.contains("`n7` is not a member"), "{outsider}");
    let nameless = refused(Some(forged(&world.dirs("n1"), "n2.elsewhere")), good.clone()).await;
    assert!(nameless.contains("not of this cluster"), "{nameless}");

    for (envelope, want) in [
        (pb::Raft { to: 5, ..good.clone() }, "not 5"),
        (pb::Raft { from: 1, ..good.clone() }, "the certificate is of raft id"),
        (pb::Raft { cluster: "x".into(), ..good.clone() }, "this node is of cluster"),
        (pb::Raft { kind: 1, ..good.clone() }, "no greeting"),
    ] {
        let why = refused(Some(member.clone()), envelope).await;
        assert!(why.contains(want), "{why}");
    }
    let append = pb::Raft { kind: 1, ..good.clone() };
    let own: GenerationId = uuid.parse().unwrap();
    for (lineage, incarnation, want) in [
        (vec![own], 1, "a late message"),
        (vec![own], u64::MAX, "InvalidArgument"),
        (vec![], u64::MAX, "your lineage is stale"),
        (vec![GenerationId([7; 16])], u64::MAX, "diverged"),
    ] {
        let greeting = Greeting { lineage, incarnation, heard: None };
        let identity = Some(member.clone());
        let why = send(&world, &uuid, identity, append.clone(), Some(&greeting)).await;
        assert!(why.as_ref().unwrap_err().contains(want), "{why:?}");
    }
    for node in &nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_data_directory_does_not_start() {
    let world = World::new();
    let n1 = world.found().await;
    n1.shutdown().await;
    let data = world.dirs("n1").data;
    empty(&data);
    let refused =
        crm_membership::start(world.settings("n1"), world.run_dir("n1")).await.unwrap_err();
    assert!(matches!(refused, StartError::Wiped { .. }), "{refused}");
}

fn empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name != "data.key") {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn founding_twice_is_refused_and_keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let dirs = world.dirs("n1");
    bootstrap::init(&dirs, "lab", "n1", &world.address(1)).unwrap();
    let again = bootstrap::init(&dirs, "lab", "n1", &world.address(1)).unwrap_err();
    assert!(matches!(again, BootstrapError::Exists { .. }), "{again}");
    let secret = ["ca.key", "node.key", "heartbeat.key"].map(|name| dirs.tls.join(name));
    for path in secret.into_iter().chain([dirs.data.join("data.key")]) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    assert_eq!(std::fs::read_to_string(dirs.data.join("data.key")).unwrap().len(), 64);
}
