//! Messages between replicas: a header of 48 bytes, then a body. Both carry a crc32c. Numbers are little endian.
//!
//! | offset | what |
//! |---|---|
//! | 0 | magic u32 |
//! | 4 | type u8 |
//! | 5 | flags u8 |
//! | 6 | zero u16 |
//! | 8 | id u64 |
//! | 16 | offset u64 |
//! | 24 | length u64 |
//! | 32 | mask u32 |
//! | 36 | bytes of the body u32 |
//! | 40 | crc32c of the body u32 |
//! | 44 | crc32c of bytes 0..44 u32 |

use crate::bitmap::{index, number};
use crate::lineage::{Disk, HISTORY, Hello};
use crate::meta::MOST_REPLICAS;
use std::borrow::Cow;

/// Bytes of a header.
pub const HEAD: usize = 48;
/// Most bytes of a body.
pub const MOST_BODY: u32 = 16 << 20;
/// Most runs in one message.
pub const MOST_RUNS: usize = 4096;
/// Most extents in one message: all of a volume of 8 TiB.
const MOST_EXTENTS: usize = 2 << 20;
const MAGIC: u32 = 0x314b_4c42;

/// A message. `D` is the bytes of a write, kept by whoever does the input and output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Msg<D> {
    /// Keeps the connection alive; the state machine never sees it.
    Ping,
    /// First message of both sides.
    Hello(Box<Hello>),
    /// Blocks that may differ, in the eyes of the sender.
    Bits {
        /// `(first, length)`.
        runs: Vec<(u64, u64)>,
        /// No more follow.
        last: bool,
    },
    /// The sender has stored what the handshake decided.
    Ready {
        /// The sender will be the target of a sync.
        target: bool,
    },
    /// A write of the application.
    Write {
        /// For the answer.
        id: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Replicas that get it.
        mask: u32,
        /// Payload.
        data: D,
    },
    /// Zeroes, by the application.
    Zero {
        /// For the answer.
        id: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Replicas that get it.
        mask: u32,
    },
    /// The write is on the disk (maybe in its cache).
    WriteAck {
        /// Which.
        id: u64,
    },
    /// Make durable what was acknowledged.
    Flush {
        /// For the answer.
        id: u64,
    },
    /// Done.
    FlushAck {
        /// Which.
        id: u64,
    },
    /// Resync.
    SyncData {
        /// For the answer.
        id: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Payload.
        data: D,
    },
    /// Resync of a range that is zero.
    SyncZero {
        /// For the answer.
        id: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Resync write done.
    SyncAck {
        /// Which.
        id: u64,
    },
    /// Become my target now (connection stays).
    SyncStart,
    /// The target has stored that it is one.
    SyncStarted,
    /// The target has everything: take my lineage.
    SyncDone {
        /// Lineage of the source.
        hello: Box<Hello>,
        /// Replicas that need everything, in the eyes of the source.
        full: u32,
    },
    /// Lineage stored.
    SyncDoneAck,
    /// Something about the sender changed.
    State {
        /// Its disk.
        disk: Disk,
        /// It is primary.
        primary: bool,
        /// It sees this primary.
        sees_primary: Option<u8>,
        /// Its generation.
        current: u64,
    },
    /// The primary goes on without `behind`, in a new generation.
    NewGen {
        /// For the answer.
        id: u64,
        /// New generation.
        generation: u64,
        /// Replicas left behind.
        behind: u32,
    },
    /// Stored.
    GenAck {
        /// Which.
        id: u64,
    },
    /// Blocks a replica may lack, as the primary knows.
    OutOfSync {
        /// The replica.
        peer: u8,
        /// `(first, length)`.
        runs: Vec<(u64, u64)>,
    },
    /// Extents that are the same (flushed) on all of `mask`.
    Cold {
        /// Extents.
        extents: Vec<u32>,
        /// Replicas.
        mask: u32,
    },
    /// These replicas have every acknowledged write.
    InSync {
        /// Replicas.
        mask: u32,
    },
    /// May I become primary?
    PromoteAsk {
        /// For the answer.
        id: u64,
    },
    /// Answer.
    PromoteAns {
        /// Which.
        id: u64,
        /// Yes.
        ok: bool,
        /// Extents in which the answering replica may differ from the asking one.
        hot: Vec<u32>,
    },
    /// Outcome.
    PromoteDone {
        /// It is primary.
        ok: bool,
    },
    /// The sender detaches cleanly: all that it has acknowledged is durable.
    Leave,
}

