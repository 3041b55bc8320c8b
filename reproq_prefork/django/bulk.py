"""Enqueues many runs with one statement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.db import connections, transaction

from reproq_prefork.django.checked_task import CheckedTask
from reproq_prefork.django.queue_backend import QueueBackend
from reproq_prefork.model.new_run import NewRun
from reproq_prefork.model.run import TaskRun


class Call(NamedTuple):
    """A task with the arguments of one call."""

    task: Any
    args: Sequence[Any]
    kwargs: dict[str, Any]


def call(task: Any, /, *args: Any, **kwargs: Any) -> Call:
    """A call for `bulk_enqueue`. All arguments belong to the function. `task` may come from `.using(...)`."""
    return Call(task, args, kwargs)


def bulk_enqueue(calls: Iterable[Call]) -> list[Any]:
    """Enqueue many calls, with one statement for each database. Returns their results in the same order.

        bulk_enqueue(call(send_invoice, order.id) for order in orders)

    All of them are enqueued, or none if one is not valid (the errors are those of `enqueue`). If they are for
    several databases, each commits after all are inserted: only the loss of a server between two commits can leave
    a part of them. If a unique key is held, also by an earlier call of the list, the result is that of its holder.
    Long lists are sent with COPY.
    """
    listed = [Call(*each) for each in calls]
    backends = _backends(listed)
    new_runs = _new_runs(listed, backends)
    # Read once for each backend: a router may give another answer later.
    databases = {id(backend): backend.database for backend in backends}
    places: dict[str, list[int]] = {}
    for place, backend in enumerate(backends):
        places.setdefault(databases[id(backend)], []).append(place)
    runs: dict[int, TaskRun] = {}
    with ExitStack() as transactions:
        if len(places) > 1:
            for database in sorted(places):
                transactions.enter_context(transaction.atomic(using=database))
        # Databases need one order too. Else two callers may wait for each other in two, which no server notices.
        for database, own in sorted(places.items()):
            with connections[database].wrap_database_errors:  # a COPY does not use a cursor of Django
                added = backends[own[0]].runs_in(database).enqueue_many([new_runs[place] for place in own])
            runs.update(zip(own, added, strict=True))
    return [
        backend.enqueued(listed[place].task, runs[place], databases[id(backend)])
        for place, backend in enumerate(backends)
    ]


async def abulk_enqueue(calls: Iterable[Call]) -> list[Any]:
    """See bulk_enqueue()."""
    return await sync_to_async(bulk_enqueue, thread_sensitive=True)(calls)


def _new_runs(calls: Sequence[Call], backends: Sequence[QueueBackend]) -> list[NewRun]:
    """Each task object is checked once, by its identity, since a task need not be hashable."""
    checked: dict[int, CheckedTask] = {}
    new_runs = []
    for (task, args, kwargs), backend in zip(calls, backends, strict=True):
        if id(task) not in checked:
            checked[id(task)] = backend.checked(task)
        new_runs.append(checked[id(task)].new_run(args, kwargs))
    return new_runs


def _backends(calls: Sequence[Call]) -> list[QueueBackend]:
    """The backend of each call."""
    found: dict[int, QueueBackend] = {}
    for task, _, _ in calls:
        if id(task) in found:
            continue
        backend = task.get_backend()
        if not isinstance(backend, QueueBackend):
            raise TypeError(
                f"the backend {task.backend!r} of {task.module_path} is not a backend of reproq_prefork"
            )
        found[id(task)] = backend
    return [found[id(task)] for task, _, _ in calls]
