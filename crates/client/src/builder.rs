//! Setting up a connection.

use std::time::Duration;

use crate::connection::{self, Identity};
use crate::{Client, ConnectError};

/// What a connection is; see [`Client::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    url: String,
    service: String,
    instance: Option<String>,
    token: Option<String>,
    publish_deadline: Duration,
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            service: "client".into(),
            instance: None,
            token: None,
            publish_deadline: Duration::from_secs(30),
        }
    }

    /// Service type: part of `sessionid`, and the default `source`. Default `client`.
    #[must_use]
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// Which of the service's instances this is. Default: a new one.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// How long a publish is tried before it is `unknown-outcome`. Default 30 s.
    #[must_use]
    pub fn publish_deadline(mut self, deadline: Duration) -> Self {
        self.publish_deadline = deadline;
        self
    }

    /// Connects once; later losses heal by themselves.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let websocket = websocket_url(&self.url)?;
        let instance = self.instance.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
        let identity = Identity {
            url: self.url,
            websocket,
            service: self.service,
            instance,
            boot: uuid::Uuid::now_v7().simple().to_string(),
            token: self.token,
        };
        let (commands, welcome) = connection::start(identity).await?;
        Ok(Client::new(commands, welcome, self.publish_deadline))
    }
}

fn websocket_url(url: &str) -> Result<String, ConnectError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://"));
    match rest {
        Some(host) if !host.is_empty() && !host.contains('/') => Ok(format!("ws://{host}/v1/ws")),
        _ => Err(ConnectError::Address { url: url.to_owned() }),
    }
}
