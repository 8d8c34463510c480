//! Scripts that do not stop by themselves are stopped; everybody else goes on.

use std::time::{Duration, Instant};

use daybook_superclient::Limits;

use crate::{World, hostile};

const COMPUTE: Duration = Duration::from_millis(150);
const WALL: Duration = Duration::from_secs(2);

/// Run with `--nocapture` for the times: how long each took to be stopped, and
/// how long a neighbour waited meanwhile.
#[tokio::test]
async fn every_hostile_script_is_stopped_with_its_line_and_the_host_lives_on() {
    let world = World::start().await;
    let innocent = "local svc = service('innocent', {})\nsvc:get('/innocent', function() return json({ well = true }) end)";
    let first = hostile::HEAD.lines().count() + 1;
    let mut script = hostile::HEAD.to_owned();
    for (i, (_, body)) in hostile::ROUTES.iter().enumerate() {
        script += &format!("svc:get('/h/{i}', function(req, ctx) do {body} end return json({{}}) end)\n");
    }
    let limits = Limits { compute: COMPUTE, memory_bytes: 32 << 20, wall: WALL };
    let running = world.run_with(&[("i.lua", innocent), ("h.lua", &script)], "one", limits).await.unwrap();
    let neighbour = Neighbour::start(&running);
    let mut told = Vec::new();
    for (i, (name, body)) in hostile::ROUTES.iter().enumerate() {
        let begun = Instant::now();
        let (status, problem) =
            tokio::time::timeout(Duration::from_secs(60), running.get(&format!("/h/{i}")))
                .await
                .unwrap_or_else(|_| panic!("`{name}` was never stopped"));
        told.push((begun.elapsed(), *name));
        assert!(status >= 400, "`{name}` came through: {problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        // What is stopped in a decide, an evolve or an initial state is told where it stands there.
        let elsewhere = ["account:send(", "tx:load(account", "loopy"].iter().any(|part| body.contains(part));
        let place = if elsewhere { "h.lua:".to_owned() } else { format!("h.lua:{}: ", first + i) };
        assert!(detail.starts_with(&place), "`{name}` does not say where: {problem}");
        running.comes_back("/well").await;
        assert_eq!(running.ok("/innocent").await["well"], true, "after `{name}`");
    }
    let (alone, beside) = neighbour.stop().await;
    told.sort();
    println!(
        "stopped: median {:?}, slowest {:?} (budget {COMPUTE:?}, wall clock {WALL:?})",
        told[told.len() / 2].0,
        told.last().unwrap()
    );
    println!("a neighbour's p99: {alone:?} before, {beside:?} beside");
    running.host.shutdown().await;
}

/// Asks another service all the time; every answer must come.
struct Neighbour {
    stop: tokio::sync::oneshot::Sender<()>,
    asking: tokio::task::JoinHandle<(Duration, Duration)>,
}

impl Neighbour {
    fn start(running: &crate::Running) -> Self {
        let url = format!("http://{}/innocent", running.host.local_addr());
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let asking = tokio::spawn(async move {
            let http = reqwest::Client::new();
            let ask = async || {
                let begun = Instant::now();
                let answer = http.get(&url).send().await.unwrap();
                assert_eq!(answer.status(), 200, "the neighbour did not answer");
                begun.elapsed()
            };
            let mut alone = Vec::new();
            for _ in 0..200 {
                alone.push(ask().await);
            }
            let mut beside = Vec::new();
            while stopped.try_recv().is_err() {
                beside.push(ask().await);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let p99 = |mut times: Vec<Duration>| {
                times.sort();
                times[times.len() * 99 / 100]
            };
            (p99(alone), p99(beside))
        });
        Self { stop, asking }
    }

    async fn stop(self) -> (Duration, Duration) {
        let _ = self.stop.send(());
        self.asking.await.unwrap()
    }
}

#[tokio::test]
async fn a_script_that_never_loads_is_stopped_before_it_starts() {
    let world = World::start().await;
    let limits = Limits { compute: COMPUTE, memory_bytes: 32 << 20, wall: WALL };
    for text in [
        "while true do end",
        "local s = 'x' while true do s = s .. s end",
        "local function f() return 1 + f() end f()",
        "while true do pcall(function() while true do end end) end",
        "error(setmetatable({}, { __tostring = function() while true do end end }))",
    ] {
        let script = format!("local svc = service('never', {{}})\n{text}");
        let refused = world.run_with(&[("never.lua", &script)], "one", limits).await.err();
        let refused = refused.unwrap_or_else(|| panic!("it loaded: {text}")).to_string();
        assert!(refused.starts_with("never.lua:2"), "{text}: {refused}");
    }
}

#[tokio::test]
async fn services_that_ask_each_other_in_a_circle_are_told_so() {
    let world = World::start().await;
    let one = "local svc = service('one', {})\nsvc:get('/one', function() return json(svc:http('GET', 'two', '/two')) end)";
    let two = "local svc = service('two', {})\nsvc:get('/two', function() return json(svc:http('GET', 'one', '/one')) end)";
    let running = world.try_run(&[("one.lua", one), ("two.lua", two)], "one").await.unwrap();
    let (_, answer) = running.get("/one").await;
    assert!(answer.to_string().contains("in a circle"), "{answer}");
    running.host.shutdown().await;
}

#[tokio::test]
async fn what_a_script_overwrites_is_its_own_copy_and_no_neighbours() {
    let world = World::start().await;
    let vandal = "local svc = service('vandal', {})\njson = nil money = nil string = { } event = 5\nsvc:get('/vandal', function() return { string = string.rep == nil } end)";
    let other = "local svc = service('other', {})\nsvc:get('/other', function() return json({ money = money.new(1, 'GBP'), rep = string.rep('x', 2), event = event('X').type }) end)";
    let running = world.try_run(&[("v.lua", vandal), ("o.lua", other)], "one").await.unwrap();
    assert_eq!(running.ok("/vandal").await["string"], true);
    let other = running.ok("/other").await;
    assert_eq!((&other["rep"], &other["event"]), (&"xx".into(), &"X".into()));
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
