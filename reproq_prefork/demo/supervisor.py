"""A real supervisor in its own process, from its start until nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
from types import TracebackType
from typing import Self

from reproq_prefork.demo.command_line import CommandLine
from reproq_prefork.errors import ReproqError
from reproq_prefork.unix.kill import kill_own_descendants
from reproq_prefork.unix.proc import adopt_orphans, children_of, describe_exit

STOP_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 5.0
LOG_TAIL_BYTES = 4_000


class SupervisorEnded(ReproqError):
    """It ended without being asked to; or it was asked to, and ended with an error."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the supervisor ended with {describe_exit(status)}")


class Supervisor:
    """Runs inside the block. It drains at the end of the block. If the block fails, it stops at once.

    Whatever happens to the master, all its descendants are gone afterwards: this process adopts its orphans.
    """

    def __init__(self, commands: CommandLine, *arguments: str) -> None:
        self._commands = commands
        self._arguments = arguments
        self._log = commands.directory / "supervisor.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._earlier_children: frozenset[int] = frozenset()

    def __enter__(self) -> Self:
        adopt_orphans()
        self._earlier_children = frozenset(children_of(os.getpid()))
        self._process = self._commands.start(*self._arguments, log=self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = self._stop(signal.SIGTERM if kind is None else signal.SIGQUIT)
        kill_own_descendants(spare=self._earlier_children, within_s=KILL_TIMEOUT_S)
        if kind is None and status != 0:
            raise SupervisorEnded(status)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def check(self) -> None:
        """Raises SupervisorEnded."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None:
            raise SupervisorEnded(status)

    def log_tail(self) -> str:
        """The last lines of its log; empty if it has logged nothing."""
        if not self._log.exists():
            return ""
        tail = self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
        return tail if len(tail) < LOG_TAIL_BYTES else tail.partition("\n")[2]

    def _stop(self, signum: signal.Signals) -> int:
        """Its exit status. If it does not stop in time and must be killed, the status of a killed process."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self.pid, signum)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return -signal.SIGKILL
