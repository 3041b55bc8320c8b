"""Child processes of a test, which do not outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from reproq_prefork.unix import fork, proc
from reproq_prefork.unix.fork import Child
from tests.support.waiting import wait_until

EXIT_TIMEOUT_S = 10.0


@contextlib.contextmanager
def forked(
    program: Callable[[], int], *, keep_fds: Collection[int] = (), parent_death_signal: int = signal.SIGKILL
) -> Iterator[Child]:
    """`program` in a fork made by `fork.fork`; killed at the end if it still runs."""

    def program_that_can_speak() -> int:
        # pytest's own stands for a descriptor that is closed by now; a traceback should be seen.
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        return program()

    process = fork.fork(program_that_can_speak, keep_fds=keep_fds, parent_death_signal=parent_death_signal)
    try:
        yield process
    finally:
        process.kill()


def exit_status_of(process: Child) -> int:
    """Wait for its end."""
    wait_until(lambda: process.exitcode is not None, EXIT_TIMEOUT_S, f"process {process.pid} to end")
    assert process.exitcode is not None
    return process.exitcode


def status_of(program: Callable[[], int], **options: Collection[int]) -> int:
    with forked(program, keep_fds=options.get("keep_fds", ())) as process:
        return exit_status_of(process)


def read_all(fd: int) -> bytes:
    """Everything until the last writer has closed the other end."""
    chunks = []
    while chunk := os.read(fd, 65_536):
        chunks.append(chunk)
    return b"".join(chunks)


class Pipe:
    """What one process says to another."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def close_writer(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        self.close_writer()
        os.close(self.reader)

    def says(self) -> bytes:
        """What is written until all writers are gone."""
        self.close_writer()
        return read_all(self.reader)


def sleep_for_ever() -> int:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while True:
        time.sleep(60)


def open_fds() -> list[int]:
    listed = [int(name) for name in os.listdir("/proc/self/fd")]
    return [fd for fd in listed if _is_open(fd)]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def a_sleeper() -> int:
    """The pid of a child of this process that sleeps, and survives TERM."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sleep_for_ever()
    return pid


def is_gone(pid: int) -> bool:
    return proc.identity_of(pid) is None


def links_of_fds() -> dict[str, str]:
    """Where each descriptor of this process leads."""
    links = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            links[fd] = str(Path(f"/proc/self/fd/{fd}").readlink())
    return links
