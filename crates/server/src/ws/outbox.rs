//! Everything that goes to one client: answers as they come, pushes as the
//! client takes them, gathered into as few frames as possible.

use std::future::Future;
use std::pin::Pin;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use daybook_model::wire::{ServerMessage, write_frame};
use futures_util::stream::{FuturesUnordered, SelectAll, SplitSink};
use futures_util::{FutureExt, SinkExt, Stream, StreamExt};
use tokio::sync::mpsc;

pub(super) type Answer = Pin<Box<dyn Future<Output = Option<ServerMessage>> + Send>>;
pub(super) type Pushes = Pin<Box<dyn Stream<Item = ServerMessage> + Send>>;

/// What the reader hands over.
pub(super) enum Job {
    Now(ServerMessage),
    /// Answered when the future is done; `None` for one-way messages.
    Later(Answer),
    Stream(Pushes),
    Ping,
    /// Finish the answers, then say goodbye.
    Close {
        code: u16,
        reason: String,
    },
}

/// Messages of one frame, so that one huge frame does not delay the next answer.
const FRAME_MESSAGES: usize = 256;
/// A frame is sent when it has grown to this, in bytes.
const FRAME_BYTES: usize = 256 << 10;

pub(super) struct Outbox {
    sink: SplitSink<WebSocket, Message>,
    jobs: mpsc::Receiver<Job>,
    answers: FuturesUnordered<Answer>,
    streams: SelectAll<Pushes>,
    closing: Option<(u16, String)>,
}

impl Outbox {
    pub fn new(sink: SplitSink<WebSocket, Message>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { sink, jobs, answers: FuturesUnordered::new(), streams: SelectAll::new(), closing: None }
    }

    /// Runs until the client is gone or the goodbye is said.
    pub async fn run(&mut self) {
        let mut batch: Vec<ServerMessage> = Vec::new();
        loop {
            if let Some((code, reason)) = &self.closing
                && self.answers.is_empty()
            {
                let frame = CloseFrame { code: *code, reason: reason.as_str().into() };
                let _ = self.sink.send(Message::Close(Some(frame))).await;
                return;
            }
            match self.next().await {
                Some(Out::Message(message)) => batch.push(message),
                Some(Out::Ping) => {
                    if self.sink.send(Message::Ping(Default::default())).await.is_err() {
                        return;
                    }
                }
                Some(Out::Nothing) => continue,
                None => return,
            }
            if self.flush(&mut batch).await.is_err() {
                return;
            }
        }
    }

    /// Says goodbye without the answers that wait; after [`Self::run`] was dropped.
    /// What it had begun to send is sent: half a frame and then another would be noise.
    pub async fn cut(&mut self, code: u16, reason: String) {
        let frame = CloseFrame { code, reason: reason.into() };
        let _ = self.sink.send(Message::Close(Some(frame))).await;
    }

    /// Adds what else is ready and sends it. An event larger than a frame should be goes alone.
    async fn flush(&mut self, batch: &mut Vec<ServerMessage>) -> Result<(), axum::Error> {
        let mut weight: usize = batch.iter().map(weight).sum();
        let mut ping = false;
        while batch.len() < FRAME_MESSAGES && weight < FRAME_BYTES {
            match self.next().now_or_never() {
                Some(Some(Out::Message(message))) => {
                    weight += self::weight(&message);
                    batch.push(message);
                }
                Some(Some(Out::Ping)) => ping = true,
                Some(Some(Out::Nothing)) => {}
                Some(None) | None => break,
            }
        }
        if !batch.is_empty() {
            let mut frame = Vec::with_capacity(weight + weight / 4);
            write_frame(batch, &mut frame);
            batch.clear();
            let text = String::from_utf8(frame).expect("JSON is UTF-8");
            self.sink.send(Message::Text(text.into())).await?;
        }
        if ping {
            self.sink.send(Message::Ping(Default::default())).await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<Out> {
        tokio::select! {
            // Answers before pushes: a flood of events must not delay a receipt.
            biased;
            job = self.jobs.recv() => match job? {
                Job::Now(message) => Some(Out::Message(message)),
                Job::Later(answer) => { self.answers.push(answer); Some(Out::Nothing) }
                Job::Stream(stream) => { self.streams.push(stream); Some(Out::Nothing) }
                Job::Ping => Some(Out::Ping),
                Job::Close { code, reason } => { self.closing = Some((code, reason)); Some(Out::Nothing) }
            },
            Some(answer) = self.answers.next(), if !self.answers.is_empty() => {
                Some(answer.map_or(Out::Nothing, Out::Message))
            }
            Some(message) = self.streams.next(), if self.closing.is_none() && !self.streams.is_empty() => {
                Some(Out::Message(message))
            }
        }
    }
}

enum Out {
    Message(ServerMessage),
    Ping,
    Nothing,
}

/// Bytes a message will take, roughly.
fn weight(message: &ServerMessage) -> usize {
    match message {
        ServerMessage::Receipt(m) => 64 + m.events.len() * 160,
        ServerMessage::Page(m) => 64 + m.events.iter().map(|e| e.weight()).sum::<usize>(),
        ServerMessage::Events(m) => 64 + m.events.iter().map(|e| e.weight()).sum::<usize>(),
        ServerMessage::Deliver(m) => 64 + m.deliveries.iter().map(|d| 96 + d.event.weight()).sum::<usize>(),
        _ => 256,
    }
}
