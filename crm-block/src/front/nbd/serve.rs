//! The server side of an NBD connection: transmission phase of the NBD protocol, simple replies.

use super::super::{Buffer, Completion, Io, Target, mark_io_thread};
use crate::aligned::AlignedBuf;
use nix::libc::{EINVAL, EIO, ENOSPC};
use std::collections::HashMap;
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REQUEST_BYTES: usize = 28;
/// Larger requests are refused (the queue limit is set far below).
const MAX_IO: u32 = 32 << 20;
const FLAG_FUA: u16 = 1;

/// What `linux/nbd.h` calls server flags: has-flags, flush, FUA, trim, write-zeroes.
pub(super) const SERVER_FLAGS: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The kernel took leave.
    Disconnect,
    /// The socket broke.
    Broken,
}

/// Requests that the volume works on, by the kernel's tag; they outlive connections. A request that takes longer than the timeout comes
/// again on the next connection: it is not begun once more, its outcome goes where it was asked for last.
#[derive(Debug, Default)]
pub(super) struct Flying(Mutex<HashMap<u32, Flight>>);

#[derive(Debug)]
struct Flight {
    request: Request,
    socket: Arc<Mutex<UnixStream>>,
}

impl Flying {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; true when it is in flight already.
    fn note(&self, request: Request, socket: &Arc<Mutex<UnixStream>>) -> bool {
        let flight = Flight { request, socket: Arc::clone(socket) };
        let before = self.lock().insert(request.tag(), flight);
        before.is_some_and(|before| before.request.is_the_same(&request))
    }
}

/// Serves `connection` until it ends.
pub(super) fn serve(
    connection: &UnixStream,
    size_bytes: u64,
    target: &dyn Target,
    flying: &Arc<Flying>,
) -> End {
    mark_io_thread();
    let replies = match connection.try_clone() {
        Ok(clone) => Arc::new(Mutex::new(clone)),
        Err(error) => {
            tracing::error!(%error, "NBD connection");
            return End::Broken;
        }
    };
    let mut reader = connection;
    let mut head = [0; REQUEST_BYTES];
    loop {
        if let Err(error) = reader.read_exact(&mut head) {
            tracing::debug!(%error, "NBD connection ended");
            return End::Broken;
        }
        let Some(request) = Request::parse(&head) else {
            tracing::error!("NBD request without its magic");
            return End::Broken;
        };
        if request.command == 2 {
            return End::Disconnect;
        }
        let data = match payload(reader, request) {
            Ok(data) => data,
            Err(error) => {
                tracing::debug!(%error, "NBD connection ended");
                return End::Broken;
            }
        };
        if !flying.note(request, &replies) {
            let reply = Reply { flying: Arc::clone(flying), tag: request.tag(), sent: false };
            handle(request, data, reply, size_bytes, target);
        }
    }
}

/// A request header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    flags: u16,
    command: u16,
    handle: [u8; 8],
    offset: u64,
    len: u32,
}

