"""What the demo shows: lines, and a progress bar that is redrawn in place (without a terminal, four lines)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, Self, TextIO

import click

WIDTH = 78
TIME_WIDTH = 8
MAX_BAR = 36
QUARTERS = 4


class Screen:
    """Writes to `stream`. Colours only on a terminal, and not if NO_COLOR is set (https://no-color.org)."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str]) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty() and environ.get("TERM") != "dumb"
        self._has_colors = self._is_terminal and not environ.get("NO_COLOR")
        self._blocks = "█░" if _can_write(stream, "█░") else "#-"
        self._bar = ""  # what the terminal's last line shows of it
        self._quarters_told = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_progress()  # so that the next output, such as an error, begins on a new line

    def line(self, text: str = "", *, took_s: float | None = None, bold: bool = False, fg: str = "") -> None:
        """A line of text, above the bar, with `took_s` at its end."""
        bar, self._bar = self._bar, ""
        shown = self._styled(text, bold=bold or None, fg=fg or None) if bold or fg else text
        if took_s is not None:
            shown += " " * (WIDTH - TIME_WIDTH - len(text)) + self._styled(f"{took_s:6.2f} s", dim=True)
        self._write((_ERASE_LINE if bar else "") + shown + "\n")
        if bar:
            self._draw(bar)

    def progress(self, done: int, total: int, per_second: float) -> None:
        """The bar; or, if lines cannot be redrawn, one line at each quarter."""
        if self._is_terminal:
            self._draw(self._bar_of(done, total, per_second))
            return
        quarters = QUARTERS * done // total
        if quarters > self._quarters_told:
            self._quarters_told = quarters
            self.line(f"  {100 * done // total:3} %  {_counts(done, total, per_second)}")

    def end_progress(self) -> None:
        """Leave the bar as it is."""
        if self._bar:
            self._bar = ""
            self._write("\n")
        self._quarters_told = 0

    def _draw(self, bar: str) -> None:
        self._write(_ERASE_LINE + bar)
        self._bar = bar

    def _bar_of(self, done: int, total: int, per_second: float) -> str:
        counts = _counts(done, total, per_second)
        # The last column stays free: otherwise a terminal would wrap, and the line could not be redrawn.
        width = min(MAX_BAR, shutil.get_terminal_size().columns - len(counts) - 5)
        if width < QUARTERS:
            return f"  {counts}"
        full = width * done // total
        return f"  {self._styled(self._blocks[0] * full, fg='green')}{self._blocks[1] * (width - full)}  {counts}"

    def _styled(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self._has_colors else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


_ERASE_LINE = "\r\x1b[K"


def _counts(done: int, total: int, per_second: float) -> str:
    return f"{done:{len(str(total))}}/{total} tasks" + (f"  {per_second:3.0f}/s" if done else "")


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
