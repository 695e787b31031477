//! Service quorum, a whole cluster at a time: tables of decisions, laws under random events.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod cluster;
mod laws;
mod tables;
