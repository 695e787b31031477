//! Two lines of the cluster that have parted become one again (ADR-0016). The two talk over a call of its own, which alone is served across
//! lines. Whoever gives its line up has that stored first (`merge.json`) and carries it through whatever happens: it stops what it runs, keeps
//! a copy, has the winner give it a new raft id, and starts again with an empty log ([`settle`]).

use crate::admission::{Admission, DATA_KEY};
use crate::birth::{self, Birth};
use crate::bootstrap::chain_of;
use crate::consensus::network::MESSAGE_MAX;
use crate::consensus::{Peer, Raft};
use crate::handle::Handle;
use crate::settings::{Addresses, Seat, Settings, SettingsError};
use crate::site::Site;
use crate::{departure, durable};
use crm_core::merge::Mark;
use crm_core::store::MemberRole;
use crm_core::text::show;
use crm_proto::{pb, peer};
use crm_quorum::lineage::{GenerationId, RaftId};
use crm_quorum::takeover::{Call, Order, Refused};
use openraft::async_runtime::WatchReceiver;
use peer::{Branch, Line, Parley, ParleyAnswer};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// The intent to give up, in the data directory.
const NOTE: &str = "merge.json";
/// Where copies of lines that were given up are kept, in the data directory.
const KEPT: &str = "given-up";
/// How long the other side may take to answer: it may have to write something through its log.
const LIMIT: Duration = Duration::from_secs(15);

/// This node gives its line up. Stored before anything follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Surrender {
    /// A generation of the line that is kept.
    winner: String,
    /// Raft id of the node that said so.
    to: RaftId,
    /// Who has ordered it.
    by: String,
    /// When, milliseconds since the epoch: names the copy.
    at_ms: u64,
    /// The place in the winner's cluster. All is stopped and copied then.
    seat: Option<(RaftId, Vec<Seat>)>,
}

/// Why the lines were not merged, or cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergeError {
    /// This is not the situation for it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The other side cannot be reached.
    #[error("{node} cannot be reached: {why}")]
    Unreachable {
        /// The other side.
        node: String,
        /// Why.
        why: String,
    },
    /// It says no.
    #[error("{node} refuses: {why}")]
    There {
        /// The other side.
        node: String,
        /// Why.
        why: String,
    },
}

