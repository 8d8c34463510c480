"""kill -9 of the whole demo in the middle of transfers, six times on the same
data: every transfer ends accepted or rejected, once, and books that are kept
here, by another program, agree with every position of the log. Needs DAYBOOK_BIN."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request

BINARY = os.environ["DAYBOOK_BIN"]
ROUNDS, WRITERS, DEADLINE_S = 6, 4, 60


class Demo:
    def __init__(self, data):
        command = [BINARY, "demo", "--data", data, "--listen", "127.0.0.1:0", "--bank-listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        card = ""
        for line in self.process.stdout:
            card += line
            if "Ctrl-C" in line:
                break
        self.bank = re.search(r"bank +(http\S+)", card).group(1)
        self.bus = re.search(r"bus +(http\S+)", card).group(1)

    def call(self, path, body, cookie="", key=""):
        headers = {"content-type": "application/json", "cookie": cookie, "idempotency-key": key}
        request = urllib.request.Request(self.bank + path, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer), answer.headers.get("set-cookie", "").split(";")[0]

    def events(self):
        done = subprocess.run([BINARY, "read", "--bus", self.bus], check=True, capture_output=True, text=True)
        return [json.loads(line) for line in done.stdout.splitlines()]


def gbp(minor):
    return {"minor": str(minor), "currency": "GBP"}


def transfers(demo, people, numbers, name, stop):
    n = 0
    while not stop.is_set():
        n += 1
        sender = n % 2
        body = {"kind": "transfer", "from": numbers[sender], "to": numbers[1 - sender], "amount": gbp(10 + n)}
        try:
            demo.call("/api/transactions", body, people[sender], f"{name}-{n}")
        except OSError:
            time.sleep(0.005)  # killed under our hands


def replay(events):
    """Keeps the books from the log alone. Between two batches nothing is made or
    lost; no account goes below its limit at any position; legs belong to accepted
    transfers, two each, and say what was asked for."""
    asked, outcome, legs, balances = {}, {}, {}, {}
    for place, event in enumerate(events):
        position, kind, subject, data = int(event["position"]), event["type"], event.get("subject"), event.get("data")
        assert position == place, f"place {place} of the log holds position {position}"
        if kind == "TransactionPending":
            asked[subject] = data
        elif kind in ("TransactionAccepted", "TransactionRejected"):
            assert subject not in outcome, f"{subject} has a second outcome at {position}"
            outcome[subject] = kind
        elif kind in ("Debited", "Credited"):
            number = subject.removeprefix("account/")
            amount = int(data["amount"]["minor"])
            balance = balances[number] = balances.get(number, 0) + (amount if kind == "Credited" else -amount)
            assert number.startswith("cash-") or balance >= 0, f"{number} is at {balance} at {position}"
            legs.setdefault("transaction/" + data["transaction"], []).append((kind, number, amount))
        if position == int(event.get("batchfirst", position)) + int(event.get("batchsize", 1)) - 1:
            assert sum(balances.values()) == 0, f"{sum(balances.values())} too much at {position}"
    for subject, wanted in asked.items():
        amount = int(wanted["amount"]["minor"])
        both = [("Credited", wanted["to"], amount), ("Debited", wanted["from"], amount)]
        accepted = outcome.get(subject) == "TransactionAccepted"
        assert sorted(legs.pop(subject, [])) == (both if accepted else []), f"{subject}: other legs than asked for"
    assert not legs, f"legs of no transfer: {legs}"
    return balances


with tempfile.TemporaryDirectory() as data:
    demo, people, numbers = Demo(data), [], []
    for name in ["ada", "grace"]:
        _, cookie = demo.call("/api/users", {"username": name, "password": "correct horse"})
        opened, _ = demo.call("/api/accounts", {"currency": "GBP"}, cookie, "open")
        people.append(cookie)
        numbers.append(opened["account"]["number"])
        demo.call("/api/transactions", {"kind": "deposit", "to": numbers[-1], "amount": gbp(100_000)}, cookie, "deposit")
    for round in range(ROUNDS):
        stop = threading.Event()
        writers = [threading.Thread(target=transfers, args=(demo, people, numbers, f"{round}-{i}", stop)) for i in range(WRITERS)]
        for writer in writers:
            writer.start()
        time.sleep(0.3 + 0.13 * round)
        demo.process.kill()
        demo.process.wait()
        stop.set()
        for writer in writers:
            writer.join()
        demo = Demo(data)
        people = [demo.call("/api/sessions", {"username": name, "password": "correct horse"})[1] for name in ["ada", "grace"]]
    deadline = time.monotonic() + DEADLINE_S
    while True:
        events = demo.events()
        pending = {event["subject"] for event in events if event["type"] == "TransactionPending"}
        outcomes = [e["subject"] for e in events if e["type"] in ("TransactionAccepted", "TransactionRejected")]
        if pending == set(outcomes) or time.monotonic() > deadline:
            break
        time.sleep(0.25)
    assert pending == set(outcomes), f"{len(pending - set(outcomes))} transfers have no outcome"
    assert len(outcomes) == len(set(outcomes)), "a transfer has two outcomes"
    balances = replay(events)
    assert all(number in balances for number in numbers), balances
    broken = [dict(event) for event in events]
    leg = next(event for event in reversed(broken) if event["type"] == "Credited")
    leg["data"] = {**leg["data"], "amount": gbp(1)}
    try:
        replay(broken)
    except AssertionError:
        pass
    else:
        raise AssertionError("books that are wrong by one leg were taken for right")
    demo.process.send_signal(signal.SIGTERM)
    assert demo.process.wait(timeout=30) == 0
    print(f"kill -9: {ROUNDS} times in the middle of {len(pending)} transfers, each with one outcome; {len(events)} positions replayed, no money lost or made")
