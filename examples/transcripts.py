"""Runs the commands of a page's fenced `console` blocks and the messages of its
`websocket` blocks, in order, and compares what they print and what comes back,
with … for what differs from run to run.

A command that ends in ` &` runs until the page is done; it has begun when it has
printed what the page says. Ports 7400 to 7409 stand for free ones."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time


def commands(page):
    """The page's commands, each with what it prints."""
    for block in re.findall(r"```console\n(.*?)```", page, re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, expected = part.partition("\n")
            yield command, expected.strip()


def steps(page):
    """The page's commands, each with what it prints, and its blocks of messages, each with None."""
    for kind, block in re.findall(r"```(console|websocket)\n(.*?)```", page, re.S):
        yield from commands(f"```console\n{block}```") if kind == "console" else [(block, None)]


def messages(block, url):
    """Sends what stands behind `>`; each line behind `<` is a message that then comes, in any order
    up to the next `>`. TOKEN is the last one that came."""
    # Only pages with such blocks need it.
    from websockets.sync.client import connect

    token = ""
    with connect(url, subprotocols=["daybook.v1.json"]) as socket:
        for turn in re.split(r"^> ", block, flags=re.M)[1:]:
            sent, _, answers = turn.partition("\n")
            socket.send(sent.replace("TOKEN", token))
            wanted = [line.removeprefix("< ") for line in answers.splitlines()]
            while wanted:
                frame = json.loads(socket.recv(timeout=60))
                for message in frame if isinstance(frame, list) else [frame]:
                    text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
                    line = next((line for line in wanted if matches(line, text)), None)
                    assert line, f"> {sent}\nexpected one of:\n{wanted}\ngot:\n{text}"
                    wanted.remove(line)
                    token = message["deliveries"][-1]["token"] if message["op"] == "deliver" else token


def matches(expected, printed):
    pattern = ".*".join(re.escape(piece) for piece in expected.split("…"))
    return re.fullmatch(pattern, printed.strip(), re.S)


def with_free_ports(text):
    ports = {}
    for port in sorted(set(re.findall(r"\b740\d\b", text))):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[port] = str(free.getsockname()[1])
    return ports, re.sub(r"\b740\d\b", lambda port: ports[port[0]], text)


def run_page(path, directory, env):
    ports, page = with_free_ports(path.read_text())
    # Where commands look that name no bus.
    env = {**env, "DAYBOOK_BUS": "http://127.0.0.1:" + ports.get("7400", "7400")}
    running = []
    try:
        for command, expected in steps(page):
            if expected is None:
                messages(command, "ws" + env["DAYBOOK_BUS"].removeprefix("http") + "/v1/ws")
                print(f"{path.name}: {command[:100].splitlines()[0]}")
                continue
            if command.endswith(" &"):
                output = pathlib.Path(directory) / f".output-{len(running)}"
                with open(output, "w") as file:
                    running.append(subprocess.Popen(["bash", "-c", "exec " + command.removesuffix(" &")], env=env, cwd=directory,
                                                    stdout=file, stderr=file, start_new_session=True))
                for _ in range(400):
                    if matches(expected, printed := output.read_text()) or running[-1].poll() is not None:
                        break
                    time.sleep(0.05)
            else:
                done = subprocess.run(["bash", "-c", command], env=env, cwd=directory, capture_output=True, text=True, timeout=120)
                printed = done.stdout + done.stderr
            assert matches(expected, printed), f"{path.name}: $ {command}\nexpected:\n{expected}\nprinted:\n{printed}"
            print(f"{path.name}: {command[:100]}")
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            assert process.wait(timeout=20) == 0
