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
