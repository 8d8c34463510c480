local function gbp(minor) return money.new(minor, "GBP") end

test("lines add up and payments pay off", function(t)
  t:when(invoice, "1", "add", { text = "tea", amount = gbp(350), times = 3 })
  t:when(invoice, "1", "send")
  t:emitted{ event("InvoiceSent", { total = gbp(1050) }) }
  t:when(invoice, "1", "pay", { amount = gbp(50) })
  t:state(invoice, "1", { open = gbp(1000), state = "sent" })
  t:when(invoice, "1", "pay", { amount = gbp(1001) })
  t:rejected("too_much", { open = gbp(1000) })
  t:when(invoice, "1", "pay", { amount = gbp(1000) })
  t:emitted{ "PaymentReceived", "InvoicePaid" }
  t:crash_at_every_step()
end)

test("an amount that is none is the caller's mistake", function(t)
  local answer = t:post("/invoices/1/lines", { text = "tea", amount = 350 })
  assert(answer.status == 400, "it should be a 400, not " .. answer.status)
  t:rejected("invalid")
end)

test("other currencies are refused", function(t)
  t:given("invoice/1", event("LineAdded", { text = "tea", amount = gbp(1) }))
  t:when(invoice, "1", "add", { text = "Kuchen", amount = money.new(1, "EUR") })
  t:rejected("other_currency", { expected = "GBP" })
end)

test("who names an old version is told so and nothing is stored", function(t)
  t:given("invoice/1", event("LineAdded", { text = "tea", amount = gbp(1) }))
  t:post("/invoices/1/lines", { text = "tea", amount = { minor = "1", currency = "GBP" } }, { headers = { ["If-Match"] = "0" } })
  t:rejected("conflict", { version = "1" })
  t:emitted{}
end)

test("nobody is reminded of what is paid", function(t)
  t:given("invoice/1", { event("LineAdded", { text = "tea", amount = gbp(1) }) })
  t:when_due("InvoiceSent", "invoice/1", { total = gbp(1) })
  t:emitted{ event("ReminderSent", { open = gbp(1) }) }
  t:given("invoice/2", { event("LineAdded", { text = "tea", amount = gbp(1) }), event("InvoicePaid", {}) })
  t:when_due("InvoiceSent", "invoice/3", { total = gbp(0) })
end)
