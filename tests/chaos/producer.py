"""A producer of a storm: enqueues for as long as it is let, and notes what it was told about each run.

    python -m tests.chaos.producer URL DIRECT_URL LOG FIRST SEED

It looks how much is waiting on a connection of its own, so that what breaks on the link is an enqueue.

The log has a line a batch, `first count answer at`: the numbers of its runs, and what became of them.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from reproq_prefork import NewRun, enqueue_many
from tests.chaos import bodies
from tests.chaos.history import Answer

MAX_BACKLOG = 4_000
RECONNECT_INTERVAL_S = 0.2
BACKLOG_INTERVAL_S = 0.05
BATCHES = ((1, 1), (2, 50), (200, 2_000))  # by one INSERT, by one for all, by COPY


def external(number: int, doing: str, *, max_attempts: int = bodies.MANY_ATTEMPTS, **rest: float) -> NewRun:
    return NewRun.of({"number": number, "doing": doing, **rest}, max_attempts=max_attempts)


# How often each is drawn, of ten thousand.
Draw = Callable[[random.Random, int], NewRun]
MIX: tuple[tuple[int, Draw], ...] = (
    (9_780, lambda _dice, number: bodies.nothing.new_run(number)),
    (80, lambda dice, number: bodies.short.new_run(number, dice.uniform(0.001, 0.03))),
    (50, lambda dice, number: bodies.long.new_run(number, dice.uniform(0.02, 0.4))),
    (20, lambda dice, number: bodies.once.new_run(number, dice.uniform(0.02, 0.2))),
    (15, lambda dice, number: bodies.nested.new_run(number, dice.uniform(0.05, 0.4))),
    (20, lambda _dice, number: bodies.failing.new_run(number)),
    (5, lambda _dice, number: bodies.overrunning.new_run(number)),
    (20, lambda dice, number: external(number, "work", seconds=dice.uniform(0.02, 0.3))),
    (5, lambda dice, number: external(number, "nested", seconds=dice.uniform(0.05, 0.4))),
    (5, lambda _dice, number: external(number, "hoard", max_attempts=2)),
)


def main(url: str, direct_url: str, log_path: Path, first: int, seed: int) -> None:
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _frame: told_to_stop.append(signum))
    dice = random.Random(seed)
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    number = first
    while not told_to_stop:
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(url, autocommit=True) as connection,
            psycopg.connect(direct_url, autocommit=True) as direct,
        ):
            while not told_to_stop and not connection.broken:
                if _backlog(direct) >= MAX_BACKLOG:
                    time.sleep(BACKLOG_INTERVAL_S)
                    continue
                count = dice.randint(*dice.choice(BATCHES))
                answer = _enqueue(connection, [_draw(dice, number + place) for place in range(count)])
                at = time.clock_gettime(time.CLOCK_BOOTTIME)
                os.write(log, f"{number} {count} {answer.name} {at:.6f}\n".encode())
                number += count
        time.sleep(RECONNECT_INTERVAL_S)


def _draw(dice: random.Random, number: int) -> NewRun:
    draws = [draw for _, draw in MIX]
    return dice.choices(draws, [weight for weight, _ in MIX])[0](dice, number)


def _backlog(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute(
        "select count(*) from (select from task_runs where status = 'PENDING' limit %s) as waiting",
        [MAX_BACKLOG],
    ).fetchone()
    assert row is not None
    return row[0]


def _enqueue(connection: psycopg.Connection[tuple[int]], runs: list[NewRun]) -> Answer:
    try:
        enqueue_many(connection, runs)
    except psycopg.OperationalError:
        # Broken off, or refused: only a server that still answers has refused.
        return Answer.UNKNOWN if connection.broken else Answer.FAILED
    return Answer.OK


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
