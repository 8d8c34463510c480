//! A view that cannot take an event: tried again, then parked, told, and never in the way of others.

use daybook_model::{Data, NewEvent};
use serde_json::{Value, json};

use crate::{Running, World};

fn script(if_bad: &str) -> String {
    format!(
        r#"
local svc = service("viewed", {{}})
svc:view("names", "Named", function(kv, e)
  kv:put("last", e.data.name)
  if e.data.bad then {if_bad} end
  kv:append("all", e.data.name)
end)
svc:view("count", "Named", function(kv, e) kv:put("n", (kv:get("n") or 0) + 1) end)
svc:get("/seen", function() return json({{ names = svc.views.names:get("all"), last = svc.views.names:get("last"), n = svc.views.count:get("n") }}) end)
"#
    )
}

async fn named(world: &World, name: &str, bad: bool) -> String {
    let data = Data::json(&json!({ "name": name, "bad": bad })).unwrap();
    let event = NewEvent::new(name, "Named").subject(format!("name/{name}")).data(data);
    world.client().await.publish(vec![event]).await.unwrap().position().to_string()
}

fn parked(rows: &[String]) -> Vec<Value> {
    let rows = rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap());
    rows.filter(|row| row["table"] == "parked").map(|row| row["value"].clone()).collect()
}

async fn seen(running: &Running, position: &str) -> Value {
    let (status, body) = running.get(&format!("/seen?after={position}")).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test]
async fn an_event_that_a_view_cannot_take_is_parked_for_it_alone_and_the_next_ones_are_taken() {
    let world = World::start().await;
    named(&world, "one", false).await;
    named(&world, "bad", true).await;
    let two = named(&world, "two", false).await;
    let path = world.dir.path().join("viewed.lua");
    std::fs::write(&path, script("error('it is bad')")).unwrap();
    let running = world.run_file(&path).await;
    assert_eq!(seen(&running, &two).await, json!({ "names": ["one", "two"], "last": "two", "n": 3 }));
    let three = named(&world, "three", false).await;
    assert_eq!(
        seen(&running, &three).await,
        json!({ "names": ["one", "two", "three"], "last": "three", "n": 4 })
    );
    let rows = running.dump("viewed").await;
    let told = parked(&rows);
    assert_eq!(told.len(), 1, "{rows:?}");
    assert_eq!(
        (&told[0]["view"], &told[0]["event"], &told[0]["subject"]),
        (&json!("names"), &json!("bad"), &json!("name/bad"))
    );
    let reason = told[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("viewed.lua:5: it is bad"), "{reason}");
    // A rebuild tries it again, and comes to the same.
    let reports = running.rebuild("viewed").await;
    assert_eq!(reports.last().unwrap()["phase"], "done", "{reports:?}");
    assert_eq!(running.dump("viewed").await, rows);
    // A script that can take it does.
    std::fs::write(&path, script("kv:put('bad', 1)")).unwrap();
    let whole = json!({ "names": ["one", "bad", "two", "three"], "last": "three", "n": 4 });
    for i in 0.. {
        let (_, body) = running.get("/seen").await;
        if body == whole {
            break;
        }
        assert!(i < 1_000, "{body}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(parked(&running.dump("viewed").await), Vec::<Value>::new());
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_view_that_computes_for_ever_is_parked_too_and_the_host_goes_on() {
    let world = World::start().await;
    named(&world, "one", false).await;
    named(&world, "bad", true).await;
    let two = named(&world, "two", false).await;
    let running = world.run(&script("while true do end")).await;
    let mut answer = (0, Value::Null);
    // Its machine is thrown away at each attempt; whoever waits meanwhile asks again.
    for _ in 0..100 {
        answer = running.get(&format!("/seen?after={two}")).await;
        if answer.0 == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(answer.1, json!({ "names": ["one", "two"], "last": "two", "n": 3 }));
    let told = parked(&running.dump("viewed").await);
    assert_eq!(told.len(), 1, "{told:?}");
    running.host.shutdown().await;
}
