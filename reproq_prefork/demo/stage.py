"""Sets up the demo: a private server, the schema, a connection, and the supervisor with its workers."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from reproq_prefork.demo import example
from reproq_prefork.demo.command_line import CommandLine
from reproq_prefork.demo.interruption import Interruption
from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.demo.supervisor import Supervisor
from reproq_prefork.errors import ReproqError
from reproq_prefork.store.operator_store import OperatorStore, WorkerAtWork

WORKERS = 4
TIME_LIMIT_S = 90.0  # much more than it needs: a machine may be slow, but nothing may hang
POLL_INTERVAL_S = 0.02
# Isolated and without site-packages, the interpreter starts in a third of the time.
EXECUTOR = (sys.executable, "-I", "-S", str(Path(example.__file__)))
# Shorter than in production, so that the user sees a retry.
SUPERVISOR_FLAGS = ("--workers", str(WORKERS), "--retry-base", "500ms", "--retry-max", "1s")

T = TypeVar("T")


class Unexpected(ReproqError):
    """Something that must happen did not happen."""


class DemoFailed(ReproqError):
    """Something went wrong. `log` is the end of the supervisor's log."""

    def __init__(self, why: str, log: str) -> None:
        said = f" The supervisor's log ends with:\n{log.strip()}" if log.strip() else ""
        super().__init__(f"The demo failed: {why.strip().rstrip('.')}.{said}")


@dataclass
class Stage:
    store: OperatorStore
    commands: CommandLine
    supervisor: Supervisor
    interruption: Interruption
    ends_at: float

    def wait_for(self, condition: Callable[[], T], what: str, *, interval_s: float = POLL_INTERVAL_S) -> T:
        """The value of `condition`, once it is true. Raises ReproqError, or what an interruption raises."""
        while True:
            value = condition()
            if value:
                return value
            self.supervisor.check()
            if time.monotonic() > self.ends_at:
                raise Unexpected(f"it waited {TIME_LIMIT_S:g} s in vain for {what}")
            self.interruption.wait(interval_s)

    def workers(self) -> tuple[WorkerAtWork, ...]:
        """The registered workers. Each has a pid."""
        return tuple(worker for worker in self.store.workers() if worker.pid is not None)


@contextmanager
def raised_stage(
    server: EmbeddedPostgres, environ: Mapping[str, str], interruption: Interruption
) -> Iterator[Stage]:
    """Everything that runs on `server`, which is started and has the schema. It is removed at the end.

    Raises DemoFailed, with the end of the supervisor's log, if anything goes wrong inside the block.
    """
    directory = server.home / "supervisor"  # so it is deleted with the server's own directory
    directory.mkdir()
    commands = CommandLine.of(server.url, directory, environ)
    supervisor = Supervisor(commands, *SUPERVISOR_FLAGS, "--command", shlex.join(EXECUTOR))
    ends_at = time.monotonic() + TIME_LIMIT_S
    try:
        with closing(OperatorStore(server.url)) as store, supervisor:
            yield Stage(store, commands, supervisor, interruption, ends_at)
    except ReproqError as error:
        raise DemoFailed(str(error), supervisor.log_tail()) from error
