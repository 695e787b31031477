//! Pure: the CIB model, its texts, lint, diff, the replicated store, the policy engine, transitions, the node's controller.
//!
//! No clock, no files, no sockets, no threads, no randomness: same inputs, same bytes out.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod audit;
pub mod cib;
pub mod controller;
pub mod diff;
pub mod fencing;
pub mod lint;
pub mod lrm;
pub mod merge;
pub mod plan;
pub mod simulate;
pub mod status;
pub mod store;
pub mod text;
pub mod transition;
pub mod why;
pub mod xml;
pub mod yaml;
