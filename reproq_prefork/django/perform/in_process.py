"""Executes runs in the process that has enqueued them, on Django's own connection. This is for tests.

The statements are those of a worker, and failures are treated in the same way, but nothing waits before a retry. A
snoozed run stays until its time. Everything happens in the open transaction, so it works in Django's TestCase too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from django.db import DatabaseError, connections

from reproq_prefork import __version__
from reproq_prefork.django.perform.performing import Performer
from reproq_prefork.django.perform.runs_database import RunsDatabase
from reproq_prefork.django.queue_backend import QueueBackend
from reproq_prefork.django.sender import DjangoSender
from reproq_prefork.executors.contract import Stop
from reproq_prefork.model.identity import HostIdentity, ProcessIdentity, WorkerIdentity
from reproq_prefork.model.outcome import Failure, FailureKind, Snoozed
from reproq_prefork.model.run import ClaimedRun, Status, TaskRun, UnreadableRun
from reproq_prefork.model.settlement import RetryPolicy, Settlement, settle
from reproq_prefork.store.deadline import ServerProcess
from reproq_prefork.store.task_runs import TaskRuns
from reproq_prefork.store.worker_store import WorkerStatements
from reproq_prefork.task_exceptions import TaskStopped

LEASE_S = 3600.0
NO_WAIT = RetryPolicy(base_s=0.0, max_s=0.0)


class NeverStopped:
    """A SoftStop that never asks to stop: a test ends by itself, or its runner ends it."""

    requested: Stop | None = None
    interrupt: KeyboardInterrupt | None = None
    """Somebody wants to end this process, not only the task."""

    def call(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        run_coroutine: Callable[[Any], Any] | None = None,
    ) -> Any:
        try:
            value = function(*args, **kwargs)
            return run_coroutine(value) if run_coroutine is not None and _is_coroutine(value) else value
        except KeyboardInterrupt as interrupt:
            if not isinstance(interrupt, TaskStopped):
                self.interrupt = interrupt
            raise


def _statements(sender: DjangoSender, queues: Sequence[str]) -> WorkerStatements:
    process = ProcessIdentity(os.getpid(), 0)
    identity = WorkerIdentity(
        id=f"in-process/{os.getpid()}-{secrets.token_hex(4)}",
        # The trigger on reproq_workers knows this key: so a test database does not count as one that has workers.
        host=HostIdentity(name="in-process", key="in-process"),
        process=process,
        master=process,
        version=__version__,
        queues=tuple(queues),
    )
    # As behind a pooler, so that nobody ends Django's server process together with this worker.
    backend = ServerProcess(pid=0, pooled=True)
    return WorkerStatements(
        identity, lease_s=LEASE_S, backend=backend, run=sender.fetch, run_hot=sender.fetch
    )


@contextlib.contextmanager
def _uncompiled(sender: DjangoSender) -> Iterator[None]:
    """Inside, the server does not JIT-compile, as on a worker's own connection."""
    before = sender.fetch("set_jit", {"jit": "off"})[0].before
    try:
        yield
    finally:
        sender.fetch("set_jit", {"jit": before})


def perform_due(backend: QueueBackend, queues: Sequence[str] | None = None) -> list[int]:
    """Run everything that is due, and what that enqueues, until nothing is due. Returns the ids of the ended runs.

    `queues`: None for all of them. A failed attempt is repeated at once, as long as the run has attempts. A
    snoozed run waits as long as it asked.
    """
    return _perform_due(backend, backend.database, queues)


def _perform_due(backend: QueueBackend, alias: str, queues: Sequence[str] | None) -> list[int]:
    if queues is None:
        queues = [row.name for row in DjangoSender(alias).fetch("pending_queues", {})]
    if not queues:
        return []
    sender = DjangoSender(alias)
    store = _statements(sender, queues)
    performer = Performer(NO_WAIT, RunsDatabase.of(backend, alias), owns_connections=False)
    store.register()
    try:
        with _uncompiled(sender):
            return list(_performed(store, performer, alias))
    finally:
        store.deregister()


def perform_now(backend: QueueBackend, alias: str, run: TaskRun) -> None:
    """Run one that was just enqueued in the database `alias`, if due, and others that are due in its queue."""
    _perform_due(backend, alias, [run.queue_name])


def _performed(store: WorkerStatements, performer: Performer, alias: str) -> Iterator[int]:
    ended: Settlement | None = None
    while True:
        claim = store.finish_and_claim([] if ended is None else [ended], max_runs=1)
        if ended is not None and claim.settled and _is_over(ended, alias):
            yield ended.run_id
            if ended.finish_due:
                performer.announce(ended.run_id)
                DjangoSender(alias).fetch("clear_finish_due", {"run_id": ended.run_id})
        if claim.unreadable:
            (unreadable,) = claim.unreadable
            ended = _unreadable(unreadable)
            continue
        if not claim.runs:
            if ended is None:
                return
            ended = None  # the statement that puts a run back to PENDING does not see it: ask once more
            continue
        run = claim.runs[0]
        ended = _attempt(run, performer, alias)
        if ended is None:
            yield run.id  # it has recorded its own end


def _unreadable(unreadable: UnreadableRun) -> Settlement:
    failure = Failure(FailureKind.UNREADABLE, f"the run cannot be read: {unreadable.why}", retry=False)
    settlement = settle(unreadable.run, failure, NO_WAIT, 0.0)
    assert settlement is not None
    return settlement._replace(finish_due=True)


def _is_over(ended: Settlement, alias: str) -> bool:
    """A run that would be tried again is over if somebody has cancelled it meanwhile."""
    return ended.status is not Status.PENDING or TaskRuns(DjangoSender(alias)).get(ended.run_id).is_finished


def _attempt(run: ClaimedRun, performer: Performer, alias: str) -> Settlement | None:
    stop = NeverStopped()
    with _usable_afterwards(alias):
        report = performer.perform(run, stop)
    if stop.interrupt is not None:
        raise stop.interrupt
    at_once = run._replace(retry_base_s=0.0, retry_max_s=0.0)
    settlement = settle(at_once, report.outcome, NO_WAIT, 0.0, report.usage)
    if settlement is None:
        return None
    settlement = settlement._replace(finish_due=not report.announced)
    if settlement.delay_s is None or isinstance(report.outcome, Snoozed):
        return settlement  # the task waits for something that cannot happen while its own test waits for the task
    return settlement._replace(delay_s=0.0)


@contextlib.contextmanager
def _usable_afterwards(alias: str) -> Iterator[None]:
    """If a task breaks the open transaction (by a constraint, for example), undo its part: the test goes on."""
    connection = connections[alias]
    if not connection.in_atomic_block:
        yield
        return
    savepoint = connection.savepoint() or ""
    yield
    connection.needs_rollback = False
    try:
        connection.savepoint_commit(savepoint)
    except DatabaseError:
        connection.savepoint_rollback(savepoint)


def _is_coroutine(value: object) -> bool:
    return hasattr(value, "__await__")
