-- Short links: a name belongs to one target for ever, clicks are counted.
local svc = service("links", { version = 1 })

local link = svc:entity("link", function() return { clicks = 0 } end)
link:evolve("LinkTaken", function(state, e) state.target, state.owner = e.data.target, e.data.owner end)
link:evolve("LinkClicked", function(state) state.clicks += 1 end)

svc:post("/links", function(req, ctx)
  local target, owner = req.json.target, req.json.owner
  if type(target) ~= "string" or not string.match(target, "^https?://") then
    return json(reject("invalid", { field = "target", reason = "must begin with http:// or https://" }))
  end
  local name = req.json.name or string.sub(string.gsub(ctx.uuid(), "-", ""), 1, 7)
  -- The name is a key of its own: of two at once only one can take it.
  local answer = atomically(function(tx)
    if tx:load(link, name).target then return reject("name_taken", { name = name }) end
    tx:emit(link, name, "LinkTaken", { target = target, owner = owner or null })
  end)
  if not answer.ok then return json(answer) end
  return json({ name = name, target = target, position = answer.position }, 201)
end)

svc:get("/to/:name", function(req)
  local state = link:state(req.params.name)
  if not state.target then return json(reject("not_found", { name = req.params.name })) end
  svc:publish("LinkClicked", "link/" .. req.params.name, { from = req.headers.referer or null })
  return json({ target = state.target }, 302, { location = state.target })
end)

svc:get("/links/:name", function(req)
  local state = link:state(req.params.name)
  if not state.target then return json(reject("not_found")) end
  return json(state)
end)

svc:view("by_owner", { "LinkTaken" }, function(kv, e)
  if type(e.data.owner) == "string" then kv:put(e.data.owner .. "/" .. e.subject, e.data.target) end
end)
svc:get("/owners/:owner/links", function(req)
  local list = array{}
  for _, entry in svc.views.by_owner:scan(req.params.owner .. "/") do
    table.insert(list, { link = string.match(entry.key, "link/(.*)$"), target = entry.value })
  end
  return json({ links = list })
end)
