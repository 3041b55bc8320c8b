"""Times of the database, from its text to values of Python.

A timestamptz may be infinite, of a year BC or of the year 294276. A datetime may not, and every driver has its own
error for that. So statements give times as JSON writes them (ISO 8601, whatever the session's DateStyle is), and
this module reads them. It never raises for what a server sends.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self

# The times that a run may have: those that every time zone can show. The CHECKs of the table have the same limits.
EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)


class OutOfRange(datetime):
    """A time before the year 2 or after the year 9998, as the nearest datetime of these years in UTC.

    It compares and subtracts as that datetime. `text` is the time itself, as the server wrote it: `infinity`,
    `4000-01-01T00:00:00+00:00 BC`. So is what str() and isoformat() give.
    """

    text: str = ""

    @classmethod
    def of(cls, text: str, *, is_early: bool) -> Self:
        """The value of a text that says a time before, or after, all that a datetime here may be."""
        end = EARLIEST if is_early else LATEST
        clock = end.hour, end.minute, end.second, end.microsecond
        time = cls(end.year, end.month, end.day, *clock, tzinfo=UTC)
        time.text = text
        return time

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})" if self.text else super().__repr__()

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        return self.text or super().isoformat(sep, timespec)

    def __str__(self) -> str:
        return self.text or super().__str__()


def read_moment(text: str) -> datetime:
    """The time of the text, with the offset of the server's session; an OutOfRange where no datetime has it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return OutOfRange.of(text, is_early=text.endswith("BC") or text.startswith("-"))
    return moment if EARLIEST <= moment <= LATEST else OutOfRange.of(text, is_early=moment < EARLIEST)
