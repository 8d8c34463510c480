//! Every name of the script API, as somebody writes it who has read its design
//! and nothing else: what it gives, and what it says when it does not fit.

use serde_json::{Value, json};

use crate::World;

const HEAD: &str = r#"
local svc = service("api", { version = 1 })
local account = svc:entity("account", function() return { open = false, balance = money.zero("GBP") } end)
account:evolve("Opened", function(state) state.open = true end)
account:evolve("Deposited", function(state, e) state.balance = state.balance + e.data.amount end)
account:decide("open", function(state)
  if state.open then return ok("open already") end
  return event("Opened")
end)
account:decide("deposit", { amount = "money", note = "string?", who = "id?", n = "integer?", yes = "boolean?", in_ = "currency?", more = "table?" },
  function(state, command)
    if not state.open then return reject("not_open", { balance = state.balance }) end
    return { event("Deposited", { amount = command.amount }) }
  end)
account:decide("breaks", { how = "string" }, function(state, command)
  if command.how == "send" then account:send("1", "open") end
  if command.how == "atomically" then atomically(function() end) end
  if command.how == "publish" then svc:publish("X", {}) end
  if command.how == "state" then account:state("1") end
  if command.how == "kv" then svc.kv:get("x") end
  if command.how == "returns" then return 5 end
  if command.how == "forgets" then event("X") end
  if command.how == "lets it pass" then reject("no") return event("X") end
end)
account:decide("cannot", {}, function() return event("Cannot", {}) end)
account:evolve("Cannot", function() error("evolve cannot take it") end)
local name = svc:entity("name", { taken = false })
name:evolve("NameTaken", function(state, e) state.taken, state.by = true, e.data.by end)
svc:view("seen", "Opened", function(kv, e, ctx) kv:append("all", { subject = e.subject, replaying = ctx.replaying }) end)
"#;

fn gbp(minor: &str) -> Value {
    json!({ "minor": minor, "currency": "GBP" })
}

