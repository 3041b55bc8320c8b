"""The storm's tasks without Django. Which executor runs one, the load says for each run."""

from __future__ import annotations

import os

from reproq_prefork import TaskContext, task
from tests.chaos import doings, pages
from tests.chaos.doings import Attempt

MANY_ATTEMPTS = 1000  # so that no number of kills ends a run


def _attempt(context: TaskContext) -> Attempt:
    return Attempt(context.run_id, context.claim, context.attempt)


@task(takes_context=True, executor="inline", max_attempts=MANY_ATTEMPTS)
def nothing(context: TaskContext, number: int) -> int:
    return doings.nothing(_attempt(context), number)


@task(takes_context=True, executor="inline", max_attempts=MANY_ATTEMPTS)
def short(context: TaskContext, number: int, seconds: float) -> int:
    return doings.work(_attempt(context), number, seconds)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def long(context: TaskContext, number: int, seconds: float) -> int:
    return doings.work(_attempt(context), number, seconds)


@task(takes_context=True, max_attempts=MANY_ATTEMPTS)
def patient(context: TaskContext, number: int, seconds: float) -> int:
    """Somebody will cancel it, most likely."""
    return doings.work(_attempt(context), number, seconds)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def longer_again(context: TaskContext, number: int, seconds: float, later_s: float) -> int:
    """`later_s`: at later attempts."""
    return doings.work(_attempt(context), number, seconds if context.attempt == 1 else later_s)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def by_host(context: TaskContext, number: int, seconds: dict[str, float]) -> int:
    return doings.work(_attempt(context), number, seconds[os.environ[pages.HOST]])


@task(takes_context=True, executor="fork", max_attempts=1)
def once(context: TaskContext, number: int, seconds: float) -> int:
    return doings.work(_attempt(context), number, seconds)


@task(takes_context=True, executor="fork", max_attempts=MANY_ATTEMPTS)
def nested(context: TaskContext, number: int, seconds: float) -> int:
    return doings.work_in_another_session(_attempt(context), number, seconds)


@task(takes_context=True, max_attempts=MANY_ATTEMPTS)
def failing(context: TaskContext, number: int) -> int:
    return doings.fail_at_first(_attempt(context), number)


@task(takes_context=True, max_attempts=2)
def hopeless(context: TaskContext, number: int) -> int:
    return doings.fail(_attempt(context), number)


@task(takes_context=True, max_attempts=MANY_ATTEMPTS)
def later(context: TaskContext, number: int, *, after_s: float) -> int:
    return doings.ask_to_be_run_later(_attempt(context), number, after_s)


@task(takes_context=True, executor="fork", max_attempts=2)
def hoarding(context: TaskContext, number: int) -> int:
    return number + doings.hoard(_attempt(context))


@task(takes_context=True, executor="fork", max_attempts=2, timeout=0.3)
def overrunning(context: TaskContext, number: int) -> None:
    doings.overrun(_attempt(context), number)
