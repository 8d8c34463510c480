//! Daybook itself: the release binary over WebSocket, messages written and read
//! with the product's own types. Events are written into their frame and read in
//! it, as the rows of the other peers are in theirs.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use daybook_model::wire::{
    self, ClientMessage, Count, Credit, PublishOut, Pushed, ServerMessage, Start, Subscribe,
};
use daybook_model::{Code, DataRef, Filter, NewEventRef, Position, Sequence};
use uuid::Uuid;

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
        let mut session = Session { socket, requests: 1, answers: VecDeque::new(), seen: None };
        match session.answer().await? {
            Answer::Other(ServerMessage::Welcome(_)) => Ok(session),
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
        // Events may come in the same frame as the word that they are about to.
        session.queue(Subscribe { id: 2, from: start, filter: None, credit: Count(WINDOW) });
        let (mut subscription, mut taken, mut over) = (0, 0, false);
        while !over {
            let take = |message: Pushed<'_>| -> Result<()> {
                match message {
                    Pushed::Events(events) => {
                        taken += events.events.len() as u64;
                        for event in &events.events {
                            let data = event.data.ok_or("an event without data")?;
                            over = over || each(data.get().as_bytes())?.is_break();
                        }
                        Ok(())
                    }
                    Pushed::Other(ServerMessage::Subscribed(subscribed)) => {
                        subscription = subscribed.subscription;
                        Ok(())
                    }
                    Pushed::Other(ServerMessage::CaughtUp(_)) => Ok(()),
                    other => Err(format!("the bus told a subscriber {other:?}").into()),
                }
            };
            session.socket.next(|text| every(text, take)).await?;
            if taken >= WINDOW / 2 {
                session.queue(Credit { subscription, events: Count(taken) });
                session.socket.flush().await?;
                taken = 0;
            }
        }
        Ok(())
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }
}

/// Events that a subscription may have under way.
const WINDOW: u64 = 8_192;
/// More events than one key gets within a contest.
const CONTEST: u64 = 1_000_000;

pub struct Session {
    socket: WebSocket,
    requests: u64,
    /// What came in one frame with the answer before.
    answers: VecDeque<Answer>,
    /// The next place of the key that is watched.
    seen: Option<u64>,
}

/// What became of a request.
#[derive(Debug)]
enum Answer {
    Stored { at: u64 },
    Other(ServerMessage),
}

impl Session {
    fn queue(&mut self, message: impl Into<ClientMessage>) {
        let message = message.into();
        self.socket.queue(|out| wire::write_frame(&[message], out));
    }

    /// The next message that is an answer to a request; a frame may hold several.
    async fn answer(&mut self) -> Result<Answer> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            let (seen, answers) = (&mut self.seen, &mut self.answers);
            self.socket.next(|text| every(text, |message| note(seen, answers, message))).await?;
        }
    }
}

/// All messages of a frame.
fn every<'a, M: wire::Message<'a>>(text: &'a str, mut each: impl FnMut(M) -> Result<()>) -> Result<()> {
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

/// Remembers the newest event of the watched key, and what is an answer.
fn note(seen: &mut Option<u64>, answers: &mut VecDeque<Answer>, message: Pushed<'_>) -> Result<()> {
    match message {
        Pushed::Events(events) => {
            if let Some(Sequence(last)) = events.events.last().and_then(|event| event.sequence) {
                *seen = Some(last + 1);
            }
        }
        Pushed::Receipt(receipt) => {
            let Position(at) = receipt.events.last().ok_or("an empty receipt")?.position;
            answers.push_back(Answer::Stored { at });
        }
        Pushed::Other(ServerMessage::CaughtUp(_)) => {}
        Pushed::Other(answer) => answers.push_back(Answer::Other(answer)),
    }
    Ok(())
}

impl Connection for Session {
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()> {
        self.requests += 1;
        let id = self.requests;
        self.socket.queue(|out| {
            PublishOut::write(out, id, |publish| {
                for (i, fresh) in events.iter().enumerate() {
                    let mut id = Uuid::encode_buffer();
                    publish.event(&NewEventRef {
                        id: fresh.id.hyphenated().encode_lower(&mut id),
                        kind: KIND,
                        subject: Some(&tip.key),
                        sequence: Some(Sequence(tip.next + i as u64)),
                        data: Some(DataRef::Json(&fresh.data)),
                        ..NewEventRef::default()
                    });
                }
            })
        });
        Ok(())
    }

    async fn receive(&mut self) -> Result<Outcome> {
        match self.answer().await? {
            Answer::Stored { at } => Ok(Outcome::Stored { at }),
            Answer::Other(ServerMessage::Error(error)) if error.problem.code == Code::Conflict => {
                Ok(Outcome::Conflict)
            }
            other => Err(format!("the bus answered `publish` with {other:?}").into()),
        }
    }

    async fn watch(&mut self, tip: &Tip) -> Result<()> {
        self.requests += 1;
        let filter = Some(Filter::subject(&tip.key));
        self.queue(Subscribe { id: self.requests, from: Start::START, filter, credit: Count(CONTEST) });
        match self.answer().await? {
            Answer::Other(ServerMessage::Subscribed(_)) => Ok(()),
            other => Err(format!("the bus answered `subscribe` with {other:?}").into()),
        }
    }

    fn glance(&mut self, tip: &mut Tip) -> Result<()> {
        let (seen, answers) = (&mut self.seen, &mut self.answers);
        let mut look = |text: &str| every(text, |message| note(seen, answers, message));
        while self.socket.next_now(&mut look)?.is_some() {}
        tip.next = tip.next.max(self.seen.unwrap_or_default());
        Ok(())
    }

    /// The event that was first is on its way: a conflict is told after it is
    /// durable, and then it is visible to those who follow the key.
    async fn refresh(&mut self, tip: &mut Tip) -> Result<()> {
        while self.seen.is_none_or(|seen| seen <= tip.next) {
            let (seen, answers) = (&mut self.seen, &mut self.answers);
            self.socket.next(|text| every(text, |message| note(seen, answers, message))).await?;
        }
        self.glance(tip)
    }
}
