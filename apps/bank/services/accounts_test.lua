-- What accounts promises: no account below zero, one outcome for each wish.

local function gbp(minor) return money.new(minor, "GBP") end

local function open(t, number, balance)
  t:given("account/" .. number, {
    event("AccountOpened", { number = number, owner = "ada", currency = "GBP" }),
    event("Credited", { amount = gbp(balance) }),
  })
end

local function wish(from, to, minor, more)
  local data = { kind = "transfer", from = from, to = to, amount = gbp(minor), user = "ada" }
  for key, value in more or {} do data[key] = value end
  return data
end

test("an account is opened once", function(t)
  t:when(account, "1", "open", { owner = "ada", number = "1", currency = "GBP" })
  t:emitted{ { type = "AccountOpened", subject = "account/1" } }
  t:twice()
  t:when(account, "1", "open", { owner = "ada", number = "1", currency = "GBP" })
  t:accepted()
  t:emitted{}
end)

test("a transfer moves money in one piece", function(t)
  open(t, "1", 1000)
  open(t, "2", 0)
  t:when_event("TransactionPending", "transaction/t", wish("1", "2", 300))
  t:emitted{ "Debited", "Credited", "TransactionAccepted" }
  t:state(account, "1", { balance = gbp(700) })
  t:state(account, "2", { balance = gbp(300) })
  t:twice()
  t:state(account, "1", { balance = gbp(700) })
end)

test("nobody spends what he does not have", function(t)
  open(t, "1", 299)
  open(t, "2", 0)
  t:when_event("TransactionPending", "transaction/t", wish("1", "2", 300))
  t:emitted{ { type = "TransactionRejected", data = { reason = "insufficient_funds" } } }
  t:state(account, "1", { balance = gbp(299) })
end)

test("frozen, closed, unknown and foreign accounts take no part", function(t)
  open(t, "1", 1000)
  for number, reason in { ["2"] = "account_frozen", ["3"] = "account_closed", ["4"] = "unknown_account", ["5"] = "currency_mismatch" } do
    if reason == "account_frozen" then t:given("account/2", { event("AccountOpened", { currency = "GBP" }), event("AccountFrozen", {}) }) end
    if reason == "account_closed" then t:given("account/3", { event("AccountOpened", { currency = "GBP" }), event("AccountClosed", {}) }) end
    if reason == "currency_mismatch" then t:given("account/5", { event("AccountOpened", { currency = "EUR" }) }) end
    t:when_event("TransactionPending", "transaction/" .. number, wish("1", number, 1))
    t:emitted{ { type = "TransactionRejected", data = { reason = reason } } }
  end
  t:state(account, "1", { balance = gbp(1000) })
end)

test("a reversal gives back once", function(t)
  open(t, "1", 1000)
  open(t, "2", 0)
  t:when_event("TransactionPending", "transaction/t", wish("1", "2", 300))
  t:when_event("TransactionPending", "transaction/r", wish("2", "1", 300, { kind = "reversal", reverses = "t" }))
  t:emitted{ "Debited", "Credited", "TransactionAccepted", { type = "TransactionReversed", subject = "transaction/t" } }
  t:state(account, "1", { balance = gbp(1000) })
  t:when_event("TransactionPending", "transaction/again", wish("2", "1", 300, { kind = "reversal", reverses = "t" }))
  t:emitted{ { type = "TransactionRejected", data = { reason = "already_reversed" } } }
  t:when_event("TransactionPending", "transaction/none", wish("2", "1", 300, { kind = "reversal", reverses = "unknown" }))
  t:emitted{ { type = "TransactionRejected", data = { reason = "not_reversible" } } }
end)

test("only an empty account is closed", function(t)
  open(t, "1", 1)
  t:when(account, "1", "set_state", { state = "closed" })
  t:rejected("balance_not_zero")
end)