/// Bodies of routes, and what they return. Each has accounts and names of its own: `ID`.
fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("return account:state('ID')", json!({ "open": false, "balance": gbp("0") })),
        ("return account:state(42).open", json!(false)),
        ("return account:version('ID')", json!("0")),
        ("account:send('ID', 'open') return account:version('ID')", json!("1")),
        ("return account:send('ID', 'open').events[1].type", json!("Opened")),
        (
            "account:send('ID', 'open') local a = account:send('ID', 'open') return { a.ok, #a.events }",
            json!([true, 0]),
        ),
        (
            "local a = account:send('ID', 'open', {}, { id = 'k' }) local b = account:send('ID', 'open', {}, { id = 'k' }) return { a.duplicate, b.duplicate, a.position == b.position }",
            json!([false, true, true]),
        ),
        (
            "local a = account:send('ID', 'deposit', { amount = money.new(1, 'GBP') }) return { a.ok, a.code, a.details.balance }",
            json!([false, "not_open", gbp("0")]),
        ),
        (
            "account:send('ID', 'open') account:send('ID', 'deposit', { amount = money.new(7, 'GBP') }) return account:state('ID').balance",
            gbp("7"),
        ),
        (
            "local a = account:send('ID', 'deposit', { amount = 5 }) return { a.code, a.details.field }",
            json!(["invalid", "amount"]),
        ),
        (
            "local a = account:send('ID', 'deposit', {}) return { a.code, a.details.field }",
            json!(["invalid", "amount"]),
        ),
        (
            "local a = account:send('ID', 'deposit', { amount = money.zero('GBP'), n = 0.5 }) return a.details.field",
            json!("n"),
        ),
        (
            "local a = account:send('ID', 'deposit', { amount = money.zero('GBP'), yes = 'x' }) return a.details.field",
            json!("yes"),
        ),
        (
            "local a = account:send('ID', 'deposit', { amount = money.zero('GBP'), in_ = 'pounds' }) return a.details.field",
            json!("in_"),
        ),
        (
            "local a = account:send('ID', 'deposit', { amount = money.zero('GBP'), who = '' }) return a.details.field",
            json!("who"),
        ),
        (
            "local a = account:send('ID', 'deposit', { amount = money.zero('GBP'), other = 1 }) return a.details.field",
            json!("other"),
        ),
        (
            "return account:send('ID', 'deposit', { amount = money.zero('GBP'), note = null, n = 3, more = {}, yes = false, who = 'w' }).code",
            json!("not_open"),
        ),
        ("return account:send('ID', 'open', {}, { version = '0' }).ok", json!(true)),
        (
            "account:send('ID', 'open') local a = account:send('ID', 'deposit', { amount = money.zero('GBP') }, { version = '0' }) return { a.ok, a.code, a.details.version }",
            json!([false, "conflict", "1"]),
        ),
        (
            "return atomically(function(tx) tx:load(name, 'ID') tx:emit(name, 'ID', 'NameTaken', { by = 'me' }) end).ok",
            json!(true),
        ),
        (
            "local function take() return atomically(function(tx) if tx:load(name, 'ID').taken then return reject('taken', { by = 'me' }) end tx:emit(name, 'ID', 'NameTaken', {}) end) end take() local a = take() return { a.ok, a.code, a.details.by }",
            json!([false, "taken", "me"]),
        ),
        (
            "return atomically(function(tx) tx:emit('name/ID', 'NameTaken', { by = 'a' }) tx:emit(name, 'ID', event('NameTaken', { by = 'b' })) end).events[2].type",
            json!("NameTaken"),
        ),
        (
            "atomically(function(tx) tx:emit(name, 'ID', 'NameTaken', { by = 'x' }) end) return name:state('ID').by",
            json!("x"),
        ),
        ("return atomically(function(tx) end).ok", json!(true)),
        (
            "atomically(function(tx) tx:emit(name, 'ID', 'NameTaken', { by = 'x' }) end) local by atomically(function(tx) by = tx:load('name/ID').by end) return by",
            json!("x"),
        ),
        ("svc:publish('Said', name, 'ID', { a = 1 }) return name:version('ID')", json!("1")),
        ("svc:publish('name/ID', event('Said', { a = 1 })) return name:version('ID')", json!("1")),
        ("return svc.name", json!("api")),
        ("return svc:publish('Said', 'said/ID', { a = 1 }).ok", json!(true)),
        ("return svc:publish('Said', { a = 1 }).ok", json!(true)),
        ("return svc:publish('Said').events[1].type", json!("Said")),
        ("return svc:publish(event('Said', { a = 1 }), 'said/ID').ok", json!(true)),
        (
            "svc.kv:put('ID', { a = 1, m = money.new(5, 'GBP') }) return svc.kv:get('ID')",
            json!({ "a": 1, "m": gbp("5") }),
        ),
        ("svc.kv:append('ID', 1) svc.kv:append('ID', 'x') return svc.kv:get('ID')", json!([1, "x"])),
        (
            "svc.kv:put('ID/a', 1) svc.kv:put('ID/b', false) svc.kv:put('ID/c', null) svc.kv:delete('ID/a') return svc.kv:scan('ID/')",
            json!([{ "key": "ID/b", "value": false }, { "key": "ID/c", "value": null }]),
        ),
        ("svc.kv:put('ID', 1) svc.kv:put('ID', nil) return svc.kv:get('ID') == nil", json!(true)),
        ("return svc.kv:get('nothing there')", json!(null)),
        (
            "return { type(ctx.now), #ctx.uuid(), ctx.random() < 1, type(ctx.correlationid), ctx.replaying }",
            json!(["string", 36, true, "string", false]),
        ),
        (
            "ctx.log('text', { a = 1 }) ctx.log({ a = 1 }) ctx:log('text') ctx.log.info('a', 1) ctx.log:warn('b') ctx.log.error({ a = 1 }) print('text', 1, nil) return true",
            json!(true),
        ),
        (
            "return { req.method, req.query.q, req.headers.host ~= nil, req.path ~= nil, req.body }",
            json!(["GET", "a b", true, true, ""]),
        ),
        ("return (money.new(1050, 'GBP') + money.new('50', 'GBP')):format()", json!("11.00 GBP")),
        (
            "local a, b = money.new(1, 'GBP'), money.new(2, 'GBP') return { a < b, a <= b, a == b, a > b, a ~= b, b - a == a, (a * 3).minor, -a < a }",
            json!([true, true, false, false, true, true, "3", true]),
        ),
        (
            "return { money.parse({ minor = '5', currency = 'GBP' }), money.zero('JPY').currency, tostring(money.new(5, 'JPY')) }",
            json!([gbp("5"), "JPY", "5 JPY"]),
        ),
        (
            "return { money.new(1, 'GBP') == nil, money.new(1, 'GBP') == 1, money.new(0, 'GBP'):is_zero() }",
            json!([false, false, true]),
        ),
        (
            "return { a = array{}, o = {}, n = null, w = 3.0, h = 1.5, big = 9007199254740991 }",
            json!({ "a": [], "o": {}, "n": null, "w": 3, "h": 1.5, "big": 9_007_199_254_740_991u64 }),
        ),
        (
            "return #crypto.token() >= 20 and crypto.verify_password('x', crypto.hash_password('x'))",
            json!(true),
        ),
        ("return event('X', { a = 1 }).data.a", json!(1)),
        (
            "local co = coroutine.wrap(function() coroutine.yield(account:version('ID')) coroutine.yield('then') end) return { co(), co() }",
            json!(["0", "then"]),
        ),
        (
            "return { type(table.concat), type(string.format), type(math.floor), type(utf8.char), type(bit32.band), type(buffer.create), type(os), type(io), type(debug) }",
            json!([
                "function", "function", "function", "function", "function", "function", "nil", "nil", "nil"
            ]),
        ),
    ]
}

