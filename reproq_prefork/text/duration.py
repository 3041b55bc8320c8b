"""Durations as people write them: `500ms`, `30s`, `2m`, `1h30m`, `7d`, or plain seconds."""

from __future__ import annotations

import re
from decimal import Decimal

from reproq_prefork.text.printable import quoted

MAX_DURATION_S = 3650 * 86_400.0

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_PLAIN_SECONDS = re.compile(_NUMBER)
_SECONDS_IN = {
    "d": Decimal(86_400),
    "h": Decimal(3_600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
# Largest unit first, each at most once: `30m1h` is probably a mistake.
_PARTS = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _SECONDS_IN))


def parse_duration(text: str) -> float:
    """The seconds that `text` means, from 0 to `MAX_DURATION_S`. The message of its ValueError is a sentence."""
    stripped = text.strip()
    if _PLAIN_SECONDS.fullmatch(stripped):
        seconds = Decimal(stripped)
    else:
        parts = _PARTS.fullmatch(stripped)
        if not stripped or not parts:
            raise ValueError(
                f"{quoted(text)} is not a duration; "
                "give one such as 500ms, 30s, 2m, 1h30m, 7d, or plain seconds"
            )
        seconds = sum(
            (Decimal(number) * _SECONDS_IN[unit] for unit, number in parts.groupdict("0").items()), Decimal(0)
        )
    if seconds > MAX_DURATION_S:
        raise ValueError(f"{quoted(text)} is too long; the limit is {format_duration(MAX_DURATION_S)}")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The shortest text for it; `parse_duration` returns exactly `seconds` for that text.

    A negative number, or one too long for parse_duration, is shown as plain seconds: a row may hold it.
    """
    if not 0 <= seconds <= MAX_DURATION_S:
        return f"{seconds:g}s"
    exact = Decimal(repr(float(seconds)))
    if 0 < exact < 1 and exact * 1000 % 1 == 0:
        return f"{int(exact * 1000)}ms"
    text = ""
    for unit in ("d", "h", "m"):
        count, exact = divmod(exact, _SECONDS_IN[unit])
        text += f"{count:f}{unit}" if count else ""
    return text + (f"{exact.normalize():f}s" if exact or not text else "")
