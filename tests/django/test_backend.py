"""The backend as a site uses it: what is enqueued, what comes back, and what is refused before any SQL."""

from __future__ import annotations

import dataclasses
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase, override_settings
from django.utils import timezone

from reproq_prefork.django import ReproqBackend, bulk_enqueue, call, reproq_options
from reproq_prefork.django.families.compat import families, family_of
from reproq_prefork.django.testing import run_tasks
from reproq_prefork.model.new_run import NewRun
from tests.django.app import tasks as typed_tasks

tasks: Any = typed_tasks  # Django's types know nothing of what this backend adds
FAMILY = families()[0]
STATUSES = FAMILY.statuses


def row(result: Any) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute("select * from task_runs where id = %s", [int(result.id)])
        found = cursor.fetchone()
        return dict(zip((column.name for column in cursor.description), found, strict=True))


def test_the_backend_supports_every_feature() -> None:
    backend = FAMILY.backends["default"]
    assert isinstance(backend, ReproqBackend)
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority


class Enqueue(TestCase):
    def test_an_enqueue_is_one_statement_on_djangos_connection(self) -> None:
        with self.assertNumQueries(1):
            tasks.add.enqueue(1, 2)

    def test_an_enqueue_returns_the_result_of_a_ready_task(self) -> None:
        result = tasks.add.enqueue(1, b=2)
        assert isinstance(result, FAMILY.base.TaskResult)
        assert result.status == STATUSES.READY
        assert (result.args, result.kwargs, result.backend) == ([1], {"b": 2}, "default")
        assert result.task == tasks.add
        assert (result.started_at, result.finished_at, result.errors, result.worker_ids) == (
            None,
            None,
            [],
            [],
        )
        assert result.enqueued_at is not None
        assert not result.is_finished

    def test_get_result_returns_an_equal_result(self) -> None:
        result = tasks.send_mail.using(priority=20).enqueue("somebody")
        assert tasks.send_mail.get_result(result.id) == result
        assert FAMILY.backends["default"].get_result(result.id) == result
        assert result.task.priority == 20

    def test_a_rollback_removes_the_task(self) -> None:
        with transaction.atomic():
            result = tasks.add.enqueue(1, 2)
            transaction.set_rollback(True)
        with pytest.raises(FAMILY.exception("TaskResultDoesNotExist")):
            tasks.add.get_result(result.id)

    def test_run_after_is_kept(self) -> None:
        later = timezone.now() + timedelta(hours=1)
        result = tasks.add.using(run_after=later).enqueue(1, 2)
        assert result.task.run_after == later
        assert tasks.add.get_result(result.id).task.run_after == later

    def test_arguments_that_are_not_json_are_refused_before_any_sql(self) -> None:
        with self.assertNumQueries(0):
            for wrong in (object(), {1, 2}, float("nan"), "\0"):
                with pytest.raises((TypeError, ValueError)):
                    tasks.add.enqueue(wrong, 2)

    def test_an_unknown_queue_is_refused(self) -> None:
        with pytest.raises(FAMILY.exception("InvalidTask")):
            tasks.add.using(queue_name="elsewhere")

    def test_a_task_that_no_worker_could_load_is_refused_with_what_to_do(self) -> None:
        def task_of(module: str, name: str) -> Any:
            def function() -> None: ...

            function.__module__, function.__qualname__ = module, name
            return FAMILY.base.task(function)

        for module, name, advice in (
            ("elsewhere.tasks", "send", "INSTALLED_APPS"),
            ("tests.django.app.tasks", "Mail.send", "move it to the top"),
        ):
            task = task_of(module, name)
            with (
                self.subTest(module=module),
                self.assertNumQueries(0),
                pytest.raises(FAMILY.exception("InvalidTask"), match=advice),
            ):
                task.enqueue()

    def test_task_enqueued_is_sent(self) -> None:
        heard = []

        def hear(sender: Any, task_result: Any, **kwargs: Any) -> None:
            heard.append((sender, task_result.id))

        FAMILY.signals.task_enqueued.connect(hear)
        try:
            result = tasks.add.enqueue(1, 2)
        finally:
            FAMILY.signals.task_enqueued.disconnect(hear)
        assert heard == [(ReproqBackend, result.id)]


