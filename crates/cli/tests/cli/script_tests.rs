//! `daybook test`: the repository's own, and what failing looks like.

use std::path::Path;

use crate::run;

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).to_string_lossy().into_owned()
}

#[test]
fn the_tests_of_the_bank_and_the_examples_pass() {
    for (path, least) in [("apps/bank/services", 8), ("examples", 3), ("examples/services", 18)] {
        let ran = run(&["test", &repository(path)], "");
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        let passed: usize = ran.stdout.lines().last().unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(passed >= least, "{}", ran.stdout);
    }
}

#[test]
fn a_failure_is_code_1_and_names_what_where_and_goes_into_the_junit_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(repository("examples/points.lua"), dir.path().join("points.lua")).unwrap();
    let tests = r#"
test("it is refused", function(t)
  t:when(card, "7", "earn", { points = 3 })
  t:rejected("too_many")
end)
test("it is stored", function(t)
  t:when(card, "7", "earn", { points = 3 })
  t:emitted{ { type = "PointsEarned", data = { points = 4 } } }
end)
test("fine <&>", function(t) t:state(card, "7", { points = 0 }) end)
"#;
    std::fs::write(dir.path().join("points_test.lua"), tests).unwrap();
    let junit = dir.path().join("junit.xml");
    let ran = run(&["test", dir.path().to_str().unwrap(), "--junit", junit.to_str().unwrap()], "");
    assert_eq!(ran.code, 1);
    assert!(ran.stdout.contains("points_test.lua:4: it was accepted"), "{}", ran.stdout);
    assert!(ran.stdout.contains("points_test.lua:8: emitted were 1 events, expected 1"), "{}", ran.stdout);
    assert!(ran.stdout.contains("- 1  PointsEarned { points = 4 }"), "{}", ran.stdout);
    assert!(ran.stdout.contains("+ 1  PointsEarned card/7 { points = 3 }"), "{}", ran.stdout);
    assert!(ran.stdout.contains("data.points: expected 4, got 3"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("1 passed, 2 failed\n"), "{}", ran.stdout);
    let junit = std::fs::read_to_string(junit).unwrap();
    assert!(junit.contains("tests=\"3\" failures=\"2\"") && junit.contains("fine &lt;&amp;&gt;"), "{junit}");
    let only = run(&["test", dir.path().to_str().unwrap(), "--only", "fine"], "");
    assert_eq!(only.code, 0, "{}", only.stdout);
    std::fs::write(dir.path().join("points_test.lua"), "test('x' function() end)").unwrap();
    let broken = run(&["test", dir.path().to_str().unwrap()], "");
    assert_eq!(broken.code, 1);
    assert!(broken.stderr.contains("points_test.lua:1"), "{}", broken.stderr);
    assert_eq!(run(&["test", &repository("docs")], "").code, 1);
}

#[test]
fn a_new_service_passes_its_tests_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let new = run(&["new", "service", "stock", "--dir", place], "");
    assert_eq!(new.code, 0, "{}", new.stderr);
    let tested = run(&["test", place], "");
    assert!(tested.stdout.ends_with("2 passed, 0 failed\n"), "{}", tested.stdout);
    assert_eq!(run(&["new", "service", "stock", "--dir", place], "").code, 1);
    assert_eq!(run(&["new", "service", "No Name", "--dir", place], "").code, 2);
}

