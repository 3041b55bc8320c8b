"""The tasks of the measurements, as plain Python tasks."""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks.peers.programs import verbs
from reproq_prefork import TaskContext, task

STARTS_FILE = "BENCH_STARTS"  # names the file that `note` writes to


@task
def no_op(number: int) -> None:
    """The cheapest task there is: what remains is the engine."""


@task
def note(number: int) -> None:
    """Write down when the body of task `number` started."""
    started_at = time.time()
    with Path(os.environ[STARTS_FILE]).open("a") as starts:
        starts.write(f"{number} {started_at!r}\n")


@task
def body(number: int) -> None:
    """What the tasks of a storm do, as those of the peers."""
    verbs.body(number)


@task(takes_context=True)
def hold_once(context: TaskContext, seconds: float) -> None:
    """Keep the worker busy, but not a second time."""
    if context.attempt == 1:
        time.sleep(seconds)
