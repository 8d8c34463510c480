//! Tables that are filled again: on request, after they were lost, at a start.

use std::time::Duration;

use daybook_model::NewEvent;
use serde_json::json;

use crate::World;

const SCRIPT: &str = r#"
local svc = service("ledger", {})
local account = svc:entity("account", function() return { n = 0 } end)
account:decide("add", {}, function(state) return event("Added", { n = state.n + 1 }) end)
account:evolve("Added", function(state, e) state.n = e.data.n end)
-- Counts in its own table: an event that is handled twice, or not at all, shows.
svc:on("Asked", function(e, ctx)
  local answer = account:send("all", "add", {})
  svc.kv:put("asked", (svc.kv:get("asked") or 0) + 1)
  svc.kv:put("of " .. e.subject, (svc.kv:get("of " .. e.subject) or 0) + 1)
  if answer.ok then svc.kv:put("sent", (svc.kv:get("sent") or 0) + 1) end
  svc:publish("Answered", e.subject, { to = e.id })
end)
svc:after("Asked", "50ms", function(e)
  svc.kv:put("timed", (svc.kv:get("timed") or 0) + 1)
  svc:publish("Timed", e.subject, { of = e.id })
end)
svc:after("Asked", "9h", function(e) error("it is not time yet") end)
svc:view("by_subject", { "Asked", "Answered" }, function(kv, e) kv:append(e.subject, e.type) end)
svc:get("/asked", function() return json({ n = svc.kv:get("asked") or 0 }) end)
svc:get("/view/:id", function(req) return json(svc.views.by_subject:get("q/" .. req.params.id) or array{}) end)
"#;

async fn ask(world: &World, first: usize, count: usize) {
    let client = world.client().await;
    let events = (first..first + count)
        .map(|i| NewEvent::new(format!("asked-{i}"), "Asked").subject(format!("q/{}", i % 7)));
    client.publish(events.collect()).await.unwrap();
}

