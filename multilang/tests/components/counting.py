"""A spout that counts from where the file that it is given says, three numbers a life: then it does what its argument says."""

import os
import sys
import time

from protocol import handshake, read, send

fault, place = sys.argv[1:]
handshake()
emitted = 0
while True:
    message = read()
    if isinstance(message, list):
        continue
    if message["command"] == "next":
        number = int(open(place).read()) + 1 if os.path.exists(place) else 1
        if emitted == 3 and number <= 7:
            if fault == "exit":
                sys.exit(3)
            elif fault == "hang":
                time.sleep(3600)
            elif fault == "print":
                print("one more", flush=True)
                time.sleep(3600)
            elif fault == "ack":
                send({"command": "ack", "id": 3})
                time.sleep(3600)
        if number < 10:
            with open(place, "w") as file:
                file.write(str(number))
            emitted += 1
            send({"command": "emit", "tuple": [number], "id": number, "need_task_ids": False})
    send({"command": "sync"})
