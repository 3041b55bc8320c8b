"""The functions of `runs` for asyncio: the same names with an `a`, and the same contracts.

`connection_types.AsyncConnection` says what may be given. A connection of Django is used in the thread in which
Django's own async methods use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reproq_prefork.model.new_run import NewRun
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store import bulk, task_runs, waiting
from reproq_prefork.store.callers import asend
from reproq_prefork.store.connection_types import AsyncConnection
from reproq_prefork.store.runs import awaited, takes_what_it_takes


@takes_what_it_takes(NewRun.of)
async def aenqueue(connection: AsyncConnection, payload: object, **options: Any) -> TaskRun:
    """See enqueue()."""
    return await aenqueue_new(connection, NewRun.of(payload, **options))


async def aenqueue_new(connection: AsyncConnection, new: NewRun) -> TaskRun:
    """See enqueue_new()."""
    return await asend("aenqueue", connection, task_runs.enqueue, new)


async def aenqueue_many(connection: AsyncConnection, new_runs: Sequence[NewRun]) -> Sequence[TaskRun]:
    """See enqueue_many()."""
    return await asend("aenqueue_many", connection, bulk.enqueue_many, new_runs)


async def arequeue(
    connection: AsyncConnection, *, run_id: int | None = None, spec_hash: str | None = None
) -> TaskRun:
    """See requeue()."""
    return await asend("arequeue", connection, task_runs.requeue_one("arequeue", run_id, spec_hash))


async def acancel(connection: AsyncConnection, run_id: int) -> TaskRun:
    """See cancel()."""
    return await asend("acancel", connection, task_runs.cancel, run_id)


async def aget_run(connection: AsyncConnection, run_id: int) -> TaskRun:
    """See get_run()."""
    return await asend("aget_run", connection, task_runs.get, run_id)


async def await_(connection: AsyncConnection, run_id: int, *, timeout: float | None = None) -> TaskRun:
    """See wait(). Other tasks of the event loop go on meanwhile."""
    last: task_runs.Look | None = None

    async def look() -> bool:
        nonlocal last
        last = await asend("await_", connection, task_runs.look_for_end, run_id, last)
        return last.run.is_finished

    def parameters() -> Mapping[str, Any]:
        assert last is not None
        return last.parameters

    await waiting.await_(awaited(run_id, parameters), look, timeout)
    assert last is not None
    return last.run
