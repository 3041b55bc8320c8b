"""The line that a task body appends to the diary of a storm; for the programs and the functions that run in it.

Standard library only: a program that writes one must start fast.
"""

from __future__ import annotations

import os
import select
import time

# Environment variables of a host of the storm.
DIARY, HOST, SITE_LOG = "STORM_DIARY", "STORM_HOST", "STORM_SITE_LOG"
BEAT_INTERVAL_S = 0.02
MEMORY_BYTES = 512 << 20  # of each process of a task

_opened: dict[int, int] = {}  # the diary's descriptor, by process: a fork for a task does not inherit it


def write(moment: str, run_id: int, claim: int, *, parent: int | None = None) -> None:
    """One line by one append, so that it is whole or not there."""
    pid = os.getpid()
    if pid not in _opened:
        _opened[pid] = os.open(os.environ[DIARY], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    at = time.clock_gettime(time.CLOCK_BOOTTIME)
    parent = os.getppid() if parent is None else parent
    line = f"{moment} {run_id} {claim} {pid} {parent} {os.environ[HOST]} {at:.6f}\n"
    os.write(_opened[pid], line.encode())


def beat_for(seconds: float, run_id: int, claim: int, *, parent: int | None = None) -> None:
    """Work for so long, and say all the time that it goes on."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        select.select((), (), (), min(BEAT_INTERVAL_S, left))  # time.sleep fails under libfaketime
        write("beat", run_id, claim, parent=parent)


def in_another_session(seconds: float, run_id: int, claim: int) -> None:
    """Have a child do it that has left the session of the task, as no kill of a process group reaches it."""
    worker = os.getppid()
    child = os.fork()
    if child == 0:
        os.setsid()
        beat_for(seconds, run_id, claim, parent=worker)
        os._exit(0)
    os.waitpid(child, 0)
