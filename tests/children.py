"""Child processes of a test, which do not outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from multiprocessing.context import ForkProcess

from reproq_prefork import processes
from tests.waiting import wait_until

EXIT_TIMEOUT_S = 10.0


@contextlib.contextmanager
def forked(
    program: Callable[[], int], *, keep_fds: Collection[int] = (), parent_death_signal: int = signal.SIGKILL
) -> Iterator[ForkProcess]:
    """`program` in a fork made by `processes.fork`; killed at the end if it still runs."""

    def program_that_can_speak() -> int:
        # pytest's own stands for a descriptor that is closed by now; a traceback should be seen.
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        return program()

    process = processes.fork(
        program_that_can_speak, keep_fds=keep_fds, parent_death_signal=parent_death_signal
    )
    try:
        yield process
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        process.close()


def exit_status_of(process: ForkProcess) -> int:
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
