"""What `TaskError.exception_class` returns for a failure that is not an exception of the task itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.task_exceptions import TaskCancelled, TaskTimeout


class TaskFailed(Exception):
    """The base of these classes, and a failure of which nothing more is known."""


class TaskKilled(TaskFailed):
    """A signal ended the task's process."""


class UnusableResult(TaskFailed):
    """The task returned something that is not JSON, or too large to be stored."""


class TaskNotStarted(TaskFailed):
    """The task could not be started, or is not allowed."""


class WorkerLost(TaskFailed):
    """The worker died, lost its connection, or had to stop."""


_CLASSES: Mapping[str, type[BaseException]] = {
    FailureKind.FAILED: TaskFailed,
    FailureKind.KILLED: TaskKilled,
    FailureKind.TIMEOUT: TaskTimeout,
    FailureKind.UNUSABLE_OUTPUT: UnusableResult,
    FailureKind.NOT_STARTED: TaskNotStarted,
    FailureKind.NOT_ALLOWED: TaskNotStarted,
    FailureKind.UNREADABLE: TaskNotStarted,
    FailureKind.WORKER_LOST: WorkerLost,
    FailureKind.LEASE_EXPIRED: WorkerLost,
    FailureKind.SHUTDOWN: WorkerLost,
    FailureKind.CANCELLED: TaskCancelled,
}


def exception_path(entry: Mapping[str, Any]) -> str:
    """The dotted path of the exception class for an entry of `task_runs.errors`."""
    said = entry.get("exception")
    if isinstance(said, str) and said:
        return said if "." in said else f"builtins.{said}"
    kind = _CLASSES.get(str(entry.get("kind")), TaskFailed)
    return f"{kind.__module__}.{kind.__qualname__}"


def traceback_text(entry: Mapping[str, Any]) -> str:
    """The traceback of an entry; without one, all text that the entry has."""
    said = entry.get("traceback")
    if isinstance(said, str) and said:
        return said
    words = [entry.get(name) for name in ("message", "stderr", "output")]
    return "\n".join(word for word in words if isinstance(word, str) and word)
