//! Publishes to keys of its own, where it knows the next value, and to shared
//! ones, where it has to guess.

use std::collections::HashMap;

use daybook_model::{Data, NewEvent, Sequence};
use serde_json::json;
use tokio::time::{Duration, sleep};

use super::Actor;

/// How long it waits for an answer before it takes the outcome for unknown.
const DEADLINE: Duration = Duration::from_secs(3);

pub async fn publish(mut actor: Actor) {
    let client = actor.connect("publisher", DEADLINE).await;
    let me = actor.scribe.who().to_owned();
    let instance = actor.instance();
    // The next value of each key, as far as is known.
    let mut next: HashMap<String, u64> = HashMap::new();
    let mut count = 0;
    while !actor.orders.is_calm() && !actor.orders.is_leaving() {
        sleep(Duration::from_millis(actor.dice.below(actor.pause_ms))).await;
        let size = if actor.dice.chance(200) { actor.dice.between(2, 4) } else { 1 };
        let (mut events, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..size {
            count += 1;
            let event = event(&mut actor, &instance, &format!("{me}/{count}"), &next);
            ids.push(event.id.clone());
            events.push(event);
        }
        let mut answer = actor.call(ids.clone(), None, client.publish(events.clone())).await;
        // The same ids again tell what became of them; some never ask.
        while answer.is_none() && actor.dice.chance(800) {
            answer = actor.call(ids.clone(), None, client.publish(events.clone())).await;
        }
        match answer {
            Some(Ok(receipt)) => {
                for (event, told) in events.iter().zip(&receipt.events) {
                    if let (Some(subject), Some(sequence)) = (&event.subject, told.sequence) {
                        next.insert(subject.clone(), sequence.0 + 1);
                    }
                }
                if actor.dice.chance(30) {
                    actor.call(ids.clone(), None, client.publish(events.clone())).await;
                }
                if actor.dice.chance(20) {
                    let mut other = events.clone();
                    other[0].data = Some(data(&json!("something else")));
                    actor.call(ids, None, client.publish(other)).await;
                }
            }
            // Somebody else was there, or nobody knows: the next guess is free.
            Some(Err(_)) | None => next.clear(),
        }
    }
    client.close().await;
}

fn event(actor: &mut Actor, instance: &str, id: &str, next: &HashMap<String, u64>) -> NewEvent {
    let dice = &mut actor.dice;
    let kind = *dice.pick(&["Work.a", "Work.b", "Work.b", "Other"]);
    let mut event = NewEvent::new(id, kind);
    let padding = "x".repeat(dice.below(64) as usize);
    event.data = Some(data(&json!({ "n": dice.below(1_000), "padding": padding })));
    if dice.chance(50) {
        return event;
    }
    let (prefix, shared) = if dice.chance(300) { ("shared", true) } else { (instance, false) };
    let subject = format!("{prefix}/{}", dice.below(actor.keys));
    match next.get(&subject) {
        Some(value) if dice.chance(500) => event.sequence = Some(Sequence(*value)),
        None if shared && dice.chance(100) => event.sequence = Some(Sequence(dice.below(20))),
        _ => {}
    }
    event.subject = Some(subject);
    event
}

fn data(value: &serde_json::Value) -> Data {
    Data::json(value).expect("a value is JSON")
}
