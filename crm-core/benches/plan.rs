//! How long a plan takes: seed 002 (budget 200 µs), and 16 nodes with 1000 primitives, steady and cold, by our own decisions and by Pacemaker's.

use criterion::{Criterion, criterion_group, criterion_main};
use crm_core::cib::{
    AgentName, Cib, CloneResource, Colocation, Constraint, Group, Location, LocationTarget, Node,
    Nv, NvSet, Op, Order, OrderAction, OrderKind, Primitive, Resource, Role, Score,
};
use crm_core::plan::{Input, NodeView, digest, plan};
use crm_core::status::{NodeStatus, ResourceHistory, Status};
use std::collections::BTreeMap;
use std::hint::black_box;

fn nv(pairs: &[(&str, &str)]) -> NvSet {
    let pairs = pairs.iter().map(|(n, v)| Nv { name: (*n).into(), value: Some((*v).into()) });
    NvSet { id: None, pairs: pairs.collect() }
}

fn primitive(id: &str) -> Primitive {
    Primitive {
        id: id.into(),
        agent: AgentName {
            class: "ocf".into(),
            provider: Some("crm".into()),
            kind: "Dummy".into(),
        },
        description: None,
        params: nv(&[("device", "/dev/drbd0"), ("directory", "/srv"), ("fstype", "ext4")]),
        meta: NvSet::default(),
        utilization: NvSet::default(),
        ops: vec![Op { name: "monitor".into(), attrs: nv(&[("interval", "10s")]) }],
        layout: Vec::new(),
    }
}

fn nodes(names: &[String]) -> (Vec<Node>, BTreeMap<String, NodeView>) {
    let node = |(i, name): (u64, &String)| Node {
        id: i,
        name: name.clone(),
        attributes: NvSet::default(),
        utilization: NvSet::default(),
    };
    let view = NodeView::ONLINE;
    ((1..).zip(names).map(node).collect(), names.iter().map(|n| (n.clone(), view)).collect())
}

fn seed() -> Cib {
    let (params, meta) = (NvSet::default(), NvSet::default());
    let members = ["fs_nfs", "nfs", "vip"].map(primitive).to_vec();
    let start = Some(OrderAction::Start);
    let location = Location {
        id: "loc".into(),
        target: LocationTarget::Resource("ms_drbd_nfs".into()),
        score: Score::new(100),
        node: "alpha".into(),
        role: None,
        discovery: None,
    };
    let order = Order {
        id: "o".into(),
        kind: OrderKind::Mandatory,
        first: "ms_drbd_nfs".into(),
        first_action: Some(OrderAction::Promote),
        then: "fs_nfs".into(),
        then_action: start,
        symmetrical: None,
        sets: Vec::new(),
    };
    let colocation = Colocation {
        id: "c".into(),
        score: Score::INF,
        rsc: "ms_drbd_nfs".into(),
        rsc_role: Some(Role::Promoted),
        with: "HA".into(),
        with_role: None,
        node_attribute: None,
        influence: None,
        sets: Vec::new(),
    };
    Cib {
        resources: vec![
            Resource::Group(Group { id: "HA".into(), description: None, members, params, meta }),
            Resource::Clone(CloneResource {
                id: "ms_drbd_nfs".into(),
                description: None,
                child: Box::new(Resource::Primitive(primitive("drbd_nfs"))),
                ms: true,
                params: NvSet::default(),
                meta: nv(&[("master-max", "1"), ("clone-max", "2"), ("notify", "true")]),
            }),
        ],
        constraints: vec![
            Constraint::Location(location),
            Constraint::Order(order),
            Constraint::Colocation(colocation),
        ],
        properties: nv(&[("stonith-enabled", "false"), ("no-quorum-policy", "ignore")]),
        ..Cib::default()
    }
}

fn history(cib: &Cib, id: &str, role: Role) -> ResourceHistory {
    let params = cib.primitive(id).map(|p| &p.params.pairs).into_iter().flatten();
    let params = params.map(|p| (p.name.clone(), p.value.clone().unwrap_or_default())).collect();
    let active = role != Role::Stopped && role != Role::Promoted;
    let monitors = active.then_some((10_000, None)).into_iter().collect();
    ResourceHistory { role: Some(role), monitors, digest: digest(&params), ..Default::default() }
}

fn input<'a>(cib: &'a Cib, status: &'a Status, nodes: &'a BTreeMap<String, NodeView>) -> Input<'a> {
    Input { cib, status, nodes, quorate: true, only: None, now_ms: 0, pacemaker: None }
}

