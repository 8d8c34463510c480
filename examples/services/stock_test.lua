test("what is held is not free", function(t)
  t:given("item/7", { event("GoodsReceived", { quantity = 5 }) })
  t:when(item, "7", "reserve", { order = "a", quantity = 4 })
  t:emitted{ event("GoodsReserved", { order = "a", quantity = 4 }) }
  t:when(item, "7", "reserve", { order = "b", quantity = 2 })
  t:rejected("out_of_stock", { free = 1 })
  t:get("/items/7", { onhand = 5, free = 1 })
end)

test("a confirmed reservation leaves the stock in one batch", function(t)
  t:given("item/7", { event("GoodsReceived", { quantity = 5 }), event("GoodsReserved", { order = "a", quantity = 4 }) })
  t:when(item, "7", "confirm", { order = "a" })
  t:emitted{ "GoodsShipped", "ReservationEnded" }
  t:state(item, "7", { onhand = 1, held = {} })
  t:twice()
  t:crash_at_every_step()
end)

test("a reservation that nobody confirms ends by itself", function(t)
  t:given("item/7", { event("GoodsReceived", { quantity = 5 }) })
  t:when_due("GoodsReserved", "item/7", { order = "a", quantity = 4 })
  t:emitted{ { type = "ReservationEnded", data = { why = "expired" } } }
  t:twice()
end)

test("a field that does not fit is named", function(t)
  t:when(item, "7", "reserve", { order = "a", quantity = "many" })
  t:rejected("invalid", { field = "quantity" })
end)
