"""The protocol in a few lines, without any care: what the components of the tests that break it are made with."""

import json
import os
import sys


def read():
    lines = []
    for line in sys.stdin:
        if line == "end\n":
            return json.loads("".join(lines))
        lines.append(line)
    sys.exit(2)


def send(message):
    sys.stdout.write(json.dumps(message) + "\nend\n")
    sys.stdout.flush()


def handshake(**more):
    hello = read()
    open(os.path.join(hello["pidDir"], str(os.getpid())), "w").close()
    send(dict(more, pid=os.getpid()))
    return hello


def ack(tup):
    send({"command": "ack", "id": tup["id"]})


def fail(tup):
    send({"command": "fail", "id": tup["id"]})


def emit(values, *anchors, **more):
    message = {"command": "emit", "tuple": values, "anchors": [a["id"] for a in anchors], "need_task_ids": False}
    send(dict(message, **more))


def tuples():
    """The tuples that come, heartbeats answered and left out."""
    while True:
        message = read()
        if isinstance(message, list):
            continue
        if message["stream"] == "__heartbeat":
            send({"command": "sync"})
        else:
            yield message
