//! Nodes with two links each, in network namespaces of their own, on wires that are really cut: each node's threads are begun on a thread
//! that has entered the node's namespace, and every socket of the node is opened by them.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::panic, reason = "tests fail by panicking")]

mod world;

use crm_core::store::Outcome;
use crm_membership::bootstrap::Newcomer;
use crm_membership::{Addresses, Handle, Link, bootstrap};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use world::*;

const PORT: u16 = 7631;
/// The test proper runs in this one, which a process with namespaces of its own is told to run.
const INSIDE: &str = "inside_a_cut_link_is_nobodys_death";

/// Runs a command that must succeed.
#[expect(clippy::disallowed_methods, reason = "a test has no spawner")]
fn run(words: &str) {
    let mut words = words.split(' ');
    let output = Command::new(words.next().unwrap()).args(words.clone()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", words.collect::<Vec<_>>().join(" "));
}

/// A thread in a network namespace of its own, which does what it is told there until it is dropped.
struct Room {
    jobs: mpsc::Sender<Box<dyn FnOnce() + Send>>,
    thread_id: i32,
}

impl Room {
    fn new() -> Self {
        let (jobs, work) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in work {
                job();
            }
        });
        Self { jobs, thread_id: told.recv().unwrap() }
    }

    /// Does something inside, with an async runtime whose threads are inside, too.
    fn inside<T: Send + 'static>(&self, job: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            tell.send(runtime.block_on(job())).unwrap();
        };
        self.jobs.send(Box::new(job)).unwrap();
        told.recv().unwrap()
    }
}

/// The wire of a node in a network: its end at the switch.
fn wire(node: u8, link: u8) -> String {
    format!("w{node}-{link}")
}

fn addresses(node: u8) -> Addresses {
    let address = |link: u8| format!("10.9.{link}.{node}:{PORT}");
    Addresses { address: address(0), links: vec![address(1)] }
}

/// Two networks with a switch each, and a namespace with a wire to both for each node.
fn lay(nodes: u8) -> Vec<Room> {
    for link in 0..2 {
        run(&format!("ip link add br{link} type bridge stp_state 0 forward_delay 0"));
        run(&format!("ip link set br{link} up"));
    }
    let room = |node| {
        let room = Room::new();
        for link in 0..2 {
            let (wire, to) = (wire(node, link), room.thread_id);
            run(&format!("ip link add {wire} type veth peer name eth{link} netns {to}"));
            run(&format!("ip link set {wire} master br{link}"));
            run(&format!("ip link set {wire} up"));
        }
        room.inside(async move || {
            run("ip link set lo up");
            for link in 0..2 {
                run(&format!("ip addr add 10.9.{link}.{node}/24 dev eth{link}"));
                run(&format!("ip link set eth{link} up"));
            }
        });
        room
    };
    (1..=nodes).map(room).collect()
}

/// Three nodes with two links each, all of them voters.
async fn cluster(world: &World, rooms: &[Room]) -> Vec<Handle> {
    let mut nodes: Vec<Handle> = Vec::new();
    for (number, room) in (1_u8..).zip(rooms) {
        let name = format!("n{number}");
        let (dirs, run_dir) = (world.dirs(&name), world.run_dir(&name));
        let token = nodes.first().map(|first| first.make_token(TTL).unwrap());
        let handle = room.inside(async move || {
            let mut settings = match token {
                None => bootstrap::init(&dirs, "lab", &name, addresses(number)).unwrap(),
                Some(token) => {
                    let own = addresses(number);
                    bootstrap::join(&dirs, Newcomer::node(&name, own), None, &token).await.unwrap()
                }
            };
            settings.realtime = false;
            crm_membership::start(settings, run_dir).await.unwrap()
        });
        quorate(&handle, true, Duration::from_secs(20)).await;
        if number == 1 {
            member(&handle, "n1").await;
        }
        nodes.push(handle);
    }
    for node in &nodes {
        all_alive(node, nodes.len() - 1).await;
        voters(node, nodes.len()).await;
    }
    nodes
}

