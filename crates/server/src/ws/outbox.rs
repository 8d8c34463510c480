//! Everything that goes to one client: answers as they come, pushes as the
//! client takes them, gathered into as few frames as possible.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use daybook_model::wire::write_frame;
use futures_util::StreamExt;
use futures_util::stream::{FuturesUnordered, SelectAll};
use tokio::io::AsyncWriteExt;

use super::frame::{self, Opcode};
use super::jobs::{Answer, Job, Jobs, Pushes};
use super::outgoing::Outgoing;
use super::receipts::Receipts;
use super::socket::Writer;

/// Messages of one frame, so that one huge frame does not delay the next answer.
const FRAME_MESSAGES: usize = 256;
/// A frame is sent when it has grown to this, in bytes. Less than a page of a
/// log that is followed from far behind: that goes alone, and an array of two
/// would cost whoever reads it one look at every byte more.
const FRAME_BYTES: usize = 64 << 10;
/// A buffer that was larger is given back when it is sent.
const KEPT_BYTES: usize = 16 << 10;

pub(super) struct Outbox {
    half: Writer,
    jobs: Jobs,
    receipts: Receipts,
    answers: FuturesUnordered<Answer>,
    streams: SelectAll<Pushes>,
    closing: Option<(u16, String)>,
    /// Messages of the next frame.
    batch: Vec<Outgoing>,
    /// Frames to be sent, and how far they are.
    out: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub fn new(half: Writer, jobs: Jobs, receipts: Receipts) -> Self {
        let (answers, streams) = (FuturesUnordered::new(), SelectAll::new());
        let (batch, out) = Default::default();
        Self { half, jobs, receipts, answers, streams, closing: None, batch, out, sent: 0 }
    }

    /// Runs until the client is gone or the goodbye is said.
    pub async fn run(&mut self) {
        loop {
            if self.answers.is_empty()
                && self.receipts.is_settled()
                && let Some((code, reason)) = self.closing.take()
            {
                return self.cut(code, &reason).await;
            }
            poll_fn(|context| self.gather(context)).await;
            if self.send().await.is_err() {
                return;
            }
        }
    }

    /// Says goodbye without the answers that wait; also after [`Self::run`] was dropped.
    /// What it had begun to send is sent: half a frame and then another would be noise.
    pub async fn cut(&mut self, code: u16, reason: &str) {
        frame::write_close(&mut self.out, code, reason);
        let _ = self.send().await;
    }

    /// Waits for something to send, and adds what else is ready. An event larger
    /// than a frame should be goes alone.
    fn gather(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let (mut next, mut weight) = (Poll::Ready(ready!(self.poll_next(context))), 0);
        while let Poll::Ready(out) = next {
            match out {
                Out::Message(message) => {
                    weight += message.weight();
                    self.batch.push(message);
                }
                Out::Control(opcode, body) => {
                    frame::write(&mut self.out, opcode, |out| out.extend_from_slice(&body));
                }
                Out::Nothing => {}
            }
            let has_room = self.batch.len() < FRAME_MESSAGES && weight < FRAME_BYTES;
            next = if has_room { self.poll_next(context) } else { Poll::Pending };
        }
        if !self.batch.is_empty() {
            self.out.reserve(weight + weight / 4);
            frame::write(&mut self.out, Opcode::Text, |out| write_frame(&self.batch, out));
            self.batch.clear();
        }
        Poll::Ready(())
    }

    /// Dropped halfway, it knows how far it came.
    async fn send(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            let sent = self.half.write(&self.out[self.sent..]).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.sent += sent;
        }
        self.out.clear();
        self.out.shrink_to(KEPT_BYTES);
        self.sent = 0;
        Ok(())
    }

    /// Pending for ever if there is nothing to wait for: a new job is seen when
    /// this is polled again.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Out> {
        while let Some(job) = self.jobs.pop() {
            match job {
                Job::Now(message) => return Poll::Ready(Out::Message(message.into())),
                Job::Later(answer) => self.answers.push(answer),
                Job::Stream(stream) => self.streams.push(stream),
                Job::Ping => return Poll::Ready(Out::Control(Opcode::Ping, Vec::new())),
                Job::Pong(body) => return Poll::Ready(Out::Control(Opcode::Pong, body)),
                Job::Close { code, reason } => {
                    self.closing = Some((code, reason));
                    return Poll::Ready(Out::Nothing);
                }
            }
        }
        // Answers before pushes: a flood of events must not delay a receipt.
        if let Poll::Ready(receipt) = self.receipts.poll_next(context) {
            return Poll::Ready(Out::Message(receipt.into()));
        }
        if !self.answers.is_empty()
            && let Poll::Ready(Some(answer)) = self.answers.poll_next_unpin(context)
        {
            return Poll::Ready(answer.map_or(Out::Nothing, |message| Out::Message(message.into())));
        }
        if self.closing.is_none()
            && !self.streams.is_empty()
            && let Poll::Ready(Some(message)) = self.streams.poll_next_unpin(context)
        {
            return Poll::Ready(Out::Message(message));
        }
        Poll::Pending
    }
}

enum Out {
    Message(Outgoing),
    Control(Opcode, Vec<u8>),
    Nothing,
}
