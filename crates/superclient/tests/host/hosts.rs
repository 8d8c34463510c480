//! Several hosts: one Redis, and services that call each other.

use std::time::Duration;

use daybook_model::NewEvent;
use daybook_superclient::{Config, Script, StateLocation};
use serde_json::json;

use crate::redis_server::RedisServer;
use crate::{Running, World};

const SCRIPT: &str = r#"
local svc = service("shared", {})
local counter = svc:entity("counter", function() return { n = 0 } end)
counter:decide("add", {}, function(state) return event("Added", { n = state.n + 1 }) end)
counter:evolve("Added", function(state, e) state.n = e.data.n end)
svc:on("Asked", function(e)
  counter:send("all", "add", {})
  svc.kv:put("asked", (svc.kv:get("asked") or 0) + 1)
  svc:publish("Answered", e.subject, { to = e.id })
end)
svc:after("Asked", "20ms", function(e) svc.kv:put("timed", (svc.kv:get("timed") or 0) + 1) end)
svc:view("seen", { "Answered" }, function(kv, e) kv:put("n", (kv:get("n") or 0) + 1) end)
svc:get("/n", function() return json({ asked = svc.kv:get("asked") or 0, timed = svc.kv:get("timed") or 0, seen = svc.views.seen:get("n") or 0 }) end)
"#;

fn config(world: &World, server: &RedisServer, name: &str) -> Config {
    let state = StateLocation::Redis(server.url());
    let script = Script::Source { name: "shared.lua".into(), text: SCRIPT.into() };
    Config { state, instances: 2, ..world.config(name, vec![script]) }
}

async fn ask(world: &World, first: usize, count: usize) {
    let client = world.client().await;
    for i in first..first + count {
        let event = NewEvent::new(format!("asked-{i}"), "Asked").subject(format!("q/{}", i % 11));
        client.publish(vec![event]).await.unwrap();
    }
}

async fn shows(running: &Running, n: usize) {
    let wanted = json!({ "asked": n, "timed": n, "seen": n });
    let mut last = json!(null);
    for _ in 0..2_000 {
        let (status, body) = running.get("/n").await;
        if (status, &body) == (200, &wanted) {
            return;
        }
        last = body;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("wanted {wanted}, saw {last}");
}

#[tokio::test]
async fn two_hosts_share_their_tables_and_one_takes_over_from_the_other() {
    let (world, server) = (World::start().await, RedisServer::start());
    let one = world.start_host(config(&world, &server, "one")).await.unwrap();
    let two = world.start_host(config(&world, &server, "two")).await.unwrap();
    ask(&world, 0, 60).await;
    shows(&one, 60).await;
    shows(&two, 60).await;
    // The one that leads rebuilds; the other says that it does not lead.
    let reports = [one.rebuild("shared").await, two.rebuild("shared").await];
    let phases: Vec<_> = reports.iter().map(|reports| reports.last().unwrap()["phase"].clone()).collect();
    assert!(phases.contains(&json!("done")) && phases.contains(&json!("failed")), "{reports:?}");
    // It says which host to ask instead, and that one does it.
    let (leads, refused) = if phases[0] == "done" { (&one, &reports[1]) } else { (&two, &reports[0]) };
    let told = refused.last().unwrap()["error"].as_str().unwrap();
    let wanted = format!("daybook rebuild shared --host http://{}", leads.host.local_addr());
    assert!(told.ends_with(&wanted), "{told}");
    shows(&two, 60).await;
    one.host.shutdown().await;
    ask(&world, 60, 30).await;
    shows(&two, 90).await;
    assert_eq!(world.events(&["Added"]).await.len(), 90);
    assert_eq!(world.events(&["Answered"]).await.len(), 90);
    assert_eq!(two.dump("shared").await.iter().filter(|row| row.contains("\"handled\"")).count(), 11);
    two.host.shutdown().await;
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_costs_a_rebuild_and_nothing_else() {
    let (world, mut server) = (World::start().await, RedisServer::start());
    let one = world.start_host(config(&world, &server, "one")).await.unwrap();
    let two = world.start_host(config(&world, &server, "two")).await.unwrap();
    ask(&world, 0, 40).await;
    shows(&one, 40).await;
    let mut asked = 40;
    for keeps in [false, true] {
        // It dies while both hosts work, and is away for a moment.
        ask(&world, asked, 20).await;
        server.restart(keeps);
        ask(&world, asked + 20, 20).await;
        asked += 40;
        shows(&one, asked).await;
        shows(&two, asked).await;
    }
    assert_eq!(world.events(&["Added"]).await.len(), asked, "something was doubled or lost");
    assert_eq!(world.events(&["Answered"]).await.len(), asked);
    one.host.shutdown().await;
    two.host.shutdown().await;
}
