-- What a test may say. `host` are the few things that only the host can do.
local host = ...
local null = host.null
local tests, T = {}, {}
T.__index = function(_, name)
  local found = T[name]
  if found then return found end
  local known = {}
  for method in T do if not string.find(method, "__", 1, true) then table.insert(known, method) end end
  table.sort(known)
  error("t has no `" .. tostring(name) .. "`; it has " .. table.concat(known, ", "), 2)
end

local function show(value)
  if value == null then return "null" end
  if type(value) == "string" then return string.format("%q", value) end
  if type(value) ~= "table" then return tostring(value) end
  if value.__kind == "event" then return value.type .. " " .. show(value.data or {}) end
  local parts, list = {}, #value > 0
  for key, item in value do
    if key ~= "__kind" then table.insert(parts, (list and "" or tostring(key) .. " = ") .. show(item)) end
  end
  if #parts == 0 then return "{}" end
  if not list then table.sort(parts) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function same(a, b)
  -- Amounts of two currencies cannot be compared; they are just not the same.
  local fine, equal = pcall(function() return a == b end)
  return fine and equal
end

-- Where what was found differs from what is expected. What else is there does not matter.
local function differences(expected, found, path, list)
  if type(expected) == "table" and type(found) == "table" then
    for key, item in expected do
      if key ~= "__kind" then
        local name = if type(key) == "number" then path .. "[" .. key .. "]"
          else (if path == "" then "" else path .. ".") .. tostring(key)
        differences(item, found[key], name, list)
      end
    end
    if #expected > 0 and #found > #expected then
      table.insert(list, (if path == "" then "it" else path) .. " has " .. #found .. " items, not " .. #expected)
    end
  elseif not same(expected, found) and not (expected == null and found == nil) then
    table.insert(list, (if path == "" then "" else path .. ": ") .. "expected " .. show(expected) .. ", got " .. show(found))
  end
  return list
end

local function fail(level, what, list)
  for _, line in ipairs(list or {}) do what ..= "\n  " .. line end
  error(what, level + 1)
end

local function shown(e)
  return e.type .. (e.subject and " " .. e.subject or "") .. " " .. show(e.data or {})
end

-- An entity, or its name.
local function name_of(entity, what)
  local name = host.name(entity) or (type(entity) == "string" and entity)
  if not name then
    local known = {}
    for known_name in host.entities do table.insert(known, known_name) end
    table.sort(known)
    local there = if #known == 0 then "the script has none" else "there is " .. table.concat(known, ", ")
    error(what .. ": the first argument is an entity, not " .. show(entity) .. "; " .. there, 3)
  end
  return name
end

local function act(t, action, event)
  t.again = function(again)
    local wanted = action(event)
    wanted.again = again
    return host.act(wanted)
  end
  t.acted, t.from = true, host.head()
  t.last = t.again(false)
  return t.last
end

-- Events since the last `when`, without the one that caused it.
local function since(t)
  local found = {}
  for _, e in host.events(t.from) do
    -- The host's own note that a timer was done is nothing that the service said.
    local is_note = string.match(e.type, "%.TimerFired$") and e.data.event
    if e.id ~= t.trigger and not is_note then table.insert(found, e) end
  end
  return found
end

local function acted(t, what)
  if not t.acted then error(what .. " comes after a when", 3) end
end

-- The first event since the last `when` that a handler wants and has not had.
local function unhandled(t)
  for _, e in since(t) do
    if host.handles(e.type) and not t.settled[e.id] then return e end
  end
  return nil
end

-- For a promise that fails: what a delivery would have done by now, and a test does when told.
local function hint(t, list)
  local waiting = t.acted and unhandled(t)
  if waiting then
    table.insert(list, "`" .. waiting.type .. "` was not handled yet: t:settle() handles what was emitted, and what follows from it")
  end
end

-- (type, subject, data), (event(…), subject), (subject, event(…)), or as in given (subject, type, data).
local function said(kind, subject, data)
  if type(kind) == "string" and type(subject) == "string" and string.find(kind, "/", 1, true)
    and not string.find(subject, "/", 1, true) then
    return subject, kind, data
  end
  if type(kind) == "table" and kind.__kind == "event" then return kind.type, subject, kind.data end
  if type(subject) == "table" and subject.__kind == "event" then return subject.type, kind, subject.data end
  if type(subject) == "table" and data == nil then return kind, nil, subject end
  return kind, subject, data
end

function T:given(subject, events, more)
  if host.name(subject) then subject, events = host.name(subject) .. "/" .. tostring(events), more end
  if type(events) == "table" and events.__kind == "event" then events = { events } end
  if type(subject) ~= "string" or type(events) ~= "table" then
    error("t:given(subject, { event(…), … }): got " .. show(subject) .. " and " .. show(events), 2)
  end
  host.given(subject, events)
end

function T:when(entity, id, command, fields)
  self.count += 1
  self.trigger = false
  local name, key = name_of(entity, "t:when"), "test-" .. self.count
  return act(self, function()
    return { kind = "send", entity = name, id = tostring(id), command = command, fields = fields, key = key }
  end)
end

function T:when_event(...)
  local kind, subject, data = said(...)
  self.trigger = host.publish(kind, subject, data)
  return act(self, function(event) return { kind = "handle", event = event } end, self.trigger)
end

-- Handles what the last `when` emitted, and what that emits, until there is nothing left.
function T:settle()
  acted(self, "t:settle()")
  for _ = 1, 100 do
    local e = unhandled(self)
    if not e then return end
    self.settled[e.id] = true
    local before = self.again
    self.again = function(again)
      local first = before(again)
      host.act({ kind = "handle", event = e.id, again = again })
      return first
    end
    local outcome = host.act({ kind = "handle", event = e.id, follows = true })
    -- What is parked holds up its key; here it is what became of the whole.
    if outcome.ok == false then
      self.last = outcome
      return
    end
  end
  error("t:settle(): after 100 events there is still one to handle: do handlers answer each other for ever?", 2)
end

-- The event has happened and the time of its `svc:after` has come.
function T:when_due(...)
  local kind, subject, data = said(...)
  self.trigger = host.publish(kind, subject, data)
  return act(self, function(event) return { kind = "due", event = event } end, self.trigger)
end

local function answer_of(t, answer, expected)
  if expected ~= nil then
    local list = differences(expected, answer.json, "", {})
    if #list > 0 then fail(3, "the answer is " .. answer.status .. " " .. show(answer.json), list) end
  end
  answer.body = answer.json
  return answer
end

local METHODS = { GET = true, POST = true, PUT = true, PATCH = true, DELETE = true }

-- (method, service, path, …) as svc:http takes them; without a method it is a GET.
local function asking(what, method, ...)
  if type(method) == "string" and METHODS[string.upper(method)] then
    method = string.upper(method)
    local service, path, rest = ...
    if type(service) == "string" and type(path) == "string" then return method, service, path, rest end
  else
    local path, rest = ...
    if type(method) == "string" and type(path) == "string" then return "GET", method, path, rest end
  end
  error(what .. "(method, service, path, …): method, service and path are texts", 3)
end

-- What another service answers from here on: a value, json(value, status), reject(…); nothing: it cannot be reached.
function T:given_http(...)
  host.given_http(asking("t:given_http", ...))
end

-- The last action has asked another service this; with `body`, what the request's must hold.
function T:asked(...)
  acted(self, "t:asked")
  local method, service, path, body = asking("t:asked", ...)
  local list, near = {}, {}
  for _, asked in host.asked() do
    table.insert(list, "+ " .. asked.method .. " " .. asked.service .. " " .. asked.path .. (if asked.body == null then "" else " " .. show(asked.body)))
    if asked.method == method and asked.service == service and asked.path == path then
      near = if body == nil then {} else differences(body, asked.body, "body", {})
      if #near == 0 then return asked end
    end
  end
  table.move(near, 1, #near, #list + 1, list)
  fail(2, "it did not ask " .. method .. " " .. service .. " " .. path .. "; it asked " .. #list - #near .. " times", list)
end

-- A GET changes nothing: it is no `when`.
function T:get(path, expected)
  return answer_of(self, host.act({ kind = "request", method = "GET", path = path }), expected)
end

for _, method in { "post", "put", "patch", "delete" } do
  T[method] = function(self, path, body, options)
    self.trigger = false
    local headers = options and (options.headers or options) or nil
    local answer = act(self, function()
      return { kind = "request", method = string.upper(method), path = path, body = body, headers = headers }
    end)
    return answer_of(self, answer)
  end
end

function T:accepted()
  acted(self, "t:accepted()")
  if not self.last.ok then fail(2, "it was not accepted: " .. show(self.last)) end
end

function T:rejected(code, details)
  acted(self, "t:rejected()")
  if self.last.ok ~= false then fail(2, "it was accepted: " .. show(self.last)) end
  if code and self.last.code ~= code then
    fail(2, "it was rejected as " .. tostring(self.last.code) .. ", not as " .. code, { show(self.last) })
  end
  local found = self.last.details or (self.last.json or {}).details or {}
  local list = details and differences(details, found, "details", {}) or {}
  if #list > 0 then fail(2, "it was rejected as " .. tostring(self.last.code) .. " with other details", list) end
end

function T:emitted(expected, data)
  acted(self, "t:emitted")
  if type(expected) == "string" then expected = { { type = expected, data = data } } end
  if expected.__kind == "event" or type(expected.type) == "string" then expected = { expected } end
  local found, list = since(self), {}
  for i = 1, math.max(#found, #expected) do
    local want, got = expected[i], found[i]
    if type(want) == "string" then want = { type = want } end
    local wrong = {}
    if want and got then
      if want.type ~= got.type then table.insert(wrong, "type: expected " .. tostring(want.type) .. ", got " .. got.type) end
      if want.subject and want.subject ~= got.subject then
        table.insert(wrong, "subject: expected " .. want.subject .. ", got " .. tostring(got.subject))
      end
      if want.type == got.type and want.data then differences(want.data, got.data, "data", wrong) end
    end
    local fits = want and got and #wrong == 0
    if fits then
      table.insert(list, "  " .. i .. "  " .. shown(got))
    else
      if want then table.insert(list, "- " .. i .. "  " .. shown(want)) end
      if got then table.insert(list, "+ " .. i .. "  " .. shown(got)) end
      for _, line in wrong do table.insert(list, "      " .. line) end
      list.wrong = true
    end
  end
  if list.wrong then
    if #found < #expected then hint(self, list) end
    fail(2, "emitted were " .. #found .. " events, expected " .. #expected .. " (- expected, + emitted)", list)
  end
  return found
end

function T:state(entity, id, expected)
  local found
  if type(entity) == "string" and string.find(entity, "/", 1, true) then
    expected = id
    entity, id = string.match(entity, "^(.-)/(.*)$")
  end
  local name = name_of(entity, "t:state")
  found = host.entities[name]
  if not found then error("t:state: there is no entity `" .. name .. "`", 2) end
  found = found:state(id)
  local list = expected ~= nil and differences(expected, found, "", {}) or {}
  if #list > 0 then
    hint(self, list)
    fail(2, "the state of " .. name .. "/" .. tostring(id) .. " is " .. show(found), list)
  end
  return found
end

-- The same command, event or request again: the same answer and nothing new.
function T:twice()
  acted(self, "t:twice()")
  local before = #since(self)
  local first, second = self.last, self.again(true)
  local found = since(self)
  if #found ~= before then
    local list = {}
    for i = before + 1, #found do table.insert(list, "+ " .. shown(found[i])) end
    fail(2, "the repeat emitted " .. (#found - before) .. " events", list)
  end
  if first.ok ~= second.ok or first.code ~= second.code then
    fail(2, "the first time it was " .. show(first) .. ", then " .. show(second))
  end
end

-- The last action is run again, on another bus each time, with a crash at every
-- place where one makes a difference; see testing/crash.rs.
function T:crash_at_every_step(action)
  if type(action) == "function" then action(self) end
  acted(self, "t:crash_at_every_step()")
  local expected, found = host.crash(self.from)
  if expected ~= nil then
    local list = differences(expected, found, "", {})
    differences(found, expected, "without a crash, ", list)
    fail(2, "the outcome is another one than without a crash", list)
  end
end

local function test(name, body)
  if type(name) ~= "string" or type(body) ~= "function" then
    error("test(name, function(t) … end): got " .. show(name) .. " and " .. show(body), 2)
  end
  table.insert(tests, { name = name, body = body })
end

return test, tests, function(i)
  tests[i].body(setmetatable({ count = 0, from = "0", acted = false, last = false, again = false, trigger = false, settled = {} }, T))
end
