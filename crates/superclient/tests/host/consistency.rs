//! Conflicts, repeats, restarts: nothing is lost, doubled or decided on old state.

use serde_json::{Value, json};

use crate::World;

const COUNTER: &str = r#"
local svc = service("counter", {})
local counter = svc:entity("counter", function() return { n = 0 } end)
counter:decide("add", { by = "integer", max = "integer?" }, function(state, command)
  if command.max and state.n + command.by > command.max then return reject("too_much", { n = state.n }) end
  return event("Added", { by = command.by })
end)
counter:evolve("Added", function(state, e) state.n = state.n + e.data.by end)
svc:post("/counters/:id/add", function(req)
  return json(counter:send(req.params.id, "add", req.json, { id = req.headers["idempotency-key"] }))
end)
svc:get("/counters/:id", function(req) return json(counter:state(req.params.id, { at = req.query.at })) end)
svc:on("Asked", function(e)
  counter:send("asked", "add", { by = 1 })
  svc:publish("Answered", "answers/1", { to = e.id })
end)
svc:view("added", { "Added" }, function(kv, e) kv:put(e.subject, (kv:get(e.subject) or 0) + e.data.by) end)
svc:get("/added/:id", function(req) return json({ n = svc.views.added:get("counter/" .. req.params.id) or 0 }) end)
"#;

#[tokio::test]
async fn two_hosts_on_one_key_lose_no_command_and_show_no_conflict() {
    let world = World::start().await;
    let (one, two) = (world.run(COUNTER).await, world.try_run(&[("c.lua", COUNTER)], "two").await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    let hosts = std::sync::Arc::new([one, two]);
    for i in 0..60 {
        let hosts = hosts.clone();
        tasks.spawn(async move { hosts[i % 2].post("/counters/hot/add", r#"{"by":1}"#, None).await });
    }
    while let Some(answer) = tasks.join_next().await {
        let (status, body) = answer.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    let n: Vec<Value> = [hosts[0].ok("/counters/hot").await, hosts[1].ok("/counters/hot").await].to_vec();
    assert_eq!(n, [json!({ "n": 60 }), json!({ "n": 60 })]);
    assert_eq!(world.events(&["Added"]).await.len(), 60);
}

#[tokio::test]
async fn a_limit_holds_however_many_try_at_once() {
    let world = World::start().await;
    let running = std::sync::Arc::new(world.run(COUNTER).await);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let running = running.clone();
        tasks.spawn(async move { running.post("/counters/few/add", r#"{"by":1,"max":7}"#, None).await });
    }
    let mut taken = 0;
    while let Some(answer) = tasks.join_next().await {
        match answer.unwrap() {
            (200, _) => taken += 1,
            (409, body) => assert_eq!(body["code"], "too_much", "{body}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, 7);
}

#[tokio::test]
async fn a_command_id_counts_once_and_for_one_body() {
    let world = World::start().await;
    let running = world.run(COUNTER).await;
    let (_, first) = running.post("/counters/1/add", r#"{"by":5}"#, Some("key")).await;
    let (status, again) = running.post("/counters/1/add", r#"{"by":5}"#, Some("key")).await;
    assert_eq!((status, &again["duplicate"], &again["position"]), (200, &json!(true), &first["position"]));
    let (status, other) = running.post("/counters/1/add", r#"{"by":6}"#, Some("key")).await;
    assert_eq!((status, &other["code"]), (409, &json!("id-conflict")), "{other}");
    running.host.shutdown().await;
    // Also when asked of another process, after a restart.
    let running = world.try_run(&[("c.lua", COUNTER)], "two").await.unwrap();
    let (status, again) = running.post("/counters/1/add", r#"{"by":5}"#, Some("key")).await;
    assert_eq!((status, &again["duplicate"]), (200, &json!(true)));
    assert_eq!(running.ok("/counters/1").await, json!({ "n": 5 }));
    for (body, field) in
        [(r#"{"by":"5"}"#, "by"), (r#"{}"#, "by"), (r#"{"by":1,"x":1}"#, "x"), (r#"{"by":0.5}"#, "by")]
    {
        let (status, problem) = running.post("/counters/1/add", body, None).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem.to_string().contains(&format!("\"{field}\"")), "{problem}");
    }
}

#[tokio::test]
async fn a_handler_that_is_repeated_has_its_effects_once() {
    let world = World::start().await;
    let running = world.run(COUNTER).await;
    let asked = world.cause("Asked", "q/1").await;
    let answered = world.wait_for("Answered", 1).await;
    assert_eq!(answered[0].causationid.as_deref(), Some(asked.as_str()));
    running.host.shutdown().await;
    // Its group is set back: the same event is handled again, by another process.
    let reset = reqwest::Client::new().post(format!("{}/v1/groups/counter/reset", world.bus));
    let mut status = 0;
    for _ in 0..200 {
        let reset = reset.try_clone().unwrap().body(r#"{"to":"start"}"#);
        status = reset.send().await.unwrap().status().as_u16();
        if status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(status, 200);
    let running = world.try_run(&[("c.lua", COUNTER)], "two").await.unwrap();
    world.cause("Asked", "q/2").await;
    world.wait_for("Answered", 2).await;
    assert_eq!(world.events(&["Answered"]).await.len(), 2);
    assert_eq!(running.ok("/counters/asked").await, json!({ "n": 2 }));
}

#[tokio::test]
async fn lost_state_is_made_again_from_the_log() {
    let world = World::start().await;
    let running = world.run(COUNTER).await;
    for _ in 0..5 {
        running.post("/counters/1/add", r#"{"by":2}"#, None).await;
    }
    running.host.shutdown().await;
    std::fs::remove_dir_all(world.dir.path().join("state-one")).unwrap();
    let running = world.run(COUNTER).await;
    let last = world.events(&["Added"]).await.last().unwrap().position;
    assert_eq!(running.ok(&format!("/added/1?after={last}")).await, json!({ "n": 10 }));
    assert_eq!(running.ok("/counters/1").await, json!({ "n": 10 }));
}

#[tokio::test]
async fn the_past_is_shown_as_it_was() {
    let world = World::start().await;
    let running = world.run(COUNTER).await;
    for by in 1..=3 {
        running.post("/counters/1/add", &format!(r#"{{"by":{by}}}"#), None).await;
    }
    let events = world.events(&["Added"]).await;
    for (i, n) in [(0usize, 0), (1, 1), (2, 3)] {
        let at = events[i].position;
        assert_eq!(running.ok(&format!("/counters/1?at={at}")).await, json!({ "n": n }));
        assert_eq!(running.ok(&format!("/added/1?at={at}")).await, json!({ "n": n }));
    }
}
