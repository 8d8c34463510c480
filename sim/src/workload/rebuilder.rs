//! A service that begins with nothing, again and again: it reads what its type
//! has settled, and goes on while others settle.

use daybook_client::model::wire::{Named, Start};
use daybook_client::{Item, SubscribeError};
use daybook_model::Filter;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::{Actor, GROUPS};
use crate::history::{GroupSpec, What, content};

/// Ends when told to leave, or with the client.
pub async fn rebuild(mut actor: Actor) {
    let client = actor.connect("rebuilder", Duration::from_secs(5)).await;
    while !actor.orders.is_leaving() {
        let group = actor.dice.pick(&GROUPS);
        let of_group = || group.name.to_owned();
        actor.scribe.note(What::Rebuilding { group: of_group() });
        let filter = Filter { settled_by: Some(of_group()), ..Filter::default() };
        // Before the first member there is no group.
        let mut settled = match client.subscribe(Start::Named(Named::Start), filter).await {
            Ok(settled) => settled,
            Err(SubscribeError::Closed) => return,
            Err(_) => {
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let until = Instant::now() + Duration::from_millis(actor.dice.between(500, 9_000));
        loop {
            let item = tokio::select! {
                item = settled.next() => item,
                () = sleep_until(until) => break,
            };
            match item {
                Some(Item::Event(event)) => note(&actor, group, &event),
                Some(Item::CaughtUp(_)) => actor.scribe.note(What::RebuiltPast { group: of_group() }),
                None if settled.ended().is_none() => return,
                // The bus has ended it and says why: a group that is not there yet,
                // a server that goes.
                None => break,
            }
        }
        sleep(Duration::from_millis(actor.dice.below(500))).await;
    }
    client.close().await;
}

fn note(actor: &Actor, group: &GroupSpec, event: &daybook_model::Event) {
    actor.scribe.note(What::Rebuilt {
        group: group.name.to_owned(),
        position: event.position.0,
        id: event.id.clone(),
        content: content(event),
    });
}
