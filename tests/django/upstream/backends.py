"""Our backend in the two shapes in which Django's tests look at a backend."""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection, transaction

from reproq_prefork.django import ReproqBackend
from tests.django.upstream.log_records import log_again
from tests.support.waiting import wait_until

RUN_TIMEOUT_S = 20.0


class LikeTheDummy(ReproqBackend):
    """Tells what it has enqueued, as DummyBackend does: all results, read from the table."""

    @property
    def results(self) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute("select id from task_runs order by id")
            return [self.get_result(str(run_id)) for (run_id,) in cursor.fetchall()]

    def clear(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("delete from task_runs")


class LikeTheImmediate(ReproqBackend):
    """Returns finished results, as ImmediateBackend does: a worker has run the task meanwhile, once."""

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        with transaction.atomic(), connection.cursor() as cursor:
            result = super().enqueue(task, args, kwargs)
            cursor.execute("update task_runs set max_attempts = 1 where id = %s", [int(result.id)])

        def finished() -> bool:
            result.refresh()
            return bool(result.is_finished)

        wait_until(finished, RUN_TIMEOUT_S, f"a worker to run {task.name}")
        log_again()
        return result

    async def aenqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        return await sync_to_async(self.enqueue, thread_sensitive=True)(task, args, kwargs)
