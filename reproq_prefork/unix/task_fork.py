"""The process of one task: a fork of this one, or another program.

Either leads a session of its own, dies with this process, and starts with no signal handled. All of this is done
for each task; and each page that a fork is the first to touch costs a microsecond or two, which is most of what it
costs. So what can be made once, in this process, is, and what need not be done is not.
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
    lead_nowhere,
    limit_memory,
    stand_for_standard,
)
from reproq_prefork.unix.proc import die_with_parent, flush_standard_streams
from reproq_prefork.unix.signals import block_all, reset_to_new_interpreter, set_mask


class TaskForks:
    """Forks tasks from this process, which must have no other thread.

    `memory_bytes`: the address space of each process of a task; 0: no limit.
    """

    def __init__(self, *, memory_bytes: int = 0) -> None:
        self._memory_bytes = memory_bytes
        self._streams = (_LineStream("stdout", 1), _LineStream("stderr", 2))

    def prepared(self) -> TaskFork:
        return TaskFork(self._streams, self._memory_bytes)


class TaskFork:
    """A context: a fork that runs one task, and the descriptors to read what it writes; these come first.

    `output` is its stdout and stderr. Raises OSError where it cannot be had.
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
        """Start `program(result_fd)` in the fork, which ends with the status that it returns; gives the pid.

        It reads nothing, writes to pipes, and has the signal handlers of a new interpreter; all signals are still
        blocked when `program` starts. It ends by os._exit: what it has inherited (a connection to the database)
        is neither used nor finalised in it. Of the inherited descriptors only `keep_fds` still lead anywhere. The
        others are /dev/null in it, not closed: who remembers the number of one, such as a logger, must not write
        into what has got that number since.
        """
        keep = {*keep_fds, self._result_writer}
        flush_standard_streams()  # what this process has yet to write must not be written twice
        parent = os.getpid()
        previous_mask = block_all()
        # What this process writes to while the fork is alive is copied for it page by page, so it does little now.
        try:
            pid = os.fork()
            if pid == 0:
                self._run(program, keep, parent)
        finally:
            set_mask(previous_mask)
        self._fds.close_theirs()
        return pid

    def _run(self, program: Callable[[int], int], keep: Collection[int], parent: int) -> NoReturn:
        """Nothing may leave this: whatever stands above it on the stack belongs to the parent."""
        status = TASK_NOT_SET_UP
        try:
            signal.set_wakeup_fd(-1)
            reset_to_new_interpreter()
            os.setsid()
            die_with_parent(signal.SIGKILL, parent)
            stand_for_standard(self._null, self._output_writer, self._output_writer)
            for fd in (self._null, self._output_writer):
                os.close(fd)  # these numbers serve to list the others, however few are to be had
            lead_nowhere(keep=keep)
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
    """A stream of `sys` in a task: what it prints is in the pipe before it dies of something.

    It is a new one: that of the worker may believe that what it writes to has a position, as a file has. It is
    made before the fork, on a pipe that is then closed, and led to the task's own in the fork.
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
