//! What a bundle consists of: the resources that nobody configured, with Pacemaker's names and parameters (its digests depend on them).

use super::implicit::set;
use crate::cib::{
    AgentName, Bundle, CloneResource, Engine, NvSet, Op, Primitive, Resource, StorageMapping,
};
use std::net::Ipv4Addr;

/// Port of the connection into a container where none is configured.
const CONTROL_PORT: &str = "3121";
/// What runs in a container that brings no command of its own.
const SERVER: &str = "/usr/sbin/pacemaker-remoted";
/// The key that both ends of a connection know, and where logs go.
const KEY: &str = "/etc/pacemaker/authkey";
const LOGS: (&str, &str) = ("/var/log/pacemaker/bundles", "/var/log");

/// One container with what belongs to it.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) container: Primitive,
    /// Its address and the resource that brings it up.
    pub(super) ip: Option<(String, Primitive)>,
    /// The connection to the node inside; its id is the node's name.
    pub(super) connection: Option<Primitive>,
}

/// A bundle taken apart.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) replicas: Vec<Replica>,
    /// What runs inside, one instance for each container.
    pub(super) child: Option<CloneResource>,
}

impl Parts {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let inside = bundle.child.as_ref().filter(|_| bundle.reachable());
        let addresses = addresses(bundle);
        let numbers = 0..bundle.replicas();
        let replicas = numbers.map(|n| {
            let address = usize::try_from(n).ok().and_then(|n| addresses.get(n));
            let container = container(bundle, n, &addresses);
            Replica {
                ip: address.map(|a| (a.clone(), address_resource(bundle, a))),
                connection: inside
                    .map(|_| connection(bundle, n, &container.id, address.map(String::as_str))),
                container,
            }
        });
        Self { replicas: replicas.collect(), child: inside.map(|p| child(bundle, p)) }
    }
}

fn agent(provider: &str, kind: &str) -> AgentName {
    AgentName {
        class: "ocf".to_owned(),
        provider: Some(provider.to_owned()),
        kind: kind.to_owned(),
    }
}

fn primitive(
    id: String,
    agent: AgentName,
    params: NvSet,
    monitor: &[(&str, Option<&str>)],
) -> Primitive {
    Primitive {
        id,
        agent,
        description: None,
        params,
        meta: NvSet::default(),
        utilization: NvSet::default(),
        ops: vec![Op { name: "monitor".to_owned(), attrs: set(monitor) }],
        layout: Vec::new(),
    }
}

/// The clone of what runs inside.
fn child(bundle: &Bundle, inner: &Primitive) -> CloneResource {
    let promoted = bundle.promoted_max();
    // Pacemaker's word for a clone with roles was once another; the id keeps it.
    let suffix = if promoted > 0 { "master" } else { "clone" };
    let max = bundle.replicas().to_string();
    let each = bundle.replicas_per_host().to_string();
    let unique = (bundle.replicas_per_host() > 1).to_string();
    let promoted_max = promoted.to_string();
    let some = |text: &'static str| (promoted > 0).then_some(text);
    let meta = set(&[
        ("ordered", Some("true")),
        ("clone-max", Some(&max)),
        ("clone-node-max", Some(&each)),
        ("globally-unique", Some(&unique)),
        ("promotable", some("true")),
        ("promoted-max", (promoted > 0).then_some(promoted_max.as_str())),
    ]);
    CloneResource {
        id: format!("{}-{suffix}", bundle.id),
        description: None,
        child: Box::new(Resource::Primitive(Primitive {
            // It has no use for it: its node is given.
            utilization: NvSet::default(),
            ..inner.clone()
        })),
        ms: bundle.promotable(),
        params: NvSet::default(),
        meta,
    }
}

/// The address of each replica.
fn addresses(bundle: &Bundle) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut next = bundle.network_attr("ip-range-start").map(str::to_owned);
    for _ in 0..bundle.replicas() {
        let Some(address) = next else { break };
        next = following(&address);
        out.push(address);
    }
    out
}

/// The next address; the last octet goes from 1 to 254. Only IPv4 can be counted.
fn following(address: &str) -> Option<String> {
    let [a, b, c, d] = address.parse::<Ipv4Addr>().ok()?.octets();
    let (c, d) = if d > 253 { (c.checked_add(1)?, 1) } else { (c, d + 1) };
    (c < u8::MAX).then(|| Ipv4Addr::new(a, b, c, d).to_string())
}

fn address_resource(bundle: &Bundle, address: &str) -> Primitive {
    let id = format!("{}-ip-{}", bundle.id, address.replace(':', "."));
    let params = set(&[
        ("ip", Some(address)),
        ("nic", bundle.network_attr("host-interface")),
        ("cidr_netmask", Some(bundle.network_attr("host-netmask").unwrap_or("32"))),
    ]);
    primitive(id, agent("heartbeat", "IPaddr2"), params, &[("interval", Some("60s"))])
}

