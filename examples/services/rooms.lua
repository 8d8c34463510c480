-- Chat rooms: messages, members, a stream per room, and a limit on how fast one talks.
local svc = service("rooms", { version = 1 })

local room = svc:entity("room", function() return { members = {}, messages = 0 } end)
room:evolve("MemberJoined", function(state, e) state.members[e.data.who] = true end)
room:evolve("MemberLeft", function(state, e) state.members[e.data.who] = nil end)
room:evolve("MessagePosted", function(state) state.messages += 1 end)

room:decide("join", { who = "id" }, function(state, command)
  if state.members[command.who] then return ok("is in") end
  return event("MemberJoined", { who = command.who })
end)
room:decide("leave", { who = "id" }, function(state, command)
  if not state.members[command.who] then return ok("is out") end
  return event("MemberLeft", { who = command.who })
end)
room:decide("post", { who = "id", text = "string" }, function(state, command, ctx)
  if not state.members[command.who] then return reject("not_a_member") end
  if #command.text == 0 or #command.text > 500 then return reject("invalid", { field = "text" }) end
  return event("MessagePosted", { who = command.who, text = command.text, id = ctx.uuid() })
end)

-- How much each one said, and a warning when it is a lot: the handler's own table.
svc:on("MessagePosted", function(e, ctx)
  local key = e.data.who .. "/" .. string.sub(e.recordedtime, 1, 16)
  local said = (svc.kv:get(key) or 0) + 1
  svc.kv:put(key, said)
  if said == 20 then svc:publish("TalkedTooMuch", { who = e.data.who, room = e.subject }) end
end)

svc:view("log", { "MessagePosted" }, function(kv, e)
  kv:append(e.subject, { who = e.data.who, text = e.data.text, at = e.time, position = e.position })
end)

svc:post("/rooms/:id/members", function(req) return json(room:send(req.params.id, "join", { who = req.json.who })) end)
svc:delete("/rooms/:id/members/:who", function(req)
  return json(room:send(req.params.id, "leave", { who = req.params.who }))
end)
svc:post("/rooms/:id/messages", function(req)
  return json(room:send(req.params.id, "post", req.json, { id = req.headers["idempotency-key"] }), 201)
end)
svc:get("/rooms/:id/messages", function(req)
  return json(svc.views.log:get("room/" .. req.params.id) or array{})
end)
svc:stream("/rooms/:id/messages/stream", "MessagePosted", function(e, req)
  if e.subject == "room/" .. req.params.id then return { who = e.data.who, text = e.data.text } end
end)
