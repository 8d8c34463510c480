-- Transactions: starting a transfer and following its state. Who may move what
-- is decided by accounts; this service only records the wish and its outcome.

local svc = service("transactions", { version = 1 })

local transaction = svc:entity("transaction", function() return { state = "none", steps = array({}) } end)

local function step(state, e)
  table.insert(state.steps, { event = e.type, time = e.recordedtime, position = e.position })
end
transaction:evolve("TransactionPending", function(state, e)
  state.state = "pending"
  for _, name in { "kind", "from", "to", "amount", "reference", "user", "reverses" } do state[name] = e.data[name] end
  state.correlationid = e.correlationid
  step(state, e)
end)
transaction:evolve("TransactionAccepted", function(state, e) state.state = "accepted"; step(state, e) end)
transaction:evolve("TransactionRejected", function(state, e)
  state.state = "rejected"
  state.reason = e.data.reason
  step(state, e)
end)
transaction:evolve("TransactionReversed", function(state, e)
  state.state = "reversed"
  state.reversed_by = e.data.by
  step(state, e)
end)

transaction:decide("start", {
  user = "id", kind = "string", from = "id", to = "id", amount = "money", reference = "string?", reverses = "id?",
}, function(state, command)
  if state.state ~= "none" then return reject("id-conflict") end
  return event("TransactionPending", {
    user = command.user, kind = command.kind, from = command.from, to = command.to,
    amount = command.amount, reference = command.reference, reverses = command.reverses,
  })
end)

-- The id comes from the caller, who derives it from user and idempotency key:
-- a repeat finds the same transaction, another body is a conflict.
svc:post("/transactions/:id", function(req)
  local command = {}
  for _, name in { "user", "kind", "from", "to", "reference", "reverses" } do
    local value = req.json[name]
    if value ~= null then command[name] = value end
  end
  command.amount = money.parse(req.json.amount)
  local answer = transaction:send(req.params.id, "start", command, { id = "start" })
  if not answer.ok then return json(answer) end
  local state = transaction:state(req.params.id)
  return json({ id = req.params.id, state = state.state, correlationid = state.correlationid, position = answer.position }, 202)
end)

local function shown(id, state)
  return {
    id = id, kind = state.kind, from = state.from, to = state.to, amount = state.amount, state = state.state,
    reason = state.reason, reference = state.reference, user = state.user, correlationid = state.correlationid,
    reverses = state.reverses, reversed_by = state.reversed_by, steps = state.steps,
  }
end

svc:get("/transactions/:id", function(req)
  local state = transaction:state(req.params.id, { at = req.query.at })
  if state.state == "none" then return json(reject("not_found")) end
  return json(shown(req.params.id, state))
end)

svc:view("by_account", { "TransactionPending" }, function(kv, e)
  local id = string.sub(e.subject, 13)
  kv:append(e.data.from, id)
  kv:append(e.data.to, id)
end)

svc:get("/accounts/:number/transactions", function(req)
  local ids = svc.views.by_account:get(req.params.number) or {}
  local list = array({})
  for i = #ids, math.max(1, #ids - 9), -1 do
    table.insert(list, shown(ids[i], transaction:state(ids[i])))
  end
  return json({ transactions = list })
end)
