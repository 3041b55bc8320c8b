"""Many runs by one statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async

from reproq_prefork.django.backend import ReproqBackend
from reproq_prefork.django.checked_task import CheckedTask
from reproq_prefork.new_run import NewRun


class Call(NamedTuple):
    """A task with the arguments of one call."""

    task: Any
    args: Sequence[Any]
    kwargs: dict[str, Any]


def call(task: Any, /, *args: Any, **kwargs: Any) -> Call:
    """A call for `bulk_enqueue`; all arguments are the function's. `task` may come from `.using(...)`."""
    return Call(task, args, kwargs)


def bulk_enqueue(calls: Iterable[Call]) -> list[Any]:
    """Enqueue many calls, by one statement for each database; gives their results in the same order.

        bulk_enqueue(call(send_invoice, order.id) for order in orders)

    All of them are enqueued, or none where one cannot be (the errors are those of `enqueue`). Where a unique key
    is held, by an earlier call of the list too, the result is that of its holder. Long lists go by COPY.
    """
    listed = [Call(*each) for each in calls]
    backends: dict[int, ReproqBackend] = {}
    new_runs: dict[int, NewRun] = {}
    for backend, places in _by_backend(listed).items():
        made = _new_runs(backend, [listed[place] for place in places])
        new_runs |= zip(places, made, strict=True)
        backends |= dict.fromkeys(places, backend)
    results: list[Any] = [None] * len(listed)
    # Databases have one order too: else two callers may wait for each other in two of them, and no server notices.
    for database in sorted({backend.database for backend in backends.values()}):
        places = [place for place in range(len(listed)) if backends[place].database == database]
        runs = backends[places[0]].runs.enqueue_many([new_runs[place] for place in places])
        for place, run in zip(places, runs, strict=True):
            results[place] = backends[place].enqueued(listed[place].task, run)
    return results


async def abulk_enqueue(calls: Iterable[Call]) -> list[Any]:
    """See bulk_enqueue()."""
    return await sync_to_async(bulk_enqueue, thread_sensitive=True)(calls)


def _new_runs(backend: ReproqBackend, calls: Sequence[Call]) -> list[NewRun]:
    """Each task object is checked once; by its identity, for a task need not be hashable."""
    checked: dict[int, CheckedTask] = {}
    new_runs = []
    for task, args, kwargs in calls:
        if id(task) not in checked:
            checked[id(task)] = backend.checked(task)
        new_runs.append(checked[id(task)].new_run(args, kwargs))
    return new_runs


def _by_backend(calls: Sequence[Call]) -> dict[ReproqBackend, list[int]]:
    backends: dict[int, Any] = {}
    places: dict[ReproqBackend, list[int]] = {}
    for place, (task, _, _) in enumerate(calls):
        if id(task) not in backends:
            backends[id(task)] = task.get_backend()
        backend = backends[id(task)]
        if not isinstance(backend, ReproqBackend):
            raise TypeError(
                f"the backend {task.backend!r} of {task.module_path} is not one of reproq_prefork"
            )
        places.setdefault(backend, []).append(place)
    return places
