//! `VIP`: a service address on an interface, by netlink, announced by gratuitous ARP. Parameters as `ocf:heartbeat:IPaddr2`.

use super::context::{self, Context, Failure};
use super::{Action, Agent, connections, param};
use crate::sys;
use crm_core::status::rc;
use futures::TryStreamExt;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope, RouteType};
use std::net::{IpAddr, Ipv4Addr};

/// Announcements sent at once.
const ANNOUNCEMENTS: usize = 5;
/// The routing table of what this machine itself takes.
const LOCAL_TABLE: u32 = 255;
/// Ethernet type of ARP.
const ARP: u16 = 0x0806;

/// The agent.
pub(super) static AGENT: Agent = Agent {
    name: "VIP",
    about: "Service address: added to an interface, announced to the neighbours; its connections are reset when it leaves",
    promotable: false,
    migratable: false,
    params: &[
        param("ip", true, "Address, IPv4 or IPv6"),
        param("nic", false, "Interface; default: the one whose network holds the address"),
        param("cidr_netmask", false, "Prefix length; default: that of the interface's network"),
        param("broadcast", false, "Accepted; computed"),
        param("arp_count", false, "Accepted; five announcements are sent"),
        param("arp_interval", false, "Accepted; not used"),
        param("arp_bg", false, "Accepted; not used"),
        param("iflabel", false, "Accepted; not used"),
        param("lvs_support", false, "Accepted; not used"),
        param("unique_clone_address", false, "Accepted; not used"),
    ],
    run,
};

struct Wanted {
    ip: IpAddr,
    prefix: Option<u8>,
    nic: Option<String>,
}

#[derive(Debug, Clone)]
struct Place {
    index: u32,
    mac: Vec<u8>,
    prefix: u8,
    up: bool,
}

fn wanted(context: &Context) -> Result<Wanted, Failure> {
    let text = context.need("ip")?;
    let bad = |what: &str, value: &str| {
        Failure::new(rc::ERR_CONFIGURED, format!("`{value}` is not {what}"))
    };
    let ip: IpAddr = text.parse().map_err(|_| bad("an IP address", &text))?;
    let widest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match context.get("cidr_netmask") {
        None => None,
        Some(text) => {
            let plain = text.parse().ok().filter(|p| *p <= widest);
            let dotted = || text.parse().ok().and_then(prefix_of_mask);
            Some(plain.or_else(dotted).ok_or_else(|| bad("a prefix length", &text))?)
        }
    };
    Ok(Wanted { ip, prefix, nic: context.get("nic") })
}

/// `255.255.255.0` as 24.
fn prefix_of_mask(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = u8::try_from(bits.leading_ones()).ok()?;
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then_some(ones)
}

fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    let wanted = wanted(context)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("start a runtime", &e))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| Failure::io("open netlink", &e))?;
        let task = tokio::spawn(connection);
        let result = act(&handle, &wanted, action).await;
        task.abort();
        result
    })
}

async fn act(handle: &rtnetlink::Handle, wanted: &Wanted, action: Action) -> Result<i32, Failure> {
    let present = find_address(handle, wanted.ip).await?;
    match action {
        Action::Start => {
            let place = place(handle, wanted).await?;
            if present.is_none() {
                add(handle, wanted, &place).await?;
            }
            announce(&place, wanted.ip)?;
            Ok(rc::OK)
        }
        Action::Stop => {
            if let Some(message) = present {
                if let Err(error) = reset_connections(handle, wanted.ip, message.header.index).await
                {
                    context::note(&format!("connections to {} are not reset: {error}", wanted.ip));
                }
                handle
                    .address()
                    .del(message)
                    .execute()
                    .await
                    .map_err(|e| Failure::io(&format!("remove {}", wanted.ip), &e))?;
            }
            Ok(rc::OK)
        }
        Action::Monitor | Action::Notify | Action::Promote | Action::Demote => {
            Ok(if present.is_some() { rc::OK } else { rc::NOT_RUNNING })
        }
    }
}

