//! Records written to the volume itself: a connection to the socket of the node that is primary (NBD, fixed newstyle, one request at a
//! time). For labs that cannot mount a file system.

use super::session::Trouble;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// As for NFS: who is silent for longer is taken for gone.
const CALL_LIMIT: Duration = Duration::from_millis(500);
/// The only export.
const EXPORT: &[u8] = b"r0";
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// The write is on stable storage when it is answered.
const FLAG_FUA: u16 = 1;
const READ: u16 = 0;
const WRITE: u16 = 1;

/// A connection.
pub(crate) struct Connection {
    stream: UnixStream,
    next: u64,
}

fn broken(error: &dyn std::fmt::Display) -> Trouble {
    Trouble::Transport(error.to_string())
}

async fn limited<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T, Trouble> {
    match tokio::time::timeout(CALL_LIMIT, step).await {
        Ok(result) => result.map_err(|e| broken(&e)),
        Err(_) => Err(Trouble::Transport(format!("no answer for {} ms", CALL_LIMIT.as_millis()))),
    }
}

async fn greet(stream: &mut UnixStream) -> std::io::Result<()> {
    let mut hello = [0; 18];
    stream.read_exact(&mut hello).await?;
    if !hello.starts_with(b"NBDMAGICIHAVEOPT") {
        return Err(std::io::Error::other("this is no NBD server"));
    }
    // Fixed newstyle, no padding; then EXPORT_NAME.
    let mut words = 3_u32.to_be_bytes().to_vec();
    words.extend(b"IHAVEOPT");
    words.extend(1_u32.to_be_bytes());
    words.extend(u32::try_from(EXPORT.len()).map_err(std::io::Error::other)?.to_be_bytes());
    words.extend(EXPORT);
    stream.write_all(&words).await?;
    // Size and flags.
    stream.read_exact(&mut [0; 10]).await.map(|_| ())
}

impl Connection {
    /// Connects to the first of `sockets` that is served.
    pub(crate) async fn open(sockets: &[PathBuf]) -> Result<Self, Trouble> {
        let mut last = Trouble::Transport("the lab has no nodes".to_owned());
        for socket in sockets {
            let connect = async {
                let mut stream = UnixStream::connect(socket).await?;
                greet(&mut stream).await?;
                Ok(stream)
            };
            match limited(connect).await {
                Ok(stream) => return Ok(Self { stream, next: 0 }),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }

    async fn call(
        &mut self,
        command: (u16, u16),
        offset: u64,
        length: usize,
        data: &[u8],
    ) -> std::io::Result<()> {
        let (kind, flags) = command;
        let length = u32::try_from(length).map_err(std::io::Error::other)?;
        self.next += 1;
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(self.next.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request).await?;
        let (magic, error) = (self.stream.read_u32().await?, self.stream.read_u32().await?);
        if magic != REPLY_MAGIC || self.stream.read_u64().await? != self.next {
            return Err(std::io::Error::other("the answer is not for this request"));
        }
        if error != 0 {
            return Err(std::io::Error::other(format!("the volume answers error {error}")));
        }
        Ok(())
    }

    /// Writes; returns when the bytes are on stable storage of all replicas.
    pub(crate) async fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        limited(self.call((WRITE, FLAG_FUA), offset, bytes.len(), bytes)).await
    }

    /// Reads `count` bytes.
    pub(crate) async fn read(&mut self, offset: u64, count: u32) -> Result<Vec<u8>, Trouble> {
        let length = usize::try_from(count).map_err(|e| broken(&e))?;
        limited(async {
            self.call((READ, 0), offset, length, &[]).await?;
            let mut bytes = vec![0; length];
            self.stream.read_exact(&mut bytes).await?;
            Ok(bytes)
        })
        .await
    }
}
