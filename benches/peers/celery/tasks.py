"""The tasks that the comparisons run. AMQP_URL names RabbitMQ, REDIS_URL the store of results, BROKER which of the two carries the tasks."""

import os
import time

from celery import Celery

REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
AMQP = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672")
# A visibility timeout of 3 s stands for the hour of Redis or the half minute of SQS, and an ETA four times as long for one beyond it; what is
# unacked is looked at each second instead of each hundred, so that a minute shows what otherwise takes hours.
VISIBILITY = {"visibility_timeout": 3, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
ON_REDIS = os.environ.get("BROKER") == "redis"

app = Celery("tasks", broker=REDIS if ON_REDIS else AMQP, backend=os.environ.get("BACKEND", REDIS))
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=100,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    task_default_queue=os.environ.get("QUEUE", "celery_peer"),
    broker_transport_options=VISIBILITY if ON_REDIS else {},
    beat_schedule={
        f"s{n}": {"task": "tasks.tick", "schedule": 1.0} for n in range(int(os.environ.get("SCHEDULES", "0")))
    },
)


def note(name):
    """A line in a file: what was done, as it cannot be lost with a process."""
    with open(os.path.join(os.environ["NOTES"], name), "a", encoding="utf-8") as file:
        file.write(f"{time.time()}\n")


@app.task
def part(_n):
    note("part")
    return 1


@app.task
def joined(_values):
    note("joined")


@app.task(ignore_result=True)
def tick():
    note("tick")


@app.task(ignore_result=True)
def due(n):
    note(f"due-{n}")


@app.task(rate_limit="5/s", ignore_result=True)
def limited():
    note("limited")


@app.task(rate_limit="900000/s", ignore_result=True)
def called():
    note("called")
