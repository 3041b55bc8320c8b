from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reproq_prefork.text.log import MAX_LINE_BYTES, Log, LogFormat, LogLevel

MOMENT_S = 1_795_555_876.123

ANY_TEXT = st.text(st.characters(categories=None))
ANY_FIELDS = st.dictionaries(
    ANY_TEXT, ANY_TEXT | st.integers() | st.floats() | st.booleans() | st.none() | st.binary(), max_size=8
)


class Pipe:
    """A pipe whose read end gives back what a log wrote."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()

    def log(self, format: LogFormat, level: LogLevel = LogLevel.DEBUG, name: str = "master") -> Log:
        return Log(level, format, fd=self.write_fd, name=name, clock=lambda: MOMENT_S)

    def text(self) -> str:
        return os.read(self.read_fd, 1 << 20).decode()


@pytest.fixture(scope="module")
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.read_fd)
    os.close(pipe.write_fd)


def test_a_console_line_is_read_at_a_glance(pipe: Pipe) -> None:
    log = pipe.log(LogFormat.CONSOLE).child("worker 3")
    log.info("run 1842 succeeded", attempt=1, seconds=0.123, queue="by night", retry=None)
    assert pipe.text() == (
        "2026-11-24T21:31:16.123Z INFO  worker 3: run 1842 succeeded "
        'attempt=1 seconds=0.123 queue="by night" retry=null\n'
    )


def test_a_json_line_holds_the_same(pipe: Pipe) -> None:
    pipe.log(LogFormat.JSON, name="worker 3").warning("run 1842 failed", attempt=1, seconds=0.123)
    assert json.loads(pipe.text()) == {
        "time": "2026-11-24T21:31:16.123Z",
        "level": "warning",
        "process": "worker 3",
        "message": "run 1842 failed",
        "attempt": 1,
        "seconds": 0.123,
    }


def test_a_field_never_replaces_a_standard_field(pipe: Pipe) -> None:
    pipe.log(LogFormat.JSON).info("ready", message="forged", level="error")
    event = json.loads(pipe.text())
    assert (event["message"], event["level"]) == ("ready", "info")
    assert (event["message_"], event["level_"]) == ("forged", "error")


@pytest.mark.parametrize("level", LogLevel)
def test_a_log_writes_its_own_level_and_those_above(pipe: Pipe, level: LogLevel) -> None:
    log = pipe.log(LogFormat.JSON, level=level)
    for write in (log.debug, log.info, log.warning, log.error):
        write("said")
    written = [json.loads(line)["level"] for line in pipe.text().splitlines()]
    assert written == [member.name.lower() for member in LogLevel if member >= level]


@given(name=ANY_TEXT, message=ANY_TEXT, fields=ANY_FIELDS)
@example(name="worker\n1", message="\x1b[2J\x7f\x85\u2028", fields={"a\nb": "\x7f\r\n\ud800"})
@pytest.mark.parametrize("format", LogFormat)
def test_an_event_is_one_bounded_line_whatever_it_holds(
    pipe: Pipe, format: LogFormat, name: str, message: str, fields: dict[str, object]
) -> None:
    pipe.log(format, name=name).error(message, **fields)
    text = pipe.text()
    assert len(text.encode()) <= MAX_LINE_BYTES
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()


@given(message=ANY_TEXT, fields=ANY_FIELDS)
def test_a_json_line_is_valid_json_whatever_it_holds(
    pipe: Pipe, message: str, fields: dict[str, object]
) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    pipe.log(LogFormat.JSON).info(message, **fields)
    event = json.loads(pipe.text(), parse_constant=refuse)
    assert event["message"] == message
    assert len(event) == 4 + len(fields)


@pytest.mark.parametrize("format", LogFormat)
@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("é" * 100_000, {}),
        ("long value", {"value": "\u2028" * 100_000}),
        ("two long values", {"first": "x" * 6_000, "second": "y" * 6_000}),
        ("many fields", {f"field_{number}": number for number in range(5_000)}),
        ("long name", {"n" * 20_000: 1}),
    ],
)
def test_a_long_event_is_cut_and_stays_readable(
    pipe: Pipe, format: LogFormat, message: str, fields: dict[str, object]
) -> None:
    pipe.log(format).info(message, **fields)
    line = pipe.text()
    assert len(line.encode()) <= MAX_LINE_BYTES
    assert line.count("\n") == 1
    if format is LogFormat.JSON:
        assert json.loads(line)["message"].startswith(message[:9])


def test_a_value_that_cannot_be_written_does_not_hide_the_event(pipe: Pipe) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text today")

    pipe.log(LogFormat.CONSOLE).info("went on", value=Broken(), number=10**5_000, level_name=LogFormat.JSON)
    assert pipe.text().endswith(
        'went on value="<Broken without a text>" number="<int without a text>" level_name=json\n'
    )


def test_a_full_disk_stops_nothing() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    Log(LogLevel.INFO, LogFormat.CONSOLE, fd=fd).error("nobody hears this")
    os.close(fd)


def test_a_reader_that_left_stops_nothing() -> None:
    pipe = Pipe()
    os.close(pipe.read_fd)
    pipe.log(LogFormat.CONSOLE).error("nobody hears this")
    os.close(pipe.write_fd)


def test_a_reader_that_is_too_slow_stops_nothing_where_the_pipe_does_not_block() -> None:
    pipe = Pipe()
    os.set_blocking(pipe.write_fd, False)
    for _ in range(100):
        pipe.log(LogFormat.CONSOLE).error("x" * 4_000)
    os.close(pipe.read_fd)
    os.close(pipe.write_fd)


def test_an_event_is_one_write(tmp_path: Path) -> None:
    # Two descriptors with their own offsets: without O_APPEND the second write would overwrite the
    # first; with it, whole lines follow each other.
    path = tmp_path / "log"
    fds = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]
    for number in range(50):
        Log(LogLevel.INFO, LogFormat.JSON, fd=fds[number % 2]).info("line", number=number)
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == list(range(50))
    for fd in fds:
        os.close(fd)
