//! Bytes that arrive where HTTP and WebSocket are spoken: the real server, its
//! connections in memory and its clock one that never waits. Whatever comes,
//! nothing panics, the server lets go of a connection whose other end is gone,
//! and others are served on.

#![allow(clippy::unwrap_used)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use daybook_log::fuzz::{Fuzz, Verdict};
use daybook_model::Timestamp;
use daybook_server::{Config, Server};
use daybook_store::memory::MemoryStore;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// What a connection may leave unread.
const PIPE: usize = 1 << 20;
/// Of all tasks, for an answer.
const TURNS: usize = 100;
/// Whoever has been answered sees the end by then, unless it is a stream; and
/// once the other end is gone, nobody has a reason to stay longer.
const END: Duration = Duration::from_secs(60);

/// The server's end of a connection. Its other end learns when it is let go.
struct End {
    stream: DuplexStream,
    _held: oneshot::Sender<()>,
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

struct Listener(mpsc::Receiver<End>);

impl axum::serve::Listener for Listener {
    type Io = End;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (End, SocketAddr) {
        match self.0.recv().await {
            Some(connection) => (connection, SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
    }
}

struct Bus {
    runtime: Runtime,
    connections: mpsc::Sender<End>,
    panics: Arc<AtomicU64>,
    _server: Server,
}

impl Bus {
    fn start() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        // Tasks of the server run on this thread; their panics end a connection, not the test.
        let panics = Arc::new(AtomicU64::new(0));
        let (before, counted) = (std::panic::take_hook(), panics.clone());
        std::panic::set_hook(Box::new(move |panic| {
            counted.fetch_add(1, Ordering::Relaxed);
            before(panic);
        }));
        let (connections, accepted) = mpsc::channel(1);
        let clock = AtomicU64::new(1_700_000_000_000_000);
        let store = MemoryStore::new(move || Timestamp(clock.fetch_add(1, Ordering::Relaxed) as i64));
        let server = daybook_server::start_on(Config::new("unused"), Arc::new(store), Listener(accepted));
        let server = runtime.block_on(server).unwrap();
        Self { runtime, connections, panics, _server: server }
    }

    /// What is answered to these bytes.
    fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let gone = self.runtime.block_on(async {
            let (mut here, there) = tokio::io::duplex(PIPE);
            let (held, gone) = oneshot::channel();
            self.connections.send(End { stream: there, _held: held }).await.unwrap();
            let exchange = async {
                // It may be refused before all of it is read.
                let _ = here.write_all(bytes).await;
                // Everything happens on this thread: after so many turns it has
                // happened, and whoever waits for more is told that none comes.
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                let _ = here.shutdown().await;
                let _ = here.read_to_end(&mut answer).await;
            };
            // Who asked for a stream may read it although it says no more.
            let _ = tokio::time::timeout(END, exchange).await;
            drop(here);
            tokio::time::timeout(END, gone).await
        });
        assert!(gone.is_ok(), "the server holds on to a connection whose other end is gone");
        assert_eq!(self.panics.load(Ordering::Relaxed), 0, "the server panicked");
        answer
    }

    /// Its status line as a verdict; others are served on.
    fn exchange(&self, bytes: &[u8]) -> Verdict {
        let answer = self.send(bytes);
        let status = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let status = String::from_utf8_lossy(status).into_owned();
        assert!(!status.contains(" 500 "), "{}", String::from_utf8_lossy(&answer));
        let health = self.send(b"GET /healthz HTTP/1.1\r\nhost: d\r\nconnection: close\r\n\r\n");
        assert!(health.starts_with(b"HTTP/1.1 200"), "{}", health.escape_ascii());
        // Refused are bytes in as many ways as there are first words of a problem.
        let detail = answer.windows(9).position(|at| at == b"\"detail\":").map(|at| &answer[at..]);
        let detail =
            detail.map(|detail| String::from_utf8_lossy(&detail[..detail.len().min(50)]).into_owned());
        match status.get(9..10) {
            Some("1" | "2") => Ok(()),
            _ => Err(status + &detail.unwrap_or_default().replace('"', "")),
        }
    }
}

/// The same request with the length that its body has, so that it is read.
fn with_right_length(request: &[u8]) -> Option<Vec<u8>> {
    let end = request.windows(4).position(|at| at == b"\r\n\r\n")?;
    let (head, body) = (&request[..end], &request[end + 4..]);
    let lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let kept = lines.filter(|line| !line.to_ascii_lowercase().starts_with(b"content-length"));
    let mut whole = kept.collect::<Vec<_>>().join(&b"\r\n"[..]);
    whole.extend_from_slice(format!("\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    whole.extend_from_slice(body);
    Some(whole)
}

fn corpus(name: &'static str, folder: &str) -> Fuzz {
    Fuzz::new(name).folder(format!("{}/{folder}", env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn any_bytes_may_arrive_as_http_and_as_frames() {
    // One test, as the count of panics is the process's.
    let bus = Bus::start();
    corpus("fuzz http", "tests/corpus/http").run(700, |input| {
        let verdict = bus.exchange(input);
        match with_right_length(input) {
            Some(whole) if whole != input => bus.exchange(&whole).or(verdict),
            _ => verdict,
        }
    });
    let upgrade = b"GET /v1/ws HTTP/1.1\r\nhost: d\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: daybook.v1.json\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let hello = br#"{"op":"hello","id":1,"service":"fuzz"}"#;
    corpus("fuzz sessions", "../model/tests/corpus/client").run(1_000, |input| {
        let bytes = [&upgrade[..], &frame(hello), &frame(input)].concat();
        bus.exchange(&bytes)?;
        let answer = bus.send(&bytes);
        let text = String::from_utf8_lossy(&answer);
        let refused = text.rfind("\"code\":\"").map(|at| text[at + 8..].chars().take(60).collect::<String>());
        refused.map_or(Ok(()), |refused| Err(refused.replace('"', "")))
    });
}

/// A text frame, masked with nothing.
fn frame(text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | 127];
    frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text);
    frame
}
