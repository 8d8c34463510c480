-- A saga: a trip is a flight and a hotel, both or none. Each step is an event,
-- each answer to it another, and what cannot be had undoes what was had.
local svc = service("trips", { version = 1 })

local trip = svc:entity("trip", function() return { state = "none" } end)
local flight = svc:entity("flight", function() return { seats = 0 } end)
local hotel = svc:entity("hotel", function() return { rooms = 0 } end)

flight:evolve("SeatsOffered", function(state, e) state.seats += e.data.seats end)
flight:evolve("SeatTaken", function(state) state.seats -= 1 end)
flight:evolve("SeatGivenBack", function(state) state.seats += 1 end)
hotel:evolve("RoomsOffered", function(state, e) state.rooms += e.data.rooms end)
hotel:evolve("RoomTaken", function(state) state.rooms -= 1 end)

trip:evolve("TripAsked", function(state, e)
  state.state, state.flight, state.hotel = "asked", e.data.flight, e.data.hotel
end)
trip:evolve("FlightBooked", function(state) state.state = "flight booked" end)
trip:evolve("TripBooked", function(state) state.state = "booked" end)
trip:evolve("TripFailed", function(state, e) state.state, state.reason = "failed", e.data.reason end)

trip:decide("ask", { flight = "id", hotel = "id" }, function(state, command)
  if state.state ~= "none" then return reject("asked_already", { state = state.state }) end
  return event("TripAsked", { flight = command.flight, hotel = command.hotel })
end)
flight:decide("offer", { seats = "integer" }, function(_, command) return event("SeatsOffered", { seats = command.seats }) end)
hotel:decide("offer", { rooms = "integer" }, function(_, command) return event("RoomsOffered", { rooms = command.rooms }) end)

svc:on("TripAsked", function(e)
  return atomically(function(tx)
    if tx:load(flight, e.data.flight).seats < 1 then
      return tx:emit(e.subject, "TripFailed", { reason = "no_seat" }, { after = e })
    end
    tx:emit(flight, e.data.flight, "SeatTaken", { trip = e.subject })
    tx:emit(e.subject, "FlightBooked", { flight = e.data.flight, hotel = e.data.hotel }, { after = e })
  end)
end)

svc:on("FlightBooked", function(e)
  return atomically(function(tx)
    if tx:load(hotel, e.data.hotel).rooms < 1 then
      tx:emit(flight, e.data.flight, "SeatGivenBack", { trip = e.subject })
      return tx:emit(e.subject, "TripFailed", { reason = "no_room" }, { after = e })
    end
    tx:emit(hotel, e.data.hotel, "RoomTaken", { trip = e.subject })
    tx:emit(e.subject, "TripBooked", {}, { after = e })
  end)
end)

svc:view("failures", { "TripFailed" }, function(kv, e) kv:append(e.data.reason, e.subject) end)

svc:post("/flights/:id/seats", function(req) return json(flight:send(req.params.id, "offer", req.json)) end)
svc:post("/hotels/:id/rooms", function(req) return json(hotel:send(req.params.id, "offer", req.json)) end)
svc:post("/trips/:id", function(req) return json(trip:send(req.params.id, "ask", req.json), 202) end)
svc:get("/trips/:id", function(req) return json(trip:state(req.params.id)) end)
svc:get("/flights/:id", function(req) return json(flight:state(req.params.id)) end)
svc:get("/failures/:reason", function(req) return json(svc.views.failures:get(req.params.reason) or array{}) end)
