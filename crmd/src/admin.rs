//! What an admin asks of the cluster itself on the local socket: remove a node, leave, renew certificates, disarm; and who may ask what.

use crate::api::{Client, refused};
use crate::boot;
use crm_core::store::{Command, Disarmed, Outcome, State};
use crm_membership::{Addresses, Settings};
use crm_proto::local::{Reply, Request};
use crm_proto::role::{Role, hide_secrets};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// How long raft's membership may take to follow.
const FOLLOW_LIMIT: Duration = Duration::from_secs(15);

/// The longest line of those who may not write configurations, in bytes.
const EVERYDAY_MAX: usize = 1 << 20;

/// Who is at the other end of a local connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    uid: u32,
    /// For the log: `root@alpha`.
    pub(crate) name: String,
    groups: Vec<String>,
}

impl Caller {
    /// By the kernel's word.
    pub(crate) fn of(stream: &UnixStream, node: &str) -> std::io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let (uid, gid) = (credentials.uid(), Gid::from_raw(credentials.gid()));
        let user = User::from_uid(Uid::from_raw(uid))?;
        let login = user.map_or_else(|| uid.to_string(), |u| u.name);
        let listed = CString::new(login.as_str()).map(|login| getgrouplist(&login, gid));
        let mut ids: Vec<Gid> = listed.ok().and_then(Result::ok).unwrap_or_default();
        ids.push(gid);
        ids.sort_by_key(|id| id.as_raw());
        ids.dedup();
        let names = ids.into_iter().filter_map(|id| Group::from_gid(id).ok()?);
        let groups = names.map(|group| group.name).collect();
        Ok(Self { uid, name: format!("{login}@{node}"), groups })
    }

    /// Root and the daemon's own user are above roles.
    fn is_master(&self) -> bool {
        self.uid == 0 || self.uid == nix::unistd::geteuid().as_raw()
    }

    /// The role; read anew for each request, as the configuration may change.
    pub(crate) fn role(&self, state: &State) -> Option<Role> {
        if self.is_master() { Some(Role::Admin) } else { Role::of(&state.cib, &self.groups) }
    }

    /// The longest line that is taken from this user, in bytes: whole configurations come from admins only.
    pub(crate) fn line_max(&self, state: &State) -> usize {
        if self.role(state) == Some(Role::Admin) { crm_proto::line::LINE_MAX } else { EVERYDAY_MAX }
    }

    /// Hides passwords from those who are no admins.
    pub(crate) fn blind(&self, state: &State, reply: &mut Reply) {
        if self.role(state) < Some(Role::Admin) {
            hide_secrets(reply);
        }
    }

    /// The refusal, when the role does not allow it.
    pub(crate) fn refusal(&self, state: &State, request: &Request) -> Option<Reply> {
        let needed = Role::needed(request);
        let has = self.role(state);
        if has.is_some_and(|has| has >= needed) {
            return None;
        }
        let who = &self.name;
        let why = match has {
            Some(has) => format!("{who} has the role {has}; this needs {needed}"),
            None => format!("{who} has no role in this cluster; this needs {needed}"),
        };
        let property = needed.property();
        let remedy = format!(
            "run it as root, or name one of your groups ({}) in the property {property}",
            self.groups.join(" ")
        );
        Some(Reply::Refused { why, remedy })
    }
}

