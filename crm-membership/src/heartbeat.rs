//! Heartbeats: a thread of its own that sends a datagram to every peer each interval and feeds what comes
//! back to the failure detector. It never waits for the async runtime, the disk or a lock held over I/O.
//!
//! Each link has a socket of its own: what is sent over link i comes from the socket of our link i and goes to link i of the peer.
//! A beat counts only on the socket of the link that it names under its seal.

pub(crate) mod packet;
mod sockets;

use self::packet::Packet;
use self::sockets::Sockets;
use crate::sys;
use crm_quorum::{Beat, Detector, Heard, LinkChange, Timing};
use ring::hmac;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Datagrams taken in beyond the end of an interval at most: a flood must not keep us from sending.
const LEFT_OVER_MAX: usize = 1024;

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

/// How a link to a peer is, as the heartbeats on it tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSeen {
    /// It carries both ways.
    pub up: bool,
    /// Since when that is so.
    pub since: Instant,
    /// When something was last heard on it.
    pub last_seen: Option<Instant>,
    /// When the newest of our beats on it that the peer has heard was sent.
    pub answered: Option<Instant>,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
}

/// The links to each peer, in their order.
pub(crate) type Links = BTreeMap<String, Vec<LinkSeen>>;

/// What each peer said last of service quorum, as long as it is alive; nothing of those that say nothing.
pub(crate) type Words = BTreeMap<String, Arc<[u8]>>;

/// Where a peer is: the address of each of its links, as far as its name could be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) raft_id: u64,
    pub(crate) addresses: Vec<Option<SocketAddr>>,
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
    /// One for each link of this node, in their order.
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) realtime: bool,
}

