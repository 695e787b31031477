//! A whole cluster of quorum cores in memory: who sees whom is set, words are carried, time is a number.
//! Laws that hold at every single step are checked at every single step.

use crm_quorum::votes::{Event, Memory};
use crm_quorum::{Member, Policy, Quorum, Word};
use std::collections::{BTreeMap, BTreeSet};

/// One node, up or down; its memory survives.
pub(crate) struct Node {
    pub(crate) core: Option<Quorum>,
    pub(crate) memory: Memory,
    /// The newest of the cluster's configurations that it knows.
    pub(crate) config: usize,
}

pub(crate) struct Cluster {
    pub(crate) policy: Policy,
    /// The members as configured, oldest first.
    pub(crate) configs: Vec<Vec<Member>>,
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Pairs that hear each other, both ways.
    pub(crate) links: BTreeSet<(String, String)>,
    /// Nodes to whom the arbiter gives its vote.
    pub(crate) arbiter: BTreeSet<String>,
    pub(crate) now: u64,
    /// Every event of every node's present run, to be played again.
    pub(crate) log: BTreeMap<String, Vec<(u64, Event)>>,
}

pub(crate) fn members(votes: &[u32]) -> Vec<Member> {
    (1..).zip(votes).map(|(id, votes)| Member { name: id.to_string(), id, votes: *votes }).collect()
}

impl Cluster {
    /// Members `1`, `2`, ... with these votes; all are down.
    pub(crate) fn new(policy: Policy, votes: &[u32]) -> Self {
        let members = members(votes);
        Self {
            policy,
            nodes: members
                .iter()
                .map(|m| {
                    (m.name.clone(), Node { core: None, memory: Memory::default(), config: 0 })
                })
                .collect(),
            configs: vec![members],
            links: BTreeSet::new(),
            arbiter: BTreeSet::new(),
            now: 0,
            log: BTreeMap::new(),
        }
    }

    pub(crate) fn start(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        if node.core.is_none() {
            let memory = node.memory.clone();
            node.core =
                Some(Quorum::new(name, self.policy.clone(), &self.configs[node.config], memory));
            self.log.insert(name.to_owned(), Vec::new());
        }
    }

    pub(crate) fn crash(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().core = None;
    }

    pub(crate) fn up(&self) -> Vec<String> {
        self.nodes.iter().filter(|(_, n)| n.core.is_some()).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn core(&self, name: &str) -> &Quorum {
        self.nodes[name].core.as_ref().unwrap()
    }

    /// Whom a node hears, itself not among them.
    pub(crate) fn sees(&self, name: &str) -> BTreeMap<String, Word> {
        let linked = |a: &str, b: &str| self.links.contains(&(a.to_owned(), b.to_owned()));
        self.up()
            .into_iter()
            .filter(|peer| peer != name && (linked(name, peer) || linked(peer, name)))
            .map(|peer| (peer.clone(), self.core(&peer).word()))
            .collect()
    }

    /// Gives one node an event, and checks what must hold for any event.
    pub(crate) fn apply(&mut self, name: &str, event: Event) {
        let now = self.now;
        let Some(core) = self.nodes.get_mut(name).unwrap().core.as_mut() else { return };
        let waited = core.verdict().waiting;
        let cancelled = matches!(event, Event::CancelWait | Event::Policy(_));
        let log = self.log.get_mut(name).unwrap();
        log.push((now, event.clone()));
        let seen = log.iter().rev().find_map(|(_, event)| peers_of(event));
        let settled = seen.is_some_and(|peers| {
            peers.values().any(|word| word.quorate && !word.waiting && !word.leaving)
        });
        let verdict = core.apply(now, event).clone();
        let all = verdict.count.have >= verdict.count.expected;
        assert!(
            !waited || verdict.waiting || all || settled || cancelled,
            "{name} ended its wait for nothing: {verdict:?}"
        );
        let again = core.word();
        core.apply(now, Event::Tick);
        assert_eq!((core.verdict(), core.word()), (&verdict, again), "{name}: once is enough");
        self.nodes.get_mut(name).unwrap().memory = self.core(name).memory();
    }

    /// One node hears what is said by those that it sees now.
    pub(crate) fn hear(&mut self, name: &str) {
        let seen = self.sees(name);
        // The log comes before everything else.
        let newest = seen.keys().map(|peer| self.nodes[peer].config).max();
        self.configure(name, newest.unwrap_or(0));
        if self.policy.arbiter.is_some() {
            self.apply(name, Event::Arbiter(self.arbiter.contains(name)));
        }
        self.apply(name, Event::View(seen));
    }

    /// Each node hears the others, in this order.
    pub(crate) fn round(&mut self, order: &[String]) {
        for name in order {
            self.hear(name);
        }
    }

    /// Words go round until there is nothing new.
    pub(crate) fn settle(&mut self) {
        for _ in 0..6 {
            self.round(&self.up());
        }
    }

    /// Groups of nodes that see each other: `12/34`; `+` after a group: the arbiter's vote is there.
    /// Nodes not named are down.
    pub(crate) fn groups(&mut self, text: &str) {
        self.links.clear();
        self.arbiter.clear();
        for name in self.up().iter().filter(|name| !text.contains(name.as_str())) {
            self.crash(name);
        }
        for group in text.split('/') {
            let names: Vec<String> =
                group.chars().filter(char::is_ascii_digit).map(String::from).collect();
            if group.ends_with('+') {
                self.arbiter.extend(names.iter().cloned());
            }
            for name in &names {
                self.start(name);
                self.links.extend(names.iter().map(|peer| (name.clone(), peer.clone())));
            }
        }
        self.settle();
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now += ms;
        for name in self.up() {
            self.apply(&name, Event::Tick);
        }
        self.settle();
    }

    pub(crate) fn leave(&mut self, name: &str) {
        self.apply(name, Event::Leave);
        self.settle();
        self.crash(name);
        self.settle();
    }

    /// The administrator adds or removes a member.
    pub(crate) fn seat(&mut self, id: u64, present: bool) {
        let name = id.to_string();
        let mut members = self.configs.last().unwrap().clone();
        members.retain(|m| m.name != name);
        let config = self.configs.len();
        if present {
            members.push(Member { name: name.clone(), id, votes: 1 });
            let memory = Memory::default();
            let node = Node { core: None, memory, config };
            self.nodes.entry(name).or_insert(node);
        }
        self.configs.push(members);
        for name in self.up() {
            self.configure(&name, config);
        }
        self.settle();
    }

    /// A node learns of a configuration.
    pub(crate) fn configure(&mut self, name: &str, config: usize) {
        if self.nodes[name].config < config {
            self.nodes.get_mut(name).unwrap().config = config;
            self.apply(name, Event::Members(self.configs[config].clone()));
        }
    }
}

fn peers_of(event: &Event) -> Option<&BTreeMap<String, Word>> {
    if let Event::View(peers) = event { Some(peers) } else { None }
}
