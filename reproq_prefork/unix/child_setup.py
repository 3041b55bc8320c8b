"""What the process of a task sets up before the task: descriptors, limits, and an exit if that fails."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import traceback
from collections.abc import Callable, Collection
from typing import NoReturn

from reproq_prefork.unix.proc import flush_standard_streams

TASK_NOT_SET_UP = 70  # EX_SOFTWARE of sysexits.h: the process of a task failed before the task began


def end_with(program: Callable[[], None]) -> NoReturn:
    try:
        program()
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            flush_standard_streams()
    finally:
        os._exit(TASK_NOT_SET_UP)


def limit_memory(memory_bytes: int) -> None:
    """Limit the address space of this process and of those that it starts; 0: no limit."""
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def use_as_standard_streams(*sources: int) -> None:
    for fd, source in enumerate(sources):
        os.dup2(source, fd)


def redirect_to_null(*, keep: Collection[int]) -> None:
    """Redirect every descriptor above 2, except `keep`, to the file of descriptor 0, which is /dev/null."""
    listing = os.dup(0)  # the lowest free number, so the listing below will get it
    os.close(listing)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != listing and fd not in keep:
            os.dup2(0, fd, inheritable=False)


class Descriptors:
    """A context manager for pipes to a new process. On exit it closes what was not given away or closed before.

    No descriptor has a number up to 2, even if this process was started without the descriptors 0 to 2.
    """

    def __init__(self) -> None:
        self._ours: list[int] = []
        self._theirs: list[int] = []

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.close_theirs()
        while self._ours:
            os.close(self._ours.pop())

    def null(self) -> int:
        return _kept(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), self._theirs)

    def pipe(self) -> tuple[int, int]:
        """A pipe from them to us: our end to read, and their end to write to."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        return _kept(reader, self._ours), _kept(writer, self._theirs)

    def pipe_to(self) -> tuple[int, int]:
        """A pipe from us to them: their end to read, and our end to write to."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        return _kept(reader, self._theirs), _kept(writer, self._ours)

    def give_away(self, *fds: int | None) -> None:
        self._ours = [fd for fd in self._ours if fd not in fds]

    def close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())


def _kept(fd: int, kept: list[int]) -> int:
    kept.append(fd)
    if fd > 2:
        return fd
    kept[-1] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return kept[-1]
