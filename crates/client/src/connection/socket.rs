//! Frames over tokio-tungstenite.

use std::time::Duration;

use daybook_model::wire::{self, Malformed, SUBPROTOCOL, ServerMessage, Written, write_frame};
use futures_util::{SinkExt, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::transport::{Connector, Transport};

/// A page of the server may hold its largest event many times over.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// The library clears this much before every read.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// Until `welcome` has told.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(10);

/// Pings of the bus that may fail to come before it counts as gone.
const MISSED_PINGS: u32 = 3;

pub(super) struct Socket {
    frames: WebSocketStream<Box<dyn Transport>>,
    heartbeat: Duration,
    /// A frame came since the last look, and how many looks found none.
    heard: bool,
    silent: u32,
}

impl Socket {
    /// `authority` is host and port of the bus.
    pub async fn open(connector: &Connector, authority: &str) -> Result<Self, String> {
        let url = format!("ws://{authority}/v1/ws");
        let mut request = url.into_client_request().map_err(|e| e.to_string())?;
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let transport = connector.connect(authority).await.map_err(|e| e.to_string())?;
        let (frames, _) =
            client_async_with_config(request, transport, Some(config)).await.map_err(|e| e.to_string())?;
        Ok(Self { frames, heartbeat: HEARTBEAT_DEFAULT, heard: true, silent: 0 })
    }

    /// The bus pings this often.
    pub fn set_heartbeat(&mut self, every: Duration) {
        self.heartbeat = every.max(Duration::from_millis(10));
    }

    pub fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Called once per heartbeat: fails when the bus has been silent for too
    /// long. A host that vanished closes nothing; only its silence tells.
    pub fn check(&mut self) -> Result<(), String> {
        self.silent = if std::mem::take(&mut self.heard) { 0 } else { self.silent + 1 };
        if self.silent > MISSED_PINGS {
            return Err(format!("the bus missed {MISSED_PINGS} pings"));
        }
        Ok(())
    }

    pub async fn send(&mut self, messages: &[impl Written]) -> Result<(), String> {
        let mut frame = Vec::with_capacity(512);
        write_frame(messages, &mut frame);
        let text = String::from_utf8(frame).expect("JSON is UTF-8");
        // A bus that vanished takes no more once the buffers are full.
        match timeout(self.heartbeat * MISSED_PINGS, self.frames.send(Message::Text(text.into()))).await {
            Ok(sent) => sent.map_err(|e| e.to_string()),
            Err(_) => Err("the bus takes no more".into()),
        }
    }

    /// The next text frame. Cancel-safe; answers pings on the way.
    pub async fn receive(&mut self) -> Result<Utf8Bytes, String> {
        loop {
            let next = self.frames.next().await;
            self.heard = true;
            match next {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(Some(frame)))) => return Err(frame.reason.to_string()),
                Some(Ok(Message::Close(None))) | None => return Err("the bus closed the connection".into()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    pub async fn close(&mut self) {
        if self.frames.close(None).await.is_ok() {
            while let Some(Ok(_)) = self.frames.next().await {}
        }
    }
}

/// All messages of a frame.
pub(super) fn each(frame: &str, take: impl FnMut(Result<ServerMessage, Malformed>)) {
    wire::messages(frame, take);
}
