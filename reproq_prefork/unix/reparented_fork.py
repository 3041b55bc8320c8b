"""A fork of this process that becomes a child of its parent: so a template forks the workers of its master.

Linux gives a process whose parent dies to the nearest ancestor that adopts orphans (`proc.adopt_orphans`). So this
process forks an intermediate process. The intermediate forks the wanted process, then exits. Before the
intermediate exits, the adopting parent must know the new pid, because it takes an unknown child for an orphan and
kills it.

If any of them dies in the meantime, either the new process is already known to its parent, or it never starts: the
new process and the intermediate each wait for a byte that only this process can write.
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

ADOPTION_POLL_S = 0.0005  # when this begins, the intermediate has almost exited
_REPORT = struct.Struct("<ii")  # the pid of the new process, or 0 and the reason why there is none (errno)
_GO = b"go"  # a byte for the intermediate, one for the new process


class IntermediateLost(ReproqError):
    """The intermediate process was killed. If it had already forked, that process will end by itself."""


class Handover:
    """A process that exists and waits: `complete` or `drop` it."""

    def __init__(
        self, program: Callable[[], int], *, keep_fds: Collection[int], parent_death_signal: int
    ) -> None:
        """`program` becomes a child of the parent of this process, under the conditions of `fork.fork`.

        Raises OSError if no process can be started, and IntermediateLost. This process must have no other thread,
        and must not adopt orphans.
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
                # Only the calling process may write the bytes. When it dies, both waiting processes read an end.
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
            raise IntermediateLost("the intermediate process was killed before it had forked")
        pid, error_number = _REPORT.unpack(report)
        if not pid:
            self.drop()
            raise OSError(error_number, os.strerror(error_number))
        return int(pid)

    def complete(self) -> None:
        """Give the process to the parent, and let it start. The parent must already know `pid`."""
        with contextlib.suppress(BrokenPipeError):  # somebody has killed both
            os.write(self._go_writer, _GO)
        self._finish()

    def drop(self) -> None:
        """Let the process end before it has started."""
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
