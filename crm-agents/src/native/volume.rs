//! `volume`: a replicated volume of crm-blockd as a promotable resource. Also answers for `ocf:linbit:drbd`.

use super::context::{Context, Failure};
use super::{Action, Agent, holders, param};
use crm_core::status::rc;
use crm_proto::block::{
    Connection, DiskState, Event, PeerStatus, Reply, Request, VolumeStatus, socket_path,
};
use crm_proto::line::{CallError, Line};
use std::time::{Duration, Instant};

/// How long a start waits for the peers, so that the promotion score is right from the beginning.
const SETTLE: Duration = Duration::from_secs(3);
/// How long blockd may be away (being started again) before it counts as gone.
const AWAY: Duration = Duration::from_secs(2);
/// How long a demotion tries again while the device is in use.
const BUSY: Duration = Duration::from_secs(3);
/// Between two tries, milliseconds.
const RETRY_MS: u8 = 30;

/// The agent.
pub(super) static AGENT: Agent = Agent {
    name: "volume",
    about: "Replicated volume: unpromoted = connected and receiving, promoted = its device can be used here",
    promotable: true,
    migratable: false,
    params: &[
        param("volume", false, "Name of the volume (or drbd_resource)"),
        param("drbd_resource", false, "Name of the volume, in the words of ocf:linbit:drbd"),
    ],
    run,
};

fn name(context: &Context) -> Result<String, Failure> {
    context.get("volume").or_else(|| context.get("drbd_resource")).ok_or_else(|| {
        Failure::new(rc::ERR_CONFIGURED, "parameter `volume` (or `drbd_resource`) is required")
    })
}

/// Why blockd did not do it.
#[derive(Debug)]
enum Refusal {
    /// Nobody listens, or the connection broke: what it said.
    Away(String),
    /// It said no: code and clause.
    No(String, String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Away(why) => Self::io("talk to crm-blockd (is it running?)", &why),
            Refusal::No(code, why) if code == "unknown-volume" => Self::new(rc::ERR_INSTALLED, why),
            Refusal::No(code, why) => Self::new(rc::ERR_GENERIC, format!("{why} ({code})")),
        }
    }
}

/// One request. A daemon that is not there is waited for up to `away`: it may be coming back after a crash.
fn ask(context: &Context, request: &Request, away: Duration) -> Result<Reply, Refusal> {
    let until = Instant::now() + away.min(context.left());
    loop {
        let limit = context.left().max(Duration::from_secs(1));
        match Line::call(&socket_path(), Some(limit), request) {
            Ok(Reply::Refused { code, why }) => return Err(Refusal::No(code, why)),
            Ok(reply) => return Ok(reply),
            Err(CallError::Connect { .. }) if Instant::now() < until => pause(),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|e| format!(": {e}"));
                return Err(Refusal::Away(format!("{error}{}", cause.unwrap_or_default())));
            }
        }
    }
}

/// Nothing announces that a device falls free or a socket opens: it is asked again.
fn pause() {
    nix::poll::poll(&mut [], RETRY_MS).map(drop).unwrap_or_default();
}

fn status(context: &Context, volume: &str, away: Duration) -> Result<VolumeStatus, Refusal> {
    let unknown = || {
        let why = format!("volume `{volume}` is not defined on this node (`crm volume create`)");
        Refusal::No("unknown-volume".to_owned(), why)
    };
    match ask(context, &Request::Status { volume: Some(volume.to_owned()) }, away)? {
        Reply::Status(all) => all.into_iter().find(|s| s.name == volume).ok_or_else(unknown),
        Reply::Ok | Reply::Refused { .. } => Err(Refusal::No(
            "io".to_owned(),
            "blockd gave an answer to another question".to_owned(),
        )),
    }
}

fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    let volume = name(context)?;
    match action {
        Action::Start => start(context, &volume),
        Action::Stop => stop(context, volume),
        Action::Promote => {
            let lost = context.meta("lost_peers").unwrap_or_default();
            let lost = lost.split_whitespace().map(str::to_owned).collect();
            ask(context, &Request::Promote { volume: volume.clone(), lost }, AWAY)?;
            context.promotion_score(status(context, &volume, Duration::ZERO)?.score)?;
            Ok(rc::OK)
        }
        Action::Demote => {
            let status = status(context, &volume, Duration::ZERO)?;
            if !status.up {
                let why = format!("volume `{volume}` is not up");
                return Err(Failure::new(rc::NOT_RUNNING, why));
            }
            demote(context, &status)?;
            Ok(rc::OK)
        }
        Action::Monitor | Action::Notify => monitor(context, &volume),
    }
}

