//! Who connects to whom: the replica with the smaller name calls, both listen. One listener serves all volumes of an address.

use crate::auth::{self, Call};
use crate::store::Places;
use crate::volume::{Volume, WeakVolume};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time for the first words on a connection.
const GREETING: Duration = Duration::from_secs(2);
/// Time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(1);
/// Shortest and longest pause between calls.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Volumes that take part, and listeners.
#[derive(Debug)]
pub(crate) struct Peers {
    places: Places,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, WeakVolume>,
    listeners: BTreeMap<String, ()>,
}

impl Peers {
    pub(crate) fn new(places: Places) -> Arc<Self> {
        Arc::new(Self { places, state: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens for and calls the peers of `volume`.
    pub(crate) fn join(self: &Arc<Self>, volume: &Arc<Volume>) -> io::Result<()> {
        let spec = volume.spec();
        self.lock().volumes.insert(spec.name.clone(), Arc::downgrade(volume));
        for (index, replica) in spec.replicas.iter().enumerate() {
            if replica.node == spec.me {
                if spec.replicas.len() > 1 {
                    self.listen(&replica.address)?;
                }
            } else if spec.me < replica.node {
                let peer = u8::try_from(index).map_err(io::Error::other)?;
                let (peers, volume) = (Arc::clone(self), Arc::clone(volume));
                std::thread::spawn(move || peers.call_again(&volume, peer));
            }
        }
        Ok(())
    }

    /// The volume is down: no more calls.
    pub(crate) fn leave(&self, volume: &str) {
        self.lock().volumes.remove(volume);
        self.changed.notify_all();
    }

    fn listen(self: &Arc<Self>, address: &str) -> io::Result<()> {
        if self.lock().listeners.contains_key(address) {
            return Ok(());
        }
        let listener = TcpListener::bind(address)
            .map_err(|e| io::Error::new(e.kind(), format!("listen on {address}: {e}")))?;
        self.lock().listeners.insert(address.to_owned(), ());
        let peers = Arc::clone(self);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                match socket {
                    Ok(socket) => {
                        let peers = Arc::clone(&peers);
                        std::thread::spawn(move || peers.answer(socket));
                    }
                    Err(error) => tracing::warn!(%error, "a call could not be taken"),
                }
            }
        });
        Ok(())
    }

    fn answer(&self, mut socket: TcpStream) {
        let known = |call: &Call| self.expected(call).is_some();
        let met = greeting(&socket)
            .and_then(|()| auth::key(&self.places.key()))
            .and_then(|key| auth::answer(&mut socket, &key, known));
        let call = match met {
            Ok(call) => call,
            Err(error) => {
                tracing::info!(%error, "a call was not taken");
                return;
            }
        };
        if let Some((volume, peer)) = self.expected(&call) {
            report(&volume, peer, volume.serve(peer, socket));
        }
    }

    fn expected(&self, call: &Call) -> Option<(Arc<Volume>, u8)> {
        let volume = self.lock().volumes.get(&call.volume)?.upgrade()?;
        let spec = volume.spec();
        if call.to != spec.me || call.from >= spec.me || volume.is_stopped() {
            return None;
        }
        let index = spec.replicas.iter().position(|r| r.node == call.from)?;
        let peer = u8::try_from(index).ok()?;
        Some((volume, peer))
    }

    fn call_again(&self, volume: &Arc<Volume>, peer: u8) {
        let mut pause = PAUSES.0;
        let mut last = String::new();
        while !volume.is_stopped() {
            match self.call(volume, peer) {
                Ok(socket) => {
                    last.clear();
                    let began = std::time::Instant::now();
                    report(volume, peer, volume.serve(peer, socket));
                    pause = if began.elapsed() > PAUSES.1 {
                        PAUSES.0
                    } else {
                        (pause * 2).min(PAUSES.1)
                    };
                }
                Err(error) => {
                    let why = error.to_string();
                    if why != last {
                        tracing::info!(
                            volume = volume.spec().name,
                            peer = name(volume, peer),
                            why,
                            "no connection"
                        );
                        last = why;
                    }
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
            let state = self.lock();
            if volume.is_stopped() || !state.volumes.contains_key(&volume.spec().name) {
                return;
            }
            drop(self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn call(&self, volume: &Volume, peer: u8) -> Result<TcpStream, auth::AuthError> {
        let key = auth::key(&self.places.key())?;
        let spec = volume.spec();
        let replica = spec.replicas.get(usize::from(peer)).ok_or(auth::AuthError::Protocol)?;
        let mut socket = connect(&replica.address)?;
        greeting(&socket)?;
        let call =
            Call { volume: spec.name.clone(), from: spec.me.clone(), to: replica.node.clone() };
        auth::call(&mut socket, &key, &call)?;
        Ok(socket)
    }
}

fn greeting(socket: &TcpStream) -> Result<(), auth::AuthError> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(GREETING))?;
    Ok(socket.set_write_timeout(Some(GREETING))?)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address}: no such host"));
    for one in address.to_socket_addrs()?.collect::<Vec<SocketAddr>>() {
        match TcpStream::connect_timeout(&one, CONNECT) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = io::Error::new(error.kind(), format!("{one}: {error}")),
        }
    }
    Err(last)
}

fn name(volume: &Volume, peer: u8) -> &str {
    volume.spec().replicas.get(usize::from(peer)).map_or("?", |r| r.node.as_str())
}

fn report(volume: &Volume, peer: u8, ended: io::Result<()>) {
    let (volume, peer) = (volume.spec().name.as_str(), name(volume, peer));
    match ended {
        Ok(()) => tracing::info!(volume, peer, "connection ended"),
        Err(error) => tracing::warn!(volume, peer, %error, "connection lost"),
    }
}
