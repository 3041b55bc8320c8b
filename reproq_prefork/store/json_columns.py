"""Reads a jsonb column as Python values that have the same hash as the text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import MAX_DEPTH, SpecError
from reproq_prefork.spec.values import with_floats

_LONG_NUMBER = re.compile("[0-9]{16}")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class UnreadableJson:
    """JSON that another program stored and that a spec may not hold: its text, and the reason."""

    text: str = ""
    why: str = ""


def is_small_number(value: object) -> TypeGuard[int | float]:
    """Whether it is safe to calculate with it: not a number of hundreds of digits, which a float cannot hold."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def read_json(text: str) -> Any:
    """The value of a jsonb column's text, or UnreadableJson. Its `spec_hash` is that of the text.

    The value equals what was enqueued; `spec.values.with_floats` says what type its numbers have. Canonical JSON
    may be read too: like jsonb, it has no duplicate keys.
    """
    try:
        if _is_plain(text):
            value, end = _PLAIN.scan_once(text, 0)  # type: ignore[attr-defined]
            if end == len(text):
                return value
    except (_Doubt, StopIteration, ValueError, RecursionError):
        pass
    return _exactly(text)


def _exactly(text: str) -> Any:
    try:
        return with_floats(parse_json(text))
    except SpecError as error:
        return UnreadableJson(text, str(error))


class _Doubt(Exception):
    """The text holds something that the C scanner alone may read differently than `parse_json`."""


def _is_plain(text: str) -> bool:
    """Whether the C scanner reads it as `parse_json` does. Nearly all text is so; five times as fast."""
    return (
        "\\u" not in text
        and (len(text) <= 2 * MAX_DEPTH or text.count("[") + text.count("{") <= MAX_DEPTH)
        and _LONG_NUMBER.search(text) is None
        and (text.isascii() or _SURROGATE.search(text) is None)
    )


def _doubt(_: str) -> NoReturn:
    raise _Doubt


def _real(literal: str) -> Any:
    return with_floats(parse_json(literal))


_PLAIN = json.JSONDecoder(parse_float=_real, parse_constant=_doubt)
