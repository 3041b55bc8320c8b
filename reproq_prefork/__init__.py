"""A prefork task worker for PostgreSQL: one master, N forked workers, one table.

What an application uses stands here; `enqueue` and its kin work on the application's own connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reproq_prefork.spec import Spec
from reproq_prefork.task import Status, TaskRun

if TYPE_CHECKING:
    from reproq_prefork.store.runs import enqueue, get_run, requeue

__version__ = "0.1.0"
__all__ = ["Spec", "Status", "TaskRun", "__version__", "enqueue", "get_run", "requeue"]

_NEED_THE_DATABASE = frozenset({"enqueue", "get_run", "requeue"})


def __getattr__(name: str) -> Any:
    # Only now, since psycopg takes a tenth of a second to import, and a task's own process that uses
    # `reproq_prefork.executor` would pay for it each time (PEP 562).
    if name not in _NEED_THE_DATABASE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reproq_prefork.store import runs

    return getattr(runs, name)