/// Bodies of routes, and what their error says.
const ERRORS: [(&str, &str); 52] = [
    ("account:send('1', 'opeen')", "the entity `account` has no `opeen`; did you mean `open`?"),
    ("account:sned('1', 'open')", "the entity `account` has no `sned`; did you mean `send`?"),
    (
        "account:send('1')",
        "entity:send(id, command, fields, { id?, version? }): `command` must be a string, not nil",
    ),
    ("account:send(nil, 'open')", "`id` must be a string, not nil"),
    ("account:send('1', 'open', 'x')", "`fields` must be a table, not `x`"),
    (
        "account:send('1', 'open', {}, { idd = 'x' })",
        "the options of entity:send has no `idd`; did you mean `id`?",
    ),
    ("account:send('1', 'open', {}, { version = 'x' })", "`version` must be a number"),
    ("account:state({})", "entity:state(id, { at? }): `id` must be a string, not an empty table"),
    ("account:state('1', { at = 'yesterday' })", "`yesterday` is neither a position nor a time"),
    ("account.send('1', 'open')", "`send` is called with a colon"),
    ("svc:publsh('X')", "svc has no `publsh`; did you mean `publish`?"),
    ("svc:publish(5.5)", "svc:publish(type, subject?, data): `type` must be a string, not 5.5"),
    ("svc:publish('X', 'x/1', { f = print })", "value.f is a function, not data"),
    ("svc.views.sen:get('x')", "svc.views has no `sen`; did you mean `seen`?"),
    ("svc.views.seen:put('x', 1)", "a view is written by its own function only"),
    ("svc.kv:gett('x')", "kv has no `gett`; did you mean `get`?"),
    ("svc.kv:put({}, 1)", "kv:put(key, value): `key` must be a string"),
    ("svc.kv:put('x', 0/0)", "value is not a finite number"),
    ("svc.kv:put('n', 1) svc.kv:append('n', 1)", "kv:append: `n` holds a number, no list"),
    ("svc:on('X', function() end)", "svc:on belongs to the top of the script, not into a function"),
    ("svc:get('/x', function() end)", "a route belongs to the top of the script"),
    ("atomically('x')", "atomically(function): `function` must be a function, not `x`"),
    ("atomically(function(tx) tx:lod(name, '1') end)", "tx has no `lod`; did you mean `load`?"),
    (
        "atomically(function(tx) tx:load('name', '1') end)",
        "tx:load(entity, id) or tx:load(subject): `entity` must be what svc:entity gave",
    ),
    ("atomically(function(tx) tx:emit(name, '1') end)", "`type` must be a string, not nil"),
    ("atomically(function(tx) tx:emit('name/1', 'X', {}, { aftr = req }) end)", "did you mean `after`?"),
    (
        "atomically(function(tx) tx:emit('name/1', 'X', {}, { after = {} }) end)",
        "`after` must be an event with a sequence",
    ),
    (
        "atomically(function(tx) account:send('1', 'open') end)",
        "entity:send may not be called inside atomically",
    ),
    ("atomically(function(tx) svc:publish('X') end)", "svc:publish may not be called inside atomically"),
    ("local kept atomically(function(tx) kept = tx end) kept:emit('name/1', 'X', {})", "this tx is over"),
    (
        "account:send('1', 'breaks', { how = 'send' })",
        "entity:send may not be called in decide, evolve or a view",
    ),
    (
        "account:send('1', 'breaks', { how = 'atomically' })",
        "atomically may not be called in decide, evolve or a view",
    ),
    (
        "account:send('1', 'breaks', { how = 'publish' })",
        "svc:publish may not be called in decide, evolve or a view",
    ),
    (
        "account:send('1', 'breaks', { how = 'kv' })",
        "kv may not be called in decide, evolve or a view: they see only what they are given",
    ),
    (
        "account:send('1', 'breaks', { how = 'returns' })",
        "the decide of `breaks` must return event(…), a list of them, ok(…) or reject(…), not 5",
    ),
    (
        "account:send('1', 'breaks', { how = 'forgets' })",
        "the decide of `breaks` made `event(…)` and did not return it: write `return event(…)`",
    ),
    (
        "account:send('1', 'breaks', { how = 'lets it pass' })",
        "the decide of `breaks` made `reject(…)` and did not return it",
    ),
    (
        "atomically(function(tx) reject('no') tx:emit('x/1', 'X', {}) end)",
        "the function of atomically made `reject(…)` and did not return it",
    ),
    ("json({ a = 1 })", "made `json(…)` and did not return it: write `return json(…)`"),
    (
        "svc:atomically(function() end)",
        "svc has no `atomically`: it is called without svc, as `atomically(…)`",
    ),
    ("atomically(function(tx) return tx:reject('x') end)", "`return reject(code, details)`"),
    ("return json(money.new(1, 'GBP') / 2)", "an amount is not divided"),
    ("svc.kv.x = 1", "kv is written by kv:put(\"x\", value)"),
    ("for k, v in svc.kv do end", "for _, row in kv:scan"),
    (
        "svc.kv:put('e/1', { n = 1 }) for key, value in svc.kv:scan('e/') do local n = value.n end",
        "a row has no `n`: for _, row in kv:scan(prefix) do … row.value.n",
    ),
    ("coroutine.yield()", "coroutine.yield may be called in a coroutine of the script only"),
    ("ctx.log.wran('x')", "ctx.log has no `wran`; did you mean `warn`?"),
    ("account:send('1', 'cannot')", "evolve cannot take it"),
    ("return money.new(1, 'GBP') + 1", "cannot add an amount and a number"),
    ("return money.new(1, 'GBP') == money.new(1, 'EUR')", "cannot compare GBP and EUR"),
    ("return evnt('X')", "attempt to call a nil value"),
    ("svc:http('GET', 'nobody', '/x')", "--service nobody=http://"),
];

