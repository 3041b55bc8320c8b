"""`--reload`, for development: the master is a child of a process that sends it HUP when a source file changes.

So the master itself does not change, and a broken edit does no harm, because the check of the reload refuses it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from setproctitle import setproctitle

from reproq_prefork.text.log import Log
from reproq_prefork.unix import kill
from reproq_prefork.unix.fork import fork
from reproq_prefork.unix.signals import MASTERS_OWN

SCAN_INTERVAL_S = 1.0
SETTLE_INTERVAL_S = 0.2  # several files may be saved or checked out at a time: one reload for each burst
WATCHED_SUFFIX = ".py"
WATCHED_NAMES = frozenset({".env", "reproq.toml"})
SKIPPED_DIRECTORIES = frozenset({"node_modules", "__pycache__"})
VIRTUAL_ENVIRONMENT = "pyvenv.cfg"

# When each file was last changed, and how large it is.
Snapshot = dict[str, tuple[int, int]]


def run_watched(program: Callable[[], int], directory: Path, log: Log) -> int:
    """Run `program`, a master, in a child, and pass signals on to it.

    Returns its exit status (128 + n if signal n ended it).
    """
    # These signals stay blocked: sigtimedwait takes them, one after the other.
    signals = {*MASTERS_OWN, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    changes = Changes(directory)  # before the fork: the master may not see a change during its start
    child = fork(program, keep_fds=(), parent_death_signal=signal.SIGTERM)
    setproctitle("reproq-prefork: watch")
    scan_at = time.monotonic() + SCAN_INTERVAL_S
    while True:
        taken = signal.sigtimedwait(signals, max(0.0, scan_at - time.monotonic()))
        if taken is not None and taken.si_signo != signal.SIGCHLD:
            kill.send_signal(child.pid, taken.si_signo)
        if child.exitcode is not None:
            return child.exitcode if child.exitcode >= 0 else 128 - child.exitcode
        if time.monotonic() >= scan_at:
            if changes.have_settled():
                log.info("a file has changed: reloading")
                kill.send_signal(child.pid, signal.SIGHUP)
            scan_at = time.monotonic() + (SETTLE_INTERVAL_S if changes.are_going_on else SCAN_INTERVAL_S)


class Changes:
    """The changes below a directory between one look and the next."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = scan(directory)
        self.are_going_on = False

    def have_settled(self) -> bool:
        """Whether something has changed, but nothing more since the last look. True once for each burst."""
        now = scan(self._directory)
        changed, self._seen = now != self._seen, now
        settled = self.are_going_on and not changed
        self.are_going_on = changed
        return settled


def scan(directory: Path) -> Snapshot:
    """The watched files below `directory`, without files that disappear during the scan."""
    found: Snapshot = {}
    for path in _watched_files(os.path.realpath(directory)):
        try:
            stat = path.stat()
        except OSError:
            continue
        found[str(path)] = (stat.st_mtime_ns, stat.st_size)
    return found


def _watched_files(root: str) -> Iterator[Path]:
    for parent, directories, names in os.walk(root):
        if VIRTUAL_ENVIRONMENT in names and parent != root:
            directories.clear()
            continue
        directories[:] = [
            name for name in directories if name not in SKIPPED_DIRECTORIES and not name.startswith(".")
        ]
        for name in names:
            if name.endswith(WATCHED_SUFFIX) or name in WATCHED_NAMES:
                yield Path(parent, name)
