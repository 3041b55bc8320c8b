"""Exceptions that a Python task raises to decide what happens to its run, and those raised in it when it must end.

Each process of a task may import this, so it imports almost nothing. `executors/python_outcome.py` reads these
exceptions; `model/settlement.py` makes a time of `after`.
"""

from __future__ import annotations

import sys
from datetime import timedelta

MAX_SNOOZE_S = 100 * 365 * 86_400.0  # a new run may be scheduled just as far ahead


class Discard(Exception):
    """Raised by a task: it failed, and no further attempt can help."""


class Retry(Exception):
    """Raised by a task: the attempt failed, and the next attempt must come `after` that many seconds.

    `after` is a number of seconds or a timedelta; None means the usual backoff. The attempt counts as usual: if it
    is the last one that is allowed, the run is FAILED.
    """

    def __init__(
        self, message: str = "the task asked to be run again later", *, after: float | timedelta | None = None
    ) -> None:
        seconds = None if after is None else _seconds(after, sys.float_info.max)
        if after is not None and seconds is None:
            raise ValueError(
                f"after must be a number of seconds, 0 or more, or a timedelta, not {_shown(after)}"
            )
        super().__init__(message)
        self.after_s = seconds


class Snooze(Exception):
    """Raised by a task: there is nothing to do yet, so run it again `after` that many seconds.

    The attempt does not count and leaves no error: the run is PENDING as if this worker had never claimed it. So a
    task may snooze as often as it likes, even one that may start only once (`max_attempts=1`).

    `after` is a number of seconds or a timedelta, from 0 to a hundred years; otherwise ValueError is raised.
    `message` goes to the worker's log.
    """

    def __init__(self, message: str = "", *, after: float | timedelta) -> None:
        seconds = _seconds(after, MAX_SNOOZE_S)
        if seconds is None:
            raise ValueError(
                f"after must be from 0 to {MAX_SNOOZE_S:.0f} seconds (a hundred years), as a number or a "
                f"timedelta, not {_shown(after)}"
            )
        super().__init__(message)
        self.after_s = seconds


def verdict_of(error: BaseException) -> Discard | Retry | Snooze | None:
    """What a task decides about its run by raising `error`.

    asyncio's TaskGroup wraps the error in a group, so a group of one is unwrapped.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, Discard | Retry | Snooze) else None


def _seconds(after: object, most: float) -> float | None:
    """Convert `after` to seconds. None: it is not a number of seconds from 0 to `most`."""
    seconds: object = after.total_seconds() if isinstance(after, timedelta) else after
    try:
        return float(seconds) if 0 <= seconds <= most else None  # type: ignore[operator,arg-type]
    except TypeError:
        return None


def _shown(value: object) -> str:
    """Show the value if possible: Python refuses to write out an int with thousands of digits."""
    try:
        shown = repr(value)
    except Exception:
        return f"an object of {type(value).__name__}"
    return shown if len(shown) <= 80 else f"{shown[:80]}..."


class TaskStopped(KeyboardInterrupt):
    """The base of the exceptions that are raised in a running task that must end.

    It does not inherit from `Exception`, so `except Exception` in the task, or in a library that it uses, does not
    swallow it. asyncio.CancelledError does not either, for the same reason. A library sees it as Ctrl-C, which
    many libraries handle: psycopg cancels the query that it waits for, and its connection can be used again;
    asyncio does not take it for the failure of one callback.
    """


class TaskTimeout(TaskStopped):
    """Raised in a task at its deadline. If it has not ended a few seconds later, it is killed."""


class TaskCancelled(TaskStopped):
    """Raised in a task that somebody has cancelled. If it has not ended after a grace period, it is killed."""


class TaskInterrupted(TaskStopped):
    """Raised in a task whose worker must stop at once, or has lost its lease. The run will be executed again."""


# Rows and logs name an exception by its path, and some are kept for years: so that path is the public one.
for _exception in (Discard, Retry, Snooze, TaskCancelled, TaskInterrupted, TaskTimeout):
    _exception.__module__ = "reproq_prefork"
