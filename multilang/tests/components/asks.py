"""A bolt that asks where its tuples go, and emits the answers: three at once, to see that they come in order."""

from protocol import ack, emit, handshake, read, send

hello = handshake()
components = hello["context"]["task->component"]
waiting = []
while True:
    message = read()
    if isinstance(message, list):
        tup, value = waiting.pop(0)
        names = ["%s/%d" % (components[str(task)], task) for task in message]
        emit([value, ",".join(names)], tup, stream="answers")
        if all(other is not tup for other, _ in waiting):
            ack(tup)
    elif message["stream"] == "__heartbeat":
        send({"command": "sync"})
    else:
        for value in range(3):
            waiting.append((message, "%s%d" % (message["tuple"][0], value)))
            # Without `need_task_ids` it is meant.
            send({"command": "emit", "anchors": message["id"], "tuple": [waiting[-1][1]]})
