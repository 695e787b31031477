//! The control socket: JSON lines, one request a line, one reply a line.

use crate::daemon::{Daemon, No, reply};
use crm_proto::block::{Event, Reply, Request, socket_path};
use crm_proto::line;
use serde::Serialize;
use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Longest request line.
const LONGEST: usize = 1 << 20;
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

fn say(stream: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stream.write_all(&text)
}

fn talk(daemon: &Daemon, mut stream: UnixStream) -> io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?);
    let watches = converse(lines, &mut stream, |request| answer(daemon, request))?;
    if watches { watch(daemon, stream) } else { Ok(()) }
}

/// Answers line by line to the end, whatever the lines are; true when the rest of the connection is to be a stream of events.
fn converse(
    mut lines: impl BufRead,
    stream: &mut impl Write,
    mut answer: impl FnMut(Request) -> Reply,
) -> io::Result<bool> {
    let invalid = |why: &dyn Display| reply(Err(No::new("invalid", why)));
    loop {
        let line = match line::read(&mut lines, LONGEST) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                // The rest of the line is no request.
                say(stream, &invalid(&error))?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&line) {
            Ok(Request::Watch) => return Ok(true),
            Ok(request) => say(stream, &answer(request))?,
            Err(error) => say(stream, &invalid(&error))?,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said to these bytes, and how it ends.
    fn said(bytes: &[u8]) -> (Vec<Reply>, io::Result<bool>) {
        let mut out = Vec::new();
        let end = converse(bytes, &mut out, |_| Reply::Ok);
        let lines = out.split_inclusive(|byte| *byte == b'\n');
        (lines.map(|line| serde_json::from_slice(line).unwrap()).collect(), end)
    }

    fn is_refused(reply: &Reply, part: &str) -> bool {
        matches!(reply, Reply::Refused { code, why } if code == "invalid" && why.contains(part))
    }

    #[test]
    fn garbage_is_answered_with_what_is_wrong_and_the_next_line_is_read() {
        let deep = "[".repeat(10_000);
        let cases: [(&[u8], &str); 5] = [
            (b"\xff\xfe", "expected value"),
            (b"\"Wat\xffch\"", "invalid unicode"),
            (b"{\"Up\":{}}", "missing field `volume`"),
            (b"{\"Drop\":{\"volume\":\"r\",\"peers\":[],\"epoch\":1e999}}", "out of range"),
            (deep.as_bytes(), "at line 1"),
        ];
        for (line, part) in cases {
            let shown = String::from_utf8_lossy(&line[..line.len().min(40)]);
            let (replies, end) = said(&[line, b"\n{\"Status\":{\"volume\":null}}\n"].concat());
            assert!(!end.unwrap(), "{shown}");
            assert!(is_refused(&replies[0], part), "{shown}: {replies:?}");
            assert_eq!(replies[1..], [Reply::Ok], "{shown}");
        }
        assert!(said(b"\"Watch\"\n").1.unwrap());
    }

    #[test]
    fn a_line_beyond_the_limit_is_the_last_one() {
        let mut bytes = vec![b' '; LONGEST];
        bytes.extend_from_slice(b"{\"Up\":{\"volume\":\"r\"}}\n");
        let (replies, end) = said(&bytes);
        assert!(end.is_err() && replies.len() == 1, "{replies:?}");
        assert!(is_refused(&replies[0], "longer than"), "{replies:?}");
    }
}