#[test]
fn a_handler_that_a_crash_makes_do_something_else_is_found() {
    let dir = tempfile::tempdir().unwrap();
    // What it says depends on what it has done itself: after a crash in between it says another thing.
    let script = r#"
local svc = service("hasty", { version = 1 })
local thing = svc:entity("thing", function() return { n = 0 } end)
thing:decide("count", {}, function() return event("Counted") end)
thing:evolve("Counted", function(state) state.n += 1 end)
svc:on("Asked", function(e)
  local before = thing:state("1").n
  thing:send("1", "count")
  svc:publish("Seen", { n = before })
end)
svc:on("AskedWell", function(e)
  thing:send("1", "count")
  svc:publish("Seen", { n = thing:state("1").n })
end)
"#;
    std::fs::write(dir.path().join("hasty.lua"), script).unwrap();
    let tests = r#"
test("well", function(t)
  t:when_event("AskedWell", "k/1", {})
  t:emitted{ "Counted", { type = "Seen", data = { n = 1 } } }
  t:crash_at_every_step()
end)
test("hasty", function(t)
  t:when_event("Asked", "k/1", {})
  t:emitted{ "Counted", { type = "Seen", data = { n = 0 } } }
  t:crash_at_every_step()
end)
"#;
    std::fs::write(dir.path().join("hasty_test.lua"), tests).unwrap();
    let ran = run(&["test", dir.path().to_str().unwrap()], "");
    assert_eq!(ran.code, 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("ok    well (") && ran.stdout.contains(" 6 crashes)"), "{}", ran.stdout);
    let told =
        "with a crash after an event was published, before its receipt came (step 2): hasty_test.lua:9:";
    assert!(ran.stdout.contains(told), "{}", ran.stdout);
    assert!(ran.stdout.contains("data.n: expected 0, got 1"), "{}", ran.stdout);
}

const HOOKS: &str = r#"
local svc = service("hooks", { version = 1 })
local hook = svc:entity("hook", function() return { tries = 0, state = "new" } end)
hook:evolve("HookTried", function(state, e) state.tries, state.state = state.tries + 1, e.data.state end)
hook:decide("tried", { state = "string" }, function(_, command) return event("HookTried", { state = command.state }) end)
local function try(id)
  local customer = svc:http("GET", "customers", "/customers/" .. id)
  local answer = svc:http("POST", "outside", "/hooks", { to = customer.address, id = id })
  hook:send(id, "tried", { state = if answer.ok then "delivered" else "failed" })
end
svc:on("HookWanted", function(e) try(e.data.id) end)
svc:after("HookTried", "1m", function(e)
  local id = string.split(e.subject, "/")[2]
  if hook:state(id).state == "failed" then try(id) end
end)
"#;

#[test]
fn other_services_answer_in_a_test_as_it_says_and_what_they_were_asked_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hooks.lua"), HOOKS).unwrap();
    let tests = r#"
local function customers(t) t:given_http("customers", "/customers/:id", { address = "ada@example.org" }) end
test("delivered", function(t)
  customers(t)
  t:given_http("POST", "outside", "/hooks", json({}, 201))
  t:when_event("HookWanted", "wish/1", { id = "1" })
  t:asked("POST", "outside", "/hooks", { to = "ada@example.org" })
  t:asked("customers", "/customers/1")
  t:emitted{ event("HookTried", { state = "delivered" }) }
  t:crash_at_every_step()
end)
test("tried again", function(t)
  customers(t)
  t:given_http("post", "outside", "/hooks", reject("busy"))
  t:when_event("HookWanted", "wish/1", { id = "1" })
  t:state(hook, "1", { state = "failed" })
  t:given_http("POST", "outside", "/hooks", {})
  t:when_due(event("HookTried", { state = "failed" }), "hook/1")
  t:emitted{ event("HookTried", { state = "delivered" }) }
end)
test("out of reach", function(t)
  customers(t)
  t:given_http("POST", "outside", "/hooks")
  t:when_event("HookWanted", "wish/1", { id = "1" })
end)
test("not given", function(t)
  t:when_event("HookWanted", "wish/1", { id = "1" })
end)
test("not asked", function(t)
  customers(t)
  t:given_http("POST", "outside", "/hooks", {})
  t:when_event("HookWanted", "wish/1", { id = "1" })
  t:asked("POST", "outside", "/hooks", { to = "bob@example.org" })
end)
"#;
    std::fs::write(dir.path().join("hooks_test.lua"), tests).unwrap();
    let ran = run(&["test", dir.path().to_str().unwrap()], "");
    let said = &ran.stdout;
    assert!(said.contains("ok    delivered (") && said.contains(" 6 crashes)"), "{said}");
    assert!(said.contains("ok    tried again ("), "{said}");
    assert!(
        said.contains("hooks.lua:8: svc:http: POST outside /hooks: the test says that it cannot be"),
        "{said}"
    );
    assert!(
        said.contains("none answers GET customers /customers/1: give it one with t:given_http"),
        "{said}"
    );
    assert!(
        said.contains("hooks_test.lua:33: it did not ask POST outside /hooks; it asked 2 times"),
        "{said}"
    );
    let wrong = "body.to: expected \"bob@example.org\", got \"ada@example.org\"";
    assert!(said.contains(wrong) && said.ends_with("2 passed, 3 failed\n"), "{said}");
}

