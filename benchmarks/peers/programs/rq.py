"""RQ: a fork for each job, or SimpleWorker without one."""

from __future__ import annotations

import os
import time

from redis import Redis
from rq import Queue
from rq.registry import FinishedJobRegistry

from benchmarks.peers.programs import verbs

URL = os.environ["BENCH_URL"]
PORTION = 1_000


def no_op(number):
    return None


def prepare():
    Redis.from_url(URL).flushdb()


def enqueue(count):
    prepare()
    queue = Queue(connection=Redis.from_url(URL))
    numbers = range(int(count))
    for start in range(0, len(numbers), PORTION):
        queue.enqueue_many(
            [
                Queue.prepare_data("benchmarks.peers.programs.rq.no_op", (number,))
                for number in numbers[start : start + PORTION]
            ]
        )


def produce(count, pause_s):
    queue = Queue(connection=Redis.from_url(URL))
    verbs.produce(
        lambda number: queue.enqueue("benchmarks.peers.programs.verbs.note_start", number),
        int(count),
        float(pause_s),
    )


def work(worker_class):
    command = ["rq", "worker", "--url", URL, "--worker-class", worker_class, "--quiet"]
    os.execvp(command[0], command)


def watch(count):
    queue = Queue(connection=Redis.from_url(URL))
    finished = FinishedJobRegistry(queue=queue)
    while finished.get_job_count(cleanup=False) < int(count):
        time.sleep(0.1)
    jobs = queue.job_class.fetch_many(finished.get_job_ids(cleanup=False), connection=queue.connection)
    verbs.span(
        sum(1 for job in jobs if job.is_finished),
        min(job.started_at.timestamp() for job in jobs),
        max(job.ended_at.timestamp() for job in jobs),
    )


if __name__ == "__main__":
    verbs.main(prepare=prepare, enqueue=enqueue, produce=produce, work=work, watch=watch)
