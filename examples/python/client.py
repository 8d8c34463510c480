"""A client of Daybook written from the protocol page alone: publishes with
sequence values, joins a group, acks. Needs the package `websockets`.

usage: client.py ws://127.0.0.1:7400/v1/ws publish KEY COUNT
       client.py ws://127.0.0.1:7400/v1/ws work GROUP COUNT
"""

import asyncio
import json
import sys
import uuid

import websockets


class Bus:
    def __init__(self, socket):
        self.socket, self.last, self.backlog = socket, 0, []

    async def receive(self, wanted):
        """The next message for which `wanted` holds; others wait their turn."""
        while True:
            for i, message in enumerate(self.backlog):
                if wanted(message):
                    return self.backlog.pop(i)
            frame = json.loads(await self.socket.recv())
            self.backlog += frame if isinstance(frame, list) else [frame]

    async def call(self, op, **fields):
        self.last += 1
        mine = self.last
        await self.socket.send(json.dumps({"op": op, "id": mine, **fields}))
        answer = await self.receive(lambda m: m.get("id") == mine)
        if answer["op"] == "error":
            raise SystemExit(f"{answer['problem']['code']}: {answer['problem']['detail']}")
        return answer

    async def tell(self, op, **fields):
        await self.socket.send(json.dumps({"op": op, **fields}))


async def main(url, what, name, count):
    async with websockets.connect(url, subprotocols=["daybook.v1.json"]) as socket:
        bus = Bus(socket)
        await bus.call("hello", service="example")
        if what == "publish":
            for value in range(int(count)):
                event = {"specversion": "1.0", "id": str(uuid.uuid4()), "type": "Counted", "subject": name,
                         "sequence": str(value), "data": {"n": value}}
                receipt = await bus.call("publish", events=[event])
                print(receipt["events"][0]["position"])
        else:
            joined = await bus.call("join", group=name, credit="16", filter={"types": ["Counted"]})
            done = 0
            while done < int(count):
                message = await bus.receive(lambda m: m["op"] == "deliver")
                for delivery in message["deliveries"]:
                    event = delivery["event"]
                    print(event["subject"], event["sequence"])
                    await bus.call("ack", subscription=joined["subscription"], tokens=[delivery["token"]])
                    done += 1


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
