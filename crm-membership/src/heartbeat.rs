//! Heartbeats: a thread of its own that sends a datagram to every peer each interval and feeds what comes
//! back to the failure detector. It never waits for the async runtime, the disk or a lock held over I/O.
//!
//! A datagram, integers little endian:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `CRMH` |
//! | 4 | 1 | version, 2 |
//! | 5 | 1 | mode hint |
//! | 6 | 8 | sender's raft id |
//! | 14 | 8 | receiver's raft id |
//! | 22 | 8 | sender's incarnation |
//! | 30 | 8 | sequence: microseconds since the sender's thread began |
//! | 38 | 8 | receiver's incarnation as the sender last heard it, 0 = not yet |
//! | 46 | 8 | sender's session |
//! | 54 | 8 | sequence of the newest beat of the receiver that the sender has heard, 0 = none |
//! | 62 | 32 | HMAC-SHA256 of the above with the cluster's heartbeat key |

use crate::sys;
use crm_quorum::{Beat, Detector, Heard, Timing};
use ring::hmac;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

const MAGIC: &[u8; 4] = b"CRMH";
const VERSION: u8 = 2;
const SIGNED: usize = 62;
const LENGTH: usize = SIGNED + 32;

/// How a peer is, as its heartbeats tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerHealth {
    /// Heard within the limit.
    pub alive: bool,
    /// Session of its daemon (0 = never heard, or it has none yet).
    pub session: u64,
    /// The byte that its daemon says of itself.
    pub mode_hint: u8,
    /// When it was last heard.
    pub last_seen: Option<Instant>,
    /// When the newest of our beats that it has heard was sent: until the dead interval after that it takes us for alive.
    pub heard_us: Option<Instant>,
}

/// Where a peer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) raft_id: u64,
    pub(crate) address: SocketAddr,
}

/// A peer came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Returned { name: String, incarnation: u64 },
    Died(String),
}

/// What the thread needs to begin.
pub(crate) struct Setup {
    pub(crate) raft_id: u64,
    pub(crate) incarnation: u64,
    pub(crate) timing: Timing,
    pub(crate) key: hmac::Key,
    pub(crate) socket: UdpSocket,
    pub(crate) realtime: bool,
}

/// Shared with the thread.
#[derive(Debug, Default)]
struct Shared {
    session: AtomicU64,
    mode_hint: AtomicU8,
    stop: AtomicBool,
    targets: Mutex<Vec<Target>>,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    shared: Arc<Shared>,
    peers: watch::Receiver<BTreeMap<String, PeerHealth>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Heartbeats {
    /// Starts the thread. Changes go to `changes`.
    pub(crate) fn start(setup: Setup, changes: mpsc::UnboundedSender<Change>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (tell, peers) = watch::channel(BTreeMap::new());
        let mut pulse = Pulse {
            began: Instant::now(),
            seq: 0,
            detector: Detector::new(setup.timing),
            targets: Vec::new(),
            heard_us: BTreeMap::new(),
            setup,
            shared: Arc::clone(&shared),
            tell,
            changes,
        };
        let thread = std::thread::Builder::new()
            .name("crm-heartbeat".to_owned())
            .spawn(move || pulse.run())?;
        Ok(Self { shared, peers, thread: Mutex::new(Some(thread)) })
    }

    /// Without a thread: what the others are is told.
    #[cfg(test)]
    pub(crate) fn told(peers: watch::Receiver<BTreeMap<String, PeerHealth>>) -> Self {
        Self { shared: Arc::new(Shared::default()), peers, thread: Mutex::new(None) }
    }

    pub(crate) fn peers(&self) -> watch::Receiver<BTreeMap<String, PeerHealth>> {
        self.peers.clone()
    }

    /// Sends to these from the next beat on.
    pub(crate) fn aim(&self, targets: Vec<Target>) {
        *self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets;
    }

    pub(crate) fn set_session(&self, session: u64) {
        self.shared.session.store(session, Ordering::Release);
    }

    pub(crate) fn set_mode_hint(&self, hint: u8) {
        self.shared.mode_hint.store(hint, Ordering::Release);
    }

    /// Tells the thread to end, and does not wait for it.
    pub(crate) fn fall_silent(&self) {
        self.shared.stop.store(true, Ordering::Release);
    }

    /// Ends the thread; it takes an interval at most.
    pub(crate) fn stop(&self) {
        self.fall_silent();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the heartbeat thread panicked");
        }
    }
}

