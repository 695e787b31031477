//! A volume shown as a Unix socket that speaks NBD (fixed newstyle), `RUN/nbd/NAME.sock`: for nodes that may not show a block device and
//! have no `/dev/fuse` either. Any NBD program can use it. It is never busy: when it is taken away its users lose their connection, and
//! what they have no answer to was not acknowledged.

use super::super::error::{FrontError, step};
use super::super::{Front, FrontSpec, KeeperHandle, Means, Record, Target, label, pause, run_dir};
use super::serve;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// "I have options": starts the server's greeting and every option.
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
/// Starts every answer to an option.
const ANSWER_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Fixed newstyle, no padding.
const HANDSHAKE: u16 = 1 | 2;
/// Longest option that is read.
const OPTION_MAX: u32 = 4096;

/// The socket.
#[derive(Debug)]
pub(in super::super) struct SocketFront {
    spec: FrontSpec,
    path: PathBuf,
    keeper: KeeperHandle,
    users: Arc<Users>,
    /// Both `None` = closed.
    open: Mutex<Option<(UnixListener, JoinHandle<()>)>>,
}

/// Connections that are served.
#[derive(Debug, Default)]
struct Users(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: Vec<(u64, UnixStream)>,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Users {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path_of(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join("nbd").join(format!("{name}.sock"))
}

fn remove(path: &Path) -> Result<(), FrontError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(step("remove", path)(error)),
    }
}

/// Removes the socket of a dead worker.
pub(in super::super) fn abandon(name: &str) -> Result<(), FrontError> {
    remove(&path_of(&run_dir(), name))
}

impl SocketFront {
    /// Opens the socket; one that a dead worker left is replaced.
    pub(in super::super) fn open(
        spec: FrontSpec,
        target: Arc<dyn Target>,
        keeper: &KeeperHandle,
    ) -> Result<Self, FrontError> {
        let path = path_of(&run_dir(), &spec.name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(step("make directory", parent))?;
        }
        remove(&path)?;
        let listener = UnixListener::bind(&path).map_err(step("open", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .map_err(step("guard", &path))?;
        let mine = listener.try_clone().map_err(step("share", &path))?;
        let users = Arc::new(Users::default());
        let (theirs, size_bytes) = (Arc::clone(&users), spec.size_bytes);
        let builder = std::thread::Builder::new().name(format!("nbd-{}", spec.name));
        let thread = builder
            .spawn(move || accept(&listener, &theirs, size_bytes, &target))
            .map_err(step("start a thread for", &path))?;
        let record = Record { spec: spec.clone(), means: Means::Socket };
        record.deposit(keeper, &[])?;
        let (keeper, open) = (keeper.clone(), Mutex::new(Some((mine, thread))));
        Ok(Self { spec, path, keeper, users, open })
    }
}

impl Front for SocketFront {
    fn kind(&self) -> &'static str {
        "socket"
    }

    fn device_in_use(&self) -> bool {
        !self.users.lock().connections.is_empty()
    }

    fn close(&self) -> Result<(), FrontError> {
        let Some((listener, thread)) = lock(&self.open).take() else { return Ok(()) };
        remove(&self.path)?;
        self.keeper.withdraw(&label(&self.spec)).map_err(FrontError::Keeper)?;
        // Wakes the thread that accepts.
        nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both)
            .map_err(step("close", &self.path))?;
        let mut threads = vec![thread];
        let mut users = self.users.lock();
        users.closed = true;
        for (_, connection) in users.connections.drain(..) {
            if let Err(error) = connection.shutdown(Shutdown::Both) {
                tracing::debug!(%error, "a user of the socket had gone");
            }
        }
        threads.append(&mut users.threads);
        drop(users);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!(volume = self.spec.name, "a front-end thread had panicked");
            }
        }
        Ok(())
    }
}

fn accept(listener: &UnixListener, users: &Arc<Users>, size_bytes: u64, target: &Arc<dyn Target>) {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(_) if users.lock().closed => return,
            // `close` shuts the listener down before it says so.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            Err(error) => {
                tracing::warn!(%error, "NBD socket");
                pause();
                continue;
            }
        };
        if let Err(error) = admit(stream, users, size_bytes, target) {
            tracing::warn!(%error, "NBD socket");
        }
    }
}

fn admit(
    stream: UnixStream,
    users: &Arc<Users>,
    size_bytes: u64,
    target: &Arc<dyn Target>,
) -> io::Result<()> {
    let kept = stream.try_clone()?;
    let (own, target) = (Arc::clone(users), Arc::clone(target));
    let mut state = users.lock();
    if state.closed {
        return Ok(());
    }
    let number = state.next;
    state.next += 1;
    state.threads.retain(|thread| !thread.is_finished());
    let thread = std::thread::Builder::new().name("nbd-user".to_owned()).spawn(move || {
        match greet(&stream, size_bytes) {
            Ok(true) => {
                // Nobody sends a request again over another connection: what is in flight is this one's own.
                let flying = Arc::default();
                let end = serve::serve(&stream, size_bytes, target.as_ref(), &flying);
                tracing::debug!(?end, "NBD user");
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "NBD user"),
        }
        own.lock().connections.retain(|(other, _)| *other != number);
    })?;
    state.connections.push((number, kept));
    state.threads.push(thread);
    Ok(())
}