/// Keeps the socket open to all while a group has a role, and to its owner alone otherwise. Who connects is still told by the kernel.
pub(crate) async fn guard(path: PathBuf, mut states: watch::Receiver<Arc<State>>) {
    let mut shown = None;
    loop {
        let mode = if Role::given(&states.borrow_and_update().cib) { 0o666 } else { 0o600 };
        if shown != Some(mode) {
            match open_to(&path, mode) {
                Ok(()) => shown = Some(mode),
                Err(error) => tracing::error!(%error, "cannot change who may use the socket"),
            }
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

fn open_to(path: &Path, mode: u32) -> std::io::Result<()> {
    if let Some(dir) = path.parent().filter(|_| mode & 0o006 != 0) {
        // A way to the socket, and no look around on it.
        let found = std::fs::metadata(dir)?.permissions().mode();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(found | 0o011))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

impl Client {
    /// Removes a node for good: from the state first, then raft's membership follows.
    pub(crate) async fn remove(&self, node: String, force: bool, by: String) -> Reply {
        let state = self.handle.state().borrow().clone();
        if let Err(why) = state.may_remove(&node, force) {
            return refused(&why, "see `crm cluster status` and `crm cluster remove --help`");
        }
        let Some(raft_id) = state.members.get(&node).map(|m| m.raft_id) else {
            return refused("the node has gone meanwhile", "see `crm cluster status`");
        };
        let alive = self.alive();
        if force && alive.contains(&node) && !state.running_on(&node).is_empty() {
            let why = format!("{node} lives and runs {}", state.running_on(&node).join(", "));
            return refused(&why, &format!("crm node standby {node} --wait"));
        }
        if let Some(refusal) = self.keeps_no_quorum(&node, &alive) {
            return refusal;
        }
        let signs = |name: &String| state.certificates.get(name).is_some_and(|c| c.signs);
        if !force && signs(&node) && !state.members.keys().any(|n| *n != node && signs(n)) {
            let why = format!("{node} alone has the CA's key: nobody could join any more");
            let remedy = format!(
                "copy its `ca.key` (beside node.pem) to the same place on another node, then remove {node} again; or use --force"
            );
            return refused(&why, &remedy);
        }
        if node == self.handle.name() {
            // Somebody who stays has to lead.
            self.handle.step_down().await;
        }
        let name = node.clone();
        let command = Command::RemoveMember { name, raft_id, force, by, when_ms: boot::wall_ms() };
        match self.change(command).await {
            Reply::Outcome(Outcome::Done { .. }) => {}
            other => return other,
        }
        if node == self.handle.name() {
            return self.wait_to_be_told().await;
        }
        if self.handle.without(raft_id, FOLLOW_LIMIT).await {
            Reply::Said(format!(
                "{node} is no member any more; its certificate is not accepted, and it can come back only with a new token"
            ))
        } else {
            refused(
                &format!("{node} is removed, but it still has its vote"),
                "the leader goes on trying: see `crm cluster status` when all other nodes are on",
            )
        }
    }

    fn alive(&self) -> BTreeSet<String> {
        let peers = self.handle.peers();
        let peers = peers.borrow();
        let heard = peers.iter().filter(|(_, p)| p.alive).map(|(name, _)| name.clone());
        heard.chain([self.handle.name().to_owned()]).collect()
    }

    /// The refusal, when too few of the others live to go on without the node.
    fn keeps_no_quorum(&self, node: &str, alive: &BTreeSet<String>) -> Option<Reply> {
        let leadership = self.handle.leadership().borrow().clone();
        let left: BTreeSet<String> = leadership.voters.into_iter().filter(|v| v != node).collect();
        let live = left.intersection(alive).count();
        if live * 2 > left.len() || left.is_empty() {
            return None;
        }
        let dead: Vec<&str> = left.difference(alive).map(String::as_str).collect();
        let why = format!(
            "without {node} only {live} of {} votes would be there: the cluster would stand still",
            left.len()
        );
        let dead = dead.join(", ");
        Some(refused(&why, &format!("bring {dead} back, or remove {dead} first")))
    }

    /// This node leaves: the daemon ends when the others have told it that it is out.
    pub(crate) async fn leave(&self, by: String) -> Reply {
        let me = self.handle.name().to_owned();
        self.remove(me, false, by).await
    }

    async fn wait_to_be_told(&self) -> Reply {
        let me = self.handle.name();
        let mut expelled = self.handle.expelled();
        let told = tokio::time::timeout(FOLLOW_LIMIT, expelled.wait_for(Option::is_some)).await;
        if let Ok(Ok(_)) = told {
            Reply::Said(format!(
                "{me} has left the cluster; crmd on it ends. To join again: `crm cluster join` with a new token"
            ))
        } else {
            refused(
                &format!("{me} is removed, but none of the others has told it so yet"),
                "leave crmd running: it ends by itself when it is told",
            )
        }
    }

    /// Other addresses for this node.
    pub(crate) async fn relocate(&self, node: &str, to: Addresses) -> Reply {
        let me = self.handle.name();
        if node != me {
            let why = format!("this is {me}: a node is given other addresses on the node itself");
            return refused(&why, &format!("run it on {node}"));
        }
        let words = to.all().cloned().collect::<Vec<_>>().join(" and ");
        match self.handle.relocate(to, &Settings::path()).await {
            Ok(()) => Reply::Said(format!("{node} is at {words} now")),
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::new(error));
                refused(&why, "nothing has changed; see `crm cluster status`")
            }
        }
    }

    /// A new certificate for a node.
    pub(crate) async fn renew(&self, node: &str) -> Reply {
        match self.handle.renew(node).await {
            Ok(()) => {
                Reply::Said(format!("{node} has a new key and certificate; the old one is revoked"))
            }
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::new(error));
                refused(&why, "nothing has changed unless it says so; try again when it is mended")
            }
        }
    }

    /// Disarms for a time, or arms again.
    pub(crate) async fn disarm(&self, for_ms: Option<u64>, reason: String, by: String) -> Reply {
        let since_ms = boot::wall_ms();
        let disarmed = for_ms.map(|for_ms| {
            let until_ms = since_ms.saturating_add(for_ms);
            Disarmed { until_ms, since_ms, by, reason }
        });
        self.change(Command::Disarm { disarmed }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crm_proto::line::LINE_MAX;

    #[test]
    fn only_who_may_write_configurations_may_send_long_lines() {
        let mut cib = crm_core::cib::Cib::default();
        cib.properties.set("acl-admin-groups", "wheel");
        cib.properties.set("acl-operator-groups", "ops");
        let mut state = State::default();
        state.cib = Arc::new(cib);
        let of = |uid, group: &str| Caller {
            uid,
            name: "somebody@alpha".to_owned(),
            groups: vec![group.to_owned()],
        };
        let cases = [
            (of(0, "root"), LINE_MAX),
            (of(1000, "wheel"), LINE_MAX),
            (of(1000, "ops"), EVERYDAY_MAX),
            (of(1000, "users"), EVERYDAY_MAX),
        ];
        for (caller, most) in cases {
            assert_eq!(caller.line_max(&state), most, "{caller:?}");
        }
    }
}
