//! A bus that comes back and is not ready for everything yet.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use daybook_client::model::wire::{self, ClientMessage, ServerMessage};
use daybook_client::model::{Code, Position, Problem};
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
