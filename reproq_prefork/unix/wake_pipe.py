"""One pipe per host, which wakes idle workers: each byte wakes one of them."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import termios
from collections.abc import Iterable


class WakePipe:
    """The master makes it before it forks; steward and workers share it. Never blocks."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def fds(self) -> tuple[int, int]:
        return self.reader, self.writer

    def wake(self, workers: int, *, at_most_waiting: int) -> None:
        """Wake up to `workers`. Wakes that nobody took yet count, so they do not pile up while all are busy."""
        self._wake(min(workers, at_most_waiting - self._waiting()))

    def pass_on(self) -> None:
        """Wake another worker. A worker calls this if it may have been woken but claims nothing."""
        if self.take():
            self._wake(1)

    def take(self) -> bool:
        """Take one wake; False: another worker was quicker."""
        try:
            return bool(os.read(self.reader, 1))
        except BlockingIOError:
            return False

    def _wake(self, workers: int) -> None:
        """Write once for each worker, because each write ends one sleep."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(workers):
                os.write(self.writer, b"w")

    def _waiting(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, count)
        return count[0]


class Sleep:
    """How an idle worker waits: for a wake, or until one of its own `fds` can be read.

    For each wake the kernel wakes only one of the sleeping workers (EPOLLEXCLUSIVE), not all of them. If the woken
    worker dies or is stopped, that wake is lost; hence the steward's polls.
    """

    def __init__(self, wake: WakePipe, fds: Iterable[int]) -> None:
        self._epoll = select.epoll()
        self._epoll.register(wake.reader, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        for fd in fds:
            self._epoll.register(fd, select.EPOLLIN)

    def wait(self, timeout_s: float) -> None:
        self._epoll.poll(timeout_s)
