//! The controller in a world of faults: seed 002's cluster, two and three nodes.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use crm_core::cib::{
    AgentName, Cib, CloneResource, Colocation, Constraint, Group, Location, LocationTarget, NvSet,
    Op, Order, OrderAction, OrderKind, Primitive, Resource, Role, Score,
};
use crm_sim::cluster::{Fault, World};

fn nv(pairs: &[(&str, &str)]) -> NvSet {
    let mut set = NvSet::default();
    for (name, value) in pairs {
        set.set(name, value);
    }
    set
}

fn primitive(
    id: &str,
    provider: &str,
    kind: &str,
    params: &[(&str, &str)],
    every: &str,
) -> Primitive {
    let (class, provider) = ("ocf".to_owned(), Some(provider.to_owned()));
    Primitive {
        id: id.to_owned(),
        agent: AgentName { class, provider, kind: kind.to_owned() },
        description: None,
        params: nv(params),
        meta: NvSet::default(),
        utilization: NvSet::default(),
        ops: vec![Op { name: "monitor".to_owned(), attrs: nv(&[("interval", every)]) }],
        layout: Vec::new(),
    }
}

fn order(id: &str, first: &str, action: OrderAction, then: &str) -> Constraint {
    Constraint::Order(Order {
        id: id.to_owned(),
        kind: OrderKind::Mandatory,
        first: first.to_owned(),
        first_action: Some(action),
        then: then.to_owned(),
        then_action: Some(OrderAction::Start),
        symmetrical: None,
        sets: Vec::new(),
    })
}

/// Seed 002, with stickiness so that nothing fails back.
fn seed(nodes: usize) -> Cib {
    let drbd = primitive("drbd_nfs", "linbit", "drbd", &[("drbd_resource", "r0")], "15s");
    let copies = nodes.to_string();
    let meta = [
        ("master-max", "1"),
        ("master-node-max", "1"),
        ("clone-max", copies.as_str()),
        ("clone-node-max", "1"),
        ("notify", "true"),
    ];
    Cib {
        resources: vec![
            Resource::Group(Group {
                id: "HA".to_owned(),
                description: None,
                members: vec![
                    primitive("fs_nfs", "heartbeat", "Filesystem", &[], "10s"),
                    primitive("nfs", "heartbeat", "nfsserver", &[], "5s"),
                ],
                params: NvSet::default(),
                meta: nv(&[("target-role", "Started")]),
            }),
            Resource::Clone(CloneResource {
                id: "ms_drbd_nfs".to_owned(),
                description: None,
                child: Box::new(Resource::Primitive(drbd)),
                ms: true,
                params: NvSet::default(),
                meta: nv(&meta),
            }),
        ],
        constraints: vec![
            order("o1", "fs_nfs", OrderAction::Start, "nfs"),
            Constraint::Location(Location {
                id: "loc".to_owned(),
                target: LocationTarget::Resource("ms_drbd_nfs".to_owned()),
                score: Score::new(100),
                node: "alpha".to_owned(),
                role: None,
                discovery: None,
            }),
            order("o2", "ms_drbd_nfs", OrderAction::Promote, "fs_nfs"),
            Constraint::Colocation(Colocation {
                id: "c1".to_owned(),
                score: Score::INF,
                rsc: "ms_drbd_nfs".to_owned(),
                rsc_role: Some(Role::Promoted),
                with: "HA".to_owned(),
                with_role: None,
                node_attribute: None,
                influence: None,
                sets: Vec::new(),
            }),
        ],
        properties: nv(&[("stonith-enabled", "false"), ("no-quorum-policy", "ignore")]),
        rsc_defaults: nv(&[("resource-stickiness", "200")]),
        ..Cib::default()
    }
}

/// The seed, and something that moves without a stop.
fn with_vm(nodes: usize) -> Cib {
    let mut cib = seed(nodes);
    let mut vm = primitive("vm", "heartbeat", "VirtualDomain", &[], "10s");
    vm.meta = nv(&[("allow-migrate", "true")]);
    cib.resources.push(Resource::Primitive(vm));
    cib
}

