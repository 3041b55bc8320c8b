"""The process with pid 1 of a container: it passes signals on, reaps what the kernel hands it, and ends last.

The master is then its child, and a subreaper. So what reaches the master as an orphan came from a worker and
may be killed, and what did not (a process of `docker exec` that outlived it) comes here and is left alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from setproctitle import setproctitle

from reproq_prefork.unix import kill
from reproq_prefork.unix.fork import fork
from reproq_prefork.unix.signals import MASTERS_OWN


def run_below_init(program: Callable[[], int]) -> int:
    """Run `program` in a child, be its init, and give its exit status (128 + n where signal n ended it)."""
    # Blocked for good: signals are taken by sigwait, one after the other.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*MASTERS_OWN, signal.SIGCHLD})
    child = fork(program, keep_fds=(), parent_death_signal=signal.SIGKILL)
    setproctitle("reproq-prefork: init")
    while True:
        signum = signal.sigwait({*MASTERS_OWN, signal.SIGCHLD})
        if signum != signal.SIGCHLD:
            kill.send_signal(child.pid, signum)
            continue
        status = _reap_all(child.pid)
        if status is not None:
            return status


def _reap_all(master: int) -> int | None:
    """Reap whatever is dead; the master's exit status once it is among them."""
    ended: int | None = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == master:
            code = os.waitstatus_to_exitcode(status)
            ended = code if code >= 0 else 128 - code
