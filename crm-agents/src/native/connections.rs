//! Ends TCP connections of this machine by `sock_diag(7)`, as `ss -K` does: the other side hears of it at once.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;
/// All states but LISTEN (10): established or on the way from or to it.
const CONNECTIONS: u32 = !(1 << 10);
const HEADER_BYTES: usize = 16;
/// In `struct inet_diag_msg` and, further on, in `struct inet_diag_req_v2`: `struct inet_diag_sockid`.
const ID_AT: usize = 4;
const ID_BYTES: usize = 48;
/// In `struct inet_diag_sockid`: the local address.
const LOCAL_AT: usize = 4;

/// Ends all TCP connections whose local address is `ip`. The other sides get a reset, provided that the address is still there. How many
/// were ended; a kernel that cannot do it (no `CONFIG_INET_DIAG_DESTROY`) ends none.
pub(super) fn reset(ip: IpAddr) -> io::Result<usize> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkSockDiag)?;
    let mut ended = 0;
    // Where a program listens for both families, a connection by IPv4 is one of IPv6 with a mapped address.
    for family in [INET, INET6] {
        for id in list(&netlink, family, ip)? {
            match destroy(&netlink, family, &id) {
                Ok(()) => ended += 1,
                // It has ended by itself.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                    return Ok(ended);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

fn request(kind: u16, flags: u16, family: u8, id: &[u8]) -> Vec<u8> {
    let mut body = vec![family, TCP, 0, 0];
    body.extend(CONNECTIONS.to_ne_bytes());
    body.extend(id);
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(0);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn list(netlink: &OwnedFd, family: u8, ip: IpAddr) -> io::Result<Vec<Vec<u8>>> {
    send(
        netlink.as_raw_fd(),
        &request(BY_FAMILY, DUMP, family, &[0; ID_BYTES]),
        MsgFlags::empty(),
    )?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, content) in messages(buffer.get(..length).unwrap_or_default()) {
            match kind {
                NLMSG_DONE => return Ok(found),
                // A kernel without this family of sockets.
                NLMSG_ERROR if code(content)? == Errno::ENOENT as i32 => return Ok(found),
                NLMSG_ERROR => return Err(io::Error::from_raw_os_error(code(content)?)),
                _ => {}
            }
            let id = content.get(ID_AT..ID_AT + ID_BYTES);
            if let Some(id) = id.filter(|id| local(family, id) == Some(ip)) {
                found.push(id.to_vec());
            }
        }
    }
}

fn destroy(netlink: &OwnedFd, family: u8, id: &[u8]) -> io::Result<()> {
    send(netlink.as_raw_fd(), &request(DESTROY, ACK, family, id), MsgFlags::empty())?;
    let mut buffer = vec![0; 4 << 10];
    let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let all = messages(buffer.get(..length).unwrap_or_default());
    let answer = all.first().filter(|(kind, _)| *kind == NLMSG_ERROR);
    match code(answer.ok_or(io::ErrorKind::InvalidData)?.1)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The error number in an `NLMSG_ERROR`.
fn code(content: &[u8]) -> io::Result<i32> {
    let bytes = content.get(..4).and_then(|bytes| bytes.try_into().ok());
    Ok(i32::from_ne_bytes(bytes.ok_or(io::ErrorKind::InvalidData)?).wrapping_neg())
}

/// The local address of a connection; a mapped one as what it is.
fn local(family: u8, id: &[u8]) -> Option<IpAddr> {
    let bytes = id.get(LOCAL_AT..LOCAL_AT + 16)?;
    if family == INET {
        let bytes: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
        return Some(bytes.into());
    }
    let bytes: [u8; 16] = bytes.try_into().ok()?;
    Some(Ipv6Addr::from(bytes).to_canonical())
}

/// Type and content of each message in `bytes`.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(&[a, b, c, d, kind, more, ..]) = bytes.get(..HEADER_BYTES) {
        let Ok(length) = usize::try_from(u32::from_ne_bytes([a, b, c, d])) else { break };
        let Some(content) = bytes.get(HEADER_BYTES..length) else { break };
        found.push((u16::from_ne_bytes([kind, more]), content));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_other_side_of_a_connection_hears_that_it_is_reset() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // An address of loopback's network that no other test uses; by IPv4, and mapped.
        for (bind, ip) in [("127.77.7.1:0", "127.77.7.1"), ("[::]:0", "127.77.7.2")] {
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let port = listener.local_addr().unwrap().port();
            let mut client = TcpStream::connect((ip, port)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let ended = reset(ip.parse().unwrap()).unwrap();
            if ended == 0 {
                return; // this kernel cannot
            }
            let heard = client.read(&mut [0]).unwrap_err();
            assert_eq!(heard.kind(), io::ErrorKind::ConnectionReset);
            assert!(server.read(&mut [0]).is_err());
            let again = TcpStream::connect((ip, port));
            assert!(again.is_ok(), "who listens is left alone");
        }
    }

    #[test]
    fn a_truncated_message_is_not_read() {
        assert!(messages(&[200, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).is_empty());
    }
}