/// Shared with the thread.
#[derive(Debug, Default)]
struct Shared {
    session: AtomicU64,
    mode_hint: AtomicU8,
    stop: AtomicBool,
    targets: Mutex<Vec<Target>>,
    /// To be used instead of those in use.
    sockets: Mutex<Option<Vec<UdpSocket>>>,
    /// What this node says of service quorum.
    word: Mutex<Arc<[u8]>>,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    shared: Arc<Shared>,
    peers: watch::Receiver<BTreeMap<String, PeerHealth>>,
    links: watch::Receiver<Links>,
    words: watch::Receiver<Words>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Heartbeats {
    /// Starts the thread. Changes go to `changes`.
    pub(crate) fn start(setup: Setup, changes: mpsc::UnboundedSender<Change>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (tell, peers) = watch::channel(BTreeMap::new());
        let (tell_links, links) = watch::channel(BTreeMap::new());
        let (tell_words, words) = watch::channel(Words::new());
        let mut setup = setup;
        let mut pulse = Pulse {
            began: Instant::now(),
            seq: 0,
            detector: Detector::new(setup.timing),
            sockets: Sockets::new(std::mem::take(&mut setup.sockets))?,
            targets: Vec::new(),
            heard_us: BTreeMap::new(),
            wires: BTreeMap::new(),
            setup,
            shared: Arc::clone(&shared),
            tell,
            tell_links,
            tell_words,
            said: Words::new(),
            word: Arc::default(),
            changes,
        };
        let thread = std::thread::Builder::new()
            .name("crm-heartbeat".to_owned())
            .spawn(move || pulse.run())?;
        Ok(Self { shared, peers, links, words, thread: Mutex::new(Some(thread)) })
    }

    /// Without a thread: what the others are is told.
    #[cfg(test)]
    pub(crate) fn told(peers: watch::Receiver<BTreeMap<String, PeerHealth>>) -> Self {
        let (links, words) = (watch::channel(Links::new()).1, watch::channel(Words::new()).1);
        Self { shared: Arc::new(Shared::default()), peers, links, words, thread: Mutex::new(None) }
    }

    pub(crate) fn peers(&self) -> watch::Receiver<BTreeMap<String, PeerHealth>> {
        self.peers.clone()
    }

    pub(crate) fn links(&self) -> watch::Receiver<Links> {
        self.links.clone()
    }

    pub(crate) fn words(&self) -> watch::Receiver<Words> {
        self.words.clone()
    }

    /// Says this of service quorum from the next beat on.
    pub(crate) fn say(&self, word: Arc<[u8]>) {
        *self.shared.word.lock().unwrap_or_else(PoisonError::into_inner) = word;
    }

    /// Uses these sockets from the next beat on, one for each link.
    pub(crate) fn adopt(&self, sockets: Vec<UdpSocket>) {
        *self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner) = Some(sockets);
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

/// What the thread keeps of a link to a peer, besides the detector.
#[derive(Debug, Clone, Copy)]
struct Wire {
    /// The newest beat that came over it: incarnation, sequence, when (our clock, microseconds).
    came: Option<(u64, u64, u64)>,
    /// The newest of our beats on it that the peer has heard (0 = none).
    answered_us: u64,
    /// What the last tick told, and when it changed.
    up: bool,
    since: Instant,
}

impl Wire {
    fn new() -> Self {
        Self { came: None, answered_us: 0, up: false, since: Instant::now() }
    }
}

/// The thread's own state.
struct Pulse {
    setup: Setup,
    began: Instant,
    seq: u64,
    detector: Detector,
    sockets: Sockets,
    targets: Vec<Target>,
    /// By peer: the newest of our beats that it has heard.
    heard_us: BTreeMap<String, u64>,
    /// By peer: its links.
    wires: BTreeMap<String, Vec<Wire>>,
    shared: Arc<Shared>,
    tell: watch::Sender<BTreeMap<String, PeerHealth>>,
    tell_links: watch::Sender<Links>,
    tell_words: watch::Sender<Words>,
    /// What each peer's newest beat said of service quorum.
    said: Words,
    word: Arc<[u8]>,
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
        // A last word: that this node leaves.
        let said = Arc::clone(&self.word);
        self.retarget();
        if self.word != said {
            self.send_all();
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn retarget(&mut self) {
        let sockets = self.shared.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rebound = sockets.is_some();
        match sockets.map(Sockets::new).transpose() {
            Ok(Some(sockets)) => self.sockets = sockets,
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the new heartbeat sockets cannot be used"),
        }
        self.word = Arc::clone(&self.shared.word.lock().unwrap_or_else(PoisonError::into_inner));
        let wanted = self.shared.targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if rebound || wanted != self.targets {
            let both = |t: &Target| (t.name.clone(), t.addresses.len().min(self.sockets.len()));
            let counts: BTreeMap<String, usize> = wanted.iter().map(both).collect();
            self.detector.watch(&counts);
            self.wires.retain(|name, _| counts.contains_key(name));
            for (name, count) in counts {
                self.wires.entry(name).or_default().resize_with(count, Wire::new);
            }
            self.targets = wanted;
            self.publish();
        }
    }

    fn send_all(&mut self) {
        for index in 0..self.targets.len() {
            let links = self.targets.get(index).map_or(0, |target| target.addresses.len());
            for link in 0..links.min(self.sockets.len()) {
                self.send(index, link);
            }
        }
    }

    fn send(&mut self, index: usize, link: usize) {
        let now_us = self.now_us();
        let Some(target) = self.targets.get(index) else { return };
        let Some(Some(address)) = target.addresses.get(link) else { return };
        let Ok(number) = u8::try_from(link) else { return };
        self.seq = (self.seq + 1).max(now_us);
        let echo = self.detector.incarnation_of(&target.name);
        let wire = self.wires.get(&target.name).and_then(|wires| wires.get(link));
        let came = wire.and_then(|wire| wire.came).filter(|(incarnation, ..)| *incarnation == echo);
        let packet = Packet {
            mode_hint: self.shared.mode_hint.load(Ordering::Acquire),
            link: number,
            from: self.setup.raft_id,
            to: target.raft_id,
            incarnation: self.setup.incarnation,
            seq: self.seq,
            echo,
            session: self.shared.session.load(Ordering::Acquire),
            heard: self.detector.newest_of(&target.name),
            link_heard: came.map_or(0, |(_, seq, _)| seq),
            link_held_us: came.map_or(0, |(_, _, at_us)| now_us.saturating_sub(at_us)),
        };
        let sealed = packet.seal(&self.setup.key, &self.word);
        // A send that fails (no route, peer's port closed) is what the peer's silence will tell anyway.
        if let Err(error) = self.sockets.send(link, &sealed, *address) {
            tracing::trace!(%error, peer = target.name, link, "heartbeat not sent");
        }
    }

    /// Takes in beats until `until`, and then those that are waiting already.
    fn listen_until(&mut self, until: Instant) {
        let mut buffer = [0_u8; packet::LENGTH + packet::WORD_MAX + 1];
        let mut left_over = LEFT_OVER_MAX;
        self.sockets.begin();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let ready = self.sockets.ready(left);
            for link in &ready {
                if let Some(length) = self.sockets.receive(*link, &mut buffer) {
                    self.take_in(*link, buffer.get(..length).unwrap_or(&[]));
                }
            }
            if left.is_zero() {
                left_over = left_over.saturating_sub(ready.len());
                if ready.is_empty() || left_over == 0 {
                    return;
                }
            }
        }
    }

    fn take_in(&mut self, link: usize, datagram: &[u8]) {
        let Some((packet, word)) = Packet::open(datagram, &self.setup.key) else {
            tracing::trace!("datagram without a valid seal ignored");
            return;
        };
        if packet.to != self.setup.raft_id {
            return;
        }
        if usize::from(packet.link) != link {
            tracing::debug!(
                from = packet.from,
                said = packet.link,
                link,
                "beat of another link ignored"
            );
            return;
        }
        let Some(index) = self.targets.iter().position(|t| t.raft_id == packet.from) else {
            return;
        };
        let Some(name) = self.targets.get(index).map(|t| t.name.clone()) else { return };
        let (beat, before) = (self.meaning_of(&packet), self.detector.incarnation_of(&name));
        let heard = self.detector.heard(self.now_ms(), &name, link, beat);
        if matches!(heard, Heard::Returned | Heard::Fresh) {
            let newest = self.heard_us.entry(name.clone()).or_default();
            *newest = packet.heard.max(*newest);
            if self.said.get(&name).is_none_or(|known| **known != *word) {
                self.said.insert(name.clone(), Arc::from(word));
            }
        }
        if matches!(heard, Heard::Returned | Heard::Fresh | Heard::Overtaken) {
            let now_us = self.now_us();
            if let Some(wire) = self.wires.get_mut(&name).and_then(|wires| wires.get_mut(link)) {
                wire.came = Some((packet.incarnation, packet.seq, now_us));
                wire.answered_us = packet.link_heard.max(wire.answered_us);
            }
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
                    self.send(index, link);
                }
            }
            Heard::Overtaken => {}
            Heard::Replayed | Heard::Unknown => {
                tracing::debug!(peer = name, link, seq = beat.seq, "old heartbeat ignored");
            }
        }
    }