/// The seed with a fence device that reaches all nodes, and without a word on quorum: two nodes go on with what they have, and take over what
/// is confirmed off.
fn with_fencing(nodes: usize) -> Cib {
    let mut cib = seed(nodes);
    let mut device = primitive("power", "none", "fence_sim", &[], "60s");
    device.agent =
        AgentName { class: "stonith".to_owned(), provider: None, kind: "fence_sim".to_owned() };
    device.params = nv(&[("pcmk_host_list", "alpha bravo delta")]);
    cib.resources.push(Resource::Primitive(device));
    cib.properties = nv(&[("stonith-enabled", "true")]);
    cib
}

fn boot(seed_number: u64, nodes: &[&str]) -> World {
    boot_with(seed_number, nodes, seed(nodes.len()))
}

fn boot_with(seed_number: u64, nodes: &[&str], cib: Cib) -> World {
    let mut world = World::new(seed_number, nodes, cib);
    for node in nodes {
        world.inject(&Fault::Boot((*node).to_owned()));
    }
    let until = world.now_ms() + 20_000;
    world.run(until);
    world
}

fn on(world: &World, resource: &str) -> Vec<String> {
    world.active(resource).into_iter().map(|(n, _)| n).collect()
}

fn pass(world: &mut World, ms: u64) {
    let until = world.now_ms() + ms;
    world.run(until);
}

fn clean(world: &World) {
    assert_eq!(world.violations(), &[], "at {}", world.now_ms());
}

const TWO: &[&str] = &["alpha", "delta"];
const THREE: &[&str] = &["alpha", "beta", "delta"];

#[test]
fn a_cold_start_brings_everything_up_on_the_preferred_node() {
    let world = boot(1, TWO);
    clean(&world);
    assert_eq!(on(&world, "nfs"), ["alpha"]);
    assert!(world.active("drbd_nfs").contains(&("alpha".to_owned(), Role::Promoted)));
    assert_eq!(on(&world, "drbd_nfs"), TWO);
    assert!(world.acknowledged() > 0);
}

#[test]
fn a_node_that_boots_alone_starts_nothing() {
    let mut world = World::new(2, TWO, seed(2));
    world.inject(&Fault::Boot("delta".to_owned()));
    pass(&mut world, 60_000);
    assert_eq!(on(&world, "drbd_nfs"), Vec::<String>::new());
    world.inject(&Fault::Boot("alpha".to_owned()));
    pass(&mut world, 20_000);
    assert_eq!(on(&world, "nfs"), ["alpha"]);
    clean(&world);
}

#[test]
fn standby_drains_and_online_moves_nothing() {
    let mut world = boot(3, TWO);
    world.inject(&Fault::Standby("alpha".to_owned()));
    pass(&mut world, 10_000);
    assert_eq!(on(&world, "nfs"), ["delta"]);
    assert_eq!(on(&world, "drbd_nfs"), ["delta"]);
    world.inject(&Fault::Online("alpha".to_owned()));
    pass(&mut world, 10_000);
    assert_eq!(on(&world, "nfs"), ["delta"]);
    assert_eq!(on(&world, "drbd_nfs"), TWO);
    clean(&world);
}

#[test]
fn the_survivor_of_two_takes_over_and_meets_the_returned_peer() {
    for victim in ["alpha", "delta"] {
        let mut world = boot(4, TWO);
        let survivor = if victim == "alpha" { "delta" } else { "alpha" };
        world.inject(&Fault::Kill(victim.to_owned()));
        pass(&mut world, 8_000);
        assert_eq!(on(&world, "nfs"), [survivor], "{victim} killed");
        let before = world.acknowledged();
        pass(&mut world, 2_000);
        assert!(world.acknowledged() > before, "writes go on");
        world.inject(&Fault::Boot(victim.to_owned()));
        pass(&mut world, 20_000);
        assert_eq!(on(&world, "nfs"), [survivor]);
        assert_eq!(on(&world, "drbd_nfs"), TWO);
        assert_eq!(world.held(victim), world.acknowledged());
        clean(&world);
    }
}

