local wish = { flight = "f", hotel = "h" }

test("a trip is a seat and a room", function(t)
  t:given("flight/f", event("SeatsOffered", { seats = 1 }))
  t:given("hotel/h", event("RoomsOffered", { rooms = 1 }))
  t:when_event("TripAsked", "trip/1", wish)
  t:emitted{ { type = "SeatTaken", subject = "flight/f" }, { type = "FlightBooked", subject = "trip/1" } }
  t:crash_at_every_step()
end)

test("without a room the seat is given back", function(t)
  t:given("flight/f", { event("SeatsOffered", { seats = 1 }), event("SeatTaken", { trip = "trip/1" }) })
  t:given("trip/1", event("TripAsked", wish))
  t:when_event("FlightBooked", "trip/1", wish)
  t:emitted{ "SeatGivenBack", { type = "TripFailed", data = { reason = "no_room" } } }
  t:state(flight, "f", { seats = 1 })
  t:state("trip/1", { state = "failed" })
  t:get("/failures/no_room", { "trip/1" })
  t:twice()
  t:crash_at_every_step()
end)

test("the last seat is sold once", function(t)
  t:given("flight/f", event("SeatsOffered", { seats = 1 }))
  t:when_event("TripAsked", "trip/1", wish)
  t:when_event("TripAsked", "trip/2", wish)
  t:emitted{ { type = "TripFailed", subject = "trip/2", data = { reason = "no_seat" } } }
end)

test("a trip goes its whole way, whatever crashes", function(t)
  t:given("flight/f", event("SeatsOffered", { seats = 1 }))
  t:given("hotel/h", event("RoomsOffered", { rooms = 1 }))
  t:when(trip, "1", "ask", wish)
  t:settle()
  t:emitted{ "TripAsked", "SeatTaken", "FlightBooked", "RoomTaken", "TripBooked" }
  t:state(trip, "1", { state = "booked" })
  t:twice()
  t:crash_at_every_step()
end)