    /// What a packet says to the detector. Our own sequence in it is our own clock: nobody else's is compared with it.
    fn meaning_of(&self, packet: &Packet) -> Beat {
        let knows_us = packet.echo == self.setup.incarnation;
        let answer = Some(packet.link_heard).filter(|sent| knows_us && *sent > 0);
        let age_us = answer.map(|sent| self.now_us().saturating_sub(sent));
        let limit_us = self.setup.timing.link_down_ms.saturating_mul(1000);
        Beat {
            incarnation: packet.incarnation,
            seq: packet.seq,
            knows_us,
            session: packet.session,
            mode_hint: packet.mode_hint,
            hears_us: age_us.is_some_and(|age| age < limit_us),
            rtt_us: age_us.map(|age| age.saturating_sub(packet.link_held_us)),
        }
    }

    fn tick(&mut self) {
        let tick = self.detector.tick(self.now_ms());
        if tick.stalled {
            tracing::warn!("this node stalled: nobody is accused in this round");
        }
        for change in &tick.links {
            self.note(change);
        }
        if !tick.died.is_empty() || !tick.links.is_empty() {
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

    fn note(&mut self, LinkChange { peer, link, up }: &LinkChange) {
        if *up {
            tracing::info!(peer, link, "link is up");
        } else {
            tracing::warn!(peer, link, "link is down");
        }
        if let Some(wire) = self.wires.get_mut(peer).and_then(|wires| wires.get_mut(*link)) {
            (wire.up, wire.since) = (*up, Instant::now());
        }
    }

    fn report(&self, change: Change) {
        if self.changes.send(change).is_err() {
            tracing::debug!("nobody listens to peer changes any more");
        }
    }

    /// When the beat of ours with this sequence was sent.
    fn sent_at(&self, seq: u64) -> Option<Instant> {
        (seq > 0).then(|| self.began.checked_add(Duration::from_micros(seq))).flatten()
    }

    /// Shows the newest view; wakes the watchers only when more than the time of the last beat changed.
    fn publish(&self) {
        let heard_at = |ms: u64| self.began + Duration::from_millis(ms);
        let view: BTreeMap<String, PeerHealth> = self
            .detector
            .peers()
            .map(|(name, health)| {
                let health = PeerHealth {
                    alive: health.alive,
                    session: health.session,
                    mode_hint: health.mode_hint,
                    last_seen: health.heard_ms.map(heard_at),
                    heard_us: self.heard_us.get(name).and_then(|seq| self.sent_at(*seq)),
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
        let links: Links =
            self.wires.iter().map(|(name, wires)| (name.clone(), self.seen(name, wires))).collect();
        let ups = |links: &Links| -> Vec<Vec<bool>> {
            links.values().map(|all| all.iter().map(|link| link.up).collect()).collect()
        };
        self.tell_links.send_if_modified(|shown| {
            let news = !shown.keys().eq(links.keys()) || ups(shown) != ups(&links);
            *shown = links;
            news
        });
        let lives = |name: &String| self.detector.peers().any(|(n, h)| n == name && h.alive);
        let spoken = self.said.iter().filter(|(name, word)| !word.is_empty() && lives(name));
        let words: Words = spoken.map(|(name, word)| (name.clone(), Arc::clone(word))).collect();
        self.tell_words.send_if_modified(|shown| {
            let news = *shown != words;
            *shown = words;
            news
        });
    }

    fn seen(&self, name: &str, wires: &[Wire]) -> Vec<LinkSeen> {
        let both = wires.iter().zip(self.detector.links(name));
        both.map(|(wire, health)| LinkSeen {
            up: wire.up,
            since: wire.since,
            last_seen: health.heard_ms.map(|ms| self.began + Duration::from_millis(ms)),
            answered: self.sent_at(wire.answered_us),
            rtt: health.rtt_us.map(Duration::from_micros),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32])
    }

    /// A peer made by hand with two links, against the real thread. Its clock stands still: it says of each beat how long it has held it.
    struct Hand {
        sockets: [UdpSocket; 2],
        to: [SocketAddr; 2],
    }

    /// What the hand says besides its sequence.
    #[derive(Clone, Copy, Default)]
    struct Words {
        echo: u64,
        heard: u64,
        link_heard: u64,
    }

    impl Hand {
        fn packet(link: u8, seq: u64, words: Words) -> Packet {
            let Words { echo, heard, link_heard } = words;
            let (mode_hint, from, to, incarnation, session, link_held_us) = (0, 2, 1, 7, 5, 0);
            Packet {
                mode_hint,
                link,
                from,
                to,
                incarnation,
                seq,
                echo,
                session,
                heard,
                link_heard,
                link_held_us,
            }
        }

        /// Sends a beat over the link that it names; what was sent.
        fn say(&self, link: usize, seq: u64, words: Words) -> Vec<u8> {
            let sealed = Self::packet(u8::try_from(link).unwrap(), seq, words).seal(&key(1), &[]);
            self.play(link, &sealed);
            sealed
        }

        fn play(&self, link: usize, sealed: &[u8]) {
            self.sockets[link].send_to(sealed, self.to[link]).unwrap();
        }

        /// The newest beat on a link; waits for one when there is none.
        fn hear(&self, link: usize) -> Packet {
            let mut buffer = [0; packet::LENGTH];
            let socket = &self.sockets[link];
            socket.recv(&mut buffer).unwrap();
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut buffer).is_ok() {}
            socket.set_nonblocking(false).unwrap();
            Packet::open(&buffer, &key(1)).unwrap().0
        }

        /// Answers the next beat on a link.
        fn answer(&self, link: usize, seq: u64) {
            let ours = self.hear(link).seq;
            self.say(link, seq, Words { echo: 1000, heard: ours, link_heard: ours });
        }
    }

    fn stand() -> (Heartbeats, Hand, mpsc::UnboundedReceiver<Change>) {
        let open = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (sockets, ours) = ([open(), open()], [open(), open()]);
        for socket in &sockets {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let hand = Hand { sockets, to: ours.each_ref().map(|s| s.local_addr().unwrap()) };
        let (changes, changed) = mpsc::unbounded_channel();
        let setup = Setup {
            raft_id: 1,
            incarnation: 1000,
            timing: crm_quorum::Failover::Fast.timing(),
            key: key(1),
            sockets: ours.into(),
            realtime: true,
        };
        let beats = Heartbeats::start(setup, changes).unwrap();
        let addresses = hand.sockets.iter().map(|s| s.local_addr().ok()).collect();
        beats.aim(vec![Target { name: "b".into(), raft_id: 2, addresses }]);
        (beats, hand, changed)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn peer_lives_by_answers_and_a_recording_does_not_keep_it_alive() {
        let (beats, hand, mut changed) = stand();
        assert_eq!(hand.hear(0).incarnation, 1000);
        // Without the echo of its incarnation the thread only answers.
        hand.say(0, 1, Words::default());
        while hand.hear(0).echo != 7 {}
        assert!(!beats.peers().borrow()["b"].alive);
        // What it has heard of ours is dated by our own clock.
        let (before, ours) = (Instant::now(), hand.hear(0));
        let recording = hand.say(0, 2, Words { echo: 1000, heard: ours.seq, link_heard: 0 });
        assert_eq!(
            changed.recv().await,
            Some(Change::Returned { name: "b".into(), incarnation: 7 })
        );
        let sent = beats.peers().borrow()["b"].heard_us.unwrap();
        assert!(sent <= Instant::now() && sent + Duration::from_secs(4) > before, "{sent:?}");
        // The recording, played for ever on both links, does not save the peer.
        let player = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                pace.tick().await;
                hand.play(0, &recording);
                hand.play(1, &recording);
            }
        });
        assert_eq!(changed.recv().await, Some(Change::Died("b".into())));
        player.abort();
        beats.stop();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_link_lives_by_its_own_answers_and_the_peer_by_either() {
        let (beats, hand, mut changed) = stand();
        let mut links = beats.links();
        let mut seq = 0;
        let ups = |links: &Links| links["b"].iter().map(|link| link.up).collect::<Vec<bool>>();
        let mut both = |want: [bool; 2], talk: &mut dyn FnMut(u64)| {
            let until = Instant::now() + Duration::from_secs(5);
            while links.borrow_and_update().get("b").map(|_| ()).is_none()
                || ups(&links.borrow()) != want
            {
                assert!(Instant::now() < until, "{:?}", links.borrow());
                seq += 10;
                talk(seq);
            }
        };
        both([true, true], &mut |seq| {
            hand.answer(0, seq);
            hand.answer(1, seq + 1);
        });
        assert!(matches!(changed.try_recv(), Ok(Change::Returned { .. })));
        let seen = beats.links().borrow()["b"].clone();
        assert!(seen.iter().all(|link| link.rtt.is_some_and(|rtt| rtt < Duration::from_secs(1))));
        // Only the second link answers. What it carries is played on the first as well, and what is sent over the first claims to be of it.
        both([false, true], &mut |seq| {
            hand.answer(1, seq);
            let ours = hand.hear(1).seq;
            let copy = hand.say(1, seq + 1, Words { echo: 1000, heard: ours, link_heard: ours });
            hand.play(0, &copy);
        });
        assert!(beats.peers().borrow()["b"].alive);
        assert!(changed.try_recv().is_err(), "a link's death is nobody's");
        // The first carries only one way: we hear the peer, and it does not hear us.
        let mut beats_heard = 0;
        both([false, true], &mut |_| {});
        for seq in 1_000_000..1_000_010 {
            hand.say(0, 2 * seq, Words { echo: 1000, heard: 1, link_heard: 1 });
            hand.answer(1, 2 * seq + 1);
            beats_heard += usize::from(beats.links().borrow()["b"][0].up);
        }
        assert_eq!(beats_heard, 0, "a link that carries one way is up");
        both([true, true], &mut |seq| {
            hand.answer(0, 3_000_000 + seq);
            hand.answer(1, 3_000_001 + seq);
        });
        beats.stop();
    }
}
