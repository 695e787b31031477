//! Dev: random clusters, both engines on each of them, and what is left when a difference is cut down. Nothing here is part of `crm`.

pub mod dice;
pub mod engine;
pub mod generate;
pub mod known;
pub mod minimise;
pub mod named;
pub mod near;
pub mod scale;
pub mod summary;
pub mod tree;
