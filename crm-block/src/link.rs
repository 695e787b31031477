//! One connection to a peer: a queue with a writer thread, and the reading side.

use crate::aligned::AlignedBuf;
use crate::front::Buffer;
use crm_block_engine::Msg;
use crm_block_engine::bitmap::number;
use crm_block_engine::wire::{self, Bad, HEAD, Head};
use std::collections::VecDeque;
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A message goes at least this often.
const PING: Duration = Duration::from_millis(200);
/// Silence after which the peer is taken for lost.
const SILENCE: Duration = Duration::from_millis(1500);
/// A send that cannot go for so long ends the connection.
const STUCK: Duration = Duration::from_secs(6);
/// Messages written together.
const BATCH: usize = 32;

/// Messages on their way to a peer.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    wake: Condvar,
    socket: TcpStream,
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Msg<Buffer>>,
    /// The first words are on their way.
    greeted: bool,
    /// What is queued still goes, then the connection ends.
    parting: bool,
    closed: bool,
}

/// Prepares a socket for a connection.
pub(crate) fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.set_write_timeout(Some(STUCK))
}

fn bytes(data: &Buffer) -> &[u8] {
    data
}

impl Outbox {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { queue: Mutex::default(), wake: Condvar::new(), socket }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, msg: Msg<Buffer>) {
        let mut queue = self.lock();
        queue.messages.push_back(msg);
        drop(queue);
        self.wake.notify_one();
    }

    /// Ends the connection: both threads come home.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
        if let Err(error) = self.socket.shutdown(Shutdown::Both) {
            tracing::debug!(%error, "close of a connection");
        }
    }

    /// Ends the connection, but not before the first words went: a peer that is refused learns from them why, as this side did from its
    /// own. Nothing more is read.
    pub(crate) fn part(&self) {
        let mut queue = self.lock();
        if queue.greeted || queue.closed {
            drop(queue);
            self.close();
            return;
        }
        queue.parting = true;
        drop(queue);
        self.wake.notify_one();
        if let Err(error) = self.socket.shutdown(Shutdown::Read) {
            tracing::debug!(%error, "end of a connection");
        }
    }

    /// The reading side has come home: the writer follows, after the first words where they are still to go.
    pub(crate) fn heard_all(&self) {
        if !self.lock().parting {
            self.close();
        }
    }

    /// The next messages to write; empty = closed.
    fn next(&self) -> Vec<Msg<Buffer>> {
        let mut queue = self.lock();
        loop {
            if queue.closed || (queue.parting && queue.messages.is_empty()) {
                return Vec::new();
            }
            if !queue.messages.is_empty() {
                let n = queue.messages.len().min(BATCH);
                return queue.messages.drain(..n).collect();
            }
            let (back, late) =
                self.wake.wait_timeout(queue, PING).unwrap_or_else(PoisonError::into_inner);
            queue = back;
            if late.timed_out() && queue.messages.is_empty() && !queue.closed {
                return vec![Msg::Ping];
            }
        }
    }

    /// Writes until the connection ends.
    pub(crate) fn write_all(&self, sent: &AtomicU64) {
        let mut socket = &self.socket;
        loop {
            let messages = self.next();
            if messages.is_empty() {
                self.close();
                return;
            }
            let frames: Vec<wire::Frame<'_>> =
                messages.iter().map(|m| wire::encode(m, bytes)).collect();
            let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(frames.len() * 2);
            for frame in &frames {
                slices.push(IoSlice::new(&frame.head));
                if !frame.body.is_empty() {
                    slices.push(IoSlice::new(&frame.body));
                }
            }
            let total: usize = slices.iter().map(|s| s.len()).sum();
            if let Err(error) = write_slices(&mut socket, &mut slices) {
                tracing::debug!(%error, "send to a peer");
                self.close();
                return;
            }
            sent.fetch_add(number(total), Ordering::Relaxed);
            self.lock().greeted = true;
        }
    }
}

fn write_slices(socket: &mut &TcpStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match socket.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The reading side.
#[derive(Debug)]
pub(crate) struct Inbox {
    reader: BufReader<TcpStream>,
}

fn bad(error: Bad) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Inbox {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { reader: BufReader::with_capacity(32 << 10, socket) }
    }

    /// Waits for the next message.
    pub(crate) fn read(&mut self, received: &AtomicU64) -> io::Result<Msg<Buffer>> {
        let mut raw = [0; HEAD];
        self.reader.read_exact(&mut raw)?;
        let head = Head::parse(&raw).map_err(bad)?;
        received.fetch_add(number(HEAD + head.body_len()), Ordering::Relaxed);
        if head.carries_data() {
            let mut data = AlignedBuf::scratch(head.body_len());
            self.reader.read_exact(&mut data)?;
            return head.with_data(Arc::new(data), bytes).map_err(bad);
        }
        let mut body = vec![0; head.body_len()];
        self.reader.read_exact(&mut body)?;
        head.decode(&body).map_err(bad)
    }

    /// Whether the next message has begun to arrive.
    pub(crate) fn more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Both ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (near, far)
    }

    /// The peer was refused before the writer came to run: what it was refused for is in the words that it has yet to hear.
    #[test]
    fn the_first_words_go_also_when_the_peer_is_refused_before_they_went() {
        let (near, far) = pair();
        let out = Outbox::new(near);
        out.push(Msg::Ready { target: false });
        out.part();
        out.heard_all();
        out.write_all(&AtomicU64::new(0));
        let mut inbox = Inbox::new(far);
        let received = AtomicU64::new(0);
        assert!(matches!(inbox.read(&received).unwrap(), Msg::Ready { target: false }));
        assert_eq!(inbox.read(&received).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn later_words_do_not_hold_up_the_end() {
        let (near, far) = pair();
        let out = Outbox::new(near);
        out.push(Msg::Ready { target: false });
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| out.write_all(&AtomicU64::new(0)));
            let mut inbox = Inbox::new(far);
            let received = AtomicU64::new(0);
            assert!(matches!(inbox.read(&received).unwrap(), Msg::Ready { .. }));
            while !out.lock().greeted {
                std::thread::yield_now();
            }
            out.part();
            out.push(Msg::Ready { target: true });
            writer.join().unwrap();
            let rest = loop {
                match inbox.read(&received) {
                    Ok(Msg::Ping) => {}
                    other => break other,
                }
            };
            assert!(rest.is_err(), "{rest:?}");
        });
    }
}
