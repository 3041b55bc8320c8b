"""What a jsonb column holds, as Python values that hash to the same name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from reproq_prefork.json_number import decompose
from reproq_prefork.json_rules import SpecError
from reproq_prefork.strict_json import parse_json

EXPONENT_FROM = 10**21


@dataclass(frozen=True, slots=True)
class UnreadableJson:
    """JSON that another program stored and that is more than a spec may hold: its text, and why."""

    text: str = ""
    why: str = ""


def read_json(text: str) -> Any:
    """The value of a jsonb column's text, or UnreadableJson; `spec_hash` of it is that of the text.

    Equal to what was enqueued: a number is a float where the shortest form of a float has its value, else a
    Decimal. A whole number is an int, but from 1e21 on, where JavaScript shows an exponent too, it is a float
    where one has its value: jsonb writes 1e300 in full digits, and more floats are so large than integers.
    """
    try:
        return _with_floats(parse_json(text))
    except SpecError as error:
        return UnreadableJson(text, str(error))


def _with_floats(value: Any) -> Any:
    match value:
        case dict():
            return {key: _with_floats(member) for key, member in value.items()}
        case list():
            return [_with_floats(item) for item in value]
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