fn connection(bundle: &Bundle, number: u32, container: &str, address: Option<&str>) -> Primitive {
    let params = set(&[
        ("addr", Some(address.unwrap_or("#uname"))),
        ("port", Some(bundle.network_attr("control-port").unwrap_or(CONTROL_PORT))),
    ]);
    let monitor = [("interval", Some("30s")), ("timeout", Some("30s"))];
    let mut out =
        primitive(bundle.node_name(number), agent("pacemaker", "remote"), params, &monitor);
    out.meta = set(&[("internal_rsc", Some("true")), ("container", Some(container))]);
    out
}

fn container(bundle: &Bundle, number: u32, addresses: &[String]) -> Primitive {
    let attrs = &bundle.container.attrs;
    let engine = bundle.container.engine;
    let inside = bundle.child.is_some() && bundle.reachable();
    let (options, mounts) = run_options(bundle, number, addresses);
    let command = attrs.get("run-command").or_else(|| inside.then_some(SERVER));
    let params = set(&[
        ("image", attrs.get("image")),
        ("allow_pull", Some("true")),
        ("force_kill", Some("false")),
        ("reuse", Some("false")),
        ("run_opts", Some(&options)),
        ("mount_points", Some(&mounts)),
        ("run_cmd", command),
        ("monitor_cmd", Some("/bin/true")),
    ]);
    let id = format!("{}-{}-{number}", bundle.id, engine.name());
    primitive(id, agent("heartbeat", engine.name()), params, &[("interval", Some("60s"))])
}

/// Options of the container's command, and the directories that have to exist for it.
fn run_options(bundle: &Bundle, number: u32, addresses: &[String]) -> (String, String) {
    let engine = bundle.container.engine;
    let rkt = engine == Engine::Rkt;
    let attrs = &bundle.container.attrs;
    let inside = bundle.child.is_some() && bundle.reachable();
    let port = bundle.network_attr("control-port");
    let name = bundle.node_name(number);
    let address = usize::try_from(number).ok().and_then(|n| addresses.get(n));
    let mut out = String::new();
    if engine == Engine::Docker {
        out.push_str(" --restart=no");
    }
    if bundle.network_attr("ip-range-start").is_some() {
        out.push_str(&if rkt { format!(" --hostname={name}") } else { format!(" -h {name}") });
    }
    let variable = if rkt { "--environment=" } else { "-e " };
    out.push_str(&format!(" {variable}PCMK_stderr=1"));
    if let Some(network) = attrs.get("network") {
        out.push_str(&format!(" --net={network}"));
    }
    out.push_str(&format!(" {variable}PCMK_remote_port={}", port.unwrap_or(CONTROL_PORT)));
    let mounts = mounts(bundle, &name, inside);
    for (index, mount) in mounts.iter().enumerate() {
        out.push_str(&mount.option(rkt, index));
    }
    let reachable = address.is_some() || attrs.get("network") != Some("host");
    for (source, target) in ports(bundle, inside, port).into_iter().filter(|_| reachable) {
        let option = match (address, rkt) {
            (Some(ip), false) => format!(" -p {ip}:{source}:{target}"),
            (Some(ip), true) => format!(" --port={target}:{ip}:{source}"),
            (None, false) => format!(" -p {source}:{target}"),
            (None, true) => format!(" --port={target}:{source}"),
        };
        out.push_str(&option);
    }
    if let Some(own) = attrs.get("options") {
        out.push_str(&format!(" {own}"));
    }
    out.push(' ');
    out.push_str(&hosts(bundle, addresses));
    let directories = mounts.iter().filter(|m| m.own).map(|m| m.source.as_str());
    (out, directories.collect::<Vec<_>>().join(","))
}

/// The names of all replicas for each of them.
fn hosts(bundle: &Bundle, addresses: &[String]) -> String {
    let engine = bundle.container.engine;
    let add = bundle.network.as_ref().and_then(|n| n.attrs.flag("add-host")).unwrap_or(true);
    let mut out = String::new();
    for (n, ip) in addresses.iter().enumerate() {
        let option = if add && engine != Engine::Rkt {
            format!(" --add-host={}-{n}:{ip}", bundle.id)
        } else {
            format!(" --hosts-entry={ip}={}-{n}", bundle.id)
        };
        out.push_str(&option);
    }
    out
}

/// Outer and inner ports.
fn ports(bundle: &Bundle, inside: bool, control: Option<&str>) -> Vec<(String, String)> {
    let mapped = bundle.network.iter().flat_map(|n| &n.ports).filter_map(|p| {
        let attr = |name: &str| p.attrs.get(name);
        let outer = attr("port").or_else(|| attr("range"))?;
        let inner = attr("port").and_then(|_| attr("internal-port")).unwrap_or(outer);
        Some((outer.to_owned(), inner.to_owned()))
    });
    let mut out: Vec<_> = mapped.collect();
    if inside {
        let port = control.unwrap_or(CONTROL_PORT).to_owned();
        out.push((port.clone(), port));
    }
    out
}

/// A path inside of the container.
struct Mount {
    source: String,
    target: String,
    options: Option<String>,
    /// Each replica has a directory of its own.
    own: bool,
}

