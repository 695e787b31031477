//! What the local sockets read, on lines that nobody should send: no panic, no memory beyond a bound, and what is valid comes back.
//! `PROPTEST_CASES` for more.
#![expect(unsafe_code, reason = "counts memory")]

use crate::local::{self, LinkLine, NodeLine, StatusReply};
use crate::peer::{Branch, Line};
use crate::{block, line};
use crm_core::cib::Cib;
use crm_core::fencing::{Answer, Coverage, History, Task, Verb};
use crm_core::plan::Plan;
use crm_core::status::Status;
use crm_core::store::{Edit, FenceRequest, Outcome, Revision, State, VolumeRecord};
use crm_core::text::{Session, read};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

/// What reading a line of some kilobytes may take, everything together.
const MEMORY: usize = 4 << 20;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, and how many bytes each thread has asked it for.
struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.with(|taken| taken.set(taken.get().wrapping_add(layout.size())));
        // SAFETY: the caller's promise is the one that is wanted.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static MEMORY_OF_TESTS: Counting = Counting;

/// Reads bytes as both sides of a socket do; what is read is written and read again to the same.
fn reads<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let before = TAKEN.with(Cell::get);
    let made: Result<T, _> = serde_json::from_slice(bytes);
    let taken = TAKEN.with(Cell::get).wrapping_sub(before);
    assert!(taken < MEMORY, "{taken} bytes for {}", bytes.len());
    if let Err(error) = &made {
        assert!(error.to_string().len() < bytes.len() + 2000, "an error as long as a book");
    }
    let made = made.ok()?;
    let written = serde_json::to_vec(&made).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), made);
    Some(made)
}

/// As whatever goes over a socket; whether it is any of it.
fn reads_as_anything(bytes: &[u8]) -> bool {
    let read = [
        reads::<local::Request>(bytes).is_some(),
        reads::<local::Reply>(bytes).is_some(),
        reads::<block::Request>(bytes).is_some(),
        reads::<block::Reply>(bytes).is_some(),
        reads::<block::Event>(bytes).is_some(),
    ];
    read.contains(&true)
}

fn cib() -> Cib {
    let mut session = Session::new(Cib::default(), 1);
    let text = "node alpha attributes rack=1\nnode delta\nprimitive web Dummy params fake=1 op monitor interval=10s\n\
        primitive power stonith:fence_x params pcmk_host_list=alpha\nclone c web meta clone-max=2\n\
        location l c 5: alpha\n\
        volume r0 size=1GiB replica=alpha:/dev/a replica=delta:/dev/a\nproperty stonith-enabled=false\n";
    read("t", text, &mut session).unwrap();
    session.cib().clone()
}

fn revision() -> Revision {
    let (author, message) = ("root@alpha".to_owned(), "configure".to_owned());
    Revision { version: 3, author, message, when_ms: 7, cib: Arc::new(cib()) }
}

fn state() -> State {
    let mut state = State::default();
    (state.cib, state.version) = (Arc::new(cib()), 3);
    state.revisions = vec![Arc::new(revision())];
    state
}

fn parted(node: &str) -> Line {
    let (id, words) = (node.to_owned(), "generation 1".to_owned());
    let record = VolumeRecord { epoch: 2, in_sync: BTreeSet::from([node.to_owned()]) };
    Line {
        node: node.to_owned(),
        branch: vec![Branch { id, words, at_ms: 5 }],
        voters: BTreeSet::from([node.to_owned()]),
        version: 4,
        cib: cib(),
        revisions: Vec::new(),
        status: Status::default(),
        volumes: BTreeMap::from([("r0".to_owned(), record)]),
    }
}

fn picture() -> StatusReply {
    let address = "h:1".to_owned();
    let link = LinkLine {
        address: address.clone(),
        up: true,
        in_use: false,
        for_ms: 9,
        heard_ms_ago: Some(1),
        rtt_us: None,
    };
    let node = NodeLine { alive: true, online: true, standby: false, address, links: vec![link] };
    let (words, struck) = ("2 of 2 votes are here".to_owned(), BTreeSet::from(["b".to_owned()]));
    let votes = Some(local::VotesLine { quorate: true, waiting: false, words, struck });
    StatusReply {
        votes,
        me: "alpha".to_owned(),
        mode: local::Mode::Leader,
        leader: Some("alpha".to_owned()),
        quorate: true,
        voters: BTreeSet::from(["alpha".to_owned()]),
        waiting: None,
        standing: "whole".to_owned(),
        generations: vec!["generation 1".to_owned()],
        version: "1".to_owned(),
        nodes: BTreeMap::from([("alpha".to_owned(), node)]),
        witnesses: BTreeMap::from([("w".to_owned(), true)]),
        state: state(),
        plan: Plan::default(),
        busy: false,
        now_ms: 5,
    }
}

