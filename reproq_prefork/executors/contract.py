"""Ways to run a task. An executor turns a claimed run into an outcome. It knows nothing of database or retries."""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.outcome import AttemptReport
from reproq_prefork.model.run import ClaimedRun

# Errors of fork, exec and pipe when the host has, for now, too little of what a process needs.
OUT_OF_RESOURCES = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class Stop(enum.Enum):
    """Why a running task must end before it is done."""

    DEADLINE = "its timeout has passed"
    LEASE = "the worker's lease has ended"
    QUIT = "the worker was told to stop at once"
    CANCEL = "the task was cancelled"


class Watch(Protocol):
    """What watches a running task. An executor waits for `fds` together with its own descriptors, then looks
    again.
    """

    @property
    def fds(self) -> Sequence[int]: ...

    @property
    def deadline_unix_s(self) -> float | None:
        """The deadline of the task, by the wall clock; None: it has none."""

    def wait_s(self) -> float:
        """Look again after this many seconds at the latest."""

    def tend(self) -> None:
        """Do what the worker owes others in the middle of a task, if something is due. Raises nothing.

        Call it before each `look`. It may send a statement, and takes a second at most.
        """

    def look(self) -> Stop | None:
        """Read what has arrived, look at the clock, and return why the task must end; None: it may go on.

        Changes nothing else.
        """


class Executor(Protocol):
    @property
    def batches(self) -> bool:
        """Whether its tasks may be so short that a worker should claim many at once."""

    @property
    def announces(self) -> bool:
        """Whether the application wants announcements of ends that no task process has announced."""

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        """Run a task to its end. When this returns, no process of the task is left.

        Raises `NoProcess`, `NoProgram` and `TaskWillNotDie`.
        """

    def rest(self) -> None:
        """Undo what earlier tasks may have changed in this process. No task runs for now."""

    def announce(self, run_id: int, watch: Watch) -> str | None:
        """Announce that this run has ended. Returns None, or why that failed. Raises as `run` does."""


class SoftStop(Protocol):
    """Asks a task that runs in this process to end, between the start and the end of `call`."""

    @property
    def requested(self) -> Stop | None:
        """Why the task was asked to end. None: it was not asked."""

    def call(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
    ) -> Any:
        """Call a sync or async function and return its result. `run_coroutine`: asyncio.run if it is None.

        Raises what the function raises. When the task must end, TaskTimeout, TaskCancelled or TaskInterrupted is
        raised in it: in a sync function at the line that it executes, in an async one by cancelling its asyncio
        task.
        """


class Runtime(Protocol):
    """The application, imported into a worker that runs Python tasks; or its minimal form, for plain functions."""

    announces: bool
    """Whether it wants announcements of runs that its own processes did not end."""

    def load(self) -> None:
        """Import what tasks may need: once, before the worker is ready, and before it forks.

        Leaves no open connection behind. Raises ReproqError if the application cannot be loaded.
        """

    def perform(self, run: ClaimedRun, stop: SoftStop) -> AttemptReport:
        """Run one Python task in this process, to its end. Raises nothing. The executor adds `usage`."""

    def announce(self, run_id: int) -> None:
        """Announce that this run has ended."""


class NoProcess(ReproqError):
    """The host has no free process, memory or descriptor: the task was not started, but may start later."""


class NoProgram(NoProcess):
    """The program of tasks is not there, or cannot be executed: a deploy may be under way. No task can start."""


class TaskWillNotDie(ReproqError):
    """A process of the task still exists after SIGKILL. The worker must not continue beside it."""
