//! `volume`: a replicated volume of crm-blockd as a promotable resource. Also answers for `ocf:linbit:drbd`.

use super::context::{Context, Failure};
use super::{Action, Agent, holders, param};
use crm_core::status::rc;
use crm_proto::block::{Connection, Event, Reply, Request, VolumeStatus, socket_path};
use crm_proto::line::Line;
use std::time::{Duration, Instant};

/// How long a start waits for the peers, so that the promotion score is right from the beginning.
const SETTLE: Duration = Duration::from_secs(3);

/// The agent.
pub(super) static AGENT: Agent = Agent {
    name: "volume",
    about: "Replicated volume: unpromoted = connected and receiving, promoted = its device can be used here",
    promotable: true,
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

fn ask(context: &Context, request: &Request) -> Result<Reply, Failure> {
    let limit = context.left().max(Duration::from_secs(1));
    Line::call(&socket_path(), Some(limit), request)
        .map_err(|e| Failure::io("talk to crm-blockd (is it running?)", &e))
}

fn order(context: &Context, request: &Request) -> Result<(), Failure> {
    match ask(context, request)? {
        Reply::Ok | Reply::Status(_) => Ok(()),
        Reply::Refused { code, why } => {
            let holder = if code == "busy" { held_by(context) } else { String::new() };
            Err(Failure::new(rc::ERR_GENERIC, format!("{why}{holder}")))
        }
    }
}

fn held_by(context: &Context) -> String {
    let device = name(context).ok().and_then(|n| status(context, &n).ok().flatten());
    let Some(device) = device.and_then(|s| s.device) else { return String::new() };
    match holders::of_device(&device) {
        found if found.is_empty() => String::new(),
        found => format!(" (held by {})", found.join(", ")),
    }
}

fn status(context: &Context, volume: &str) -> Result<Option<VolumeStatus>, Failure> {
    match ask(context, &Request::Status { volume: Some(volume.to_owned()) })? {
        Reply::Status(all) => Ok(all.into_iter().find(|s| s.name == volume)),
        Reply::Refused { code, .. } if code == "unknown-volume" => Ok(None),
        Reply::Refused { code: _, why } => Err(Failure::new(rc::ERR_GENERIC, why)),
        Reply::Ok => Ok(None),
    }
}

fn run(context: &Context, action: Action) -> Result<i32, Failure> {
    let volume = name(context)?;
    match action {
        Action::Start => start(context, volume),
        Action::Stop => stop(context, volume),
        Action::Promote => {
            let lost = context.meta("lost_peers").unwrap_or_default();
            let lost = lost.split_whitespace().map(str::to_owned).collect();
            order(context, &Request::Promote { volume, lost })?;
            Ok(rc::OK)
        }
        Action::Demote => {
            order(context, &Request::Demote { volume })?;
            Ok(rc::OK)
        }
        Action::Monitor | Action::Notify => monitor(context, &volume),
    }
}

fn start(context: &Context, volume: String) -> Result<i32, Failure> {
    let defined = status(context, &volume)?.is_some();
    if !defined {
        let why = format!("volume `{volume}` is not defined on this node (`crm volume create`)");
        return Err(Failure::new(rc::ERR_CONFIGURED, why));
    }
    order(context, &Request::Up { volume: volume.clone() })?;
    let settled = settle(context, &volume)?;
    context.promotion_score(settled.and_then(|s| s.score))?;
    Ok(rc::OK)
}

/// Follows the volume's events until it may be promoted, or every peer has been met, or the time is over.
fn settle(context: &Context, volume: &str) -> Result<Option<VolumeStatus>, Failure> {
    let until = Instant::now() + SETTLE.min(context.left());
    let watch = || -> Result<Line, crm_proto::line::CallError> {
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
    status(context, volume)
}

fn done(status: &VolumeStatus) -> bool {
    let met = |c: Connection| match c {
        Connection::Connecting => false,
        Connection::Connected
        | Connection::StandAlone
        | Connection::SyncSource
        | Connection::SyncTarget => true,
    };
    status.score == Some(10_000) || status.peers.iter().all(|p| met(p.connection))
}

fn stop(context: &Context, volume: String) -> Result<i32, Failure> {
    match status(context, &volume) {
        Ok(None) => return Ok(rc::OK),
        Ok(Some(status)) if !status.up => return Ok(rc::OK),
        Ok(Some(_)) => {}
        Err(failure) => return Err(failure),
    }
    order(context, &Request::Demote { volume: volume.clone() })?;
    order(context, &Request::Down { volume })?;
    context.promotion_score(None)?;
    Ok(rc::OK)
}

fn monitor(context: &Context, volume: &str) -> Result<i32, Failure> {
    let Some(status) = status(context, volume)? else { return Ok(rc::NOT_RUNNING) };
    if !status.up {
        return Ok(rc::NOT_RUNNING);
    }
    context.promotion_score(status.score)?;
    Ok(if status.primary { rc::RUNNING_PROMOTED } else { rc::OK })
}