fn requests() -> Vec<local::Request> {
    use local::Request as R;
    let words = || "a".to_owned();
    let task = Task { device: words(), verb: Verb::Status, target: Some(words()) };
    let request = FenceRequest { target: words(), action: None, by: words(), confirm: true };
    let edit = Edit::NodeAttr { node: words(), name: words(), value: None };
    vec![
        R::Status,
        R::CancelWait,
        R::Commit { base: 3, cib: Box::new(cib()), message: words() },
        R::Edit { edits: vec![edit], message: words() },
        R::Cleanup { resource: Some(words()), node: None },
        R::WaitIdle { version: 3, timeout_ms: u64::MAX },
        R::SetAttr { name: words(), value: Some(words()) },
        R::Fence { request, timeout_ms: 5 },
        R::FenceCheck { task, timeout_ms: 5 },
        R::Merge { base: 3, theirs: 4, cib: Box::new(cib()), message: words() },
        R::RemoveNode { node: words(), force: true },
        R::Relocate { node: words(), address: words(), links: vec![words()] },
        R::Disarm { for_ms: Some(5), reason: words() },
        R::Block(block::Request::Promote { volume: words(), lost: vec![words()] }),
        R::Watch,
    ]
}

fn replies() -> Vec<local::Reply> {
    use local::Reply as R;
    let divergence = local::Divergence {
        ours: parted("alpha"),
        theirs: parted("delta"),
        common: 1,
        base: Some(revision()),
    };
    vec![
        R::Status(Box::new(picture())),
        R::Cib { version: 3, cib: Box::new(cib()) },
        R::Outcome(Outcome::Done { version: 4 }),
        R::Attr(Some("v".to_owned())),
        R::Revision(Some(Box::new(revision()))),
        R::Fencing {
            coverage: Coverage::default(),
            pending: BTreeSet::from(["delta".to_owned()]),
            history: Box::new(History::default()),
        },
        R::FenceAnswer(Answer { exit: Some(-1), ..Answer::default() }),
        R::Divergence(Box::new(divergence)),
        R::Refused { why: "no".to_owned(), remedy: "yes".to_owned() },
    ]
}

fn volume() -> block::VolumeStatus {
    let peer = block::PeerStatus {
        node: "delta".to_owned(),
        connection: block::Connection::SyncSource,
        primary: false,
        disk: block::DiskState::Outdated,
        out_of_sync_bytes: 4096,
        resynced_bytes: 0,
        why: Some("split brain".to_owned()),
    };
    block::VolumeStatus {
        name: "r0".to_owned(),
        up: true,
        primary: true,
        disk: block::DiskState::UpToDate,
        device: Some("/dev/drbd0".to_owned()),
        front: None,
        suspended: None,
        generation: "1f".to_owned(),
        epoch: 3,
        score: Some(-5),
        counters: block::Counters::default(),
        peers: vec![peer],
    }
}

fn definition() -> block::Request {
    let word = |text: &str| text.to_owned();
    let replica =
        block::ReplicaSpec { node: word("alpha"), address: word("h:2"), disk: word("/dev/a") };
    block::Request::Define(block::VolumeSpec {
        name: word("r0"),
        size_bytes: 1 << 30,
        device: word("/dev/drbd0"),
        me: word("alpha"),
        replicas: vec![replica],
        day0: u64::MAX,
        assume_clean: true,
    })
}

/// What is valid comes back, whoever reads it.
fn kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) -> Value {
    let bytes = serde_json::to_vec(message).unwrap();
    assert!(!bytes.contains(&b'\n'), "more than a line");
    assert_eq!(reads::<T>(&bytes).as_ref(), Some(message));
    serde_json::from_slice(&bytes).unwrap()
}

