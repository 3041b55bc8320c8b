"""What a page shows of a run, as text. Others wrote it, so this module bounds it and makes it printable.

The templates escape it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import dateformat, timezone

from reproq_prefork.model.run import omitted_entries
from reproq_prefork.model.stored_values import OutOfRange
from reproq_prefork.spec import canonical_json
from reproq_prefork.store.json_columns import UnreadableJson, is_small_number
from reproq_prefork.text.printable import printable

MAX_SHOWN_CHARS = 100_000
MAX_ATTEMPTS_SHOWN = 20

INDENT = "  "


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text of many lines, for a <pre>."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """An entry of `errors`."""

    title: str
    kind: str
    message: str
    facts: tuple[Fact, ...]
    texts: tuple[Text, ...]


def attempts(errors: tuple[Any, ...]) -> list[ShownAttempt]:
    """The last attempts, newest first."""
    kept = [entry for entry in errors if omitted_entries(entry) is None]
    return [_attempt(entry) for entry in reversed(kept[-MAX_ATTEMPTS_SHOWN:])]


def number_of_attempts(errors: tuple[Any, ...]) -> int:
    """Includes the attempts that are left out."""
    return sum(1 if omitted is None else omitted for omitted in map(omitted_entries, errors))


_HEAD = ("attempt", "kind", "exception", "message")
_FACTS = {
    "worker": "worker",
    "started_at": "started",
    "ended_at": "ended",
    "exit": "exit",
    "cpu_seconds": "CPU time",
    "peak_rss_kib": "peak memory",
}
_TEXTS = ("traceback", "stderr", "output")


def _attempt(entry: Any) -> ShownAttempt:
    if not isinstance(entry, Mapping):
        return ShownAttempt("Error", "", "", (), (Text("error", pretty_json(entry)),))
    message = ": ".join(
        _plain(entry[name]) for name in ("exception", "message") if entry.get(name) is not None
    )
    number = entry.get("attempt")
    others = sorted(name for name in entry if name not in (*_HEAD, *_FACTS, *_TEXTS))
    return ShownAttempt(
        title="Before any attempt" if number is None else f"Attempt {_plain(number)}",
        kind=_plain(entry.get("kind", "failed")).replace("_", " "),
        message=message,
        facts=tuple(usage(entry)),
        texts=tuple(
            Text(printable(name), _plain(entry[name]))
            for name in (*_TEXTS, *others)
            if entry.get(name) is not None
        ),
    )


def usage(entry: Any) -> Iterator[Fact]:
    """The facts about an attempt that have short values."""
    if not isinstance(entry, Mapping):
        return
    for name, label in _FACTS.items():
        value = entry.get(name)
        if value is not None:
            yield Fact(label, _measured(name, value))


def _measured(name: str, value: Any) -> str:
    is_number = is_small_number(value)
    if is_number and name == "cpu_seconds":
        return f"{value:.3g} s"
    if is_number and name == "peak_rss_kib":
        return f"{value / 1024:,.0f} MiB"
    return _plain(value)


def _plain(value: Any) -> str:
    return bounded(value) if isinstance(value, str) else pretty_json(value)


def pretty_json(value: Any) -> str:
    """Indented, with every number as it is stored."""
    if isinstance(value, UnreadableJson):
        return bounded(value.text)
    return bounded("".join(_pieces(value, "\n")))


def _pieces(value: Any, line: str) -> Iterator[str]:
    match value:
        case dict() if value:
            members = [(f"{canonical_json(key)}: ", member) for key, member in value.items()]
            yield from _bracketed("{", members, "}", line)
        case list() if value:
            yield from _bracketed("[", [("", item) for item in value], "]", line)
        case _:
            yield canonical_json(value)


def _bracketed(opening: str, members: list[tuple[str, Any]], closing: str, line: str) -> Iterator[str]:
    yield opening
    for number, (name, member) in enumerate(members):
        yield f"{',' if number else ''}{line}{INDENT}{name}"
        yield from _pieces(member, line + INDENT)
    yield f"{line}{closing}"


def bounded(text: str) -> str:
    """`text` with its line breaks, but without other characters that could disturb the text around it."""
    left_out = len(text) - MAX_SHOWN_CHARS
    lines = [printable(line.expandtabs(4)) for line in text[:MAX_SHOWN_CHARS].split("\n")]
    return "\n".join(lines) + (f"\n… and {left_out:,} characters more" if left_out > 0 else "")


def short_duration(duration: timedelta) -> str:
    """A short form: `12 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`, `3 d 4 h`."""
    seconds = max(0.0, duration.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for (unit, size), (smaller, smaller_size) in _UNITS:
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


_UNITS = (
    (("d", 86_400), ("h", 3_600)),
    (("h", 3_600), ("min", 60)),
    (("min", 60), ("s", 1)),
)


def shown_time(moment: datetime) -> str:
    """In the current time zone, with microseconds. A time that no datetime can hold is as the server wrote it."""
    if isinstance(moment, OutOfRange):
        return moment.text
    local = timezone.localtime(moment) if timezone.is_aware(moment) else moment
    return dateformat.format(local, "Y-m-d H:i:s.u")


def since(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else short_duration(now - moment)
