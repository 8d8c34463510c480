//! A script reaches nothing but what it was given.

use daybook_superclient::StartError;
use serde_json::json;

use crate::World;

#[tokio::test]
async fn nothing_leads_to_files_processes_bytecode_or_the_host() {
    let world = World::start().await;
    let script = r#"
local svc = service("probe", {})
local function absent(...)
  local found = {}
  for _, name in { ... } do
    if _G[name] ~= nil then table.insert(found, name) end
  end
  return found
end
svc:get("/globals", function()
  return json({ found = array(absent("io", "package", "loadstring", "load", "dofile", "loadfile",
    "getfenv", "setfenv", "newproxy", "collectgarbage", "debug", "jit", "ffi")) })
end)
svc:get("/os", function() return json({ kind = type(os), execute = type(os) == "table" and type(os.execute) or "nil" }) end)
svc:get("/string-dump", function() return json({ kind = type(string.dump) }) end)
svc:get("/write-global", function() local ok = pcall(function() string.format = nil end) return json({ ok = ok }) end)
svc:get("/metatable", function() local ok = pcall(function() getmetatable("").__index = nil end) return json({ ok = ok }) end)
svc:get("/rawset", function() local ok = pcall(function() rawset(string, "x", 1) end) return json({ ok = ok, seen = string.x ~= nil }) end)
"#;
    let running = world.run(script).await;
    assert_eq!(running.ok("/globals").await["found"], json!([]));
    assert_eq!(running.ok("/os").await["execute"], "nil");
    assert_eq!(running.ok("/string-dump").await["kind"], "nil");
    for path in ["/write-global", "/metatable", "/rawset"] {
        assert_eq!(running.ok(path).await["ok"], false, "{path}");
    }
    running.host.shutdown().await;
}

#[tokio::test]
async fn bytecode_is_no_script() {
    let world = World::start().await;
    let refused = world.try_run(&[("evil.lua", "\u{1b}Lua\u{3}\u{1}\u{0}")], "one").await.err().unwrap();
    assert!(matches!(refused, StartError::Script(_)), "{refused}");
}

#[tokio::test]
async fn a_script_that_does_not_load_names_file_and_line_and_nothing_starts() {
    let world = World::start().await;
    let good =
        ("good.lua", "local svc = service('good', {})\nsvc:get('/good', function() return json({}) end)");
    for (text, place) in [
        ("local svc = service('bad', {})\n\nsvc:on('X' function() end)", "bad.lua:3"),
        ("local svc = service('bad', {})\nerror('no')", "bad.lua:2"),
        ("local svc = service('bad', {})\nsvc:publish('X', 'k/1', {})", "bad.lua:2"),
        ("local x = 1\nreturn y.z", "bad.lua:2"),
    ] {
        let refused = world.try_run(&[good, ("bad.lua", text)], "one").await.err().unwrap().to_string();
        assert!(refused.contains(place), "{refused}");
    }
    let refused = world.try_run(&[("none.lua", "local x = 1")], "one").await.err().unwrap();
    assert!(matches!(refused, StartError::NoService { .. }));
    let refused = world.try_run(&[good, ("again.lua", good.1)], "one").await.err().unwrap();
    assert!(matches!(refused, StartError::Twice(_)));
    // Nobody of them ever was on the bus.
    world.try_run(&[good], "one").await.unwrap().host.shutdown().await;
}

#[tokio::test]
async fn one_service_does_not_see_anothers_tables() {
    let world = World::start().await;
    let writer = "local svc = service('writer', {})\nsvc:post('/put', function() svc.kv:put('secret', 'x') return json({}) end)";
    let reader = "local svc = service('reader', {})\nsvc:get('/get', function() return json({ seen = svc.kv:get('secret') ~= nil }) end)";
    let running = world.try_run(&[("w.lua", writer), ("r.lua", reader)], "one").await.unwrap();
    assert_eq!(running.post("/put", "{}", None).await.0, 200);
    assert_eq!(running.ok("/get").await["seen"], false);
    running.host.shutdown().await;
}
