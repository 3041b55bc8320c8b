"""The process of one task: a fork of this one, or another program.

Either leads a session of its own, dies with this process, and starts with no signal handled. All of this is done
for each task; and each page that a fork is the first to touch costs a microsecond or two, which is most of what it
costs. So what can be made once, in this process, is, and what need not be done is not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from reproq_prefork.unix.proc import close_other_fds, die_with_parent, flush_standard_streams
from reproq_prefork.unix.signals import block_all, reset_for_exec, reset_to_new_interpreter, set_mask

TASK_NOT_SET_UP = 70  # EX_SOFTWARE of sysexits.h: a task's process failed before the task began
_TROUBLE_BYTES = 64

_LIBC = ctypes.PyDLL(None, use_errno=True)


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
            self._fds = on_failure.enter_context(_Descriptors())
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
            _stand_for_standard(self._null, self._output_writer, self._output_writer)
            for fd in (self._null, self._output_writer):
                os.close(fd)  # these numbers serve to list the others, however few are to be had
            _lead_nowhere(keep=keep)
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


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs one task, and the descriptors of its pipes; `stdin` is None where it reads nothing."""

    pid: int
    stdin: int | None
    stdout: int
    stderr: int

    def close(self) -> None:
        """But for `stdin`, which is whose who writes to it."""
        os.close(self.stdout)
        os.close(self.stderr)


def spawn(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: str,
    reads: bool,
    keep_fd: int,
    memory_bytes: int = 0,
) -> Program:
    """Start another program, in `directory`, with pipes for its output, and for its input if it `reads`.

    Of the inherited descriptors only `keep_fd` is open in it. Raises OSError where it cannot be started.
    """
    image = _Image(argv, environ, directory)
    with _Descriptors() as fds:
        stdin, payload = fds.pipe_to() if reads else (fds.null(), None)
        stdout_reader, stdout = fds.pipe()
        stderr_reader, stderr = fds.pipe()
        trouble_reader, trouble = fds.pipe()
        parent = os.getpid()

        def become() -> None:
            os.setsid()
            die_with_parent(signal.SIGKILL, parent)
            _stand_for_standard(stdin, stdout, stderr)
            os.set_inheritable(keep_fd, True)
            close_other_fds({keep_fd, trouble})
            reset_for_exec()
            os.write(trouble, image.become(memory_bytes))

        # Until its own handlers are reset, a signal to the new process would be swallowed by a copy of ours.
        previous_mask = block_all()
        try:
            # Not os.fork, whose hooks ready the child for threads, random numbers and logging: it becomes another
            # program at once, and they would take a fifth of what that costs.
            pid: int = _LIBC.fork()
            if pid == 0:
                _end_with(become)
        finally:
            set_mask(previous_mask)
        if pid < 0:
            raise _os_error(ctypes.get_errno())
        fds.close_theirs()
        said = os.read(trouble_reader, _TROUBLE_BYTES)  # nothing, where it has become the program
        if said:
            os.waitpid(pid, 0)
            number, step = said.split()
            raise _os_error(int(number), directory if step == b"chdir" else argv[0])
        fds.give_away(stdout_reader, stderr_reader, payload)
        return Program(pid, payload, stdout_reader, stderr_reader)


def _end_with(program: Callable[[], None]) -> NoReturn:
    try:
        program()
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            flush_standard_streams()
    finally:
        os._exit(TASK_NOT_SET_UP)


class _Image:
    """What a process is to become, as execve takes it; made before the fork, as memory may be short after it."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], directory: str) -> None:
        self._directory = directory
        self._argv = _c_strings(argv)
        self._environ = _c_strings([f"{name}={value}" for name, value in environ.items()])
        search = [""] if os.sep in argv[0] else environ.get("PATH", os.defpath).split(os.pathsep)
        self._paths = [os.fsencode(os.path.join(where, argv[0])) for where in search]  # noqa: PTH118

    def become(self, memory_bytes: int) -> bytes:
        """Returns only where that fails: the number of the error, and at which step."""
        try:
            os.chdir(self._directory)
        except OSError as error:
            return b"%d chdir" % (error.errno or 0)
        limit_memory(memory_bytes)
        number = errno.ENOENT
        for path in self._paths:
            _LIBC.execve(path, self._argv, self._environ)
            if ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR):
                number = ctypes.get_errno()
        return b"%d execve" % number


def _c_strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [os.fsencode(text) for text in texts]
    if any(b"\0" in each for each in encoded):
        raise ValueError("embedded null byte")
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded)


def _os_error(number: int, filename: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), filename)


def limit_memory(memory_bytes: int) -> None:
    """The address space of this process and of those it starts; 0: no limit."""
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _stand_for_standard(*sources: int) -> None:
    for fd, source in enumerate(sources):
        os.dup2(source, fd)


def _lead_nowhere(*, keep: Collection[int]) -> None:
    """Lead every descriptor above 2 but these to where 0 leads, which is /dev/null."""
    listing = os.dup(0)  # the lowest number that is free, so the one that the listing will have
    os.close(listing)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and fd != listing and fd not in keep:
            os.dup2(0, fd, inheritable=False)


class _Descriptors:
    """A context: pipes to a process that is started in it; what was not given away or closed is closed on leaving.

    None has a number up to 2, also where this process was started without these.
    """

    def __init__(self) -> None:
        self._ours: list[int] = []
        self._theirs: list[int] = []

    def __enter__(self) -> _Descriptors:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.close_theirs()
        while self._ours:
            os.close(self._ours.pop())

    def null(self) -> int:
        return _kept(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), self._theirs)

    def pipe(self) -> tuple[int, int]:
        """The end that is ours to read, and theirs to write to."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        return _kept(reader, self._ours), _kept(writer, self._theirs)

    def pipe_to(self) -> tuple[int, int]:
        """The end that is theirs to read, and ours to write to."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        return _kept(reader, self._theirs), _kept(writer, self._ours)

    def give_away(self, *fds: int | None) -> None:
        self._ours = [fd for fd in self._ours if fd not in fds]

    def close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())


def _kept(fd: int, kept: list[int]) -> int:
    kept.append(fd)
    if fd > 2:
        return fd
    kept[-1] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return kept[-1]
