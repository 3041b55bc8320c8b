"""What the demo plays on: a private server, the schema, a connection, and the supervisor with its workers."""

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
TIME_LIMIT_S = 90.0  # many times what it takes: a machine may be slow, but nothing may hang
POLL_INTERVAL_S = 0.02
# Isolated and without site-packages, the interpreter starts in a third of the time.
EXECUTOR = (sys.executable, "-I", "-S", str(Path(example.__file__)))
# Shorter than in earnest, so that a retry can be seen.
SUPERVISOR_FLAGS = ("--workers", str(WORKERS), "--retry-base", "500ms", "--retry-max", "1s")

T = TypeVar("T")


class Unexpected(ReproqError):
    """What must happen did not."""


class DemoFailed(ReproqError):
    """Something went wrong; `log` is the end of what the supervisor said."""

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
        """What `condition` gives, once it is true. Raises ReproqError, or what an interruption raises."""
        while True:
            value = condition()
            if value:
                return value
            self.supervisor.check()
            if time.monotonic() > self.ends_at:
                raise Unexpected(f"after {TIME_LIMIT_S:g} s it still waited for {what}")
            self.interruption.wait(interval_s)

    def workers(self) -> tuple[WorkerAtWork, ...]:
        """The workers that are registered; each has a pid."""
        return tuple(worker for worker in self.store.workers() if worker.pid is not None)


@contextmanager
def raised_stage(
    server: EmbeddedPostgres, environ: Mapping[str, str], interruption: Interruption
) -> Iterator[Stage]:
    """All that runs on `server`, which has started and has the schema; it is taken down in the end.

    Raises DemoFailed, with the supervisor's last words, for whatever goes wrong inside the block.
    """
    directory = server.home / "supervisor"  # so it goes when the server's own directory goes
    directory.mkdir()
    commands = CommandLine.of(server.url, directory, environ)
    supervisor = Supervisor(commands, *SUPERVISOR_FLAGS, "--command", shlex.join(EXECUTOR))
    ends_at = time.monotonic() + TIME_LIMIT_S
    try:
        with closing(OperatorStore(server.url)) as store, supervisor:
            yield Stage(store, commands, supervisor, interruption, ends_at)
    except ReproqError as error:
        raise DemoFailed(str(error), supervisor.log_tail()) from error
