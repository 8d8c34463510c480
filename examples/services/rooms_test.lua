local function said(times)
  local list = { event("MemberJoined", { who = "ada" }) }
  for i = 1, times do table.insert(list, event("MessagePosted", { who = "ada", text = "hm " .. i, id = "m" .. i })) end
  return list
end

test("members talk, others do not", function(t)
  t:given("room/tea", said(0))
  t:when(room, "tea", "post", { who = "ada", text = "hello" })
  t:emitted("MessagePosted", { who = "ada", text = "hello" })
  t:when(room, "tea", "post", { who = "bob", text = "hello" })
  t:rejected("not_a_member")
  t:get("/rooms/tea/messages", { { who = "ada", text = "hello" } })
end)

test("one message is counted once, however often its handler begins", function(t)
  t:given("room/tea", said(0))
  t:when_event("MessagePosted", "room/tea", { who = "ada", text = "hello", id = "m" })
  t:emitted{}
end)
