//! Reads everything, in order.

use daybook_client::Item;
use daybook_client::model::wire::{Named, Start};
use daybook_model::Filter;
use tokio::time::{Duration, sleep};

use super::Actor;
use crate::history::{What, content};

/// Follows the log from its start; ends when told to leave, or with the client.
pub async fn follow(actor: Actor) {
    let client = actor.connect("follower", Duration::from_secs(5)).await;
    let mut events = loop {
        match client.subscribe(Start::Named(Named::Start), Filter::default()).await {
            Ok(events) => break events,
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    };
    loop {
        let leaving = async {
            while !actor.orders.is_leaving() {
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            item = events.next() => match item {
                Some(Item::Event(event)) => actor.scribe.note(What::Read {
                    position: event.position.0,
                    id: event.id.clone(),
                    content: content(&event),
                }),
                Some(Item::CaughtUp(_)) => {}
                None => return,
            },
            () = leaving => break,
        }
    }
    client.close().await;
}