fn read_word<const N: usize>(mut stream: &UnixStream) -> io::Result<[u8; N]> {
    let mut word = [0; N];
    stream.read_exact(&mut word)?;
    Ok(word)
}

/// The handshake; false = the user only asked.
fn greet(mut stream: &UnixStream, size_bytes: u64) -> io::Result<bool> {
    let mut hello = b"NBDMAGIC".to_vec();
    hello.extend(OPTION_MAGIC);
    hello.extend(HANDSHAKE.to_be_bytes());
    stream.write_all(&hello)?;
    let flags = u32::from_be_bytes(read_word(stream)?);
    let server_flags = u16::try_from(serve::SERVER_FLAGS).map_err(io::Error::other)?;
    loop {
        if &read_word::<8>(stream)? != OPTION_MAGIC {
            return Err(ErrorKind::InvalidData.into());
        }
        let option = u32::from_be_bytes(read_word(stream)?);
        let len = u32::from_be_bytes(read_word(stream)?);
        if len > OPTION_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        stream.read_exact(&mut data)?;
        match option {
            // EXPORT_NAME: there is one export, whatever it is called.
            1 => {
                let mut export = size_bytes.to_be_bytes().to_vec();
                export.extend(server_flags.to_be_bytes());
                if flags & 2 == 0 {
                    export.resize(export.len() + 124, 0);
                }
                stream.write_all(&export)?;
                return Ok(true);
            }
            // ABORT
            2 => {
                answer(stream, option, 1, &[])?;
                return Ok(false);
            }
            // INFO and GO
            6 | 7 => {
                let mut info = vec![0, 0];
                info.extend(size_bytes.to_be_bytes());
                info.extend(server_flags.to_be_bytes());
                answer(stream, option, 3, &info)?;
                answer(stream, option, 1, &[])?;
                if option == 7 {
                    return Ok(true);
                }
            }
            // not offered
            _ => answer(stream, option, 0x8000_0001, &[])?,
        }
    }
}

fn answer(mut stream: &UnixStream, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let len = u32::try_from(data.len()).map_err(io::Error::other)?;
    let mut words = ANSWER_MAGIC.to_be_bytes().to_vec();
    words.extend(option.to_be_bytes());
    words.extend(kind.to_be_bytes());
    words.extend(len.to_be_bytes());
    words.extend(data);
    stream.write_all(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_asks_is_told_the_size_and_goes_on() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || greet(&server, 1 << 20).unwrap());
        let hello: [u8; 18] = read_word(&client).unwrap();
        assert_eq!(&hello[..16], b"NBDMAGICIHAVEOPT");
        client.write_all(&3u32.to_be_bytes()).unwrap();
        // An option that is not offered, then EXPORT_NAME.
        for (option, data) in [(8u32, &b""[..]), (1, b"r0")] {
            client.write_all(OPTION_MAGIC).unwrap();
            client.write_all(&option.to_be_bytes()).unwrap();
            client.write_all(&u32::try_from(data.len()).unwrap().to_be_bytes()).unwrap();
            client.write_all(data).unwrap();
        }
        let refused: [u8; 20] = read_word(&client).unwrap();
        assert_eq!(refused[12..16], 0x8000_0001u32.to_be_bytes());
        let size: [u8; 8] = read_word(&client).unwrap();
        assert_eq!(u64::from_be_bytes(size), 1 << 20);
        assert!(thread.join().unwrap());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn whatever_a_user_says_in_the_handshake_ends_it_at_worst(
            options in proptest::collection::vec(
                (0u32..10, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20)),
                0..6,
            ),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
        ) {
            let (mut client, server) = UnixStream::pair().unwrap();
            let mut said = 3u32.to_be_bytes().to_vec();
            for (option, data) in options {
                said.extend(OPTION_MAGIC);
                said.extend(option.to_be_bytes());
                said.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
                said.extend(data);
            }
            said.extend(rest);
            client.write_all(&said).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            drop(greet(&server, 1 << 20));
        }
    }

    #[test]
    fn an_option_that_is_too_long_is_not_read() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client
            .write_all(&[&3u32.to_be_bytes()[..], OPTION_MAGIC, &[0, 0, 0, 7], &[0xff; 4]].concat())
            .unwrap();
        assert_eq!(greet(&server, 1 << 20).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
