//! The local socket: JSON lines of `crm_proto::local`, answered by the daemon's task. Who may ask what: `admin::Caller`.

use crate::admin::{self, Caller};
use crate::daemon::{Daemon, Input};
use crate::{block, boot};
use anyhow::Context;
use crm_core::controller::{Event, Mode};
use crm_core::fencing::{Record, Task, Verb};
use crm_core::store::{Command, FenceRequest, Outcome, State};
use crm_membership::{Addresses, Handle, Link, ProposeError};
use crm_proto::local::{self, LinkLine, NodeLine, Reply, Request, StatusReply, VotesLine};
use crm_proto::peer::FenceCall;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

/// How long a change of the configuration may wait for a leader.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);
/// Pause before a change is tried again while there is no leader.
const AGAIN: Duration = Duration::from_millis(50);

/// A call that needs the daemon's task.
#[derive(Debug)]
pub(crate) struct Call {
    request: Request,
    reply: oneshot::Sender<Reply>,
}

/// Somebody waits until nothing is left to do.
#[derive(Debug)]
pub(crate) struct Waiter {
    version: u64,
    until: Instant,
    reply: oneshot::Sender<Reply>,
}

/// Somebody waits for the end of fencing.
#[derive(Debug)]
pub(crate) struct FenceWaiter {
    target: String,
    /// The last record about it when it was asked for.
    before: Option<Record>,
    until: Instant,
    reply: oneshot::Sender<Reply>,
}

/// Counts the answers that are under way on the local socket, so that the daemon does not end in the middle of one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers(watch::Sender<usize>);

/// An answer under way, until this is dropped.
#[derive(Debug)]
struct UnderWay(Answers);

