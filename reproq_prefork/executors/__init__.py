"""Ways to run a task. An executor turns a claimed run into an outcome; it knows no database and no retries."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

from reproq_prefork.errors import ReproqError
from reproq_prefork.task import ClaimedRun, Outcome


class Stop(enum.Enum):
    """Why a running task has to end before it is done."""

    DEADLINE = "its timeout has passed"
    LEASE = "the worker's lease has ended"
    QUIT = "the worker was told to stop at once"


class Watch(Protocol):
    """What a running task is watched by. An executor waits for `fds` beside its own, and then looks again."""

    @property
    def fds(self) -> Sequence[int]: ...

    @property
    def deadline_unix_s(self) -> float | None:
        """The task's deadline as the wall clock will show it; None: it has none."""

    def wait_s(self) -> float:
        """Look again after this many seconds at the latest."""

    def look(self) -> Stop | None:
        """Read what has arrived, look at the clock, and say whether the task has to end."""


class Executor(Protocol):
    def run(self, run: ClaimedRun, watch: Watch) -> Outcome:
        """Run a task to its end. No process of it is left when this returns.

        Raises `NoProcess` and `TaskWillNotDie`.
        """


class NoProcess(ReproqError):
    """The host has no process, memory or descriptor to spare: the task was not started, and may be later."""


class TaskWillNotDie(ReproqError):
    """A process of the task is still there after SIGKILL; the worker must not go on beside it."""
