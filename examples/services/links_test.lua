test("a name is taken once", function(t)
  local answer = t:post("/links", { name = "docs", target = "https://example.org", owner = "ada" })
  assert(answer.status == 201, "it should be made")
  t:emitted{ { type = "LinkTaken", subject = "link/docs" } }
  t:post("/links", { name = "docs", target = "https://example.com" })
  t:rejected("name_taken")
  t:emitted{}
  t:get("/owners/ada/links", { links = { { link = "docs", target = "https://example.org" } } })
end)

test("a click is counted and leads on", function(t)
  t:given("link/docs", { event("LinkTaken", { target = "https://example.org" }) })
  local answer = t:get("/to/docs")
  assert(answer.status == 302, "it should lead on, not " .. answer.status)
  assert(answer.headers.location == "https://example.org", "it leads to " .. tostring(answer.headers.location))
  t:state("link/docs", { clicks = 1 })
  assert(t:get("/to/nowhere").status == 404, "there is no such link")
end)

test("what is no address is refused", function(t)
  t:post("/links", { target = "ftp://example.org" })
  t:rejected("invalid", { field = "target" })
end)
