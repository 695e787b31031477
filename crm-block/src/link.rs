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

    /// The next messages to write; empty = closed.
    fn next(&self) -> Vec<Msg<Buffer>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
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