impl Request {
    /// The kernel's number of the request: the low half of its handle. No other request has it until this one is answered.
    fn tag(&self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.handle;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Whether `self` is `other` sent again (its handle's high half then is another one).
    fn is_the_same(&self, other: &Self) -> bool {
        Self { handle: other.handle, ..*self } == *other && self.tag() == other.tag()
    }

    fn parse(head: &[u8; REQUEST_BYTES]) -> Option<Self> {
        let (magic, rest) = head.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first_chunk::<2>()?;
        let (command, rest) = rest.split_first_chunk::<2>()?;
        let (handle, rest) = rest.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        let (len, _) = rest.split_first_chunk::<4>()?;
        (u32::from_be_bytes(*magic) == REQUEST_MAGIC).then_some(Self {
            flags: u16::from_be_bytes(*flags),
            command: u16::from_be_bytes(*command),
            handle: *handle,
            offset: u64::from_be_bytes(*offset),
            len: u32::from_be_bytes(*len),
        })
    }
}

/// The bytes of a write.
fn payload(mut reader: &UnixStream, request: Request) -> io::Result<Option<Buffer>> {
    let Request { command, len, .. } = request;
    match command {
        0 | 1 if len > MAX_IO => Err(io::ErrorKind::InvalidData.into()),
        1 => {
            let mut data = AlignedBuf::scratch(usize::try_from(len).map_err(io::Error::other)?);
            reader.read_exact(&mut data)?;
            Ok(Some(Arc::new(data)))
        }
        _ => Ok(None),
    }
}

/// Starts one request.
fn handle(
    request: Request,
    data: Option<Buffer>,
    reply: Reply,
    size_bytes: u64,
    target: &dyn Target,
) {
    let Request { flags, command, offset, len, handle: _ } = request;
    let Ok(bytes) = usize::try_from(len) else { return reply.send(EINVAL, &[]) };
    // Others than the kernel do not know the units of a volume.
    let whole = |number: u64| number.is_multiple_of(512);
    if !(whole(offset) && whole(u64::from(len))) {
        return reply.send(EINVAL, &[]);
    }
    let fits = offset.checked_add(u64::from(len)).is_some_and(|end| end <= size_bytes);
    if !fits {
        return reply.send(ENOSPC, &[]);
    }
    let range = u64::from(len);
    let io = match (command, data) {
        (0, _) => Io::Read { offset, len },
        (1, Some(data)) => Io::Write { offset, data, fua: flags & FLAG_FUA != 0 },
        (3, _) => Io::Flush,
        (4, _) => Io::Discard { offset, len: range },
        (6, _) => Io::Zero { offset, len: range },
        _ => return reply.send(EINVAL, &[]),
    };
    target.submit(io, completion(reply, if command == 0 { bytes } else { 0 }));
}

fn completion(reply: Reply, read_bytes: usize) -> Completion {
    Box::new(move |outcome: io::Result<Option<Buffer>>| match outcome {
        Ok(Some(data)) if read_bytes > 0 && data.len() >= read_bytes => {
            reply.send(0, &data[..read_bytes]);
        }
        Ok(_) if read_bytes == 0 => reply.send(0, &[]),
        Ok(_) => reply.send(EIO, &[]),
        Err(error) => reply.send(error.raw_os_error().filter(|e| *e > 0).unwrap_or(EIO), &[]),
    })
}

/// The reply that the kernel waits for.
struct Reply {
    flying: Arc<Flying>,
    tag: u32,
    sent: bool,
}

impl Reply {
    fn send(mut self, error: i32, payload: &[u8]) {
        self.sent = true;
        let Some(flight) = self.flying.lock().remove(&self.tag) else { return };
        let mut head = [0; 16];
        head[..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
        head[4..8].copy_from_slice(&error.to_be_bytes());
        head[8..].copy_from_slice(&flight.request.handle);
        let mut socket = flight.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = write_all(&mut socket, &head, payload) {
            // the kernel sends it again on the next connection
            tracing::debug!(%error, "NBD reply");
        }
    }
}

impl Drop for Reply {
    /// As with FUSE: a dropped completion leaves the request in flight for the next worker.
    fn drop(&mut self) {
        if !self.sent {
            tracing::error!("a request was dropped, not completed");
        }
    }
}

fn write_all(socket: &mut UnixStream, head: &[u8], payload: &[u8]) -> io::Result<()> {
    let written = socket.write_vectored(&[IoSlice::new(head), IoSlice::new(payload)])?;
    if written < head.len() {
        socket.write_all(&head[written..])?;
        return socket.write_all(payload);
    }
    socket.write_all(&payload[written - head.len()..])
}

#[cfg(test)]
mod tests {
    use super::super::super::MemTarget;
    use super::*;

    fn request(command: u16, flags: u16, offset: u64, len: u32) -> Vec<u8> {
        let mut bytes = REQUEST_MAGIC.to_be_bytes().to_vec();
        bytes.extend(flags.to_be_bytes());
        bytes.extend(command.to_be_bytes());
        bytes.extend([9; 8]);
        bytes.extend(offset.to_be_bytes());
        bytes.extend(len.to_be_bytes());
        bytes
    }

    fn error_of(client: &mut UnixStream) -> u32 {
        let mut head = [0; 16];
        client.read_exact(&mut head).unwrap();
        assert_eq!(head[..4], REPLY_MAGIC.to_be_bytes());
        assert_eq!(head[8..], [9; 8]);
        u32::from_be_bytes(head[4..8].try_into().unwrap())
    }

    #[test]
    fn written_bytes_come_back_and_out_of_range_is_refused() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let target = MemTarget::new(1 << 20).unwrap();
            serve(&server, 1 << 20, &target, &Arc::default())
        });
        client.write_all(&request(1, FLAG_FUA, 4096, 4096)).unwrap();
        client.write_all(&[5; 4096]).unwrap();
        assert_eq!(error_of(&mut client), 0);
        client.write_all(&request(0, 0, 4096, 4096)).unwrap();
        assert_eq!(error_of(&mut client), 0);
        let mut back = [0; 4096];
        client.read_exact(&mut back).unwrap();
        assert!(back == [5; 4096]);
        client.write_all(&request(0, 0, 1 << 20, 4096)).unwrap();
        assert_eq!(error_of(&mut client), ENOSPC.cast_unsigned());
        client.write_all(&request(6, 0, 0, 8192)).unwrap();
        assert_eq!(error_of(&mut client), 0);
        client.write_all(&request(3, 0, 0, 0)).unwrap();
        assert_eq!(error_of(&mut client), 0);
        client.write_all(&request(2, 0, 0, 0)).unwrap();
        assert_eq!(thread.join().unwrap(), End::Disconnect);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn whatever_a_user_sends_after_the_handshake_ends_the_connection_at_worst(
            words in proptest::collection::vec(
                (0u16..9, 0u16..4, 0u64..3 << 19, 0u32..3 << 12, proptest::prelude::any::<bool>()),
                0..6,
            ),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
        ) {
            let (mut client, server) = UnixStream::pair().unwrap();
            let mut said = Vec::new();
            for (command, flags, offset, len, whole) in words {
                let (offset, len) =
                    if whole { (offset & !511, len & !511) } else { (offset, len) };
                said.extend(request(command, flags, offset, len));
                if command == 1 {
                    said.extend(vec![3; usize::try_from(len).unwrap()]);
                }
            }
            said.extend(rest);
            let reader = client.try_clone().unwrap();
            // Read the answers, or the server waits for room.
            let listening = std::thread::spawn(move || io::copy(&mut &reader, &mut io::sink()));
            let serving = std::thread::spawn(move || {
                let target = MemTarget::new(1 << 20).unwrap();
                serve(&server, 1 << 20, &target, &Arc::default())
            });
            drop(client.write_all(&said));
            // It may have closed the connection before all was said.
            drop(client.shutdown(std::net::Shutdown::Write));
            serving.join().unwrap();
            drop(listening.join().unwrap());
        }
    }