#[tokio::test]
async fn every_name_gives_what_the_design_says() {
    let world = World::start().await;
    let mut script = HEAD.to_owned();
    for (i, (body, _)) in values().iter().enumerate() {
        let body = body.replace("ID", &format!("v{i}"));
        script += &format!(
            "svc:get('/v/{i}', function(req, ctx)\nreturn json({{ got = (function() {body} end)() }})\nend)\n"
        );
    }
    let running = world.run(&script).await;
    for (i, (body, expected)) in values().into_iter().enumerate() {
        let answer = running.ok(&format!("/v/{i}?q=a+b")).await;
        let expected: Value =
            serde_json::from_str(&expected.to_string().replace("ID", &format!("v{i}"))).unwrap();
        let got = answer.get("got").cloned().unwrap_or(Value::Null);
        assert_eq!(got, expected, "{body}");
    }
    running.host.shutdown().await;
}

#[tokio::test]
async fn what_does_not_fit_is_told_with_file_line_and_what_was_meant() {
    let world = World::start().await;
    let mut script = HEAD.to_owned();
    let first = script.lines().count() + 1;
    for (i, (body, _)) in ERRORS.iter().enumerate() {
        script += &format!("svc:get('/e/{i}', function(req, ctx) {body} end)\n");
    }
    let running = world.run(&script).await;
    for (i, (body, expected)) in ERRORS.iter().enumerate() {
        let (status, problem) = running.get(&format!("/e/{i}")).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!(status, 500, "{body}: {problem}");
        assert!(detail.contains(expected), "{body}: {detail}");
        // What fails inside decide or evolve is told where it stands there.
        let place = format!("script.lua:{}", first + i);
        assert!(
            detail.starts_with(&place) || body.contains("'breaks'") || body.contains("'cannot'"),
            "{body}: {detail}"
        );
        assert!(detail.starts_with("script.lua:"), "{body}: {detail}");
    }
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_script_that_is_wrong_is_refused_with_its_line_before_anything_starts() {
    let world = World::start().await;
    for (line, expected) in [
        ("svc:entitty('x', function() end)", "svc has no `entitty`; did you mean `entity`?"),
        ("svc:entity()", "svc:entity(name, initial): `name` must be a string, not nil"),
        ("svc:entity('a/b', function() end)", "cannot name an entity"),
        ("svc:entity('x', 5)", "`initial` must be a function that makes the state of a new one, not 5"),
        ("svc:entity('x', {}) svc:entity('x', {})", "there is an entity `x` already"),
        ("local x = svc:entity('x', {}) x:decide('c', { a = 'integr' }, print)", "did you mean `integer`?"),
        ("local x = svc:entity('x', {}) x:decide('c', {}, 5)", "`function` must be a function, not 5"),
        (
            "local x = svc:entity('x', {}) x:decide('c', print) x:decide('c', print)",
            "has the command `c` already",
        ),
        (
            "local x = svc:entity('x', {}) x:evolve('T', print) x:evolve('T', print)",
            "an evolve of `T` already",
        ),
        ("svc:on(5.5, print)", "`type` must be a string or a list of strings, not 5.5"),
        ("svc:on('T', print) svc:on({ 'U', 'T' }, print)", "`T` has a handler already"),
        ("svc:view('v', {}, print)", "`types` must be a string or a list of strings, not an empty table"),
        ("svc:view('v', 'T', print) svc:view('v', 'U', print)", "there is a view `v` already"),
        ("svc:get('x', print)", "the route `x` does not begin with a slash"),
        ("svc:after('T', 'soon', print)", "15m"),
        ("svc:rebuild({ befor = print })", "did you mean `before`?"),
        ("svc.entity('x', print)", "`entity` is called with a colon"),
        ("service('two')", "one file is one service"),
        ("account:send('1', 'x')", "attempt to index nil"),
        ("local x = svc:entity('x', {}) x:state('1')", "may not be called while the script loads"),
        ("require('../x')", "only files beside the script can be required"),
        ("srvice('x')", "did you mean `service`?"),
        ("local = 5", "Expected identifier"),
    ] {
        let script = format!("local svc = service('bad', {{ version = 1 }})\n{line}");
        let refused = world.try_run(&[("bad.lua", &script)], "one").await.err().unwrap().to_string();
        assert!(refused.starts_with("bad.lua:2: "), "{line}: {refused}");
        assert!(refused.contains(expected), "{line}: {refused}");
        let shown = refused.lines().nth(1).unwrap_or_default();
        assert_eq!(shown, format!("  2 | {line}"), "{refused}");
        assert!(
            refused.lines().nth(2).unwrap_or_default().trim_end().ends_with("| ^") || refused.contains('^')
        );
    }
    let options = world.try_run(&[("bad.lua", "service('x', { verson = 1 })")], "one").await.err().unwrap();
    assert!(options.to_string().contains("did you mean `version`?"), "{options}");
}

const HANDLERS: &str = r#"
local svc = service("handlers", { version = 1 })
local thing = svc:entity("thing", function() return { n = 0 } end)
thing:decide("count", {}, function(state, _, ctx) return event("Counted", { chance = ctx.random(), id = ctx.uuid(), now = ctx.now }) end)
thing:evolve({ "Counted", "Foreign" }, function(state) state.n += 1 end)
svc:receipt("count", function(r, ctx) svc:publish("Received", { ok = r.ok, of = ctx.correlationid }) end)
svc:on({ "Asked", "AskedToo" }, function(e, ctx)
  local answer = thing:send("1", "count")
  svc.kv:put("last", e.id)
  svc:publish("Answered", e.subject, {
    id = e.id, ok = answer.ok, now = ctx.now == e.recordedtime, position = ctx.position == e.position,
    session = ctx.sessionid == e.sessionid, correlation = ctx.correlationid == e.correlationid, replaying = ctx.replaying,
    n = thing:state("1").n, source = type(e.source), sequence = e.sequence, time = type(e.time),
  })
end)
svc:on("AfterOld", function(e)
  svc:publish("Foreign", e.subject, {})
  local answer = atomically(function(tx) tx:emit(e.subject, "Late", {}, { after = e }) end)
  svc:publish("Late?", { ok = answer.ok, code = answer.code })
end)
svc:on("ParkMe", function() return park("it is told to") end)
svc:on("Random", function() crypto.token() end)
svc:get("/last", function() return json({ last = svc.kv:get("last"), n = thing:state("1").n }) end)
svc:get("/nested", function() return json(svc:http("GET", "handlers", "/last?x=1")) end)
svc:get("/nested/ok", function()
  local answer = svc:http("get", "handlers", "/last")
  local missing = svc:http("GET", "handlers", "/nowhere")
  return json({ ok = answer.ok, status = answer.status, n = answer.n, whole = answer.json.n, missing = missing.status, code = missing.code })
end)
svc:get("/at", function(req) return json({ given = thing:state("1", { at = req.query.at }).n, plain = thing:state("1").n }) end)
svc:get("/teapot", function() return json({ short = true }, 418, { ["x-kind"] = "teapot" }) end)
svc:get("/missing", function() return json(reject("not_found", { id = 1 })) end)
svc:get("/odd", function() return json(reject("odd")) end)
svc:get("/created", function() return json(reject("odd"), 201) end)
svc:get("/odder", function() return json(reject("odd"), 422) end)
svc:post("/money", function(req) return json({ amount = money.parse(req.json.amount) }) end)
svc:post("/raw", function(req) return json({ body = req.body, json = req.json }) end)
svc:get("/plain", function() return { plain = true } end)
"#;

#[tokio::test]
async fn handlers_know_their_event_and_what_they_do_is_its_consequence() {
    let world = World::start().await;
    let running = world.run(HANDLERS).await;
    let asked = world.cause("Asked", "k/1").await;
    let answered = world.wait_for("Answered", 1).await.remove(0);
    let Some(daybook_model::Data::Json(data)) = &answered.data else { panic!("no data") };
    let data: Value = serde_json::from_str(data.get()).unwrap();
    for name in ["ok", "now", "position", "session", "correlation"] {
        assert_eq!(data[name], true, "{name}: {data}");
    }
    assert_eq!((&data["replaying"], &data["n"], &data["id"]), (&json!(false), &json!(1), &json!(asked)));
    assert_eq!(answered.causationid.as_deref(), Some(asked.as_str()));
    assert_eq!(answered.id[..13], asked[..13], "its id begins with another time");
    let all = world.events(&["Asked", "Counted", "Received", "Answered"]).await;
    let kinds: Vec<&str> = all.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["Asked", "Counted", "Received", "Answered"]);
    assert!(all.iter().all(|event| event.correlationid == all[0].correlationid), "another unit of work");
    assert!(all[1..].iter().all(|event| event.extensions.iter().any(|(name, _)| name == "scripthash")));
    let mut last = json!(null);
    for _ in 0..500 {
        last = running.ok("/last").await;
        if last["last"] == json!(asked) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(last, json!({ "last": asked, "n": 1 }));
    assert_eq!(running.ok("/nested").await, last, "the answer of svc:http is what the route answered");
    let nested = running.ok("/nested/ok").await;
    assert_eq!(
        nested,
        json!({ "ok": true, "status": 200, "n": 1, "whole": 1, "missing": 404, "code": "not-found" })
    );
    let counted = all[1].position;
    assert_eq!(running.ok(&format!("/at?at={counted}")).await, json!({ "given": 0, "plain": 0 }));
    assert_eq!(running.ok("/at").await, json!({ "given": 1, "plain": 1 }));
    running.host.shutdown().await;
}

#[tokio::test]
async fn who_names_an_event_to_come_after_is_told_at_once_when_others_were_faster() {
    let world = World::start().await;
    let running = world.run(HANDLERS).await;
    world.cause("AfterOld", "k/1").await;
    let late = world.wait_for("Late?", 1).await.remove(0);
    let Some(daybook_model::Data::Json(data)) = &late.data else { panic!("no data") };
    let data: Value = serde_json::from_str(data.get()).unwrap();
    assert_eq!(data, json!({ "ok": false, "code": "conflict" }));
    assert!(world.events(&["Late"]).await.is_empty());
    running.host.shutdown().await;
}

#[tokio::test]
async fn what_is_parked_says_why_in_the_group() {
    let world = World::start().await;
    let running = world.run(HANDLERS).await;
    world.cause("ParkMe", "k/park").await;
    let parked = format!("{}/v1/groups/handlers/parked", world.bus);
    for _ in 0..500 {
        let text = reqwest::get(&parked).await.unwrap().text().await.unwrap();
        if text.contains("it is told to") && text.contains("k/park") {
            running.host.shutdown().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it was never parked");
}

#[tokio::test]
async fn answers_have_the_status_the_code_and_the_headers_that_the_script_gave() {
    let world = World::start().await;
    let running = world.run(HANDLERS).await;
    let http = reqwest::Client::new();
    let base = format!("http://{}", running.host.local_addr());
    let teapot = http.get(format!("{base}/teapot")).send().await.unwrap();
    assert_eq!((teapot.status().as_u16(), teapot.headers()["x-kind"].to_str().unwrap()), (418, "teapot"));
    for (path, status, code) in [
        ("/missing", 404, "not_found"),
        ("/odd", 409, "odd"),
        ("/odder", 422, "odd"),
        ("/created", 409, "odd"),
        ("/nowhere", 404, "not-found"),
    ] {
        let answer = http.get(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{path}");
    }
    assert_eq!(running.ok("/plain").await, json!({ "plain": true }));
    // An amount that is none is the mistake of who sent it.
    for body in [
        r#"{}"#,
        r#"{"amount":5}"#,
        r#"{"amount":{"minor":5,"currency":"GBP"}}"#,
        r#"{"amount":{"minor":"5","currency":"pounds"}}"#,
    ] {
        let (status, problem) = running.post("/money", body, None).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid")), "{body}: {problem}");
    }
    // curl without a content type means what it shows; other things are a body only.
    for (kind, body, parsed) in [
        (Some("application/x-www-form-urlencoded"), r#"{"a":1}"#, json!({ "a": 1 })),
        (None, r#"[1]"#, json!([1])),
        (Some("text/plain"), r#"{"a":1}"#, json!({})),
        (Some("application/cloudevents+json"), r#"{"a":1}"#, json!({ "a": 1 })),
    ] {
        let mut request = http.post(format!("{base}/raw")).body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(answer, json!({ "body": body, "json": parsed }), "{kind:?}");
    }
    let form =
        http.post(format!("{base}/raw")).body(r#"{"a":1}"#).header("origin", "https://elsewhere.example");
    let form = form.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
    let form: Value = serde_json::from_str(&form.text().await.unwrap()).unwrap();
    assert_eq!(form["json"], json!({}), "a page of another site sent JSON");
    running.host.shutdown().await;
}

#[tokio::test]
async fn a_service_asks_another_host_and_stays_in_its_unit_of_work() {
    let world = World::start().await;
    let far = "local svc = service('far', {})\nsvc:get('/who', function(_, ctx) return json({ unit = ctx.correlationid }) end)";
    let near = "local svc = service('near', {})\nsvc:get('/ask', function(_, ctx) local a = svc:http('GET', 'far', '/who') return json({ same = a.unit == ctx.correlationid, ok = a.ok }) end)";
    let far = world.try_run(&[("far.lua", far)], "far").await.unwrap();
    let near = world.run_beside(near, &[("far", &format!("http://{}", far.host.local_addr()))]).await;
    assert_eq!(near.ok("/ask").await, json!({ "same": true, "ok": true }));
    near.host.shutdown().await;
    far.host.shutdown().await;
}

#[tokio::test]
async fn files_beside_the_script_are_required_once_and_belong_to_it() {
    let world = World::start().await;
    let dir = world.dir.path().join("bundle");
    std::fs::create_dir_all(dir.join("lib")).unwrap();
    std::fs::write(world.dir.path().join("secret.lua"), "return 'secret'").unwrap();
    std::fs::write(dir.join("lib/prices.lua"), "return { tea = money.new(350, 'GBP') }").unwrap();
    std::fs::write(
        dir.join("shop.lua"),
        "local svc = service('shop', {})\nlocal prices = require('./lib/prices')\nassert(prices == require('lib/prices.lua'))\nsvc:get('/tea', function() return json(prices.tea) end)",
    )
    .unwrap();
    let running = world.run_file(&dir.join("shop.lua")).await;
    assert_eq!(running.ok("/tea").await, gbp("350"));
    // A required file that changes is a script that changes.
    std::fs::write(dir.join("lib/prices.lua"), "return { tea = money.new(400, 'GBP') }").unwrap();
    let mut tea = json!(null);
    for _ in 0..500 {
        tea = running.ok("/tea").await;
        if tea == gbp("400") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(tea, gbp("400"));
    running.host.shutdown().await;
    std::os::unix::fs::symlink(world.dir.path().join("secret.lua"), dir.join("out.lua")).unwrap();
    for (text, expected) in [
        ("require('./out')", "outside of the script's directory"),
        ("require('/etc/passwd')", "only files beside the script"),
        ("require('./none')", "no such file"),
        ("require('./circle')", "in a circle"),
    ] {
        std::fs::write(dir.join("circle.lua"), "require('./circle')").unwrap();
        std::fs::write(dir.join("bad.lua"), format!("local svc = service('bad', {{}})\n{text}")).unwrap();
        let refused = world.try_run_file(&dir.join("bad.lua")).await.err().unwrap().to_string();
        assert!(refused.contains(expected), "{text}: {refused}");
    }
}
