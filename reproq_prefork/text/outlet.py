"""Writing to a descriptor that is shared with others, without waiting for whoever reads it.

Standard error may be a pipe that nobody reads, a terminal that somebody has stopped (Ctrl-S), or a socket of a log
collector that hangs. It cannot be made non-blocking: that is a property of the open file, which belongs to the
shell and to other programs as well.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from collections.abc import Callable

# What a pipe takes as a whole or not at all, however many write to it.
MAX_WHOLE_BYTES = select.PIPE_BUF


class Outlet:
    """Writes lines of at most MAX_WHOLE_BYTES; one that cannot be written at once is dropped, and counted."""

    def __init__(self) -> None:
        self._dropped = 0
        self._is_torn = False  # the last line was cut, and has no end

    def write(self, fd: int, line: bytes, notice: Callable[[int], bytes]) -> None:
        """Never raises. `notice`: the line that says how many were dropped; it is written before the next one."""
        if self._dropped:
            if not self._put(fd, notice(self._dropped)):
                self._dropped += 1
                return
            self._dropped = 0
        if not self._put(fd, line):
            self._dropped += 1

    def _put(self, fd: int, line: bytes) -> bool:
        text = b"\n" + line if self._is_torn else line
        try:
            written = write_at_once(fd, text)
        except OSError:
            return False
        if written:
            self._is_torn = written < len(text)
        return written == len(text)


def write_text_at_once(fd: int, text: str) -> None:
    """Write lines of any length, as far as that can be done at once. Never raises."""
    with contextlib.suppress(OSError):
        for line in text.splitlines():
            whole = (line + "\n").encode(errors="replace")
            for start in range(0, len(whole), MAX_WHOLE_BYTES):
                write_at_once(fd, whole[start : start + MAX_WHOLE_BYTES])


def write_at_once(fd: int, text: bytes) -> int:
    """Write `text` or a part of it; gives how many bytes. Raises OSError, a BlockingIOError where nothing can be
    written at once.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return _send(fd, text)
    may_block = stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    if not may_block or not os.get_blocking(fd):
        return os.write(fd, text)
    try:
        # The same pipe or terminal by an open file of our own.
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        # It belongs to another user, as where the program that started us has dropped its rights.
        return _spliced(fd, text) if stat.S_ISFIFO(mode) else _write_by_bytes(fd, text)
    try:
        return os.write(own, text)
    finally:
        os.close(own)


def _send(fd: int, text: bytes) -> int:
    end = socket.socket(fileno=fd)
    try:
        return end.send(text, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    finally:
        end.detach()


def _spliced(fd: int, text: bytes) -> int:
    """By way of a pipe of our own, from which the kernel moves it if it can. Takes more room in the pipe than a
    write: each line a page of it.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writer, text)
        return os.splice(reader, fd, len(text), flags=os.SPLICE_F_NONBLOCK)
    finally:
        os.close(reader)
        os.close(writer)


def _write_by_bytes(fd: int, text: bytes) -> int:
    """To a terminal: one that is ready takes a byte. It may have no room for a line, and then a write waits."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    for written in range(len(text)):
        if not poll.poll(0):
            if written:
                return written
            raise BlockingIOError
        os.write(fd, text[written : written + 1])
    return len(text)
