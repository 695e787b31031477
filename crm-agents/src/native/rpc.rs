//! ONC RPC NULL call over TCP (RFC 5531): does an NFS server answer?

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Program number of NFS.
const NFS: u32 = 100_003;
/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Asks once. An answer of any kind that belongs to the call means that the server is there.
pub(super) fn null_call(port: u16, version: u32, limit: Duration) -> std::io::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let id = std::process::id();
    // xid, CALL, RPC 2, program, version, NULL, no credentials, no verifier
    let words = [id, 0, 2, NFS, version, 0, 0, 0, 0, 0];
    let length = 0x8000_0000_u32 | u32::try_from(words.len() * 4).unwrap_or(0);
    let mut call = length.to_be_bytes().to_vec();
    call.extend(words.iter().flat_map(|w| w.to_be_bytes()));
    stream.write_all(&call)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    let word =
        |at: usize| answer.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    if word(4) == Some(id) && word(8) == Some(1) {
        Ok(())
    } else {
        Err(std::io::Error::other("the answer is not for this call"))
    }
}

/// Program number and procedure of the mount protocol's list of exports (RFC 1813, appendix I).
const MOUNT_EXPORT: (u32, u32, u32) = (100_005, 3, 5);
/// A list of exports that is longer than this is not ours.
const LIST_MAX: usize = 1 << 20;

/// Is `directory` in the list of exports that the mount service on `port` gives?
fn listed(port: u16, directory: &str, limit: Duration) -> std::io::Result<()> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let (program, version, procedure) = MOUNT_EXPORT;
    let words = [std::process::id(), 0, 2, program, version, procedure, 0, 0, 0, 0];
    let length = 0x8000_0000_u32 | u32::try_from(words.len() * 4).unwrap_or(0);
    let mut call = length.to_be_bytes().to_vec();
    call.extend(words.iter().flat_map(|w| w.to_be_bytes()));
    stream.write_all(&call)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = usize::try_from(u32::from_be_bytes(head) & 0x7fff_ffff).unwrap_or(LIST_MAX);
    let mut answer = vec![0; length.min(LIST_MAX)];
    stream.read_exact(&mut answer)?;
    // XDR: the length of the path, then the path.
    let mut wanted = u32::try_from(directory.len()).unwrap_or(0).to_be_bytes().to_vec();
    wanted.extend(directory.bytes());
    if answer.windows(wanted.len()).any(|part| part == wanted) {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("{directory} is not in the server's list of exports")))
    }
}

/// Asks until `directory` is exported or the time is over.
pub(super) fn wait_for_export(port: u16, directory: &str, limit: Duration) -> std::io::Result<()> {
    repeat(limit, || listed(port, directory, Duration::from_secs(1)))
}

/// Asks until there is an answer or the time is over.
pub(super) fn wait_for(port: u16, version: u32, limit: Duration) -> std::io::Result<()> {
    repeat(limit, || null_call(port, version, Duration::from_secs(1)))
}

fn repeat(limit: Duration, ask: impl Fn() -> std::io::Result<()>) -> std::io::Result<()> {
    let until = Instant::now() + limit;
    let mut pause = PAUSES.0;
    loop {
        match ask() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() + pause >= until => return Err(error),
            // Nothing announces that a port opens: ask again, less and less often.
            Err(_) => nix::poll::poll(&mut [], u16::try_from(pause.as_millis()).unwrap_or(100))
                .map(|_| ())
                .unwrap_or_default(),
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}
