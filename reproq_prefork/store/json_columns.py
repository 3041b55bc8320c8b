"""What a jsonb column holds, as Python values that hash to the same name."""

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
    """JSON that another program stored and that is more than a spec may hold: its text, and why."""

    text: str = ""
    why: str = ""


def is_small_number(value: object) -> TypeGuard[int | float]:
    """Whether it can be reckoned with: no number of hundreds of digits, which no float has."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def read_json(text: str) -> Any:
    """The value of a jsonb column's text, or UnreadableJson; `spec_hash` of it is that of the text.

    Equal to what was enqueued; of its numbers, `json_values.with_floats` says what they are. Canonical JSON may be
    read with it too: like jsonb, it has no key twice.
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
    """It holds what the C scanner alone does not read as `parse_json` does."""


def _is_plain(text: str) -> bool:
    """Whether the C scanner reads it as `parse_json` does: nearly all there is, and five times as fast."""
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
