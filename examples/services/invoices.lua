-- Invoices: money, lines, partial payments, and a reminder when nobody pays.
local svc = service("invoices", { version = 1 })

local invoice = svc:entity("invoice", function() return { state = "draft", lines = array{} } end)

invoice:decide("add", { text = "string", amount = "money", times = "integer?" }, function(state, command)
  if state.state ~= "draft" then return reject("sent_already") end
  if state.total and state.total.currency ~= command.amount.currency then
    return reject("other_currency", { expected = state.total.currency })
  end
  return event("LineAdded", { text = command.text, amount = command.amount * (command.times or 1) })
end)
invoice:decide("send", function(state)
  if state.state ~= "draft" then return ok("sent already") end
  if not state.total then return reject("empty") end
  return event("InvoiceSent", { total = state.total })
end)
invoice:decide("pay", { amount = "money" }, function(state, command)
  if state.state ~= "sent" then return reject("not_payable", { state = state.state }) end
  if command.amount > state.open then return reject("too_much", { open = state.open }) end
  local events = { event("PaymentReceived", { amount = command.amount }) }
  if command.amount == state.open then table.insert(events, event("InvoicePaid", {})) end
  return events
end)
invoice:decide("remind", {}, function(state)
  if state.state ~= "sent" then return ok("nothing is open") end
  return event("ReminderSent", { open = state.open })
end)

invoice:evolve("LineAdded", function(state, e)
  table.insert(state.lines, e.data)
  state.total = state.total and state.total + e.data.amount or e.data.amount
end)
invoice:evolve("InvoiceSent", function(state, e) state.state, state.open, state.sent = "sent", e.data.total, e.time end)
invoice:evolve("PaymentReceived", function(state, e) state.open = state.open - e.data.amount end)
invoice:evolve("InvoicePaid", function(state) state.state = "paid" end)
invoice:evolve("ReminderSent", function(state) state.reminders = (state.reminders or 0) + 1 end)

svc:after("InvoiceSent", "30d", function(e, ctx)
  ctx.log("a reminder is due", { invoice = e.subject, at = ctx.now })
  invoice:send(string.sub(e.subject, 9), "remind")
end)

svc:receipt("pay", function(r, ctx)
  if not r.ok then ctx.log("a payment was refused", { code = r.code }) end
end)

local function shown(id, at)
  local state = invoice:state(id, { at = at })
  return {
    id = id, state = state.state, lines = state.lines, total = state.total or null,
    open = state.open or null, text = state.total and state.total:format() or "",
    version = invoice:version(id, { at = at }),
  }
end

svc:get("/invoices/:id", function(req) return json(shown(req.params.id, req.query.at)) end)
svc:post("/invoices/:id/lines", function(req)
  local line = req.json
  -- Whoever names the version he saw is told when it has changed meanwhile.
  return json(invoice:send(req.params.id, "add", {
    text = line.text, amount = money.parse(line.amount), times = line.times,
  }, { id = req.headers["idempotency-key"], version = req.headers["if-match"] }))
end)
svc:post("/invoices/:id/send", function(req) return json(invoice:send(req.params.id, "send")) end)
svc:post("/invoices/:id/payments", function(req)
  return json(invoice:send(req.params.id, "pay", { amount = money.parse(req.json) }, { id = req.headers["idempotency-key"] }))
end)
