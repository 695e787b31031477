//! The system calls that have no safe wrapper: what a child does between fork and exec, and raw packets.
#![expect(unsafe_code, reason = "setsid(2) before exec; sendto(2) with a sockaddr_ll")]

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the child the leader of its own session, with ordinary nice and OOM values whatever the daemon runs with.
/// No parent-death signal: a daemon that dies does not take a running stop with it.
pub(crate) fn own_session(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are made: setsid, setpriority, open, write, close.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() == -1 {
                return Err(io::Error::last_os_error());
            }
            // Both may be forbidden to an ordinary user, who then keeps what he has.
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
            let path = c"/proc/self/oom_score_adj";
            let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd >= 0 {
                libc::write(fd, c"0".as_ptr().cast(), 1);
                libc::close(fd);
            }
            Ok(())
        });
    }
}

/// Sends an Ethernet payload of this type to the broadcast address on interface `index` (packet(7)).
pub(crate) fn broadcast(
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
