"""Writing to a descriptor without waiting for whoever reads it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reproq_prefork.text import outlet
from reproq_prefork.text.log import MAX_LINE_BYTES, Log, LogFormat, LogLevel
from reproq_prefork.text.outlet import MAX_WHOLE_BYTES, Outlet, write_at_once, write_text_at_once
from tests.support.unix.children import exit_status_of, forked
from tests.support.waiting import wait_until

NOBODY = 65534
LINE = b"x" * 99 + b"\n"


class Ends:
    """A way for bytes, of which one end is written to."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = reader, writer
        os.set_blocking(reader, False)

    def read(self) -> bytes:
        """All that has arrived."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.reader, 1 << 20):
                said += chunk
        return said

    def fill(self) -> None:
        """By somebody else, whose descriptor waits for room."""
        own = os.dup(self.writer)
        try:
            # A line, and then what room is left.
            for text in (LINE, b"x"):
                with contextlib.suppress(BlockingIOError):
                    while write_at_once(own, text):
                        pass
        finally:
            os.close(own)

    def close(self) -> None:
        for fd in (self.reader, self.writer):
            with contextlib.suppress(OSError):
                os.close(fd)


def pipe() -> Ends:
    return Ends(*os.pipe())


def stream_socket() -> Ends:
    ours, theirs = socket.socketpair()
    return Ends(ours.detach(), theirs.detach())


def terminal() -> Ends:
    return Ends(*pty.openpty())


@pytest.fixture(params=[pipe, stream_socket, terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    ends = request.param()
    yield ends
    ends.close()


@contextlib.contextmanager
def at_once(seconds: float = 5.0) -> Iterator[None]:
    def fail(signum: int, frame: object) -> None:
        raise AssertionError(f"it took more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, fail)
    remaining = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *remaining)
        signal.signal(signal.SIGALRM, previous)


def test_data_that_fits_is_written(ends: Ends) -> None:
    assert write_at_once(ends.writer, b"one line\n") == 9
    assert ends.read().replace(b"\r", b"") == b"one line\n"


def test_a_write_does_not_wait_for_a_reader(ends: Ends) -> None:
    with at_once():
        ends.fill()
        with pytest.raises(BlockingIOError):
            write_at_once(ends.writer, LINE)
    ends.read()
    assert write_at_once(ends.writer, b"again\n") == 6


def test_the_descriptor_stays_as_it_was_for_others(ends: Ends) -> None:
    flags = fcntl.fcntl(ends.writer, fcntl.F_GETFL)
    before = set(os.listdir("/proc/self/fd"))
    with at_once():
        ends.fill()
    assert fcntl.fcntl(ends.writer, fcntl.F_GETFL) == flags
    assert os.get_blocking(ends.writer)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_write_does_not_wait_for_a_stopped_terminal() -> None:
    ends = terminal()
    with at_once():
        termios.tcflow(ends.writer, termios.TCOOFF)
        with pytest.raises(BlockingIOError):
            write_at_once(ends.writer, LINE)
        termios.tcflow(ends.writer, termios.TCOON)
        assert write_at_once(ends.writer, LINE) == len(LINE)
    ends.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("make", [pipe, terminal])
def test_a_write_does_not_wait_for_a_file_of_another_user_either(make: Callable[[], Ends]) -> None:
    """The program that started us has opened it, and then dropped its rights."""
    ends = make()

    def as_nobody() -> int:
        signal.alarm(10)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.setgroups([])
        os.setuid(NOBODY)
        with pytest.raises(PermissionError):
            os.open(f"/proc/self/fd/{ends.writer}", os.O_WRONLY | os.O_NOCTTY)
        assert write_at_once(ends.writer, b"one line\n") == 9
        ends.fill()
        return 0

    with forked(as_nobody, keep_fds={ends.writer}) as child:
        assert exit_status_of(child) == 0
    assert ends.read().replace(b"\r", b"").startswith(b"one line\n" + LINE)
    ends.close()


@pytest.mark.parametrize(
    "user", [None, pytest.param(NOBODY, marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))]
)
def test_lines_of_many_processes_stay_whole_and_nobody_waits(user: int | None) -> None:
    ends = pipe()
    line = b"%d" + b"-" * (MAX_WHOLE_BYTES - 3) + b"%d\n"

    def write_many(number: int) -> int:
        signal.alarm(20)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if user is not None:
            os.setuid(user)
        mine = line % (number, number)
        for _ in range(2_000):
            with contextlib.suppress(BlockingIOError):
                assert write_at_once(ends.writer, mine) == len(mine)
        return 0

    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(forked(lambda number=number: write_many(number), keep_fds={ends.writer}))  # type: ignore[misc]
            for number in range(4)
        ]
        said = b""

        def are_done() -> bool:
            nonlocal said
            said += ends.read()
            return all(child.exitcode is not None for child in children)

        wait_until(are_done, 20, "the writers")
        assert {child.exitcode for child in children} == {0}
    said += ends.read()
    lines = said.splitlines(keepends=True)
    assert lines
    assert set(lines) <= {line % (number, number) for number in range(4)}
    ends.close()


def test_a_traceback_is_written_as_far_as_there_is_room() -> None:
    ends = pipe()
    with at_once():
        write_text_at_once(ends.writer, "é" * 10_000 + "\nend\ud800")
    assert ends.read() == ("é" * 10_000).encode() + b"\nend?\n"
    with at_once():
        write_text_at_once(ends.writer, "line\n" * 100_000)
    assert set(ends.read().splitlines()) == {b"line"}
    ends.close()
    write_text_at_once(ends.writer, "nobody")


class TestDropped:
    """Lines that are dropped are counted, and the log says so."""

    @pytest.mark.parametrize("format", LogFormat)
    @pytest.mark.parametrize("make", [pipe, stream_socket])
    def test_the_number_of_dropped_lines_is_logged_before_the_next_line(
        self, make: Callable[[], Ends], format: LogFormat
    ) -> None:
        ends = make()
        log = Log(LogLevel.INFO, format, fd=ends.writer)
        ends.fill()
        with at_once():
            for number in range(100):
                log.info("nobody reads this", number=number)
                log.debug("nor would anybody")
        ends.read()
        log.info("somebody does")
        log.child("worker 3").error("and this")
        said = ends.read().decode().splitlines()
        assert [("dropped" in line, "somebody does" in line, "and this" in line) for line in said] == [
            (True, False, False),
            (False, True, False),
            (False, False, True),
        ]
        if format is LogFormat.JSON:
            notice = json.loads(said[0])
            assert (notice["level"], notice["dropped"]) == ("warning", 100)
        else:
            assert said[0].endswith("they could not be written at once dropped=100")
        ends.close()

    def test_dropped_lines_are_counted_until_their_number_can_be_written(self) -> None:
        ends = pipe()
        log = Log(LogLevel.INFO, LogFormat.JSON, fd=ends.writer)
        for _ in range(3):
            ends.fill()
            log.info("nobody reads this")
        ends.read()
        log.info("somebody does")
        assert [json.loads(line).get("dropped") for line in ends.read().splitlines()] == [3, None]
        ends.close()

    def test_lines_refused_by_a_full_disk_are_dropped_and_counted_too(self) -> None:
        ends = pipe()
        full = os.open("/dev/full", os.O_WRONLY)
        kept = os.dup(ends.writer)
        log = Log(LogLevel.INFO, LogFormat.JSON, fd=ends.writer)
        os.dup2(full, ends.writer)
        for _ in range(2):
            log.info("no space is left")
        os.dup2(kept, ends.writer)
        log.info("there is")
        assert [json.loads(line).get("dropped") for line in ends.read().splitlines()] == [2, None]
        os.close(full)
        os.close(kept)
        ends.close()

    def test_a_line_that_was_cut_is_ended_before_the_next(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """For example by a disk that becomes full in the middle of a write."""
        path = tmp_path / "log"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        room = [10]

        def write(fd: int, text: bytes) -> int:
            if not room[0]:
                raise OSError
            written = os.write(fd, text[: room[0]])
            room[0] -= written
            return written

        monkeypatch.setattr(outlet, "write_at_once", write)
        own = Outlet()
        for _ in range(2):
            own.write(fd, LINE, lambda dropped: b"%d\n" % dropped)
        room[0] = 1_000
        own.write(fd, b"next\n", lambda dropped: b"%d\n" % dropped)
        assert path.read_bytes() == b"x" * 10 + b"\n2\nnext\n"
        os.close(fd)


def test_a_log_line_is_short_enough_for_one_atomic_pipe_write() -> None:
    assert MAX_LINE_BYTES <= 4096
