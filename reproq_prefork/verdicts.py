"""What a Python task raises to say what becomes of it, and what is raised in it when it has to end.

Each process of a task may import this, so it imports next to nothing.
"""

from __future__ import annotations

import math
from datetime import timedelta


class Discard(Exception):
    """Raised by a task: it failed, and no further attempt can help."""


class Retry(Exception):
    """Raised by a task: the attempt failed, and the next one is to come `after` that many seconds.

    `after` is a number of seconds or a timedelta; None leaves it to the usual backoff. Attempts count as ever: the
    last one that is allowed fails the task.
    """

    def __init__(
        self, message: str = "the task asked to be run again later", *, after: float | timedelta | None = None
    ) -> None:
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"after is a number of seconds from 0 on, or a timedelta, not {after!r}")
        super().__init__(message)
        self.after_s = seconds


class TaskStopped(KeyboardInterrupt):
    """The base of what is raised in a running task that has to end.

    Not an Exception, so that `except Exception` in the task, or in a library that it uses, does not swallow it;
    asyncio.CancelledError is none for the same reason. For a library it is what Ctrl-C is, which many are ready
    for: psycopg cancels the query that it waits for, and its connection can be used again, and asyncio does not
    take it for the failure of one callback.
    """


class TaskTimeout(TaskStopped):
    """Raised in a task at its deadline. What has not ended a moment later is killed."""


class TaskCancelled(TaskStopped):
    """Raised in a task that somebody has cancelled. What has not ended after a grace is killed."""


class TaskInterrupted(TaskStopped):
    """Raised in a task whose worker must stop at once, or has lost the task: it will run again."""
