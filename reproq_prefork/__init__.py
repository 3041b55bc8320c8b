"""A prefork task worker for PostgreSQL: one master, N forked workers, one table.

Everything that an application uses is here. `enqueue` and related functions work on the application's own
connection.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproq_prefork.hooks import (
        FailedAttempt,
        on_attempt_failed,
        on_task_process_end,
        on_task_process_start,
        on_worker_start,
        on_worker_stop,
    )
    from reproq_prefork.model.new_run import NewRun
    from reproq_prefork.model.run import Status, TaskRun
    from reproq_prefork.spec import Spec
    from reproq_prefork.store.async_runs import (
        acancel,
        aenqueue,
        aenqueue_many,
        aget_run,
        arequeue,
        await_,
    )
    from reproq_prefork.store.runs import cancel, enqueue, enqueue_many, get_run, requeue, wait
    from reproq_prefork.task_exceptions import (
        Discard,
        Retry,
        Snooze,
        TaskCancelled,
        TaskInterrupted,
        TaskTimeout,
    )
    from reproq_prefork.tasks.decorator import Task, TaskContext, task

__version__ = "0.1.0"
__all__ = [
    "Discard",
    "FailedAttempt",
    "NewRun",
    "Retry",
    "Snooze",
    "Spec",
    "Status",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskInterrupted",
    "TaskRun",
    "TaskTimeout",
    "__version__",
    "acancel",
    "aenqueue",
    "aenqueue_many",
    "aget_run",
    "arequeue",
    "await_",
    "cancel",
    "enqueue",
    "enqueue_many",
    "get_run",
    "on_attempt_failed",
    "on_task_process_end",
    "on_task_process_start",
    "on_worker_start",
    "on_worker_stop",
    "requeue",
    "task",
    "wait",
]

_MODULES = {
    "Discard": "reproq_prefork.task_exceptions",
    "FailedAttempt": "reproq_prefork.hooks",
    "NewRun": "reproq_prefork.model.new_run",
    "Retry": "reproq_prefork.task_exceptions",
    "Snooze": "reproq_prefork.task_exceptions",
    "Spec": "reproq_prefork.spec",
    "Status": "reproq_prefork.model.run",
    "Task": "reproq_prefork.tasks.decorator",
    "TaskCancelled": "reproq_prefork.task_exceptions",
    "TaskContext": "reproq_prefork.tasks.decorator",
    "TaskInterrupted": "reproq_prefork.task_exceptions",
    "TaskRun": "reproq_prefork.model.run",
    "TaskTimeout": "reproq_prefork.task_exceptions",
    "acancel": "reproq_prefork.store.async_runs",
    "aenqueue": "reproq_prefork.store.async_runs",
    "aenqueue_many": "reproq_prefork.store.async_runs",
    "aget_run": "reproq_prefork.store.async_runs",
    "arequeue": "reproq_prefork.store.async_runs",
    "await_": "reproq_prefork.store.async_runs",
    "cancel": "reproq_prefork.store.runs",
    "enqueue": "reproq_prefork.store.runs",
    "enqueue_many": "reproq_prefork.store.runs",
    "get_run": "reproq_prefork.store.runs",
    "on_attempt_failed": "reproq_prefork.hooks",
    "on_task_process_end": "reproq_prefork.hooks",
    "on_task_process_start": "reproq_prefork.hooks",
    "on_worker_start": "reproq_prefork.hooks",
    "on_worker_stop": "reproq_prefork.hooks",
    "requeue": "reproq_prefork.store.runs",
    "task": "reproq_prefork.tasks.decorator",
    "wait": "reproq_prefork.store.runs",
}


def __getattr__(name: str) -> Any:
    # Imported on first use (PEP 562): psycopg alone takes a tenth of a second to import, and each process of a
    # task that uses `reproq_prefork.executor` would pay for it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
