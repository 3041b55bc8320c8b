"""A fork of this process that becomes its parent's child: how a template makes the workers of its master.

Linux gives a process whose parent dies to the nearest ancestor that adopts orphans (`proc.adopt_orphans`).
So this process forks an intermediate, that forks the process which is wanted, and ends. Before it does so, the
adopting parent has to be told the pid: a child that it knows nothing of is somebody's orphan, and it kills that.

Whoever dies meanwhile, the new process either is known to its parent by then, or never starts: it and the
intermediate wait for a byte each, which only this process can write.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable, Collection
from typing import NoReturn

from reproq_prefork.errors import ReproqError
from reproq_prefork.unix import proc
from reproq_prefork.unix.fork import run_as_child
from reproq_prefork.unix.signals import pause

ADOPTION_POLL_S = 0.0005  # the intermediate is as good as gone when this begins
_REPORT = struct.Struct("<ii")  # the pid of the new process, or 0 and why there is none (errno)
_GO = b"go"  # a byte for the intermediate, one for the new process


class IntermediateLost(ReproqError):
    """The process that stands between was killed; what it has forked, if it has, will end by itself."""


class Handover:
    """A process that is there, and waits: `complete` or `drop` it."""

    def __init__(
        self, program: Callable[[], int], *, keep_fds: Collection[int], parent_death_signal: int
    ) -> None:
        """`program` is to become a child of this process' parent, under the conditions of `child.fork`.

        Raises OSError where no process can be had, and IntermediateLost. This process must have no other thread,
        and must adopt no orphans.
        """
        report_reader, report_writer = os.pipe2(os.O_CLOEXEC)
        try:
            go_reader, self._go_writer = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(report_reader)
            os.close(report_writer)
            raise
        proc.flush_standard_streams()
        this, parent = os.getpid(), os.getppid()

        def new_process(intermediate: int) -> NoReturn:
            os.close(report_writer)
            _wait_until_adopted(go_reader, intermediate)
            run_as_child(program, keep_fds=keep_fds, parent_death_signal=parent_death_signal, parent=parent)

        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._intermediate = os.fork()
            if self._intermediate == 0:
                os.close(report_reader)
                # Only the process that has called this can say go: when it dies, both that wait read an end.
                os.close(self._go_writer)
                _be_intermediate(new_process, report_writer, go_reader, this)
        except OSError:
            os.close(report_reader)
            os.close(self._go_writer)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
            os.close(report_writer)
            os.close(go_reader)
        self.pid = self._read_report(report_reader)

    def _read_report(self, reader: int) -> int:
        report = os.read(reader, _REPORT.size)
        os.close(reader)
        if not report:
            self.drop()
            raise IntermediateLost("the process that was to fork it was ended")
        pid, error_number = _REPORT.unpack(report)
        if not pid:
            self.drop()
            raise OSError(error_number, os.strerror(error_number))
        return int(pid)

    def complete(self) -> None:
        """Let the parent have it, and let it start. The parent knows `pid` by now."""
        with contextlib.suppress(BrokenPipeError):  # somebody has killed both
            os.write(self._go_writer, _GO)
        self._finish()

    def drop(self) -> None:
        """It ends without having started."""
        self._finish()

    def _finish(self) -> None:
        os.close(self._go_writer)
        os.waitpid(self._intermediate, 0)


def _be_intermediate(
    new_process: Callable[[int], NoReturn], report_writer: int, go_reader: int, parent: int
) -> NoReturn:
    try:
        proc.die_with_parent(signal.SIGKILL, parent)
        this = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.write(report_writer, _REPORT.pack(0, error.errno))
        else:
            if pid == 0:
                new_process(this)
            os.write(report_writer, _REPORT.pack(pid, 0))
            os.read(go_reader, 1)
    finally:
        os._exit(0)


def _wait_until_adopted(go_reader: int, intermediate: int) -> None:
    if not os.read(go_reader, 1):
        os._exit(0)
    while os.getppid() == intermediate:
        pause(ADOPTION_POLL_S)
