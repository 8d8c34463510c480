//! UmaDB: the released server and its own client. The sequence check is a
//! condition: no event of the key's tag after the newest one the writer knows.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt};
use tokio::net::TcpStream;
use umadb_client::AsyncUmaDbClient;
use umadb_dcb::{
    DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem, DcbSequencedEvent,
};

use super::{Connection, Durability, From, Outcome, Peer, Tip, Tools};
use crate::Result;
use crate::payload::{Fresh, KIND};
use crate::process::{Process, free_port};

pub struct UmaDb {
    processes: Vec<Process>,
    url: String,
}

impl Peer for UmaDb {
    type Connection = Session;

    async fn start(tools: &Tools, dir: &Path, _: Durability) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let data = dir.join("data");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(&tools.umadb);
        command.args(["--listen", &address, "--db-path"]).arg(data.join("uma.db"));
        let process = Process::spawn("umadb", &mut command, &dir.join("log"))?;
        process.until(async |_| TcpStream::connect(&address).await.ok()).await?;
        Ok(Self { processes: vec![process], url: format!("http://{address}") })
    }

    async fn connect(&self) -> Result<Session> {
        let client = AsyncUmaDbClient::connect(self.url.clone(), None, None, None).await?;
        Ok(Session { client: Arc::new(client), waiting: FuturesOrdered::new() })
    }

    async fn stream(
        &self,
        from: From,
        mut each: impl FnMut(&[u8]) -> Result<ControlFlow<()>> + Send,
    ) -> Result<()> {
        let client = AsyncUmaDbClient::connect(self.url.clone(), None, Some(1_000), None).await?;
        let after = match from {
            From::Start => None,
            From::End => client.head().await?,
        };
        let mut subscription = client.subscribe(None, after).await?;
        loop {
            let batch: Vec<DcbSequencedEvent> = subscription.next_batch().await?;
            for event in batch {
                if each(&event.event.data)?.is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn processes(&self) -> &[Process] {
        &self.processes
    }
}

pub struct Session {
    client: Arc<AsyncUmaDbClient>,
    waiting: FuturesOrdered<BoxFuture<'static, Result<Outcome>>>,
}

fn of_key(key: &str) -> DcbQuery {
    DcbQuery { items: vec![DcbQueryItem { types: Vec::new(), tags: vec![key.to_owned()] }] }
}

impl Connection for Session {
    fn send(&mut self, tip: &Tip, events: &[Fresh]) -> Result<()> {
        let event = |fresh: &Fresh| DcbEvent {
            event_type: KIND.to_owned(),
            tags: vec![tip.key.clone()],
            data: fresh.data.clone().into_bytes(),
            uuid: Some(fresh.id),
            metadata: Vec::new(),
        };
        let events = events.iter().map(event).collect();
        let after = (tip.at > 0).then_some(tip.at);
        let condition = DcbAppendCondition { fail_if_events_match: of_key(&tip.key), after };
        let client = self.client.clone();
        self.waiting.push_back(Box::pin(async move {
            match client.append(events, Some(condition), None).await {
                Ok(at) => Ok(Outcome::Stored { at }),
                Err(DcbError::IntegrityError(_)) => Ok(Outcome::Conflict),
                Err(error) => Err(error.into()),
            }
        }));
        Ok(())
    }

    async fn receive(&mut self) -> Result<Outcome> {
        self.waiting.next().await.ok_or("nothing was sent")?
    }

    async fn refresh(&mut self, tip: &mut Tip) -> Result<()> {
        let (newest, _) = self.client.read_with_head(Some(of_key(&tip.key)), None, true, Some(1)).await?;
        if let Some(newest) = newest.first() {
            tip.at = newest.position;
        }
        Ok(())
    }
}
