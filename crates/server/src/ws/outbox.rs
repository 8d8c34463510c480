//! Everything that goes to one client: answers as they come, pushes as the
//! client takes them, gathered into as few frames as possible.

use std::future::poll_fn;
use std::task::{Context, Poll};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use daybook_model::wire::{ServerMessage, write_frame};
use futures_util::stream::{FuturesUnordered, SelectAll, SplitSink};
use futures_util::{FutureExt, SinkExt, StreamExt};

use super::jobs::{Answer, Job, Jobs, Pushes};

/// Messages of one frame, so that one huge frame does not delay the next answer.
const FRAME_MESSAGES: usize = 256;
/// A frame is sent when it has grown to this, in bytes.
const FRAME_BYTES: usize = 256 << 10;

pub(super) struct Outbox {
    sink: SplitSink<WebSocket, Message>,
    jobs: Jobs,
    answers: FuturesUnordered<Answer>,
    streams: SelectAll<Pushes>,
    closing: Option<(u16, String)>,
}

impl Outbox {
    pub fn new(sink: SplitSink<WebSocket, Message>, jobs: Jobs) -> Self {
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
            match poll_fn(|context| self.poll_next(context)).await {
                Out::Message(message) => batch.push(message),
                Out::Ping => {
                    if self.sink.send(Message::Ping(Default::default())).await.is_err() {
                        return;
                    }
                }
                Out::Nothing => continue,
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
            match poll_fn(|context| self.poll_next(context)).now_or_never() {
                Some(Out::Message(message)) => {
                    weight += self::weight(&message);
                    batch.push(message);
                }
                Some(Out::Ping) => ping = true,
                Some(Out::Nothing) => {}
                None => break,
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

    /// Pending for ever if there is nothing to wait for: a new job is seen when
    /// this is polled again.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Out> {
        while let Some(job) = self.jobs.pop() {
            match job {
                Job::Now(message) => return Poll::Ready(Out::Message(message)),
                Job::Later(answer) => self.answers.push(answer),
                Job::Stream(stream) => self.streams.push(stream),
                Job::Ping => return Poll::Ready(Out::Ping),
                Job::Close { code, reason } => {
                    self.closing = Some((code, reason));
                    return Poll::Ready(Out::Nothing);
                }
            }
        }
        // Answers before pushes: a flood of events must not delay a receipt.
        if let Poll::Ready(Some(answer)) = self.answers.poll_next_unpin(context) {
            return Poll::Ready(answer.map_or(Out::Nothing, Out::Message));
        }
        if self.closing.is_none()
            && let Poll::Ready(Some(message)) = self.streams.poll_next_unpin(context)
        {
            return Poll::Ready(Out::Message(message));
        }
        Poll::Pending
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
