//! The policy engine: what should run where, and the ordered actions that get there. Pure; phases are files.

mod types;

pub use types::{
    Action, ActionId, ActionKind, Input, Instance, NodeView, OpSpec, Placement, Plan, Reason,
};
