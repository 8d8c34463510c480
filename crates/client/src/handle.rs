//! What a program holds.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use daybook_model::wire::{self, Count, Edge, Receipted, ServerMessage, Start, Welcome};
use daybook_model::{Event, Filter, NewEvent, Position};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::connection::{Command, Lost, Request, Session};
use crate::{
    Builder, Join, JoinError, Membership, PublishError, ReadError, SubscribeError, Subscription, membership,
    subscription,
};

/// Reads are safe to give up on.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// A connection to the bus. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    welcome: Arc<Welcome>,
    session: Session,
    publish_deadline: Duration,
}

/// What was stored, in the order of the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub events: Vec<Receipted>,
}

impl Receipt {
    /// Position of the batch's last event.
    pub fn position(&self) -> Position {
        self.events.last().map_or(Position::ZERO, |event| event.position)
    }

    /// Whether the batch was stored before.
    pub fn is_duplicate(&self) -> bool {
        self.events.iter().any(|event| event.duplicate)
    }
}

/// Which events to read: [`from`, `until`).
#[derive(Clone, Debug, Default)]
pub struct ReadQuery {
    pub from: Option<Edge>,
    pub until: Option<Edge>,
    pub filter: Filter,
    /// Of one page; the server's default is 1,000.
    pub limit: Option<u64>,
    pub reverse: bool,
}

#[derive(Clone, Debug)]
pub struct Page {
    pub events: Vec<Arc<Event>>,
    /// Where to go on; `None` at the end.
    pub next: Option<Position>,
}

impl Client {
    /// `url` is the bus, like `http://127.0.0.1:7400`.
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        welcome: Welcome,
        session: Session,
        publish_deadline: Duration,
    ) -> Self {
        Self { commands, welcome: Arc::new(welcome), session, publish_deadline }
    }

    /// The `sessionid` that the server gives to what is published now; another
    /// one after a reconnect.
    pub fn session(&self) -> Arc<str> {
        self.session.get()
    }

    /// What the server said when the connection was first made.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Stores one batch, all or nothing.
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<Receipt, PublishError> {
        self.publish_with(events, None).await
    }

    /// The same under the token of the event being handled.
    pub async fn publish_with(
        &self,
        events: Vec<NewEvent>,
        delivery: Option<&str>,
    ) -> Result<Receipt, PublishError> {
        let (request, answer) = publish_request(events, delivery);
        self.commands.send(Command::Request(request)).await.map_err(|_| PublishError::Closed)?;
        publish_answer(answer, self.publish_deadline).await
    }

    /// Takes its place in the order of publishes before it returns; the
    /// future tells the outcome. Fails at once when too much is waiting.
    ///
    /// The deadline counts from when the future is polled first, not from here: of
    /// many that are awaited in order each gets it whole, so that a slow line does
    /// not end those at the back while the bus answers those at the front.
    pub fn start_publish(
        &self,
        events: Vec<NewEvent>,
        delivery: Option<&str>,
    ) -> Result<impl Future<Output = Result<Receipt, PublishError>> + Send + 'static, PublishError> {
        let (request, answer) = publish_request(events, delivery);
        self.commands.try_send(Command::Request(request)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let detail = "too many publishes wait in this client";
                PublishError::Refused(Box::new(daybook_model::Problem::new(
                    daybook_model::Code::Overloaded,
                    detail,
                )))
            }
            mpsc::error::TrySendError::Closed(_) => PublishError::Closed,
        })?;
        Ok(publish_answer(answer, self.publish_deadline))
    }

    /// One page.
    pub async fn read(&self, query: ReadQuery) -> Result<Page, ReadError> {
        let read = wire::Read {
            id: 0,
            from: query.from,
            until: query.until,
            filter: Some(query.filter),
            limit: query.limit.map(Count),
            reverse: query.reverse,
        };
        let (reply, answer) = oneshot::channel();
        let request = Request { message: read.into(), reply };
        self.commands.send(Command::Request(request)).await.map_err(|_| ReadError::Closed)?;
        match timeout(READ_DEADLINE, answer).await {
            Err(_) => Err(ReadError::TimedOut),
            Ok(Ok(Ok(ServerMessage::Page(page)))) => {
                Ok(Page { events: page.events.into_iter().map(|event| event.0).collect(), next: page.next })
            }
            Ok(Ok(Ok(ServerMessage::Error(error)))) => Err(ReadError::Refused(Box::new(error.problem))),
            Ok(_) => Err(ReadError::Closed),
        }
    }

    /// All pages, one after the other; stops at the first `Err` of `each`.
    pub async fn read_all<E: From<ReadError>>(
        &self,
        mut query: ReadQuery,
        mut each: impl FnMut(Arc<Event>) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let page = self.read(query.clone()).await?;
            for event in page.events {
                each(event)?;
            }
            match page.next {
                Some(next) if query.reverse => query.until = Some(Edge::Position(next)),
                Some(next) => query.from = Some(Edge::Position(next)),
                None => return Ok(()),
            }
        }
    }

    /// Follows the log. Credit is topped up as events are taken.
    pub async fn subscribe(&self, from: Start, filter: Filter) -> Result<Subscription, SubscribeError> {
        subscription::open(&self.commands, from, filter).await
    }

    /// Takes part in a group.
    pub async fn join(&self, join: Join) -> Result<Membership, JoinError> {
        membership::open(&self.commands, join).await
    }

    /// Ends the connection in good order: memberships leave, the socket closes.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { done }).await.is_ok() {
            let _ = timeout(Duration::from_secs(5), closed).await;
        }
    }
}

type Answer = oneshot::Receiver<Result<ServerMessage, Lost>>;

fn publish_request(events: Vec<NewEvent>, delivery: Option<&str>) -> (Request, Answer) {
    let (reply, answer) = oneshot::channel();
    let message = wire::Publish { id: 0, events: events.into(), delivery: delivery.map(str::to_owned) };
    (Request { message: message.into(), reply }, answer)
}

async fn publish_answer(answer: Answer, deadline: Duration) -> Result<Receipt, PublishError> {
    match timeout(deadline, answer).await {
        Err(_) => Err(PublishError::UnknownOutcome),
        Ok(Ok(Ok(ServerMessage::Receipt(receipt)))) => Ok(Receipt { events: receipt.events }),
        Ok(Ok(Ok(ServerMessage::Error(error)))) => Err(PublishError::Refused(Box::new(error.problem))),
        Ok(_) => Err(PublishError::Closed),
    }
}
