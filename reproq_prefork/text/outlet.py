"""Writes to a descriptor that is shared with others, without waiting for its reader.

Standard error may be a pipe that nobody reads, a terminal that somebody has stopped (Ctrl-S), or a socket of a log
collector that hangs. It cannot be made non-blocking: that is a property of the open file, which the shell and
other programs share.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from collections.abc import Callable

# A pipe accepts this much as a whole or not at all, however many processes write to it.
MAX_WHOLE_BYTES = select.PIPE_BUF


class Outlet:
    """Writes lines of at most MAX_WHOLE_BYTES. A line that cannot be written at once is dropped, and counted."""

    def __init__(self) -> None:
        self._dropped = 0
        self._is_torn = False  # the last line was cut, and has no end

    def write(self, fd: int, line: bytes, notice: Callable[[int], bytes]) -> None:
        """Never raises. `notice` makes the line that says how many were dropped. It goes before the next line."""
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
    """Write lines of any length, as far as this is possible at once. Never raises."""
    with contextlib.suppress(OSError):
        for line in text.splitlines():
            whole = (line + "\n").encode(errors="replace")
            for start in range(0, len(whole), MAX_WHOLE_BYTES):
                write_at_once(fd, whole[start : start + MAX_WHOLE_BYTES])


def write_at_once(fd: int, text: bytes) -> int:
    """Write `text` or a part of it. Returns how many bytes. Raises OSError; a BlockingIOError if nothing can be
    written at once.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return _send(fd, text)
    may_block = stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
    if not may_block or not os.get_blocking(fd):
        return os.write(fd, text)
    try:
        # The same pipe or terminal, through an open file of our own.
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        # It belongs to another user, for example if the program that started us has changed its user.
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
    """Write through a pipe of our own: the kernel moves the text from it, if there is room. This takes more room
    than a write, since each line takes a page of the pipe.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(writer, text)
        return os.splice(reader, fd, len(text), flags=os.SPLICE_F_NONBLOCK)
    finally:
        os.close(reader)
        os.close(writer)


def _write_by_bytes(fd: int, text: bytes) -> int:
    """Write to a terminal. If it is ready, it accepts a byte. A line may not fit, and a write would wait."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    for written in range(len(text)):
        if not poll.poll(0):
            if written:
                return written
            raise BlockingIOError
        os.write(fd, text[written : written + 1])
    return len(text)