/// What is wrong with received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Not our protocol.
    #[error("not a message of this protocol")]
    Magic,
    /// Damaged header.
    #[error("header checksum differs")]
    HeadSum,
    /// Damaged body.
    #[error("body checksum differs")]
    BodySum,
    /// Unknown type.
    #[error("unknown message type {0}")]
    Type(u8),
    /// Body too long.
    #[error("body of {0} bytes is too long")]
    Length(u32),
    /// Body is not what the type wants.
    #[error("malformed body")]
    Body,
}

/// A decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    kind: u8,
    flags: u8,
    id: u64,
    offset: u64,
    len: u64,
    mask: u32,
    body: u32,
    body_crc: u32,
}

/// An encoded message.
#[derive(Debug)]
pub struct Frame<'a> {
    /// Header.
    pub head: [u8; HEAD],
    /// Body.
    pub body: Cow<'a, [u8]>,
}

const WRITE: u8 = 4;
const SYNC_DATA: u8 = 9;

impl Head {
    fn new(kind: u8) -> Self {
        Self { kind, flags: 0, id: 0, offset: 0, len: 0, mask: 0, body: 0, body_crc: 0 }
    }

    fn bytes(&self) -> [u8; HEAD] {
        let mut b = [0; HEAD];
        b[..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[4] = self.kind;
        b[5] = self.flags;
        b[8..16].copy_from_slice(&self.id.to_le_bytes());
        b[16..24].copy_from_slice(&self.offset.to_le_bytes());
        b[24..32].copy_from_slice(&self.len.to_le_bytes());
        b[32..36].copy_from_slice(&self.mask.to_le_bytes());
        b[36..40].copy_from_slice(&self.body.to_le_bytes());
        b[40..44].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32c::crc32c(&b[..44]);
        b[44..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Reads a header.
    ///
    /// # Errors
    /// When it is damaged or not ours.
    pub fn parse(b: &[u8; HEAD]) -> Result<Self, Bad> {
        let mut input = Input(b);
        if input.u32()? != MAGIC {
            return Err(Bad::Magic);
        }
        let (kind, flags) = (input.u8()?, input.u8()?);
        input.take(2)?;
        let head = Self {
            kind,
            flags,
            id: input.u64()?,
            offset: input.u64()?,
            len: input.u64()?,
            mask: input.u32()?,
            body: input.u32()?,
            body_crc: input.u32()?,
        };
        if input.u32()? != crc32c::crc32c(&b[..44]) {
            return Err(Bad::HeadSum);
        }
        if head.body > MOST_BODY {
            return Err(Bad::Length(head.body));
        }
        Ok(head)
    }

    /// Bytes of the body that follows.
    #[must_use]
    pub fn body_len(&self) -> usize {
        index(u64::from(self.body))
    }

    /// Whether the body is the payload of a write: then use [`Self::with_data`], else [`Self::decode`].
    #[must_use]
    pub fn carries_data(&self) -> bool {
        self.kind == WRITE || self.kind == SYNC_DATA
    }

    fn check(&self, body: &[u8]) -> Result<(), Bad> {
        if body.len() != self.body_len() {
            return Err(Bad::Body);
        }
        if crc32c::crc32c(body) != self.body_crc { Err(Bad::BodySum) } else { Ok(()) }
    }

    /// The message with its payload.
    ///
    /// # Errors
    /// When the payload is damaged.
    pub fn with_data<D>(&self, data: D, view: impl FnOnce(&D) -> &[u8]) -> Result<Msg<D>, Bad> {
        let bytes = view(&data);
        self.check(bytes)?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(512) {
            return Err(Bad::Body);
        }
        match self.kind {
            WRITE => Ok(Msg::Write {
                id: self.id,
                offset: self.offset,
                len: number(self.body_len()),
                mask: self.mask,
                data,
            }),
            SYNC_DATA => Ok(Msg::SyncData {
                id: self.id,
                offset: self.offset,
                len: number(self.body_len()),
                data,
            }),
            other => Err(Bad::Type(other)),
        }
    }

    /// A message without payload.
    ///
    /// # Errors
    /// When the body is damaged or malformed.
    pub fn decode<D>(&self, body: &[u8]) -> Result<Msg<D>, Bad> {
        self.check(body)?;
        let mut input = Input(body);
        let id = self.id;
        let flag = self.flags & 1 != 0;
        let msg = match self.kind {
            0 => Msg::Ping,
            1 => Msg::Hello(Box::new(hello(&mut input)?)),
            2 => Msg::Bits { runs: runs(&mut input)?, last: flag },
            3 => Msg::Ready { target: flag },
            5 => Msg::Zero { id, offset: self.offset, len: self.len, mask: self.mask },
            6 => Msg::WriteAck { id },
            7 => Msg::Flush { id },
            8 => Msg::FlushAck { id },
            10 => Msg::SyncZero { id, offset: self.offset, len: self.len },
            11 => Msg::SyncAck { id },
            12 => Msg::SyncStart,
            13 => Msg::SyncStarted,
            14 => Msg::SyncDone { hello: Box::new(hello(&mut input)?), full: self.mask },
            15 => Msg::SyncDoneAck,
            16 => Msg::State {
                disk: disk(input.u8()?)?,
                primary: flag,
                sees_primary: node(input.u8()?),
                current: id,
            },
            17 => Msg::NewGen { id, generation: self.offset, behind: self.mask },
            18 => Msg::GenAck { id },
            19 => Msg::OutOfSync { peer: input.u8()?, runs: runs(&mut input)? },
            20 => Msg::Cold { extents: extents(&mut input)?, mask: self.mask },
            21 => Msg::InSync { mask: self.mask },
            22 => Msg::PromoteAsk { id },
            23 => Msg::PromoteAns { id, ok: flag, hot: extents(&mut input)? },
            24 => Msg::PromoteDone { ok: flag },
            25 => Msg::Leave,
            other => return Err(Bad::Type(other)),
        };
        if input.0.is_empty() { Ok(msg) } else { Err(Bad::Body) }
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], Bad> {
        if self.0.len() < n {
            return Err(Bad::Body);
        }
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32, Bad> {
        let mut raw = [0; 4];
        raw.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(raw))
    }

    fn u64(&mut self) -> Result<u64, Bad> {
        let mut raw = [0; 8];
        raw.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(raw))
    }

    fn list<T>(
        &mut self,
        most: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, Bad>,
    ) -> Result<Vec<T>, Bad> {
        let count = index(u64::from(self.u32()?));
        if count > most {
            return Err(Bad::Body);
        }
        (0..count).map(|_| one(self)).collect()
    }
}

fn runs(input: &mut Input<'_>) -> Result<Vec<(u64, u64)>, Bad> {
    input.list(MOST_RUNS, |i| Ok((i.u64()?, i.u64()?)))
}

fn extents(input: &mut Input<'_>) -> Result<Vec<u32>, Bad> {
    input.list(MOST_EXTENTS, Input::u32)
}

fn node(byte: u8) -> Option<u8> {
    (byte != 255).then_some(byte)
}

fn disk(byte: u8) -> Result<Disk, Bad> {
    [Disk::Diskless, Disk::Inconsistent, Disk::Outdated, Disk::Consistent, Disk::UpToDate]
        .get(usize::from(byte))
        .copied()
        .ok_or(Bad::Body)
}

fn disk_byte(disk: Disk) -> u8 {
    match disk {
        Disk::Diskless => 0,
        Disk::Inconsistent => 1,
        Disk::Outdated => 2,
        Disk::Consistent => 3,
        Disk::UpToDate => 4,
    }
}

fn hello(input: &mut Input<'_>) -> Result<Hello, Bad> {
    let (index, disk_now, flags) = (input.u8()?, disk(input.u8()?)?, input.u8()?);
    let (sees_primary, target_of) = (node(input.u8()?), node(input.u8()?));
    Ok(Hello {
        index,
        disk: disk_now,
        primary: flags & 1 != 0,
        crashed: flags & 2 != 0,
        discard: flags & 4 != 0,
        sees_primary,
        target_of,
        size: input.u64()?,
        day0: input.u64()?,
        current: input.u64()?,
        goal: input.u64()?,
        base: input.u64()?,
        bitmap: input.list(MOST_REPLICAS, Input::u64)?,
        history: input.list(HISTORY, Input::u64)?,
    })
}

#[derive(Default)]
struct Output(Vec<u8>);

impl Output {
    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn count(&mut self, n: usize) {
        self.0.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn hello(mut self, h: &Hello) -> Vec<u8> {
        let flags = u8::from(h.primary) | u8::from(h.crashed) << 1 | u8::from(h.discard) << 2;
        self.0.extend_from_slice(&[
            h.index,
            disk_byte(h.disk),
            flags,
            h.sees_primary.unwrap_or(255),
            h.target_of.unwrap_or(255),
        ]);
        for value in [h.size, h.day0, h.current, h.goal, h.base] {
            self.u64(value);
        }
        for list in [&h.bitmap, &h.history] {
            self.count(list.len());
            list.iter().for_each(|g| self.u64(*g));
        }
        self.0
    }

    fn runs(mut self, runs: &[(u64, u64)]) -> Vec<u8> {
        self.count(runs.len());
        for (first, len) in runs {
            self.u64(*first);
            self.u64(*len);
        }
        self.0
    }

    fn extents(mut self, extents: &[u32]) -> Vec<u8> {
        self.count(extents.len());
        extents.iter().for_each(|e| self.0.extend_from_slice(&e.to_le_bytes()));
        self.0
    }
}

/// Encodes a message; `view` shows the bytes of its payload.
pub fn encode<'a, D>(msg: &'a Msg<D>, view: impl FnOnce(&'a D) -> &'a [u8]) -> Frame<'a> {
    let (mut head, body) = parts(msg, view);
    head.body = u32::try_from(body.len()).unwrap_or(u32::MAX);
    head.body_crc = crc32c::crc32c(&body);
    Frame { head: head.bytes(), body }
}

fn parts<'a, D>(msg: &'a Msg<D>, view: impl FnOnce(&'a D) -> &'a [u8]) -> (Head, Cow<'a, [u8]>) {
    let plain = |kind: u8, id: u64| (Head { id, ..Head::new(kind) }, Cow::Borrowed(&[][..]));
    let flagged = |kind: u8, on: bool| Head { flags: u8::from(on), ..Head::new(kind) };
    match msg {
        Msg::Ping => plain(0, 0),
        Msg::Hello(h) => (Head::new(1), Cow::Owned(Output::default().hello(h))),
        Msg::Bits { runs, last } => (flagged(2, *last), Cow::Owned(Output::default().runs(runs))),
        Msg::Ready { target } => (flagged(3, *target), Cow::Borrowed(&[])),
        Msg::Write { id, offset, len, mask, data } => (
            Head { id: *id, offset: *offset, len: *len, mask: *mask, ..Head::new(WRITE) },
            Cow::Borrowed(view(data)),
        ),
        Msg::Zero { id, offset, len, mask } => (
            Head { id: *id, offset: *offset, len: *len, mask: *mask, ..Head::new(5) },
            Cow::Borrowed(&[]),
        ),
        Msg::WriteAck { id } => plain(6, *id),
        Msg::Flush { id } => plain(7, *id),
        Msg::FlushAck { id } => plain(8, *id),
        Msg::SyncData { id, offset, len, data } => (
            Head { id: *id, offset: *offset, len: *len, ..Head::new(SYNC_DATA) },
            Cow::Borrowed(view(data)),
        ),
        Msg::SyncZero { id, offset, len } => {
            (Head { id: *id, offset: *offset, len: *len, ..Head::new(10) }, Cow::Borrowed(&[]))
        }
        Msg::SyncAck { id } => plain(11, *id),
        Msg::SyncStart => plain(12, 0),
        Msg::SyncStarted => plain(13, 0),
        Msg::SyncDone { hello, full } => {
            (Head { mask: *full, ..Head::new(14) }, Cow::Owned(Output::default().hello(hello)))
        }
        Msg::SyncDoneAck => plain(15, 0),
        Msg::State { disk, primary, sees_primary, current } => (
            Head { id: *current, ..flagged(16, *primary) },
            Cow::Owned(vec![disk_byte(*disk), sees_primary.unwrap_or(255)]),
        ),
        Msg::NewGen { id, generation, behind } => (
            Head { id: *id, offset: *generation, mask: *behind, ..Head::new(17) },
            Cow::Borrowed(&[]),
        ),
        Msg::GenAck { id } => plain(18, *id),
        Msg::OutOfSync { peer, runs } => {
            (Head::new(19), Cow::Owned(Output(vec![*peer]).runs(runs)))
        }
        Msg::Cold { extents, mask } => {
            (Head { mask: *mask, ..Head::new(20) }, Cow::Owned(Output::default().extents(extents)))
        }
        Msg::InSync { mask } => (Head { mask: *mask, ..Head::new(21) }, Cow::Borrowed(&[])),
        Msg::PromoteAsk { id } => plain(22, *id),
        Msg::PromoteAns { id, ok, hot } => {
            (Head { id: *id, ..flagged(23, *ok) }, Cow::Owned(Output::default().extents(hot)))
        }
        Msg::PromoteDone { ok } => (flagged(24, *ok), Cow::Borrowed(&[])),
        Msg::Leave => plain(25, 0),
    }
}

/// Bytes a message takes on the wire, without its payload.
#[must_use]
pub fn head_len() -> u64 {
    number(HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round(msg: &Msg<Vec<u8>>) -> Result<Msg<Vec<u8>>, Bad> {
        let frame = encode(msg, |d| d.as_slice());
        let head = Head::parse(&frame.head)?;
        if head.carries_data() {
            head.with_data(frame.body.to_vec(), |d| d)
        } else {
            head.decode(&frame.body)
        }
    }

    fn any_hello() -> impl Strategy<Value = Box<Hello>> {
        let lists = (
            proptest::collection::vec(any::<u64>(), 0..=8),
            proptest::collection::vec(any::<u64>(), 0..=32),
        );
        let node = || proptest::option::of(0u8..8);
        (any::<[u64; 4]>(), 0u8..5, any::<[bool; 3]>(), node(), node(), lists).prop_map(
            |(n, d, f, sees_primary, target_of, (bitmap, history))| {
                Box::new(Hello {
                    index: 1,
                    size: n[0],
                    day0: n[1],
                    current: n[2],
                    goal: n[3],
                    base: n[1],
                    bitmap,
                    history,
                    disk: disk(d).unwrap(),
                    primary: f[0],
                    crashed: f[1],
                    discard: f[2],
                    sees_primary,
                    target_of,
                })
            },
        )
    }

    fn any_msg() -> impl Strategy<Value = Msg<Vec<u8>>> {
        let runs = || proptest::collection::vec(any::<(u64, u64)>(), 0..20);
        let extents = || proptest::collection::vec(any::<u32>(), 0..20);
        let data = || (1usize..4, any::<u8>()).prop_map(|(n, b)| vec![b; n * 512]);
        prop_oneof![
            Just(Msg::Ping),
            Just(Msg::SyncStart),
            Just(Msg::SyncStarted),
            Just(Msg::SyncDoneAck),
            any_hello().prop_map(Msg::Hello),
            (runs(), any::<bool>()).prop_map(|(runs, last)| Msg::Bits { runs, last }),
            any::<bool>().prop_map(|target| Msg::Ready { target }),
            (any::<(u64, u64, u32)>(), data()).prop_map(|((id, offset, mask), data)| Msg::Write {
                id,
                offset,
                len: number(data.len()),
                mask,
                data
            }),
            any::<(u64, u64, u64, u32)>().prop_map(|(id, offset, len, mask)| Msg::Zero {
                id,
                offset,
                len,
                mask
            }),
            any::<u64>().prop_map(|id| Msg::WriteAck { id }),
            any::<u64>().prop_map(|id| Msg::Flush { id }),
            any::<u64>().prop_map(|id| Msg::FlushAck { id }),
            any::<u64>().prop_map(|id| Msg::SyncAck { id }),
            (any::<(u64, u64)>(), data()).prop_map(|((id, offset), data)| Msg::SyncData {
                id,
                offset,
                len: number(data.len()),
                data
            }),
            any::<(u64, u64, u64)>().prop_map(|(id, offset, len)| Msg::SyncZero {
                id,
                offset,
                len
            }),
            (any_hello(), any::<u32>()).prop_map(|(hello, full)| Msg::SyncDone { hello, full }),
            (0u8..5, any::<bool>(), proptest::option::of(0u8..8), any::<u64>()).prop_map(
                |(d, primary, sees_primary, current)| Msg::State {
                    disk: disk(d).unwrap(),
                    primary,
                    sees_primary,
                    current
                }
            ),
            any::<(u64, u64, u32)>().prop_map(|(id, generation, behind)| Msg::NewGen {
                id,
                generation,
                behind
            }),
            any::<u64>().prop_map(|id| Msg::GenAck { id }),
            (any::<u8>(), runs()).prop_map(|(peer, runs)| Msg::OutOfSync { peer, runs }),
            (extents(), any::<u32>()).prop_map(|(extents, mask)| Msg::Cold { extents, mask }),
            any::<u32>().prop_map(|mask| Msg::InSync { mask }),
            any::<u64>().prop_map(|id| Msg::PromoteAsk { id }),
            (any::<u64>(), any::<bool>(), extents()).prop_map(|(id, ok, hot)| Msg::PromoteAns {
                id,
                ok,
                hot
            }),
            any::<bool>().prop_map(|ok| Msg::PromoteDone { ok }),
            Just(Msg::Leave),
        ]
    }

    /// Bytes with both checksums right: what a peer with the key, or a bug of his, can send.
    fn sealed(kind: u8, flags: u8, numbers: (u64, u64, u64, u32), body: &[u8]) -> [u8; HEAD] {
        let (id, offset, len, mask) = numbers;
        let body_crc = crc32c::crc32c(body);
        let body = u32::try_from(body.len()).unwrap();
        Head { kind, flags, id, offset, len, mask, body, body_crc }.bytes()
    }

    proptest! {
        #[test]
        fn whatever_a_peer_seals_is_refused_or_is_a_message_that_comes_back(
            (kind, flags, numbers) in (0u8..30, any::<u8>(), any::<(u64, u64, u64, u32)>()),
            counts in proptest::collection::vec(prop_oneof![0u32..9, any::<u32>()], 0..3),
            rest in proptest::collection::vec(prop_oneof![0u8..9, any::<u8>()], 0..200),
        ) {
            let mut body: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
            body.extend(rest);
            let head = Head::parse(&sealed(kind, flags, numbers, &body))?;
            let msg = if head.carries_data() {
                head.with_data(body.clone(), |d| d)
            } else {
                head.decode(&body)
            };
            if let Ok(msg) = msg {
                prop_assert_eq!(round(&msg), Ok(msg));
            }
        }

        #[test]
        fn a_header_of_any_bytes_asks_for_no_more_than_the_longest_body(
            mut raw in any::<[[u8; 16]; 3]>(),
            body: u32,
        ) {
            raw[0][..4].copy_from_slice(&MAGIC.to_le_bytes());
            raw[2][4..8].copy_from_slice(&body.to_le_bytes());
            let mut raw: [u8; HEAD] = raw.as_flattened().try_into().unwrap();
            let sum = crc32c::crc32c(&raw[..44]);
            raw[44..].copy_from_slice(&sum.to_le_bytes());
            match Head::parse(&raw) {
                Ok(head) => prop_assert!(head.body_len() <= index(u64::from(MOST_BODY))),
                Err(refused) => prop_assert_eq!(refused, Bad::Length(body)),
            }
        }

        #[test]
        fn every_message_comes_back(msg in any_msg()) {
            prop_assert_eq!(round(&msg), Ok(msg));
        }

        #[test]
        fn damage_is_always_noticed(msg in any_msg(), at: usize, bit in 0u8..8) {
            let frame = encode(&msg, |d| d.as_slice());
            let mut all = frame.head.to_vec();
            all.extend_from_slice(&frame.body);
            let at = at % all.len();
            all[at] ^= 1 << bit;
            let mut raw = [0; HEAD];
            raw.copy_from_slice(&all[..HEAD]);
            let result = Head::parse(&raw).and_then(|h| if h.carries_data() { h.with_data(all[HEAD..].to_vec(), |d| d) } else { h.decode(&all[HEAD..]) });
            prop_assert!(result.is_err());
        }

        #[test]
        fn garbage_never_panics(kind: u8, mut head: [u8; HEAD], body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Head::parse(&head);
            head[..4].copy_from_slice(&MAGIC.to_le_bytes());
            head[4] = kind % 27;
            head[36..40].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
            head[40..44].copy_from_slice(&crc32c::crc32c(&body).to_le_bytes());
            let crc = crc32c::crc32c(&head[..44]);
            head[44..].copy_from_slice(&crc.to_le_bytes());
            let head = Head::parse(&head).unwrap();
            let _ = head.decode::<Vec<u8>>(&body);
            let _ = head.with_data(body, |d| d);
        }
    }
}
