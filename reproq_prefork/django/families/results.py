"""The TaskResult class of each family, and how it is made from a run.

PENDING is READY here, also while a run waits for its next attempt. CANCELLED is FAILED, and its last error says
so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.utils import timezone

from reproq_prefork.django.families.compat import Family, families
from reproq_prefork.django.families.failures import exception_path, traceback_text
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import ClaimedRun, RunHistory, Status, TaskRun, omitted_entries
from reproq_prefork.model.stored_values import OutOfRange
from reproq_prefork.store.json_columns import read_json
from reproq_prefork.store.run_rows import read_errors
from reproq_prefork.tasks.call import PythonCall

STATUS_NAMES: Mapping[Status, str] = {
    Status.PENDING: "READY",
    Status.RUNNING: "RUNNING",
    Status.SUCCESSFUL: "SUCCESSFUL",
    Status.FAILED: "FAILED",
    Status.CANCELLED: "FAILED",
}
OWN_FIELDS = ("metadata", "spec_hash", "created", "cancel_requested", "_attempts")


def _result_class_of(family: Family) -> type[Any]:
    """`family`'s TaskResult, with the additions of this backend."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class ReproqTaskResult(family.base.TaskResult):  # type: ignore[name-defined,misc]
        metadata: Any = field(init=False, default=None)
        """What the task has saved with `context.save_metadata()`."""

        spec_hash: str = field(init=False, default="")
        """The name of the call: the same task with the same arguments has the same hash."""

        created: bool = field(init=False, default=True, compare=False)
        """False: the unique key was held, and this is the run that holds it."""

        cancel_requested: bool = field(init=False, default=False)
        """Somebody has asked to cancel it."""

        _database: str | None = field(init=False, default=None, repr=False, compare=False)
        _attempts: int = field(init=False, default=0, repr=False)

        @property
        def attempts(self) -> int:
            """How often it has started. Django counts `worker_ids`, but not all of them are kept."""
            return max(self._attempts, len(self.worker_ids))

        def cancel(self) -> bool:
            """End the task: at once if it has not started, else as soon as its worker is notified.

            False: it has finished in another way. Raises TaskResultDoesNotExist if it is gone.
            """
            return bool(self.task.get_backend().cancel(self))

        async def acancel(self) -> bool:
            """See cancel()."""
            return await sync_to_async(self.cancel, thread_sensitive=True)()

        def wait(self, timeout: float | None = None) -> Any:
            """Wait until it has finished, for at most `timeout` seconds. Returns the result itself, refreshed.

            Raises TimeoutError. Do not wait in the transaction that has enqueued the task: no worker sees the task
            before the commit.
            """
            from reproq_prefork.django.waiting import wait

            return wait(self, timeout)

        async def await_(self, timeout: float | None = None) -> Any:
            """See wait(). Other tasks of the event loop go on meanwhile."""
            from reproq_prefork.django.waiting import await_

            return await await_(self, timeout)

        def refresh(self) -> None:
            """Reload everything that may have changed."""
            _copy(_reloaded(self), self)

        async def arefresh(self) -> None:
            """See refresh()."""
            await sync_to_async(self.refresh, thread_sensitive=True)()

    ReproqTaskResult.__name__ = ReproqTaskResult.__qualname__ = _class_name(family)
    return ReproqTaskResult


def _class_name(family: Family) -> str:
    return {"django.tasks": "ReproqTaskResult", "django_tasks": "ReproqBackportTaskResult"}[family.name]


_CLASSES = {family: _result_class_of(family) for family in families()}
# Pickle finds a class by its name in its module.
globals().update({cls.__name__: cls for cls in _CLASSES.values()})


def result_class_of(family: Family) -> type[Any]:
    return _CLASSES[family]


def database_of(result: Any) -> str:
    """The alias in DATABASES of the database from which its run was read, or to which it was added.

    By now a router may name another database, where this id belongs to another run.
    """
    # A result that an older release has pickled does not have it.
    return str(getattr(result, "_database", None) or result.task.get_backend().database)


def _reloaded(result: Any) -> Any:
    backend, database = result.task.get_backend(), database_of(result)
    if database == backend.database:
        return backend.get_result(result.id)
    return backend.result_in(database, result.id)


def _copy(fresh: Any, stale: Any) -> None:
    for name in (*REFRESHED, *OWN_FIELDS):
        object.__setattr__(stale, name, getattr(fresh, name))


REFRESHED = (
    "errors",
    "_return_value",
    "finished_at",
    "started_at",
    "last_attempted_at",
    "status",
    "enqueued_at",
    "worker_ids",
)


