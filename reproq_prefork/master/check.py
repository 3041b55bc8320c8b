"""Reads and checks the settings in a child before the master uses them: at the start and at each reload."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Sequence

from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.fleet.events import CheckFailed, CheckPassed
from reproq_prefork.fleet.state import Limits
from reproq_prefork.settings import Settings
from reproq_prefork.unix import proc
from reproq_prefork.unix.fork import Child, fork

MAX_NAMES_SHOWN = 10


class SettingsCheck:
    """At most one child at a time. `checked`: the settings that were checked last."""

    def __init__(self) -> None:
        self.checked: Settings | None = None
        self._child: Child | None = None
        self._result_fd = -1

    @property
    def pids(self) -> tuple[int, ...]:
        return () if self._child is None else (self._child.pid,)

    def start(self, check: Callable[[], Settings]) -> CheckFailed | None:
        """Run `check` in a child. None: `ended` will return the result."""
        try:
            result_fd = os.memfd_create("reproq-prefork-check")
        except OSError as error:
            return _not_started(error)

        def program() -> int:
            try:
                result: object = check()
            except ReproqError as error:
                result = error
            os.write(result_fd, pickle.dumps(result))
            return ExitStatus.OK

        try:
            self._child = fork(program, keep_fds={result_fd}, parent_death_signal=signal.SIGKILL)
        except OSError as error:
            os.close(result_fd)
            return _not_started(error)
        self._result_fd = result_fd
        return None

    def abandon(self) -> None:
        if self._child is not None:
            self._child.kill()
            os.close(self._result_fd)
            self._child = None

    def ended(self) -> CheckPassed | CheckFailed | None:
        """The result of the child. None: it has not ended, or there is no child."""
        if self._child is None or self._child.exitcode is None:
            return None
        status, self._child = self._child.exitcode, None
        with os.fdopen(self._result_fd, "rb") as result_file:
            result_file.seek(0)
            written = result_file.read()
        if not written:
            how = proc.describe_exit(status)
            if status == -signal.SIGALRM:
                how = "it did not end within the time that a worker has to become ready (--boot-timeout)"
            return CheckFailed(f"the check of the settings itself failed: {how}", ExitStatus.FAILURE)
        result = pickle.loads(written)  # noqa: S301 (from a fork of this process, through anonymous memory)
        if isinstance(result, ReproqError):
            return CheckFailed(str(result), result.exit_status)
        assert isinstance(result, Settings)
        self.checked = result
        return CheckPassed(_limits(result))


def _limits(settings: Settings) -> Limits:
    return Limits(
        workers=settings.workers,
        boot_timeout_s=settings.boot_timeout_s,
        shutdown_timeout_s=settings.shutdown_timeout_s,
        fence_grace_s=settings.fence_grace_s,
        has_template=settings.runs_python,
        connect_s=2 * settings.known_server.connect_s,  # the steward connects first, then the worker
        serves=f"queues {_few(settings.queues)}, executor {settings.executor.value}",
    )


def _few(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMES_SHOWN
    return ", ".join(names[:MAX_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _not_started(error: OSError) -> CheckFailed:
    return CheckFailed(f"no process can be started for the check: {error.strerror}", ExitStatus.FAILURE)