async fn add(handle: &rtnetlink::Handle, wanted: &Wanted, place: &Place) -> Result<(), Failure> {
    if !place.up {
        let up = rtnetlink::LinkUnspec::new_with_index(place.index).up().build();
        handle
            .link()
            .set(up)
            .execute()
            .await
            .map_err(|e| Failure::io("set the interface up", &e))?;
    }
    let mut request = handle.address().add(place.index, wanted.ip, place.prefix);
    if wanted.ip.is_ipv6() {
        // It must serve at once: whoever had it has given it up or is gone.
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.map_err(|e| Failure::io(&format!("add {}", wanted.ip), &e))
}

/// Clients hear at once that their connections are gone: one whose request has arrived and is never answered would wait for minutes (a
/// client of NFS 4 does not ask again over the same connection). They must not come back to this node in the meantime, a server that
/// ends would send them away for longer: nothing arrives any more, while there still is an address to send resets from.
async fn reset_connections(
    handle: &rtnetlink::Handle,
    ip: IpAddr,
    interface: u32,
) -> Result<(), Box<dyn std::error::Error>> {
    let IpAddr::V4(ip) = ip else { return Ok(()) };
    let arriving = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(ip, 32)
        .output_interface(interface)
        .table_id(LOCAL_TABLE)
        .kind(RouteType::Local)
        .scope(RouteScope::Host)
        .protocol(RouteProtocol::Kernel)
        .build();
    handle.route().del(arriving).execute().await?;
    connections::reset(ip.into())?;
    Ok(())
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

async fn addresses(handle: &rtnetlink::Handle) -> Result<Vec<AddressMessage>, Failure> {
    handle
        .address()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|e| Failure::io("list addresses", &e))
}

async fn find_address(
    handle: &rtnetlink::Handle,
    ip: IpAddr,
) -> Result<Option<AddressMessage>, Failure> {
    Ok(addresses(handle).await?.into_iter().find(|m| address_of(m) == Some(ip)))
}

/// Interface and prefix for the address.
async fn place(handle: &rtnetlink::Handle, wanted: &Wanted) -> Result<Place, Failure> {
    let links: Vec<LinkMessage> = handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|e| Failure::io("list interfaces", &e))?;
    let name = |link: &LinkMessage| {
        link.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
    };
    let networks = addresses(handle).await?;
    let holds = |m: &&AddressMessage| {
        address_of(m).is_some_and(|own| {
            own != wanted.ip && same_network(own, wanted.ip, m.header.prefix_len)
        })
    };
    let network = networks.iter().filter(holds).max_by_key(|m| m.header.prefix_len);
    let index = match &wanted.nic {
        Some(nic) => links.iter().find(|l| name(l).as_ref() == Some(nic)).map(|l| l.header.index),
        None => network.map(|m| m.header.index),
    };
    let Some(link) = index.and_then(|i| links.iter().find(|l| l.header.index == i)) else {
        let why = match &wanted.nic {
            Some(nic) => format!("there is no interface `{nic}`"),
            None => format!("no interface has a network that holds {}: give `nic`", wanted.ip),
        };
        return Err(Failure::new(rc::ERR_INSTALLED, why));
    };
    let widest = if wanted.ip.is_ipv4() { 32 } else { 128 };
    let prefix = wanted.prefix.or_else(|| network.map(|m| m.header.prefix_len)).unwrap_or(widest);
    let mac = link.attributes.iter().find_map(|a| match a {
        LinkAttribute::Address(mac) => Some(mac.clone()),
        _ => None,
    });
    let up = link.header.flags.contains(LinkFlags::Up);
    Ok(Place { index: link.header.index, mac: mac.unwrap_or_default(), prefix, up })
}

fn same_network(a: IpAddr, b: IpAddr, prefix: u8) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let ((a, wide_a), (b, wide_b)) = (bits(a), bits(b));
    let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix.min(128))) };
    wide_a == wide_b && a & mask == b & mask
}

/// Tells the neighbours where the address is now (RFC 5227, announcement). Interfaces without Ethernet addresses need none.
fn announce(place: &Place, ip: IpAddr) -> Result<(), Failure> {
    let IpAddr::V4(ip) = ip else { return Ok(()) };
    if place.mac.len() != 6 || place.mac.iter().all(|b| *b == 0) {
        return Ok(());
    }
    let raw = socket(
        AddressFamily::Packet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    )
    .map_err(|e| Failure::io("open a packet socket", &e))?;
    let index = i32::try_from(place.index).unwrap_or(0);
    let octets = ip.octets();
    for round in 0..ANNOUNCEMENTS {
        let operation: u8 = if round % 2 == 0 { 1 } else { 2 };
        let mut frame = vec![0, 1, 8, 0, 6, 4, 0, operation];
        frame.extend(&place.mac);
        frame.extend(octets);
        frame.extend([0xff; 6]);
        frame.extend(octets);
        sys::broadcast(&raw, index, ARP, &frame).map_err(|e| Failure::io("announce", &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_network_of_its_prefix() {
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        assert!(same_network(ip("192.168.7.123"), ip("192.168.7.200"), 24));
        assert!(!same_network(ip("192.168.7.123"), ip("192.168.8.200"), 24));
        assert!(!same_network(ip("192.168.7.123"), ip("fd00::1"), 0));
        assert!(same_network(ip("fd00::1"), ip("fd00::2"), 64));
    }

    #[test]
    fn a_mask_is_a_prefix_when_its_ones_are_together() {
        assert_eq!(prefix_of_mask(Ipv4Addr::new(255, 255, 255, 0)), Some(24));
        assert_eq!(prefix_of_mask(Ipv4Addr::new(255, 0, 255, 0)), None);
    }
}
