//! Two nodes with the real takeover core (ADR-0010) in a world with time: beats, elections, calls that are under way for a while, fencing that
//! takes effect late, over thousands of random events. `crm-quorum`'s model visits all short ways; this goes few ways far.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "names the seed that breaks")]

use crm_quorum::lineage::{Evidence, Generation, GenerationId, How, RaftId, Relation, relation};
use crm_quorum::takeover::{
    Alarm, BootId, Call, Durable, Effect, Event, Greeting, Identity, Mark, Service, Step, Takeover,
    Voters,
};
use std::collections::{BTreeMap, BTreeSet};

/// Milliseconds between two looks at everything.
const TICK: u64 = 10;
const BEAT: u64 = 100;
const DEAD: u64 = 900;
const LEASE: u64 = 400;
/// Faults go on for this long, and then there has to be an end within that.
const FAULTS: u64 = 60_000;
const PATIENCE: u64 = 60_000;

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Blank,
    Write(u64),
    Begin(Box<Generation>),
    Members(Vec<BTreeSet<RaftId>>),
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    term: u64,
    content: Content,
}

#[derive(Debug, Clone)]
enum Body {
    Beat,
    Rejoin,
    Vote { term: u64, last: (u64, usize) },
    Voted { term: u64, granted: bool },
    Append { term: u64, log: Vec<Entry>, commit: usize },
    Appended { term: u64, matched: usize },
    Refused,
}

#[derive(Debug, Clone)]
struct Letter {
    due: u64,
    from: RaftId,
    to: RaftId,
    /// The receiver's life that it was sent to; a beat goes to any.
    life: Option<u64>,
    call: Call,
    answers: bool,
    greeting: Greeting,
    body: Body,
}

/// Something that the world will do.
#[derive(Debug, Clone)]
enum Later {
    Boot(RaftId),
    /// The device switches a node off for whoever has ordered it: by id, its life, the incarnation meant.
    Fence(RaftId, u64, RaftId, u64),
    Confirm(RaftId, u64, RaftId, u64),
    Stopped(RaftId, u64),
}

struct Node {
    id: RaftId,
    up: bool,
    boot: u8,
    life: u64,
    // On its disk.
    term: u64,
    voted: RaftId,
    log: Vec<Entry>,
    stored: Durable,
    // In /run.
    mark: Option<Mark>,
    // In memory.
    core: Takeover,
    leads: bool,
    candidate: bool,
    commit: usize,
    matched: usize,
    learner: Option<RaftId>,
    acked: u64,
    heard: u64,
    /// Since when the peer is missed.
    missed: Option<u64>,
    signed: u64,
    stood: u64,
    patience: u64,
    open: BTreeSet<u64>,
}

/// What must hold over all nodes and all time.
#[derive(Default)]
struct Laws {
    line: Vec<GenerationId>,
    committed: Vec<Entry>,
    acknowledged: BTreeSet<u64>,
    takeovers: usize,
    fenced: usize,
}

struct World {
    now: u64,
    nodes: BTreeMap<RaftId, Node>,
    letters: Vec<Letter>,
    later: Vec<(u64, Later)>,
    cut: BTreeSet<RaftId>,
    /// The device says that it was off before it was: a planted fault.
    lies: bool,
    random: u64,
    laws: Laws,
    writes: u64,
}

fn voters(sets: &[BTreeSet<RaftId>], at: usize) -> Voters {
    Voters { sets: sets.to_vec(), at: at as u64 }
}

impl Node {
    fn new(id: RaftId) -> Self {
        let founding = Entry { term: 0, content: Content::Members(vec![BTreeSet::from([1, 2])]) };
        let stored = Durable::new(GenerationId([0; 16]));
        let me = Identity { id, incarnation: 0, boot: BootId([0; 16]) };
        Self {
            id,
            up: false,
            boot: 0,
            life: 0,
            term: 0,
            voted: 0,
            log: vec![founding],
            stored: stored.clone(),
            mark: None,
            core: Takeover::start(me, stored, None, Voters::default()).0,
            leads: false,
            candidate: false,
            commit: 0,
            matched: 0,
            learner: None,
            acked: 0,
            heard: 0,
            missed: None,
            signed: 0,
            stood: 0,
            patience: 0,
            open: BTreeSet::new(),
        }
    }

