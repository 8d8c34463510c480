//! `math.random`: what is made by chance is made the same again.

use serde_json::json;

use crate::World;

const SCRIPT: &str = r#"
local svc = service("chance", {})
local die = svc:entity("die", function() return { first = math.random(1000000), rolls = array{} } end)
die:decide("roll", {}, function(state) return event("Rolled", { n = math.random(1000000) }) end)
die:evolve("Rolled", function(state, e)
  table.insert(state.rolls, { decided = e.data.n, folded = math.random(1000000), again = math.random() })
end)
svc:on("Asked", function(e)
  die:send("1", "roll")
  svc.kv:put(e.id, { math.random(1000000), math.random(5, 7), math.random() })
end)
svc:view("drawn", "Rolled", function(kv, e) kv:put(e.id, { math.random(1000000), math.random() }) end)
svc:view("drawn_too", "Rolled", function(kv, e) kv:put(e.id, { math.random(1000000), math.random() }) end)
svc:get("/die", function() return json(die:state("1")) end)
svc:get("/now", function() return json({ math.random(1000000000), math.random() }) end)
"#;

#[tokio::test]
async fn a_rebuild_and_another_host_draw_what_was_drawn() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    for _ in 0..20 {
        world.cause("Asked", "k/1").await;
    }
    let last = world.wait_for("Rolled", 20).await.last().unwrap().position;
    let die = running.ok(&format!("/die?after={last}")).await;
    let mut rows = running.dump("chance").await;
    // The last handler's own rows come after its event.
    for _ in 0..500 {
        if rows.iter().filter(|row| row.contains(r#""table":"kv""#)).count() == 20 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        rows = running.dump("chance").await;
    }
    let reports = running.rebuild("chance").await;
    assert_eq!(reports.last().unwrap()["phase"], "done", "{reports:?}");
    assert_eq!(running.dump("chance").await, rows);
    // Two views of one event draw for themselves, and each event anew.
    let drawn: std::collections::HashSet<_> = rows
        .iter()
        .map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap())
        .filter(|row| row["table"] == "drawn" || row["table"] == "drawn_too")
        .map(|row| row["value"].to_string())
        .collect();
    assert_eq!(drawn.len(), 40);
    running.host.shutdown().await;
    let other = world.run_beside(SCRIPT, &[]).await;
    assert_eq!(other.ok("/die").await, die);
    assert_eq!(die["rolls"].as_array().unwrap().len(), 20);
    for _ in 0..500 {
        if other.dump("chance").await == rows {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(other.dump("chance").await, rows);
    assert_ne!(other.ok("/now").await, other.ok("/now").await, "requests draw for themselves");
    assert_eq!(other.ok("/die").await["first"], die["first"]);
    assert_ne!(json!(die["rolls"][0]["folded"]), json!(die["rolls"][1]["folded"]));
    other.host.shutdown().await;
}
