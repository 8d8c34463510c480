-- Accounts: opening, and every balance change. Nothing else may move money,
-- and no account goes below its limit.

local svc = service("accounts", { version = 1 })

local account = svc:entity("account", function()
  return { open = false, state = "none" }
end)

account:evolve("AccountOpened", function(state, e)
  state.open = true
  state.state = "open"
  state.owner = e.data.owner
  state.currency = e.data.currency
  state.nickname = e.data.nickname
  state.balance = money.zero(e.data.currency)
end)
account:evolve("AccountFrozen", function(state) state.state = "frozen" end)
account:evolve("AccountUnfrozen", function(state) state.state = "open" end)
account:evolve("AccountClosed", function(state) state.state = "closed" end)
account:evolve("Credited", function(state, e)
  if state.balance then state.balance = state.balance + e.data.amount end
end)
account:evolve("Debited", function(state, e)
  if state.balance then state.balance = state.balance - e.data.amount end
end)

-- A transaction as this service must know it: to decide a reversal.
local transaction = svc:entity("transaction", function() return { state = "none" } end)
transaction:evolve("TransactionPending", function(state, e)
  state.state = "pending"
  state.kind, state.from, state.to, state.amount = e.data.kind, e.data.from, e.data.to, e.data.amount
end)
transaction:evolve("TransactionAccepted", function(state) state.state = "accepted" end)
transaction:evolve("TransactionRejected", function(state) state.state = "rejected" end)
transaction:evolve("TransactionReversed", function(state) state.state = "reversed" end)

account:decide("open", { owner = "id", number = "id", currency = "currency", nickname = "string?" }, function(state, command)
  if state.open then return ok("open already") end
  return event("AccountOpened", {
    number = command.number, owner = command.owner, currency = command.currency, nickname = command.nickname,
  })
end)
account:decide("set_state", { state = "string" }, function(state, command)
  if not state.open then return reject("not_found") end
  if state.state == "closed" then return reject("account_closed") end
  if state.state == command.state then return ok("already") end
  if command.state == "frozen" then return event("AccountFrozen", {}) end
  if command.state == "open" then return event("AccountUnfrozen", {}) end
  if command.state ~= "closed" then return reject("invalid", { field = "state" }) end
  if not state.balance:is_zero() then return reject("balance_not_zero") end
  return event("AccountClosed", {})
end)

local function is_cash(number) return string.sub(number, 1, 5) == "cash-" end

-- Why this account cannot take part, or nil.
local function refusal(state, currency)
  if not state.open then return "unknown_account" end
  if state.state == "closed" then return "account_closed" end
  if state.state == "frozen" then return "account_frozen" end
  if state.currency ~= currency then return "currency_mismatch" end
  return nil
end

svc:on("TransactionPending", function(e)
  local from, to, amount = e.data.from, e.data.to, e.data.amount
  return atomically(function(tx)
    local function refuse(reason) tx:emit(e.subject, "TransactionRejected", { reason = reason }, { after = e }) end
    local original
    if e.data.reverses then
      original = tx:load(transaction, e.data.reverses)
      if original.state == "reversed" then return refuse("already_reversed") end
      if original.state ~= "accepted" then return refuse("not_reversible") end
    end
    -- The cash account has no limit and decides nothing: it is not loaded, so
    -- that it never is a hot key.
    if not is_cash(to) then
      local reason = refusal(tx:load(account, to), amount.currency)
      if reason then return refuse(reason) end
    end
    if not is_cash(from) then
      local source = tx:load(account, from)
      local reason = refusal(source, amount.currency)
      if reason then return refuse(reason) end
      if source.balance < amount then return refuse("insufficient_funds") end
    end
    local leg = { amount = amount, transaction = string.sub(e.subject, 13), reference = e.data.reference, kind = e.data.kind }
    local function other(number) local copy = table.clone(leg); copy.counterparty = number; return copy end
    tx:emit(account, from, "Debited", other(to))
    tx:emit(account, to, "Credited", other(from))
    tx:emit(e.subject, "TransactionAccepted", {}, { after = e })
    if original then
      tx:emit(transaction, e.data.reverses, "TransactionReversed", { by = string.sub(e.subject, 13) })
    end
  end)
end)

svc:view("by_owner", { "AccountOpened" }, function(kv, e)
  if e.data.owner then kv:append(e.data.owner, e.data.number) end
end)

local function shown(number, state)
  return {
    number = number, owner = state.owner, nickname = state.nickname or null, currency = state.currency,
    balance = state.balance, available = state.balance, state = state.state,
  }
end

svc:post("/accounts", function(req, ctx)
  local key = req.headers["idempotency-key"]
  -- The caller derives the number from user and key, so that a repeat names the same account.
  local number = req.json.number or string.sub(string.gsub(ctx.uuid(), "%D", "") .. "0000000000", 1, 10)
  local answer = account:send(number, "open", {
    owner = req.json.owner, number = number, currency = req.json.currency, nickname = req.json.nickname,
  }, { id = key })
  if not answer.ok then return json(answer) end
  local body = shown(number, account:state(number))
  body.position = answer.position
  return json(body, 201)
end)

svc:get("/accounts/:number", function(req)
  local state = account:state(req.params.number, { at = req.query.at })
  if not state.open then return json(reject("not_found")) end
  return json(shown(req.params.number, state))
end)

svc:post("/accounts/:number/state", function(req)
  return json(account:send(req.params.number, "set_state", { state = req.json.state }))
end)

svc:get("/owners/:user/accounts", function(req)
  local list = array({})
  for _, number in svc.views.by_owner:get(req.params.user) or {} do
    table.insert(list, shown(number, account:state(number)))
  end
  return json({ accounts = list })
end)
