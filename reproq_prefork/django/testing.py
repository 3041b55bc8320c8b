"""For the tests of a project: check what was enqueued, and run it in the test's own process.

Works inside the transaction of a `TestCase` and in a `TransactionTestCase`. It needs no worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reproq_prefork.django.families.compat import family_of
from reproq_prefork.django.perform.backends import own_backends
from reproq_prefork.django.perform.in_process import perform_due
from reproq_prefork.django.queue_backend import QueueBackend

MAX_SHOWN = 20


def run_tasks(*, backend: str = "default", queues: Sequence[str] | None = None) -> list[Any]:
    """Run all due tasks, and those that they enqueue, until none is due. Returns their results in order.

    `backend` is an alias in TASKS. A failed attempt is repeated at once, without the wait before a retry. Tasks
    whose `run_after` is later are not run.
    """
    found = _backend(backend)
    return [found.get_result(run_id) for run_id in perform_due(found, queues)]


def enqueued(task: Any = None, *, backend: str = "default") -> list[Any]:
    """The results of the runs that wait, of one task or of all, oldest first."""
    found = _backend(backend)
    path = None if task is None else task.module_path
    rows = found.sender.fetch("pending_runs", {"task_path": path})
    return [found.get_result(row.id) for row in rows]


def assert_enqueued(
    task: Any,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    count: int | None = None,
    backend: str | None = None,
) -> list[Any]:
    """Fail unless `task` is enqueued and waits. Returns the results that match.

    `args`, `kwargs`: with these arguments; None: with any. `count`: exactly so many times; None: at least once.
    """
    alias = task.backend if backend is None else backend
    waiting = enqueued(task, backend=alias)
    family = family_of(task)
    wanted_args = None if args is None or family is None else family.normalize_json(list(args))
    wanted_kwargs = None if kwargs is None or family is None else family.normalize_json(dict(kwargs))
    matching = [
        result
        for result in waiting
        if (wanted_args is None or result.args == wanted_args)
        and (wanted_kwargs is None or result.kwargs == wanted_kwargs)
    ]
    if (count is None and matching) or len(matching) == count:
        return matching
    expected = "at least once" if count is None else f"{count} times"
    raise AssertionError(
        f"{_call(task, args, kwargs)} should be enqueued {expected}, but is enqueued {len(matching)} times."
        f" {_seen(waiting)}"
    )


def assert_not_enqueued(
    task: Any, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
) -> None:
    """Fail if `task` is enqueued and waits, with these arguments if some are given."""
    assert_enqueued(task, args, kwargs, count=0)


def _backend(alias: str) -> QueueBackend:
    for backend in own_backends():
        if backend.alias == alias:
            return backend
    raise LookupError(f"TASKS[{alias!r}] is not a backend of reproq_prefork")


def _seen(waiting: Sequence[Any]) -> str:
    if not waiting:
        return "No run of the task is waiting."
    calls = [f"  {_call(result.task, result.args, result.kwargs)}" for result in waiting[:MAX_SHOWN]]
    return "\n".join(["These runs of the task are waiting:", *calls])


def _call(task: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None) -> str:
    shown = [repr(arg) for arg in args or ()] + [
        f"{name}={value!r}" for name, value in (kwargs or {}).items()
    ]
    return f"{task.name}({'...' if args is None and kwargs is None else ', '.join(shown)})"


__all__ = ["assert_enqueued", "assert_not_enqueued", "enqueued", "run_tasks"]
