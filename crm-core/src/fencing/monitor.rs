//! What the operations of a `stonith` resource mean. Nothing runs between them: a started device is one whose agent has answered on that
//! node, and that is asked there first.

use super::device::{Call, Config, Kind, Verb};

/// An operation of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `start`.
    Start,
    /// `monitor`, also the one that probes.
    Monitor {
        /// It only asks whether the device is started here.
        probe: bool,
    },
    /// `stop`.
    Stop,
}

/// What a node does for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceOp {
    /// Run the agent. When it succeeds the device counts as started here ([`super::Event::Registered`]), else not
    /// ([`super::Event::Unregistered`], and the operation has failed).
    Check(Call),
    /// Run nothing: the device is started here from now on.
    Register,
    /// Run nothing: it is not started here any more. Fencing may still use it from any node, as long as it is configured and not disabled.
    Forget,
    /// Run nothing: say whether it is started here.
    Tell,
}

impl Config {
    /// What an operation of a device means; `None` when there is no such device, or it is switched off. `timeout_ms` is that of the
    /// operation, where one is configured. (`stop` of what is gone: [`DeviceOp::Forget`].)
    #[must_use]
    pub fn operation(
        &self,
        device: &str,
        op: Operation,
        timeout_ms: Option<u64>,
    ) -> Option<DeviceOp> {
        if op == Operation::Stop {
            return Some(DeviceOp::Forget);
        }
        let device = self.device(device)?;
        let limit_ms =
            timeout_ms.unwrap_or_else(|| device.limit_ms(Verb::Monitor, self.timeout_ms));
        Some(match (op, device.kind) {
            (Operation::Monitor { probe: true }, _) => DeviceOp::Tell,
            (Operation::Start | Operation::Monitor { .. }, Kind::Watchdog) => DeviceOp::Register,
            (Operation::Start | Operation::Monitor { .. }, Kind::Agent) => {
                DeviceOp::Check(device.call(Verb::Monitor, None, limit_ms))
            }
            (Operation::Stop, _) => DeviceOp::Forget,
        })
    }
}
