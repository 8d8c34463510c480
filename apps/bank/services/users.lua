-- Users: registration, sign-in, roles, which accounts a user owns.
-- The only authority over user/<id> and username/<name>.

local svc = service("users", { version = 1 })
svc:secret({ "password", "hash" })

local user = svc:entity("user", function()
  return { exists = false, roles = array({}), accounts = array({}) }
end)
local username = svc:entity("username", function() return { taken = false } end)

user:evolve("UserRegistered", function(state, e)
  state.exists = true
  state.username = e.data.username
  state.hash = e.data.hash
  state.roles = array({ "customer" })
end)
user:evolve("RoleGranted", function(state, e)
  for _, role in state.roles do
    if role == e.data.role then return end
  end
  table.insert(state.roles, e.data.role)
end)
user:evolve("AccountAssigned", function(state, e) table.insert(state.accounts, e.data.account) end)
username:evolve("NameTaken", function(state, e)
  state.taken = true
  state.user = e.data.user
end)

user:decide("grant", { role = "string" }, function(state, command)
  if not state.exists then return reject("not_found") end
  if command.role ~= "teller" and command.role ~= "auditor" then return reject("unknown_role") end
  return event("RoleGranted", { role = command.role })
end)
user:decide("refuse", { action = "string", reason = "string" }, function(state, command)
  if not state.exists then return reject("not_found") end
  return event("AccessRefused", { action = command.action, reason = command.reason })
end)

-- The account opened, so its owner has it: the same unit of work.
user:decide("assign", { account = "id" }, function(state, command)
  for _, number in state.accounts do
    if number == command.account then return ok("known") end
  end
  return event("AccountAssigned", { account = command.account })
end)
svc:on("AccountOpened", function(e)
  if not e.data.owner then return end -- the bank's own cash account
  user:send(e.data.owner, "assign", { account = e.data.number })
end)

local function lower(name) return string.lower(name) end

svc:post("/users", function(req, ctx)
  local name, password = req.json.username, req.json.password
  if type(name) ~= "string" or not string.match(name, "^[%w_.-]+$") or #name < 2 or #name > 40 then
    return json(reject("invalid", { field = "username", reason = "2 to 40 letters, digits, dots, dashes or underscores" }))
  end
  if type(password) ~= "string" or #password < 8 or #password > 200 then
    return json(reject("invalid", { field = "password", reason = "8 to 200 characters" }))
  end
  local hash = crypto.hash_password(password)
  local id = ctx.uuid()
  -- Name and user in one batch: of two at once only one can take the name.
  local answer = atomically(function(tx)
    if tx:load(username, lower(name)).taken then return reject("username_taken") end
    tx:load(user, id)
    tx:emit(username, lower(name), "NameTaken", { user = id })
    tx:emit(user, id, "UserRegistered", { username = name, hash = hash })
  end)
  if not answer.ok then return json(answer) end
  return json({ user = id, username = name, roles = array({ "customer" }), position = answer.position }, 201)
end)

-- Checked against somebody even if the name is unknown: both take the same time.
local nobody = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$lLZzQ6JbHtL5nYgXyjTk9Kq9Nq0JxHUPx2Yz9wDnYwE"

svc:post("/users/sign-in", function(req)
  local name, password = req.json.username, req.json.password
  if type(name) ~= "string" or type(password) ~= "string" then return json(reject("bad_credentials"), 401) end
  local taken = username:state(lower(name))
  local state = taken.taken and user:state(taken.user) or nil
  local good = crypto.verify_password(password, state and state.hash or nobody)
  if not (good and state) then return json(reject("bad_credentials"), 401) end
  return json({ user = taken.user, username = state.username, roles = state.roles })
end)

svc:get("/users/:id", function(req)
  local state = user:state(req.params.id)
  if not state.exists then return json(reject("not_found")) end
  return json({ user = req.params.id, username = state.username, roles = state.roles, accounts = state.accounts })
end)

svc:get("/usernames/:name", function(req)
  local state = username:state(lower(req.params.name))
  if not state.taken then return json(reject("not_found")) end
  return json({ user = state.user })
end)

svc:post("/users/:id/roles", function(req)
  return json(user:send(req.params.id, "grant", { role = req.json.role }))
end)

svc:post("/users/:id/refusals", function(req)
  return json(user:send(req.params.id, "refuse", { action = req.json.action, reason = req.json.reason }))
end)
