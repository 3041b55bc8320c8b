"""A TASKS backend without the parts for workers: Django's contract for tasks, on `task_runs`.

Enqueueing is one INSERT on Django's own connection, so it is part of the transaction that is open there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.utils import timezone

from reproq_prefork.django.checked_task import CheckedTask
from reproq_prefork.django.families.compat import Family, base_backends, families, family_of, family_of_caller
from reproq_prefork.django.families.results import database_of, result_of_run
from reproq_prefork.django.families.tasks import task_class_of
from reproq_prefork.django.options import OPTION_NAMES, TaskOptions, options_of
from reproq_prefork.django.project.database import database_alias
from reproq_prefork.django.project.loading import load_task, why_no_worker_could_load
from reproq_prefork.django.sender import DjangoSender
from reproq_prefork.errors import ReproqError, RunNotFound
from reproq_prefork.model.new_run import InvalidRun, NewRun
from reproq_prefork.model.run import ClaimedRun, TaskRun
from reproq_prefork.store.task_runs import TaskRuns

_RESULT_ID = re.compile("[0-9]{1,19}", re.ASCII)
MAX_RUN_ID = 2**63 - 1


class QueueBackend(*base_backends()):  # type: ignore[misc]
    """One entry of TASKS. The handler of a family of tasks makes it, and it serves that family (see `compat`)."""

    keeps_runs_in_task_runs = True  # `project.tasks_setting` recognises our backends by it
    task_class: Any
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self.family: Family = family_of_caller()
        if self.task_class in {family.base.Task for family in families()}:  # a subclass may have its own
            self.task_class = task_class_of(self.family)

    @property
    def database(self) -> str:
        """The alias in DATABASES of the database that holds the queue."""
        return database_alias(self.options)

    @property
    def sender(self) -> DjangoSender:
        return DjangoSender(self.database)

    @property
    def runs(self) -> TaskRuns:
        return TaskRuns(self.sender)

    def runs_in(self, database: str) -> TaskRuns:
        """With a fixed alias in DATABASES, for several steps: a router may give another answer at each."""
        return TaskRuns(DjangoSender(database))

    @property
    def defaults(self) -> TaskOptions:
        """The OPTIONS for all tasks of this backend."""
        return TaskOptions(**{name: self.options[name] for name in OPTION_NAMES if name in self.options})

    def validate_task(self, task: Any) -> None:
        family = self._family_of(task)
        family.base_backend.validate_task(self, task)
        try:
            options_of(task, self.defaults).check()
        except InvalidRun as error:
            raise family.exception("InvalidTask")(str(error)) from None

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Add a run, with one INSERT in the open transaction of the queue's database.

        If the unique key is held, the result is that of its holder, and `created` is False. Raises InvalidTask,
        TypeError and ValueError (SpecError, InvalidRun) for a call that cannot be enqueued, before any SQL.
        """
        new = self.new_run(task, args, kwargs)
        database = self.database
        return self.enqueued(task, self.runs_in(database).enqueue(new), database)

    def new_run(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NewRun:
        """The run to insert for a call of `task`."""
        return self.checked(task).new_run(args, kwargs)

    def checked(self, task: Any) -> CheckedTask:
        """`task`, if it can be enqueued. Raises InvalidTask."""
        self.validate_task(task)
        family = self._family_of(task)
        why_not = why_no_worker_could_load(task)
        if why_not:
            raise family.exception("InvalidTask")(why_not)
        run_after = task.run_after
        if run_after is not None and not settings.USE_TZ and timezone.is_naive(run_after):
            run_after = timezone.make_aware(run_after)
        return CheckedTask(
            path=task.module_path,
            family=family,
            options=options_of(task, self.defaults),
            queue_name=task.queue_name,
            priority=int(task.priority),
            run_after=run_after,
        )

    def enqueued(self, task: Any, run: TaskRun, database: str) -> Any:
        """The result of a run that has just been added there. Sends task_enqueued first."""
        family = self._family_of(task)
        result = result_of_run(run, task, family, self.alias, database)
        if run.created:
            family.signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str | int) -> Any:
        """Raises TaskResultDoesNotExist; if the id is not valid, without any SQL."""
        return self.result_in(self.database, result_id)

    def cancel(self, result: Any) -> bool:
        """See TaskResult.cancel(); `result` may be an id."""
        given, database = self._named(result)
        try:
            run = self.runs_in(database).cancel(self._run_id(given))
        except RunNotFound:
            raise self._does_not_exist(given) from None
        if hasattr(result, "id"):
            result.refresh()
        return run.status is run.status.CANCELLED or not run.is_finished

    async def acancel(self, result: Any) -> bool:
        """See cancel()."""
        return await sync_to_async(self.cancel, thread_sensitive=True)(result)

    def requeue(self, result: Any) -> Any:
        """Run again: a new run of the same task with the same arguments and options. `result` may be an id.

        Raises TaskResultDoesNotExist, and UniqueKeyHeld if an unfinished run holds its key.
        """
        given, database = self._named(result)
        try:
            run = self.runs_in(database).requeue(self._run_id(given))
        except RunNotFound:
            raise self._does_not_exist(given) from None
        return self.enqueued(self._task_of(run), run, database)

    def task_of(self, run: TaskRun | ClaimedRun, found: Any, run_after: datetime | None) -> Any:
        """The Task of a run as it was enqueued, of this backend's family. `found` is the task at its path."""
        same = {
            "func": found.func,
            "backend": self.alias,
            "takes_context": found.takes_context,
            **{name: getattr(found, name, None) for name in OPTION_NAMES},
        }
        try:
            return self.task_class(
                queue_name=run.queue_name, priority=run.priority, run_after=run_after, **same
            )
        except self.family.exception("InvalidTask"):
            # QUEUES has changed since, or another program has enqueued it. The stored run is accepted even so.
            return self.task_class(
                queue_name=found.queue_name, priority=found.priority, run_after=None, **same
            )

    def result_in(self, database: str, result_id: object) -> Any:
        """See get_result(); `database` is an alias in DATABASES."""
        run_id = self._run_id(result_id)
        try:
            run = self.runs_in(database).get(run_id)
        except RunNotFound:
            raise self._does_not_exist(result_id) from None
        return result_of_run(run, self._task_of(run), self.family, self.alias, database)

    def _named(self, result: Any) -> tuple[object, str]:
        """The id of a result (or the id itself), and the alias of the database that has this id."""
        return (result.id, database_of(result)) if hasattr(result, "id") else (result, self.database)

    def _run_id(self, result_id: object) -> int:
        """Other backends have other ids. To ask the server for one would end the caller's transaction."""
        text = str(result_id) if isinstance(result_id, (str, int)) else ""
        if not _RESULT_ID.fullmatch(text) or int(text) > MAX_RUN_ID:
            raise self._does_not_exist(result_id)
        return int(text)

    def _task_of(self, run: TaskRun) -> Any:
        if run.task_path is None:
            raise self._does_not_exist(run.id)  # a run of an external program
        try:
            return self.task_of(run, load_task(run.task_path), run.run_after)
        except ReproqError as error:
            raise self._does_not_exist(f"{run.id}: {error}") from error

    def _does_not_exist(self, what: object) -> Exception:
        return self.family.exception("TaskResultDoesNotExist")(str(what)[:1000])

    def _family_of(self, task: Any) -> Family:
        return family_of(task) or self.family
