//! Fence agents for the daemon: what those of the configured devices can do, and runs of them, for this node's fencer or another node's.

use crate::daemon::Input;
use crm_agents::fence;
use crm_core::cib::Cib;
use crm_core::controller::Event;
use crm_core::fencing::{Abilities, Answer, Config, Task};
use crm_core::store::State;
use crm_membership::{FenceWork, Handle};
use crm_proto::peer::FenceCall;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

/// How much longer than the agent its node may take to answer.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Runs agents, and knows what they can do.
#[derive(Debug, Clone)]
pub(crate) struct Agents {
    handle: Handle,
    me: String,
    abilities: watch::Sender<BTreeMap<String, Abilities>>,
}

/// Runs under way for this node's fencer.
pub(crate) type Runs = BTreeMap<u64, AbortHandle>;

/// Names of the agents of all fence devices.
fn kinds(cib: &Cib) -> BTreeSet<String> {
    let devices = cib.primitives().into_iter().filter(|p| p.agent.class == "stonith");
    devices.map(|p| p.agent.kind.clone()).collect()
}

impl Agents {
    pub(crate) fn new(handle: Handle, me: String) -> Self {
        Self { handle, me, abilities: watch::Sender::new(BTreeMap::new()) }
    }

    /// Asks the agents of new devices what they can do, for the daemon's life.
    pub(crate) async fn watch(self, events: mpsc::UnboundedSender<Input>) {
        let mut states = self.handle.state();
        let mut known = BTreeSet::new();
        loop {
            let state: Arc<State> = states.borrow_and_update().clone();
            let wanted = kinds(&state.cib);
            if wanted != known {
                known = wanted;
                let found = fence::abilities(&fence::dir(), &state.cib).await;
                self.abilities.send_replace(found.clone());
                if events.send(Input::Event(Event::FenceAgents(found))).is_err() {
                    return;
                }
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Runs what other nodes want run here.
    pub(crate) async fn serve(self, mut wanted: mpsc::Receiver<FenceWork>) {
        while let Some(FenceWork { call, mut reply }) = wanted.recv().await {
            let agents = self.clone();
            tokio::spawn(async move {
                let answer = tokio::select! {
                    answer = agents.run_here(&call) => answer,
                    () = reply.closed() => {
                        tracing::info!(device = call.task.device, "fencing called off");
                        return;
                    }
                };
                if reply.send(answer).is_err() {
                    tracing::debug!("nobody waits for the fence agent any more");
                }
            });
        }
    }

    /// Begins a run for this node's fencer, here or on another node.
    pub(crate) fn begin(
        &self,
        runs: &mut Runs,
        events: mpsc::UnboundedSender<Input>,
        run: (u64, String, Task, u64),
    ) {
        let (number, node, task, limit_ms) = run;
        tracing::warn!(device = task.device, action = ?task.verb, target = task.target, by = node, "fencing");
        let agents = self.clone();
        let call = FenceCall { task, limit_ms };
        let work = tokio::spawn(async move {
            let answer = if node == agents.me {
                agents.run_here(&call).await
            } else {
                agents.run_there(&node, &call).await
            };
            if events.send(Input::Event(Event::FenceAnswered { call: number, answer })).is_err() {
                tracing::debug!("the daemon ended before a fence agent");
            }
        });
        runs.retain(|_, run| !run.is_finished());
        runs.insert(number, work.abort_handle());
    }

    pub(crate) async fn run_here(&self, call: &FenceCall) -> Answer {
        let state = self.handle.state().borrow().clone();
        let config = Config::read(&state.cib, &self.abilities.borrow(), 0);
        match config.call(&call.task, call.limit_ms) {
            Some(call) => fence::run(&fence::dir(), &call).await,
            None => refused(format!("{} has no device `{}`", self.me, call.task.device)),
        }
    }

    async fn run_there(&self, node: &str, call: &FenceCall) -> Answer {
        let limit = Duration::from_millis(call.limit_ms) + ANSWER_GRACE;
        match tokio::time::timeout(limit, self.handle.fence(node, call)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => refused(error.to_string()),
            Err(_) => refused(format!("no answer from {node}")),
        }
    }
}

fn refused(message: String) -> Answer {
    Answer { exit: None, stdout: String::new(), message }
}
