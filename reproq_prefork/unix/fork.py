"""A process of ours that runs a part of this program: its fork, and what its parent holds of it.

Where another process makes the fork on this one's behalf, see `handover`.
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

RAISED = 1  # the exit status of a program that has raised
STATUS_UNKNOWN = 255  # somebody else has taken it


class Child:
    """A child of this process, or one that is about to become that."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exitcode: int | None = None

    @property
    def exitcode(self) -> int | None:
        """How it ended: an exit status, or below 0 minus a signal's number. None: it has not. Does not wait."""
        if self._exitcode is None:
            self._look(os.WNOHANG)
        return self._exitcode

    def kill(self) -> None:
        """SIGKILL it and wait for its end."""
        if self.exitcode is None:
            # Not reaped, so the pid is still its own.
            kill.send_signal(self.pid, signal.SIGKILL)
            self._look(0)

    def _look(self, options: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, options)
        except ChildProcessError:
            # Its parent is still another; or, where it is no more, somebody else has reaped it.
            if not Path(f"/proc/{self.pid}").exists():
                self._exitcode = STATUS_UNKNOWN
            return
        if pid:
            self._exitcode = os.waitstatus_to_exitcode(status)


def fork(program: Callable[[], int], *, keep_fds: Collection[int], parent_death_signal: int) -> Child:
    """Start `program` in a fork; its return value is the exit status. Raises OSError where no process can be had.

    All signals are blocked around the fork and still are when `program` starts: it unblocks them once its own
    handlers are in place (`signals.SignalInbox`). Of the inherited descriptors only 0, 1, 2 and `keep_fds` stay
    open: a sibling that held the end of a pipe would hide a death from whoever watches it. It reads nothing from
    standard input.

    This process must have no other thread.
    """
    proc.flush_standard_streams()  # what this process has yet to write must not be written twice
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
    """Be `program`, in a process that is a fresh fork, with all signals blocked, as `fork` says.

    Nothing leaves this: whatever stands above it on the stack belongs to the parent.
    """
    status = RAISED
    try:
        # The inherited wakeup descriptor is the parent's pipe: a signal would be written to the parent.
        signal.set_wakeup_fd(-1)
        proc.close_other_fds(keep_fds)
        _read_nothing()
        proc.die_with_parent(parent_death_signal, parent)
        status = program()
    except BaseException:
        write_text_at_once(2, traceback.format_exc())
    finally:
        proc.flush_standard_streams()
        os._exit(status)  # a thread that code of the user's has left would keep the process for ever


def _read_nothing() -> None:
    """Standard input is /dev/null; where there is none, 0 may be anything, and stays."""
    if sys.stdin is None:
        return
    with contextlib.suppress(OSError):  # there is no descriptor to be had
        null = os.open(os.devnull, os.O_RDONLY)
        if null != 0:
            os.dup2(null, 0)
            os.close(null)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
