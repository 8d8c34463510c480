-- Reporting: read models only. Statements, the trial balance, and the stream
-- of changes that the web shows as they happen.

local svc = service("reporting", { version = 1 })

local legs = { "AccountOpened", "Debited", "Credited" }

local function number_of(e) return string.sub(e.subject, 9) end
local function key(number, position) return number .. "/" .. string.rep("0", 20 - #position) .. position end

-- What the change means to the account, or nil for an opening.
local function signed(e)
  if e.type == "Debited" then return -e.data.amount end
  if e.type == "Credited" then return e.data.amount end
  return nil
end

local function describe(e)
  if type(e.data.reference) == "string" then return e.data.reference end
  local kind = e.data.kind or "transfer"
  if kind == "deposit" then return "Deposit" end
  if kind == "withdrawal" then return "Withdrawal" end
  if kind == "reversal" then return "Reversal" end
  return (e.type == "Debited" and "Transfer to " or "Transfer from ") .. e.data.counterparty
end

svc:view("balances", legs, function(kv, e)
  local number = number_of(e)
  if e.type == "AccountOpened" then return kv:put(number, money.zero(e.data.currency)) end
  local change = signed(e)
  local balance = kv:get(number)
  kv:put(number, balance and balance + change or change)
end)

svc:view("lines", legs, function(kv, e)
  local change = signed(e)
  if not change then return end
  local number = number_of(e)
  local last = kv:get("last/" .. number)
  local balance = last and last + change or change
  kv:put("last/" .. number, balance)
  kv:put(key(number, e.position), {
    position = e.position, time = e.recordedtime, description = describe(e), amount = change, balance = balance,
    transaction = e.data.transaction,
  })
end)

svc:get("/statements/:number", function(req)
  local number = req.params.number
  local all = svc.views.lines:scan(number .. "/")
  local limit = tonumber(req.query.limit) or 1000
  local first = math.max(1, #all - limit + 1)
  local lines, closing, opening = array({}), nil, nil
  for i = first, #all do
    local line = all[i].value
    if i == first then opening = line.balance - line.amount end
    closing = line.balance
    table.insert(lines, line)
  end
  local balance = svc.views.balances:get(number)
  if not balance then return json(reject("not_found")) end
  local zero = money.zero(balance.currency)
  return json({ opening = opening or zero, lines = lines, closing = closing or zero })
end)

svc:get("/trial-balance", function()
  local totals, currencies = {}, array({})
  for _, entry in svc.views.balances:scan("") do
    local currency = entry.value.currency
    if not totals[currency] then
      totals[currency] = money.zero(currency)
      table.insert(currencies, currency)
    end
    totals[currency] = totals[currency] + entry.value
  end
  local list = array({})
  for _, currency in currencies do table.insert(list, totals[currency]) end
  return json({ totals = list })
end)

-- Everything a page may have to change for; the web picks whose it is.
svc:stream("/updates", {
  "AccountOpened", "Debited", "Credited",
  "TransactionPending", "TransactionAccepted", "TransactionRejected", "TransactionReversed",
}, function(e)
  local id = string.match(e.subject, "/(.*)$")
  if string.sub(e.subject, 1, 8) == "account/" then
    return {
      kind = e.type == "AccountOpened" and "account" or "line", account = id, owner = e.data.owner, position = e.position,
      time = e.recordedtime, amount = signed(e), transaction = e.data.transaction, description = signed(e) and describe(e) or nil,
    }
  end
  local states = { TransactionPending = "pending", TransactionAccepted = "accepted", TransactionRejected = "rejected", TransactionReversed = "reversed" }
  return {
    kind = "transaction", id = id, state = states[e.type], reason = e.data.reason, position = e.position,
    time = e.recordedtime, from = e.data.from, to = e.data.to, amount = e.data.amount, event = e.type,
  }
end)