impl Answers {
    fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Waits until all answers that were asked for are written, but no longer than the limit: false then. A stream of
    /// pictures is no answer, as it has no end.
    pub(crate) async fn written(&self, limit: Duration) -> bool {
        let mut count = self.0.subscribe();
        let none = count.wait_for(|count| *count == 0);
        tokio::time::timeout(limit, none).await.is_ok_and(|seen| seen.is_ok())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// Opens the socket and serves it for the daemon's life.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) fn listen(
    handle: Handle,
    events: mpsc::UnboundedSender<Input>,
    changes: watch::Receiver<u64>,
    answers: Answers,
) -> anyhow::Result<()> {
    let path = local::socket_path();
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            return Err(error).with_context(|| format!("remove the old {}", path.display()));
        }
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("bind {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .context("restrict the socket")?;
    tokio::spawn(admin::guard(path, handle.state()));
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let client = Client {
                        handle: handle.clone(),
                        events: events.clone(),
                        changes: changes.clone(),
                        answers: answers.clone(),
                    };
                    tokio::spawn(client.serve(stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept on the local socket");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    });
    Ok(())
}

pub(crate) struct Client {
    pub(crate) handle: Handle,
    events: mpsc::UnboundedSender<Input>,
    changes: watch::Receiver<u64>,
    answers: Answers,
}

impl Client {
    async fn serve(mut self, stream: UnixStream) {
        if let Err(error) = self.talk(stream).await {
            tracing::debug!(error = format!("{error:#}"), "a local client went away");
        }
    }

    async fn talk(&mut self, stream: UnixStream) -> anyhow::Result<()> {
        let caller = Caller::of(&stream, self.handle.name()).context("ask who the client is")?;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read);
        loop {
            let most = caller.line_max(&self.handle.state().borrow().clone());
            let Some(line) = next_line(&mut lines, most).await? else { return Ok(()) };
            let under_way = self.answers.begin();
            let request = match line {
                Ok(line) => serde_json::from_slice::<Request>(&line),
                Err(why) => {
                    send(&mut write, &refused(&why.to_string(), "use the crm of the same version"))
                        .await?;
                    // The rest of the line is no request.
                    return Err(why.into());
                }
            };
            match request {
                Ok(request) => {
                    let state = self.handle.state().borrow().clone();
                    let refusal = caller.refusal(&state, &request);
                    if refusal.is_none() && request == Request::Watch {
                        drop(under_way);
                        return self.watch(&mut write, &caller).await;
                    }
                    let mut reply = match refusal {
                        Some(refusal) => refusal,
                        None => self.answer(request, &caller.name).await,
                    };
                    caller.blind(&state, &mut reply);
                    send(&mut write, &reply).await?;
                }
                Err(error) => {
                    let why = format!("not a request this version knows: {error}");
                    send(&mut write, &refused(&why, "use the crm of the same version")).await?;
                }
            }
        }
    }

    async fn watch(&mut self, write: &mut OwnedWriteHalf, caller: &Caller) -> anyhow::Result<()> {
        loop {
            self.changes.borrow_and_update();
            let state = self.handle.state().borrow().clone();
            if let Some(refusal) = caller.refusal(&state, &Request::Watch) {
                return send(write, &refusal).await;
            }
            let mut reply = self.ask_daemon(Request::Status).await;
            caller.blind(&state, &mut reply);
            send(write, &reply).await?;
            self.changes.changed().await.context("the daemon ends")?;
        }
    }

    async fn answer(&self, request: Request, by: &str) -> Reply {
        match request {
            Request::Commit { base, cib, message } => {
                let (author, when_ms) = (by.to_owned(), boot::wall_ms());
                self.change(Command::CommitCib { base, cib, author, message, when_ms }).await
            }
            Request::Edit { edits, message } => {
                let (author, when_ms) = (by.to_owned(), boot::wall_ms());
                self.change(Command::Edit { edits, author, message, when_ms }).await
            }
            Request::Cleanup { resource, node } => {
                self.change(Command::Cleanup { resource, node }).await
            }
            Request::Token { ttl_s } => match self.handle.make_token(Duration::from_secs(ttl_s)) {
                Ok(token) => Reply::Token(token),
                Err(error) => {
                    refused(&error.to_string(), "run it on the node where `crm cluster init` ran")
                }
            },
            Request::Force { accept_divergence } => {
                match self.handle.force(by, accept_divergence) {
                    Ok(()) => Reply::Said(self.handle.standing().state.to_string()),
                    Err(error) => refused(&error.to_string(), "crm cluster status"),
                }
            }
            Request::Divergence => self.divergence().await,
            Request::Merge { base, theirs, cib, message } => {
                self.merge((base, theirs), cib, message, by.to_owned()).await
            }
            Request::RemoveNode { node, force } => self.remove(node, force, by.to_owned()).await,
            Request::Leave => self.leave(by.to_owned()).await,
            Request::Renew { node } => self.renew(&node).await,
            Request::Relocate { node, address, links } => {
                self.relocate(&node, Addresses { address, links }).await
            }
            Request::CancelWait => {
                self.handle.cancel_wait();
                Reply::Said("this node waits for nobody any more".to_owned())
            }
            Request::Disarm { for_ms, reason } => self.disarm(for_ms, reason, by.to_owned()).await,
            Request::Volumes => {
                block_reply(crm_proto::block::Request::Status { volume: None }).await
            }
            Request::Block(request) => block_reply(request).await,
            Request::Status
            | Request::Cib
            | Request::WaitIdle { .. }
            | Request::SetAttr { .. }
            | Request::GetAttr { .. }
            | Request::Revision { .. }
            | Request::Fence { .. }
            | Request::Fencing
            | Request::FenceCheck { .. }
            | Request::Watch => self.ask_daemon(request).await,
        }
    }

    async fn ask_daemon(&self, request: Request) -> Reply {
        let (reply, answer) = oneshot::channel();
        let sent = self.events.send(Input::Call(Call { request, reply }));
        let answered = match sent {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        answered.unwrap_or_else(|| refused("crmd is ending", "try again when it is back"))
    }

    /// Puts a change into the log, waiting a while for a leader.
    pub(crate) async fn change(&self, command: Command) -> Reply {
        let state = self.handle.state().borrow().clone();
        if let Some(why) = state.refused_quorum(&command) {
            return Reply::Outcome(Outcome::Refused { why });
        }
        let until = Instant::now() + CHANGE_LIMIT;
        loop {
            match self.handle.propose(command.clone()).await {
                Ok(outcome) => return Reply::Outcome(outcome),
                Err(ProposeError::NoLeader { .. }) if Instant::now() < until => {
                    if let Some(refusal) = self.read_only().await {
                        return refusal;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => {
                    let state = self.ask_daemon(Request::Status).await;
                    return refused(&error.to_string(), &remedy(&state));
                }
            }
        }
    }

    /// The refusal, when this node knows that there will be no leader soon.
    async fn read_only(&self) -> Option<Reply> {
        let Reply::Status(status) = self.ask_daemon(Request::Status).await else { return None };
        match status.mode {
            local::Mode::Alone | local::Mode::NoQuorum => Some(refused(
                &status.waiting.clone().unwrap_or_else(|| "no quorum".to_owned()),
                &remedy(&Reply::Status(status)),
            )),
            local::Mode::Joining | local::Mode::Leader | local::Mode::Follower => None,
        }
    }
}

fn remedy(reply: &Reply) -> String {
    let Reply::Status(status) = reply else { return "try again".to_owned() };
    let gone: Vec<&str> =
        status.nodes.iter().filter(|(_, n)| !n.alive).map(|(n, _)| n.as_str()).collect();
    if gone.is_empty() {
        "try again in a moment: a leader is being elected".to_owned()
    } else {
        format!("bring {} back, then run the command again", gone.join(", "))
    }
}

pub(crate) fn refused(why: &str, remedy: &str) -> Reply {
    Reply::Refused { why: why.to_owned(), remedy: remedy.to_owned() }
}

async fn block_reply(request: crm_proto::block::Request) -> Reply {
    match block::call(request).await {
        Ok(reply) => Reply::Block(reply),
        Err(error) => {
            refused(&format!("{error:#}"), "start crm-blockd (`systemctl start crm-blockd`)")
        }
    }
}

/// The next line, or why it is none; `None` at the end. Whether it is text is for the reader to say, so that the asker is told.
async fn next_line(
    stream: &mut BufReader<OwnedReadHalf>,
    most: usize,
) -> anyhow::Result<Option<std::io::Result<Vec<u8>>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(most)?.saturating_add(1);
    if stream.take(limit).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    let fits = line.len() <= most;
    Ok(Some(if fits { Ok(line) } else { Err(crm_proto::line::too_long(most)) }))
}

async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec(reply).context("encode the reply")?;
    bytes.push(b'\n');
    write.write_all(&bytes).await.context("send the reply")
}

/// A link for people, dated from now.
fn line_of(link: &Link) -> LinkLine {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    LinkLine {
        address: link.address.clone(),
        up: link.seen.up,
        in_use: link.in_use,
        for_ms: ms(link.seen.since.elapsed()),
        heard_ms_ago: link.seen.last_seen.map(|at| ms(at.elapsed())),
        rtt_us: link.seen.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
    }
}

impl Daemon {
    /// Answers a call, or puts it with the waiters.
    pub(crate) fn call(&mut self, call: Call) {
        let Call { request, reply } = call;
        let answer = match request {
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Cib => {
                let state = self.controller.view();
                Reply::Cib {
                    version: state.version,
                    cib: Box::new(Arc::unwrap_or_clone(state.cib)),
                }
            }
            Request::WaitIdle { version, timeout_ms } => {
                let until = Instant::now() + Duration::from_millis(timeout_ms);
                self.waiters.push(Waiter { version, until, reply });
                self.wake_at(until);
                return;
            }
            Request::SetAttr { name, value } => {
                self.step(Event::SetAttr { name, value });
                Reply::Waited { idle: true }
            }
            Request::GetAttr { node, name } => Reply::Attr(self.attribute(node, &name)),
            Request::Revision { version } => {
                let mut revisions = self.controller.view().revisions.into_iter();
                let found = revisions.find(|r| r.version == version);
                Reply::Revision(found.map(|r| Box::new(Arc::unwrap_or_clone(r))))
            }
            Request::Fence { request, timeout_ms } => {
                return self.fence(request, timeout_ms, reply);
            }
            Request::FenceCheck { task, timeout_ms } => {
                return self.check_device(task, timeout_ms, reply);
            }
            Request::Fencing => Reply::Fencing {
                coverage: self.controller.fencing_coverage(),
                pending: self.controller.fencing_now(),
                history: Box::new(self.controller.fencing_history()),
            },
            Request::Commit { .. }
            | Request::Edit { .. }
            | Request::Cleanup { .. }
            | Request::Token { .. }
            | Request::Force { .. }
            | Request::Divergence
            | Request::Merge { .. }
            | Request::RemoveNode { .. }
            | Request::Leave
            | Request::Renew { .. }
            | Request::Relocate { .. }
            | Request::CancelWait
            | Request::Disarm { .. }
            | Request::Volumes
            | Request::Block(_)
            | Request::Watch => refused("not for the daemon's task", "report this as a bug"),
        };
        if reply.send(answer).is_err() {
            tracing::debug!("a local client did not wait for its answer");
        }
    }

    /// Only what does nobody any harm: nodes are fenced through the cluster.
    fn check_device(&self, task: Task, timeout_ms: u64, reply: oneshot::Sender<Reply>) {
        let agents = self.agents.clone();
        tokio::spawn(async move {
            let answer = match task.verb {
                Verb::Monitor | Verb::Status | Verb::List => {
                    let call = FenceCall { task, limit_ms: timeout_ms };
                    Reply::FenceAnswer(agents.run_here(&call).await)
                }
                Verb::Off | Verb::Reboot | Verb::On => {
                    refused("a check does not fence", "crm node fence NODE")
                }
            };
            if reply.send(answer).is_err() {
                tracing::debug!("a local client did not wait for its answer");
            }
        });
    }

    fn fence(&mut self, request: FenceRequest, timeout_ms: u64, reply: oneshot::Sender<Reply>) {
        let state = self.controller.view();
        let refusal = match self.controller.mode() {
            _ if state.may_fence(&request.target).is_err() => {
                let why = state.may_fence(&request.target).err().unwrap_or_default();
                Some(refused(&why, "see `crm node show`"))
            }
            Mode::Joining | Mode::NoQuorum if state.is_witness(&self.me) => Some(refused(
                "this member is a witness and has no quorum: its word counts for nothing",
                "run it on a node that could go on",
            )),
            Mode::Leader | Mode::Follower | Mode::Alone => None,
            // Of two nodes that start, one may have to go on without the other: by a person's word.
            Mode::Joining | Mode::NoQuorum if request.confirm => None,
            Mode::Joining | Mode::NoQuorum => {
                let why = self.controller.waiting().unwrap_or_else(|| "no quorum".to_owned());
                Some(refused(&why, "run it on a node that has a quorum"))
            }
        };
        if let Some(refusal) = refusal {
            if reply.send(refusal).is_err() {
                tracing::debug!("a local client did not wait for its answer");
            }
            return;
        }
        let until = Instant::now() + Duration::from_millis(timeout_ms);
        let target = request.target.clone();
        let history = self.controller.fencing_history();
        let before = history.records().rfind(|r| r.target == target).cloned();
        self.fence_waiters.push(FenceWaiter { target, before, until, reply });
        self.wake_at(until);
        self.step(Event::FencingAsked(request));
    }

    /// Answers those whose fencing has ended, or whose time is over.
    fn answer_fence_waiters(&mut self) {
        if self.fence_waiters.is_empty() {
            return;
        }
        let (now, history) = (Instant::now(), self.controller.fencing_history());
        for waiter in std::mem::take(&mut self.fence_waiters) {
            let last = history.records().rfind(|r| r.target == waiter.target);
            // Told apart by what they say: the clock that dated them may be another node's.
            let answer = match last.filter(|r| waiter.before.as_ref() != Some(*r)) {
                Some(record) => Reply::Fenced(Box::new(record.clone())),
                None if now >= waiter.until => Reply::Waited { idle: false },
                None => {
                    self.fence_waiters.push(waiter);
                    continue;
                }
            };
            if waiter.reply.send(answer).is_err() {
                tracing::debug!("a waiting client went away");
            }
        }
    }

    fn attribute(&self, node: Option<String>, name: &str) -> Option<String> {
        let node = node.unwrap_or_else(|| self.me.clone());
        let state = self.controller.view();
        let transient = state.status.nodes.get(&node).and_then(|n| n.attrs.get(name)).cloned();
        transient.or_else(|| {
            let configured = state.cib.node(&node)?;
            configured.attributes.get(name).map(str::to_owned)
        })
    }

    /// Tells all who wait that the daemon ends.
    pub(crate) fn dismiss_waiters(&mut self) {
        // A question whose answer cannot come any more is answered by its connection.
        self.waiters.clear();
        self.fence_waiters.clear();
    }

    /// Answers those whose wait is over.
    pub(crate) fn answer_waiters(&mut self) {
        self.answer_fence_waiters();
        if self.waiters.is_empty() {
            return;
        }
        let now = Instant::now();
        let idle = self.idle();
        let version = self.controller.view().version;
        for waiter in std::mem::take(&mut self.waiters) {
            let reached = idle && version >= waiter.version;
            if !reached && now < waiter.until {
                self.waiters.push(waiter);
            } else if waiter.reply.send(Reply::Waited { idle: reached }).is_err() {
                tracing::debug!("a waiting client went away");
            }
        }
    }

    /// Nothing runs, nothing is to be done, and this node may say so.
    fn idle(&self) -> bool {
        let known = match self.controller.mode() {
            Mode::Leader | Mode::Alone | Mode::NoQuorum => !self.controller.busy(),
            Mode::Follower => true,
            Mode::Joining => false,
        };
        let state = self.controller.view();
        let settled = state.nodes().all(|n| self.controller.settled(n));
        known && settled && !self.controller.moving() && self.controller.plan_now().is_empty()
    }

    fn status(&self) -> StatusReply {
        let mut state: State = self.controller.view();
        if let Some(last) = state.revisions.pop() {
            state.revisions = vec![last];
        }
        let leadership = self.handle.leadership().borrow().clone();
        let peers = self.handle.peers().borrow().clone();
        let mut links = self.handle.links();
        let nodes: BTreeMap<String, NodeLine> = state
            .cib
            .nodes
            .iter()
            .map(|node| {
                let alive = node.name == self.me || peers.get(&node.name).is_some_and(|p| p.alive);
                let member = state.members.get(&node.name);
                let line = NodeLine {
                    alive,
                    online: self.controller.online(&node.name),
                    standby: node.attributes.flag("standby").unwrap_or(false),
                    address: member.map(|m| m.address.clone()).unwrap_or_default(),
                    links: links
                        .remove(&node.name)
                        .unwrap_or_default()
                        .iter()
                        .map(line_of)
                        .collect(),
                };
                (node.name.clone(), line)
            })
            .collect();
        let alive = |name: &str| name == self.me || peers.get(name).is_some_and(|p| p.alive);
        let witnesses = state.members.keys().filter(|name| state.is_witness(name));
        let witnesses = witnesses.map(|name| (name.clone(), alive(name))).collect();
        let standing = self.handle.standing();
        StatusReply {
            standing: standing.state.to_string(),
            generations: standing.told.into_iter().skip(1).collect(),
            me: self.me.clone(),
            mode: match self.controller.mode() {
                Mode::Joining => local::Mode::Joining,
                Mode::Leader => local::Mode::Leader,
                Mode::Follower => local::Mode::Follower,
                Mode::Alone => local::Mode::Alone,
                Mode::NoQuorum => local::Mode::NoQuorum,
            },
            leader: leadership.leader.filter(|_| leadership.quorate),
            quorate: leadership.quorate,
            voters: leadership.voters,
            votes: self.handle.votes().borrow().as_ref().map(|votes| VotesLine {
                quorate: votes.quorate,
                waiting: votes.waiting,
                words: votes.words.clone(),
                struck: votes.struck.clone(),
            }),
            waiting: self.controller.waiting(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes,
            witnesses,
            plan: self.controller.plan_now(),
            busy: self.controller.busy(),
            now_ms: boot::wall_ms(),
            state,
        }
    }
}

#[cfg(test)]
mod tests;