#[test]
fn an_event_may_be_said_as_in_given_and_one_that_is_only_folded_just_happens() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(repository("examples/points.lua"), dir.path().join("points.lua")).unwrap();
    let tests = r#"
test("it is folded", function(t)
  t:when_event("card/7", "PointsEarned", { points = 3 })
  t:when_event("card/7", event("PointsEarned", { points = 4 }))
  t:emitted{}
  t:state(card, "7", { points = 7 })
end)
test("who is that", function(t) t:when(crad, "7", "earn", { points = 1 }) end)
test("it is misspelt", function(t) t:when_event("PointsErned", "card/7", { points = 3 }) end)
"#;
    std::fs::write(dir.path().join("points_test.lua"), tests).unwrap();
    let ran = run(&["test", dir.path().to_str().unwrap()], "");
    assert!(ran.stdout.contains("the first argument is an entity, not nil; there is card"), "{}", ran.stdout);
    assert!(ran.stdout.contains("ok    it is folded"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("the script has no `PointsErned`; did you mean `PointsEarned`?"),
        "{}",
        ran.stdout
    );
}

const SAGA: &str = r#"
local svc = service("saga", { version = 1 })
local trip = svc:entity("trip", function() return { status = "new" } end)
trip:evolve("TripAsked", function(state) state.status = "asked" end)
trip:evolve("TripHeld", function(state) state.status = "held" end)
trip:evolve("TripPaid", function(state) state.status = "paid" end)
trip:decide("ask", {}, function() return event("TripAsked") end)
local function next(e, type) return atomically(function(tx) tx:emit(e.subject, type, {}, { after = e }) end) end
svc:on("TripAsked", function(e) return next(e, "TripHeld") end)
svc:on("TripHeld", function(e)
  svc.kv:put(e.subject, (svc.kv:get(e.subject) or 0) + 1)
  return next(e, "TripPaid")
end)
svc:on("Ping", function(e) svc:publish("Pong", e.subject, {}) end)
svc:on("Pong", function(e) svc:publish("Ping", e.subject, {}) end)
"#;

#[test]
fn a_saga_is_settled_when_told_and_survives_a_crash_in_each_of_its_handlers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("saga.lua"), SAGA).unwrap();
    let tests = r#"
test("a whole trip", function(t)
  t:when(trip, "1", "ask")
  t:settle()
  t:emitted{ "TripAsked", "TripHeld", "TripPaid" }
  t:state(trip, "1", { status = "paid" })
  t:twice()
  t:crash_at_every_step()
end)
test("only its beginning", function(t)
  t:when(trip, "1", "ask")
  t:emitted{ "TripAsked" }
  t:state(trip, "1", { status = "paid" })
end)
test("for ever", function(t)
  t:when_event("Ping", "x/1", {})
  t:settle()
end)
"#;
    std::fs::write(dir.path().join("saga_test.lua"), tests).unwrap();
    let ran = run(&["test", dir.path().to_str().unwrap()], "");
    let said = &ran.stdout;
    // Before and after each: one publish of the command, a publish and a commit of both handlers.
    assert!(said.contains("ok    a whole trip (") && said.contains(" 10 crashes)"), "{said}");
    assert!(said.contains("`TripAsked` was not handled yet: t:settle() handles what was emitted"), "{said}");
    assert!(said.contains("still one to handle: do handlers answer each other for ever?"), "{said}");
    assert!(said.ends_with("1 passed, 2 failed\n"), "{said}");
}
