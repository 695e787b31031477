//! World: the lab. A cluster of two or three nodes in namespaces of this machine, with a switch between them and an NFS client that writes
//! all the while; the scenes it is put through; what the client saw.
//!
//! Called by `crm demo` and by the integration tests. It never decides anything about the cluster: it builds, breaks, mends and looks.

mod bench;
pub mod check;
mod cli;
pub mod client;
pub mod cluster;
mod down;
mod init;
mod lab;
mod loopback;
pub mod net;
pub mod node;
mod ns;
mod pid;
pub mod power;
mod rootless;
pub mod script;
mod shell;
mod ui;
mod up;
mod view;
pub mod wait;

pub use cli::main;
pub use down::down;
pub use lab::{CLIENT_ADDRESS, DEVICE, DISK, Lab, NODES, PORT, VIP, VIP_NAME, VOLUME, address};
pub use up::{Plan, bare, up};
