//! Scripts that do not stop by themselves are stopped; everybody else goes on.

use std::time::Duration;

use daybook_superclient::Limits;

use crate::World;

/// Each would take the host with it if it could.
const HOSTILE: [(&str, &str); 16] = [
    ("loop", "while true do end"),
    ("loop in pcall", "while true do pcall(function() while true do end end) end"),
    ("pcall for ever", "local function f() pcall(f) f() end f()"),
    ("recursion", "local function f(n) return 1 + f(n + 1) end f(1)"),
    ("string bomb", "local s = 'x' while true do s = s .. s end"),
    ("string.rep", "local s = string.rep('x', 1e9)"),
    ("table bomb", "local t = {} while true do t[#t + 1] = {} end"),
    ("table.create", "local t = table.create(1e9, 0)"),
    ("buffer", "local b = {} while true do b[#b + 1] = buffer.create(1e6) end"),
    (
        "coroutine storm",
        "local t = {} while true do t[#t + 1] = coroutine.wrap(function() coroutine.yield() end) t[#t]() end",
    ),
    ("pattern bomb", "string.find(string.rep('a', 200), string.rep('a?', 200) .. string.rep('a', 200))"),
    ("gsub bomb", "local s = string.rep('a', 30000) while true do s = string.gsub(s, 'a', 'b') end"),
    (
        "sort that lies",
        "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t, function(a, b) return a > b end) end",
    ),
    (
        "metamethods",
        "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) return t[1]",
    ),
    ("concat", "local t = {} for i = 1, 1e7 do t[i] = 'xxxxxxxx' end return table.concat(t)"),
    ("error storm", "while true do pcall(error, { string.rep('x', 1000) }) end"),
];

#[tokio::test]
async fn every_hostile_script_is_stopped_and_the_host_lives_on() {
    let world = World::start().await;
    let innocent = "local svc = service('innocent', {})\nsvc:get('/innocent', function() return json({ well = true }) end)";
    let hostile: String = HOSTILE
        .iter()
        .enumerate()
        .map(|(i, (_, body))| {
            format!("svc:get('/h/{i}', function()\ndo {body} end\nreturn json({{}}) end)\n")
        })
        .collect();
    let hostile = format!(
        "local svc = service('hostile', {{}})\nsvc:get('/well', function() return json({{}}) end)\n{hostile}"
    );
    let limits = Limits { compute: Duration::from_millis(150), memory_bytes: 32 << 20, ..Limits::default() };
    let running = world.run_with(&[("i.lua", innocent), ("h.lua", &hostile)], "one", limits).await.unwrap();
    for (i, (name, _)) in HOSTILE.iter().enumerate() {
        let path = format!("/h/{i}");
        let (status, body) = tokio::time::timeout(Duration::from_secs(30), running.get(&path))
            .await
            .unwrap_or_else(|_| panic!("`{name}` was never stopped"));
        assert_ne!(status, 200, "`{name}` came through: {body}");
        assert_eq!(running.ok("/innocent").await["well"], true, "after `{name}`");
        // Its own machine is made anew.
        let mut well = false;
        for _ in 0..500 {
            well = running.get("/well").await.0 == 200;
            if well {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(well, "the service did not come back after `{name}`");
    }
    running.host.shutdown().await;
}

#[tokio::test]
async fn an_event_whose_handler_never_ends_is_retried_and_others_are_handled() {
    let world = World::start().await;
    let script = r#"
local svc = service("picky", {})
svc:on("Asked", function(e)
  if e.subject == "k/bad" then while true do end end
  svc:publish("Answered", e.subject, {})
end)
"#;
    let running = world.run(script).await;
    world.cause("Asked", "k/bad").await;
    for i in 0..5 {
        world.cause("Asked", &format!("k/{i}")).await;
    }
    let answered = world.wait_for("Answered", 5).await;
    assert!(answered.iter().all(|event| event.subject.as_deref() != Some("k/bad")));
    running.host.shutdown().await;
}
