"""Reads times and lists of the database from text into Python values.

A timestamptz may be infinite, in a year BC, or in the year 294276. A datetime may not, and each driver has its own
error for that. So statements return times as JSON writes them (ISO 8601, whatever the session's DateStyle is), and
this module reads them. It never raises for text that a server sends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, Self

# The times that a run may have: every time zone can show them. The CHECKs of the table have the same limits.
EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
_ONLY_STRINGS = {str}


class OutOfRange(datetime):
    """A time before the year 2 or after the year 9998, held as the nearest datetime of these years in UTC.

    It compares and subtracts as that datetime. `text` is the real time, as the server wrote it: `infinity`,
    `4000-01-01T00:00:00+00:00 BC`. str() and isoformat() return that text too.
    """

    text: str = ""

    @classmethod
    def of(cls, text: str, *, is_early: bool) -> Self:
        """The value of a text whose time is before, or after, all that a datetime may be here."""
        end = EARLIEST if is_early else LATEST
        clock = end.hour, end.minute, end.second, end.microsecond
        time = cls(end.year, end.month, end.day, *clock, tzinfo=UTC)
        time.text = text
        return time

    def without_zone(self) -> Self:
        naive = self.replace(tzinfo=None)
        naive.text = self.text
        return naive

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})" if self.text else super().__repr__()

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        return self.text or super().isoformat(sep, timespec)

    def __str__(self) -> str:
        return self.text or super().__str__()


def read_moment(text: str) -> datetime:
    """The time of the text, with the offset of the server's session; an OutOfRange if no datetime can hold it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return OutOfRange.of(text, is_early=text.endswith("BC") or text.startswith("-"))
    return moment if EARLIEST <= moment <= LATEST else OutOfRange.of(text, is_early=moment < EARLIEST)


def in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    """The same moment in this time zone; None: without a zone, with the clock time that it has."""
    if isinstance(moment, OutOfRange):
        return moment if zone is not None else moment.without_zone()
    return moment.replace(tzinfo=None) if zone is None else moment.astimezone(zone)


def read_texts(text: str | None) -> tuple[str, ...] | None:
    """The strings in a JSON array, at any depth, without nulls."""
    return None if text is None else tuple(_texts(json.loads(text)))


def texts_of(array: Any) -> tuple[str, ...]:
    """The same for the array itself. Mostly it is a flat list of strings, and a worker reads one a run."""
    if type(array) is list and set(map(type, array)) <= _ONLY_STRINGS:
        return tuple(array)
    return tuple(_texts(array))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for member in value:
            yield from _texts(member)
    elif value is not None:
        yield str(value)