/// Waits until everything that was asked has had all its effects.
async fn settled(world: &World, running: &crate::Running, count: usize) {
    world.wait_for("Answered", count).await;
    world.wait_for("ledger.TimerFired", count).await;
    for _ in 0..1_000 {
        let dump = running.dump("ledger").await;
        let has =
            |key: &str| dump.contains(&json!({ "table": "kv", "key": key, "value": count }).to_string());
        if has("asked") && has("timed") && has("sent") {
            let last = world.events(&["Answered"]).await.last().unwrap().position;
            assert_eq!(running.get(&format!("/view/0?after={last}")).await.0, 200);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {count}: {:#?}", running.dump("ledger").await);
}

#[tokio::test]
async fn a_rebuilt_service_has_the_same_rows_and_repeats_no_effect() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    ask(&world, 0, 60).await;
    settled(&world, &running, 60).await;
    let before = running.dump("ledger").await;
    let reports = running.rebuild("ledger").await;
    assert_eq!(reports.last().unwrap()["phase"], "done", "{reports:?}");
    let phases: Vec<&str> = reports.iter().map(|report| report["phase"].as_str().unwrap()).collect();
    for phase in ["views", "timers", "handlers"] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
    assert_eq!(running.dump("ledger").await, before);
    for kind in ["Added", "Answered", "Timed", "ledger.TimerFired"] {
        assert_eq!(world.events(&[kind]).await.len(), 60, "{kind}");
    }
    // It goes on where it was.
    ask(&world, 60, 10).await;
    settled(&world, &running, 70).await;
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_rebuild_under_load_misses_and_doubles_nothing() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    ask(&world, 0, 50).await;
    let mut asked = 50;
    for _ in 0..3 {
        let load = async {
            for _ in 0..10 {
                ask(&world, asked, 5).await;
                asked += 5;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let (reports, ()) = tokio::join!(running.rebuild("ledger"), load);
        assert_eq!(reports.last().unwrap()["phase"], "done", "{reports:?}");
    }
    settled(&world, &running, asked).await;
    for kind in ["Added", "Answered", "Timed"] {
        assert_eq!(world.events(&[kind]).await.len(), asked, "{kind}");
    }
    let before = running.dump("ledger").await;
    running.rebuild("ledger").await;
    assert_eq!(running.dump("ledger").await, before);
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_service_whose_state_was_deleted_catches_up_with_what_it_had_settled() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    ask(&world, 0, 40).await;
    settled(&world, &running, 40).await;
    let before = running.dump("ledger").await;
    running.host.shutdown().await;
    std::fs::remove_dir_all(world.dir.path().join("state-one")).unwrap();
    ask(&world, 40, 5).await;
    let running = world.run(SCRIPT).await;
    settled(&world, &running, 45).await;
    assert_eq!(running.dump("ledger").await.len(), before.len() + 5, "each has a timer more");
    for kind in ["Added", "Answered", "Timed"] {
        assert_eq!(world.events(&[kind]).await.len(), 45, "{kind}");
    }
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_start_goes_on_from_what_was_kept() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    ask(&world, 0, 30).await;
    settled(&world, &running, 30).await;
    let before = running.dump("ledger").await;
    running.host.shutdown().await;
    let running = world.run(SCRIPT).await;
    assert_eq!(running.dump("ledger").await, before);
    ask(&world, 30, 1).await;
    settled(&world, &running, 31).await;
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_rebuild_that_fails_keeps_the_old_tables_and_says_why() {
    let world = World::start().await;
    let script = r#"
local svc = service("once", {})
svc:rebuild({ before = function() if svc.kv:get("made") == nil and #svc.kv:scan() == 0 then svc.kv:put("made", 1) end error("not today") end })
svc:get("/", function() return json({}) end)
"#;
    let running = world.run(script).await;
    let before = running.dump("once").await;
    let reports = running.rebuild("once").await;
    let last = reports.last().unwrap();
    assert_eq!(last["phase"], "failed");
    assert!(last["error"].as_str().unwrap().contains("not today"), "{last}");
    assert_eq!(running.dump("once").await, before);
    running.host.shutdown().await;
}

const SNAPSHOTS: &str = r#"
local svc = service("long", {})
local folds = 0
local line = svc:entity("line", function() return { n = 0, last = money.zero("GBP"), marks = array{} } end)
line:evolve("Step", function(state, e)
  folds += 1
  state.n += 1
  state.last = state.last + money.new(1, "GBP")
  if state.n % 50 == 0 then table.insert(state.marks, state.n) end
end)
svc:get("/line", function() return json({ state = line:state("1"), folds = folds }) end)
"#;

#[tokio::test]
async fn a_start_folds_only_what_came_after_the_snapshot() {
    let world = World::start().await;
    let client = world.client().await;
    let step = |i: usize| NewEvent::new(format!("step-{i}"), "Step").subject("line/1");
    for first in (0..900).step_by(100) {
        client.publish((first..first + 100).map(step).collect()).await.unwrap();
    }
    let running = world.run(SNAPSHOTS).await;
    let first = running.ok("/line").await;
    assert_eq!((&first["folds"], &first["state"]["n"]), (&json!(900), &json!(900)));
    running.host.shutdown().await;
    client.publish((900..910).map(step).collect()).await.unwrap();
    let running = world.run(SNAPSHOTS).await;
    let second = running.ok("/line").await;
    assert_eq!((&second["folds"], &second["state"]["n"]), (&json!(10), &json!(910)), "{second}");
    assert_eq!(second["state"]["last"], json!({ "minor": "910", "currency": "GBP" }));
    assert_eq!(second["state"]["marks"].as_array().unwrap().len(), 18);
    running.host.shutdown().await;
    // Another script may fold otherwise: it begins at the beginning.
    let changed = SNAPSHOTS.replace("state.n += 1", "state.n += 2");
    let running = world.try_run(&[("script.lua", &changed)], "one").await.unwrap();
    assert_eq!(running.ok("/line").await["state"]["n"], 1820);
    running.host.shutdown().await;
}

#[tokio::test]
async fn what_handlers_wrote_is_not_shown_as_if_it_had_been_so_at_another_time() {
    let world = World::start().await;
    let script = r#"
local svc = service("now", {})
svc:on("Asked", function(e) svc.kv:put("n", (svc.kv:get("n") or 0) + 1) end)
svc:get("/n", function() return json({ n = svc.kv:get("n") or 0 }) end)
svc:get("/scan", function() return json(svc.kv:scan()) end)
"#;
    let running = world.run(script).await;
    world.cause("Asked", "k/1").await;
    for path in ["/n?at=1", "/scan?at=1", "/n?at=2100-01-01T00:00:00Z"] {
        let (status, body) = running.get(path).await;
        assert_eq!((status, &body["code"]), (400, &serde_json::json!("invalid")), "{path}: {body}");
        assert!(body["detail"].as_str().unwrap().contains("view"), "{body}");
    }
    assert_eq!(running.get("/n").await.0, 200);
    running.host.shutdown().await;
}
