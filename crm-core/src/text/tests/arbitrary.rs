//! CIBs of all shapes, for properties.

use crate::cib::{
    AgentName, Bundle, Cib, CloneResource, Colocation, Constraint, Container, Engine, FencingRule,
    FencingTarget, Group, Location, LocationTarget, Network, Node, Nv, NvSet, Op, Order,
    OrderAction, OrderKind, PortMapping, Primitive, Replica, Resource, ResourceSet, Role, Score,
    Section, SetMember, StorageMapping, Volume,
};
use crate::text::known::OP_ATTRIBUTES;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// Values with everything in them that has ever broken a reader.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-zA-Z0-9._-]{1,8}",
        2 => "[ -~]{0,12}",
        1 => "[ -~é\u{2603}\n\t\r\\\\\"'$#=:{}]{0,8}",
        1 => prop_oneof![
            Just("null"), Just("~"), Just("true"), Just("False"), Just("on"), Just("0600"),
            Just("1e3"), Just("0x1F"), Just("-"), Just("007"), Just("1_000"), Just("12:30"),
            Just("\\"), Just(""), Just("+1"), Just(".inf"), Just("2001-01-01"), Just("- a"),
            Just("a: b"), Just("&x"), Just("*x"), Just("!x"), Just("%x"), Just("<<"), Just("\u{1b}"),
        ].prop_map(str::to_owned),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z_][a-zA-Z0-9_-]{0,6}"
}

fn set_of(
    names: impl Strategy<Value = String>,
    bare: bool,
    sizes: std::ops::Range<usize>,
) -> impl Strategy<Value = NvSet> {
    let value =
        if bare { option::weighted(0.9, value()).boxed() } else { value().prop_map(Some).boxed() };
    btree_map(names, value, sizes).prop_map(|map| NvSet {
        id: None,
        pairs: map.into_iter().map(|(name, value)| Nv { name, value }).collect(),
    })
}

/// Names that are no keywords in front of pairs.
fn attributes() -> impl Strategy<Value = NvSet> {
    set_of(name().prop_map(|n| format!("x{n}")), true, 0..4)
}

fn op() -> impl Strategy<Value = Op> {
    let own =
        set_of(proptest::sample::select(&OP_ATTRIBUTES[1..]).prop_map(str::to_owned), false, 0..3);
    ("(monitor|start|stop|promote)", "[0-9]{1,3}(s|ms|min)?", own, attributes()).prop_map(
        |(name, interval, own, more)| {
            let mut attrs = NvSet::default();
            attrs.set("interval", &interval);
            attrs.pairs.extend(own.pairs);
            attrs.pairs.extend(more.pairs);
            Op { name, attrs }
        },
    )
}

fn agent() -> impl Strategy<Value = AgentName> {
    let name = |class: &str, provider: Option<&str>, kind: &str| AgentName {
        class: class.to_owned(),
        provider: provider.map(str::to_owned),
        kind: kind.to_owned(),
    };
    proptest::sample::select(vec![
        name("ocf", Some("heartbeat"), "Dummy"),
        name("ocf", Some("linbit"), "drbd"),
        name("ocf", Some("crm"), "volume"),
        name("systemd", None, "nginx"),
        name("stonith", None, "fence_dummy"),
    ])
}

fn primitive() -> impl Strategy<Value = Primitive> {
    (
        agent(),
        option::weighted(0.2, value()),
        attributes(),
        attributes(),
        attributes(),
        vec(op(), 0..3),
        Just(Section::USUAL.to_vec()).prop_shuffle(),
    )
        .prop_map(|(agent, description, params, meta, utilization, ops, order)| {
            let mut out = Primitive {
                id: String::new(),
                agent,
                description,
                params,
                meta,
                utilization,
                ops,
                layout: Vec::new(),
            };
            let used: Vec<Section> = order
                .into_iter()
                .filter(|section| match section {
                    Section::Params => !out.params.is_empty(),
                    Section::Meta => !out.meta.is_empty(),
                    Section::Utilization => !out.utilization.is_empty(),
                    Section::Operations => !out.ops.is_empty(),
                })
                .collect();
            out.set_layout(&used);
            out
        })
}

fn group() -> impl Strategy<Value = Resource> {
    (vec(primitive(), 1..4), attributes(), attributes(), option::weighted(0.2, value())).prop_map(
        |(members, params, meta, description)| {
            Resource::Group(Group { id: String::new(), description, members, params, meta })
        },
    )
}