class Results(TestCase):
    def test_a_malformed_id_does_not_exist_and_sends_no_query(self) -> None:
        with self.assertNumQueries(0):
            for wrong in ("", "x", "-1", "1.5", " 1", "1\n", "٣", str(2**63), "9" * 5000, None, object()):
                with pytest.raises(FAMILY.exception("TaskResultDoesNotExist")):
                    FAMILY.backends["default"].get_result(wrong)

    def test_an_id_that_is_free_does_not_exist(self) -> None:
        with pytest.raises(FAMILY.exception("TaskResultDoesNotExist")):
            tasks.add.get_result(str(2**63 - 1))

    def test_a_result_of_another_task_is_a_mismatch(self) -> None:
        result = tasks.add.enqueue(1, 2)
        with pytest.raises(FAMILY.exception("TaskResultMismatch")):
            tasks.fail.get_result(result.id)

    def test_a_result_can_be_pickled_and_shown_as_a_dict(self) -> None:
        result = tasks.add.enqueue(1, 2)
        assert pickle.loads(pickle.dumps(result)) == result
        assert dataclasses.asdict(result)["args"] == [1, 2]

    def test_a_task_can_be_pickled(self) -> None:
        task = tasks.add.using(priority=7)
        assert pickle.loads(pickle.dumps(task)) == task

    def test_refresh_reads_what_has_changed(self) -> None:
        result = tasks.add.enqueue(1, 2)
        with connection.cursor() as cursor:
            cursor.execute(
                "update task_runs set status = 'SUCCESSFUL', result = '3', worker_ids = '{w}', "
                "started_at = now(), finished_at = now() where id = %s",
                [int(result.id)],
            )
        result.refresh()
        assert (result.status, result.return_value, result.attempts) == (STATUSES.SUCCESSFUL, 3, 1)

    def test_a_cancelled_task_has_failed_with_an_error_that_says_so(self) -> None:
        result = tasks.add.enqueue(1, 2)
        assert result.cancel()
        assert result.status == STATUSES.FAILED
        assert result.cancel_requested
        assert [error.exception_class.__name__ for error in result.errors] == ["TaskCancelled"]
        assert result.cancel(), "it is cancelled, whoever asked first"

    def test_a_cancelled_task_whose_worker_was_killed_has_an_error_that_says_so_too(self) -> None:
        result = tasks.add.enqueue(1, 2)
        with connection.cursor() as cursor:
            cursor.execute(
                "update task_runs set status = 'CANCELLED', finished_at = now(), errors = %s where id = %s",
                ['[{"kind": "worker_lost", "message": "the worker ended"}]', int(result.id)],
            )
        result.refresh()
        names = [error.exception_class.__name__ for error in result.errors]
        assert names == ["WorkerLost", "TaskCancelled"]

    def test_a_finished_task_is_not_cancelled(self) -> None:
        result = tasks.add.enqueue(1, 2)
        run_tasks()
        assert not result.cancel()
        assert result.return_value == 3

    def test_a_requeued_task_is_a_new_run_with_the_same_spec_hash(self) -> None:
        first = tasks.add.enqueue(1, 2)
        again = FAMILY.backends["default"].requeue(first)
        assert again.id != first.id
        assert (again.args, again.spec_hash) == (first.args, first.spec_hash)
        assert row(again)["replay_of"] == int(first.id)


class Options(TestCase):
    def test_options_of_the_function_are_stored(self) -> None:
        stored = row(tasks.patient.enqueue())
        assert stored["max_attempts"] == 5
        assert stored["timeout_seconds"] == 30
        assert stored["retry_base_seconds"] == 0.5
        assert stored["retry_max_seconds"] == 60
        assert stored["executor"] == "inline"

    @pytest.mark.skipif(
        not typed_tasks.TAKES_OPTIONS, reason="Django 6.0's @task takes no options of a backend"
    )
    def test_the_decorator_takes_them_too(self) -> None:
        stored = row(tasks.with_options_of_its_own.enqueue())
        assert (stored["max_attempts"], stored["timeout_seconds"], stored["atomic"]) == (7, 9, True)

    def test_using_is_stronger_than_the_function(self) -> None:
        assert row(tasks.patient.using(max_attempts=2, timeout=1.5).enqueue())["max_attempts"] == 2

    def test_options_of_the_setting_are_the_weakest(self) -> None:
        changed = {
            "default": {"BACKEND": "reproq_prefork.django.ReproqBackend", "OPTIONS": {"max_attempts": 9}}
        }
        with override_settings(TASKS=changed):
            assert row(tasks.add.enqueue(1, 2))["max_attempts"] == 9
            assert row(tasks.patient.enqueue())["max_attempts"] == 5

    def test_arguments_of_the_function_are_never_taken_as_options(self) -> None:
        stored = row(tasks.with_option_names.enqueue(timeout=3, unique=True, max_attempts=1, priority=9))
        assert (stored["timeout_seconds"], stored["unique_key"], stored["max_attempts"]) == (None, None, 3)
        assert '"timeout": 3' in stored["payload"]

    def test_a_unique_task_is_enqueued_once(self) -> None:
        first = tasks.unique.enqueue(1)
        again = tasks.unique.enqueue(1)
        assert (again.id, again.created, first.created) == (first.id, False, True)
        assert tasks.unique.enqueue(2).created

    def test_a_function_may_give_the_unique_key(self) -> None:
        first = tasks.unique_by_order.enqueue(7, note="a")
        assert tasks.unique_by_order.enqueue(7, note="b").id == first.id
        assert row(first)["unique_key"] == "order 7"

    def test_wrong_options_are_refused_at_their_definition(self) -> None:
        for wrong in (
            {"max_attempts": 0},
            {"timeout": -1},
            {"retry_base": "soon"},
            {"executor": "thread"},
            {"unique": 3},
            {"atomic": 1},
        ):
            with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
                reproq_options(**wrong)
            with pytest.raises(FAMILY.exception("InvalidTask"), match=f"^{next(iter(wrong))} must be"):
                tasks.add.using(**wrong)
        with pytest.raises(TypeError):
            reproq_options(attempts=3)
        with pytest.raises(TypeError):
            tasks.add.using(attempts=3)

    def test_options_above_the_task_decorator_are_refused_with_their_right_place(self) -> None:
        with pytest.raises(TypeError, match="below @task"):
            reproq_options(max_attempts=2)(tasks.add)


