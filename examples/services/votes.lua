-- Voting: one person, one vote, counted in a view; closed by whoever opened it.
local svc = service("votes", { version = 1 })

local poll = svc:entity("poll", function() return { open = false, options = {}, voted = {} } end)
poll:evolve("PollOpened", function(state, e)
  state.open, state.by, state.question = true, e.data.by, e.data.question
  for _, option in e.data.options do state.options[option] = true end
end)
poll:evolve("VoteCast", function(state, e) state.voted[e.data.voter] = e.data.option end)
poll:evolve("PollClosed", function(state) state.open = false end)

poll:decide("open", { by = "id", question = "string", options = "table" }, function(state, command)
  if state.question then return reject("exists") end
  if #command.options < 2 then return reject("invalid", { field = "options", reason = "at least two" }) end
  return event("PollOpened", { by = command.by, question = command.question, options = command.options })
end)
poll:decide("vote", { voter = "id", option = "string" }, function(state, command, ctx)
  if not state.question then return reject("not_found") end
  if not state.open then return reject("closed") end
  if not state.options[command.option] then return reject("no_such_option") end
  if state.voted[command.voter] then return reject("voted_already", { option = state.voted[command.voter] }) end
  return event("VoteCast", { voter = command.voter, option = command.option, at = ctx.now })
end)
poll:decide("close", { by = "id" }, function(state, command)
  if not state.open then return ok("closed already") end
  if state.by ~= command.by then return reject("forbidden") end
  return event("PollClosed", {})
end)

svc:view("counts", { "PollOpened", "VoteCast" }, function(kv, e)
  if e.type == "PollOpened" then
    for _, option in e.data.options do kv:put(e.subject .. "/" .. option, 0) end
  else
    local key = e.subject .. "/" .. e.data.option
    kv:put(key, kv:get(key) + 1)
  end
end)

svc:put("/polls/:id", function(req) return json(poll:send(req.params.id, "open", req.json), 201) end)
svc:post("/polls/:id/votes", function(req)
  local answer = poll:send(req.params.id, "vote", req.json)
  if answer.code == "forbidden" then return json(answer, 403) end
  return json(answer)
end)
svc:post("/polls/:id/close", function(req)
  local answer = poll:send(req.params.id, "close", req.json)
  return json(answer, answer.code == "forbidden" and 403 or nil)
end)
svc:get("/polls/:id", function(req)
  local prefix = "poll/" .. req.params.id .. "/"
  local counts = {}
  for _, entry in svc.views.counts:scan(prefix) do counts[string.sub(entry.key, #prefix + 1)] = entry.value end
  local state = poll:state(req.params.id)
  if not state.question then return json(reject("not_found")) end
  return json({ question = state.question, open = state.open, counts = counts })
end)
svc:stream("/polls/:id/votes/stream", { "VoteCast", "PollClosed" }, function(e, req)
  if e.subject ~= "poll/" .. req.params.id then return nil end
  return { type = e.type, option = e.data.option or null }
end)
