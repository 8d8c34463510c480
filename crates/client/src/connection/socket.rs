//! Frames over tokio-tungstenite.

use daybook_model::wire::{self, ClientMessage, Malformed, SUBPROTOCOL, ServerMessage, write_frame};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// A page of the server may hold its largest event many times over.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// The library clears this much before every read.
const READ_BUFFER_BYTES: usize = 8 << 10;

pub(super) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn open(url: &str) -> Result<Self, String> {
        let mut request = url.into_client_request().map_err(|e| e.to_string())?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let (socket, _) =
            connect_async_with_config(request, Some(config), true).await.map_err(|e| e.to_string())?;
        Ok(Self(socket))
    }

    pub async fn send(&mut self, messages: &[ClientMessage]) -> Result<(), String> {
        let mut frame = Vec::with_capacity(512);
        write_frame(messages, &mut frame);
        let text = String::from_utf8(frame).expect("JSON is UTF-8");
        self.0.send(Message::Text(text.into())).await.map_err(|e| e.to_string())
    }

    /// The next text frame. Cancel-safe; answers pings on the way.
    pub async fn receive(&mut self) -> Result<String, String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(Some(frame)))) => return Err(frame.reason.to_string()),
                Some(Ok(Message::Close(None))) | None => return Err("the bus closed the connection".into()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    pub async fn close(&mut self) {
        if self.0.close(None).await.is_ok() {
            while let Some(Ok(_)) = self.0.next().await {}
        }
    }
}

/// All messages of a frame.
pub(super) fn each(frame: &str, take: impl FnMut(Result<ServerMessage, Malformed>)) {
    wire::messages(frame, take);
}
