//! A script that changes while it runs.

use std::collections::HashSet;
use std::time::Duration;

use crate::World;

fn script(version: u32, extra: &str) -> String {
    format!(
        r#"
local svc = service("changing", {{}})
svc:on("Asked", function(e) svc:publish("Answered", e.subject, {{ version = {version}, to = e.id }}) end)
svc:get("/version", function() return json({{ version = {version} }}) end)
{extra}
"#
    )
}

async fn version(running: &crate::Running, wanted: u32) {
    for _ in 0..1_000 {
        let (status, body) = running.get("/version").await;
        if status == 200 && body["version"] == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("version {wanted} never came");
}

#[tokio::test]
async fn a_changed_file_is_taken_between_events_and_a_broken_one_is_not() {
    let world = World::start().await;
    let path = world.dir.path().join("changing.lua");
    std::fs::write(&path, script(1, "")).unwrap();
    let running = world.run_file(&path).await;
    version(&running, 1).await;
    std::fs::write(&path, script(2, "svc:get('/new', function() return json({}) end)")).unwrap();
    version(&running, 2).await;
    assert_eq!(running.get("/new").await.0, 200);
    std::fs::write(&path, script(3, "this is no Lua")).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    version(&running, 2).await;
    // Another name is another service.
    std::fs::write(&path, script(4, "").replace("changing", "another")).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    version(&running, 2).await;
    std::fs::write(&path, script(5, "")).unwrap();
    version(&running, 5).await;
    assert_eq!(running.get("/new").await.0, 404);
    running.host.shutdown().await;
}

#[tokio::test]
async fn reloading_under_load_loses_and_doubles_nothing() {
    let world = World::start().await;
    let path = world.dir.path().join("changing.lua");
    std::fs::write(&path, script(0, "")).unwrap();
    let running = world.run_file(&path).await;
    let mut asked = HashSet::new();
    for round in 1..=5u32 {
        std::fs::write(&path, script(round, "")).unwrap();
        for i in 0..120 {
            asked.insert(world.cause("Asked", &format!("k/{}", i % 17)).await);
        }
        version(&running, round).await;
    }
    let answered = world.wait_for("Answered", asked.len()).await;
    assert_eq!(answered.len(), asked.len(), "an event was answered twice");
    let causes: HashSet<String> = answered.iter().filter_map(|event| event.causationid.clone()).collect();
    assert_eq!(causes, asked);
    let hashes: HashSet<String> = answered
        .iter()
        .flat_map(|e| &e.extensions)
        .filter(|(n, _)| n == "scripthash")
        .map(|(_, v)| format!("{v:?}"))
        .collect();
    assert!(hashes.len() > 1, "no reload fell among the events");
    running.host.shutdown().await;
}

/// `v` says what differs: what is answered, reminded of and shown.
fn compared(v: u32) -> String {
    format!(
        r#"
local svc = service("compared", {{}})
local thing = svc:entity("thing", function() return {{ n = 0 }} end)
thing:evolve("Asked", function(state) state.n += 1 end)
svc:on("Asked", function(e)
  svc:http("POST", "compared", "/told", {{}})
  svc:publish("Answered", e.subject, {{}})
end)
svc:after("Asked", "1ms", function(e, ctx) svc:publish("Reminded", e.subject, {{ v = {v}, n = thing:state("1").n }}) end)
svc:after("Asked", "9h", function() error("it is not time yet") end)
svc:view("seen", "Asked", function(kv, e) kv:put(e.subject, (kv:get(e.subject) or 0) + 1) end)
svc:post("/told", function() svc:publish("Told") return json({{}}) end)
svc:get("/version", function() return json({{ v = {v} }}) end)
svc:get("/same", function() svc:publish("Never") return json({{ n = thing:state("1").n }}) end)
svc:get("/seen/:id", function(req) return json({{ v = {v}, seen = svc.views.seen:get("thing/" .. req.params.id) or 0 }}) end)
svc:get("/a/:b/c/:d", function() return json({{ v = {v} }}) end)
"#
    )
}

#[tokio::test]
async fn a_shadow_compares_timers_that_came_due_and_get_routes_and_nothing_leaves_it() {
    let world = World::start().await;
    let path = world.dir.path().join("compared.lua");
    std::fs::write(&path, compared(1)).unwrap();
    let mut config = world.config("compared", vec![daybook_superclient::Script::File(path.clone())]);
    config.reload.watch = false;
    let running = world.start_host(config).await.unwrap();
    world.cause("Asked", "thing/1").await;
    world.wait_for("compared.TimerFired", 1).await;
    world.wait_for("Answered", 1).await;
    let kinds = ["Told", "Reminded", "Answered", "Never", "compared.TimerFired"];
    let before = world.events(&kinds).await.len();
    std::fs::write(&path, compared(2)).unwrap();
    let asked = format!("http://{}/-/reload/compared?shadow=100&dry=true", running.host.local_addr());
    let request = reqwest::Client::new().post(asked).header("daybook-reload", "1");
    let outcome: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    let found: Vec<&str> =
        outcome["differences"].as_array().unwrap().iter().map(|found| found.as_str().unwrap()).collect();
    assert_eq!(found.len(), 3, "{found:#?}");
    let timer = "old  Reminded thing/1 {\"n\":1,\"v\":1}\n    new  Reminded thing/1 {\"n\":1,\"v\":2}";
    assert!(
        found[0].starts_with("svc:after 1ms of Asked (key thing/1") && found[0].contains(timer),
        "{found:#?}"
    );
    let seen = "GET /seen/1\n    old  200 {\"seen\":1,\"v\":1}\n    new  200 {\"seen\":1,\"v\":2}";
    assert_eq!(found[1], seen);
    assert!(found[2].starts_with("GET /version\n    old  200 {\"v\":1}"), "{found:#?}");
    assert_eq!(world.events(&kinds).await.len(), before, "something left the shadow");
    running.host.shutdown().await;
}

const COUNTING: &str = r#"
local svc = service("changing", {})
local counter = svc:entity("counter", function() return { n = 0 } end)
counter:decide("count", { of = "id" }, function(state, command) return event("Counted", { n = state.n + 1, of = command.of }) end)
counter:evolve("Counted", function(state, e) state.n = e.data.n end)
svc:on("Asked", function(e)
  counter:send(e.subject, "count", { of = e.id })
  svc.kv:put(e.subject, (svc.kv:get(e.subject) or 0) + 1)
end)
svc:view("seen", "Counted", function(kv, e) kv:put("n", (kv:get("n") or 0) + 1) end)
svc:get("/version", function() return json({ version = VERSION }) end)
svc:get("/counts", function()
  local total = 0
  for _, row in svc.kv:scan() do total += row.value end
  return json({ handled = total, seen = svc.views.seen:get("n") or 0 })
end)
"#;

fn hash(event: &daybook_model::Event) -> String {
    let named = event.extensions.iter().find(|(name, _)| name == "scripthash");
    named.map(|(_, value)| format!("{value:?}")).unwrap()
}

#[tokio::test]
async fn events_that_come_while_scripts_are_swapped_and_refused_are_each_counted_once() {
    const EACH: usize = 25;
    const KEYS: usize = 9;
    let world = World::start().await;
    let path = world.dir.path().join("changing.lua");
    let version_of = |n: u32| COUNTING.replace("VERSION", &n.to_string());
    std::fs::write(&path, version_of(0)).unwrap();
    let running = world.run_file(&path).await;
    let client = world.client().await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let load = tokio::spawn(async move {
        let mut asked = 0;
        while !*stopped.borrow() {
            let batch = (asked..asked + EACH).map(|i| {
                daybook_model::NewEvent::new(format!("asked-{i}"), "Asked").subject(format!("k/{}", i % KEYS))
            });
            client.publish(batch.collect()).await.unwrap();
            asked += EACH;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        asked
    });
    let first = hash(&world.wait_for("Counted", 1).await[0]);
    // Again and again while they come: one that is taken, one that is no Lua, one that fails at once.
    for round in 1..=6u32 {
        std::fs::write(&path, version_of(round)).unwrap();
        version(&running, round).await;
        for broken in ["local = 5", "error('not today')"] {
            std::fs::write(&path, format!("{}\n{broken}", version_of(1_000 + round))).unwrap();
            let refused = running.reload("changing").await;
            assert!(refused.contains("changing.lua:"), "{refused}");
        }
    }
    while world.events(&["Counted"]).await.iter().all(|event| hash(event) == first) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.send_replace(true);
    let all = load.await.unwrap();
    let counted = world.wait_for("Counted", all).await;
    let wanted = serde_json::json!({ "handled": all, "seen": all });
    let mut counts = serde_json::Value::Null;
    for _ in 0..1_000 {
        counts = running.ok("/counts").await;
        if counts == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counts, wanted);
    assert_eq!(world.events(&["Counted"]).await.len(), all, "an event was counted twice");
    // Every one has its own consequence, and each key's history has no gap.
    let causes: HashSet<String> = counted.iter().filter_map(|event| event.causationid.clone()).collect();
    assert_eq!(causes, (0..all).map(|i| format!("asked-{i}")).collect());
    for key in 0..KEYS {
        let subject = format!("counter/k/{key}");
        let of_key = counted.iter().filter(|event| event.subject.as_ref() == Some(&subject));
        let sequences: Vec<u64> = of_key.map(|event| event.sequence.unwrap().0).collect();
        assert_eq!(sequences, (0..sequences.len() as u64).collect::<Vec<_>>(), "{subject}");
    }
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_dry_run_that_comes_after_the_watch_still_tells_what_has_changed() {
    let world = World::start().await;
    let path = world.dir.path().join("changing.lua");
    std::fs::write(&path, script(1, "")).unwrap();
    let running = world.run_file(&path).await;
    world.cause("Asked", "k/1").await;
    world.wait_for("Answered", 1).await;
    let nothing = running.reload("changing?shadow=100&dry=true").await;
    assert!(nothing.contains("nothing has changed"), "{nothing}");
    std::fs::write(&path, script(2, "")).unwrap();
    version(&running, 2).await;
    let told = running.reload("changing?shadow=100&dry=true").await;
    assert!(told.contains("it was taken as"), "{told}");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let differences = told["differences"].as_array().unwrap();
    let of_the_handler = |found: &&serde_json::Value| found.as_str().unwrap().contains("Answered");
    assert!(differences.iter().any(|found| of_the_handler(&found)), "{told}");
    running.host.shutdown().await;
}
