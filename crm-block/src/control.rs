//! The control socket: JSON lines, one request a line, one reply a line.

use crate::daemon::{Daemon, No, reply};
use crm_proto::block::{Event, Reply, Request, socket_path};
use serde::Serialize;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Longest request line.
const LONGEST: u64 = 1 << 20;
/// How often a watcher that hears nothing is looked after.
const LOOK: Duration = Duration::from_secs(5);

/// Opens the socket.
pub(crate) fn open() -> io::Result<UnixListener> {
    let path = socket_path();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the process ends.
pub(crate) fn serve(daemon: &Arc<Daemon>, listener: &UnixListener) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                let daemon = Arc::clone(daemon);
                std::thread::spawn(move || {
                    if let Err(error) = talk(&daemon, stream) {
                        tracing::debug!(%error, "control connection");
                    }
                });
            }
            Err(error) => tracing::warn!(%error, "control socket"),
        }
    }
}

fn say(stream: &mut UnixStream, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stream.write_all(&text)
}

fn talk(daemon: &Daemon, mut stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(LONGEST).read_line(&mut line)? == 0 {
            return Ok(());
        }
        match serde_json::from_str(&line) {
            Ok(Request::Watch) => return watch(daemon, stream),
            Ok(request) => say(&mut stream, &answer(daemon, request))?,
            Err(error) => say(&mut stream, &reply(Err(No::new("invalid", error))))?,
        }
    }
}

fn answer(daemon: &Daemon, request: Request) -> Reply {
    match request {
        Request::Define(spec) => reply(daemon.define(&spec)),
        Request::Undefine { volume } => reply(daemon.undefine(&volume)),
        Request::Up { volume } => reply(daemon.up(&volume)),
        Request::Down { volume } => reply(daemon.down(&volume)),
        Request::Promote { volume, lost } => reply(daemon.promote(&volume, &lost)),
        Request::Demote { volume } => reply(daemon.demote(&volume)),
        Request::Drop { volume, peers, epoch } => reply(daemon.drop_peers(&volume, &peers, epoch)),
        Request::DiscardMyData { volume } => reply(daemon.discard(&volume)),
        Request::Status { volume } => {
            daemon.status(volume.as_deref()).map_or_else(|no| reply(Err(no)), Reply::Status)
        }
        Request::Watch => reply(Err(No::new("invalid", "watch takes the connection over"))),
    }
}

fn watch(daemon: &Daemon, mut stream: UnixStream) -> io::Result<()> {
    let (events, first) = daemon.watch();
    let state = daemon.status(None).map_or_else(|no| reply(Err(no)), Reply::Status);
    say(&mut stream, &state)?;
    for event in first {
        say(&mut stream, &event)?;
    }
    pass_on(&events, &mut stream)
}

fn pass_on(events: &Receiver<Event>, stream: &mut UnixStream) -> io::Result<()> {
    loop {
        match events.recv_timeout(LOOK) {
            Ok(event) => say(stream, &event)?,
            Err(RecvTimeoutError::Timeout) if gone(stream)? => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Whether the watcher has closed its end (it has nothing more to say).
fn gone(stream: &mut UnixStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false)?;
    match read {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
