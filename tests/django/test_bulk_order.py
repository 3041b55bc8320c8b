"""`bulk_enqueue` inserts unique keys in one order, also where its tasks are of several backends."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import TransactionTestCase, override_settings

from reproq_prefork.django import bulk_enqueue, call
from reproq_prefork.django.models import TaskRun
from tests.django.app import tasks as typed_tasks

tasks: Any = typed_tasks  # Django's types know nothing of what this backend adds
BACKEND = "reproq_prefork.django.ReproqBackend"
ROUNDS, KEYS = 6, 60


@override_settings(TASKS={"default": {"BACKEND": BACKEND}, "second": {"BACKEND": BACKEND}})
class TwoBackendsOnOneDatabase(TransactionTestCase):
    def test_results_are_in_the_order_of_the_calls_and_ids_in_the_order_of_the_keys(self) -> None:
        first, second = tasks.unique_by_order, tasks.unique_by_order.using(backend="second")
        calls = [call(second, 7), call(first, 5), call(first, 7), call(tasks.add, 1, 2)]
        results = bulk_enqueue(calls)
        assert [result.args for result in results] == [[7], [5], [7], [1, 2]]
        assert [result.created for result in results] == [True, True, False, True]
        assert [result.backend for result in results] == ["second", "default", "default", "default"]
        ids = [int(result.id) for result in results]
        assert ids[1] < ids[0] == ids[2] < ids[3]

    def test_callers_with_opposite_orders_meet_no_deadlock(self) -> None:
        """Each caller has its own transaction, so the rows of each backend stay locked for the next one."""
        barrier = threading.Barrier(2, timeout=60)
        troubles: list[BaseException] = []

        def enqueue(number: int) -> None:
            try:
                for this_round in range(ROUNDS):
                    calls = [
                        call(tasks.unique_by_order.using(backend=backend), f"{this_round} {backend} {key}")
                        for backend in ("default", "second")
                        for key in range(KEYS)
                    ]
                    if number:
                        calls.reverse()
                    barrier.wait()
                    with transaction.atomic():
                        bulk_enqueue(calls)
            except BaseException as error:
                barrier.abort()
                troubles.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=enqueue, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert troubles == []
        assert TaskRun.objects.count() == ROUNDS * 2 * KEYS

    def test_no_run_is_added_if_the_call_of_another_backend_is_refused(self) -> None:
        with pytest.raises((TypeError, ValueError)):
            bulk_enqueue([call(tasks.add, 1, 2), call(tasks.add.using(backend="second"), object(), 2)])
        assert TaskRun.objects.count() == 0
