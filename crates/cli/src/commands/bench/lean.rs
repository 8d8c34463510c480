//! A connection that only publishes and counts: the load generator has the same
//! cores as the server, so it does as little as a client can. What the SDK costs
//! on top is measured with `--sdk`.

use daybook_model::wire::{self, ServerMessage};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::exit::{Failure, UNREACHABLE};

/// The library clears this much before every read.
const READ_BUFFER_BYTES: usize = 8 << 10;

pub struct Lean(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Lean {
    pub async fn connect(bus: &str, instance: &str) -> Result<Self, Failure> {
        let url = format!("{}/v1/ws", bus.replacen("http://", "ws://", 1));
        let mut request = url.into_client_request().map_err(gone)?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(wire::SUBPROTOCOL));
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let (socket, _) = connect_async_with_config(request, Some(config), true).await.map_err(gone)?;
        let mut lean = Self(socket);
        let hello = format!(r#"{{"op":"hello","id":1,"service":"bench","instance":"{instance}"}}"#);
        match lean.call(hello).await? {
            ServerMessage::Welcome(_) => Ok(lean),
            other => Err(Failure::failed(format!("the bus answered `hello` with {other:?}"))),
        }
    }

    /// One request, its answer awaited. A refusal is an `Err`.
    pub async fn call(&mut self, request: String) -> Result<ServerMessage, Failure> {
        self.send(request).await?;
        loop {
            let mut answer = None;
            self.receive(|message| answer = answer.take().or(Some(message))).await?;
            match answer {
                Some(Ok(ServerMessage::Error(error))) => {
                    return Err(Failure::failed(error.problem.to_string()));
                }
                Some(Ok(message)) => return Ok(message),
                Some(Err(malformed)) => return Err(Failure::failed(malformed.invalid.to_string())),
                None => {}
            }
        }
    }

    pub async fn send(&mut self, frame: String) -> Result<(), Failure> {
        self.0.send(Message::Text(frame.into())).await.map_err(gone)
    }

    /// The messages of the next frame.
    pub async fn receive(
        &mut self,
        each: impl FnMut(Result<ServerMessage, wire::Malformed>),
    ) -> Result<(), Failure> {
        let frame = self.frame().await?;
        wire::messages(&frame, each);
        Ok(())
    }

    /// The next frame, for those who read it where it lies.
    pub async fn frame(&mut self) -> Result<Utf8Bytes, Failure> {
        loop {
            let frame = self.0.next().await.ok_or_else(|| gone("it closed the connection"))?;
            if let Message::Text(text) = frame.map_err(gone)? {
                return Ok(text);
            }
        }
    }
}

fn gone(error: impl std::fmt::Display) -> Failure {
    Failure::new(UNREACHABLE, format!("the bus went away: {error}"))
}