    const fn peer(&self) -> RaftId {
        3 - self.id
    }

    /// The last membership of the first entries, and its place.
    fn members(&self, end: usize) -> (Vec<BTreeSet<RaftId>>, usize) {
        let found = self.log[..end].iter().enumerate().rev().find_map(|(at, e)| match &e.content {
            Content::Members(sets) => Some((sets.clone(), at + 1)),
            Content::Blank | Content::Write(_) | Content::Begin(_) => None,
        });
        found.unwrap_or_default()
    }

    /// A majority of every set: we, our ghosts, and the peer if it is with us.
    fn majority(&self, with_peer: bool) -> bool {
        let mut have = self.core.ghosts();
        have.insert(self.id);
        if with_peer {
            have.insert(self.peer());
        }
        let (sets, _) = self.members(self.log.len());
        !sets.is_empty() && sets.iter().all(|s| s.intersection(&have).count() * 2 > s.len())
    }

    fn lineage(&self) -> Vec<GenerationId> {
        self.core.greeting(self.peer()).lineage
    }

    fn see_term(&mut self, term: u64) {
        if term > self.term {
            (self.term, self.voted) = (term, 0);
            (self.leads, self.candidate, self.learner) = (false, false, None);
            self.open.clear();
        }
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |e| e.term), self.log.len())
    }

    fn power_off(&mut self) {
        let fresh = Self::new(self.id);
        let old = std::mem::replace(self, fresh);
        (self.boot, self.life, self.stored) = (old.boot, old.life, old.stored);
        (self.term, self.voted, self.log) = (old.term, old.voted, old.log);
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            now: 0,
            nodes: [1, 2].map(|id| (id, Node::new(id))).into(),
            letters: Vec::new(),
            later: Vec::new(),
            cut: BTreeSet::new(),
            lies: false,
            random: seed,
            laws: Laws::default(),
            writes: 0,
        };
        for id in [1, 2] {
            world.start(id, true);
        }
        world
    }

    /// A number below `limit` (splitmix64).
    const fn below(&mut self, limit: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn node(&mut self, id: RaftId) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    fn start(&mut self, id: RaftId, boots: bool) {
        let now = self.now;
        let patience = 300 + self.below(100);
        let node = self.node(id);
        if boots {
            node.boot = node.boot.wrapping_add(1);
            node.mark = None;
        }
        node.life += 1;
        node.up = true;
        (node.heard, node.signed, node.patience) = (now, now, patience);
        let me = Identity { id, incarnation: node.life, boot: BootId([node.boot; 16]) };
        let (sets, at) = node.members(node.log.len());
        let (core, out) =
            Takeover::start(me, node.stored.clone(), node.mark.clone(), voters(&sets, at));
        node.core = core;
        self.carry_out(id, out);
        self.tell_logged(id, 0);
        self.tell_raft(id);
    }

    fn tell(&mut self, id: RaftId, event: Event) {
        let out = self.node(id).core.handle(event);
        self.carry_out(id, out);
    }

    /// The generations of the entries from a place on.
    fn tell_logged(&mut self, id: RaftId, from: usize) {
        let log = self.node(id).log.clone();
        for (at, entry) in log.into_iter().enumerate().skip(from) {
            if let Content::Begin(generation) = entry.content {
                self.tell(id, Event::Logged { generations: vec![*generation], at: at as u64 + 1 });
            }
        }
    }

    fn tell_raft(&mut self, id: RaftId) {
        let now = self.now;
        let node = self.node(id);
        let leads = node.leads && (node.majority(false) || now - node.acked <= LEASE);
        let proof = node.signed.max(if node.leads { node.acked } else { 0 });
        let quorate = leads || now - proof <= DEAD;
        let (sets, at) = node.members(node.log.len());
        let (known, known_at) = node.members(node.commit);
        let (effective, committed) = (voters(&sets, at), voters(&known, known_at));
        self.tell(id, Event::Voters { effective, committed });
        self.tell(id, Event::Leadership { leads, quorate });
    }

    fn carry_out(&mut self, id: RaftId, out: Vec<Effect>) {
        for effect in out {
            let soon = self.now + self.below(500);
            let life = self.node(id).life;
            match effect {
                Effect::Store(durable) => {
                    let begins = durable.intent.is_some() && self.node(id).stored.intent.is_none();
                    self.laws.takeovers += usize::from(begins);
                    self.node(id).stored = *durable;
                }
                Effect::Mark(mark) => self.node(id).mark = mark,
                Effect::Fence { peer, incarnation } => {
                    self.later.push((soon, Later::Fence(id, life, peer, incarnation)));
                }
                Effect::Yield { .. } => self.later.push((soon, Later::Stopped(id, life))),
                Effect::AskRejoin { of } => {
                    if of != id {
                        self.send(id, Call::Rejoin { empty: false }, Body::Rejoin);
                    }
                }
                Effect::AddLearner(peer) => {
                    if self.node(id).learner.replace(peer) != Some(peer) {
                        self.node(id).matched = 0;
                    }
                }
                Effect::ChangeMembers(ids) => self.change_members(id, &ids),
                // Ghosts are asked of the core, steps are done in their time.
                Effect::Ghosts(_) | Effect::Do(_) => {}
                Effect::GiveUp { .. } | Effect::Alarm(_) => {
                    // Doubt in the device is raised by a late beat too.
                    let doubt = matches!(effect, Effect::Alarm(Alarm::FencingDoubtful(_)));
                    assert!(doubt, "a human is asked for: {effect:?}");
                }
            }
        }
    }

    fn change_members(&mut self, id: RaftId, new: &BTreeSet<RaftId>) {
        let node = self.node(id);
        let (sets, at) = node.members(node.log.len());
        if !node.leads || at > node.commit || sets.last() == Some(new) {
            return;
        }
        let joint = sets.into_iter().next_back().into_iter().chain([new.clone()]).collect();
        self.append(id, Content::Members(joint));
    }

    fn append(&mut self, id: RaftId, content: Content) {
        let node = self.node(id);
        let at = node.log.len();
        node.log.push(Entry { term: node.term, content });
        self.tell_logged(id, at);
        self.advance(id);
    }

    /// A leader commits what a majority has.
    fn advance(&mut self, id: RaftId) {
        let node = self.node(id);
        let has =
            |end: usize| node.log[end - 1].term == node.term && node.majority(node.matched >= end);
        let Some(end) = (node.commit + 1..=node.log.len()).rev().find(|end| has(*end)) else {
            return;
        };
        if !node.leads {
            return;
        }
        node.commit = end;
        let (line, prefix) = (node.lineage(), node.log[..end].to_vec());
        let done: BTreeSet<u64> = std::mem::take(&mut node.open);
        assert!(line.starts_with(&self.laws.line), "two generations commit");
        self.laws.line = line;
        let common = prefix.len().min(self.laws.committed.len());
        assert_eq!(prefix[..common], self.laws.committed[..common], "two histories are committed");
        if prefix.len() > common {
            self.laws.committed = prefix;
        }
        let has =
            |number: &u64| self.laws.committed.iter().any(|e| e.content == Content::Write(*number));
        let (yes, no): (BTreeSet<u64>, BTreeSet<u64>) = done.into_iter().partition(has);
        self.laws.acknowledged.extend(yes);
        let node = self.node(id);
        node.open = no;
        let (sets, at) = node.members(node.log.len());
        if let [_, last] = &sets[..]
            && at <= node.commit
        {
            let last = vec![last.clone()];
            self.append(id, Content::Members(last));
        }
    }

    fn campaign(&mut self, id: RaftId) {
        let patience = 300 + self.below(300);
        let now = self.now;
        let node = self.node(id);
        (node.stood, node.patience) = (now, patience);
        node.term += 1;
        node.voted = id;
        (node.leads, node.candidate) = (false, true);
        let (term, last) = (node.term, node.last());
        if node.majority(false) {
            self.lead(id);
        } else {
            self.send(id, Call::Vote, Body::Vote { term, last });
        }
    }

    fn lead(&mut self, id: RaftId) {
        let now = self.now;
        let node = self.node(id);
        (node.leads, node.candidate, node.matched, node.learner) = (true, false, 0, None);
        node.acked = now;
        self.append(id, Content::Blank);
        self.tell_raft(id);
    }

    fn send(&mut self, from: RaftId, call: Call, body: Body) {
        let (now, way) = (self.now, 1 + self.below(30));
        // Now and then one is under way for long.
        let due = now + if self.below(20) == 0 { way * 40 } else { way };
        let peer = 3 - from;
        let life = (call != Call::Heartbeat).then(|| self.nodes[&peer].life);
        let greeting = self.nodes[&from].core.greeting(peer);
        self.letters.push(Letter {
            due,
            from,
            to: peer,
            life,
            call,
            answers: false,
            greeting,
            body,
        });
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, under_way) =
            std::mem::take(&mut self.letters).into_iter().partition(|l| l.due <= now);
        self.letters = under_way;
        let due: Vec<Letter> = due;
        for letter in due {
            let node = &self.nodes[&letter.to];
            let other_life = letter.life.is_some_and(|life| life != node.life);
            if !node.up || other_life || self.cut.contains(&letter.from) {
                continue;
            }
            if letter.answers { self.take_answer(&letter) } else { self.serve(letter) }
        }
    }

    fn serve(&mut self, letter: Letter) {
        let (id, from, now) = (letter.to, letter.from, self.now);
        let node = self.node(id);
        let late = letter.greeting.incarnation < node.core.heard_of(from);
        let (verdict, out) = node.core.receive(letter.call, from, &letter.greeting);
        if letter.call == Call::Heartbeat && !late {
            (node.heard, node.missed) = (now, None);
        }
        self.carry_out(id, out);
        if !late {
            self.stale_yields(id, &letter.greeting);
        }
        let said = if verdict.is_ok() { self.answer(id, letter.body) } else { Some(Body::Refused) };
        self.tell_raft(id);
        let Some(body) = said else { return };
        let greeting = self.nodes[&id].core.greeting(from);
        let due = now + 1 + self.below(30);
        let life = Some(letter.greeting.incarnation);
        self.letters.push(Letter {
            due,
            from: id,
            to: from,
            life,
            call: letter.call,
            answers: true,
            greeting,
            body,
        });
    }

    fn answer(&mut self, id: RaftId, body: Body) -> Option<Body> {
        let now = self.now;
        let node = self.node(id);
        let from = node.peer();
        match body {
            Body::Vote { term, last } => {
                node.see_term(term);
                let granted = term == node.term
                    && (node.voted == 0 || node.voted == from)
                    && last >= node.last();
                if granted {
                    (node.voted, node.stood) = (from, now);
                }
                Some(Body::Voted { term: node.term, granted })
            }
            Body::Append { term, log, commit } => {
                node.see_term(term);
                if term < node.term {
                    return Some(Body::Appended { term: node.term, matched: 0 });
                }
                (node.leads, node.candidate, node.voted, node.signed) = (false, false, from, now);
                let same = node.log.iter().zip(&log).take_while(|(a, b)| a == b).count();
                let matched = log.len();
                if same < log.len() {
                    assert!(same >= node.commit, "a committed entry is replaced");
                    node.log = log;
                }
                node.commit = node.commit.max(commit.min(matched));
                if same < matched {
                    self.tell_logged(id, same);
                }
                Some(Body::Appended { term, matched })
            }
            Body::Beat
            | Body::Rejoin
            | Body::Voted { .. }
            | Body::Appended { .. }
            | Body::Refused => None,
        }
    }

    fn take_answer(&mut self, letter: &Letter) {
        let (id, from, now) = (letter.to, letter.from, self.now);
        let node = self.node(id);
        let late = letter.greeting.incarnation < node.core.heard_of(from);
        let (used, out) = node.core.answered(letter.call, from, &letter.greeting);
        self.carry_out(id, out);
        if !late {
            self.stale_yields(id, &letter.greeting);
        }
        let node = self.node(id);
        match letter.body {
            Body::Voted { term, granted } if used => {
                node.see_term(term);
                if granted && term == node.term && node.candidate && node.majority(true) {
                    self.lead(id);
                }
            }
            Body::Appended { term, matched } if used => {
                node.see_term(term);
                if node.leads && term == node.term {
                    (node.matched, node.acked) = (node.matched.max(matched), now);
                    let up_to_date = node.matched == node.log.len() && node.learner == Some(from);
                    self.advance(id);
                    if up_to_date {
                        self.tell(id, Event::CaughtUp { peer: from });
                    }
                }
            }
            _ => {}
        }
        self.tell_raft(id);
    }

    /// Judged without the core: who has just met a newer line serves no more.
    fn stale_yields(&self, id: RaftId, theirs: &Greeting) {
        let node = &self.nodes[&id];
        let stale = relation(&node.lineage(), &theirs.lineage) == Relation::MineStale;
        assert!(!stale || node.core.service() == Service::No, "n{id} goes on from a stale log");
    }

    fn come(&mut self, what: &Later) {
        let living = |world: &Self, id, life| {
            let node: &Node = &world.nodes[&id];
            node.up && node.life == life
        };
        match *what {
            Later::Boot(id) => {
                if !self.nodes[&id].up {
                    self.start(id, true);
                }
            }
            Later::Fence(by, life, peer, incarnation) => {
                // Whoever has ordered it may be off by now: the device does not mind.
                if !self.lies {
                    self.off(peer);
                    self.laws.fenced += 1;
                }
                let at = self.now + self.below(300);
                self.later.push((at, Later::Confirm(by, life, peer, incarnation)));
            }
            Later::Confirm(by, life, peer, incarnation) if living(self, by, life) => {
                let mut id = [0; 16];
                id[..8].copy_from_slice(&self.now.to_le_bytes());
                id[8] = u8::try_from(by).unwrap();
                let how = How::Device { agent: "fence_sim".to_owned(), device: "d".to_owned() };
                let evidence = Evidence { peer, incarnation, how, at_ms: self.now };
                self.tell(by, Event::Confirmed { evidence, id: GenerationId(id) });
            }
            Later::Stopped(id, life) if living(self, id, life) => self.tell(id, Event::Stopped),
            Later::Confirm(..) | Later::Stopped(..) => {}
        }
    }

    fn off(&mut self, id: RaftId) {
        self.node(id).power_off();
        let at = self.now + 500 + self.below(6_000);
        self.later.push((at, Later::Boot(id)));
    }

    fn fault(&mut self) {
        let id = 1 + self.below(2);
        match self.below(12) {
            0 => self.off(id),
            1 => [1, 2].into_iter().for_each(|id| self.off(id)),
            2 | 3 if self.nodes[&id].up => {
                // The daemon alone: /run stays.
                let mark = self.node(id).mark.clone();
                self.node(id).power_off();
                self.node(id).mark = mark;
                self.start(id, false);
            }
            4 | 5 => self.cut.extend([1, 2]),
            6 => drop(self.cut.insert(id)),
            7..=10 => self.cut.clear(),
            _ => {}
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        let now = self.now;
        let (due, later) =
            std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(u64, Later)> = due;
        due.into_iter().for_each(|(_, what)| self.come(&what));
        self.deliver();
        for id in [1, 2] {
            if self.nodes[&id].up {
                self.turn(id);
            }
        }
        self.look();
    }

    /// What a node does by its own clock.
    fn turn(&mut self, id: RaftId) {
        let now = self.now;
        if now.is_multiple_of(BEAT) {
            self.send(id, Call::Heartbeat, Body::Beat);
            self.tell(id, Event::Tick);
            self.take_step(id);
        }
        let node = self.node(id);
        let peer = node.peer();
        if now - node.heard > DEAD && node.missed.is_none() {
            node.missed = Some(now);
            self.tell(id, Event::Lost { peer });
        }
        let node = self.node(id);
        let silent = now - node.signed.max(node.acked).max(node.stood) > node.patience;
        if !node.leads && silent && node.core.may_elect() && node.core.step().is_none() {
            self.campaign(id);
        }
        let node = self.node(id);
        if node.leads && now.is_multiple_of(BEAT / 2) {
            let (sets, _) = node.members(node.log.len());
            let known = sets.iter().any(|s| s.contains(&peer)) || node.learner == Some(peer);
            let (term, log, commit) = (node.term, node.log.clone(), node.commit);
            if known && !node.core.ghosts().contains(&peer) {
                self.send(id, Call::Append, Body::Append { term, log, commit });
            }
            if self.below(4) == 0 {
                self.writes += 1;
                let number = self.writes;
                self.node(id).open.insert(number);
                self.append(id, Content::Write(number));
            }
        }
        self.tell_raft(id);
    }

    fn take_step(&mut self, id: RaftId) {
        match self.node(id).core.step() {
            Some(Step::Elect) => self.campaign(id),
            Some(Step::Propose(generation)) => {
                self.append(id, Content::Begin(Box::new(generation)));
            }
            Some(Step::Alone) => {
                self.advance(id);
                self.change_members(id, &BTreeSet::from([id]));
            }
            None => {}
        }
    }

    /// Laws over both nodes.
    fn look(&self) {
        let (a, b) = (&self.nodes[&1], &self.nodes[&2]);
        let serves = |n: &Node| n.up && n.core.service() == Service::Full;
        assert!(!(serves(a) && serves(b)) || a.lineage() == b.lineage(), "both serve, apart");
        for (one, other) in [(a, b), (b, a)] {
            let (sets, _) = one.members(one.log.len());
            let alone = serves(one) && sets == [BTreeSet::from([one.id])];
            assert!(!alone || !serves(other), "n{} serves alone, and the other one serves", one.id);
        }
    }

    fn is_well(&self) -> bool {
        let (a, b) = (&self.nodes[&1], &self.nodes[&2]);
        let serves = |n: &Node| n.up && n.core.service() == Service::Full;
        let both = vec![BTreeSet::from([1, 2])];
        let joined = |n: &Node| n.members(n.commit).0 == both;
        let leads = |n: &Node| n.leads && n.commit >= self.laws.committed.len();
        let joined = joined(a) && joined(b) && (leads(a) || leads(b));
        joined && serves(a) && serves(b) && a.lineage() == b.lineage()
    }

    fn told(&self) -> String {
        let node = |n: &Node| {
            let (up, end, service) = (n.up, n.log.len(), n.core.service());
            let line = n.lineage().len();
            format!(
                "n{} up {up} leads {} t{} log {end}/{} gen {line} {service:?} members {:?}",
                n.id,
                n.leads,
                n.term,
                n.commit,
                n.members(end)
            )
        };
        self.nodes.values().map(node).collect::<Vec<_>>().join("; ")
    }

    /// A minute of faults, and the time to come together again.
    fn run(&mut self) {
        while self.now < FAULTS {
            self.tick();
            if self.below(60) == 0 {
                self.fault();
            }
        }
        self.cut.clear();
        let end = self.now + PATIENCE;
        while !self.is_well() {
            assert!(self.now < end, "no way back: {}", self.told());
            self.tick();
        }
        let held = |number: &u64| {
            let write = Content::Write(*number);
            self.nodes.values().any(|n| n.log[..n.commit].iter().any(|e| e.content == write))
        };
        let lost = self.laws.acknowledged.iter().find(|number| !held(number));
        assert_eq!(lost, None, "an acknowledged write is lost");
    }
}

fn sweep(seeds: std::ops::Range<u64>) {
    let (mut takeovers, mut fenced, mut writes) = (0, 0, 0);
    for seed in seeds.clone() {
        println!("seed {seed}");
        let mut world = World::new(seed);
        world.run();
        takeovers += world.laws.takeovers;
        fenced += world.laws.fenced;
        writes += world.laws.acknowledged.len();
    }
    println!("{seeds:?}: {fenced} fencings, {takeovers} takeovers, {writes} acknowledged writes");
    assert!(takeovers > 0 && writes > 0);
}

#[test]
fn two_nodes_keep_one_line_through_crashes_cuts_fencings_and_returns() {
    sweep(0..200);
}

#[test]
#[ignore = "minutes: nightly"]
fn wide_takeovers() {
    sweep(1_000..6_000);
}

#[test]
fn a_device_that_lies_is_found_out() {
    let broken = |seed| {
        let run = move || {
            let mut world = World { lies: true, ..World::new(seed) };
            world.run();
        };
        std::panic::catch_unwind(run).is_err()
    };
    assert!((0..10).any(broken));
}
