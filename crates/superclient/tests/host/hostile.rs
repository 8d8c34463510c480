//! Scripts that would take the host with them if they could: bodies of routes.
//!
//! `account` is an ordinary entity with commands that misbehave, `loopy` one
//! whose initial state never comes. Each body must end in an error that names
//! its file and line.

pub const HEAD: &str = r#"
local svc = service("hostile", {})
local account = svc:entity("account", function() return { n = 0 } end)
account:decide("go", function() return event("Went") end)
account:evolve("Went", function(state) state.n += 1 end)
account:decide("loop", function() while true do end end)
account:decide("many", function() local t = {} for i = 1, 5000 do t[i] = event("Went") end return t end)
account:decide("endless", function() return event("Looped") end)
account:evolve("Looped", function() while true do end end)
local loopy = svc:entity("loopy", function() while true do end end)
svc:get("/well", function() return json({}) end)
"#;

pub const ROUTES: [(&str, &str); 72] = [
    // Time.
    ("a loop", "while true do end"),
    ("a loop in pcall", "while true do pcall(function() while true do end end) end"),
    ("a loop in xpcall's handler", "while true do xpcall(error, function() while true do end end) end"),
    ("pcall for ever", "local function f() pcall(f) f() end f()"),
    ("a loop in a coroutine", "coroutine.wrap(function() while true do end end)()"),
    (
        "loops in coroutines in pcall",
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
    ),
    ("nested coroutines", "local function f() coroutine.wrap(f)() end f()"),
    ("yielding for ever", "while true do coroutine.yield() end"),
    ("numbers that never come", "while math.random() >= 0 do end"),
    ("repeat", "local i = 0 repeat i += 1 until i < 0"),
    ("for without end", "for i = 1, math.huge do end"),
    (
        "iteration without end",
        "for _ in setmetatable({}, { __iter = function() return function() return 1 end end }) do end",
    ),
    ("a pattern bomb", "string.find(string.rep('a', 200), string.rep('a?', 200) .. string.rep('a', 200))"),
    ("lazy patterns", "string.find(string.rep('a', 3000), '.-.-.-.-.-.-b')"),
    (
        "gmatch over and over",
        "while true do for _ in string.gmatch(string.rep('a', 20000), '.-b') do end end",
    ),
    ("gsub over and over", "local s = string.rep('a', 30000) while true do s = string.gsub(s, 'a', 'b') end"),
    ("gsub with a loop", "string.gsub('x', 'x', function() while true do end end)"),
    ("sort with a loop", "table.sort({ 3, 2, 1 }, function() while true do end end)"),
    (
        "sort that lies",
        "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t, function(a, b) return a > b end) end",
    ),
    ("inserting in front", "local t = {} for i = 1, 1e9 do table.insert(t, 1, i) end"),
    ("utf8 over and over", "local s = string.rep('ü', 1e5) while true do utf8.len(s) end"),
    ("upper over and over", "local s = string.rep('x', 1e6) while true do string.upper(s) end"),
    ("buffers filled for ever", "local b = buffer.create(1e6) while true do buffer.fill(b, 0, 1) end"),
    ("logging for ever", "while true do ctx.log('x') end"),
    ("an error storm", "while true do pcall(error, { string.rep('x', 1000) }) end"),
    // Metatables.
    (
        "__index that asks on",
        "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end }) return t[1]",
    ),
    ("__index in a circle", "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x"),
    ("__newindex in a circle", "local t = setmetatable({}, {}) getmetatable(t).__newindex = t t.x = 1"),
    (
        "__tostring with a loop",
        "tostring(setmetatable({}, { __tostring = function() while true do end end }))",
    ),
    (
        "an error with a looping __tostring",
        "error(setmetatable({}, { __tostring = function() while true do end end }))",
    ),
    (
        "an error whose __tostring fails",
        "error(setmetatable({}, { __tostring = function() error('again') end }))",
    ),
    ("an error that is a table", "error({ code = 1 })"),
    ("an error that is nil", "error(nil)"),
    (
        "__eq with a loop",
        "local m = { __eq = function() while true do end end } return setmetatable({}, m) == setmetatable({}, m)",
    ),
    (
        "__lt with a loop",
        "local m = { __lt = function() while true do end end } return setmetatable({}, m) < setmetatable({}, m)",
    ),
    (
        "__concat with a loop",
        "return setmetatable({}, { __concat = function() while true do end end }) .. 'x'",
    ),
    ("__call with a loop", "setmetatable({}, { __call = function() while true do end end })()"),
    ("__len with a loop", "return #setmetatable({}, { __len = function() while true do end end })"),
    // Memory and stack.
    ("recursion", "local function f(n) return 1 + f(n + 1) end f(1)"),
    ("a string that doubles", "local s = 'x' while true do s = s .. s end"),
    ("string.rep", "local s = string.rep('x', 1e9)"),
    ("string.rep without end", "local s = string.rep('x', 2^31 - 1)"),
    ("tables", "local t = {} while true do t[#t + 1] = {} end"),
    ("table.create", "local t = table.create(1e9, 0)"),
    ("table.concat", "local t = {} for i = 1, 1e7 do t[i] = 'xxxxxxxx' end return table.concat(t)"),
    ("table.unpack", "return select('#', table.unpack(table.create(1e6, 1)))"),
    ("string.byte", "return string.byte(string.rep('x', 1e7), 1, -1)"),
    ("buffers", "local b = {} while true do b[#b + 1] = buffer.create(1e6) end"),
    ("one big buffer", "buffer.create(2^31)"),
    (
        "a coroutine storm",
        "local t = {} while true do t[#t + 1] = coroutine.wrap(function() coroutine.yield() end) t[#t]() end",
    ),
    ("closures", "local f = function() end while true do local g = f f = function() return g end end"),
    ("string.format", "string.format('%99999999d', 1)"),
    ("utf8.char", "local s = '' while true do s = s .. utf8.char(0x10FFFF, 0x10FFFF) .. s end"),
    // What leaves the machine.
    ("a huge answer", "local t = {} for i = 1, 1e8 do t[i] = i end return json(t)"),
    ("a deep answer", "local t = {} for i = 1, 1e5 do t = { t } end return json(t)"),
    ("an answer in a circle", "local t = {} t.t = t return json(t)"),
    ("a giant event", "svc:publish('X', { s = string.rep('x', 5e6) })"),
    ("events without end", "while true do svc:publish('Flood') end"),
    ("commands without end", "while true do account:send('1', 'go') end"),
    ("a batch too large", "account:send('2', 'many')"),
    ("emitting without end", "atomically(function(tx) while true do tx:emit('x/1', 'X', {}) end end)"),
    (
        "loading without end",
        "atomically(function(tx) while true do tx:load(account, tostring(math.random())) end end)",
    ),
    ("atomically that never ends", "atomically(function() while true do end end)"),
    ("a decide that loops", "account:send('3', 'loop')"),
    ("an evolve that loops", "account:send('4', 'endless')"),
    ("a state that never comes", "loopy:state('1')"),
    (
        "kv without end",
        "local i = 0 while true do i += 1 svc.kv:put(tostring(i), string.rep('x', 10000)) end",
    ),
    ("append without end", "while true do svc.kv:append('k', string.rep('x', 1000)) end"),
    ("asking for ever", "while true do svc:http('GET', 'innocent', '/innocent') end"),
    // What is not there.
    ("io", "io.open('/etc/passwd')"),
    ("loadstring", "loadstring('return 1')()"),
    ("the host's tables", "rawset(string, 'rep', nil)"),
];
