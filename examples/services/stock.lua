-- Stock with reservations: an order holds goods for a while, then takes them or
-- lets them go. What is held and not confirmed comes back by itself.
local svc = service("stock", { version = 1 })

local item = svc:entity("item", function() return { onhand = 0, held = {} } end)

local function free(state)
  local n = state.onhand
  for _, quantity in state.held do n -= quantity end
  return n
end

item:decide("receive", { quantity = "integer" }, function(state, command)
  if command.quantity <= 0 then return reject("invalid", { field = "quantity", reason = "must be positive" }) end
  return event("GoodsReceived", { quantity = command.quantity })
end)
item:decide("reserve", { order = "id", quantity = "integer" }, function(state, command)
  if state.held[command.order] then return ok("held already") end
  if free(state) < command.quantity then return reject("out_of_stock", { free = free(state) }) end
  return event("GoodsReserved", { order = command.order, quantity = command.quantity })
end)
item:decide("confirm", { order = "id" }, function(state, command)
  local quantity = state.held[command.order]
  if not quantity then return reject("not_found") end
  return {
    event("GoodsShipped", { order = command.order, quantity = quantity }),
    event("ReservationEnded", { order = command.order }),
  }
end)
item:decide("release", { order = "id", why = "string?" }, function(state, command)
  if not state.held[command.order] then return ok("not held") end
  return event("ReservationEnded", { order = command.order, why = command.why })
end)

item:evolve("GoodsReceived", function(state, e) state.onhand += e.data.quantity end)
item:evolve("GoodsReserved", function(state, e) state.held[e.data.order] = e.data.quantity end)
item:evolve("GoodsShipped", function(state, e) state.onhand -= e.data.quantity end)
item:evolve("ReservationEnded", function(state, e) state.held[e.data.order] = nil end)

-- Nobody came back for it.
svc:after("GoodsReserved", "15m", function(e)
  item:send(string.match(e.subject, "/(.+)$"), "release", { order = e.data.order, why = "expired" })
end)

svc:get("/items/:id", function(req)
  local state = item:state(req.params.id)
  return json({ onhand = state.onhand, free = free(state) })
end)
svc:post("/items/:id/receipts", function(req)
  return json(item:send(req.params.id, "receive", req.json, { id = req.headers["idempotency-key"] }), 201)
end)
svc:post("/items/:id/reservations", function(req)
  return json(item:send(req.params.id, "reserve", req.json, { id = req.headers["idempotency-key"] }))
end)
svc:post("/items/:id/reservations/:order/confirm", function(req)
  return json(item:send(req.params.id, "confirm", { order = req.params.order }))
end)
