"""A prefork task worker for PostgreSQL: one master, N forked workers, one table.

What an application uses stands here; `enqueue` and its kin work on the application's own connection.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reproq_prefork.new_run import NewRun
    from reproq_prefork.python_task import Task, TaskContext, task
    from reproq_prefork.spec import Spec
    from reproq_prefork.store.runs import cancel, enqueue, enqueue_many, get_run, requeue
    from reproq_prefork.task_run import Status, TaskRun
    from reproq_prefork.verdicts import Discard, Retry, Snooze, TaskCancelled, TaskInterrupted, TaskTimeout

__version__ = "0.1.0"
__all__ = [
    "Discard",
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
    "cancel",
    "enqueue",
    "enqueue_many",
    "get_run",
    "requeue",
    "task",
]

_MODULES = {
    "Discard": "reproq_prefork.verdicts",
    "NewRun": "reproq_prefork.new_run",
    "Retry": "reproq_prefork.verdicts",
    "Snooze": "reproq_prefork.verdicts",
    "Spec": "reproq_prefork.spec",
    "Status": "reproq_prefork.task_run",
    "Task": "reproq_prefork.python_task",
    "TaskCancelled": "reproq_prefork.verdicts",
    "TaskContext": "reproq_prefork.python_task",
    "TaskInterrupted": "reproq_prefork.verdicts",
    "TaskRun": "reproq_prefork.task_run",
    "TaskTimeout": "reproq_prefork.verdicts",
    "cancel": "reproq_prefork.store.runs",
    "enqueue": "reproq_prefork.store.runs",
    "enqueue_many": "reproq_prefork.store.runs",
    "get_run": "reproq_prefork.store.runs",
    "requeue": "reproq_prefork.store.runs",
    "task": "reproq_prefork.python_task",
}


def __getattr__(name: str) -> Any:
    # Only now (PEP 562): psycopg alone takes a tenth of a second to import, and each process of a task that
    # uses `reproq_prefork.executor` would pay for it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
