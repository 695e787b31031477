//! What reads the network, on bytes that nobody should send: no panic, no memory beyond a bound, and what is valid comes back.
//! `PROPTEST_CASES` for more.
#![expect(unsafe_code, reason = "counts memory")]

use crate::consensus::{Request, SnapshotMeta, Types, Vote};
use crate::proposer::Ask;
use crate::token::Token;
use crm_core::fencing::Answer;
use crm_proto::pb;
use crm_proto::peer::{FenceCall, Order, PlanId, Work};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::vote::RaftLeaderId;
use proptest::prelude::*;
use prost::Message as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a decoder may take for input of a few kilobytes: serde gives lists a first room of a megabyte at most.
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

/// What a decoder makes of bytes, within the bound.
fn bounded<T>(decode: impl FnOnce() -> Option<T>) -> Option<T> {
    let before = TAKEN.with(Cell::get);
    let made = decode();
    let taken = TAKEN.with(Cell::get).wrapping_sub(before);
    assert!(taken < MEMORY, "{taken} bytes");
    made
}

/// A body of a raft call: what is read from it is written as it came, up to what postcard ignores.
fn raft_body<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Some(value) = bounded(|| postcard::from_bytes::<T>(bytes).ok()) else { return };
    let written = postcard::to_stdvec(&value).unwrap();
    let again: T = postcard::from_bytes(&written).unwrap();
    assert_eq!(postcard::to_stdvec(&again).unwrap(), written);
}

fn json_body<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Some(value) = bounded(|| serde_json::from_slice::<T>(bytes).ok()) else { return };
    let written = serde_json::to_vec(&value).unwrap();
    let again: T = serde_json::from_slice(&written).unwrap();
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
}

fn log_id(index: u64) -> crate::consensus::LogId {
    type Leader = <Types as openraft::RaftTypeConfig>::LeaderId;
    openraft::LogId::new(Leader::new(3, 2).to_committed(), index)
}

/// Bodies as they are sent.
fn valid() -> Vec<Vec<u8>> {
    let request = Request {
        id: uuid::Uuid::from_u128(7),
        command: br#"{"Cleanup":{"resource":null,"node":null}}"#.to_vec(),
        generation: None,
    };
    let entry = |index, payload| {
        <crate::consensus::Entry as openraft::entry::RaftEntry>::new(log_id(index), payload)
    };
    let append = AppendEntriesRequest::<Types> {
        vote: Vote::new(3, 2),
        prev_log_id: Some(log_id(1)),
        entries: vec![
            entry(2, openraft::EntryPayload::Normal(request)),
            entry(3, openraft::EntryPayload::Blank),
        ],
        leader_commit: Some(log_id(2)),
    };
    let vote = VoteRequest::<Types>::new(Vote::new(3, 2), Some(log_id(9)));
    let image: (Vote, SnapshotMeta, Vec<u8>) =
        (Vote::new(3, 2), SnapshotMeta::default(), vec![1; 40]);
    let work = Work::CancelMonitor { resource: "r".to_owned(), interval_ms: 10_000 };
    let order = Order { plan: PlanId { term: 1, number: 1 }, action: 0, session: 5, work };
    let envelope =
        pb::Raft { kind: 1, from: 1, to: 2, cluster: "u".into(), body: vec![2; 9], quorate: true };
    let token = Token {
        cluster: "u".into(),
        ca: "00".into(),
        addresses: vec!["h:1".into()],
        id: "i".into(),
        secret: "s".into(),
        expires: 9,
    };
    vec![
        postcard::to_stdvec(&append).unwrap(),
        postcard::to_stdvec(&vote).unwrap(),
        postcard::to_stdvec(&image).unwrap(),
        serde_json::to_vec(&order).unwrap(),
        envelope.encode_to_vec(),
        token.text().into_bytes(),
    ]
}

/// Bytes that were valid until something was changed, cut or repeated, or never were.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0u8..4);
    let changes = proptest::collection::vec(change, 0..6);
    let spoiled = (prop::sample::select(valid()), changes).prop_map(|(mut bytes, changes)| {
        for (place, byte, how) in changes {
            let at = place.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte & 7),
                2 => bytes.insert(at, byte | 0x80),
                _ if bytes.len() > 1 => bytes.truncate(at.max(1)),
                _ => {}
            }
        }
        bytes
    });
    prop_oneof![spoiled, proptest::collection::vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_decoder_panics_or_takes_more_memory_than_its_bound(bytes in bytes(), kind in 0u32..4) {
        raft_body::<AppendEntriesRequest<Types>>(&bytes);
        raft_body::<AppendEntriesResponse<Types>>(&bytes);
        raft_body::<VoteRequest<Types>>(&bytes);
        raft_body::<VoteResponse<Types>>(&bytes);
        raft_body::<(Vote, SnapshotMeta, Vec<u8>)>(&bytes);
        json_body::<Order>(&bytes);
        json_body::<FenceCall>(&bytes);
        json_body::<Answer>(&bytes);
        bounded(|| pb::Raft::decode(bytes.as_slice()).ok());
        bounded(|| pb::Propose::decode(bytes.as_slice()).ok());
        bounded(|| pb::JoinRequest::decode(bytes.as_slice()).ok());
        bounded(|| pb::JoinReply::decode(bytes.as_slice()).ok());
        let id = uuid::Uuid::from_u128(1).to_string();
        bounded(|| Ask::from_wire(pb::Propose { body: bytes.clone(), id, kind }).ok());
        let text = String::from_utf8_lossy(&bytes);
        if let Some(token) = bounded(|| Token::parse(&text).ok()) {
            prop_assert_eq!(Token::parse(&token.text()).unwrap(), token);
        }
    }
}

#[test]
fn what_the_spoiled_bytes_are_made_from_is_read() {
    let valid = valid();
    postcard::from_bytes::<AppendEntriesRequest<Types>>(&valid[0]).unwrap();
    postcard::from_bytes::<VoteRequest<Types>>(&valid[1]).unwrap();
    postcard::from_bytes::<(Vote, SnapshotMeta, Vec<u8>)>(&valid[2]).unwrap();
    serde_json::from_slice::<Order>(&valid[3]).unwrap();
    pb::Raft::decode(valid[4].as_slice()).unwrap();
    Token::parse(&String::from_utf8_lossy(&valid[5])).unwrap();
}

/// A list that says that it has more entries than there is memory.
#[test]
fn a_list_that_lies_about_its_length_is_refused() {
    let honest = postcard::to_stdvec(&(Vote::new(3, 2), None::<crate::consensus::LogId>)).unwrap();
    let lying = [honest.as_slice(), &[0xff; 9], &[1]].concat();
    assert!(bounded(|| postcard::from_bytes::<AppendEntriesRequest<Types>>(&lying).ok()).is_none());
}
