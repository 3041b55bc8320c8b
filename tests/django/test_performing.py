"""What a task meets while it runs: context, signals, errors, its transaction. Run in the test's own process."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import IntegrityError, OperationalError, connection
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import timezone

from reproq_prefork.django.families.compat import families
from reproq_prefork.django.perform.backends import own_backends
from reproq_prefork.django.perform.in_process import perform_due
from reproq_prefork.django.perform.runs_database import HeldRun
from reproq_prefork.django.testing import assert_enqueued, assert_not_enqueued, enqueued, run_tasks
from tests.django.app import tasks as typed_tasks
from tests.django.app.models import Note
from tests.support.django.backend import IMMEDIATE, heard

tasks: Any = typed_tasks  # Django's types know nothing of what this backend adds
FAMILY = families()[0]
STATUSES = FAMILY.statuses


@contextmanager
def failing(name: str, *, of: Any = None) -> Iterator[None]:
    """Meanwhile this method of HeldRun finds no database: for the run of a result, or for all."""
    method = getattr(HeldRun, name)

    def fail(row: HeldRun) -> Any:
        if of is None or of.id == str(row._run_id):
            raise OperationalError
        return method(row)

    with mock.patch.object(HeldRun, name, fail):
        yield


class Performed(TestCase):
    def test_a_task_runs_and_its_result_can_be_read(self) -> None:
        result = tasks.add.enqueue(1, 2)
        (done,) = run_tasks()
        assert (done.id, done.status, done.return_value) == (result.id, STATUSES.SUCCESSFUL, 3)
        result.refresh()
        assert (result.return_value, result.attempts, result.is_finished) == (3, 1, True)
        assert result.finished_at is not None

    def test_an_async_task_runs(self) -> None:
        tasks.add_asynchronously.enqueue(1, 2)
        assert run_tasks()[0].return_value == 3

    def test_an_async_task_reaches_the_transaction_of_the_test(self) -> None:
        tasks.write_note_asynchronously.enqueue("hello")
        assert run_tasks()[0].status == STATUSES.SUCCESSFUL
        assert Note.objects.get().text == "hello"

    def test_jit_is_off_during_a_task_and_restored_afterwards(self) -> None:
        tasks.read_setting.enqueue("jit")
        with connection.cursor() as cursor:
            cursor.execute("set jit = on")
            assert run_tasks()[0].return_value == "off"
            cursor.execute("show jit")
            assert cursor.fetchone() == ("on",)

    def test_the_order_is_priority_then_age(self) -> None:
        low = tasks.add.using(priority=-5).enqueue(1, 1)
        first = tasks.add.enqueue(1, 2)
        second = tasks.add.enqueue(1, 3)
        high = tasks.add.using(priority=5).enqueue(1, 4)
        assert [done.id for done in run_tasks()] == [each.id for each in (high, first, second, low)]

    def test_a_task_enqueued_by_a_task_is_run_too(self) -> None:
        tasks.enqueue_another.enqueue(3)
        assert [done.return_value for done in run_tasks()] == [3, 2, 1, 0]

    def test_a_failing_task_uses_all_its_attempts(self) -> None:
        result = tasks.fail.enqueue("oh no")
        with heard("task_finished") as finished, heard("task_started") as started:
            run_tasks()
        result.refresh()
        assert (result.status, result.attempts) == (STATUSES.FAILED, 3)
        assert [error.exception_class for error in result.errors] == [ValueError] * 3
        assert "oh no" in result.errors[0].traceback
        assert finished == [(result.id, STATUSES.FAILED, 3)], "once, for the end, and for no retry"
        assert [errors for _, _, errors in started] == [0, 1, 2]

    def test_discard_fails_the_task_at_once(self) -> None:
        result = tasks.discard.enqueue("pointless")
        run_tasks()
        result.refresh()
        assert (result.status, result.attempts) == (STATUSES.FAILED, 1)

    def test_retry_counts_as_a_failed_attempt(self) -> None:
        result = tasks.retry_until.enqueue(3)
        run_tasks()
        result.refresh()
        assert (result.status, result.return_value, len(result.errors)) == (STATUSES.SUCCESSFUL, 3, 2)

    def test_exiting_the_interpreter_is_a_failure(self) -> None:
        result = tasks.leave.enqueue()
        run_tasks()
        result.refresh()
        assert result.status == STATUSES.FAILED
        assert result.errors[-1].exception_class is SystemExit

    def test_ctrl_c_ends_the_test_and_not_only_the_task(self) -> None:
        tasks.interrupt.enqueue()
        with pytest.raises(KeyboardInterrupt):
            run_tasks()

    def test_a_result_that_is_not_json_ends_the_run_with_a_reason(self) -> None:
        result = tasks.give.enqueue("a set")
        run_tasks()
        result.refresh()
        assert (result.status, result.attempts) == (STATUSES.FAILED, 1), "its work was done"
        assert result.errors[-1].exception_class is TypeError

    def test_a_result_is_normalised_as_django_does(self) -> None:
        tasks.give.enqueue("a tuple of bytes")
        assert run_tasks()[0].return_value == ["a", ["b"]]

    def test_the_context_holds_the_id_and_the_attempt(self) -> None:
        result = tasks.tell_id_and_attempt.enqueue()
        assert run_tasks()[0].return_value == [result.id, 1]

    def test_each_run_keeps_its_own_options_among_runs_of_one_task(self) -> None:
        moments = [timezone.now() - timedelta(minutes=number) for number in (1, 2)]
        said: list[dict[str, Any]] = [
            {"queue_name": "mail"},
            {"priority": 5},
            *({"run_after": moment} for moment in moments),
            {},
        ]
        for options in said:
            tasks.tell_how_it_was_enqueued.using(**options).enqueue()
        told = [result.return_value for result in run_tasks()]
        expected = [["mail", 0, "None"], ["default", 5, "None"], ["default", 0, "None"]]
        expected += [["default", 0, str(moment)] for moment in moments]
        assert sorted(told) == sorted(expected)

    def test_metadata_is_kept_and_added_to(self) -> None:
        result = tasks.progress.enqueue()
        (done,) = run_tasks()
        assert done.metadata == {"step": 2, "of": 2, "claim": 1}
        result.refresh()
        assert result.metadata == done.metadata

    def test_signals_are_sent_at_start_and_end(self) -> None:
        with heard("task_started") as started, heard("task_finished") as finished:
            result = tasks.add.enqueue(1, 2)
            run_tasks()
        assert started == [(result.id, STATUSES.RUNNING, 0)]
        assert finished == [(result.id, STATUSES.SUCCESSFUL, 0)]

    def test_a_run_cancelled_while_it_runs_ends_and_is_announced(self) -> None:
        with heard("task_finished") as finished:
            result = tasks.cancel_itself_and_fail.enqueue()
            (done,) = run_tasks()
        assert (done.id, done.status, done.attempts) == (result.id, STATUSES.FAILED, 1)
        assert [error.exception_class.__name__ for error in done.errors] == ["ValueError", "TaskCancelled"]
        assert finished == [(result.id, STATUSES.FAILED, 2)]

    def test_a_receiver_that_fails_does_not_fail_the_task(self) -> None:
        def fail(**kwargs: Any) -> None:
            raise RuntimeError

        FAMILY.signals.task_started.connect(fail)
        try:
            tasks.add.enqueue(1, 2)
            assert run_tasks()[0].status == STATUSES.SUCCESSFUL
        finally:
            FAMILY.signals.task_started.disconnect(fail)

    def test_django_logs_the_end_with_its_exception(self) -> None:
        tasks.discard.enqueue("pointless")
        with self.assertLogs(FAMILY.name, logging.ERROR) as logs:
            run_tasks()
        assert "state=FAILED" in logs.output[0]
        assert "pointless" in logs.output[0]

    def test_a_path_that_is_not_a_task_is_never_called(self) -> None:
        for path in (
            "os.getcwd",
            "tests.django.app.tasks.time",
            "tests.django.app.models.Note",
            "tests.django.x",
        ):
            with connection.cursor() as cursor:
                cursor.execute(
                    "insert into task_runs (payload, spec_hash) values (%s::jsonb, repeat('0', 64)) returning id",
                    [f'{{"v": 1, "task": "{path}", "args": [], "kwargs": {{}}}}'],
                )
                (run_id,) = cursor.fetchone()
            perform_due(own_backends()[0])
            with connection.cursor() as cursor:
                cursor.execute("select status, errors->0->>'kind' from task_runs where id = %s", [run_id])
                assert cursor.fetchone() == ("FAILED", "not_allowed"), path


class Atomic(TransactionTestCase):
    def test_the_effects_and_the_end_are_committed_together(self) -> None:
        result = tasks.write_note_atomically.enqueue("kept")
        with heard("task_finished") as finished:
            run_tasks()
        result.refresh()
        assert (result.status, result.return_value) == (STATUSES.SUCCESSFUL, "kept")
        assert [note.text for note in Note.objects.all()] == ["kept"]
        assert finished == [(result.id, STATUSES.SUCCESSFUL, 0)]

    def test_a_failure_undoes_its_effects(self) -> None:
        result = tasks.write_note_atomically.enqueue("fail")
        run_tasks()
        result.refresh()
        assert result.status == STATUSES.FAILED
        assert not Note.objects.exists()

    def test_a_task_whose_result_cannot_be_stored_has_no_effects(self) -> None:
        for task in (tasks.write_note_and_return_a_set, tasks.write_note_and_return_a_nul):
            with self.subTest(task=task.name), heard("task_finished") as finished:
                result = task.enqueue()
                run_tasks()
                result.refresh()
                assert result.status == STATUSES.FAILED
                assert finished == [(result.id, STATUSES.FAILED, 1)]
                assert not Note.objects.exists()

    def test_a_refused_commit_is_a_failure_without_effects(self) -> None:
        """Also if the outcome of the commit cannot be read: then the worker's own fence decides."""
        for asked in (contextlib.nullcontext(), failing("is_completed")):
            with self.subTest(asked=asked), asked:
                result = tasks.write_what_the_commit_refuses.using(max_attempts=1).enqueue()
                with heard("task_finished") as finished:
                    run_tasks()
                result.refresh()
                assert result.status == STATUSES.FAILED
                assert result.errors[-1].exception_class is IntegrityError
                assert finished == [(result.id, STATUSES.FAILED, 1)]
                assert not Note.objects.exists()

    def test_the_end_stays_due_until_it_was_announced(self) -> None:
        """If the announcement is not recorded, the task has succeeded, and its end is announced again."""
        told, owed = tasks.write_note_atomically.enqueue("one"), tasks.write_note_atomically.enqueue("two")
        with failing("announced", of=owed):
            run_tasks()
        for result in (told, owed):
            result.refresh()
            assert result.status == STATUSES.SUCCESSFUL
        with connection.cursor() as cursor:
            cursor.execute("select finish_due_at > now() from task_runs order by id")
            assert cursor.fetchall() == [(None,), (True,)]

    def test_an_error_after_the_commit_is_logged_and_changes_nothing(self) -> None:
        result = tasks.write_note_and_fail_after_the_commit.enqueue("kept")
        with heard("task_finished") as finished, self.assertLogs("reproq_prefork", logging.ERROR) as logs:
            run_tasks()
        result.refresh()
        assert (result.status, result.return_value, result.errors) == (STATUSES.SUCCESSFUL, "kept", [])
        assert finished == [(result.id, STATUSES.SUCCESSFUL, 0)]
        assert "too late" in logs.output[0]
        assert Note.objects.count() == 1

    def test_if_the_outcome_of_the_commit_is_unknown_no_end_is_announced(
        self,
    ) -> None:
        """It was committed, so the worker's own statement changes nothing, and the true end stays due."""
        result = tasks.write_note_and_fail_after_the_commit.using(max_attempts=1).enqueue("kept")
        with failing("is_completed"), heard("task_finished") as finished:
            run_tasks()
        assert finished == []
        result.refresh()
        assert (result.status, result.return_value, result.errors) == (STATUSES.SUCCESSFUL, "kept", [])
        with connection.cursor() as cursor:
            cursor.execute("select finish_due_at > now() from task_runs")
            assert cursor.fetchall() == [(True,)]

    def test_a_run_lost_during_its_task_commits_nothing(self) -> None:
        result = tasks.write_note_and_lose_the_run.using(max_attempts=1).enqueue()
        with heard("task_finished") as finished:
            run_tasks()
        assert not Note.objects.exists()
        result.refresh()
        assert result.status == STATUSES.RUNNING, "it is the new holder's to end"
        assert finished == [], "and to announce"