/// Messages as they are sent.
fn valid() -> Vec<Value> {
    let drop = block::Request::Drop { volume: "r0".to_owned(), peers: Vec::new(), epoch: 3 };
    let blocks = [definition(), drop, block::Request::Status { volume: None }];
    let code = || "io".to_owned();
    let answers =
        [block::Reply::Status(vec![volume()]), block::Reply::Refused { code: code(), why: code() }];
    let peers = vec!["delta".to_owned()];
    let events = [
        block::Event::Changed(volume()),
        block::Event::MayIDrop { volume: "r0".to_owned(), peers, epoch: 1 },
    ];
    let mut all: Vec<Value> = requests().iter().map(kept).collect();
    all.extend(replies().iter().map(kept));
    all.extend(blocks.iter().map(kept));
    all.extend(answers.iter().map(kept));
    all.extend(events.iter().map(kept));
    all
}

#[test]
fn what_is_valid_comes_back() {
    assert!(valid().iter().all(|message| reads_as_anything(message.to_string().as_bytes())));
}

/// What stands where something else should.
fn stranger() -> impl Strategy<Value = String> {
    let plain = select(vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(u64::MAX),
        json!(0.5),
        json!(""),
        json!([]),
        json!({}),
        json!([[["a"]]]),
        json!({"a": {"b": 1}}),
        json!("\u{0}\u{202e}"),
    ]);
    let number = select(vec!["1e999", "-1e999", "18446744073709551616", "1e-400", "-0", "NaN"]);
    let deep = (1usize..4000).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth));
    let nested = (1usize..1000).prop_map(|n| "{\"And\":[".repeat(n) + &"]}".repeat(n));
    let long = (4u32..12).prop_map(|digits| "9".repeat(1 << digits));
    prop_oneof![
        4 => plain.prop_map(|value| value.to_string()),
        2 => number.prop_map(str::to_owned),
        1 => deep,
        1 => nested,
        1 => long,
    ]
}

/// All values in a message.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(items) => items.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The message as text, with the value at a place (in the order of writing) replaced by text that need not be JSON.
fn with(value: &Value, at: &mut usize, other: &str) -> String {
    if *at == 0 {
        *at = usize::MAX;
        return other.to_owned();
    }
    *at -= 1;
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| with(item, at, other)).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(items) => {
            let one = |(key, item): (&String, &Value)| {
                format!("{}:{}", Value::from(key.as_str()), with(item, at, other))
            };
            format!("{{{}}}", items.iter().map(one).collect::<Vec<_>>().join(","))
        }
        plain => plain.to_string(),
    }
}

/// Lines that were valid until a value was exchanged, or bytes were changed, cut or repeated, or never were.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let exchanged =
        (select(valid()), any::<Index>(), stranger()).prop_map(|(message, place, other)| {
            with(&message, &mut place.index(count(&message)), &other).into_bytes()
        });
    let change = (any::<Index>(), any::<u8>(), 0u8..4);
    let spoiled = (select(valid()), vec(change, 1..6)).prop_map(|(message, changes)| {
        let mut bytes = message.to_string().into_bytes();
        for (place, byte, how) in changes {
            let at = place.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte & 7),
                2 => bytes.insert(at, byte | 0x80),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    });
    prop_oneof![exchanged, spoiled, vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_panics_or_takes_more_memory_than_its_bound(bytes in bytes()) {
        reads_as_anything(&bytes);
    }

    #[test]
    fn lines_come_out_as_they_went_in_and_none_is_longer_than_the_limit(
        bytes in vec(prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')], 0..200),
        most in 1usize..60,
    ) {
        let (mut stream, mut out, mut ended) = (&bytes[..], Vec::new(), true);
        loop {
            match line::read(&mut stream, most) {
                Ok(Some(line)) => {
                    prop_assert!(line.len() <= most);
                    out.extend(line);
                }
                Ok(None) => break,
                Err(error) => {
                    prop_assert!(error.to_string().contains("longer than"));
                    ended = false;
                    break;
                }
            }
        }
        prop_assert!(bytes.starts_with(&out));
        let longest = bytes.split_inclusive(|b| *b == b'\n').map(<[u8]>::len).max();
        prop_assert_eq!(ended, longest.unwrap_or(0) <= most);
        prop_assert!(!ended || out == bytes);
    }
}
