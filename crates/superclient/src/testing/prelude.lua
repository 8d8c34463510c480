-- What a test may say. `host` are the few things that only the host can do.
local host = ...
local tests, T = {}, {}
T.__index = T

local function show(value)
  if type(value) ~= "table" then return tostring(value) end
  if value.__kind == "event" then return value.type .. show(value.data or {}) end
  local parts = {}
  for key, item in value do
    table.insert(parts, (type(key) == "number" and "" or tostring(key) .. " = ") .. show(item))
  end
  table.sort(parts)
  return "{ " .. table.concat(parts, ", ") .. " }"
end

-- Everything that is expected is there; what else is there does not matter.
local function fits(expected, found)
  if type(expected) ~= "table" or type(found) ~= "table" then return expected == found end
  for key, item in expected do
    if not fits(item, found[key]) then return false end
  end
  return true
end

local function act(t, action)
  t.again, t.from = action, host.head()
  t.last = action()
  return t.last
end

-- Events since the last `when`, without the one that caused it.
local function since(t)
  local found = {}
  for _, e in host.events(t.from) do
    if e.id ~= t.trigger then table.insert(found, e) end
  end
  return found
end

function T:given(subject, events)
  if type(events) == "table" and events.__kind == "event" then events = { events } end
  host.given(subject, events)
end

function T:when(entity, id, command, fields)
  self.count += 1
  local key = "test-" .. self.count
  return act(self, function() return entity:send(id, command, fields, { id = key }) end)
end

function T:when_event(kind, subject, data)
  if type(kind) == "table" then kind, subject, data = kind.type, subject, kind.data end
  local event
  return act(self, function()
    event = event or host.publish(kind, subject, data)
    self.trigger = event
    return host.handle(event)
  end)
end

function T:get(path) return host.request("GET", path) end

function T:post(path, body)
  return act(self, function() return host.request("POST", path, body) end)
end

function T:accepted()
  if not (self.last and self.last.ok) then error("it was not accepted: " .. show(self.last), 2) end
end

function T:rejected(code)
  if not self.last or self.last.ok ~= false then error("it was accepted: " .. show(self.last), 2) end
  if code and self.last.code ~= code then
    error("it was rejected as " .. tostring(self.last.code) .. ", not as " .. code, 2)
  end
end

function T:emitted(expected)
  local found = since(self)
  local names = {}
  for _, e in found do table.insert(names, e.type .. show(e.data)) end
  local told = "emitted were " .. (#names == 0 and "no events" or table.concat(names, ", "))
  if #found ~= #expected then error(#expected .. " events were expected; " .. told, 2) end
  for i, want in expected do
    if type(want) == "string" then want = { type = want } end
    local got = found[i]
    local same = want.type == got.type and fits(want.data or {}, got.data)
    if want.subject and want.subject ~= got.subject then same = false end
    if not same then error("event " .. i .. " should be " .. show(want) .. "; " .. told, 2) end
  end
end

function T:state(entity, id, expected)
  local found = entity:state(id)
  if expected ~= nil and not fits(expected, found) then
    error("the state is " .. show(found) .. ", not " .. show(expected), 2)
  end
  return found
end

-- The same command or event again: the same answer and nothing new.
function T:twice()
  if not self.again then error("twice() comes after a when", 2) end
  local before = #since(self)
  local first, second = self.last, self.again()
  local after = #since(self)
  if after ~= before then error("the repeat emitted " .. (after - before) .. " events", 2) end
  if (first and first.ok) ~= (second and second.ok) then
    error("the first time it was " .. show(first) .. ", then " .. show(second), 2)
  end
end

function T:crash_at_every_step() error("crash_at_every_step() is not there yet", 2) end

local function test(name, body)
  table.insert(tests, { name = name, body = body })
end

return test, tests, function(i)
  tests[i].body(setmetatable({ count = 0, from = "0" }, T))
end
