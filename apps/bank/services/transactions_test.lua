-- A wish is recorded once and shown with every step.

local body = { user = "ada", kind = "transfer", from = "1", to = "2", amount = { minor = "300", currency = "GBP" } }

test("a wish is pending, then what came of it", function(t)
  local answer = t:post("/transactions/t", body)
  assert(answer.status == 202 and answer.json.state == "pending", "it should be pending")
  t:emitted{ { type = "TransactionPending", subject = "transaction/t" } }
  t:twice()
  t:given("transaction/t", { event("TransactionRejected", { reason = "insufficient_funds" }) })
  t:state(transaction, "t", { state = "rejected", reason = "insufficient_funds" })
end)

test("the same id with another body is a conflict", function(t)
  t:post("/transactions/t", body)
  local other = table.clone(body)
  other.to = "3"
  t:post("/transactions/t", other)
  t:rejected("id-conflict")
  t:emitted{}
end)