fn bundle() -> impl Strategy<Value = Resource> {
    let inside = (option::of(primitive()), vec(attributes(), 0..3), vec(attributes(), 0..3));
    let own =
        (proptest::sample::select(&Engine::ALL[..]), attributes(), attributes(), attributes());
    (own, inside).prop_map(|((engine, mut attrs, mut network, meta), (child, ports, storage))| {
        attrs.set("image", "i");
        network.set("control-port", "1");
        let id = |(n, attrs): (usize, NvSet)| (format!("m{n}"), attrs);
        let ports = ports.into_iter().enumerate().map(id);
        let storage = storage.into_iter().enumerate().map(id);
        Resource::Bundle(Box::new(Bundle {
            id: String::new(),
            description: None,
            container: Container { engine, attrs },
            network: Some(Network {
                attrs: network,
                ports: ports.map(|(id, attrs)| PortMapping { id, attrs }).collect(),
            }),
            storage: storage.map(|(id, attrs)| StorageMapping { id, attrs }).collect(),
            child,
            meta,
        }))
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let clone = (
        prop_oneof![primitive().prop_map(Resource::Primitive), group()],
        any::<bool>(),
        attributes(),
        attributes(),
    )
        .prop_map(|(child, ms, params, meta)| {
            let child = Box::new(child);
            let clone =
                CloneResource { id: String::new(), description: None, child, ms, params, meta };
            Resource::Clone(clone)
        });
    prop_oneof![4 => primitive().prop_map(Resource::Primitive), 3 => group(), 3 => clone, 1 => bundle()]
}

/// Gives everything an id of its own: letters that do not follow the document's order.
fn label(resource: &mut Resource, next: &mut u32) {
    let id = format!("r{}.{next}-x", (*next * 7) % 5);
    *next += 1;
    match resource {
        Resource::Primitive(p) => p.id = id,
        Resource::Bundle(b) => {
            b.id = id;
            if let Some(child) = &mut b.child {
                child.id = format!("p{next}");
                *next += 1;
            }
        }
        Resource::Group(g) => {
            g.id = id;
            for member in &mut g.members {
                member.id = format!("p{next}");
                *next += 1;
            }
        }
        Resource::Clone(c) => {
            c.id = id;
            label(&mut c.child, next);
        }
    }
}

fn role() -> impl Strategy<Value = Option<Role>> {
    option::of(proptest::sample::select(vec![
        Role::Started,
        Role::Stopped,
        Role::Promoted,
        Role::Unpromoted,
    ]))
}

fn action() -> impl Strategy<Value = Option<OrderAction>> {
    option::of(proptest::sample::select(vec![
        OrderAction::Start,
        OrderAction::Stop,
        OrderAction::Promote,
        OrderAction::Demote,
    ]))
}

fn score() -> impl Strategy<Value = Score> {
    (-1_200_000_i64..1_200_000).prop_map(Score::new)
}

fn sets(roles: bool) -> impl Strategy<Value = Vec<ResourceSet>> {
    let one = (vec("[a-c]", 1..4), any::<bool>(), any::<bool>(), role(), action()).prop_map(
        move |(members, sequential, require_all, role, action)| ResourceSet {
            id: None,
            members: members.into_iter().map(|resource| SetMember { resource }).collect(),
            sequential,
            require_all,
            role: role.filter(|_| roles),
            action: action.filter(|_| !roles),
        },
    );
    vec(one, 1..4)
}

fn constraint() -> impl Strategy<Value = Constraint> {
    let target = prop_oneof![
        "[a-c]".prop_map(LocationTarget::Resource),
        "[a-c .*\"]{1,5}".prop_map(LocationTarget::Pattern)
    ];
    let discovery = option::of(proptest::sample::select(vec!["always", "never", "exclusive"]));
    let location = (target, score(), "[n-p]", role(), discovery).prop_map(
        |(target, score, node, role, discovery)| {
            let (id, discovery) = (String::new(), discovery.map(str::to_owned));
            Constraint::Location(Location { id, target, score, node, role, discovery })
        },
    );
    let colocation =
        (score(), role(), role(), option::weighted(0.2, name()), option::of(sets(true))).prop_map(
            |(score, rsc_role, with_role, node_attribute, sets)| {
                let pair = sets.is_none();
                Constraint::Colocation(Colocation {
                    id: String::new(),
                    score,
                    rsc: if pair { "a".to_owned() } else { String::new() },
                    rsc_role: rsc_role.filter(|_| pair),
                    with: if pair { "b".to_owned() } else { String::new() },
                    with_role: with_role.filter(|_| pair),
                    node_attribute,
                    influence: None,
                    sets: sets.unwrap_or_default(),
                })
            },
        );
    let kind = proptest::sample::select(vec![
        OrderKind::Mandatory,
        OrderKind::Optional,
        OrderKind::Serialize,
    ]);
    let order = (kind, action(), action(), option::of(any::<bool>()), option::of(sets(false)))
        .prop_map(|(kind, first_action, then_action, symmetrical, sets)| {
            let pair = sets.is_none();
            Constraint::Order(Order {
                id: String::new(),
                kind,
                first: if pair { "a".to_owned() } else { String::new() },
                first_action: first_action.filter(|_| pair),
                then: if pair { "b".to_owned() } else { String::new() },
                then_action: then_action.filter(|_| pair),
                symmetrical,
                sets: sets.unwrap_or_default(),
            })
        });
    prop_oneof![location, colocation, order]
}

fn volume() -> impl Strategy<Value = Volume> {
    (1_u64..1 << 30, any::<u64>(), any::<bool>(), vec("/[ -~]{0,8}", 1..3)).prop_map(
        |(blocks, day0, assume_clean, disks)| Volume {
            name: String::new(),
            size_bytes: blocks * 4096,
            device: String::new(),
            replicas: disks
                .into_iter()
                .enumerate()
                .map(|(i, disk)| Replica { node: format!("n{i}"), disk })
                .collect(),
            port: 0,
            day0,
            assume_clean,
        },
    )
}

fn options(default: bool) -> impl Strategy<Value = NvSet> {
    let id = option::weighted(0.3, Just("own-set".to_owned()));
    (set_of(name(), false, 0..4), id).prop_map(move |(mut set, id)| {
        set.id = id.filter(|_| default || !set.is_empty());
        set
    })
}

/// Levels: those of every node come first, as the text has them.
fn fencing() -> impl Strategy<Value = Vec<FencingRule>> {
    let target = prop_oneof![
        Just(FencingTarget::Every),
        name().prop_map(FencingTarget::Node),
        "[a-z.*\"\\\\ :]{1,6}".prop_map(FencingTarget::Pattern),
        (name(), "[a-z0-9 =:\"]{0,4}")
            .prop_map(|(name, value)| FencingTarget::Attribute { name, value }),
    ];
    let levels = vec(vec(name(), 1..3), 1..4);
    let rule = (target, levels).prop_map(|(target, levels)| FencingRule { target, levels });
    vec(rule, 0..4).prop_map(|mut rules| {
        rules.sort_by(|a, b| a.target.cmp(&b.target));
        rules.dedup_by(|a, b| a.target == b.target);
        rules
    })
}

/// A CIB.
pub(crate) fn cib() -> impl Strategy<Value = Cib> {
    let parts = (
        vec((0_u64..4, attributes(), attributes()), 0..4),
        vec(resource(), 0..4),
        vec(constraint(), 0..4),
        options(true),
        options(true),
        options(true),
        (vec(volume(), 0..3), fencing()),
    );
    parts.prop_map(
        |(nodes, mut resources, mut constraints, properties, rsc, op, (mut volumes, fencing))| {
            let mut next = 0;
            resources.iter_mut().for_each(|r| label(r, &mut next));
            for (index, constraint) in constraints.iter_mut().enumerate() {
                let id = format!("c{}-{index}", (index * 3) % 4);
                match constraint {
                    Constraint::Location(c) => c.id = id,
                    Constraint::Colocation(c) => c.id = id,
                    Constraint::Order(c) => c.id = id,
                }
            }
            for (index, volume) in volumes.iter_mut().enumerate() {
                volume.name = format!("v{index}");
                volume.device = format!("/dev/v {index}");
                volume.port = 8000 + u16::try_from(index).unwrap();
            }
            let nodes =
                nodes.into_iter().enumerate().map(|(index, (id, attributes, utilization))| Node {
                    id,
                    name: format!("n{index}"),
                    attributes,
                    utilization,
                });
            Cib {
                nodes: nodes.collect(),
                resources,
                constraints,
                properties,
                rsc_defaults: rsc,
                op_defaults: op,
                volumes,
                rsc_tickets: Vec::new(),
                fencing,
            }
        },
    )
}

/// The same CIB with its objects in the order of their ids: the order that the configure text keeps.
pub(crate) fn sorted(mut cib: Cib) -> Cib {
    cib.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    cib.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    cib.resources.sort_by(|a, b| a.id().cmp(b.id()));
    cib.constraints.sort_by(|a, b| a.id().cmp(b.id()));
    cib
}
