"""`Snooze` in Django tasks: READY again later, no attempt, no error, no end that anybody is told of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import timezone

from reproq_prefork.django.families.compat import families
from reproq_prefork.django.models import TaskRun
from reproq_prefork.django.testing import run_tasks
from tests.django.app import tasks as typed_tasks
from tests.django.app.models import Note
from tests.support.django.backend import IMMEDIATE, heard
from tests.support.django.workers import Workers
from tests.support.waiting import wait_until

tasks: Any = typed_tasks  # Django's types know nothing of what this backend adds
FAMILY = families()[0]
STATUSES = FAMILY.statuses
BOTH = pytest.mark.parametrize("executor", ["fork", "inline"])
HOUR_S = 3600.0


def make_due(result: Any) -> None:
    TaskRun.objects.filter(pk=result.id).update(run_after=None)


def assert_snoozed(result: Any) -> None:
    result.refresh()
    assert (result.status, result.attempts, result.errors) == (STATUSES.READY, 0, [])
    assert (result.worker_ids, result.started_at, result.finished_at) == ([], None, None)
    due_in = TaskRun.objects.get(pk=result.id).run_after - timezone.now()
    assert timedelta(minutes=55) < due_in <= timedelta(hours=1)


class Performed(TestCase):
    def test_a_task_that_snoozes_is_ready_and_no_end_is_announced(self) -> None:
        result = tasks.poll.enqueue(3, HOUR_S)
        with heard("task_started") as started, heard("task_finished") as finished:
            assert run_tasks() == []
            assert_snoozed(result)
            assert run_tasks() == [], "it is not due"
            make_due(result)
            assert run_tasks() == []
            assert_snoozed(result)
            make_due(result)
            (done,) = run_tasks()
        assert (done.status, done.return_value, done.attempts) == (STATUSES.SUCCESSFUL, 1, 1)
        assert done.errors == []
        assert [each for each, _, _ in started] == [result.id] * 3
        assert finished == [(result.id, STATUSES.SUCCESSFUL, 0)]

    def test_metadata_of_a_snoozed_task_is_kept(self) -> None:
        result = tasks.poll.enqueue(2, HOUR_S)
        run_tasks()
        result.refresh()
        assert result.metadata == {"looked": 1}

    def test_a_snooze_of_zero_seconds_is_due_at_once(self) -> None:
        tasks.poll.enqueue(5, 0)
        (done,) = run_tasks()
        assert (done.attempts, done.return_value, done.metadata) == (1, 1, {"looked": 4})

    def test_an_async_task_snoozes_too(self) -> None:
        result = tasks.poll_asynchronously.enqueue(HOUR_S)
        run_tasks()
        assert_snoozed(result)

    @override_settings(TASKS=IMMEDIATE)
    def test_a_snoozed_task_that_enqueue_ran_is_ready(self) -> None:
        result = tasks.poll.enqueue(2, HOUR_S)
        assert_snoozed(result)


class Atomic(TransactionTestCase):
    def test_database_changes_of_a_snoozed_atomic_task_are_rolled_back(self) -> None:
        result = tasks.write_note_and_snooze.enqueue("not yet", HOUR_S)
        with heard("task_finished") as finished:
            assert run_tasks() == []
        assert_snoozed(result)
        assert not Note.objects.exists()
        assert finished == []


@BOTH
def test_a_worker_snoozes_a_task_and_goes_on(django_workers: Workers, executor: str) -> None:
    with django_workers("--executor", executor, workers=1) as workers:
        polls = tasks.poll.enqueue(6, 0.02)
        waits, atomic = tasks.poll.enqueue(2, HOUR_S), tasks.write_note_and_snooze.enqueue("x", HOUR_S)
        assert tasks.add.enqueue(1, 2).wait(30).return_value == 3
        assert polls.wait(30).return_value == 1
        assert (polls.attempts, polls.errors, polls.metadata) == (1, [], {"looked": 5})
        wait_until(lambda: f"run {atomic.id} is snoozed" in workers.log(), 20, "the last snooze")
        assert_snoozed(waits)
        assert waits.metadata == {"looked": 1}
        assert_snoozed(atomic)
        assert f"run {waits.id} is snoozed for 3600 s" in workers.log()
        assert not Note.objects.exists()


@BOTH
def test_a_snoozed_task_that_was_cancelled_has_ended_and_is_announced(
    django_workers: Workers, executor: str
) -> None:
    with django_workers("--executor", executor):
        result = tasks.poll.enqueue(10**9, 0.01)
        wait_until(lambda: TaskRun.objects.get(pk=result.id).claims > 5, 20, "some polls")
        result.cancel()
        result.wait(30)
        assert result.status == STATUSES.FAILED
        assert result.errors[-1].exception_class.__name__ == "TaskCancelled"
        wait_until(
            lambda: TaskRun.objects.get(pk=result.id).finish_due_at is None, 20, "the application to be told"
        )