def result_of_run(run: TaskRun, task: Any, family: Family, alias: str, database: str) -> Any:
    """The TaskResult of a row of `task_runs` in `database`, an alias. `task` is the Task that it executes."""
    args, kwargs = arguments_of(run.payload)
    result = result_class_of(family)(
        task=task,
        id=str(run.id),
        status=family.statuses[STATUS_NAMES[run.status]],
        enqueued_at=run.enqueued_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        last_attempted_at=run.last_attempted_at,
        args=args,
        kwargs=kwargs,
        backend=alias,
        errors=task_errors(_errors_of(run), family),
        worker_ids=list(run.worker_ids),
    )
    _set(
        result,
        _return_value=plain(run.result) if run.status is Status.SUCCESSFUL else None,
        metadata=plain(run.metadata),
        spec_hash=run.spec_hash,
        created=run.created,
        _attempts=run.attempts,
        cancel_requested=run.cancel_requested_at is not None or run.status is Status.CANCELLED,
        _database=database,
    )
    return result


def _errors_of(run: TaskRun) -> Iterable[Any]:
    """Its entries. The last one of a cancelled run says that it was cancelled, however its attempt ended."""
    last = run.errors[-1] if run.errors else None
    if run.status is not Status.CANCELLED or (isinstance(last, Mapping) and last.get("kind") == "cancelled"):
        return run.errors
    return (*run.errors, {"kind": FailureKind.CANCELLED, "message": "the task was cancelled"})


def history_of(run: ClaimedRun) -> RunHistory:
    """Its times as Django reads them: without USE_TZ they are naive, in the zone of TIME_ZONE."""
    history = run.history
    if settings.USE_TZ:
        return history
    run_after, enqueued_at, started_at, last_attempted_at = map(_naive, history[:-1])
    return RunHistory(run_after, enqueued_at, started_at, last_attempted_at, history.worker_ids)


def _naive(moment: datetime | None) -> datetime | None:
    if moment is None or timezone.is_naive(moment):
        return moment
    if isinstance(moment, OutOfRange):
        return moment.without_zone()
    return timezone.make_naive(moment, timezone.get_default_timezone())


def result_of_claim(
    run: ClaimedRun, history: RunHistory, call: PythonCall, task: Any, family: Family, database: str
) -> Any:
    """The TaskResult of a run that this process will execute now. `call` is the content of its payload.

    `task` is the Task as it was enqueued, `database` the alias of its database.
    """
    result = result_class_of(family)(
        task=task,
        id=str(run.id),
        status=family.statuses.RUNNING,
        enqueued_at=history.enqueued_at,
        started_at=history.started_at,
        finished_at=None,
        last_attempted_at=history.last_attempted_at,
        args=plain(list(call.args)),
        kwargs=plain(call.kwargs),
        backend=task.backend,
        errors=task_errors(read_errors(run.errors) if run.errors else (), family),
        worker_ids=list(history.worker_ids),
    )
    _set(
        result,
        metadata=plain(read_json(run.metadata)) if run.metadata else None,
        spec_hash=run.spec_hash,
        _attempts=run.attempt,
        _database=database,
    )
    return result


def end(result: Any, family: Family, status: Status, finished_at: Any, **changes: Any) -> None:
    """Update the result of a run that was executed here with its end."""
    name = STATUS_NAMES[status]
    _set(result, status=family.statuses[name], finished_at=finished_at, **changes)


def arguments_of(payload: Any) -> tuple[list[Any], dict[str, Any]]:
    """What a payload passes to its function; nothing, if another program has written something else there."""
    call = payload if isinstance(payload, Mapping) else {}
    args, kwargs = call.get("args"), call.get("kwargs")
    return (
        plain(args) if isinstance(args, list) else [],
        plain(kwargs) if isinstance(kwargs, Mapping) else {},
    )


def task_errors(entries: Iterable[Any], family: Family) -> list[Any]:
    """One for each kept attempt. For an attempt that is left out, Django's class has nothing to say."""
    return [
        family.base.TaskError(exception_class_path=exception_path(entry), traceback=traceback_text(entry))
        for entry in entries
        if isinstance(entry, Mapping) and omitted_entries(entry) is None
    ]


def plain(value: Any) -> Any:
    """The value as `json.loads` returns it: a number that no float has exactly becomes the nearest float."""
    match value:
        case Decimal():
            return float(value)
        case list():
            return [plain(item) for item in value]
        case dict() | Mapping():  # Mapping alone would be slow
            return {key: plain(member) for key, member in value.items()}
        case _:
            return value


def _set(result: Any, **changes: Any) -> None:
    for name, value in changes.items():
        object.__setattr__(result, name, value)
