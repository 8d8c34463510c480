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
  t:crash_at_every_step()
end)

test("who joins is in once, whatever crashes", function(t)
  t:when(room, "tea", "join", { who = "ada" })
  t:emitted("MemberJoined", { who = "ada" })
  t:state(room, "tea", { members = { ada = true } })
  t:twice()
  t:crash_at_every_step()
end)
