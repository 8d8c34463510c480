test("points are earned and spent", function(t)
  t:given("card/7", { event("PointsEarned", { points = 5 }) })
  t:when(card, "7", "spend", { points = 3 })
  t:accepted()
  t:emitted{ { type = "PointsSpent", subject = "card/7", data = { points = 3 } } }
  t:state(card, "7", { points = 2 })
  t:twice()
end)

test("nobody spends what he does not have", function(t)
  t:when(card, "7", "spend", { points = 1 })
  t:rejected("too_few_points")
  t:emitted{}
end)

test("the card is shown", function(t)
  t:given("card/7", { event("PointsEarned", { points = 5 }) })
  local answer = t:get("/cards/7")
  assert(answer.status == 200 and answer.json.points == 5, "the card shows " .. tostring(answer.json.points))
end)
