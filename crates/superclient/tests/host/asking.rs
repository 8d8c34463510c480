//! `svc:http` where it changes something elsewhere: once, whatever comes again.

use serde_json::json;

use crate::World;

const HEARD: &str = r#"
local svc = service("heard", {})
svc:post("/heard", function(req)
  svc:publish("Heard", { of = req.json.of, key = req.headers["idempotency-key"] })
  local times = (svc.kv:get(req.json.of) or 0) + 1
  svc.kv:put(req.json.of, times)
  return json({ times = times })
end)
"#;

const TELLER: &str = r#"
local svc = service("teller", {})
svc:on("Told", function(e)
  local answer = svc:http("POST", "heard", "/heard", { of = e.subject })
  if e.data.twice and answer.times == 1 then error("not yet") end
  svc.kv:put(e.subject, answer.code or answer.times)
  svc:publish("Done", e.subject, {})
end)
svc:get("/row", function() return json({ row = svc.kv:get("k/1") or null }) end)
svc:get("/in-atomically", function()
  atomically(function() svc:http("POST", "heard", "/heard", { of = "x" }) end)
end)
"#;

async fn keys(world: &World) -> Vec<String> {
    let key = |event: &daybook_model::Event| {
        let Some(daybook_model::Data::Json(data)) = &event.data else { panic!("no data") };
        let data: serde_json::Value = serde_json::from_str(data.get()).unwrap();
        data["key"].as_str().unwrap_or_default().to_owned()
    };
    world.events(&["Heard"]).await.iter().map(key).collect()
}

#[tokio::test]
async fn what_is_asked_again_carries_the_same_key_and_a_replay_asks_nothing() {
    let world = World::start().await;
    let running = world.try_run(&[("heard.lua", HEARD), ("teller.lua", TELLER)], "one").await.unwrap();
    world.cause_with("Told", "k/1", &json!({ "twice": true })).await;
    world.wait_for("Done", 1).await;
    world.cause_with("Told", "k/2", &json!({})).await;
    world.wait_for("Done", 2).await;
    let asked = keys(&world).await;
    assert_eq!(asked.len(), 3);
    assert!(!asked[0].is_empty() && asked[0] == asked[1], "the repeat has another key: {asked:?}");
    assert_ne!(asked[0], asked[2]);

    running.rebuild("teller").await;
    assert_eq!(keys(&world).await.len(), 3, "the replay asked again");
    assert_eq!(running.ok("/row").await["row"], "replayed");

    let (status, refused) = running.get("/in-atomically").await;
    assert_eq!(status, 500);
    assert!(refused["detail"].as_str().unwrap().contains("may not be called inside atomically"), "{refused}");
    running.host.shutdown().await;
}
