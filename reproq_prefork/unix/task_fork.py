"""The process of one task: a fork of this process.

It leads its own session, dies with this process, and starts without signal handlers. All of this is done for each
task. Each page that a fork is the first to touch costs a microsecond or two, which is most of its cost. So
whatever can be made once, in this process, is made here, and nothing unnecessary is done.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

from reproq_prefork.unix.child_setup import (
    TASK_NOT_SET_UP,
    Descriptors,
    limit_memory,
    redirect_to_null,
    use_as_standard_streams,
)
from reproq_prefork.unix.proc import die_with_parent, flush_standard_streams
from reproq_prefork.unix.signals import block_all, reset_to_new_interpreter, set_mask


class TaskForks:
    """Forks tasks from this process, which must have no other thread.

    `memory_bytes`: limit on the address space of each process of a task; 0: no limit.
    """

    def __init__(self, *, memory_bytes: int = 0) -> None:
        self._memory_bytes = memory_bytes
        self._streams = (_LineStream("stdout", 1), _LineStream("stderr", 2))

    def prepared(self) -> TaskFork:
        return TaskFork(self._streams, self._memory_bytes)


class TaskFork:
    """A context manager: a fork that runs one task, and the descriptors to read what it writes.

    The descriptors exist first. `output` is its stdout and stderr. Raises OSError if they cannot be made.
    """

    def __init__(self, streams: Sequence[_LineStream], memory_bytes: int) -> None:
        self._streams = streams
        self._memory_bytes = memory_bytes
        with contextlib.ExitStack() as on_failure:
            self._fds = on_failure.enter_context(Descriptors())
            self._null = self._fds.null()
            self.output, self._output_writer = self._fds.pipe()
            self.result, self._result_writer = self._fds.pipe()
            on_failure.pop_all()

    def __enter__(self) -> TaskFork:
        return self

    def __exit__(self, *_error: object) -> None:
        self._fds.close()

    def start(self, program: Callable[[int], int], *, keep_fds: Collection[int] = ()) -> int:
        """Start `program(result_fd)` in the fork, which exits with the status that it returns. Returns the pid.

        The fork reads nothing, writes to pipes, and has the signal handlers of a new interpreter. All signals are
        still blocked when `program` starts. It ends by os._exit, so what it has inherited (such as a connection to
        the database) is neither used nor finalised in it. Of the inherited descriptors only `keep_fds` still lead
        to their files. The others lead to /dev/null and are not closed: code that remembers the number of one,
        such as a logger, must not write into another file that got this number later.
        """
        keep = {*keep_fds, self._result_writer}
        flush_standard_streams()  # text that this process has not written yet must not be written twice
        parent = os.getpid()
        previous_mask = block_all()
        # While the fork is alive, each page that this process writes to is copied, so it does little now.
        try:
            pid = os.fork()
            if pid == 0:
                self._run(program, keep, parent)
        finally:
            set_mask(previous_mask)
        self._fds.close_theirs()
        return pid

    def _run(self, program: Callable[[int], int], keep: Collection[int], parent: int) -> NoReturn:
        """Be the task's process. No exception may leave this: the callers on the stack belong to the parent."""
        status = TASK_NOT_SET_UP
        try:
            signal.set_wakeup_fd(-1)
            reset_to_new_interpreter()
            os.setsid()
            die_with_parent(signal.SIGKILL, parent)
            use_as_standard_streams(self._null, self._output_writer, self._output_writer)
            for fd in (self._null, self._output_writer):
                os.close(fd)  # so two numbers are free to list the others, even if no more can be opened
            redirect_to_null(keep=keep)
            for stream in self._streams:
                stream.open()
            limit_memory(self._memory_bytes)
            status = program(self._result_writer)
        except BaseException:
            with contextlib.suppress(BaseException):
                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                flush_standard_streams()
            os._exit(status)


class _LineStream:
    """A stream of `sys` in a task. What the task prints is in the pipe before a crash can lose it.

    It is a new stream, because the worker's own one may assume that it writes to a file, which has a position. It
    is made before the fork, on a pipe that is then closed. In the fork it is connected to the task's own pipe.
    """

    def __init__(self, name: str, fd: int) -> None:
        self._name = name
        self._fd = fd
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            self._raw = io.FileIO(writer, "w", closefd=False)
            self._stream = io.TextIOWrapper(
                io.BufferedWriter(self._raw), encoding="utf-8", errors="backslashreplace", line_buffering=True
            )
            self._stream.mode = "w"  # type: ignore[misc]  # as open() sets it
        finally:
            os.close(reader)
            os.close(writer)

    def open(self) -> None:
        io.FileIO.__init__(self._raw, self._fd, "w", closefd=False)
        setattr(sys, self._name, self._stream)
