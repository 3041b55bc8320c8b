"""One pipe a host that wakes idle workers: a byte wakes one of them."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import termios
from collections.abc import Iterable


class WakePipe:
    """Made by the master before it forks, shared by steward and workers. Never blocks."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def fds(self) -> tuple[int, int]:
        return self.reader, self.writer

    def wake(self, workers: int, *, at_most_waiting: int) -> None:
        """Wake up to `workers`. Wakes not taken yet count: they must not pile up while all are busy."""
        self._wake(min(workers, at_most_waiting - self._waiting()))

    def pass_on(self) -> None:
        """For a worker that may have been woken and takes nothing: wake another."""
        if self.take():
            self._wake(1)

    def take(self) -> bool:
        """Take one wake; False: another worker was quicker."""
        try:
            return bool(os.read(self.reader, 1))
        except BlockingIOError:
            return False

    def _wake(self, workers: int) -> None:
        """By a write for each, since each write ends one sleep."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(workers):
                os.write(self.writer, b"w")

    def _waiting(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self.reader, termios.FIONREAD, count)
        return count[0]


class Sleep:
    """How an idle worker waits: for a wake, or until one of its own `fds` can be read.

    Of the workers that sleep the kernel wakes one a wake (EPOLLEXCLUSIVE), not all of them so that the quickest
    may take it. One that is woken and dies, or is stopped, takes that wake with it; hence the steward's polls.
    """

    def __init__(self, wake: WakePipe, fds: Iterable[int]) -> None:
        self._epoll = select.epoll()
        self._epoll.register(wake.reader, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        for fd in fds:
            self._epoll.register(fd, select.EPOLLIN)

    def wait(self, timeout_s: float) -> None:
        self._epoll.poll(timeout_s)
