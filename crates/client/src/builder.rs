//! Setting up a connection.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::{self, Identity};
use crate::transport::Connector;
use crate::{Client, ConnectError};

/// What a connection is; see [`Client::builder`].
#[derive(Clone, Debug)]
pub struct Builder {
    url: String,
    service: String,
    instance: Option<String>,
    token: Option<String>,
    publish_deadline: Duration,
    connector: Connector,
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            service: "client".into(),
            instance: None,
            token: None,
            publish_deadline: Duration::from_secs(30),
            connector: Connector::default(),
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

    /// What carries each connection instead of TCP: a Unix socket, a tunnel, a
    /// simulated network. It is called with host and port of the address.
    #[must_use]
    pub fn connector<F, C, T>(mut self, connect: F) -> Self
    where
        F: Fn(String) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.connector = Connector::new(connect);
        self
    }

    /// Connects once; later losses heal by themselves.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let authority = authority(&self.url)?;
        let instance = self.instance.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
        let identity = Identity {
            url: self.url,
            authority,
            connector: self.connector,
            service: self.service,
            instance,
            boot: uuid::Uuid::now_v7().simple().to_string(),
            token: self.token,
        };
        let (commands, welcome, session) = connection::start(identity).await?;
        Ok(Client::new(commands, welcome, session, self.publish_deadline))
    }
}

fn authority(url: &str) -> Result<String, ConnectError> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("ws://"));
    match rest {
        Some(host) if !host.is_empty() && !host.contains('/') => Ok(host.to_owned()),
        _ => Err(ConnectError::Address { url: url.to_owned() }),
    }
}
