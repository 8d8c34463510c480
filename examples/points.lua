-- Loyalty points: one entity, three routes.
local svc = service("points", { version = 1 })

local card = svc:entity("card", function() return { points = 0 } end)
card:evolve("PointsEarned", function(state, e) state.points += e.data.points end)
card:evolve("PointsSpent", function(state, e) state.points -= e.data.points end)

card:decide("earn", { points = "integer" }, function(state, command)
  if command.points <= 0 then return reject("invalid", { field = "points" }) end
  return event("PointsEarned", { points = command.points })
end)
card:decide("spend", { points = "integer" }, function(state, command)
  if state.points < command.points then return reject("too_few_points", { has = state.points }) end
  return event("PointsSpent", { points = command.points })
end)

svc:get("/cards/:id", function(req) return json(card:state(req.params.id)) end)
svc:post("/cards/:id/earnings", function(req)
  return json(card:send(req.params.id, "earn", { points = req.json.points }, { id = req.headers["idempotency-key"] }))
end)
svc:post("/cards/:id/spendings", function(req)
  return json(card:send(req.params.id, "spend", { points = req.json.points }, { id = req.headers["idempotency-key"] }))
end)
