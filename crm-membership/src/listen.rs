//! What a node listens on: for each of its links a TCP socket (the services) and a UDP socket (the heartbeats), on the same number.

use crate::settings::Addresses;
use crate::start::StartError;
use futures::{Stream, StreamExt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tonic::transport::server::TcpIncoming;

/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;

/// The sockets of one link.
#[derive(Debug)]
struct Ear {
    place: SocketAddr,
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Ear {
    /// `absent`: the address may be on no network card yet; the link works when it is.
    fn open(place: SocketAddr, absent: bool) -> io::Result<Self> {
        let tcp = bind(place, Type::STREAM, Protocol::TCP, absent)?;
        tcp.listen(BACKLOG)?;
        let udp = bind(place, Type::DGRAM, Protocol::UDP, absent)?;
        Ok(Self { place, tcp: tcp.into(), udp: udp.into() })
    }

    fn again(&self) -> io::Result<Self> {
        let (tcp, udp) = (self.tcp.try_clone()?, self.udp.try_clone()?);
        Ok(Self { place: self.place, tcp, udp })
    }
}

fn bind(place: SocketAddr, kind: Type, protocol: Protocol, absent: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(place), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    match place {
        SocketAddr::V4(_) if absent => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) if absent => socket.set_freebind_v6(true)?,
        SocketAddr::V4(_) | SocketAddr::V6(_) => {}
    }
    socket.bind(&SockAddr::from(place))?;
    Ok(socket)
}

/// The sockets of a node, in the order of its links. What is served and what beats has copies of them: they are closed when all are gone.
#[derive(Debug, Default)]
pub(crate) struct Ears(Vec<Ear>);

impl Ears {
    /// Opens them. The first link may listen elsewhere than on its address. Of several links those whose address is on no network card
    /// begin down: one that is missing keeps a node from nothing.
    pub(crate) async fn open(
        addresses: &Addresses,
        listen: Option<SocketAddr>,
    ) -> Result<Self, StartError> {
        let several = !addresses.links.is_empty();
        let mut ears = Vec::new();
        for (link, address) in addresses.all().enumerate() {
            let text =
                listen.filter(|_| link == 0).map_or_else(|| address.clone(), |l| l.to_string());
            let place = look_up(&text).await?;
            let opened = match Ear::open(place, false) {
                Err(error) if several && error.kind() == io::ErrorKind::AddrNotAvailable => {
                    tracing::warn!(link, address, "no network card has this address yet");
                    Ear::open(place, true)
                }
                opened => opened,
            };
            ears.push(opened.map_err(|source| StartError::Listen { address: text, source })?);
        }
        Ok(Self(ears))
    }

    /// The sockets for other addresses: those that stay are shared, the others must be addresses of this node.
    pub(crate) async fn elsewhere(&self, addresses: &Addresses) -> Result<Self, StartError> {
        let mut ears = Vec::new();
        for address in addresses.all() {
            let place = look_up(address).await?;
            let open = match self.0.iter().find(|ear| ear.place == place) {
                Some(ear) => ear.again(),
                None => Ear::open(place, false),
            };
            let failed = |source| StartError::Listen { address: address.clone(), source };
            ears.push(open.map_err(failed)?);
        }
        Ok(Self(ears))
    }

    /// The listeners of all links.
    pub(crate) fn listeners(&self) -> io::Result<Vec<tokio::net::TcpListener>> {
        let listeners = self.0.iter().map(|ear| ear.tcp.try_clone());
        listeners.map(|tcp| tokio::net::TcpListener::from_std(tcp?)).collect()
    }

    /// The heartbeats' sockets of all links.
    pub(crate) fn sockets(&self) -> io::Result<Vec<UdpSocket>> {
        self.0.iter().map(|ear| ear.udp.try_clone()).collect()
    }
}

async fn look_up(text: &str) -> Result<SocketAddr, StartError> {
    let failed = |source| StartError::Listen { address: text.to_owned(), source };
    let mut found = tokio::net::lookup_host(text).await.map_err(failed)?;
    let nothing = || failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    found.next().ok_or_else(nothing)
}

/// The connections that come to any of these listeners, and later to those that are given instead of them.
pub(crate) fn incoming(
    listeners: Vec<tokio::net::TcpListener>,
    instead: mpsc::UnboundedReceiver<Vec<tokio::net::TcpListener>>,
) -> impl Stream<Item = io::Result<tokio::net::TcpStream>> + Send + 'static {
    // tonic's own `tcp_nodelay` is for listeners that it opens: without it here an answer may wait 40 ms for an acknowledgement.
    let doors = |listeners: Vec<tokio::net::TcpListener>| {
        let open = |listener| TcpIncoming::from(listener).with_nodelay(Some(true));
        futures::stream::select_all(listeners.into_iter().map(open))
    };
    let begun = (doors(listeners), instead);
    futures::stream::unfold(begun, move |(mut open, mut instead)| async move {
        loop {
            tokio::select! {
                biased;
                Some(listeners) = instead.recv() => open = doors(listeners),
                next = open.next() => return next.map(|connection| (connection, (open, instead))),
            }
        }
    })
}
