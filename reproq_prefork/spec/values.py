"""Parsed JSON as the values that Python programs expect: floats, if a float has the number's value."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

from reproq_prefork.spec.number import decompose
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import MAX_DEPTH

EXPONENT_FROM = 10**21


# What a plain parser could read wrongly: a number with more digits than every float keeps, an exponent; and, found
# faster as words, a negative zero, an escape that may be half a character, and words that are not JSON.
_DOUBTFUL_NUMBER = re.compile(r"\d(?:[eE]|[\d.]{16})")
_DOUBTFUL_WORDS = ("-0", "\\u", "NaN", "Infinity")
_SCAN = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # `json.loads` without its handling of blanks


def parse_values(text: str) -> Any:
    """`with_floats(parse_json(text))` for text that jsonb has written (no key is in it twice), mostly faster.

    Raises SpecError.
    """
    if _is_plain(text):
        try:
            value, end = _SCAN(text, 0)
            if end == len(text):
                return value
        except (StopIteration, ValueError):
            pass
    return with_floats(parse_json(text))


def _is_plain(text: str) -> bool:
    for word in _DOUBTFUL_WORDS:
        if word in text:
            return False
    return (
        len(text) <= 2 * MAX_DEPTH or text.count("[") + text.count("{") <= MAX_DEPTH
    ) and _DOUBTFUL_NUMBER.search(text) is None


def with_floats(value: Any) -> Any:
    """The result of `parse_json`, as the value was before it was written.

    A number is a float if the shortest form of a float has its value, else a Decimal. A whole number is an int.
    But from 1e21 on (where JavaScript shows an exponent too) it is a float if one has its value: jsonb writes
    1e300 in full digits, and numbers that large are more often floats than integers.
    """
    match value:
        case dict():
            return {key: with_floats(member) for key, member in value.items()}
        case list():
            return [with_floats(item) for item in value]
        case bool():
            return value
        case int() if abs(value) < EXPONENT_FROM:
            return value
        case int() | Decimal():
            return _float_or_exact(value)
        case _:
            return value


def _float_or_exact(number: int | Decimal) -> int | float | Decimal:
    try:
        nearest = float(number)
    except OverflowError:
        return number
    if math.isfinite(nearest) and decompose(repr(nearest)) == decompose(str(number)):
        return nearest
    return number
