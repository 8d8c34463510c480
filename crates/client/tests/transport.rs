//! Frames over something else than TCP, and over something that breaks.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daybook_client::Client;
use daybook_client::model::{NewEvent, Timestamp};
use daybook_server::{Config, Server};
use daybook_store::memory::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};

/// Lets in whoever has the other end of the channel.
struct Pipes(mpsc::Receiver<DuplexStream>);

impl axum::serve::Listener for Pipes {
    type Io = DuplexStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (DuplexStream, SocketAddr) {
        match self.0.recv().await {
            Some(pipe) => (pipe, nowhere()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(nowhere())
    }
}

fn nowhere() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A bus without a socket, and the way to it.
async fn bus(heartbeat: Duration) -> (Server, mpsc::Sender<DuplexStream>) {
    let (pipes, waiting) = mpsc::channel(8);
    let store = Arc::new(MemoryStore::new(Timestamp::default));
    let config = Config { heartbeat, ..Config::new("") };
    (daybook_server::start_on(config, store, Pipes(waiting)).await.unwrap(), pipes)
}

#[tokio::test]
async fn a_connector_carries_the_frames() {
    let (_server, pipes) = bus(Duration::from_secs(10)).await;
    let client = Client::builder("http://somewhere:1")
        .connector(move |authority| {
            let pipes = pipes.clone();
            async move {
                assert_eq!(authority, "somewhere:1");
                let (ours, theirs) = duplex(1 << 16);
                pipes.send(theirs).await.unwrap();
                Ok(ours)
            }
        })
        .connect()
        .await
        .unwrap();
    let receipt = client.publish(vec![NewEvent::new("a", "T")]).await.unwrap();
    assert_eq!(receipt.position().0, 0);
}

/// A host that loses its power closes nothing. The client once waited for ever
/// on such a connection if it had nothing to send itself.
#[tokio::test]
async fn a_bus_that_vanished_without_a_word_is_left_and_found_again() {
    let (_server, pipes) = bus(Duration::from_millis(50)).await;
    let (freeze, frozen) = watch::channel(0_u32);
    let (connected, mut connections) = mpsc::unbounded_channel();
    let client = Client::builder("http://somewhere:1")
        .connector(move |_| {
            let (pipes, connected, mut frozen) = (pipes.clone(), connected.clone(), frozen.clone());
            async move {
                let (ours, mut near) = duplex(1 << 16);
                let (mut far, theirs) = duplex(1 << 16);
                pipes.send(theirs).await.unwrap();
                frozen.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = carry(&mut near, &mut far) => {}
                        // Nothing moves any more, and nothing is closed.
                        _ = frozen.changed() => std::future::pending().await,
                    }
                });
                connected.send(()).unwrap();
                Ok(ours)
            }
        })
        .connect()
        .await
        .unwrap();
    connections.recv().await.unwrap();
    freeze.send(1).unwrap();
    // The client says nothing: only the silence of the bus can tell it.
    connections.recv().await.unwrap();
    client.publish(vec![NewEvent::new("a", "T")]).await.unwrap();
}

async fn carry(near: &mut DuplexStream, far: &mut DuplexStream) -> std::io::Result<()> {
    let (mut there, mut back) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            n = near.read(&mut there) => match n? { 0 => return Ok(()), n => far.write_all(&there[..n]).await? },
            n = far.read(&mut back) => match n? { 0 => return Ok(()), n => near.write_all(&back[..n]).await? },
        }
    }
}
