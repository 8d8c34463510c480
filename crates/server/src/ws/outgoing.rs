//! What the outbox sends: a message, or the text that one would have made.

use daybook_model::wire::{ServerMessage, Written};

pub(super) enum Outgoing {
    Message(ServerMessage),
    /// One message as JSON, written where its events were read.
    Text(Vec<u8>),
}

impl Outgoing {
    /// Bytes it will take, roughly.
    pub fn weight(&self) -> usize {
        match self {
            Self::Text(json) => json.len(),
            Self::Message(ServerMessage::Receipt(m)) => 64 + m.events.len() * 160,
            Self::Message(ServerMessage::Page(m)) => 64 + m.events.iter().map(|e| e.weight()).sum::<usize>(),
            Self::Message(ServerMessage::Events(m)) => {
                64 + m.events.iter().map(|e| e.weight()).sum::<usize>()
            }
            Self::Message(ServerMessage::Deliver(m)) => {
                64 + m.deliveries.iter().map(|d| 96 + d.event.weight()).sum::<usize>()
            }
            Self::Message(_) => 256,
        }
    }
}

impl Written for Outgoing {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message(message) => message.write(out),
            Self::Text(json) => out.extend_from_slice(json),
        }
    }
}

impl From<ServerMessage> for Outgoing {
    fn from(message: ServerMessage) -> Self {
        Self::Message(message)
    }
}
