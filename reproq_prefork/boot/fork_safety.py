"""Detects threads and descriptors, created by the import of an application, that do not survive a fork."""

from __future__ import annotations

import os
import socket
import stat
import sys
import warnings
from collections.abc import Collection
from pathlib import Path

from reproq_prefork.unix.threads import threads_at_risk


def unfit_for_workers(opened: Collection[int]) -> str | None:
    """Why workers cannot be forked from this process, which has imported the application. None: they can.

    `opened`: the descriptors that the import has opened.
    """
    threads = threads_at_risk()
    if threads:
        return f"importing it has started threads ({', '.join(threads)}), which a fork does not have"
    for fd in sorted(opened):
        if not _can_be_shared(fd):
            return f"importing it has opened {_target(fd)} (descriptor {fd}), which two workers cannot share"
    return None


def _can_be_shared(fd: int) -> bool:
    """Whether several workers can share it: files, such as logs, and sockets that send whole messages.

    The bytes of a shared connection would get mixed up. A process that waits for events on a shared epoll would
    get the events of others.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return True  # it was closed again
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(fd)) as end:
            return end.type == socket.SOCK_DGRAM
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISCHR(mode)


def _target(fd: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return ""


def expect_threads() -> None:
    """Keep Python 3.12 and later from warning at each fork beside a thread: we warn once, and by name."""
    warnings.filterwarnings("ignore", r"This process \(pid=\d+\) is multi-threaded", DeprecationWarning)


def reseed_in_forks() -> None:
    """Give each fork its own random numbers. Python does that for `random`, but not for numpy."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        os.register_at_fork(after_in_child=numpy_random.seed)
