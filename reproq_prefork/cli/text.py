"""How values look on a terminal, and how they are read from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import click

from reproq_prefork.text.duration import format_duration, parse_duration
from reproq_prefork.text.printable import printable, quoted

_WHOLE_NUMBER = re.compile("[+-]?[0-9]{1,30}")


class RunId(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """The id of a run. An id that no run can have is accepted: a later step finds that there is no such run."""

    name = "ID"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        if not _WHOLE_NUMBER.fullmatch(text):
            self.fail(f"{quoted(text)} is not the id of a run; give a whole number.", param, ctx)
        return int(text)


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Seconds, as `parse_duration` reads them."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return value if isinstance(value, float) else parse_duration(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class DurationWithUnit(Duration):
    """The same, but a number without a unit is refused: probably a mistake, and it ends or deletes runs."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        text = str(value).strip()
        if not isinstance(value, float) and not text[-1:].isalpha():
            units = f"{text}d (days), {text}h (hours), {text}m (minutes) or {text}s (seconds)"
            self.fail(f"{quoted(text)} has no unit; write {units}.", param, ctx)
        return seconds


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A time in ISO 8601, or a duration from now."""

    name = "TIME|DURATION"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime | timedelta:
        text = str(value).strip()
        try:
            return timedelta(seconds=parse_duration(text))
        except ValueError:
            pass
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            wanted = "a time such as 2026-11-24T21:31:16Z nor a duration such as 10m"
            self.fail(f"{quoted(text)} is neither {wanted}.", param, ctx)
        if at.utcoffset() is None:
            self.fail(
                f"{quoted(text)} has no time zone; add Z for UTC, or an offset such as +01:00.", param, ctx
            )
        return at


def table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """Lines with aligned columns. `numbers`: all columns but the first are aligned right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  ".join(
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def how_many(number: int, what: str) -> str:
    """`1 run`, `600,000 runs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def rough_duration(seconds: float) -> str:
    """A short form of a duration: `1.2s`, `3m 5s`, `2d 4h`."""
    if seconds < 0:
        return f"-{rough_duration(-seconds)}"
    if seconds < 10:
        return f"{seconds:.1f}s"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def moment(at: datetime) -> str:
    """In the time zone of the server's session, with milliseconds."""
    return at.isoformat(sep=" ", timespec="milliseconds")


def indented(text: str, mark: str = "  ") -> list[str]:
    """The lines of any text, printable and indented."""
    return [f"{mark}{printable(line.expandtabs(4))}".rstrip() for line in text.splitlines()]


def show_timeout(seconds: float | None) -> str:
    match seconds:
        case None:
            return "the worker's"
        case 0:
            return "none"
        case _:
            return format_duration(seconds)
