"""A producer of a storm: enqueues for as long as it is let, and notes what it was told about each run.

    python -m tests.chaos.producer URL DIRECT_URL DIRECTORY PLACE SEED

It looks how much is waiting on a connection of its own, so that what breaks on the link is an enqueue or a cancel.
Of what it has enqueued it cancels what is to be cancelled.

Its logs have a line an answer:

    told-PLACE     first count answer at odd                the numbers of the runs, and what became of them
    keys-PLACE     number key run_id created sent_at at     of a run with a unique key: who holds the key
    cancels-PLACE  as `cancelling` says
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from reproq_prefork import NewRun, TaskRun, enqueue_many
from reproq_prefork.errors import ReproqError
from reproq_prefork.store.runs import enqueue_new
from tests.chaos import odd_rows
from tests.chaos.cancelling import CancelLog
from tests.chaos.clock import boottime
from tests.chaos.history import Answer
from tests.chaos.load import draw, draw_with_keys, is_to_be_cancelled

NUMBERS = 10**8  # each producer has its own range of them
MAX_BACKLOG = 4_000
RECONNECT_INTERVAL_S = 0.2
BACKLOG_INTERVAL_S = 0.05
BATCHES = ((1, 1), (2, 50), (200, 2_000))  # by one INSERT, by one for all, by COPY
ODD_SHARE = 0.04
KEYS_SHARE = 0.4  # of the batches; these are small
CANCEL_AFTER_S = (0.0, 1.5)

Connection = psycopg.Connection[Any]


class Producer:
    def __init__(self, directory: Path, place: int, seed: int) -> None:
        self._dice = random.Random(seed + place)
        self._number = (place + 1) * NUMBERS
        self._told = _log(directory / f"told-{place}")
        self._keys = _log(directory / f"keys-{place}")
        self._cancels = CancelLog(directory / f"cancels-{place}")
        self._to_cancel: dict[int, float] = {}  # when, by the run's id

    def work(self, connection: Connection, direct: Connection) -> None:
        """Cancel what it is time for, and enqueue a batch, if not too much is waiting."""
        due = [run_id for run_id, at in self._to_cancel.items() if at <= boottime()]
        for run_id in due:
            if not connection.broken and self._cancels.cancel(connection, run_id):
                del self._to_cancel[run_id]
        if _backlog(direct) >= MAX_BACKLOG:
            time.sleep(BACKLOG_INTERVAL_S)
        elif self._dice.random() < ODD_SHARE:
            self._insert_odd_rows(connection)
        elif self._dice.random() < KEYS_SHARE:
            self._enqueue_with_keys(connection, draw_with_keys(self._dice, self._number))
        else:
            count = self._dice.randint(*self._dice.choice(BATCHES))
            self._enqueue(connection, draw(self._dice, self._number, count))

    def _enqueue(self, connection: Connection, runs: Sequence[NewRun]) -> None:
        answer, added = _sent(connection, runs)
        self._note(len(runs), answer)
        for place in range(len(added)):
            if is_to_be_cancelled(runs[place]):
                self._to_cancel[added[place].id] = boottime() + self._dice.uniform(*CANCEL_AFTER_S)

    def _enqueue_with_keys(self, connection: Connection, runs: Sequence[NewRun]) -> None:
        sent_at = boottime()
        answer, held = _sent(connection, runs)
        at = boottime()
        if not held:
            self._note(len(runs), answer)
        for place, run in enumerate(held):
            line = (
                f"{self._number} {runs[place].unique_key} {run.id} {run.created:d} {sent_at:.6f} {at:.6f}\n"
            )
            os.write(self._keys, line.encode())
            self._note(1, Answer.OK if run.created else Answer.HELD)

    def _insert_odd_rows(self, connection: Connection) -> None:
        numbers = range(self._number, self._number + odd_rows.TOGETHER)
        answer = _answer(connection, lambda: odd_rows.insert(connection, self._dice, numbers))
        self._note(len(numbers), answer, odd=True)

    def _note(self, count: int, answer: Answer, *, odd: bool = False) -> None:
        line = f"{self._number} {count} {answer.name} {boottime():.6f} {'odd' if odd else 'sane'}\n"
        os.write(self._told, line.encode())
        self._number += count


def _sent(connection: Connection, runs: Sequence[NewRun]) -> tuple[Answer, Sequence[TaskRun]]:
    """What becomes of them, and the runs if they were added (or their keys are held)."""
    added: Sequence[TaskRun] = ()

    def send() -> None:
        nonlocal added
        added = [enqueue_new(connection, runs[0])] if len(runs) == 1 else enqueue_many(connection, runs)

    return _answer(connection, send), added


def _answer(connection: Connection, send: Callable[[], None]) -> Answer:
    try:
        send()
    except (psycopg.Error, ReproqError):
        # Broken off, or refused: only a server that still answers has refused.
        return Answer.UNKNOWN if connection.broken else Answer.FAILED
    return Answer.OK


def _backlog(connection: Connection) -> int:
    row = connection.execute(
        "select count(*) from (select from task_runs where status = 'PENDING' limit %s) as waiting",
        [MAX_BACKLOG],
    ).fetchone()
    assert row is not None
    return int(row[0])


def _log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def main(url: str, direct_url: str, directory: Path, place: int, seed: int) -> None:
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _frame: told_to_stop.append(signum))
    producer = Producer(directory, place, seed)
    while not told_to_stop:
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(url, autocommit=True) as connection,
            psycopg.connect(direct_url, autocommit=True) as direct,
        ):
            while not told_to_stop and not connection.broken:
                producer.work(connection, direct)
        time.sleep(RECONNECT_INTERVAL_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
