//! Both nodes, the messages under way, the faults that are left, and what may happen next.

use super::node::{Entry, Kind, Node, Role, Watch, bit};
use super::{Bounds, print_of};
use crate::lineage::{Evidence, GenerationId, How, RaftId, Relation};
use crate::takeover::{
    BootId, Call, Event, Flaw, Greeting, Identity, Mark, Order, Refusal, Service,
};
use std::rc::Rc;

/// How a call fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Question and answer arrive.
    Heard,
    /// The answer is lost.
    AnswerLost,
    /// The question arrives any time later, or never.
    Late,
    /// The answer does.
    AnswerLate,
}

/// Something happens. The number is the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Stands for election.
    Campaign(usize, Option<Way>),
    /// The leader sends its log.
    Append(usize, Way),
    /// A heartbeat, a forwarded write, an order.
    Ping(usize, Way),
    /// Asks to be taken back.
    Rejoin(usize),
    /// A late message arrives there.
    Arrives(usize),
    /// A client's write.
    Write(usize),
    /// It does not hear its peer any more.
    Lost(usize),
    /// The fencing that it ordered takes effect.
    Fences(usize),
    /// Both orders take effect at once.
    BothFence,
    /// It is told so.
    Confirmed(usize),
    /// It is told of an earlier one.
    ConfirmedOld(usize),
    /// Does the step of its takeover.
    Step(usize),
    /// Its power fails.
    Crash(usize),
    /// It boots.
    Boot(usize),
    /// Its daemon ends and starts.
    Restart(usize),
    /// An operator forces a generation.
    Force(usize),
    /// Its data directory is emptied: it joins again under a new raft id.
    Wipe(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Body {
    Vote { term: u8, last: (u8, usize) },
    Append { term: u8, log: Vec<Entry>, commit: usize },
    Ping,
    Rejoin,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    call: Call,
    from: RaftId,
    to: RaftId,
    /// The receiver's incarnation of the connection; a heartbeat has none.
    session: Option<u64>,
    /// The sender's.
    home: u64,
    greeting: Greeting,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Said {
    Refused,
    Nothing,
    Vote { term: u8, granted: bool },
    Append { term: u8, matched: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Answer {
    call: Call,
    from: RaftId,
    to: RaftId,
    session: u64,
    greeting: Greeting,
    said: Said,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Letter {
    Question(Question),
    Answer(Answer),
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Left {
    pub(super) fencings: u8,
    pub(super) boots: [u8; 2],
    pub(super) restarts: u8,
    pub(super) late: u8,
    pub(super) forces: u8,
    pub(super) wipes: u8,
    pub(super) writes: u8,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) nodes: [Rc<Node>; 2],
    /// Their fingerprints.
    prints: [u128; 2],
    late: [Option<Letter>; 2],
    pub(super) left: Left,
    pub(super) watch: Watch,
    /// Writes made so far.
    written: u8,
    pub(super) wiped: bool,
}

impl World {
    /// Two nodes in quorum, the first of them leads, everybody has a mark.
    pub(super) fn new(bounds: &Bounds) -> Self {
        let founding = Entry { term: 0, kind: Kind::Members([bit(1) | bit(2), 0]) };
        let mut world = Self {
            nodes: [1, 2].map(|id| Rc::new(Node::new(id, vec![founding.clone()]))),
            prints: [0, 0],
            late: [None, None],
            left: Left { fencings: u8::MAX, boots: [u8::MAX; 2], ..bounds.left },
            watch: Watch { only: bounds.only, ..Watch::default() },
            written: 0,
            wiped: false,
        };
        for node in &mut world.nodes {
            Rc::make_mut(node).start(true, bounds, &mut world.watch);
        }
        let way = Way::Heard;
        let append = Act::Append(0, way);
        let start = [Act::Campaign(0, Some(way)), append, append, append];
        let start = start.into_iter().chain([Act::Ping(0, way), Act::Ping(1, way)]);
        for act in start.chain(bounds.prelude.iter().copied()) {
            world.act(act, bounds);
        }
        world.left = bounds.left;
        world
    }

    /// All that the future depends on, as a number.
    pub(super) fn print(&self) -> u128 {
        print_of(&(self.prints, &self.late, self.left, &self.watch, self.written, self.wiped))
    }

    /// Everything that may happen now, within the bounds.
    pub(super) fn acts(&self, bounds: &Bounds) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.left.fencings > 1 && self.orders(0) && self.orders(1) {
            acts.push(Act::BothFence);
        }
        for n in [0, 1] {
            self.raft_acts(n, bounds, &mut acts);
            self.fault_acts(n, bounds, &mut acts);
            if self.late[n].is_some() {
                acts.push(Act::Arrives(n));
            }
        }
        acts
    }

    fn ways(&self, n: usize) -> Vec<Way> {
        let mut ways = vec![Way::Heard, Way::AnswerLost];
        if self.left.late > 0 && self.late[1 - n].is_none() {
            ways.push(Way::Late);
        }
        if self.left.late > 0 && self.late[n].is_none() {
            ways.push(Way::AnswerLate);
        }
        if self.nodes[1 - n].up { ways } else { Vec::new() }
    }

    fn raft_acts(&self, n: usize, bounds: &Bounds, acts: &mut Vec<Act>) {
        let node = &self.nodes[n];
        if !node.up {
            return;
        }
        let ways = self.ways(n);
        let may_stand = node.term < bounds.terms && node.role != Role::Leader;
        if may_stand && node.core.may_elect() && node.core.step().is_none() {
            if !bounds.pre_vote {
                acts.push(Act::Campaign(n, None));
            }
            acts.extend(ways.iter().map(|way| Act::Campaign(n, Some(*way))));
        }
        if node.core.step().is_some_and(|s| may_stand || s != crate::takeover::Step::Elect) {
            acts.push(Act::Step(n));
        }
        if node.role == Role::Leader {
            if self.target(n).is_some() {
                acts.extend(ways.iter().map(|way| Act::Append(n, *way)));
            }
            if self.left.writes > 0 {
                acts.push(Act::Write(n));
            }
        }
        // An answer to it says the same as a heartbeat the other way.
        let ways = ways.into_iter().filter(|way| matches!(way, Way::AnswerLost | Way::Late));
        acts.extend(ways.map(|way| Act::Ping(n, way)));
        if self.nodes[1 - n].up && self.asks_back(n) {
            acts.push(Act::Rejoin(n));
        }
        let silent = node.core.lost.contains(&self.nodes[n].peer());
        if !silent && self.nodes[n].peer() != node.id {
            acts.push(Act::Lost(n));
        }
    }

    pub(super) fn asks_back(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        node.log.is_empty() || node.core.wants_rejoin().is_some()
    }

    /// Whether its core wants the peer fenced.
    fn orders(&self, n: usize) -> bool {
        let core = &self.nodes[n].core;
        let lost = |peer| core.lost.contains(&peer);
        self.nodes[n].up && core.may_take_over().is_some_and(lost)
    }

    fn fault_acts(&self, n: usize, bounds: &Bounds, acts: &mut Vec<Act>) {
        let (node, other) = (&self.nodes[n], &self.nodes[1 - n]);
        let left = &self.left;
        if node.up {
            let orders = self.orders(n);
            if orders && (left.fencings > 0 || !other.up) {
                acts.push(Act::Fences(n));
            }
            if node.fenced.is_some() || (orders && bounds.unconfirmed) {
                acts.push(Act::Confirmed(n));
            }
            if node.fenced_before.is_some() {
                acts.push(Act::ConfirmedOld(n));
            }
            if left.boots[n] > 0 {
                acts.push(Act::Crash(n));
            }
            if left.restarts > 0 {
                acts.push(Act::Restart(n));
            }
            if left.forces > 0 {
                acts.push(Act::Force(n));
            }
        } else if left.boots[n] > 0 {
            acts.push(Act::Boot(n));
            if left.wipes > 0 && other.votes() {
                acts.push(Act::Wipe(n));
            }
        }
    }

    /// Whom the leader sends its log: the other node, when it is a voter or a learner.
    fn target(&self, n: usize) -> Option<RaftId> {
        let (node, id) = (&self.nodes[n], self.nodes[1 - n].id);
        let [a, b] = node.in_force();
        let known = (a | b) & bit(id) != 0 || node.learner == Some(id);
        (known && !node.core.ghosts().contains(&id)).then_some(id)
    }

    /// It happens.
    pub(super) fn act(&mut self, act: Act, bounds: &Bounds) {
        let before = self.nodes.clone();
        match act {
            Act::Campaign(n, way) => {
                let (node, watch) = self.node(n);
                node.campaign(watch);
                if let Some(way) = way.filter(|_| self.nodes[n].role == Role::Candidate) {
                    let node = &self.nodes[n];
                    let last = (node.log.last().map_or(0, |e| e.term), node.log.len());
                    let body = Body::Vote { term: node.term, last };
                    self.call(n, Call::Vote, body, way);
                }
                // Nobody will answer this candidate any more: it waits as a follower does.
                let waits = matches!(way, Some(Way::Late | Way::AnswerLate));
                let (node, _) = self.node(n);
                if node.role == Role::Candidate && !waits {
                    node.role = Role::Follower;
                }
            }
            Act::Append(n, way) => self.send_log(n, way, bounds),
            Act::Ping(n, way) => self.call(n, Call::Heartbeat, Body::Ping, way),
            Act::Rejoin(n) => {
                let empty = self.nodes[n].log.is_empty();
                self.call(n, Call::Rejoin { empty }, Body::Rejoin, Way::Heard);
            }
            Act::Arrives(n) => match self.late[n].take() {
                Some(Letter::Question(question)) => {
                    if let Some(answer) = self.hear(n, question) {
                        self.take_answer(1 - n, &answer);
                    }
                }
                Some(Letter::Answer(answer)) => self.take_answer(n, &answer),
                None => {}
            },
            Act::Write(n) => {
                self.left.writes -= 1;
                let write = self.written;
                self.written += 1;
                let (node, watch) = self.node(n);
                node.open |= 1 << write;
                node.append(Kind::Write(write), watch);
                node.sync(watch);
            }
            Act::Lost(n) => {
                let (node, watch) = self.node(n);
                let peer = node.peer();
                let out = node.core.handle(Event::Lost { peer });
                node.apply(out, watch);
                node.sync(watch);
            }
            Act::Step(n) => {
                let (node, watch) = self.node(n);
                node.take_step(watch);
            }
            Act::Fences(_)
            | Act::BothFence
            | Act::Confirmed(_)
            | Act::ConfirmedOld(_)
            | Act::Crash(_)
            | Act::Boot(_)
            | Act::Restart(_)
            | Act::Force(_)
            | Act::Wipe(_) => self.fault(act, bounds),
        }
        for ((node, before), print) in self.nodes.iter().zip(before).zip(&mut self.prints) {
            if !Rc::ptr_eq(node, &before) {
                *print = print_of(node);
            }
        }
        self.laws();
    }

    pub(super) fn node(&mut self, n: usize) -> (&mut Node, &mut Watch) {
        (Rc::make_mut(&mut self.nodes[n]), &mut self.watch)
    }

    fn fault(&mut self, act: Act, bounds: &Bounds) {
        match act {
            Act::Fences(n) => {
                self.node(n).0.ordered();
                self.fenced(1 - n);
            }
            Act::BothFence => {
                for n in [0, 1] {
                    self.node(n).0.ordered();
                }
                self.fenced(0);
                self.fenced(1);
            }
            Act::Confirmed(n) => {
                let (node, _) = self.node(n);
                let off = node.fenced.take().unwrap_or_else(|| node.order());
                self.confirm(n, off);
            }
            Act::ConfirmedOld(n) => {
                let off = self.node(n).0.fenced_before.take();
                if let Some(off) = off {
                    self.confirm(n, off);
                }
            }
            Act::Crash(n) => self.power_off(n),
            Act::Boot(n) => {
                self.left.boots[n] -= 1;
                let (node, watch) = self.node(n);
                node.start(true, bounds, watch);
            }
            Act::Restart(n) => {
                self.left.restarts -= 1;
                self.end_sessions(n);
                let (node, watch) = self.node(n);
                node.stop();
                node.start(false, bounds, watch);
            }
            Act::Force(n) => {
                self.left.forces -= 1;
                self.force(n);
            }
            Act::Wipe(n) => {
                self.left.wipes -= 1;
                self.wiped = true;
                let (old, other) = (&self.nodes[n], &self.nodes[1 - n]);
                let copied =
                    old.core.line() == other.core.line() && other.log.len() >= old.log.len();
                // Who destroys the only copy has asked for what follows.
                self.watch.forced |= !copied;
                let (boot, incarnation) = (old.boot, old.incarnation);
                let id = if bounds.flaw == Some(Flaw::IdReused) { old.id } else { 3 };
                let fresh = Node { boot, incarnation, ..Node::new(id, Vec::new()) };
                self.nodes[n] = Rc::new(fresh);
            }
            Act::Campaign(..)
            | Act::Append(..)
            | Act::Ping(..)
            | Act::Rejoin(_)
            | Act::Arrives(_)
            | Act::Write(_)
            | Act::Lost(_)
            | Act::Step(_) => {}
        }
    }

    /// Both boot if they have to and hear each other; nothing is under way any more. Numbers of starts have
    /// done their work then, and are made the same so that more situations are equal.
    pub(super) fn calm_down(&mut self, bounds: &Bounds) {
        let most = u8::MAX;
        self.left = Left { boots: [most; 2], fencings: most, forces: most, ..bounds.left };
        self.late = [None, None];
        for n in [0, 1] {
            if !self.nodes[n].up {
                self.act(Act::Boot(n), bounds);
            }
        }
        for n in [0, 1, 0] {
            self.act(Act::Ping(n, Way::Heard), bounds);
        }
        for node in &mut self.nodes {
            let node = Rc::make_mut(node);
            (node.boot, node.incarnation) = (1, 1);
            (node.fenced, node.fenced_before) = (None, None);
            let boot = BootId([1; 16]);
            node.core.me = Identity { id: node.id, incarnation: 1, boot };
            for heard in node.core.heard.values_mut() {
                *heard = 1;
            }
            let heard = node.core.heard.clone();
            node.mark = node.mark.take().map(|mark| Mark { boot, heard, ..mark });
            node.core.mark.clone_from(&node.mark);
        }
    }

    fn fenced(&mut self, n: usize) {
        if self.nodes[n].up {
            self.left.fencings -= 1;
            self.power_off(n);
        }
    }

    fn power_off(&mut self, n: usize) {
        self.end_sessions(n);
        let (node, _) = self.node(n);
        node.stop();
        node.mark = None;
    }

    /// Connections do not survive an end of them; heartbeats may arrive later all the same.
    fn end_sessions(&mut self, n: usize) {
        let dies = |letter: &Letter| match letter {
            Letter::Question(question) => question.session.is_some(),
            Letter::Answer(_) => true,
        };
        if self.late[n].as_ref().is_some_and(dies) {
            self.late[n] = None;
        }
    }

    fn confirm(&mut self, n: usize, (peer, incarnation): (RaftId, u64)) {
        let how = How::Hand { operator: String::new() };
        let evidence = Evidence { peer, incarnation, how, at_ms: 0 };
        let (node, watch) = self.node(n);
        let id = node.new_generation();
        let out = node.core.handle(Event::Confirmed { evidence, id });
        node.apply(out, watch);
    }

    fn force(&mut self, n: usize) {
        let (node, watch) = self.node(n);
        let id = node.new_generation();
        let order = Order::Force { operator: String::new(), accept_divergence: true, id, at_ms: 0 };
        if let Ok(out) = node.core.order(order) {
            watch.forced = true;
            node.apply(out, watch);
        }
    }

    fn send_log(&mut self, n: usize, way: Way, bounds: &Bounds) {
        if self.target(n).is_none() {
            return;
        }
        let node = &self.nodes[n];
        let end = if bounds.entry_by_entry { node.matched.1 + 1 } else { usize::MAX };
        let log = node.log[..end.min(node.log.len())].to_vec();
        let body = Body::Append { term: node.term, log, commit: node.commit };
        self.call(n, Call::Append, body, way);
    }

    fn call(&mut self, n: usize, call: Call, body: Body, way: Way) {
        let (node, other) = (&self.nodes[n], &self.nodes[1 - n]);
        let question = Question {
            call,
            from: node.id,
            to: other.id,
            session: (call != Call::Heartbeat).then_some(other.incarnation),
            home: node.incarnation,
            greeting: node.core.greeting(other.id),
            body,
        };
        if way == Way::Late {
            self.left.late -= 1;
            self.late[1 - n] = Some(Letter::Question(question));
            return;
        }
        let Some(answer) = self.hear(1 - n, question) else { return };
        match way {
            Way::Heard => self.take_answer(n, &answer),
            Way::AnswerLate => {
                self.left.late -= 1;
                self.late[n] = Some(Letter::Answer(answer));
            }
            Way::AnswerLost | Way::Late => {}
        }
    }

    fn hear(&mut self, n: usize, question: Question) -> Option<Answer> {
        let node = &self.nodes[n];
        let session = question.session.is_none_or(|s| s == node.incarnation);
        if !node.up || node.id != question.to || !session {
            return None;
        }
        let (node, watch) = self.node(n);
        let before = node.core.line();
        let late = question.greeting.incarnation
            < node.core.heard.get(&question.from).copied().unwrap_or(0);
        let (verdict, out) = node.core.receive(question.call, question.from, &question.greeting);
        node.apply(out, watch);
        if !late {
            let met = node.met(&question.greeting, watch);
            let asks = matches!(question.call, Call::Rejoin { .. });
            let talks = met == Relation::Equal
                || met == Relation::MineStale
                || (asks && met == Relation::TheirsStale);
            let law = "a call across generations is served";
            watch.law(before != node.core.line() || talks || verdict.is_err(), law);
        }
        let said = match verdict {
            Ok(()) => node.serve(question.from, question.body, watch),
            Err(
                Refusal::Stale
                | Refusal::MineStale
                | Refusal::Diverged
                | Refusal::Late
                | Refusal::NotNow
                | Refusal::IdUsed { .. },
            ) => Said::Refused,
        };
        node.sync(watch);
        Some(Answer {
            call: question.call,
            from: node.id,
            to: question.from,
            session: question.home,
            greeting: node.core.greeting(question.from),
            said,
        })
    }

    fn take_answer(&mut self, n: usize, answer: &Answer) {
        let node = &self.nodes[n];
        if !node.up || node.id != answer.to || node.incarnation != answer.session {
            return;
        }
        let (node, watch) = self.node(n);
        let late =
            answer.greeting.incarnation < node.core.heard.get(&answer.from).copied().unwrap_or(0);
        let (used, out) = node.core.answered(answer.call, answer.from, &answer.greeting);
        node.apply(out, watch);
        if !late {
            node.met(&answer.greeting, watch);
        }
        if used {
            node.use_answer(answer.from, &answer.said, watch);
        }
        node.sync(watch);
    }

    /// Laws over both nodes.
    fn laws(&mut self) {
        let [a, b] = &self.nodes;
        if self.watch.forced {
            return;
        }
        let common = a.commit.min(b.commit);
        self.watch.law(a.log[..common] == b.log[..common], "two histories are committed");
        let services = [a, b].map(|n| if n.up { n.core.service() } else { Service::No });
        let both = services == [Service::Full; 2];
        self.watch.law(!both || a.core.line() == b.core.line(), "both serve, apart");
        for (x, other) in [(a, services[1]), (b, services[0])] {
            let alone = x.up && x.core.service() == Service::Full && x.core.effective.only(x.id);
            self.watch.law(!alone || other == Service::No, "one serves alone while the other may");
        }
    }
}

impl Node {
    /// Whom the core wants fenced.
    fn order(&self) -> (RaftId, u64) {
        let peer = self.peer();
        (peer, self.core.heard.get(&peer).copied().unwrap_or(0))
    }

    /// A name that was never given before: a node that has decided does not decide in that place again.
    fn new_generation(&self) -> GenerationId {
        let parts = [self.id, self.incarnation, self.core.durable().lineage.next()];
        let mut id = [0; 16];
        for (place, part) in id.iter_mut().zip(parts) {
            *place = u8::try_from(part).unwrap();
        }
        GenerationId(id)
    }

    fn ordered(&mut self) {
        self.fenced_before = self.fenced.or(self.fenced_before);
        self.fenced = Some(self.order());
    }

    fn serve(&mut self, from: RaftId, body: Body, watch: &mut Watch) -> Said {
        match body {
            Body::Vote { term, last } => {
                self.see_term(term);
                let mine = (self.log.last().map_or(0, |e| e.term), self.log.len());
                let free = self.voted == 0 || self.voted == from;
                let granted = term == self.term && free && last >= mine;
                if granted {
                    self.voted = from;
                }
                Said::Vote { term: self.term, granted }
            }
            Body::Append { term, log, commit } => {
                self.see_term(term);
                if term < self.term {
                    return Said::Append { term: self.term, matched: 0 };
                }
                self.role = Role::Follower;
                self.voted = from;
                self.adopt(&log, commit, watch);
                Said::Append { term, matched: log.len() }
            }
            Body::Ping | Body::Rejoin => Said::Nothing,
        }
    }

    fn use_answer(&mut self, from: RaftId, said: &Said, watch: &mut Watch) {
        match *said {
            Said::Vote { term, granted } => {
                self.see_term(term);
                let counts = granted && term == self.term && self.role == Role::Candidate;
                if counts && self.elected_by(bit(from)) {
                    self.lead(watch);
                }
            }
            Said::Append { term, matched } => {
                self.see_term(term);
                if self.role != Role::Leader || term != self.term {
                    return;
                }
                let known = if self.matched.0 == from { self.matched.1 } else { 0 };
                self.matched = (from, known.max(matched));
                self.advance(watch);
                if self.matched.1 == self.log.len() && self.learner == Some(from) {
                    let out = self.core.handle(Event::CaughtUp { peer: from });
                    self.apply(out, watch);
                }
            }
            Said::Refused | Said::Nothing => {}
        }
    }
}