class Bulk(TestCase):
    def test_a_bulk_enqueue_is_one_statement_and_keeps_the_order(self) -> None:
        with self.assertNumQueries(1):
            results = bulk_enqueue([call(tasks.add, number, 1) for number in range(100)])
        assert [result.args for result in results] == [[number, 1] for number in range(100)]
        assert [tasks.add.get_result(each.id).args for each in results[::50]] == [[0, 1], [50, 1]]

    def test_thousands_of_calls_are_sent_by_copy(self) -> None:
        results = bulk_enqueue(call(tasks.add, number, 1) for number in range(6_000))
        assert len({result.id for result in results}) == 6_000
        assert tasks.add.get_result(results[4_321].id) == results[4_321]

    def test_a_key_that_is_held_gives_the_run_that_holds_it(self) -> None:
        first, again, other = bulk_enqueue(
            [call(tasks.unique, 1), call(tasks.unique, 1), call(tasks.unique, 2)]
        )
        assert (first.created, again.created, other.created) == (True, False, True)
        assert first.id == again.id

    def test_one_call_that_cannot_be_enqueued_refuses_them_all(self) -> None:
        with self.assertNumQueries(0), pytest.raises((TypeError, ValueError)):
            bulk_enqueue([call(tasks.add, 1, 2), call(tasks.add, object(), 2)])

    def test_a_plain_tuple_is_a_call_too(self) -> None:
        (result,) = bulk_enqueue([(tasks.add, (1, 2), {})])  # type: ignore[list-item]
        assert result.args == [1, 2]


@pytest.mark.skipif(len(families()) < 2, reason="only one of the two families is installed here")
class BothFamilies(TestCase):
    def test_each_family_of_tasks_gets_its_own_result_class(self) -> None:
        from tests.django.app import backport_tasks

        for task in (tasks.add, backport_tasks.multiply):
            family = family_of(task)
            assert family is not None
            result = task.enqueue(1, 2)
            assert isinstance(result, family.base.TaskResult)
            assert isinstance(result.task, family.base.Task)
            assert isinstance(task.get_result(result.id), family.base.TaskResult)
            assert pickle.loads(pickle.dumps(result)) == result
            assert pickle.loads(pickle.dumps(task)) == task
            with pytest.raises(family.exception("TaskResultDoesNotExist")):
                task.get_result("x")
            with pytest.raises(family.exception("InvalidTask")):
                task.using(queue_name="elsewhere")


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("copy_from", [0, 10**9])
def test_a_bulk_enqueue_returns_the_times_that_are_stored(
    use_tz: bool, copy_from: int, django_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproq_prefork.store.bulk.COPY_FROM", copy_from)
    backend = FAMILY.backends["default"]
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Kathmandu"):
        times = (None, timedelta(hours=1), datetime(2031, 5, 17, 8, 30, 1, 250, tzinfo=UTC))
        new_runs = [NewRun.of(1, run_after=time) for time in times]
        for run in backend.runs.enqueue_many(new_runs):
            read = backend.runs.get(run.id)
            assert (run.enqueued_at, run.run_after) == (read.enqueued_at, read.run_after)
            assert run == read
            assert (run.enqueued_at.tzinfo is not None) == use_tz
