"""Parsed JSON as the values that Python programs expect: floats where a float has the number's value."""

from __future__ import annotations

import contextlib
import json
import math
import re
from decimal import Decimal
from typing import Any

from reproq_prefork.json_number import decompose
from reproq_prefork.json_rules import MAX_DEPTH
from reproq_prefork.strict_json import parse_json

EXPONENT_FROM = 10**21


# What a plain reading could get wrong: a number with more digits than every float keeps, an exponent, a negative
# zero, an escaped character that may be half a one, and what is no JSON.
_DOUBTFUL = re.compile(r"[\d.]{17}|\d[eE]|-0|\\u|NaN|Infinity")


def parse_values(text: str) -> Any:
    """`with_floats(parse_json(text))` of what jsonb has written (so no key is there twice), most of it faster.

    Raises SpecError.
    """
    if _DOUBTFUL.search(text) is None and text.count("[") + text.count("{") <= MAX_DEPTH:
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return with_floats(parse_json(text))


def with_floats(value: Any) -> Any:
    """What `parse_json` gave, as it was before it was written.

    A number is a float where the shortest form of a float has its value, else a Decimal. A whole number is an
    int, but from 1e21 on, where JavaScript shows an exponent too, it is a float where one has its value: jsonb
    writes 1e300 in full digits, and more floats are so large than integers.
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
