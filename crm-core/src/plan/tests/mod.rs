//! Scenario tests and laws of the engine, on a small simulated cluster.

mod blind;
mod failures;
mod inside;
mod large;
mod laws;
mod left_over;
mod migrations;
mod orderings;
mod places;
mod promotable;
mod quorum;
mod recorded;
mod seed002;
mod steps;
mod told;
mod unmanaged;
mod world;
mod written;
