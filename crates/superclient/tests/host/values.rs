//! JSON in and out, and money.

use daybook_model::{Data, ExtensionValue, NewEvent, Sequence};
use serde_json::json;

use crate::World;

const SCRIPT: &str = r#"
local svc = service("values", {})
svc:post("/echo", function(req) return json(req.json) end)
svc:get("/made", function()
  return json({ whole = 3, half = 0.5, object = {}, list = array{}, none = null, nested = { a = array{ 1, {} } }, text = "ü\n" })
end)
local function bad(path, make) svc:get(path, function() return json({ member = make() }) end) end
bad("/nan", function() return 0 / 0 end)
bad("/infinite", function() return math.huge end)
bad("/function", function() return print end)
bad("/mixed", function() return { 1, 2, x = 3 } end)
bad("/cycle", function() local t = {} t.t = t return t end)
svc:get("/money", function()
  local a, b = money.new(1050, "GBP"), money.parse({ minor = "50", currency = "GBP" })
  return json({ sum = a + b, difference = b - a, less = b < a, same = a == money.new("1050", "GBP"), zero = money.zero("GBP"), text = (a + b):format() })
end)
local function wrong(path, f) svc:get(path, function() local ok, why = pcall(f) return json({ ok = ok, why = tostring(why) }) end) end
wrong("/currencies", function() return money.new(1, "GBP") + money.new(1, "EUR") end)
wrong("/overflow", function() return money.new("9223372036854775807", "GBP") + money.new(1, "GBP") end)
wrong("/float", function() return money.new(0.5, "GBP") end)
wrong("/unknown", function() return money.new(1, "pounds") end)
"#;

#[tokio::test]
async fn what_comes_in_goes_out_the_same() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    for body in [
        json!({ "n": 1, "h": 1.5, "neg": -7, "t": true, "e": {}, "l": [], "z": null, "deep": [[], [null], { "a": [{}] }] }),
        json!({ "big": 9_007_199_254_740_991u64, "s": "\u{0}\"\\ü🦀" }),
        json!([]),
        json!({}),
    ] {
        let (status, back) = running.post("/echo", &body.to_string(), None).await;
        assert_eq!((status, back), (200, body));
    }
    let made = running.ok("/made").await;
    let expected = json!({
        "whole": 3, "half": 0.5, "object": {}, "list": [], "none": null, "nested": { "a": [1, {}] }, "text": "ü\n"
    });
    assert_eq!(made, expected);
    running.host.shutdown().await;
}

#[tokio::test]
async fn what_is_no_json_is_an_error_that_names_the_member() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    for path in ["/nan", "/infinite", "/function", "/mixed", "/cycle"] {
        let (status, problem) = running.get(path).await;
        assert_eq!(status, 500, "{path}: {problem}");
        assert!(problem.to_string().contains("member"), "{path}: {problem}");
    }
    let (status, problem) = running.post("/echo", "{nonsense", None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid")), "{problem}");
    running.host.shutdown().await;
}

#[tokio::test]
async fn money_is_exact_or_an_error() {
    let world = World::start().await;
    let running = world.run(SCRIPT).await;
    let money = running.ok("/money").await;
    assert_eq!(money["sum"], json!({ "minor": "1100", "currency": "GBP" }));
    assert_eq!(money["difference"], json!({ "minor": "-1000", "currency": "GBP" }));
    assert_eq!((&money["less"], &money["same"]), (&json!(true), &json!(true)));
    for path in ["/currencies", "/overflow", "/float", "/unknown"] {
        let answer = running.ok(path).await;
        assert_eq!(answer["ok"], false, "{path}");
        assert!(answer["why"].as_str().unwrap().len() > 10, "{path}: {answer}");
    }
    running.host.shutdown().await;
}

#[tokio::test]
async fn an_event_is_to_a_script_what_the_log_holds() {
    let world = World::start().await;
    let echo =
        r#"local svc = service("echo", {}) svc:on("Told", function(e) svc:publish("Echoed", nil, e) end)"#;
    let running = world.run(echo).await;
    let full = NewEvent {
        sequence: Some(Sequence(0)),
        causationid: Some("a cause".into()),
        extensions: vec![
            ("flag".into(), ExtensionValue::Boolean(false)),
            ("level".into(), ExtensionValue::Integer(i32::MIN)),
            ("note".into(), ExtensionValue::String("ü\u{a0}\\0".into())),
            ("number".into(), ExtensionValue::String("7".into())),
            ("other".into(), ExtensionValue::Boolean(true)),
        ],
        data: Some(Data::json(&json!({ "text": "", "list": [] })).unwrap()),
        ..NewEvent::new("full", "Told").subject("k/1")
    };
    world.client().await.publish(vec![full, NewEvent::new("bare", "Told")]).await.unwrap();
    let echoed = world.wait_for("Echoed", 2).await;
    for told in world.events(&["Told"]).await {
        let mut held = serde_json::to_value(&told).unwrap();
        for unseen in ["specversion", "batchfirst", "batchsize", "authid"] {
            held.as_object_mut().unwrap().remove(unseen);
        }
        if told.data.is_none() {
            held["data"] = json!({});
        }
        let seen = echoed.iter().find(|echo| echo.causationid.as_deref() == Some(&*told.id)).unwrap();
        assert_eq!(seen.data_as::<serde_json::Value>().unwrap(), held);
    }
    running.host.shutdown().await;
}
