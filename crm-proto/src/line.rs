//! JSON lines over a Unix socket: one request line, then reply lines. The blocking client used by `crm`, the agents and their shims.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest line either side accepts, in bytes.
pub const LINE_MAX: usize = 64 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there (daemon not running, or no permission).
    #[error("connect to {path}")]
    Connect {
        /// Socket path.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The connection broke or timed out.
    #[error("talk to the daemon")]
    Io(#[from] io::Error),
    /// The other side closed without an answer.
    #[error("the daemon closed the connection without an answer")]
    Closed,
    /// The answer is not what this version expects.
    #[error("understand the daemon's answer")]
    Decode(#[from] serde_json::Error),
}

/// A connection to a daemon's socket.
#[derive(Debug)]
pub struct Line {
    stream: BufReader<UnixStream>,
}

impl Line {
    /// Connects; `timeout` bounds each later read and write (`None` = wait for ever).
    ///
    /// # Errors
    /// [`CallError::Connect`] when nobody listens.
    pub fn connect(path: &Path, timeout: Option<Duration>) -> Result<Self, CallError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| CallError::Connect { path: path.display().to_string(), source })?;
        stream.set_read_timeout(timeout)?;
        stream.set_write_timeout(timeout)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), CallError> {
        let mut bytes = serde_json::to_vec(message)?;
        bytes.push(b'\n');
        self.stream.get_mut().write_all(&bytes)?;
        Ok(())
    }

    /// Receives one message.
    ///
    /// # Errors
    /// [`CallError::Closed`] at the end of the stream; otherwise as it says.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, CallError> {
        let line = read(&mut self.stream, LINE_MAX)?.ok_or(CallError::Closed)?;
        Ok(serde_json::from_slice(&line)?)
    }

    /// One request, one reply, on a fresh connection.
    ///
    /// # Errors
    /// As [`Self::connect`], [`Self::send`], [`Self::receive`].
    pub fn call<Q: Serialize, R: DeserializeOwned>(
        path: &Path,
        timeout: Option<Duration>,
        request: &Q,
    ) -> Result<R, CallError> {
        let mut line = Self::connect(path, timeout)?;
        line.send(request)?;
        line.receive()
    }
}

/// A line of at most so many bytes, its end included; `None` at the end of the stream. What is no UTF-8 is for the reader of the line to find
/// out, who can say so.
///
/// # Errors
/// When it cannot be read, or ([`io::ErrorKind::InvalidData`]) is too long: the rest of it is still in the stream.
pub fn read(stream: &mut impl BufRead, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // One byte more tells a line that fills the limit from one that goes on.
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    if stream.take(limit).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.len() > most {
        return Err(too_long(most));
    }
    Ok(Some(line))
}

/// The error of a line beyond the limit.
#[must_use]
pub fn too_long(most: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the line is longer than {most} bytes"))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_line_without_an_end_is_read_up_to_the_limit_only() {
        let mut stream = &b"short\nlonger than that\n"[..];
        assert_eq!(read(&mut stream, 6).unwrap().as_deref(), Some(&b"short\n"[..]));
        assert!(read(&mut stream, 8).is_err());
        assert_eq!(read(&mut &b""[..], 8).unwrap(), None);
    }
}
