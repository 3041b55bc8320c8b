"""The log: one event, one line, one `write`.

It does not use the `logging` module of the standard library: that has process-wide mutable state with locks, which
a fork copies as they are. A `Log` is a value that is passed to every part that writes; a child process gets
`log.child("worker 3")`. Nothing here hides secrets: pass an address through `redact.mask_url` before you log it.
"""

from __future__ import annotations

import enum
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from reproq_prefork.text.outlet import MAX_WHOLE_BYTES, Outlet
from reproq_prefork.text.printable import printable

# So the lines of several processes on one pipe never mix, and a full pipe accepts no part of a line.
MAX_LINE_BYTES = MAX_WHOLE_BYTES
_CUT = "…"

Scalar = None | bool | int | float | str


class LogLevel(enum.IntEnum):
    """How much is logged: a log writes its own level and the levels above it."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class LogFormat(enum.Enum):
    """The form of a line: for people, or one JSON object for a log collector."""

    CONSOLE = "console"
    JSON = "json"


_CONSOLE_LEVEL = {
    LogLevel.DEBUG: "DEBUG",
    LogLevel.INFO: "INFO ",
    LogLevel.WARNING: "WARN ",
    LogLevel.ERROR: "ERROR",
}


@dataclass(frozen=True, slots=True)
class Log:
    """Writes events of process `name` to the descriptor `fd`. `clock` returns seconds since the epoch.

    The four methods never raise and never wait: a full disk, a closed terminal, or a pipe that nobody reads must
    not stop the work. A line that cannot be written at once is dropped. When lines can be written again, the first
    one says how many were dropped. A line never exceeds `MAX_LINE_BYTES`.
    """

    level: LogLevel
    format: LogFormat
    fd: int = 2
    name: str = "master"
    clock: Callable[[], float] = time.time
    outlet: Outlet = field(default_factory=Outlet, compare=False, repr=False)

    def child(self, name: str) -> Log:
        """The same log with the name of another process."""
        return replace(self, name=name)

    def debug(self, message: str, /, **fields: object) -> None:
        self._write(LogLevel.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._write(LogLevel.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._write(LogLevel.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._write(LogLevel.ERROR, message, fields)

    def write(self, level: LogLevel, message: str, /, **fields: object) -> None:
        self._write(level, message, fields)

    def _write(self, level: LogLevel, message: str, fields: dict[str, object]) -> None:
        if level >= self.level:
            self.outlet.write(self.fd, self._line(level, message, fields), self._dropped)

    def _dropped(self, lines: int) -> bytes:
        message = "lines of this process were dropped: they could not be written at once"
        return self._line(LogLevel.WARNING, message, {"dropped": lines})

    def _line(self, level: LogLevel, message: str, fields: dict[str, object]) -> bytes:
        line_of = console_line if self.format is LogFormat.CONSOLE else json_line
        return line_of(
            _timestamp(self.clock()),
            level,
            self.name,
            message[:MAX_LINE_BYTES],
            {key: _shortened(_scalar(value), MAX_LINE_BYTES) for key, value in fields.items()},
        )


def console_line(at: str, level: LogLevel, process: str, message: str, fields: dict[str, Scalar]) -> bytes:
    """`2026-11-24T21:31:16.123Z INFO  worker 3: run 1842 succeeded attempt=1 seconds=0.123` and a newline."""
    head = f"{at} {_CONSOLE_LEVEL[level]} {printable(process)}: {printable(message)}"
    words = [f" {printable(key)}={_console_value(value)}" for key, value in fields.items()]
    line = (head + "".join(words)).encode()
    if len(line) >= MAX_LINE_BYTES:
        cut = _CUT.encode()
        line = line[: MAX_LINE_BYTES - 1 - len(cut)].decode(errors="ignore").encode() + cut
    return line + b"\n"


def json_line(at: str, level: LogLevel, process: str, message: str, fields: dict[str, Scalar]) -> bytes:
    """One JSON object with time, level, process, message and the fields, in ASCII, and a newline.

    A field with the name of one of the four gets an underscore appended. If an event is too long, its longest
    strings are cut, so that the line stays valid JSON.
    """
    event: dict[str, Scalar] = {
        "time": at,
        "level": level.name.lower(),
        "process": process,
        "message": message,
    }
    head = dict(event)
    for key, value in fields.items():
        event[f"{key}_" if key in head else key] = value
    line = _encode(event)
    max_chars = MAX_LINE_BYTES
    while len(line) > MAX_LINE_BYTES and max_chars > 16:
        max_chars //= 2
        line = _encode({key: _shortened(value, max_chars) for key, value in event.items()})
    if len(line) > MAX_LINE_BYTES:  # too many fields, or too long names: shorter values do not help
        line = _encode(
            {key: _shortened(value, 256) for key, value in head.items()} | {"fields_dropped": True}
        )
    return line


def _encode(event: dict[str, Scalar]) -> bytes:
    # Plain ASCII: json escapes every control character, line separator and lone surrogate (`ensure_ascii`).
    return json.dumps(event).encode() + b"\n"


def _shortened(value: Scalar, max_chars: int) -> Scalar:
    return value[:max_chars] + _CUT if isinstance(value, str) and len(value) > max_chars else value


def _console_value(value: Scalar) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if value and value.isprintable() and not any(char in value for char in " =\"'\\"):
        return value
    return '"' + printable(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _scalar(value: object) -> Scalar:
    """A value that JSON can hold: a number that JSON lacks, or any other object, becomes text."""
    if isinstance(value, enum.Enum):
        value = value.value
    try:
        match value:
            case None | bool():
                return value
            case int():
                str(value)  # it raises from 4,300 digits on: better here than in json.dumps
                return int(value)
            case float():
                return float(value) if math.isfinite(value) else str(value)
            case _:
                return str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:  # a foreign __str__ failed; the line must be written even so
        return f"<{type(value).__name__} without a text>"


def _timestamp(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
