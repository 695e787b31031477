//! A seeded world around `crm_core::controller`: machines, links, a log that keeps raft's promises, agents and a
//! replicated volume as models. It checks what must never happen, step by step.

mod machine;
mod world;

pub use world::{Fault, Violation, World};