/// Waits until a node sees all its links like this: up or not, in use or not.
async fn links(node: &Handle, what: &str, want: impl Fn(usize, &Link) -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = node.links();
        let all = |links: &Vec<Link>| {
            links.len() == 2 && links.iter().enumerate().all(|(number, link)| want(number, link))
        };
        if seen.len() == 2 && seen.values().all(all) {
            return;
        }
        assert!(Instant::now() < until, "{} does not see {what}: {seen:#?}", node.name());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes without a pause while something happens; how long the slowest write took.
async fn while_writing(nodes: &[Handle], event: impl Future<Output = ()>) -> Duration {
    tokio::pin!(event);
    let mut slowest = Duration::ZERO;
    for count in 0_u64.. {
        let node = &nodes[usize::try_from(count % 3).unwrap()];
        let (since, colour) = (Instant::now(), format!("c{count}"));
        let write = node.propose(attr("n1", &colour));
        let outcome = tokio::select! {
            biased;
            () = &mut event => return slowest,
            outcome = write => outcome.unwrap(),
        };
        assert!(matches!(outcome, Outcome::Done { .. }));
        slowest = slowest.max(since.elapsed());
    }
    slowest
}

/// A cut that must not be felt: nobody dies, nobody is elected, the quorum is never in doubt.
async fn unfelt(nodes: &[Handle], what: &str, cut: impl AsyncFnOnce()) -> String {
    let term = nodes[0].leadership().borrow().term;
    let felt = async {
        let felt = |node: &Handle| {
            let (mut peers, mut led) = (node.peers(), node.leadership());
            async move {
                tokio::select! {
                    biased;
                    dead = peers.wait_for(|p| p.values().any(|p| !p.alive)) => format!("{:?}", *dead.unwrap()),
                    led = led.wait_for(|l| !l.quorate || l.term != term) => format!("{:?}", *led.unwrap()),
                }
            }
        };
        futures::future::select_all(nodes.iter().map(felt).map(Box::pin)).await.0
    };
    let slowest = tokio::select! {
        biased;
        felt = felt => panic!("{what} was felt in term {term}: {felt}"),
        slowest = while_writing(nodes, cut()) => slowest,
    };
    format!("{what}: slowest write {slowest:?}")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "for a process with namespaces of its own: the next test starts it"]
async fn inside_a_cut_link_is_nobodys_death() {
    let (world, rooms) = (World::new(), lay(3));
    let nodes = cluster(&world, &rooms).await;
    for node in &nodes {
        links(node, "both links up", |number, l| l.seen.up && l.in_use == (number == 0)).await;
        let members = node.members();
        assert_eq!(members["n2"].links, ["10.9.1.2:7631"], "the state knows the links");
    }
    assert!(nodes[0].links()["n2"].iter().all(|link| link.seen.rtt.is_some()));
    let told = unfelt(&nodes, "the first switch is off", async || {
        run("ip link set br0 down");
        for node in &nodes {
            let second = |number, l: &Link| (l.seen.up, l.in_use) == (number == 1, number == 1);
            links(node, "the first link down", second).await;
        }
        // Long enough for every limit there is: deaths, leases, elections.
        tokio::time::sleep(Duration::from_secs(3)).await;
    })
    .await;
    eprintln!("{told}");
    let told = unfelt(&nodes, "the first switch is back", async || {
        run("ip link set br0 up");
        for node in &nodes {
            links(node, "the first link used", |number, l| l.seen.up && l.in_use == (number == 0))
                .await;
        }
    })
    .await;
    eprintln!("{told}");
    let told = unfelt(&nodes, "the second switch is off", async || {
        run("ip link set br1 down");
        for node in &nodes {
            links(node, "the second down", |number, l| l.seen.up == (number == 0)).await;
        }
    })
    .await;
    eprintln!("{told}");
    // Both of one node: now it is dead, and the others go on.
    run("ip link set w3-0 down");
    for node in &nodes[..2] {
        let mut peers = node.peers();
        let dead = peers.wait_for(|p| !p["n3"].alive);
        within(Duration::from_secs(5), "death noticed", dead).await.unwrap();
        quorate(node, true, Duration::from_secs(10)).await;
    }
    for node in &nodes {
        node.shutdown().await;
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test has no spawner")]
fn a_cut_link_is_nobodys_death_and_consensus_goes_on_over_the_other() {
    let room = ["--user", "--map-root-user", "--net"];
    let made = Command::new("unshare").args(room).args(["ip", "link"]).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        return eprintln!("SKIPPED, nothing was cut: no user namespaces, or no `ip`: {made:?}");
    }
    let output = Command::new("unshare")
        .args(room)
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", INSIDE])
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    println!("{out}");
    eprintln!("{err}");
    assert!(output.status.success() && out.contains("1 passed"), "see above");
}
