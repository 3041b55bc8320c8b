"""The Python tasks of a storm. `number` is the run's own, and stands in no other payload."""

from __future__ import annotations

import os
import time

from reproq_prefork import TaskContext, task
from tests.chaos import pages

FOR_EVER_S = 600.0
MANY_ATTEMPTS = 1000  # so that no number of kills ends a run


@task(takes_context=True, executor="inline", max_attempts=MANY_ATTEMPTS)
def nothing(context: TaskContext, number: int) -> int:
    pages.write("start", context.run_id, context.claim)
    pages.write("end", context.run_id, context.claim)
    return number


@task(takes_context=True, executor="inline", max_attempts=MANY_ATTEMPTS)
def short(context: TaskContext, number: int, seconds: float) -> int:
    return _worked(context, number, seconds)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def long(context: TaskContext, number: int, seconds: float) -> int:
    return _worked(context, number, seconds)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def longer_again(context: TaskContext, number: int, seconds: float, later_s: float) -> int:
    """`later_s`: at later attempts."""
    return _worked(context, number, seconds if context.attempt == 1 else later_s)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def by_host(context: TaskContext, number: int, seconds: dict[str, float]) -> int:
    return _worked(context, number, seconds[os.environ[pages.HOST]])


@task(takes_context=True, executor="fork", max_attempts=1)
def once(context: TaskContext, number: int, seconds: float) -> int:
    return _worked(context, number, seconds)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def nested(context: TaskContext, number: int, seconds: float) -> int:
    pages.write("start", context.run_id, context.claim)
    pages.in_another_session(seconds, context.run_id, context.claim)
    pages.write("end", context.run_id, context.claim)
    return number


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def failing(context: TaskContext, number: int) -> int:
    pages.write("start", context.run_id, context.claim)
    if context.attempt == 1:
        pages.write("fail", context.run_id, context.claim)
        raise LookupError(f"run number {number} fails at first")
    pages.write("end", context.run_id, context.claim)
    return number


@task(takes_context=True, executor="fork", max_attempts=2, timeout=0.3)
def overrunning(context: TaskContext, number: int) -> None:
    pages.write("start", context.run_id, context.claim)
    pages.write("fail", context.run_id, context.claim)
    time.sleep(FOR_EVER_S + number)


def _worked(context: TaskContext, number: int, seconds: float) -> int:
    pages.write("start", context.run_id, context.claim)
    pages.beat_for(seconds, context.run_id, context.claim)
    pages.write("end", context.run_id, context.claim)
    return number