/// The active node dies, again and again. Whoever took over is left alone when the dead one comes back, whichever of its services is first.
fn returned_peer_disturbs_nobody(seed_number: u64) {
    let mut world = boot(seed_number, TWO);
    for round in 0..6 {
        let victim = on(&world, "nfs").pop().unwrap();
        world.inject(&Fault::Kill(victim.clone()));
        pass(&mut world, 4_000);
        let survivor = on(&world, "nfs").pop().unwrap();
        world.take_log(&survivor);
        world.inject(&Fault::Boot(victim));
        pass(&mut world, 10_000);
        let log = world.take_log(&survivor);
        assert_eq!(log, Vec::<String>::new(), "seed {seed_number} round {round}: {survivor}");
        assert_eq!(on(&world, "nfs"), [survivor]);
        clean(&world);
    }
}

#[test]
fn a_peer_that_returns_disturbs_nothing_that_runs() {
    (100..105).for_each(returned_peer_disturbs_nobody);
}

#[test]
fn a_killed_daemon_moves_nothing() {
    for victim in TWO {
        let mut world = boot(5, TWO);
        world.inject(&Fault::KillDaemon((*victim).to_owned()));
        pass(&mut world, 10_000);
        assert_eq!(on(&world, "nfs"), ["alpha"]);
        clean(&world);
        world.inject(&Fault::Standby("alpha".to_owned()));
        pass(&mut world, 10_000);
        assert_eq!(on(&world, "nfs"), ["delta"], "it can still be drained");
        clean(&world);
    }
}

#[test]
fn a_replica_left_behind_is_not_promoted() {
    let mut world = boot(6, TWO);
    // delta dies; alpha goes on without it and writes; then both are off; delta alone must not serve old data.
    world.inject(&Fault::Kill("delta".to_owned()));
    pass(&mut world, 10_000);
    world.inject(&Fault::Kill("alpha".to_owned()));
    pass(&mut world, 1_000);
    world.inject(&Fault::Boot("delta".to_owned()));
    pass(&mut world, 30_000);
    assert_eq!(on(&world, "nfs"), Vec::<String>::new());
    world.inject(&Fault::Boot("alpha".to_owned()));
    pass(&mut world, 30_000);
    assert_eq!(on(&world, "nfs").len(), 1);
    clean(&world);
}

#[test]
fn the_majority_goes_on_and_the_minority_stops() {
    let mut world = boot(7, THREE);
    assert_eq!(on(&world, "nfs"), ["alpha"]);
    world.inject(&Fault::Isolate("alpha".to_owned()));
    pass(&mut world, 10_000);
    assert_eq!(on(&world, "nfs").len(), 1);
    assert_ne!(on(&world, "nfs"), ["alpha"]);
    world.inject(&Fault::Heal);
    pass(&mut world, 20_000);
    assert_eq!(on(&world, "nfs").len(), 1);
    assert_eq!(on(&world, "drbd_nfs").len(), 3);
    clean(&world);
}

/// Random faults; nothing forbidden happens, and once all is well again the service runs once, with every write.
fn storm(seed_number: u64, nodes: &[&str]) {
    drop(storm_over(seed_number, nodes, boot(seed_number, nodes)));
}

