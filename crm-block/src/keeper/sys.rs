//! Descriptors over a socket.
#![expect(unsafe_code, reason = "nix hands received descriptors over as bare numbers")]

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Longest message.
const MESSAGE_BYTES: usize = 64 << 10;
/// Most descriptors in a message.
const FDS: usize = 32;

/// Sends one message.
pub(super) fn send(socket: BorrowedFd<'_>, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if text.len() > MESSAGE_BYTES || fds.len() > FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL;
        let slices = [IoSlice::new(text)];
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &slices, control, flags, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message; empty = the other side is closed.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut text = vec![0; MESSAGE_BYTES];
    let mut control = cmsg_space!([RawFd; FDS]);
    let mut fds = Vec::new();
    let len = loop {
        let mut slices = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received =
            recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags);
        match received {
            Ok(message) => {
                for item in message.cmsgs()? {
                    let ControlMessageOwned::ScmRights(numbers) = item else { continue };
                    for number in numbers {
                        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
                        fds.push(unsafe { OwnedFd::from_raw_fd(number) });
                    }
                }
                if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                break message.bytes;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => break 0,
            Err(error) => return Err(error.into()),
        }
    };
    text.truncate(len);
    Ok((text, fds))
}
