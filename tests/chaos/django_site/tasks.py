"""The storm's Django tasks. Whether one is atomic, and which executor runs it, the load says for each run.

Those whose names begin with `note` write an effect, and must be atomic: it is there exactly once, or never.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.db import connection

from tests.chaos import doings
from tests.chaos.doings import Attempt

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


def _attempt(context: Any) -> Attempt:
    return Attempt(int(context.task_result.id), context.claim, context.attempt)


def _write_effect(attempt: Attempt) -> None:
    with connection.cursor() as cursor:
        cursor.execute("insert into effects values (%s, %s)", [attempt.run_id, attempt.claim])


@task(queue_name="site", takes_context=True)
def nothing(context: Any, number: int) -> int:
    return doings.nothing(_attempt(context), number)


@task(queue_name="site", takes_context=True)
def work(context: Any, number: int, seconds: float) -> int:
    return doings.work(_attempt(context), number, seconds)


@task(queue_name="site", takes_context=True)
def patient(context: Any, number: int, seconds: float) -> int:
    return doings.work(_attempt(context), number, seconds)


@task(queue_name="site", takes_context=True)
def failing(context: Any, number: int) -> int:
    return doings.fail_at_first(_attempt(context), number)


@task(queue_name="site", takes_context=True)
def later(context: Any, number: int, *, after_s: float) -> int:
    return doings.ask_to_be_run_later(_attempt(context), number, after_s)


@task(queue_name="site", takes_context=True)
def hoarding(context: Any, number: int) -> int:
    return number + doings.hoard(_attempt(context))


@task(queue_name="site", takes_context=True)
def note_and_work(context: Any, number: int, seconds: float) -> int:
    _write_effect(_attempt(context))
    return doings.work(_attempt(context), number, seconds)


@task(queue_name="site", takes_context=True)
def note_and_be_patient(context: Any, number: int, seconds: float) -> int:
    _write_effect(_attempt(context))
    return doings.work(_attempt(context), number, seconds)


@task(queue_name="site", takes_context=True)
def note_and_fail(context: Any, number: int) -> int:
    _write_effect(_attempt(context))
    return doings.fail_at_first(_attempt(context), number)


@task(queue_name="site", takes_context=True)
def note_and_ask_later(context: Any, number: int, *, after_s: float) -> int:
    _write_effect(_attempt(context))
    return doings.ask_to_be_run_later(_attempt(context), number, after_s)


@task(queue_name="site", takes_context=True)
def note_and_spoil(context: Any, number: int) -> object:
    _write_effect(_attempt(context))
    return doings.spoil(_attempt(context))
