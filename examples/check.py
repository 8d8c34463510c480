"""Runs README's transcript, those of docs and the example clients against a real server.

Each command of README's fenced `console` block is run; what it prints must
match, with … for what differs from run to run. Needs DAYBOOK_BIN."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from transcripts import commands, matches, run_page

root = pathlib.Path(__file__).resolve().parent.parent
binary = os.environ["DAYBOOK_BIN"]


def run(*command, stdin=None):
    return subprocess.run(command, stdin=stdin, check=True, capture_output=True, text=True, timeout=120).stdout


with tempfile.TemporaryDirectory() as data:
    server = subprocess.Popen([binary, "serve", "--data", data + "/log", "--listen", "127.0.0.1:0"],
                              stderr=subprocess.PIPE, text=True)
    try:
        bus = server.stderr.readline().removeprefix("listening on ").strip()
        assert bus.startswith("http://"), bus

        # README, word by word.
        env = {**os.environ, "DAYBOOK_BUS": bus, "PATH": f"{pathlib.Path(binary).parent}:{os.environ['PATH']}"}
        for command, expected in commands((root / "README.md").read_text()):
            done = subprocess.run(command, shell=True, env=env, cwd=root, capture_output=True, text=True, timeout=60)
            printed = done.stdout + done.stderr
            assert matches(expected, printed), f"$ {command}\nexpected:\n{expected}\nprinted:\n{printed}"
            print("README:", command)

        # The pages that a reader follows from an empty directory.
        for page in ["operations.md", "protocol.md"]:
            with tempfile.TemporaryDirectory() as directory:
                clean = {name: value for name, value in env.items() if not name.startswith("DAYBOOK_")}
                run_page(root / "docs" / page, directory, clean)

        # 10,000 events in, all out again, and a group that gets them all.
        before = len(run(binary, "read", "--bus", bus).splitlines())
        with open(root / "examples/transfers.ndjson") as events:
            receipts = run(binary, "publish", "--bus", bus, stdin=events).splitlines()
        count = len(receipts)
        assert count == 10_000, count
        assert len(run(binary, "read", "--bus", bus).splitlines()) == before + count
        with open(root / "examples/transfers.ndjson") as events:
            again = run(binary, "publish", "--bus", bus, stdin=events).splitlines()
        assert all(json.loads(line)["duplicate"] for line in again)
        last = json.loads((root / "examples/transfers.ndjson").read_text().splitlines()[-1])
        assert len(run(binary, "trace", last["correlationid"], "--bus", bus).splitlines()) == 4

        # A client that is not ours to shape.
        socket = bus.replace("http", "ws") + "/v1/ws"
        client = str(root / "examples/python/client.py")
        assert len(run(sys.executable, client, socket, "publish", "python/1", "50").split()) == 50
        worked = run(sys.executable, client, socket, "work", "counters", "50").splitlines()
        assert worked == [f"python/1 {n}" for n in range(50)], worked
        print(f"examples: {count} events published twice, stored once; the Python client published and settled 50")
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0
