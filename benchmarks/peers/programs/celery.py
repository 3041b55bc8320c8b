"""Celery with its prefork pool; broker and results in Redis."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime

from celery import Celery
from redis import Redis

from benchmarks.peers.programs import verbs

URL = os.environ["BENCH_URL"]
app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    # Only a storm sets these.
    task_reject_on_worker_lost=bool(os.environ.get("BENCH_REJECT_ON_WORKER_LOST")),
    broker_transport_options=json.loads(os.environ.get("BENCH_TRANSPORT_OPTIONS", "{}")),
)


@app.task
def no_op(number):
    return None


@app.task
def note(number):
    verbs.note_start(number)


@app.task
def body(number):
    verbs.body(number)


def prepare():
    Redis.from_url(URL).flushdb()


def enqueue(count):
    prepare()
    with app.producer_or_acquire() as producer:
        for number in range(int(count)):
            no_op.apply_async((number,), producer=producer)


def produce(count, pause_s):
    verbs.produce(lambda number: note.delay(number), int(count), float(pause_s))


def feed(count, pause_s, first):
    verbs.produce(lambda number: body.delay(number), int(count), float(pause_s), int(first))


def push(text, mark, count):
    """Messages as they are, but each with a mark of its own, by the right to RPUSH alone."""
    texts = [text.replace(mark, f"{mark}-{number}") for number in range(int(count))]
    Redis.from_url(URL).rpush("celery", *texts)


def marked(mark):
    """Where the messages are that have `mark` in their text."""
    redis = Redis.from_url(URL)
    found = {
        "queued": redis.lrange("celery", 0, -1),
        "unacknowledged": redis.hvals("unacked"),
        "with a result": redis.keys(f"celery-task-meta-*{mark}*"),
    }
    print(json.dumps({name: sum(mark.encode() in text for text in texts) for name, texts in found.items()}))


def states():
    """What is left in Redis: queued, handed out and not acknowledged, and results by their status."""
    redis = Redis.from_url(URL)
    found = {"queued": redis.llen("celery"), "unacknowledged": redis.hlen("unacked")}
    for key in redis.scan_iter("celery-task-meta-*", count=5_000):
        status = json.loads(redis.get(key))["status"]
        found[status] = found.get(status, 0) + 1
    print(json.dumps(found))


def work(_option=""):
    # Without gossip, mingle and heartbeat between workers, as the documentation advises for Redis.
    app.worker_main(
        [
            "worker",
            "--concurrency=2",
            "--loglevel=WARNING",
            f"--hostname=bench-{os.getpid()}@%h",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


def watch(count):
    """A result says when it was written. The first end stands for the first start: no result has that."""
    redis = Redis.from_url(URL)
    expected = int(count)
    while sum(1 for _ in redis.scan_iter("celery-task-meta-*", count=5_000)) < expected:
        time.sleep(0.1)
    keys = list(redis.scan_iter("celery-task-meta-*", count=5_000))
    results = [json.loads(text) for text in redis.mget(keys)]
    ends = [
        datetime.fromisoformat(result["date_done"]).timestamp()
        for result in results
        if result["status"] == "SUCCESS"
    ]
    verbs.span(len(ends), min(ends), max(ends))


if __name__ == "__main__":
    from benchmarks.peers.programs import celery  # tasks have the name of the module that a worker imports

    verbs.main(
        prepare=celery.prepare,
        enqueue=celery.enqueue,
        produce=celery.produce,
        work=celery.work,
        watch=celery.watch,
        feed=celery.feed,
        states=celery.states,
        push=celery.push,
        marked=celery.marked,
    )
