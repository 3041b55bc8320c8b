"""Many runs by one statement."""

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
    """A call for `bulk_enqueue`; all arguments are the function's. `task` may come from `.using(...)`."""
    return Call(task, args, kwargs)


def bulk_enqueue(calls: Iterable[Call]) -> list[Any]:
    """Enqueue many calls, by one statement for each database; gives their results in the same order.

        bulk_enqueue(call(send_invoice, order.id) for order in orders)

    All of them are enqueued, or none where one cannot be (the errors are those of `enqueue`). Where they are for
    several databases, each commits once all are inserted; only a server that is lost between two commits can leave
    a part of them. Where a unique key is held, by an earlier call of the list too, the result is that of its
    holder. Long lists go by COPY.
    """
    listed = [Call(*each) for each in calls]
    backends = _backends(listed)
    new_runs = _new_runs(listed, backends)
    databases = {
        id(backend): backend.database for backend in backends
    }  # once each: a router may change its mind
    places: dict[str, list[int]] = {}
    for place, backend in enumerate(backends):
        places.setdefault(databases[id(backend)], []).append(place)
    runs: dict[int, TaskRun] = {}
    with ExitStack() as transactions:
        if len(places) > 1:
            for database in sorted(places):
                transactions.enter_context(transaction.atomic(using=database))
        # Databases have one order too: else two callers may wait for each other in two, which no server notices.
        for database, own in sorted(places.items()):
            with connections[database].wrap_database_errors:  # a COPY goes by no cursor of Django's
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
    """Each task object is checked once; by its identity, for a task need not be hashable."""
    checked: dict[int, CheckedTask] = {}
    new_runs = []
    for (task, args, kwargs), backend in zip(calls, backends, strict=True):
        if id(task) not in checked:
            checked[id(task)] = backend.checked(task)
        new_runs.append(checked[id(task)].new_run(args, kwargs))
    return new_runs


def _backends(calls: Sequence[Call]) -> list[QueueBackend]:
    """That of each call."""
    found: dict[int, QueueBackend] = {}
    for task, _, _ in calls:
        if id(task) in found:
            continue
        backend = task.get_backend()
        if not isinstance(backend, QueueBackend):
            raise TypeError(
                f"the backend {task.backend!r} of {task.module_path} is not one of reproq_prefork"
            )
        found[id(task)] = backend
    return [found[id(task)] for task, _, _ in calls]