/// The same with a machine that moves live; nodes are drained more often.
fn moving_storm(seed_number: u64, nodes: &[&str]) {
    let mut world = boot_with(seed_number, nodes, with_vm(nodes.len()));
    for _ in 0..4 {
        let host = on(&world, "vm").first().cloned().unwrap_or_else(|| nodes[0].to_owned());
        world.inject(&Fault::Standby(host.clone()));
        let moment = world.draw(400);
        pass(&mut world, moment);
        let other = nodes[usize::try_from(world.draw(nodes.len() as u64)).unwrap()].to_owned();
        let fault = match world.draw(4) {
            0 => Fault::Kill(other.clone()),
            1 => Fault::KillDaemon(host.clone()),
            2 => Fault::KillDaemon(other.clone()),
            _ => Fault::Online(host.clone()),
        };
        world.inject(&fault);
        pass(&mut world, 8_000);
        world.inject(&Fault::Boot(other));
        world.inject(&Fault::Online(host));
        pass(&mut world, 12_000);
    }
    let world = storm_over(seed_number, nodes, world);
    assert_eq!(on(&world, "vm").len(), 1, "seed {seed_number}: {}", world.describe());
}

fn storm_over(seed_number: u64, nodes: &[&str], mut world: World) -> World {
    for _ in 0..6 {
        let node = nodes[usize::try_from(world.draw(nodes.len() as u64)).unwrap()].to_owned();
        let fault = match world.draw(if nodes.len() > 2 { 6 } else { 5 }) {
            0 | 1 => Fault::Kill(node.clone()),
            2 => Fault::KillDaemon(node.clone()),
            3 => Fault::Standby(node.clone()),
            4 => Fault::Online(node.clone()),
            _ => Fault::Isolate(node.clone()),
        };
        world.inject(&fault);
        let pause = 20 + world.draw(9_000);
        pass(&mut world, pause);
        if world.draw(3) > 0 {
            world.inject(&Fault::Heal);
            world.inject(&Fault::Boot(node));
        }
        let pause = 20 + world.draw(9_000);
        pass(&mut world, pause);
    }
    world.inject(&Fault::Heal);
    for node in nodes {
        world.inject(&Fault::Boot((*node).to_owned()));
    }
    pass(&mut world, 30_000);
    for node in nodes {
        world.inject(&Fault::Online((*node).to_owned()));
    }
    pass(&mut world, 60_000);
    assert_eq!(world.violations(), &[], "seed {seed_number}: {}", world.describe());
    assert_eq!(on(&world, "nfs").len(), 1, "seed {seed_number}: {}", world.describe());
    for node in nodes {
        assert_eq!(
            world.held(node),
            world.acknowledged(),
            "seed {seed_number}: {node}: {}",
            world.describe()
        );
    }
    world
}

#[test]
fn a_drained_node_hands_over_live_what_can_be() {
    let mut world = boot_with(9, THREE, with_vm(3));
    let host = on(&world, "vm").remove(0);
    world.take_log(&host);
    world.inject(&Fault::Standby(host.clone()));
    pass(&mut world, 10_000);
    let log = world.take_log(&host);
    let vm: Vec<&String> = log.iter().filter(|l| l.ends_with(" vm")).collect();
    assert_eq!(vm, ["migrate_to vm", "stop vm"]);
    assert_eq!(on(&world, "vm").len(), 1);
    assert!(!on(&world, "vm").contains(&host));
    clean(&world);
}

#[test]
fn a_source_whose_daemon_dies_under_way_makes_nobody_start_it_twice() {
    // At every moment of the move.
    for moment in (0..200).step_by(4) {
        let mut world = boot_with(moment + 1, THREE, with_vm(3));
        let host = on(&world, "vm").remove(0);
        world.inject(&Fault::Standby(host.clone()));
        pass(&mut world, moment);
        world.inject(&Fault::KillDaemon(host.clone()));
        pass(&mut world, 20_000);
        assert_eq!(on(&world, "vm").len(), 1, "at {moment}: {}", world.describe());
        assert!(!on(&world, "vm").contains(&host), "at {moment}: {}", world.describe());
        clean(&world);
    }
}

#[test]
fn live_migrations_survive_random_faults() {
    (3000..3003).for_each(|n| moving_storm(n, TWO));
    (4000..4003).for_each(|n| moving_storm(n, THREE));
}

