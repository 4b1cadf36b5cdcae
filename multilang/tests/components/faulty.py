"""A bolt that passes numbers on until it gets the number 13, and then does what its argument says."""

import itertools
import os
import signal
import sys
import threading
import time

from protocol import ack, emit, fail, handshake, read, send, tuples

fault = sys.argv[1]


def hang():
    while True:
        time.sleep(3600)


def last_words():
    # It says what is wrong, and only then that the tuple failed: all that must be heard although it ends at once.
    send({"command": "error", "msg": "ValueError: 13 is unlucky\n  at line 7"})
    send({"command": "sync"})
    fail(tup)
    sys.exit(1)


def flood_errors():
    # More than any pipe holds.
    for line in range(20_000):
        sys.stderr.write("line %d of a library that talks too much\n" % line)
    sys.stderr.flush()
    emit([13], tup)
    ack(tup)


def flood_output():
    # It writes much more than the pipe holds before it reads on.
    for number in range(20_000):
        emit([number], tup)
    ack(tup)


def flood_questions():
    # It asks where more tuples go than any pipe holds answers for, and reads only then; tuples that come between are for later.
    for number in range(20_000):
        send({"command": "emit", "tuple": [number], "anchors": [tup["id"]]})
    later = []
    for _ in range(20_000):
        message = read()
        while not isinstance(message, list):
            if message["stream"] == "__heartbeat":
                send({"command": "sync"})
            else:
                later.append(message)
            message = read()
    ack(tup)
    for each in later:
        emit(each["tuple"], each)
        ack(each)


def talk():
    # It answers nothing any more, heartbeats neither, and is heard all the same.
    def say():
        for number in itertools.count(1):
            send({"command": "metrics", "name": "said", "params": number})
            time.sleep(0.01)

    threading.Thread(target=say, daemon=True).start()
    try:
        while True:
            read()
    finally:
        os._exit(0)


def grandchild():
    # Who holds the other end of its output lives on.
    if os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    os._exit(3)


def raw(text):
    sys.stdout.write(text)
    sys.stdout.flush()


faults = {
    "print": lambda: print("Hello, I am a library that prints", flush=True) or hang(),
    "print number": lambda: print("42", flush=True) or hang(),
    "bad json": lambda: raw('{"command": "ack", "id":\nend\n') or hang(),
    "nan": lambda: raw('{"command": "emit", "tuple": [NaN]}\nend\n') or hang(),
    "no command": lambda: send({"tuple": [1]}) or hang(),
    "cut off": lambda: raw('{"command": "ack"') or sys.exit(0),
    "long line": lambda: raw('{"command": "log", "msg": "' + "x" * 3_000_000) or hang(),
    "hang": hang,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "exit": lambda: sys.stderr.write("I have had enough\n") and sys.exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "close output": lambda: os.close(1) or hang(),
    "grandchild": grandchild,
    "last words": last_words,
    "unknown ack": lambda: send({"command": "ack", "id": "4711"}) or hang(),
    "unknown fail": lambda: send({"command": "fail", "id": "4711"}) or hang(),
    "unknown anchor": lambda: emit([13], {"id": "4711"}) or hang(),
    "ack twice": lambda: [ack(tup), ack(tup), hang()],
    "anchor after ack": lambda: [ack(tup), emit([13], tup), hang()],
    "ack heartbeat": lambda: send({"command": "ack", "id": "0"}) or hang(),
    "wrong count": lambda: (emit([1, 2], tup), ack(tup)),
    "wrong type": lambda: (emit(["thirteen"], tup), ack(tup)),
    "wrong stream": lambda: (emit([13], tup, stream="luck"), ack(tup)),
    "wrong task": lambda: (emit([13], tup, task=4711), ack(tup)),
    "unknown command": lambda: (send({"command": "dance", "with": "me"}), emit([13], tup), ack(tup)),
    "flood errors": flood_errors,
    "flood output": flood_output,
    "flood questions": flood_questions,
    "talk": talk,
    "never ack": lambda: None,
}

handshake()
for tup in tuples():
    if tup["tuple"] == [13]:
        faults[fault]()
    else:
        emit(tup["tuple"], tup)
        ack(tup)
