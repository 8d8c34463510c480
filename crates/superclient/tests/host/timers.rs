//! `svc:after`, `svc:rebuild`, `svc:secret`.

use serde_json::json;

use crate::World;

const SCRIPT: &str = r#"
local svc = service("timers", {})
svc:after("Held", "300ms", function(e, ctx)
  svc:publish("Released", e.subject, { at = ctx.now, of = e.id })
end)
svc:after("Held", 0, function(e) svc:publish("Noticed", e.subject, {}) end)
svc:view("held", { "Held" }, function(kv, e) kv:put(e.subject, true) end)
svc:rebuild({
  before = function() svc.kv:put("before", (svc.kv:get("before") or 0) + 1) end,
  after = function() svc.kv:put("after", (svc.kv:get("after") or 0) + 1) end,
})
svc:secret({ "password" })
svc:get("/rebuilt", function() return json({ before = svc.kv:get("before") or 0, after = svc.kv:get("after") or 0 }) end)
"#;

#[tokio::test]
async fn a_timer_fires_once_after_its_time_over_restarts_and_with_several_hosts() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    world.cause("Held", "k/1").await;
    world.wait_for("Noticed", 1).await;
    // It goes down before the time; nobody is there when it comes.
    running.host.shutdown().await;
    world.cause("Held", "k/2").await;
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    let one = world.run(SCRIPT).await;
    let two = world.try_run(&[("script.lua", SCRIPT)], "two").await.unwrap();
    let released = world.wait_for("Released", 2).await;
    world.wait_for("timers.TimerFired", 4).await;
    world.cause("Held", "k/3").await;
    world.wait_for("timers.TimerFired", 6).await;
    assert_eq!(world.events(&["Released"]).await.len(), 3, "a timer fired twice");
    assert_eq!(world.events(&["Noticed"]).await.len(), 3);
    let held = world.events(&["Held"]).await;
    for released in &released {
        let cause =
            held.iter().find(|held| Some(held.id.as_str()) == released.causationid.as_deref()).unwrap();
        assert!(released.recordedtime.0 >= cause.recordedtime.0 + 300_000, "it fired too early");
        assert_eq!(released.subject, cause.subject);
    }
    one.host.shutdown().await;
    two.host.shutdown().await;
}

#[tokio::test]
async fn refilling_the_tables_is_announced_before_and_after() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    let rebuilt = async |running: &crate::Running, wanted: serde_json::Value| {
        for _ in 0..500 {
            if running.ok("/rebuilt").await == wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("never {wanted}");
    };
    rebuilt(&running, json!({ "before": 1, "after": 1 })).await;
    running.host.shutdown().await;
    // Another script has other tables: they are filled anew, the service's own stays.
    let changed = format!("{SCRIPT}\n-- changed");
    let running = world.try_run(&[("script.lua", &changed)], "one").await.unwrap();
    rebuilt(&running, json!({ "before": 2, "after": 2 })).await;
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_delay_that_is_none_is_refused_when_the_script_loads() {
    let world = World::start().await;
    let script = "local svc = service('x', {})\nsvc:after('Held', 'soon', function() end)";
    let refused = world.try_run(&[("x.lua", script)], "one").await.err().unwrap().to_string();
    assert!(refused.contains("x.lua:2") && refused.contains("15m"), "{refused}");
}
