//! Other addresses for this node while it runs: it listens at the new ones, the others have knocked there, its file says so, the cluster is told, and only then does it
//! let go of the old ones. Whatever fails on the way leaves everything as it was.

use crate::heartbeat::Heartbeats;
use crate::knock;
use crate::listen::Ears;
use crate::proposer::{ProposeError, Proposer};
use crate::settings::{Addresses, Settings, SettingsError};
use crate::start::StartError;
use crm_core::store::{Command, Outcome};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};

/// Why a node's addresses were not changed. All is as before.
#[derive(Debug, Error)]
pub enum MoveError {
    /// They cannot be its addresses.
    #[error("{why}")]
    Refused {
        /// Why.
        why: String,
    },
    /// It cannot listen there.
    #[error(transparent)]
    Listen(#[from] StartError),
    /// Its sockets cannot be shared.
    #[error("cannot use the new sockets")]
    Sockets(#[from] io::Error),
    /// Its file.
    #[error(transparent)]
    File(#[from] SettingsError),
    /// The cluster was not told, or it is not known whether it was: this node tells it its old addresses again.
    #[error("the cluster was not told")]
    Tell(#[from] ProposeError),
}

/// What a node listens on, and how to change it.
#[derive(Debug)]
pub(crate) struct Doors {
    ears: Mutex<Ears>,
    /// The listeners to serve instead of those served.
    serve: mpsc::UnboundedSender<Vec<tokio::net::TcpListener>>,
}

impl Doors {
    pub(crate) fn new(
        ears: Ears,
        serve: mpsc::UnboundedSender<Vec<tokio::net::TcpListener>>,
    ) -> Self {
        Self { ears: Mutex::new(ears), serve }
    }

    /// Lets go of the sockets: the node ends.
    pub(crate) async fn close(&self) {
        *self.ears.lock().await = Ears::default();
    }

    fn serve(&self, listeners: Vec<tokio::net::TcpListener>) {
        if self.serve.send(listeners).is_err() {
            tracing::debug!("the cluster port is not served any more");
        }
    }

    /// Moves this node; `file` is its node.yaml.
    pub(crate) async fn relocate(
        &self,
        proposer: &Proposer,
        heartbeats: &Arc<Heartbeats>,
        to: Addresses,
        file: &Path,
    ) -> Result<(), MoveError> {
        let site = &proposer.site;
        let refused = |why| Err(MoveError::Refused { why });
        if let Err(why) = to.check() {
            return refused(why);
        }
        if let Some(listen) = site.settings.listen {
            return refused(format!(
                "node.yaml says `listen: {listen}`: change both there and restart crmd"
            ));
        }
        let _moving = site.moving.lock().await;
        let name = &site.settings.name;
        let state = site.machine.states().borrow().clone();
        if let Err(why) = state.may_move(name, &to.address, &to.links) {
            return refused(why);
        }
        let mut ears = self.ears.lock().await;
        let new = ears.elsewhere(&to).await?;
        // From here on both are listened on: the others change over when they see the command, each at its own moment.
        let (wanted, sockets) = (new.listeners()?, new.sockets()?);
        let old = ears.listeners()?;
        self.serve(ears.listeners()?.into_iter().chain(new.listeners()?).collect());
        let told = match knock::unreached(site, &alive(heartbeats), &to).await {
            Some(why) => refused(why),
            None => tell(proposer, file, &to).await,
        };
        if let Err(error) = told {
            self.serve(old);
            return Err(error);
        }
        self.serve(wanted);
        heartbeats.adopt(sockets);
        *ears = new;
        tracing::info!(addresses = ?to, "this node has moved");
        site.moved(to);
        Ok(())
    }
}

/// Who is heard now.
fn alive(heartbeats: &Heartbeats) -> BTreeSet<String> {
    let peers = heartbeats.peers();
    let peers = peers.borrow();
    peers.iter().filter(|(_, health)| health.alive).map(|(name, _)| name.clone()).collect()
}

/// Writes the file, then tells the cluster; the file is as before when that fails.
async fn tell(proposer: &Proposer, file: &Path, to: &Addresses) -> Result<(), MoveError> {
    let (settings, before) = (&proposer.site.settings, Settings::load(file)?);
    let mut after = before.clone();
    (after.address, after.links) = (to.address.clone(), to.links.clone());
    for seat in after.seats.iter_mut().filter(|seat| seat.raft_id == settings.raft_id) {
        (seat.address, seat.links) = (to.address.clone(), to.links.clone());
    }
    after.save(file)?;
    let command = Command::SetAddresses {
        name: settings.name.clone(),
        raft_id: settings.raft_id,
        address: to.address.clone(),
        links: to.links.clone(),
    };
    let why = match proposer.propose(&command).await {
        Ok(Outcome::Done { .. }) => return Ok(()),
        Ok(Outcome::Refused { why }) => MoveError::Refused { why },
        Ok(outcome) => MoveError::Refused { why: format!("{outcome:?}") },
        Err(error) => error.into(),
    };
    before.save(file)?;
    Err(why)
}
