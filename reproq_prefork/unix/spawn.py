"""Starts an external program for a task."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reproq_prefork.unix.child_setup import Descriptors, end_with, limit_memory, use_as_standard_streams
from reproq_prefork.unix.proc import close_other_fds, die_with_parent
from reproq_prefork.unix.signals import block_all, reset_for_exec, set_mask

_TROUBLE_BYTES = 64
_LIBC = ctypes.PyDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs one task, and the descriptors of its pipes. `stdin` is None if it reads nothing."""

    pid: int
    stdin: int | None
    stdout: int
    stderr: int

    def close(self) -> None:
        """Close the pipes except `stdin`, which the process that writes to it closes."""
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

    It inherits no other descriptor than `keep_fd`. Raises OSError if it cannot be started.
    """
    image = _Image(argv, environ, directory)
    with Descriptors() as fds:
        stdin, payload = fds.pipe_to() if reads else (fds.null(), None)
        stdout_reader, stdout = fds.pipe()
        stderr_reader, stderr = fds.pipe()
        trouble_reader, trouble = fds.pipe()
        parent = os.getpid()

        def become() -> None:
            os.setsid()
            die_with_parent(signal.SIGKILL, parent)
            use_as_standard_streams(stdin, stdout, stderr)
            os.set_inheritable(keep_fd, True)
            close_other_fds({keep_fd, trouble})
            reset_for_exec()
            os.write(trouble, image.become(memory_bytes))

        # Until the new process has reset its handlers, a copy of our handlers would swallow a signal to it.
        previous_mask = block_all()
        try:
            # Not os.fork. Its hooks prepare the child for threads, random numbers and logging, but the child
            # becomes another program at once. The hooks would take a fifth of the whole time.
            pid: int = _LIBC.fork()
            if pid == 0:
                end_with(become)
        finally:
            set_mask(previous_mask)
        if pid < 0:
            raise _os_error(ctypes.get_errno())
        fds.close_theirs()
        said = os.read(trouble_reader, _TROUBLE_BYTES)  # empty if it has become the program
        if said:
            os.waitpid(pid, 0)
            number, step = said.split()
            raise _os_error(int(number), directory if step == b"chdir" else argv[0])
        fds.give_away(stdout_reader, stderr_reader, payload)
        return Program(pid, payload, stdout_reader, stderr_reader)


class _Image:
    """The arguments of execve. They are made before the fork, because memory may be short after it."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], directory: str) -> None:
        self._directory = directory
        self._argv = _c_strings(argv)
        self._environ = _c_strings([f"{name}={value}" for name, value in environ.items()])
        search = [""] if os.sep in argv[0] else environ.get("PATH", os.defpath).split(os.pathsep)
        self._paths = [os.fsencode(os.path.join(where, argv[0])) for where in search]  # noqa: PTH118

    def become(self, memory_bytes: int) -> bytes:
        """Become the program. Returns only if that fails: the number of the error, and the step that failed."""
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
