"""Atomic tasks in real workers: what they write and their end are one commit, whatever comes between."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import psycopg
import pytest

from reproq_prefork.django.families.compat import families
from tests.django.app import tasks as typed_tasks
from tests.django.app.models import Note
from tests.support.django.workers import Workers
from tests.support.rows.stores import steward_store
from tests.support.waiting import wait_until

tasks: Any = typed_tasks
STATUSES = families()[0].statuses
CLAIM_LEASE_IS_OVER = "select lease_expires_at < now() from task_runs where status = 'RUNNING'"
BOTH = pytest.mark.parametrize("executor", ["fork", "inline"])

# psycopg.IsolationLevel
ISOLATION = pytest.mark.parametrize(
    "level", [2, 3, 4], ids=["read committed", "repeatable read", "serializable"]
)


@ISOLATION
@BOTH
def test_atomic_tasks_work_at_every_isolation_level(
    django_workers: Workers, executor: str, level: int
) -> None:
    environ = {"REPROQ_TEST_CONNECTION_OPTIONS": json.dumps({"isolation_level": level})}
    with django_workers("--executor", executor, environ=environ):
        results = [tasks.write_note_atomically.enqueue(str(number)) for number in range(5)]
        results.append(tasks.write_note_with_progress.enqueue("progress"))
        assert [result.wait(30).status for result in results] == [STATUSES.SUCCESSFUL] * 6
        assert results[-1].metadata == {"step": 2}
    assert Note.objects.count() == 6


@BOTH
def test_atomic_tasks_may_take_longer_than_the_lease(
    django_workers: Workers, django_database: str, executor: str
) -> None:
    """The lease of the claim has ended by then. The worker's lease is renewed, and the sweep checks both."""
    with (
        django_workers("--executor", executor, "--lease", "1s"),
        closing(steward_store(django_database)) as steward,
        psycopg.connect(django_database, autocommit=True) as other,
    ):
        result = tasks.write_note_slowly.enqueue("slow", 3.0)

        def has_outlived_its_lease() -> bool:
            return other.execute(CLAIM_LEASE_IS_OVER).fetchone() == (True,)

        def has_ended_unswept() -> bool:
            assert steward.sweep_expired() == ()
            return not has_outlived_its_lease()

        wait_until(has_outlived_its_lease, 20, "the lease of the claim to end")
        wait_until(has_ended_unswept, 20, "the task to end")
        result.refresh()
    assert (result.status, result.attempts) == (STATUSES.SUCCESSFUL, 1)
    assert [note.text for note in Note.objects.all()] == ["slow"]


@BOTH
def test_a_cancelled_atomic_task_writes_nothing(django_workers: Workers, executor: str) -> None:
    with django_workers("--executor", executor):
        result = tasks.write_note_slowly.enqueue("never", 60.0)
        wait_until(lambda: refreshed(result).status == STATUSES.RUNNING, 20, "the task to run")
        result.cancel()
        assert result.wait(30).errors[-1].exception_class.__name__ == "TaskCancelled"
    assert not Note.objects.exists()


@BOTH
def test_an_atomic_task_that_misses_its_deadline_writes_nothing(
    django_workers: Workers, executor: str
) -> None:
    with django_workers("--executor", executor):
        result = tasks.write_note_slowly.using(timeout=0.3, max_attempts=1).enqueue("never", 60.0).wait(30)
        assert result.errors[-1].exception_class.__name__ == "TaskTimeout"
    assert not Note.objects.exists()


@BOTH
def test_an_atomic_task_that_breaks_its_transaction_fails_and_does_not_hang(
    django_workers: Workers, executor: str
) -> None:
    with django_workers("--executor", executor):
        swallowed = tasks.swallow_a_database_error.using(max_attempts=1).enqueue()
        marked = tasks.mark_for_rollback.using(max_attempts=1).enqueue()
        assert swallowed.wait(30).status == STATUSES.FAILED
        assert marked.wait(30).status == STATUSES.FAILED
    assert not Note.objects.exists()


def refreshed(result: Any) -> Any:
    result.refresh()
    return result
