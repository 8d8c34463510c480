//! What carries the frames: TCP, unless the program brings something else.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Bytes both ways, in order.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Transport>>> + Send>>;

/// Makes a new transport for every connection; see [`crate::Builder::connector`].
#[derive(Clone)]
pub(crate) struct Connector(Arc<dyn Fn(String) -> Connecting + Send + Sync>);

impl Connector {
    pub fn new<F, C, T>(connect: F) -> Self
    where
        F: Fn(String) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move |authority| {
            let connecting = connect(authority);
            Box::pin(async { Ok(Box::new(connecting.await?) as Box<dyn Transport>) })
        }))
    }

    /// `authority` is host and port.
    pub async fn connect(&self, authority: &str) -> io::Result<Box<dyn Transport>> {
        (self.0)(authority.to_owned()).await
    }
}

impl Default for Connector {
    fn default() -> Self {
        Self::new(|authority: String| async move {
            let tcp = match authority.parse::<std::net::SocketAddr>() {
                Ok(address) => TcpStream::connect(address).await?,
                Err(_) if has_port(&authority) => TcpStream::connect(authority).await?,
                Err(_) => TcpStream::connect((authority.trim_matches(['[', ']']), 80)).await?,
            };
            // Small frames must not wait for the peer's acknowledgement of the last one.
            tcp.set_nodelay(true)?;
            Ok(tcp)
        })
    }
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        && !authority.ends_with(']')
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}