/// Why what is left of a line that was given up could not be put away.
#[derive(Debug, Error)]
pub enum SettleError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A file.
    #[error("cannot put the line that was given up away in `{dir}`")]
    Files {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The intent, if there is one.
pub(crate) fn noted(data: &Path) -> io::Result<Option<Surrender>> {
    match fs::read(data.join(NOTE)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn note(data: &Path, surrender: &Surrender) -> io::Result<()> {
    durable::replace(&data.join(NOTE), &serde_json::to_vec(surrender)?, 0o600)
}

impl Surrender {
    /// Nothing is left to be done but to start anew.
    pub(crate) const fn is_over(&self) -> bool {
        self.seat.is_some()
    }
}

/// `2026-11-22T06-48-19Z`: a time as the name of a directory.
fn stamp(ms: u64) -> String {
    let seconds = ms / 1000;
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}-{minute:02}-{second:02}Z", days + 1)
}

fn place(data: &Path, surrender: &Surrender) -> PathBuf {
    data.join(KEPT).join(stamp(surrender.at_ms))
}

/// Keeps what people can read of this line. The files themselves follow when nothing uses them any more.
fn keep(site: &Site, surrender: &Surrender) -> io::Result<()> {
    let dir = place(&site.settings.data_dir, surrender);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    let state = site.machine.states().borrow().clone();
    let mut generations = site.succession.standing(|id| site.called(id)).told;
    generations.push(format!("given up for {} by {}\n", surrender.winner, surrender.by));
    let files = [
        ("configuration.crm", show(&state.cib).into_bytes()),
        ("state.json", serde_json::to_vec(&*state)?),
        ("generations", generations.join("\n").into_bytes()),
    ];
    for (name, bytes) in files {
        durable::replace(&dir.join(name), &bytes, 0o600)?;
    }
    site.settings.save(&dir.join("node.yaml")).map_err(io::Error::other)
}

/// Before the start: puts the log and what belongs to it with the copy, when this node has given its line up and has a place in the winner's
/// cluster. Nothing happens otherwise. May be interrupted anywhere, and is carried on by the next call.
///
/// # Errors
/// When a file cannot be read, moved or written.
pub fn settle(path: &Path) -> Result<(), SettleError> {
    let mut settings = Settings::load(path)?;
    let data = settings.data_dir.clone();
    let failed = |source| SettleError::Files { dir: data.clone(), source };
    let Some(surrender) = noted(&data).map_err(failed)? else { return Ok(()) };
    let dir = place(&data, &surrender);
    let Some((raft_id, seats)) = surrender.seat else { return Ok(()) };
    // The keys are the cluster's, and go on being good.
    for name in departure::OWN.iter().filter(|name| **name != DATA_KEY) {
        match fs::rename(data.join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
    }
    birth::note(&data, Birth::Joined).map_err(failed)?;
    (settings.raft_id, settings.seats) = (raft_id, seats);
    settings.save(path)?;
    durable::remove(&data.join(NOTE)).map_err(failed)
}

/// At the start of a node that was about to give up: it goes on with that.
pub(crate) fn take_up(site: &Site, surrender: Surrender) {
    let known = site.succession.foreign();
    let winner = known.filter(|f| f.lineage.iter().any(|id| id.to_string() == surrender.winner));
    let newest = winner.and_then(|f| f.lineage.last().copied());
    let ordered = newest.map(|winner| site.succession.order(Order::Merge { winner }));
    match ordered {
        Some(Ok(())) => tracing::warn!("this node goes on giving up its line"),
        Some(Err(why)) => tracing::error!(%why, "cannot go on giving up this line"),
        None => tracing::error!("this line was to be given up for one that is not known here"),
    }
    site.surrender.send_replace(Some(surrender));
}

/// What runs here is stopped: keeps the copy and takes a place in the winner's cluster.
pub(crate) async fn surrender(site: &Site) -> Result<(), String> {
    let known = site.surrender.borrow().clone();
    let Some(mut surrender) = known.filter(|s| !s.is_over()) else { return Ok(()) };
    let words = |e: io::Error| e.to_string();
    keep(site, &surrender).map_err(words)?;
    let question = Parley::Readmit { winner: surrender.winner.clone() };
    let (raft_id, seats) = match parley(site, surrender.to, &question).await {
        Ok(ParleyAnswer::Seat { raft_id, seats }) => (raft_id, seats),
        Ok(ParleyAnswer::Refused { why }) => return Err(why),
        Ok(ParleyAnswer::Line(_) | ParleyAnswer::GivingUp) => {
            return Err("an answer to another question".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let seat = |s: peer::Seat| Seat {
        name: s.name,
        raft_id: s.raft_id,
        address: s.address,
        links: s.links,
    };
    surrender.seat = Some((raft_id, seats.into_iter().map(seat).collect()));
    note(&site.settings.data_dir, &surrender).map_err(words)?;
    let kept = place(&site.settings.data_dir, &surrender);
    tracing::warn!(raft_id, kept = %kept.display(), "this line is given up and kept; the node starts anew");
    site.surrender.send_replace(Some(surrender));
    Ok(())
}

/// Says something to a node of another line.
async fn parley(site: &Site, to: RaftId, what: &Parley) -> Result<ParleyAnswer, MergeError> {
    let node = site.called(to);
    let lost = |why: String| MergeError::Unreachable { node: node.clone(), why };
    let other: Peer = site.members().remove(&to).ok_or_else(|| lost("it is no member".into()))?;
    let body = serde_json::to_vec(what).map_err(|e| lost(e.to_string()))?;
    let channel = site.channel(to, &other).map_err(|e| lost(e.to_string()))?;
    let mut client = pb::peer_client::PeerClient::new(channel)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let said = |status: tonic::Status| match status.code() {
        tonic::Code::Unimplemented => lost("its crmd is older and knows no merge".to_owned()),
        _ => lost(status.message().to_owned()),
    };
    let call = client.parley(site.greet(to, pb::Parley { body }).map_err(said)?);
    let answer = match tokio::time::timeout(LIMIT, call).await {
        Ok(answer) => site.met(Call::Parley, to, answer).map_err(said)?,
        Err(_) => return Err(lost("no answer in time".to_owned())),
    };
    serde_json::from_slice(&answer.body).map_err(|e| lost(e.to_string()))
}

/// Answers a node of another line (or of this one: telling does no harm).
pub(crate) async fn answer(admission: &Admission, caller: RaftId, what: Parley) -> ParleyAnswer {
    let proposer = &admission.proposer;
    let done = match what {
        Parley::Tell => Ok(ParleyAnswer::Line(Box::new(line(&proposer.site, &proposer.raft)))),
        Parley::GiveUp { winner, version, by, when_ms } => {
            let surrender = Surrender { winner, to: caller, by, at_ms: when_ms, seat: None };
            begin(&proposer.site, &proposer.raft, surrender, version)
        }
        Parley::Readmit { winner } => readmit(admission, caller, &winner).await,
    };
    done.unwrap_or_else(|why| {
        tracing::warn!(why, "a node of another line was refused");
        ParleyAnswer::Refused { why }
    })
}

/// This line as others see it.
fn line(site: &Site, raft: &Raft) -> Line {
    let state = site.machine.states().borrow().clone();
    let name = |id| site.called(id);
    let branch = |g: &crm_quorum::lineage::Generation| Branch {
        id: g.id.to_string(),
        words: g.words(name),
        at_ms: g.at_ms,
    };
    let metrics = raft.metrics().borrow_watched().clone();
    Line {
        node: site.settings.name.clone(),
        branch: site.succession.standing(name).generations.iter().map(branch).collect(),
        voters: metrics.membership_config.membership().voter_ids().map(name).collect(),
        version: state.version,
        cib: (*state.cib).clone(),
        revisions: state.revisions.iter().map(|r| Mark::of(r)).collect(),
        status: state.status.clone(),
        volumes: state.volumes.clone(),
    }
}

/// Begins to give up: the intent first.
fn begin(
    site: &Site,
    raft: &Raft,
    surrender: Surrender,
    version: u64,
) -> Result<ParleyAnswer, String> {
    if site.surrender.borrow().as_ref().is_some_and(|known| known.to == surrender.to) {
        return Ok(ParleyAnswer::GivingUp);
    }
    let foreign = site.succession.foreign().ok_or("the cluster has not diverged here")?;
    let winner = foreign.lineage.last().copied().filter(|id| id.to_string() == surrender.winner);
    let (Some(winner), true) = (winner, foreign.peer == surrender.to) else {
        return Err("it has met another line than that one".to_owned());
    };
    let own = line(site, raft);
    if own.version != version {
        return Err(format!(
            "its configuration has changed meanwhile (it is at version {} now)",
            own.version
        ));
    }
    let others: Vec<String> = own.voters.into_iter().filter(|v| *v != own.node).collect();
    if !others.is_empty() {
        let others = others.join(", ");
        return Err(format!("{others} votes with it: remove that there first"));
    }
    let data = &site.settings.data_dir;
    note(data, &surrender).map_err(|e| e.to_string())?;
    if let Err(refused) = site.succession.order(Order::Merge { winner }) {
        durable::remove(&data.join(NOTE)).map_err(|e| e.to_string())?;
        return Err(refused.to_string());
    }
    tracing::error!(by = surrender.by, "this side of the divergence is given up: stopping");
    site.surrender.send_replace(Some(surrender));
    Ok(ParleyAnswer::GivingUp)
}

/// Gives a node that has given up for us a new raft id. Its certificate goes on being good.
async fn readmit(
    admission: &Admission,
    caller: RaftId,
    winner: &str,
) -> Result<ParleyAnswer, String> {
    let site = &admission.proposer.site;
    let mine: Vec<GenerationId> = site.succession.generations();
    if !mine.iter().any(|id| id.to_string() == winner) {
        return Err("that generation is not of this line".to_owned());
    }
    let other = site.members().remove(&caller).ok_or("it is no member")?;
    disown(site).map_err(|e| e.to_string())?;
    let known = site.machine.states().borrow().members.get(&other.name).cloned();
    let role = known.map_or(MemberRole::Node, |member| member.role);
    let added = admission.add_member(&other.name, site.places(caller, &other), role).await;
    let raft_id = added.map_err(|e| chain_of(&e))?;
    let mut members = site.members();
    members.retain(|_, peer| peer.name != other.name);
    members.insert(raft_id, other);
    let seat = |(raft_id, p): (RaftId, Peer)| {
        let Addresses { address, links } = site.places(raft_id, &p);
        peer::Seat { name: p.name, raft_id, address, links }
    };
    Ok(ParleyAnswer::Seat { raft_id, seats: members.into_iter().map(seat).collect() })
}

/// The other line has lost. It may have been said before.
fn disown(site: &Site) -> Result<(), Refused> {
    let Some(winner) = site.succession.generations().last().copied() else { return Ok(()) };
    match site.succession.order(Order::Merge { winner }) {
        Ok(()) | Err(Refused::NotDiverged) => Ok(()),
        Err(other) => Err(other),
    }
}

impl Handle {
    /// This line and the one that has parted from it, and how many generations they have in common.
    ///
    /// # Errors
    /// When the cluster has not diverged, or the other side cannot be reached.
    pub async fn lines(&self) -> Result<(Line, Line, usize), MergeError> {
        let proposer = &self.0.proposer;
        let site = &proposer.site;
        let foreign = site.succession.foreign().ok_or(Refused::NotDiverged)?;
        let node = site.name_of(foreign.peer).unwrap_or_default();
        match parley(site, foreign.peer, &Parley::Tell).await? {
            ParleyAnswer::Line(theirs) => Ok((line(site, &proposer.raft), *theirs, foreign.common)),
            ParleyAnswer::Refused { why } => Err(MergeError::There { node, why }),
            ParleyAnswer::GivingUp | ParleyAnswer::Seat { .. } => {
                let why = "an answer to another question".to_owned();
                Err(MergeError::There { node, why })
            }
        }
    }

    /// Keeps this line: the other side is told to give its own up, and will, whatever happens to either after this has returned. `version` is
    /// that of its configuration when it was looked at.
    ///
    /// # Errors
    /// When the cluster has not diverged, the other side cannot be reached, or it refuses: nothing is given up then.
    pub async fn merge(&self, version: u64, by: &str, when_ms: u64) -> Result<(), MergeError> {
        let site = &self.0.proposer.site;
        let foreign = site.succession.foreign().ok_or(Refused::NotDiverged)?;
        let node = site.name_of(foreign.peer).unwrap_or_default();
        let head = site.succession.generations().last().copied().ok_or(Refused::NotDiverged)?;
        let (winner, by) = (head.to_string(), by.to_owned());
        let order = Parley::GiveUp { winner, version, by, when_ms };
        match parley(site, foreign.peer, &order).await? {
            ParleyAnswer::GivingUp => Ok(disown(site)?),
            ParleyAnswer::Refused { why } => Err(MergeError::There { node, why }),
            ParleyAnswer::Line(_) | ParleyAnswer::Seat { .. } => {
                let why = "an answer to another question".to_owned();
                Err(MergeError::There { node, why })
            }
        }
    }

    /// Returns when this node has given up its line and has a place in the winner's cluster: it has to be shut down, [`settle`]d and started
    /// again.
    pub async fn given_up(&self) {
        let mut known = self.0.proposer.site.surrender.subscribe();
        let over = known.wait_for(|s| s.as_ref().is_some_and(Surrender::is_over)).await;
        if over.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// An operator takes back that this line is given up. Nothing of it is gone until the node starts anew.
    pub(crate) fn stand_up_again(&self) -> io::Result<()> {
        let site = &self.0.proposer.site;
        durable::remove(&site.settings.data_dir.join(NOTE))?;
        site.surrender.send_replace(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bootstrap::{Dirs, init};

    #[test]
    fn a_time_is_named_as_in_a_calendar() {
        assert_eq!(stamp(0), "1970-01-01T00-00-00Z");
        assert_eq!(stamp(951_782_400_000), "2000-02-29T00-00-00Z");
        assert_eq!(stamp(1_795_330_099_999), "2026-11-22T06-48-19Z");
    }

    #[test]
    fn a_line_is_put_away_only_with_a_place_elsewhere_and_an_interruption_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs {
            settings: root.path().join("node.yaml"),
            data: root.path().join("data"),
            tls: root.path().join("tls"),
        };
        let before = init(&dirs, "lab", "n1", "127.0.0.1:7631").unwrap();
        let log = dirs.data.join("raft.redb");
        fs::write(&log, "votes").unwrap();
        settle(&dirs.settings).unwrap();
        let mut surrender = Surrender {
            winner: "w".to_owned(),
            to: 2,
            by: "root".to_owned(),
            at_ms: 0,
            seat: None,
        };
        note(&dirs.data, &surrender).unwrap();
        settle(&dirs.settings).unwrap();
        assert!(log.exists() && Settings::load(&dirs.settings).unwrap() == before);

        let kept = place(&dirs.data, &surrender);
        fs::create_dir_all(&kept).unwrap();
        let address = "127.0.0.2:7631".to_owned();
        let seats = vec![Seat { name: "n2".into(), raft_id: 2, address, links: Vec::new() }];
        surrender.seat = Some((31, seats.clone()));
        note(&dirs.data, &surrender).unwrap();
        settle(&dirs.settings).unwrap();
        let read = |name: &str| fs::read_to_string(kept.join(name)).unwrap();
        assert!(!log.exists() && read("raft.redb") == "votes" && read("birth") == "founded");
        // As after a crash before the last step.
        note(&dirs.data, &surrender).unwrap();
        settle(&dirs.settings).unwrap();
        assert_eq!(read("raft.redb"), "votes");
        let after = Settings::load(&dirs.settings).unwrap();
        assert_eq!((after.raft_id, after.seats), (31, seats));
        assert!(dirs.data.join(DATA_KEY).exists() && dirs.tls.join("ca.key").exists());
        assert_eq!(birth::check(&dirs.data, true).unwrap(), Some(false));
        assert_eq!(noted(&dirs.data).unwrap(), None);
    }
}