impl Mount {
    fn option(&self, rkt: bool, index: usize) -> String {
        let options = self.options.as_deref();
        if rkt {
            let tail = options.map(|o| format!(",{o}")).unwrap_or_default();
            return format!(
                " --volume vol{index},kind=host,source={}{tail} --mount volume=vol{index},target={}",
                self.source, self.target
            );
        }
        let tail = options.map(|o| format!(":{o}")).unwrap_or_default();
        format!(" -v {}:{}{tail}", self.source, self.target)
    }
}

fn mounts(bundle: &Bundle, name: &str, inside: bool) -> Vec<Mount> {
    let mapped = bundle.storage.iter().filter_map(|s: &StorageMapping| {
        let root = s.attrs.get("source-dir-root");
        let source = match s.attrs.get("source-dir") {
            Some(dir) => dir.to_owned(),
            None => format!("{}/{name}", root?),
        };
        Some(Mount {
            source,
            target: s.attrs.get("target-dir")?.to_owned(),
            options: s.attrs.get("options").map(str::to_owned),
            own: s.attrs.get("source-dir").is_none(),
        })
    });
    let mut out: Vec<Mount> = mapped.collect();
    if inside {
        let mut more = |source: String, target: &str, own| {
            out.push(Mount { source, target: target.to_owned(), options: None, own });
        };
        more(KEY.to_owned(), KEY, false);
        more(format!("{}/{name}", LOGS.0), LOGS.1, true);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cib::{Container, Network, Nv, PortMapping};

    fn bundle(engine: Engine, attrs: &[(&str, &str)], network: &[(&str, &str)]) -> Bundle {
        let pairs = |pairs: &[(&str, &str)]| NvSet {
            id: None,
            pairs: pairs
                .iter()
                .map(|(n, v)| Nv { name: (*n).to_owned(), value: Some((*v).to_owned()) })
                .collect(),
        };
        Bundle {
            id: "web".to_owned(),
            description: None,
            container: Container { engine, attrs: pairs(attrs) },
            network: (!network.is_empty()).then(|| Network {
                attrs: pairs(network),
                ports: vec![PortMapping { id: "p".to_owned(), attrs: pairs(&[("port", "80")]) }],
            }),
            storage: Vec::new(),
            child: Some(primitive(
                "in".to_owned(),
                agent("heartbeat", "Dummy"),
                NvSet::default(),
                &[],
            )),
            meta: NvSet::default(),
        }
    }

    #[test]
    fn replicas_get_consecutive_addresses_without_the_ends_of_a_network() {
        let b = bundle(
            Engine::Docker,
            &[("image", "i"), ("replicas", "2")],
            &[("ip-range-start", "10.0.0.254")],
        );
        assert_eq!(addresses(&b), ["10.0.0.254", "10.0.1.1"]);
        let parts = Parts::of(&b);
        let ids: Vec<_> =
            parts.replicas.iter().filter_map(|r| r.ip.as_ref()).map(|(_, p)| &p.id).collect();
        assert_eq!(ids, ["web-ip-10.0.0.254", "web-ip-10.0.1.1"]);
    }

    #[test]
    fn options_of_a_container_name_address_ports_and_the_other_replicas() {
        let b = bundle(
            Engine::Docker,
            &[("image", "i"), ("replicas", "2"), ("options", "--x")],
            &[("ip-range-start", "10.0.0.9"), ("control-port", "9999")],
        );
        let (options, mounts) = run_options(&b, 1, &addresses(&b));
        assert_eq!(
            options,
            " --restart=no -h web-1 -e PCMK_stderr=1 -e PCMK_remote_port=9999 -v /etc/pacemaker/authkey:/etc/pacemaker/authkey \
             -v /var/log/pacemaker/bundles/web-1:/var/log -p 10.0.0.10:80:80 -p 10.0.0.10:9999:9999 --x  --add-host=web-0:10.0.0.9 --add-host=web-1:10.0.0.10"
        );
        assert_eq!(mounts, "/var/log/pacemaker/bundles/web-1");
    }

    #[test]
    fn the_clone_inside_is_called_master_only_when_the_container_says_how_many_are_promoted() {
        let plain = bundle(Engine::Podman, &[("image", "i")], &[("control-port", "1")]);
        let named = |b: &Bundle| Parts::of(b).child.map(|c| c.id);
        assert_eq!(named(&plain).as_deref(), Some("web-clone"));
        let roles = bundle(
            Engine::Podman,
            &[("image", "i"), ("promoted-max", "2")],
            &[("control-port", "1")],
        );
        assert_eq!(named(&roles).as_deref(), Some("web-master"));
        assert_eq!(Parts::of(&roles).replicas.len(), 2, "as many replicas as may be promoted");
    }

    #[test]
    fn without_a_way_to_talk_to_it_nothing_is_inside() {
        let b = bundle(Engine::Podman, &[("image", "i")], &[]);
        assert!(Parts::of(&b).child.is_none());
        assert!(b.node_names().is_empty());
    }
}
