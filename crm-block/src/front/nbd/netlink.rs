//! Generic netlink, as far as NBD needs it: connect, reconfigure and disconnect a device.

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const NLMSG_ERROR: u16 = 2;
const REQUEST_AND_ACK: u16 = 1 | 4;
const GENL_CONTROL: u16 = 16;
const CTRL_GET_FAMILY: u8 = 3;
const CTRL_FAMILY_ID: u16 = 1;
const CTRL_FAMILY_NAME: u16 = 2;
const NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 20;

const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;

const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const TIMEOUT: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const SOCKETS: u16 = 7;
const DEAD_CONN_TIMEOUT: u16 = 8;
const BACKEND_IDENTIFIER: u16 = 10;
const SOCK_ITEM: u16 = 1;
const SOCK_FD: u16 = 1;

/// What a new NBD device is to be.
#[derive(Debug)]
pub(super) struct Wish<'a> {
    pub(super) size_bytes: u64,
    pub(super) block_bytes: u64,
    pub(super) server_flags: u64,
    /// A request unanswered this long is sent again, on a new connection.
    pub(super) timeout_s: u64,
    /// How long the kernel waits for a new connection before requests fail.
    pub(super) dead_connection_s: u64,
    /// Shown in sysfs: whose it is.
    pub(super) identity: &'a str,
}

/// The NBD family.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    family: u16,
}

impl Netlink {
    /// Finds the family; not found = the module is not loaded.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkGeneric;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        let mut this = Self { socket, family: GENL_CONTROL };
        let body = Attributes::default().bytes(CTRL_FAMILY_NAME, b"nbd\0");
        let answer = this.ask(CTRL_GET_FAMILY, &body)?;
        let id = attribute(&answer, CTRL_FAMILY_ID).and_then(|id| id.try_into().ok());
        this.family = u16::from_ne_bytes(id.ok_or(io::ErrorKind::NotFound)?);
        Ok(this)
    }

    /// Makes a device over `connection`; returns N of `/dev/nbdN`.
    pub(super) fn connect(&self, wish: &Wish<'_>, connection: &OwnedFd) -> io::Result<u32> {
        let mut identity = wish.identity.as_bytes().to_vec();
        identity.push(0);
        let body = Attributes::default()
            .u64(SIZE_BYTES, wish.size_bytes)
            .u64(BLOCK_SIZE_BYTES, wish.block_bytes)
            .u64(TIMEOUT, wish.timeout_s)
            .u64(SERVER_FLAGS, wish.server_flags)
            .u64(DEAD_CONN_TIMEOUT, wish.dead_connection_s)
            .bytes(BACKEND_IDENTIFIER, &identity)
            .bytes(SOCKETS | NESTED, &sockets(connection));
        let answer = self.ask(CONNECT, &body)?;
        let index = attribute(&answer, INDEX).and_then(|index| index.try_into().ok());
        Ok(u32::from_ne_bytes(index.ok_or(io::ErrorKind::InvalidData)?))
    }

    /// Gives device `index` a new connection in place of its dead one; `ENOSPC` = it is not dead yet.
    pub(super) fn reconnect(
        &self,
        index: u32,
        identity: &str,
        connection: &OwnedFd,
    ) -> io::Result<()> {
        let mut identity = identity.as_bytes().to_vec();
        identity.push(0);
        let body = Attributes::default()
            .bytes(INDEX, &index.to_ne_bytes())
            .bytes(BACKEND_IDENTIFIER, &identity)
            .bytes(SOCKETS | NESTED, &sockets(connection));
        self.ask(RECONFIGURE, &body).map(drop)
    }

    /// Takes device `index` away.
    pub(super) fn disconnect(&self, index: u32) -> io::Result<()> {
        let body = Attributes::default().bytes(INDEX, &index.to_ne_bytes());
        self.ask(DISCONNECT, &body).map(drop)
    }

    /// Sends a request; returns the attributes of the answer, if there was one before the acknowledgement.
    fn ask(&self, command: u8, body: &Attributes) -> io::Result<Vec<u8>> {
        let len = u32::try_from(HEADER_BYTES + body.0.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER_BYTES + body.0.len());
        message.extend_from_slice(&len.to_ne_bytes());
        message.extend_from_slice(&self.family.to_ne_bytes());
        message.extend_from_slice(&REQUEST_AND_ACK.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(&[command, 1, 0, 0]);
        message.extend_from_slice(&body.0);
        send(self.socket.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 32 << 10];
        loop {
            let len = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, content) in messages(&buffer[..len]) {
                if kind != NLMSG_ERROR {
                    answer = content.get(4..).unwrap_or_default().to_vec();
                    continue;
                }
                let code = content.get(..4).and_then(|code| code.try_into().ok());
                return match i32::from_ne_bytes(code.ok_or(io::ErrorKind::InvalidData)?) {
                    0 => Ok(answer),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
        }
    }
}

/// Netlink attributes under construction.
#[derive(Debug, Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let len = u16::try_from(4 + value.len()).expect("our attributes are short");
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

fn sockets(connection: &OwnedFd) -> Vec<u8> {
    let fd = connection.as_raw_fd().to_ne_bytes();
    let item = Attributes::default().bytes(SOCK_FD, &fd);
    Attributes::default().bytes(SOCK_ITEM | NESTED, &item.0).0
}

/// Type and content of each message in `bytes`.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(header) = bytes.get(..16) {
        let len = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let Ok(len) = usize::try_from(len) else { break };
        let Some(content) = bytes.get(16..len) else { break };
        found.push((u16::from_ne_bytes([header[4], header[5]]), content));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Value of the attribute of type `kind`.
fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some(header) = bytes.get(..4) {
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let value = bytes.get(4..len)?;
        if u16::from_ne_bytes([header[2], header[3]]) & !NESTED == kind {
            return Some(value);
        }
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_again() {
        let body = Attributes::default().bytes(2, b"nbd\0").bytes(7, b"x").u64(9, 5);
        assert_eq!(body.0.len(), 8 + 8 + 12);
        assert_eq!(attribute(&body.0, 7), Some(&b"x"[..]));
        assert_eq!(attribute(&body.0, 9), Some(&5u64.to_ne_bytes()[..]));
        assert_eq!(attribute(&body.0, 8), None);
    }

    #[test]
    fn a_truncated_message_is_not_read() {
        assert!(messages(&[200, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]).is_empty());
    }
}
