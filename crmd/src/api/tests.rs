//! The loop of the local socket with a real node behind it; the test sits in the place of the daemon's task.

use super::*;
use crm_membership::{Dirs, Settings, bootstrap};
use std::io::{BufRead, Read as _, Write as _};
use std::pin::pin;
use std::time::Duration;

/// More than anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A node whose socket is served, and a client.
struct Desk {
    _dir: tempfile::TempDir,
    handle: Handle,
    asked: mpsc::UnboundedReceiver<Input>,
    events: mpsc::UnboundedSender<Input>,
    changes: watch::Sender<u64>,
    answers: Answers,
}

impl Desk {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let dirs = Dirs {
            settings: root.join("node.yaml"),
            data: root.join("data"),
            tls: root.join("tls"),
        };
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap().to_string();
        drop(probe);
        bootstrap::init(&dirs, "lab", "n1", &address).unwrap();
        let mut settings = Settings::load(&dirs.settings).unwrap();
        settings.realtime = false;
        let handle = crm_membership::start(settings, root.to_owned()).await.unwrap();
        let (events, asked) = mpsc::unbounded_channel();
        let (changes, _) = watch::channel(0);
        Self { _dir: dir, handle, asked, events, changes, answers: Answers::default() }
    }

    /// A client, connected.
    fn client(&self) -> std::os::unix::net::UnixStream {
        let (client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        let serving = Client {
            handle: self.handle.clone(),
            events: self.events.clone(),
            changes: self.changes.subscribe(),
            answers: self.answers.clone(),
        };
        tokio::spawn(serving.serve(UnixStream::from_std(server).unwrap()));
        client
    }

    /// The next question for the daemon's task.
    async fn question(&mut self) -> Call {
        match tokio::time::timeout(LIMIT, self.asked.recv()).await {
            Ok(Some(Input::Call(call))) => call,
            other => panic!("{other:?}"),
        }
    }
}

fn reply(line: &[u8]) -> Reply {
    assert_eq!(line.last(), Some(&b'\n'), "half an answer");
    serde_json::from_slice(line).unwrap()
}

/// What is there to be read now.
fn there(client: &mut std::os::unix::net::UnixStream) -> Vec<u8> {
    client.set_nonblocking(true).unwrap();
    let mut bytes = vec![0; 1 << 16];
    let count = client.read(&mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

#[tokio::test]
async fn whoever_has_asked_has_his_answer_when_the_daemon_may_end() {
    let mut desk = Desk::open().await;
    let mut client = desk.client();
    client.write_all(b"\"Status\"\n").unwrap();
    let call = desk.question().await;
    let answers = desk.answers.clone();
    let mut written = pin!(answers.written(LIMIT));
    assert!(futures::poll!(&mut written).is_pending(), "the answer is not there yet");
    call.reply.send(Reply::Said("it is over".to_owned())).unwrap();
    assert!(written.await);
    assert_eq!(reply(&there(&mut client)), Reply::Said("it is over".to_owned()));

    // Nobody will answer this one: the daemon's task has gone.
    client.set_nonblocking(false).unwrap();
    client.write_all(b"{\"WaitIdle\":{\"version\":9,\"timeout_ms\":60000}}\n").unwrap();
    let waiter = desk.question().await;
    let mut written = pin!(answers.written(LIMIT));
    assert!(futures::poll!(&mut written).is_pending());
    drop(waiter);
    assert!(written.await);
    let told = reply(&there(&mut client));
    assert!(matches!(&told, Reply::Refused { why, .. } if why == "crmd is ending"), "{told:?}");
    desk.handle.shutdown().await;
}

#[tokio::test]
async fn neither_a_stream_nor_a_client_that_takes_nothing_holds_the_end_up() {
    let mut desk = Desk::open().await;
    let mut watcher = desk.client();
    watcher.write_all(b"\"Watch\"\n").unwrap();
    let picture = desk.question().await;
    assert!(desk.answers.written(LIMIT).await, "a stream has no end to wait for");
    drop(picture);

    let mut sleeper = desk.client();
    sleeper.write_all(b"\"Cib\"\n").unwrap();
    let call = desk.question().await;
    call.reply.send(Reply::Said("x".repeat(8 << 20))).unwrap();
    assert!(!desk.answers.written(Duration::from_millis(50)).await, "8 MiB are in no buffer");
    let taken = tokio::task::spawn_blocking(move || {
        let mut line = Vec::new();
        std::io::BufReader::new(sleeper).read_until(b'\n', &mut line).unwrap();
        line.len()
    });
    assert!(desk.answers.written(LIMIT).await, "now he has it");
    assert!(taken.await.unwrap() > 8 << 20);
    desk.handle.shutdown().await;
}

/// Sends bytes as they are and reads one line.
async fn ask(client: &std::os::unix::net::UnixStream, bytes: Vec<u8>) -> Reply {
    let mut client = client.try_clone().unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        // The other side may have answered and gone before all of it is written.
        drop(client.write_all(&bytes));
        let mut line = Vec::new();
        std::io::BufReader::new(client).read_until(b'\n', &mut line).unwrap();
        reply(&line)
    });
    asked.await.unwrap()
}

#[tokio::test]
async fn garbage_is_answered_with_what_is_wrong_and_the_connection_goes_on() {
    let mut desk = Desk::open().await;
    let client = desk.client();
    let deep = "[".repeat(100_000);
    let cases: [(&[u8], &str); 10] = [
        (b"\xff\xfe\x00", "expected value"),
        (b"\"Stat\xffus\"", "invalid unicode"),
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"\"Sttus\"", "unknown variant `Sttus`"),
        (b"\"Status\" \"Cib\"", "trailing characters"),
        (deep.as_bytes(), "at line 1"),
        (b"{\"Revision\":{\"version\":1e999}}", "number out of range"),
        (b"{\"Revision\":{\"version\":-1}}", "expected u64"),
        (b"{\"Token\":{}}", "missing field `ttl_s`"),
    ];
    for (line, part) in cases {
        let shown = String::from_utf8_lossy(&line[..line.len().min(40)]);
        let told = ask(&client, [line, b"\n"].concat()).await;
        let Reply::Refused { why, .. } = told else { panic!("{shown}: {told:?}") };
        assert!(why.contains("not a request") && why.contains(part), "{shown}: {why}");
    }
    let mut good = client.try_clone().unwrap();
    good.write_all(b"\"Status\"\n").unwrap();
    desk.question().await;
    desk.handle.shutdown().await;
}

#[tokio::test]
async fn a_line_beyond_the_limit_ends_its_connection_alone() {
    let mut desk = Desk::open().await;
    let client = desk.client();
    // What is left of the line must not be taken for the next request.
    let mut long = vec![b'x'; crm_proto::line::LINE_MAX];
    long.extend_from_slice(b"\"Status\"\n");
    let told = ask(&client, long).await;
    assert!(matches!(&told, Reply::Refused { why, .. } if why.contains("longer than")), "{told:?}");
    assert!(matches!(desk.asked.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
    let mut rest = client.try_clone().unwrap();
    let end = tokio::task::spawn_blocking(move || rest.read(&mut [0; 9]));
    assert!(!matches!(end.await.unwrap(), Ok(1..)), "the connection goes on");
    let mut other = desk.client();
    other.write_all(b"\"Status\"\n").unwrap();
    desk.question().await;
    desk.handle.shutdown().await;
}
