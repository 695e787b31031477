//! Fencing: which devices reach which nodes, and the machine that gets a node fenced or says why it could not be.
//!
//! Pure: events and the time (milliseconds since the epoch) come in, effects go out. The caller runs the agents
//! (`crm_agents::fence`), reports what they said, and keeps [`History`] in the replicated status. What the words of the configuration
//! mean follows Pacemaker's documentation (pacemaker-fenced(7), "Fencing" in Pacemaker Explained); what differs is in docs/compat.md.

mod coverage;
mod delay;
mod device;
mod history;
mod hosts;
mod machine;
mod monitor;
mod request;
#[cfg(test)]
mod tests;
mod topology;

pub use coverage::{Coverage, Finding, LevelCoverage, NodeCoverage, Reached};
pub use delay::{priority_delay_ms, weight};
pub use device::{
    Abilities, Action, Call, Config, Device, Kind, Params, Task, Verb, is_own_parameter, is_secret,
    watchdog_timeout_ms,
};
pub use history::{Attempt, Evidence, HEALTHY_AFTER_MS, History, Means, Record, Verdict};
pub use hosts::{Answers, LIST_AGE_MAX_MS, Query, Reach};
pub use machine::{ANSWER_GRACE_MS, Answer, Effect, Event, Fencer, Order, World};
pub use monitor::{DeviceOp, Operation};
pub use topology::Level;
