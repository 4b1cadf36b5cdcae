"""Celery as a peer: one message a reading, from RabbitMQ into MongoDB.

AMQP_URL and MONGODB_URI name the servers. `python peer.py 20000` publishes that many real readings as tasks, then
starts a worker with two processes (prefork, acks late, prefetch 200) and prints how many a second it stored.
"""

import json
import os
import subprocess
import sys
import time

from celery import Celery
from pymongo import MongoClient

app = Celery("peer", broker=os.environ["AMQP_URL"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=100, task_ignore_result=True,
                task_default_queue="celery_peer", worker_hijack_root_logger=False)
_collection = None


def collection():
    global _collection
    if _collection is None:
        _collection = MongoClient(os.environ["MONGODB_URI"])["galerna_peer"]["readings"]
    return _collection


@app.task
def store(source, reading):
    key = {"s": source, "d": reading["did"], "t": reading["ts"], "n": reading["n"]}
    collection().replace_one({"_id": key}, {"_id": key, "values": reading["values"], "sqn": reading["sqn"]}, upsert=True)


def readings(count):
    path = os.path.join(os.path.dirname(__file__), "../../../examples/data/sample_messages.ndjson")
    posts = [json.loads(line) for line in open(path, encoding="utf-8")]
    flat = [(post["source_key"], reading) for post in posts for reading in post["body"]]
    for n in range(count):
        source, reading = flat[n % len(flat)]
        yield source, dict(reading, n=n // len(flat))


if __name__ == "__main__":
    count = int(sys.argv[1])
    collection().drop()
    with app.pool.acquire():
        for source, reading in readings(count):
            store.delay(source, reading)
    started = time.monotonic()
    worker = subprocess.Popen([sys.executable, "-m", "celery", "-A", "peer", "worker", "-c", "2", "-l", "error",
                               "--without-gossip", "--without-mingle"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first = None
        while (stored := collection().estimated_document_count()) < count:
            if stored and first is None:
                first = (time.monotonic(), stored)
            if time.monotonic() - started > 300:
                sys.exit(f"only {stored} of {count} after 300 s")
            time.sleep(0.02)
        print(f"RESULT celery messages/s {(count - first[1]) / (time.monotonic() - first[0]):.0f}")
    finally:
        worker.terminate()
        worker.wait()
