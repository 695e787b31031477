//! Raw packet sending: the one system call that nix has no safe form of.
#![expect(unsafe_code, reason = "sendto(2) with a sockaddr_ll")]

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Sends an Ethernet payload of this type to the broadcast address on interface `index` (packet(7)).
pub(super) fn broadcast(
    socket: &OwnedFd,
    index: i32,
    ethertype: u16,
    frame: &[u8],
) -> io::Result<()> {
    let mut address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or(17),
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0xff; 8],
    };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())
        .map_err(|e| io::Error::other(e.to_string()))?;
    // SAFETY: the address and the frame live across the call, and their lengths are theirs.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw mut address).cast(),
            length,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