    /// Keeps what it is asked for.
    #[derive(Default)]
    struct Slow(Mutex<Vec<Completion>>);

    impl Target for Slow {
        fn submit(&self, _: Io, done: Completion) {
            self.0.lock().unwrap().push(done);
        }

        fn size_bytes(&self) -> u64 {
            1 << 20
        }
    }

    #[test]
    fn a_request_that_comes_again_is_begun_once_and_answered_where_it_came_last() {
        let (slow, flying) = (Slow::default(), Arc::default());
        let mut again = request(1, 0, 4096, 4096);
        let mut last = None;
        for attempt in 1..=3_u8 {
            again[8] = attempt; // the handle's high half
            let (mut client, server) = UnixStream::pair().unwrap();
            client.write_all(&again).unwrap();
            client.write_all(&[5; 4096]).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(serve(&server, 1 << 20, &slow, &flying), End::Broken);
            last = Some(client);
        }
        let mut begun = std::mem::take(&mut *slow.0.lock().unwrap());
        assert_eq!(begun.len(), 1);
        begun.pop().unwrap()(Ok(None));
        let mut head = [0; 16];
        last.unwrap().read_exact(&mut head).unwrap();
        assert_eq!(head[4..8], [0; 4]);
        assert_eq!(head[8..], [3, 9, 9, 9, 9, 9, 9, 9]);
    }
}
