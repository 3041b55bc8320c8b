"""The other threads of this process: those that a fork loses, and whose locks may stay locked in it."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from reproq_prefork.unix import proc

_TASKS = Path("/proc/self/task")
_COMM_CHARS = 15  # the kernel keeps so much of a thread's name
# Threads of libraries that stop them before a fork and start them again where they are needed.
_SAFE_NAMES = frozenset({"jemalloc_bg_thd", "polars-ooc-clea"})
_SAFE_LIBRARIES = ("openblas",)  # they do not name their threads
UNNAMED = "unnamed threads of a library"


def threads_at_risk() -> tuple[str, ...]:
    """The names of the other threads, without those of libraries that are known to survive a fork.

    Python's name of a thread, otherwise the kernel's (15 characters), each once, in order.
    """
    if proc.thread_count() == 1:
        return ()
    python = {thread.native_id: thread.name for thread in threading.enumerate()}
    names = set()
    for task in _TASKS.iterdir():
        if int(task.name) != os.getpid():
            names.add(python.get(int(task.name)) or _native_name(task))
    return tuple(sorted(names - _SAFE_NAMES - {""}))


def _native_name(task: Path) -> str:
    """Empty if the thread is gone, or if it is one of a pool that survives a fork."""
    try:
        name = (task / "comm").read_text().strip()
    except OSError:
        return ""
    if name not in _names_of_this_process():
        return name
    return "" if _has_safe_library() else UNNAMED


def _names_of_this_process() -> set[str]:
    """A thread that nobody has named has the name that its creator had then."""
    programs = (sys.executable, sys.argv[0], "reproq-prefork", "reproq-prefork:")
    own = (_TASKS / str(os.getpid()) / "comm").read_text().strip()
    return {Path(program).name[:_COMM_CHARS] for program in programs} | {own}


def _has_safe_library() -> bool:
    with Path("/proc/self/maps").open() as maps:
        return any(library in line for line in maps for library in _SAFE_LIBRARIES)
