"""Ways to run a task. An executor turns a claimed run into an outcome; it knows no database and no retries."""

from __future__ import annotations

import enum
import errno
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.outcome import AttemptReport
from reproq_prefork.model.run import ClaimedRun

# What fork, exec and pipe say where the host has run out, for now, of what a process needs.
OUT_OF_RESOURCES = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class Stop(enum.Enum):
    """Why a running task has to end before it is done."""

    DEADLINE = "its timeout has passed"
    LEASE = "the worker's lease has ended"
    QUIT = "the worker was told to stop at once"
    CANCEL = "the task was cancelled"


class Watch(Protocol):
    """What a running task is watched by. An executor waits for `fds` beside its own, and then looks again."""

    @property
    def fds(self) -> Sequence[int]: ...

    @property
    def deadline_unix_s(self) -> float | None:
        """The task's deadline as the wall clock will show it; None: it has none."""

    def wait_s(self) -> float:
        """Look again after this many seconds at the latest."""

    def tend(self) -> None:
        """Do what the worker owes others in the middle of a task, if something is due. Raises nothing.

        Call it before each `look`. It may send a statement, and takes a second at most.
        """

    def look(self) -> Stop | None:
        """Read what has arrived, look at the clock, and say whether the task has to end. Changes nothing else."""


class Executor(Protocol):
    @property
    def batches(self) -> bool:
        """Whether its tasks may be so short that a worker should claim many of them at once."""

    @property
    def announces(self) -> bool:
        """Whether there is an application to be told of the end of runs that no task's process told it of."""

    def run(self, run: ClaimedRun, watch: Watch) -> AttemptReport:
        """Run a task to its end. No process of it is left when this returns.

        Raises `NoProcess`, `WornOut` and `TaskWillNotDie`.
        """

    def rest(self) -> None:
        """No task is run for now: what those before may have changed of this process is put right."""

    def announce(self, run_id: int, watch: Watch) -> str | None:
        """Tell the application that this run has ended. None: it was told; else why not. Raises as `run` does."""


class SoftStop(Protocol):
    """How a task that runs in this process is asked to end, between the start of `call` and its end."""

    @property
    def requested(self) -> Stop | None:
        """Why the task was asked to end; None: it was not."""

    def call(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] | None = None,
    ) -> Any:
        """Call a sync or async function, and give what it returns. `run_coroutine`: asyncio.run if it is None.

        Raises what it raises, and TaskTimeout, TaskCancelled or TaskInterrupted in it when it has to end: in
        a sync function wherever it is, in an async one as the cancellation of its asyncio task.
        """


class Runtime(Protocol):
    """The application, imported into a worker that runs Python tasks; or what a bare one offers."""

    announces: bool
    """Whether it wants to be told of the end of runs that its own processes did not end."""

    def load(self) -> None:
        """Import what tasks may need: once, before the worker is ready, and before it forks.

        Leaves no thread and no open connection behind. Raises ReproqError where the application cannot be loaded.
        """

    def perform(self, run: ClaimedRun, stop: SoftStop) -> AttemptReport:
        """Run one Python task in this process, to its end. Raises nothing; `usage` is the executor's to add."""

    def announce(self, run_id: int) -> None:
        """Tell the application that this run has ended."""


class NoProcess(ReproqError):
    """The host has no process, memory or descriptor to spare: the task was not started, and may be later."""


class WornOut(NoProcess):
    """This worker can start no such task any more: it is to end, and another will take its place."""


class TaskWillNotDie(ReproqError):
    """A process of the task is still there after SIGKILL; the worker must not go on beside it."""