fn seed_002(c: &mut Criterion) {
    let names = ["alpha".to_owned(), "delta".to_owned()];
    let (configured, views) = nodes(&names);
    let mut cib = Cib { nodes: configured, ..seed() };
    let mut status = Status::default();
    for (name, promoted) in [("alpha", true), ("delta", false)] {
        let mut node = NodeStatus::default();
        let role = if promoted { Role::Started } else { Role::Stopped };
        for id in ["fs_nfs", "nfs", "vip"] {
            node.resources.insert(id.into(), history(&cib, id, role));
        }
        let replica = if promoted { Role::Promoted } else { Role::Unpromoted };
        node.resources.insert("drbd_nfs".into(), history(&cib, "drbd_nfs", replica));
        node.attrs.insert("master-drbd_nfs".into(), "10000".into());
        status.nodes.insert(name.into(), node);
    }
    assert!(plan(&input(&cib, &status, &views)).is_empty(), "the steady state is steady");
    let mut group = c.benchmark_group("seed002");
    group.bench_function("steady", |b| b.iter(|| plan(black_box(&input(&cib, &status, &views)))));
    if let Some(node) = cib.node_mut("alpha") {
        node.attributes.set("standby", "on");
    }
    group.bench_function("drain", |b| b.iter(|| plan(black_box(&input(&cib, &status, &views)))));
    group.finish();
}

fn large(c: &mut Criterion) {
    let names: Vec<String> = (0..16).map(|i| format!("n{i}")).collect();
    let (configured, views) = nodes(&names);
    let ids: Vec<String> = (0..1000).map(|i| format!("r{i}")).collect();
    let cib = Cib {
        nodes: configured,
        resources: ids.iter().map(|id| Resource::Primitive(primitive(id))).collect(),
        properties: nv(&[("stonith-enabled", "false")]),
        rsc_defaults: nv(&[("resource-stickiness", "1")]),
        ..Cib::default()
    };
    let mut status = Status::default();
    for (n, name) in names.iter().enumerate() {
        let mut node = NodeStatus::default();
        for (i, id) in ids.iter().enumerate() {
            let role = if i % names.len() == n { Role::Started } else { Role::Stopped };
            node.resources.insert(id.clone(), history(&cib, id, role));
        }
        status.nodes.insert(name.clone(), node);
    }
    assert!(plan(&input(&cib, &status, &views)).is_empty(), "the steady state is steady");
    let mut group = c.benchmark_group("16x1000");
    group.sample_size(10);
    group.bench_function("steady", |b| b.iter(|| plan(black_box(&input(&cib, &status, &views)))));
    let empty = Status::default();
    group.bench_function("cold", |b| b.iter(|| plan(black_box(&input(&cib, &empty, &views)))));
    group.finish();
}

/// The same as Pacemaker records it, for its decisions: histories are replayed, digests compared.
fn recorded(nodes: usize, resources: usize, cold: bool) -> String {
    let mut out = String::from(
        "<cib><configuration><crm_config><cluster_property_set id=\"o\"><nvpair id=\"f\" name=\"stonith-enabled\" value=\"false\"/>\
         </cluster_property_set></crm_config><nodes>",
    );
    for n in 0..nodes {
        out.push_str(&format!("<node id=\"{n}\" uname=\"n{n}\"/>"));
    }
    out.push_str("</nodes><resources>");
    for r in 0..resources {
        out.push_str(&format!(
            "<primitive id=\"r{r}\" class=\"ocf\" provider=\"pacemaker\" type=\"Dummy\"/>"
        ));
    }
    out.push_str("</resources><constraints/></configuration><status>");
    for n in 0..nodes {
        out.push_str(&format!(
            "<node_state id=\"{n}\" in_ccm=\"true\" crmd=\"online\" join=\"member\" expected=\"member\"><lrm><lrm_resources>"
        ));
        for r in (0..resources).filter(|_| !cold) {
            let (op, rc) = if r % nodes == n { ("start", 0) } else { ("monitor", 7) };
            out.push_str(&format!(
                "<lrm_resource id=\"r{r}\" class=\"ocf\" provider=\"pacemaker\" type=\"Dummy\"><lrm_rsc_op id=\"r{r}_last_0\" operation=\"{op}\" transition-key=\"1:0:{rc}:x\" \
                 call-id=\"{r}\" rc-code=\"{rc}\" op-status=\"0\" interval=\"0\" op-digest=\"f2317cad3d54cec5d7d7aa7d0bf35cf8\"/></lrm_resource>"
            ));
        }
        out.push_str("</lrm_resources></lrm></node_state>");
    }
    out.push_str("</status></cib>");
    out
}

fn exact(c: &mut Criterion) {
    let mut group = c.benchmark_group("16x1000");
    group.sample_size(10);
    for (name, cold) in [("steady_exact", false), ("cold_exact", true)] {
        let document = crm_core::xml::read(&recorded(16, 1000, cold), 0).expect("a good CIB");
        let input = crm_core::simulate::input(&document);
        assert_eq!(plan(&input).summary.is_empty(), !cold, "the steady state is steady");
        group.bench_function(name, |b| b.iter(|| plan(black_box(&input))));
    }
    group.finish();
}

criterion_group!(benches, seed_002, large, exact);
criterion_main!(benches);
