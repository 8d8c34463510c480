//! Daybook itself: the release binary over WebSocket, messages written and read
//! with the product's own types.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use daybook_model::wire::{self, ClientMessage, Count, Credit, ServerMessage, Start, Subscribe};
use daybook_model::{Code, Data, Filter, NewEvent, Position, Sequence};
use serde_json::value::RawValue;

use super::websocket::WebSocket;
use super::{Connection, Durability, From, Outcome, Peer, Tip, Tools};
use crate::Result;
use crate::payload::{Fresh, KIND};
use crate::process::{Process, free_port};

pub struct Daybook {
    processes: Vec<Process>,
    address: String,
}

impl Peer for Daybook {
    type Connection = Session;

    async fn start(tools: &Tools, dir: &Path, _: Durability) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(&tools.daybook);
        command.arg("serve").arg("--data").arg(dir.join("data")).args(["--listen", &address]);
        let process = Process::spawn("daybook", &mut command, &dir.join("log"))?;
        let ready = format!("listening on http://{address}");
        process.until(async |said| said.contains(&ready).then_some(())).await?;
        Ok(Self { processes: vec![process], address })
    }

    async fn connect(&self) -> Result<Session> {
        let mut socket = WebSocket::connect(&self.address, "/v1/ws", wire::SUBPROTOCOL).await?;
        socket.queue(|out| out.extend_from_slice(br#"{"op":"hello","id":1,"service":"bench"}"#));
        let mut session = Session { socket, requests: 1, seen: None };
        match session.answer().await? {
            ServerMessage::Welcome(_) => Ok(session),
            other => Err(format!("the bus answered `hello` with {other:?}").into()),
        }
    }

    async fn stream(
        &self,
        from: From,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let mut session = self.connect().await?;
        let start = match from {
            From::Start => Start::START,
            From::End => Start::END,
        };
        let subscription = session.subscribe(start, Filter::default()).await?;
        let mut taken = 0;
        loop {
            let mut over = false;
            session
                .messages(|message| {
                    let ServerMessage::Events(events) = message else { return Ok(()) };
                    taken += events.events.len() as u64;
                    for event in &events.events {
                        let Some(Data::Json(data)) = &event.data else {
                            return Err("an event without data".into());
                        };
                        over = over || each(data.get().as_bytes())?.is_break();
                    }
                    Ok(())
                })
                .await?;
            if over {
                return Ok(());
            }
            if taken >= WINDOW / 2 {
                session.queue(Credit { subscription, events: Count(taken) });
                session.socket.flush().await?;
                taken = 0;
            }
        }
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }
}

/// Events that a subscription may have under way.
const WINDOW: u64 = 8_192;

pub struct Session {
    socket: WebSocket,
    requests: u64,
    /// The next place of the key that is watched.
    seen: Option<u64>,
}

impl Session {
    fn queue(&mut self, message: impl Into<ClientMessage>) {
        let message = message.into();
        self.socket.queue(|out| wire::write_frame(&[message], out));
    }

    /// The messages of the next frame.
    async fn messages(&mut self, mut each: impl FnMut(ServerMessage) -> Result<()>) -> Result<()> {
        self.socket.next(|text| every(text, &mut each)).await
    }

    /// The next message that is an answer to a request.
    async fn answer(&mut self) -> Result<ServerMessage> {
        loop {
            let (mut answer, seen) = (None, &mut self.seen);
            self.socket
                .next(|text| {
                    every(text, |message| {
                        answer = note(seen, message).or(answer.take());
                        Ok(())
                    })
                })
                .await?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
    }

    async fn subscribe(&mut self, from: Start, filter: Filter) -> Result<u64> {
        self.requests += 1;
        let credit = Count(WINDOW);
        self.queue(Subscribe { id: self.requests, from, filter: Some(filter), credit });
        match self.answer().await? {
            ServerMessage::Subscribed(subscribed) => Ok(subscribed.subscription),
            other => Err(format!("the bus answered `subscribe` with {other:?}").into()),
        }
    }
}

fn every(text: &str, mut each: impl FnMut(ServerMessage) -> Result<()>) -> Result<()> {
    let mut result = Ok(());
    wire::messages(text, |message| {
        if result.is_ok() {
            result = match message {
                Ok(message) => each(message),
                Err(malformed) => Err(malformed.invalid.to_string().into()),
            };
        }
    });
    result
}

/// Remembers the newest event of the watched key; what is an answer comes back.
fn note(seen: &mut Option<u64>, message: ServerMessage) -> Option<ServerMessage> {
    match message {
        ServerMessage::Events(events) => {
            if let Some(Sequence(last)) = events.events.last().and_then(|event| event.sequence) {
                *seen = Some(last + 1);
            }
            None
        }
        ServerMessage::CaughtUp(_) => None,
        answer => Some(answer),
    }
}

impl Connection for Session {
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()> {
        self.requests += 1;
        let event = |(i, fresh): (usize, &Fresh)| -> Result<NewEvent> {
            Ok(NewEvent::new(fresh.id.to_string(), KIND)
                .subject(tip.key.as_str())
                .sequence(Sequence(tip.next + i as u64))
                .data(Data::Json(RawValue::from_string(fresh.data.clone())?)))
        };
        let events = events.iter().enumerate().map(event).collect::<Result<Vec<_>>>()?;
        self.queue(wire::Publish { id: self.requests, events, delivery: None });
        Ok(())
    }

    async fn receive(&mut self) -> Result<Outcome> {
        match self.answer().await? {
            ServerMessage::Receipt(receipt) => {
                let Position(at) = receipt.events.last().ok_or("an empty receipt")?.position;
                Ok(Outcome::Stored { at })
            }
            ServerMessage::Error(error) if error.problem.code == Code::Conflict => Ok(Outcome::Conflict),
            other => Err(format!("the bus answered `publish` with {other:?}").into()),
        }
    }

    async fn watch(&mut self, tip: &Tip) -> Result<()> {
        self.subscribe(Start::START, Filter::subject(&tip.key)).await.map(drop)
    }

    /// The event that was first is on its way: a conflict is told after it is
    /// durable, and then it is visible to those who follow the key.
    async fn refresh(&mut self, tip: &mut Tip) -> Result<()> {
        let seen = &mut self.seen;
        let mut look = |text: &str| {
            every(text, |message| {
                note(seen, message);
                Ok(())
            })
        };
        while self.socket.next_now(&mut look)?.is_some() {}
        while self.seen.is_none_or(|seen| seen <= tip.next) {
            let seen = &mut self.seen;
            let look = |message| {
                note(seen, message);
                Ok(())
            };
            self.socket.next(|text| every(text, look)).await?;
        }
        tip.next = self.seen.unwrap_or_default();
        Ok(())
    }
}
