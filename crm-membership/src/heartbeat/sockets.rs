//! The sockets of a node's links. Nothing here waits longer than it is told, whatever becomes of a network card.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

/// One socket for each link, in their order.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<UdpSocket>,
    /// Those that failed in this interval: they are not asked again before the next one.
    failed: Vec<bool>,
}

impl Sockets {
    pub(super) fn new(sockets: Vec<UdpSocket>) -> io::Result<Self> {
        for socket in &sockets {
            socket.set_nonblocking(true)?;
        }
        let failed = vec![false; sockets.len()];
        Ok(Self { sockets, failed })
    }

    pub(super) const fn len(&self) -> usize {
        self.sockets.len()
    }

    /// A new interval begins.
    pub(super) fn begin(&mut self) {
        self.failed.fill(false);
    }

    pub(super) fn send(&self, link: usize, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let socket = self.sockets.get(link).ok_or(io::ErrorKind::NotConnected)?;
        socket.send_to(datagram, to).map(drop)
    }

    /// The links with something to receive; waits for one at most so long, in whole milliseconds, rounded up.
    pub(super) fn ready(&self, limit: Duration) -> Vec<usize> {
        let good = |(link, _): &(usize, &UdpSocket)| self.failed.get(*link) == Some(&false);
        let asked: Vec<(usize, &UdpSocket)> =
            self.sockets.iter().enumerate().filter(good).collect();
        let mut waits: Vec<PollFd<'_>> =
            asked.iter().map(|(_, s)| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
        let limit_ms = u16::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        match poll(&mut waits, PollTimeout::from(limit_ms)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                // Out of memory or worse: the beats still have to go out in time.
                tracing::error!(%error, "cannot wait for heartbeats");
                std::thread::park_timeout(limit);
                return Vec::new();
            }
        }
        let found = asked.iter().zip(&waits).filter(|(_, wait)| wait.any() == Some(true));
        found.map(|((link, _), _)| *link).collect()
    }

    /// One datagram of a link, if one is there: its length.
    pub(super) fn receive(&mut self, link: usize, buffer: &mut [u8]) -> Option<usize> {
        match self.sockets.get(link)?.recv_from(buffer) {
            Ok((length, _)) => Some(length),
            Err(error) => {
                let nothing = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
                if !nothing.contains(&error.kind()) {
                    tracing::trace!(%error, link, "heartbeat socket");
                    if let Some(failed) = self.failed.get_mut(link) {
                        *failed = true;
                    }
                }
                None
            }
        }
    }
}
