"""The process with pid 1 in a container: it passes signals on, reaps the orphans that it gets, and ends last.

The master is then its child, and a subreaper. So an orphan that reaches the master came from a worker and may be
killed. Any other orphan (such as a process that a `docker exec` left behind) comes here and is not killed.
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
    """Run `program` in a child and be its init. Returns its exit status (128 + n if signal n ended it)."""
    # These signals stay blocked: sigwait takes them, one after the other.
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
    """Reap every dead child. Returns the master's exit status if the master is one of them."""
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