fn start(context: &Context, volume: &str) -> Result<i32, Failure> {
    // A node that has just come back may ask before its data plane listens.
    ask(context, &Request::Up { volume: volume.to_owned() }, context.left() / 2)?;
    let settled = settle(context, volume)?;
    context.promotion_score(settled.score)?;
    Ok(rc::OK)
}

/// Demotes; while the device is in use it tries again for a moment (an unmount may still be ending), then names who uses it.
fn demote(context: &Context, status: &VolumeStatus) -> Result<(), Failure> {
    let until = Instant::now() + BUSY.min(context.left() / 2);
    loop {
        let request = Request::Demote { volume: status.name.clone() };
        match ask(context, &request, Duration::ZERO) {
            Ok(_) => return Ok(()),
            Err(Refusal::No(code, _)) if code == "busy" && Instant::now() < until => pause(),
            Err(Refusal::No(code, why)) if code == "busy" => {
                let found = status.device.as_deref().map(holders::of_device).unwrap_or_default();
                let by = if found.is_empty() {
                    "nobody that can be seen".to_owned()
                } else {
                    found.join(", ")
                };
                return Err(Failure::new(rc::ERR_GENERIC, format!("{why}; held by {by}")));
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

/// Follows the volume's events until it may be promoted, or every peer has been met, or the time is over.
fn settle(context: &Context, volume: &str) -> Result<VolumeStatus, Failure> {
    let until = Instant::now() + SETTLE.min(context.left());
    let watch = || -> Result<Line, CallError> {
        let mut line = Line::connect(&socket_path(), Some(SETTLE))?;
        line.send(&Request::Watch)?;
        Ok(line)
    };
    let mut line = watch().map_err(|e| Failure::io("watch crm-blockd", &e))?;
    let mut last = match line.receive::<Reply>() {
        Ok(Reply::Status(all)) => all.into_iter().find(|s| s.name == volume),
        Ok(Reply::Ok | Reply::Refused { .. }) => None,
        Err(error) => return Err(Failure::io("watch crm-blockd", &error)),
    };
    while !last.as_ref().is_some_and(done) && Instant::now() < until {
        match line.receive::<Event>() {
            Ok(Event::Changed(now)) if now.name == volume => last = Some(now),
            Ok(Event::Changed(_) | Event::MayIDrop { .. } | Event::InSync { .. }) => {}
            // Nothing happens any more: what is known now has to do.
            Err(_) => break,
        }
    }
    Ok(status(context, volume, Duration::ZERO)?)
}

fn done(status: &VolumeStatus) -> bool {
    let met = |p: &PeerStatus| match p.connection {
        Connection::Connecting => p.why.is_some(),
        Connection::Connected
        | Connection::StandAlone
        | Connection::SyncSource
        | Connection::SyncTarget => true,
    };
    status.score == Some(10_000) || status.peers.iter().all(met)
}

fn stop(context: &Context, volume: String) -> Result<i32, Failure> {
    match status(context, &volume, Duration::ZERO) {
        Ok(status) if status.up => {
            demote(context, &status)?;
            ask(context, &Request::Down { volume }, Duration::ZERO)?;
        }
        // Without its daemon or its definition nothing of it is up.
        Ok(_) | Err(Refusal::Away(_)) => {}
        Err(Refusal::No(code, _)) if code == "unknown-volume" => {}
        Err(refusal) => return Err(refusal.into()),
    }
    context.promotion_score(None)?;
    Ok(rc::OK)
}

fn monitor(context: &Context, volume: &str) -> Result<i32, Failure> {
    let recurring = context.meta("interval").is_some_and(|i| i != "0");
    let away = if recurring { AWAY } else { Duration::ZERO };
    let status = match status(context, volume, away) {
        Ok(status) => status,
        Err(Refusal::Away(why)) => {
            let why = format!("crm-blockd does not run: {why}");
            return Err(Failure::new(rc::NOT_RUNNING, why));
        }
        Err(Refusal::No(code, why)) if code == "unknown-volume" => {
            return Err(Failure::new(rc::NOT_RUNNING, why));
        }
        Err(refusal) => return Err(refusal.into()),
    };
    if !status.up {
        return Ok(rc::NOT_RUNNING);
    }
    context.promotion_score(status.score)?;
    if status.disk == DiskState::Diskless {
        let code = if status.primary { rc::FAILED_PROMOTED } else { rc::ERR_GENERIC };
        return Err(Failure::new(code, format!("volume `{volume}` has lost its disk")));
    }
    Ok(if status.primary { rc::RUNNING_PROMOTED } else { rc::OK })
}
