//! The queue to the log: the controller's proposals, in order, one after another, each retried until it is settled.

use crate::daemon::Input;
use crm_core::controller::Event;
use crm_core::store::{Command, Outcome};
use crm_membership::{Handle, ProposeError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Pause before a proposal is tried again, when nobody leads or the outcome is unknown.
const AGAIN: Duration = Duration::from_millis(50);

/// One entry of the queue: the generation it belongs to and the command.
pub(crate) type Entry = (u64, Command);

/// Works the queue. An entry of an older generation than `generation` says has been given up by the controller.
pub(crate) async fn run(
    handle: Handle,
    mut queue: mpsc::UnboundedReceiver<Entry>,
    generation: watch::Receiver<u64>,
    events: mpsc::UnboundedSender<Input>,
) {
    while let Some((of, command)) = queue.recv().await {
        loop {
            if *generation.borrow() != of {
                break;
            }
            match handle.propose(command.clone()).await {
                Ok(outcome) => {
                    if let Outcome::Refused { why } = &outcome {
                        tracing::warn!(why, "the log refused a proposal of this node");
                    }
                    if *generation.borrow() == of
                        && events.send(Input::Event(Event::Proposed)).is_err()
                    {
                        return;
                    }
                    break;
                }
                Err(error) => {
                    log_failure(&error);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

fn log_failure(error: &ProposeError) {
    tracing::debug!(%error, "proposal not settled, will try again");
}
