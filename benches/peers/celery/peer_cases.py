"""Celery's side of the comparisons: `peer_cases.py <case> <number>` prints a line `RESULT <case> <value>`.

cut      callbacks of a chord whose sender is killed after 40 of 100 parts, 20 s after the parts are done
eta      how often each of 20 tasks with an ETA beyond the visibility timeout is run, by two workers on Redis
twice    runs of each second of one schedule, with two beats
limit    calls a second of a task that is limited to 5 a second, with one worker and then with two
fan-in   parts a second of so many chords of 100 parts (POOL is prefork or gevent)
firing   firings a second that are run, of so many schedules that fire each second
rate     calls a second of a task whose limit lets all through
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

NOTES = tempfile.mkdtemp(prefix="celery-peer-")
os.environ["NOTES"] = NOTES
os.environ.setdefault("QUEUE", f"celery_{os.getpid()}")
case, number = sys.argv[1], int(sys.argv[2])
if case == "eta":
    os.environ["BROKER"] = "redis"
if case == "firing":
    os.environ["SCHEDULES"] = str(number)
if case == "twice":
    os.environ["SCHEDULES"] = "1"
import tasks  # noqa: E402

PATIENCE = 300
CELERY = [sys.executable, "-m", "celery", "-A", "tasks"]
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
running = []


def start(*arguments):
    running.append(subprocess.Popen([*CELERY, *arguments], cwd=os.path.dirname(os.path.abspath(__file__)), **QUIET))
    return running[-1]


def worker(name="w"):
    pool = os.environ.get("POOL", "prefork")
    many = "100" if pool == "gevent" else "2"
    start("worker", "-P", pool, "-c", many, "-n", f"{name}-{os.getpid()}@%h", "-l", "error", "--without-gossip", "--without-mingle")


def beat(name):
    start("beat", "-l", "error", "-s", os.path.join(NOTES, f"beat-{name}"), "--pidfile=")


def count(name):
    try:
        with open(os.path.join(NOTES, name), encoding="utf-8") as file:
            return sum(1 for _ in file)
    except FileNotFoundError:
        return 0


def until(name, many):
    began = time.monotonic()
    while count(name) < many:
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"only {count(name)} of {many} {name} after {PATIENCE} s")
        time.sleep(0.02)


def warm():
    """Waits until the worker works."""
    worker()
    tasks.due.delay("warm")
    until("due-warm", 1)


def working(workers):
    """Waits until so many workers work."""
    began = time.monotonic()
    while len(tasks.app.control.ping(timeout=2)) < workers:
        if time.monotonic() - began > PATIENCE:
            sys.exit(f"{workers} workers did not start within {PATIENCE} s")


def result(value):
    print(f"RESULT {case} {value}", flush=True)


def cut():
    child = os.fork()
    if child == 0:
        from celery.signals import after_task_publish

        sent = []

        @after_task_publish.connect
        def die(**_):
            sent.append(1)
            if len(sent) == 40:
                os._exit(9)

        from celery import chord

        chord([tasks.part.s(n) for n in range(100)])(tasks.joined.s())
        os._exit(0)
    os.waitpid(child, 0)
    worker()
    until("part", 40)
    time.sleep(20)
    result(count("joined"))


def eta():
    worker("one")
    worker("two")
    working(2)
    for n in range(20):
        tasks.due.apply_async((n,), countdown=12)
    time.sleep(number)
    result(f"{sum(count(f'due-{n}') for n in range(20)) / 20:.2f}")


def twice():
    warm()
    beat("one")
    beat("two")
    until("tick", 2)
    before = count("tick")
    time.sleep(number)
    result(f"{(count('tick') - before) / number:.2f}")


def limit():
    # More than both workers take beforehand.
    for _ in range(1_000):
        tasks.limited.delay()
    rates = []
    for workers, name in enumerate(["one", "two"], 1):
        worker(name)
        working(workers)
        time.sleep(2)
        before = count("limited")
        time.sleep(number)
        rates.append(f"{(count('limited') - before) / number:.1f}")
    result(" / ".join(rates))


def fan_in():
    from celery import chord

    warm()
    began = time.monotonic()
    for _ in range(number):
        chord([tasks.part.s(n) for n in range(100)])(tasks.joined.s())
    until("joined", number)
    result(f"{number * 100 / (time.monotonic() - began):.0f}")


def firing():
    warm()
    beat("one")
    until("tick", 1)
    time.sleep(2)
    before = count("tick")
    time.sleep(10)
    result(f"{(count('tick') - before) / 10:.0f}")


def rate():
    warm()
    began = time.monotonic()
    for _ in range(number):
        tasks.called.delay()
    until("called", number)
    result(f"{number / (time.monotonic() - began):.0f}")


try:
    {"cut": cut, "eta": eta, "twice": twice, "limit": limit, "fan-in": fan_in, "firing": firing, "rate": rate}[case]()
finally:
    for process in running:
        process.kill()
        process.wait()
    shutil.rmtree(NOTES, ignore_errors=True)
