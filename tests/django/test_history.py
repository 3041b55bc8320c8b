"""A run of very many attempts, as Django sees it: its errors are those that are kept, its attempts are all."""

from __future__ import annotations

from typing import Any

from django.test import TestCase

from reproq_prefork.django.families.compat import families
from reproq_prefork.django.models import TaskRun
from reproq_prefork.django.testing import run_tasks
from tests.django.app import tasks as typed_tasks

tasks: Any = typed_tasks  # Django's types know nothing of what this backend adds
STATUSES = families()[0].statuses
ATTEMPTS = 60


class ManyAttempts(TestCase):
    def test_kept_errors_are_listed_and_all_attempts_are_counted(self) -> None:
        result = tasks.fail.using(max_attempts=ATTEMPTS).enqueue("oh no")
        (done,) = run_tasks()
        stored = TaskRun.objects.get(pk=result.id)
        assert (len(stored.errors), stored.errors[20]["omitted"]) == (41, ATTEMPTS - 40)
        for each in (done, result):
            each.refresh()
            assert (each.status, each.attempts) == (STATUSES.FAILED, ATTEMPTS)
            assert [error.exception_class for error in each.errors] == [ValueError] * 40
            assert len(each.worker_ids) == 40

    def test_a_task_knows_its_attempt_and_the_errors_before_it(self) -> None:
        result = tasks.retry_until.using(max_attempts=ATTEMPTS).enqueue(ATTEMPTS - 5)
        (done,) = run_tasks()
        assert (done.return_value, done.attempts) == (ATTEMPTS - 5, ATTEMPTS - 5)
        assert len(done.errors) == 40
        result.refresh()
        assert result.attempts == ATTEMPTS - 5
