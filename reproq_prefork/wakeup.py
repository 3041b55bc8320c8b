"""One pipe a host that wakes idle workers: a byte wakes one of them."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import termios


class WakePipe:
    """Made by the master before it forks, shared by steward and workers. Never blocks."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def fds(self) -> tuple[int, int]:
        return self.reader, self.writer

    def wake(self, workers: int, *, at_most_waiting: int) -> None:
        """Wake up to `workers`. Wakes not taken yet count: they must not pile up while all are busy."""
        missing = min(workers, at_most_waiting - self._waiting())
        if missing > 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self.writer, b"w" * missing)

    def take(self) -> bool:
        """Take one wake; False: another worker was quicker."""
        try:
            return bool(os.read(self.reader, 1))
        except BlockingIOError:
            return False

    def _waiting(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, count)
        return count[0]