#[test]
fn two_nodes_survive_random_faults() {
    (1000..1010).for_each(|n| storm(n, TWO));
}

#[test]
fn three_nodes_survive_random_faults() {
    (2000..2006).for_each(|n| storm(n, THREE));
}

#[test]
#[ignore = "minutes: the nightly suite runs it"]
fn wide_storms() {
    (10_000..10_150).for_each(|n| storm(n, TWO));
    (20_000..20_060).for_each(|n| storm(n, THREE));
    (30_000..30_040).for_each(returned_peer_disturbs_nobody);
    (40_000..40_060).for_each(|n| moving_storm(n, TWO));
    (50_000..50_060).for_each(|n| moving_storm(n, THREE));
}

#[test]
fn the_survivor_of_two_takes_over_when_the_other_is_confirmed_off() {
    for number in 0..40 {
        let mut world = boot_with(number, &["alpha", "delta"], with_fencing(2));
        assert_eq!(on(&world, "fs_nfs"), ["alpha"], "{}", world.describe());
        world.inject(&Fault::Kill("alpha".to_owned()));
        pass(&mut world, 8_000);
        assert_eq!(world.fencings().first().map(String::as_str), Some("alpha"), "{number}");
        assert_eq!(on(&world, "fs_nfs"), ["delta"], "{number}\n{}", world.describe());
        // It was rebooted, joins and takes nothing back.
        pass(&mut world, 20_000);
        assert_eq!(on(&world, "fs_nfs"), ["delta"], "{number}\n{}", world.describe());
        assert_eq!(world.fencings(), ["alpha"], "{number}");
        assert_eq!(world.violations(), [], "{number}");
    }
}

#[test]
fn nothing_is_taken_over_from_what_cannot_be_fenced_until_a_person_says_that_it_is_off() {
    let mut world = boot_with(3, &["alpha", "delta"], with_fencing(2));
    world.inject(&Fault::Device { works: false });
    world.inject(&Fault::Kill("alpha".to_owned()));
    pass(&mut world, 60_000);
    assert_eq!(on(&world, "fs_nfs"), Vec::<String>::new(), "{}", world.describe());
    assert!(world.describe().contains("crm node fence alpha --confirm"), "{}", world.describe());
    world.inject(&Fault::Confirm("delta".to_owned(), "alpha".to_owned()));
    pass(&mut world, 5_000);
    assert_eq!(on(&world, "fs_nfs"), ["delta"], "{}", world.describe());
    assert_eq!(world.violations(), []);
}

#[test]
fn of_two_that_lose_each_other_one_survives_and_has_the_service() {
    for number in 0..60 {
        let mut world = boot_with(number, &["alpha", "delta"], with_fencing(2));
        world.inject(&Fault::Isolate("alpha".to_owned()));
        pass(&mut world, 6_000);
        world.inject(&Fault::Heal);
        pass(&mut world, 30_000);
        assert_eq!(on(&world, "fs_nfs").len(), 1, "{number}\n{}", world.describe());
        assert!(!world.fencings().is_empty(), "{number}");
        assert_eq!(world.violations(), [], "{number}");
    }
}

#[test]
fn of_three_the_majority_fences_the_one_that_is_cut_off() {
    for number in 0..30 {
        let mut world = boot_with(number, &["alpha", "bravo", "delta"], with_fencing(3));
        assert_eq!(on(&world, "fs_nfs"), ["alpha"], "{}", world.describe());
        world.inject(&Fault::Isolate("alpha".to_owned()));
        pass(&mut world, 8_000);
        assert_eq!(world.fencings(), ["alpha"], "{number}\n{}", world.describe());
        assert_eq!(on(&world, "fs_nfs").len(), 1, "{number}\n{}", world.describe());
        world.inject(&Fault::Heal);
        pass(&mut world, 20_000);
        assert_eq!(world.fencings(), ["alpha"], "{number}\n{}", world.describe());
        assert_eq!(world.violations(), [], "{number}");
    }
}
