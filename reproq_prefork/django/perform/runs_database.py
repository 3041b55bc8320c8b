"""The database from which runs are claimed, as Django reaches it.

A site may keep its runs in several databases, and each of them has a run 1. So everything that is read or written
of a claimed run uses these objects. It is never found by a search for an id or an alias in all of TASKS, and never
through a router, which may give another answer inside a task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from reproq_prefork.django.families.compat import Family
from reproq_prefork.django.project.database import database_alias
from reproq_prefork.django.project.tasks_setting import own_entries
from reproq_prefork.django.queue_backend import QueueBackend
from reproq_prefork.django.sender import DjangoSender
from reproq_prefork.model.run import ClaimedRun, Status, TaskRun
from reproq_prefork.store.task_runs import TaskRuns


class Home(NamedTuple):
    """The backend of a run, and the alias in DATABASES that leads this backend to the run's database."""

    backend: QueueBackend
    database: str


class RunsDatabase:
    def __init__(self, aliases: Mapping[str, str]) -> None:
        """`aliases`: the entries of TASKS that keep their runs there, each with its alias in DATABASES."""
        self._aliases = dict(aliases)

    @classmethod
    def of(cls, backend: QueueBackend, database: str) -> RunsDatabase:
        """The database of a backend, for a process that enqueues and runs on the same connection, `database`."""
        found = {entry.alias: database_alias(entry.options) for entry in own_entries(skip_broken=True)}
        return cls({name: database for name in found if name == backend.alias or found[name] == database})

    def home_of(self, queue_name: str, task: Any, family: Family) -> Home:
        """Of the backends that have the queue: the task's own one, else the first in TASKS."""
        if not self._aliases:
            raise ImproperlyConfigured("no backend in TASKS keeps its runs in the database of this run")
        backends = [family.backends[alias] for alias in self._aliases]
        first = min(
            backends,
            key=lambda backend: (
                bool(backend.queues) and queue_name not in backend.queues,
                backend.alias != task.backend,
            ),
        )
        return Home(first, self._aliases[first.alias])

    def read(self, run_id: int) -> TaskRun:
        """A run that a statement on the same database has named. Raises RunNotFound."""
        return TaskRuns(DjangoSender(next(iter(self._aliases.values())))).get(run_id)


class HeldRun:
    """The row of a claimed run. Each write names the claim and its worker. So it can change no other row, even if
    the alias leads to another database by now."""

    def __init__(self, database: str, run: ClaimedRun) -> None:
        """`database`: an alias in DATABASES."""
        self._sender = DjangoSender(database)
        self._run_id = run.id
        self._claim = run.claim
        self._worker_id = run.history.worker_ids[-1]

    def complete(self, *, result: str, last_attempt: str | None) -> bool:
        """Record the success in the open transaction. False: this claim no longer holds the run."""
        written = self._sender.fetch(
            "complete_run", {**self._fence, "result": result, "last_attempt": last_attempt}
        )
        return bool(written)

    def save_metadata(self, metadata: str) -> None:
        self._sender.fetch("save_metadata", {**self._fence, "metadata": metadata})

    def is_completed(self) -> bool:
        """Whether this claim is recorded as successful."""
        stored = TaskRuns(self._sender).get(self._run_id)
        return (
            stored.status is Status.SUCCESSFUL
            and stored.claims == self._claim
            and stored.worker_ids[-1:] == (self._worker_id,)
        )

    def announced(self) -> None:
        """The end that `complete` has recorded has been announced to the application."""
        self._sender.fetch("clear_finish_due", {"run_id": self._run_id})

    @property
    def _fence(self) -> dict[str, Any]:
        return {"run_id": self._run_id, "claim": self._claim, "worker_id": self._worker_id}
