//! One connection to the NFS server (version 3, TCP, fixed ports) and the few operations that the client needs.

use nfs3_client::io::{AsyncRead, AsyncWrite};
use nfs3_client::nfs3_types::mount::{dirpath, mountstat3};
use nfs3_client::nfs3_types::nfs3::{
    CREATE3args, LOOKUP3args, Nfs3Option, Nfs3Result, READ3args, WRITE3args, createhow3,
    diropargs3, filename3, nfs_fh3, nfsstat3, sattr3, stable_how,
};
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::{MountClient, MountError, Nfs3Client, RpcError};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Port of the NFS service.
const NFS_PORT: u16 = 2049;
/// Port of the mount service.
const MOUNT_PORT: u16 = 20048;
/// Connecting takes a round trip; longer than this means that nobody is there, or that the address is moving.
const CONNECT_LIMIT: Duration = Duration::from_millis(250);
/// One operation; a server that is silent for longer is taken for gone and asked again over a new connection.
const CALL_LIMIT: Duration = Duration::from_millis(500);

/// Why an operation did not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Connection refused, broken or silent: try again.
    #[error("{0}")]
    Transport(String),
    /// The server's answer.
    #[error("server answers {0:?}")]
    Answer(nfsstat3),
    /// The mount service's answer.
    #[error("mount is refused: {0:?}")]
    Mount(mountstat3),
}

impl From<RpcError> for Trouble {
    fn from(error: RpcError) -> Self {
        Self::Transport(error.to_string())
    }
}

impl From<MountError> for Trouble {
    fn from(error: MountError) -> Self {
        match error {
            MountError::Rpc(error) => error.into(),
            MountError::Denied(status) => Self::Mount(status),
        }
    }
}

/// A TCP stream for the NFS crate; unlike its own wrapper it notices the end of the stream.
struct Wire(TcpStream);

impl AsyncRead for Wire {
    async fn async_read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf).await
    }

    async fn async_read_exact(&mut self, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact(buf).await.map(|_| ())
    }
}

impl AsyncWrite for Wire {
    async fn async_write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf).await
    }
}

/// Limits a step in time.
async fn limited<T, E: Into<Trouble>>(
    limit: Duration,
    step: impl Future<Output = Result<T, E>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(Trouble::Transport(format!("no answer for {} ms", limit.as_millis()))),
    }
}

/// Servers trust low source ports by default; without the right to use them any port has to do.
async fn dial(ip: IpAddr, port: u16) -> Result<Wire, Trouble> {
    let connect = async {
        for local in (700..1000).rev() {
            let socket = TcpSocket::new_v4()?;
            match socket.bind(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), local)) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(error),
            }
            match socket.connect(SocketAddr::new(ip, port)).await {
                Ok(stream) => return Ok(stream),
                // An earlier connection from this port to there is not forgotten yet.
                Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {}
                Err(error) => return Err(error),
            }
        }
        Err(std::io::Error::other("no low port is free"))
    };
    let connected = tokio::time::timeout(CONNECT_LIMIT, connect).await;
    let stream = match connected {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Trouble::Transport(format!("connect to {ip}:{port}: {error}")));
        }
        Err(_) => return Err(Trouble::Transport(format!("connect to {ip}:{port}: no answer"))),
    };
    match stream.set_nodelay(true) {
        Ok(()) => Ok(Wire(stream)),
        Err(error) => Err(Trouble::Transport(error.to_string())),
    }
}

fn credential() -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix {
        machinename: Opaque::borrowed(b"client"),
        ..auth_unix::default()
    })
}

/// The root handle of an export.
pub(crate) async fn mount(ip: IpAddr, export: &str) -> Result<nfs_fh3, Trouble> {
    let wire = dial(ip, MOUNT_PORT).await?;
    let mut client = MountClient::new_with_auth(wire, credential(), opaque_auth::default());
    let path = dirpath(Opaque::borrowed(export.as_bytes()));
    let answer = limited(CALL_LIMIT, client.mnt(path)).await?;
    Ok(nfs_fh3 { data: Opaque::owned(answer.fhandle.0.to_vec()) })
}

/// A connection to the NFS service.
pub(crate) struct Session {
    client: Nfs3Client<Wire>,
}

impl Session {
    /// Connects.
    pub(crate) async fn connect(ip: IpAddr) -> Result<Self, Trouble> {
        let wire = dial(ip, NFS_PORT).await?;
        let verifier = opaque_auth::default();
        Ok(Self { client: Nfs3Client::new_with_auth(wire, credential(), verifier) })
    }

    /// The handle of a file in the export's root; makes it when it is missing.
    pub(crate) async fn open(&mut self, root: &nfs_fh3, name: &str) -> Result<nfs_fh3, Trouble> {
        let place =
            || diropargs3 { dir: root.clone(), name: filename3(Opaque::borrowed(name.as_bytes())) };
        match limited(CALL_LIMIT, self.client.lookup(&LOOKUP3args { what: place() })).await? {
            Nfs3Result::Ok(found) => return Ok(found.object),
            Nfs3Result::Err((nfsstat3::NFS3ERR_NOENT, _)) => {}
            Nfs3Result::Err((status, _)) => return Err(Trouble::Answer(status)),
        }
        let how =
            createhow3::UNCHECKED(sattr3 { mode: Nfs3Option::Some(0o644), ..sattr3::default() });
        let args = CREATE3args { where_: place(), how };
        match limited(CALL_LIMIT, self.client.create(&args)).await? {
            Nfs3Result::Ok(made) => match made.obj {
                Nfs3Option::Some(handle) => Ok(handle),
                Nfs3Option::None => {
                    Err(Trouble::Transport("the new file has no handle yet".to_owned()))
                }
            },
            Nfs3Result::Err((status, _)) => Err(Trouble::Answer(status)),
        }
    }

    /// Writes all of `bytes`; returns when the server says that they are on stable storage.
    pub(crate) async fn write(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Trouble> {
        let count = u32::try_from(bytes.len()).map_err(|e| Trouble::Transport(e.to_string()))?;
        let args = WRITE3args {
            file: file.clone(),
            offset,
            count,
            stable: stable_how::FILE_SYNC,
            data: Opaque::borrowed(bytes),
        };
        match limited(CALL_LIMIT, self.client.write(&args)).await? {
            Nfs3Result::Ok(done)
                if done.count == count && done.committed == stable_how::FILE_SYNC =>
            {
                Ok(())
            }
            Nfs3Result::Ok(done) => Err(Trouble::Transport(format!(
                "the server wrote {} of {count} bytes, {:?}",
                done.count, done.committed
            ))),
            Nfs3Result::Err((status, _)) => Err(Trouble::Answer(status)),
        }
    }

    /// Reads up to `count` bytes.
    pub(crate) async fn read(
        &mut self,
        file: &nfs_fh3,
        offset: u64,
        count: u32,
    ) -> Result<Vec<u8>, Trouble> {
        let args = READ3args { file: file.clone(), offset, count };
        match limited(CALL_LIMIT, self.client.read(&args)).await? {
            Nfs3Result::Ok(done) => Ok(done.data.to_vec()),
            Nfs3Result::Err((status, _)) => Err(Trouble::Answer(status)),
        }
    }
}
