//! A bus that comes back and is not ready for everything yet.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use daybook_client::model::wire::{self, ClientMessage, ServerMessage};
use daybook_client::model::{Code, NewEvent, Position, Problem};
use daybook_client::{Client, Join};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// The bus's side of one connection, as a test scripts it.
struct Scripted(WebSocketStream<TcpStream>);

impl Scripted {
    #[allow(clippy::result_large_err)]
    async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let protocol = |_: &Request, mut response: Response| {
            response.headers_mut().insert("sec-websocket-protocol", wire::SUBPROTOCOL.parse().unwrap());
            Ok(response)
        };
        let mut bus = Self(accept_hdr_async(stream, protocol).await.unwrap());
        let ClientMessage::Hello(hello) = bus.next().await else { panic!("no hello") };
        let welcome = wire::Welcome {
            id: hello.id,
            session: "s/i/1".into(),
            node: "n".into(),
            head: Position(0),
            limits: Default::default(),
            heartbeat_ms: 10_000,
        };
        bus.say(ServerMessage::Welcome(Box::new(welcome))).await;
        bus
    }

    /// The connection after one that broke with a publish under way.
    async fn accept_after_a_lost_publish(listener: &TcpListener) -> Self {
        let mut first = Self::accept(listener).await;
        first.publish().await;
        drop(first);
        Self::accept(listener).await
    }

    async fn next(&mut self) -> ClientMessage {
        loop {
            if let Message::Text(text) = self.0.next().await.unwrap().unwrap() {
                let mut first = None;
                wire::messages(&text, |message| first = first.take().or(Some(message)));
                return first.unwrap().unwrap();
            }
        }
    }

    async fn join(&mut self) -> u64 {
        match self.next().await {
            ClientMessage::Join(join) => join.id,
            other => panic!("{other:?} instead of a join"),
        }
    }

    async fn publish(&mut self) -> u64 {
        match self.next().await {
            ClientMessage::Publish(publish) => publish.id,
            other => panic!("{other:?} instead of a publish"),
        }
    }

    async fn refuse(&mut self, id: u64, code: Code) {
        let problem = Problem::new(code, "not now");
        self.say(ServerMessage::Error(Box::new(wire::Error { id: Some(id), problem }))).await;
    }

    async fn say(&mut self, message: ServerMessage) {
        let mut frame = Vec::new();
        wire::write_frame(&[message], &mut frame);
        self.0.send(Message::Text(String::from_utf8(frame).unwrap().into())).await.unwrap();
    }

    async fn joined(&mut self, id: u64) {
        self.say(wire::Joined { id, subscription: 1, position: Position(0) }.into()).await;
    }
}

/// A client that reached the old server while it went down, or the new one before it
/// was ready, lost its membership for good and its handlers were told that all was over.
#[tokio::test]
async fn a_membership_outlives_a_bus_that_would_not_take_it_back_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bus = tokio::spawn(async move {
        let mut first = Scripted::accept(&listener).await;
        let id = first.join().await;
        first.joined(id).await;
        drop(first);
        let mut second = Scripted::accept(&listener).await;
        for _ in 0..2 {
            let id = second.join().await;
            let problem = Problem::new(Code::Unavailable, "the server is going down");
            second.say(ServerMessage::Error(Box::new(wire::Error { id: Some(id), problem }))).await;
        }
        let id = second.join().await;
        second.joined(id).await;
        second
    });
    let client = Client::builder(&url).service("worker").connect().await.unwrap();
    let mut member = client.join(Join::new("g", 1)).await.unwrap();
    let joined_again = async {
        tokio::select! {
            delivery = member.next() => panic!("the handlers were told {delivery:?}"),
            second = bus => second.unwrap(),
        }
    };
    tokio::time::timeout(Duration::from_secs(20), joined_again).await.unwrap();
}

/// `unavailable` means that nothing was stored. Of a publish that an earlier
/// connection may have stored only another try, or the deadline, tells the outcome.
#[tokio::test]
async fn a_publish_sent_again_is_not_over_because_the_bus_takes_nothing_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bus = tokio::spawn(async move {
        let mut second = Scripted::accept_after_a_lost_publish(&listener).await;
        for code in [Code::Unavailable, Code::Overloaded] {
            let id = second.publish().await;
            second.refuse(id, code).await;
        }
        let id = second.publish().await;
        second.say(wire::Receipt { id, events: Vec::new() }.into()).await;
        // One that was never sent before was not stored: its caller is told.
        let id = second.publish().await;
        second.refuse(id, Code::Unavailable).await;
        second
    });
    let client = Client::builder(&url).connect().await.unwrap();
    client.publish(vec![NewEvent::new("1", "T")]).await.unwrap();
    let refused = client.publish(vec![NewEvent::new("2", "T")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    bus.await.unwrap();
}

#[tokio::test]
async fn a_publish_sent_again_to_a_bus_that_takes_nothing_ends_with_an_unknown_outcome() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bus = tokio::spawn(async move {
        let mut second = Scripted::accept_after_a_lost_publish(&listener).await;
        loop {
            let id = second.publish().await;
            second.refuse(id, Code::Unavailable).await;
        }
    });
    let deadline = Duration::from_secs(1);
    let client = Client::builder(&url).publish_deadline(deadline).connect().await.unwrap();
    let unknown = client.publish(vec![NewEvent::new("1", "T")]).await.unwrap_err();
    assert_eq!(unknown.code(), Code::UnknownOutcome);
    bus.abort();
}
