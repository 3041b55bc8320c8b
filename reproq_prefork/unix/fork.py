"""Forks a process that runs a part of this program, and represents it in its parent.

If another process forks on behalf of this one, see `reparented_fork`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NoReturn

from reproq_prefork.text.outlet import write_text_at_once
from reproq_prefork.unix import kill, proc

RAISED = 1  # the exit status of a program that has raised an exception
STATUS_UNKNOWN = 255  # somebody else has reaped it


class Child:
    """A child of this process, or a process that will soon become one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        """How it ended: an exit status, or below 0: minus a signal's number. None: it has not ended. Does not
        wait.
        """
        if self._exitcode is None:
            self._look(os.WNOHANG)
        return self._exitcode

    def kill(self) -> None:
        """Send SIGKILL and wait for its end."""
        if self.exitcode is None:
            # It is not reaped, so the pid still belongs to it.
            kill.send_signal(self.pid, signal.SIGKILL)
            self._look(0)

    def _look(self, options: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:
            # It still has another parent, or, if it is gone, somebody else has reaped it.
            if not Path(f"/proc/{self.pid}").exists():
                self._exitcode = STATUS_UNKNOWN
            return
        if pid:
            self._exitcode = os.waitstatus_to_exitcode(status)


def fork(program: Callable[[], int], *, keep_fds: Collection[int], parent_death_signal: int) -> Child:
    """Start `program` in a fork; its return value is the exit status. Raises OSError if no process can be started.

    All signals are blocked around the fork, and are still blocked when `program` starts. It unblocks them after
    its own handlers are set (`signals.SignalInbox`). Of the inherited descriptors only 0, 1, 2 and `keep_fds` stay
    open: if a sibling kept the end of a pipe open, the death of the other end would not be seen. The fork reads
    nothing from standard input.

    This process must have no other thread.
    """
    proc.flush_standard_streams()  # text that this process has not written yet must not be written twice
    parent = os.getpid()
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            run_as_child(program, keep_fds=keep_fds, parent_death_signal=parent_death_signal, parent=parent)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
    return Child(pid)


def run_as_child(
    program: Callable[[], int], *, keep_fds: Collection[int], parent_death_signal: int, parent: int
) -> NoReturn:
    """Be `program`, in a new fork with all signals blocked, as `fork` says.

    No exception leaves this: the callers on the stack belong to the parent.
    """
    status = RAISED
    try:
        # The inherited wakeup descriptor is the parent's pipe: a signal to this process would reach the parent.
        signal.set_wakeup_fd(-1)
        proc.close_other_fds(keep_fds)
        _read_nothing()
        proc.die_with_parent(parent_death_signal, parent)
        status = program()
    except BaseException:
        write_text_at_once(2, traceback.format_exc())
    finally:
        proc.flush_standard_streams()
        os._exit(status)  # a thread that user code has left would keep the process alive for ever


def _read_nothing() -> None:
    """Make /dev/null the standard input. If there is no standard input, 0 may be any file, and is not changed."""
    if sys.stdin is None:
        return
    with contextlib.suppress(OSError):  # no descriptor is free
        null = os.open(os.devnull, os.O_RDONLY)
        if null != 0:
            os.dup2(null, 0)
            os.close(null)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