/// The thread's own state.
struct Pulse {
    setup: Setup,
    began: Instant,
    seq: u64,
    detector: Detector,
    targets: Vec<Target>,
    /// By peer: the newest of our beats that it has heard.
    heard_us: BTreeMap<String, u64>,
    shared: Arc<Shared>,
    tell: watch::Sender<BTreeMap<String, PeerHealth>>,
    changes: mpsc::UnboundedSender<Change>,
}

impl Pulse {
    fn run(&mut self) {
        if self.setup.realtime {
            if let Err(error) = sys::run_in_real_time() {
                tracing::warn!(%error, "no real-time priority for heartbeats: a busy node may look dead");
            }
            if let Err(error) = sys::lock_memory() {
                tracing::warn!(%error, "cannot lock memory: a swapping node may look dead");
            }
        }
        let interval = Duration::from_millis(self.setup.timing.interval_ms);
        let mut next = Instant::now();
        while !self.shared.stop.load(Ordering::Acquire) {
            self.retarget();
            self.send_all();
            next = (next + interval).max(Instant::now());
            self.listen_until(next);
            self.tick();
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn retarget(&mut self) {
        let wanted = self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if wanted != self.targets {
            self.detector.watch(&wanted.iter().map(|t| (t.name.clone(), 1)).collect());
            self.targets = wanted;
            self.publish();
        }
    }

    fn send_all(&mut self) {
        for index in 0..self.targets.len() {
            self.send(index);
        }
    }

    fn send(&mut self, index: usize) {
        let Some(target) = self.targets.get(index) else { return };
        let now_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.seq = (self.seq + 1).max(now_us);
        let packet = Packet {
            mode_hint: self.shared.mode_hint.load(Ordering::Acquire),
            from: self.setup.raft_id,
            to: target.raft_id,
            incarnation: self.setup.incarnation,
            seq: self.seq,
            echo: self.detector.incarnation_of(&target.name),
            session: self.shared.session.load(Ordering::Acquire),
            heard: self.detector.newest_of(&target.name),
        };
        // A send that fails (no route, peer's port closed) is what the peer's silence will tell anyway.
        if let Err(error) = self.setup.socket.send_to(&packet.seal(&self.setup.key), target.address)
        {
            tracing::trace!(%error, peer = target.name, "heartbeat not sent");
        }
    }

    /// Takes in beats until `until`, and then those that are waiting already.
    fn listen_until(&mut self, until: Instant) {
        let mut buffer = [0_u8; LENGTH + 1];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let waiting = if left.is_zero() {
                self.setup.socket.set_nonblocking(true)
            } else {
                self.setup
                    .socket
                    .set_nonblocking(false)
                    .and_then(|()| self.setup.socket.set_read_timeout(Some(left)))
            };
            if let Err(error) = waiting {
                tracing::error!(%error, "heartbeat socket");
            }
            match self.setup.socket.recv_from(&mut buffer) {
                Ok((length, _)) => self.take_in(buffer.get(..length).unwrap_or(&[])),
                Err(_) if left.is_zero() => return,
                // A timeout, or the ICMP answer to an earlier send: keep listening.
                Err(_) => {}
            }
        }
    }

    fn take_in(&mut self, datagram: &[u8]) {
        let Some(packet) = Packet::open(datagram, &self.setup.key) else {
            tracing::trace!("datagram without a valid seal ignored");
            return;
        };
        if packet.to != self.setup.raft_id {
            return;
        }
        let Some(index) = self.targets.iter().position(|t| t.raft_id == packet.from) else {
            return;
        };
        let Some(name) = self.targets.get(index).map(|t| t.name.clone()) else { return };
        let beat = Beat {
            incarnation: packet.incarnation,
            seq: packet.seq,
            knows_us: packet.echo == self.setup.incarnation,
            session: packet.session,
            mode_hint: packet.mode_hint,
            rtt_us: None,
        };
        let before = self.detector.incarnation_of(&name);
        let heard = self.detector.heard(self.now_ms(), &name, 0, beat);
        if matches!(heard, Heard::Returned | Heard::Fresh) {
            let newest = self.heard_us.entry(name.clone()).or_default();
            *newest = packet.heard.max(*newest);
        }
        match heard {
            Heard::Returned => {
                tracing::info!(peer = name, session = beat.session, "heartbeats are back");
                self.publish();
                self.report(Change::Returned { name, incarnation: beat.incarnation });
            }
            Heard::Fresh => self.publish(),
            Heard::Stranger => {
                if before != beat.incarnation {
                    self.send(index);
                }
            }
            Heard::Overtaken | Heard::Replayed | Heard::Unknown => {
                tracing::debug!(peer = name, seq = beat.seq, "old heartbeat ignored");
            }
        }
    }

    fn tick(&mut self) {
        let tick = self.detector.tick(self.now_ms());
        if tick.stalled {
            tracing::warn!("this node stalled: nobody is accused in this round");
        }
        if !tick.died.is_empty() {
            self.publish();
        }
        for name in tick.late {
            tracing::warn!(peer = name, "no heartbeats for three quarters of the limit");
        }
        for name in tick.died {
            tracing::warn!(peer = name, "heartbeats stopped: node is considered dead");
            self.report(Change::Died(name));
        }
    }

    fn report(&self, change: Change) {
        if self.changes.send(change).is_err() {
            tracing::debug!("nobody listens to peer changes any more");
        }
    }

    /// When the newest of our beats that a peer has heard was sent.
    fn sent_at(&self, name: &str) -> Option<Instant> {
        let seq = self.heard_us.get(name).copied().filter(|seq| *seq > 0)?;
        self.began.checked_add(Duration::from_micros(seq))
    }

    /// Shows the newest view; wakes the watchers only when more than the time of the last beat changed.
    fn publish(&self) {
        let view: BTreeMap<String, PeerHealth> = self
            .detector
            .peers()
            .map(|(name, health)| {
                let health = PeerHealth {
                    alive: health.alive,
                    session: health.session,
                    mode_hint: health.mode_hint,
                    last_seen: health.heard_ms.map(|ms| self.began + Duration::from_millis(ms)),
                    heard_us: self.sent_at(name),
                };
                (name.to_owned(), health)
            })
            .collect();
        let essence = |view: &BTreeMap<String, PeerHealth>| -> Vec<(String, bool, u64, u8)> {
            view.iter().map(|(n, h)| (n.clone(), h.alive, h.session, h.mode_hint)).collect()
        };
        self.tell.send_if_modified(|shown| {
            let news = essence(shown) != essence(&view);
            *shown = view;
            news
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packet {
    mode_hint: u8,
    from: u64,
    to: u64,
    incarnation: u64,
    seq: u64,
    echo: u64,
    session: u64,
    heard: u64,
}

impl Packet {
    fn seal(&self, key: &hmac::Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.mode_hint]);
        let numbers = [self.incarnation, self.seq, self.echo, self.session, self.heard];
        for word in [self.from, self.to].into_iter().chain(numbers) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let tag = hmac::sign(key, &bytes);
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    fn open(datagram: &[u8], key: &hmac::Key) -> Option<Self> {
        if datagram.len() != LENGTH {
            return None;
        }
        let (signed, tag) = datagram.split_at_checked(SIGNED)?;
        hmac::verify(key, signed, tag).ok()?;
        let rest = signed.strip_prefix(MAGIC.as_slice())?;
        let ([version, mode_hint], words) = rest.split_first_chunk::<2>()?;
        if *version != VERSION {
            return None;
        }
        let mut words =
            words.chunks_exact(8).filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes));
        Some(Self {
            mode_hint: *mode_hint,
            from: words.next()?,
            to: words.next()?,
            incarnation: words.next()?,
            seq: words.next()?,
            echo: words.next()?,
            session: words.next()?,
            heard: words.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: Packet = Packet {
        mode_hint: 3,
        from: 1,
        to: 2,
        incarnation: 9,
        seq: 4,
        echo: 8,
        session: 77,
        heard: 6,
    };

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    #[test]
    fn packet_survives_the_wire_and_any_flipped_bit_is_noticed() {
        let sealed = PACKET.seal(&key(1));
        assert_eq!(sealed.len(), LENGTH);
        assert_eq!(Packet::open(&sealed, &key(1)), Some(PACKET));
        assert_eq!(Packet::open(&sealed, &key(2)), None);
        for position in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[position] ^= 1;
            assert_eq!(Packet::open(&bad, &key(1)), None, "byte {position}");
        }
        assert_eq!(Packet::open(&sealed[..LENGTH - 1], &key(1)), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn no_datagram_is_read_without_the_key_and_with_it_any_is_read_or_refused(
            signed in proptest::collection::vec(proptest::prelude::any::<u8>(), SIGNED),
            tag in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
            begun: bool,
        ) {
            let mut signed = signed;
            if begun {
                signed[..5].copy_from_slice(&[MAGIC.as_slice(), &[VERSION]].concat());
            }
            assert_eq!(Packet::open(&[signed.clone(), tag].concat(), &key(1)), None);
            let seal = |key| [signed.as_slice(), hmac::sign(&key, &signed).as_ref()].concat();
            assert_eq!(Packet::open(&seal(key(2)), &key(1)), None);
            match Packet::open(&seal(key(1)), &key(1)) {
                Some(packet) => assert_eq!(packet.seal(&key(1)), seal(key(1))),
                None => assert!(!begun),
            }
        }
    }

    /// A peer made by hand, against the real thread.
    struct Hand {
        socket: UdpSocket,
        to: SocketAddr,
    }

    impl Hand {
        fn say(&self, incarnation: u64, seq: u64, echo: u64, heard: u64) -> Vec<u8> {
            let packet =
                Packet { mode_hint: 0, from: 2, to: 1, incarnation, seq, echo, session: 5, heard };
            let sealed = packet.seal(&key(1));
            self.socket.send_to(&sealed, self.to).unwrap();
            sealed
        }

        fn hear(&self) -> Packet {
            let mut buffer = [0; LENGTH];
            let length = self.socket.recv(&mut buffer).unwrap();
            Packet::open(&buffer[..length], &key(1)).unwrap()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn peer_lives_by_answers_and_a_recording_does_not_keep_it_alive() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = socket.local_addr().unwrap();
        let hand = Hand { socket: UdpSocket::bind("127.0.0.1:0").unwrap(), to };
        hand.socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let (changes, mut changed) = mpsc::unbounded_channel();
        let setup = Setup {
            raft_id: 1,
            incarnation: 1000,
            timing: crm_quorum::Failover::Fast.timing(),
            key: key(1),
            socket,
            realtime: true,
        };
        let beats = Heartbeats::start(setup, changes).unwrap();
        let address = hand.socket.local_addr().unwrap();
        beats.aim(vec![Target { name: "b".into(), raft_id: 2, address }]);
        assert_eq!(hand.hear().incarnation, 1000);
        // Without the echo of its incarnation the thread only answers.
        hand.say(7, 1, 0, 0);
        while hand.hear().echo != 7 {}
        assert!(!beats.peers().borrow()["b"].alive);
        // What it has heard of ours is dated by our own clock.
        let (before, ours) = (Instant::now(), hand.hear());
        let recording = hand.say(7, 2, 1000, ours.seq);
        assert_eq!(
            changed.recv().await,
            Some(Change::Returned { name: "b".into(), incarnation: 7 })
        );
        let sent = beats.peers().borrow()["b"].heard_us.unwrap();
        assert!(sent <= Instant::now() && sent + Duration::from_secs(4) > before, "{sent:?}");
        // The recording, played for ever, does not save the peer.
        let player = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                pace.tick().await;
                hand.socket.send_to(&recording, hand.to).unwrap();
            }
        });
        assert_eq!(changed.recv().await, Some(Change::Died("b".into())));
        player.abort();
        beats.stop();
    }
}