class Immediate(TestCase):
    @override_settings(TASKS=IMMEDIATE)
    def test_a_task_has_ended_when_enqueue_comes_back(self) -> None:
        result = tasks.add.enqueue(1, 2)
        assert result.return_value == 3
        assert tasks.add.get_result(result.id).return_value == 3

    @override_settings(TASKS=IMMEDIATE)
    def test_a_failure_is_a_result_too(self) -> None:
        assert tasks.fail.enqueue("oh no").status == STATUSES.FAILED

    @override_settings(TASKS=IMMEDIATE)
    async def test_an_async_task_is_run_by_aenqueue(self) -> None:
        assert (await tasks.add_asynchronously.aenqueue(1, 2)).return_value == 3

    @override_settings(TASKS=IMMEDIATE)
    def test_a_broken_transaction_of_a_task_does_not_break_the_test(self) -> None:
        result = tasks.write_two_notes_with_one_key.enqueue()
        assert result.status == STATUSES.FAILED
        assert not Note.objects.exists()


class Assertions(TestCase):
    def test_assert_enqueued_finds_waiting_tasks(self) -> None:
        tasks.add.enqueue(1, b=2)
        tasks.add.enqueue(3, 4)
        assert len(assert_enqueued(tasks.add)) == 2
        assert_enqueued(tasks.add, args=(1,), kwargs={"b": 2}, count=1)
        assert_not_enqueued(tasks.fail)
        assert [result.args for result in enqueued()] == [[1], [3, 4]]

    def test_assert_enqueued_fails_with_a_list_of_waiting_tasks(self) -> None:
        tasks.add.enqueue(1, 2)
        with pytest.raises(AssertionError, match=r"add\(1, 3\).*at least once(.|\n)*add\(1, 2\)"):
            assert_enqueued(tasks.add, args=[1, 3])
        with pytest.raises(AssertionError, match="0 times"):
            assert_not_enqueued(tasks.add)
        run_tasks()
        with pytest.raises(AssertionError, match="No run of the task is waiting"):
            assert_enqueued(tasks.add)
