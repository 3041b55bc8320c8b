"""The canonical text of a number: one text for one value, in whatever form the number came.

A value is held as its significant digits and the position of the point. `digits` has no zeros at either end;
`digits` and `point` mean 0.digits * 10**point; zero is `("", 0)`. No exponent is written out before the length of
the result is known.
"""

import math
from decimal import Decimal

from reproq_prefork.spec.rules import MAX_DIGITS, Path, refusal, too_long

_INT_LIMIT = 10**MAX_DIGITS
_MAX_EXPONENT_DIGITS = 15
"""No input is long enough to balance a larger exponent, and the decimal module can hold this one."""


def number_text(value: int | float | Decimal, path: Path) -> str:
    """RFC 8785's form if the nearest double has the same value, otherwise all the digits.

    ECMAScript (Number::toString) writes an exponent only from 1e21 up and from 1e-7 down. So in between, both
    forms are the plain digits. A float means the decimal number of its shortest form, since JSON would carry that:
    0.1 is one tenth.

    Raises SpecError, with `path`, for NaN, infinities and more than MAX_DIGITS digits.
    """
    literal = _literal(value, path)
    digits, point = decompose(literal)
    if not digits:
        return "0"
    if written_digits(digits, point) > MAX_DIGITS:
        raise too_long(path)
    sign = "-" if literal.startswith("-") else ""
    if -6 < point <= 21 or not _is_shortest_of_a_double(digits, point):
        return sign + _written_out(digits, point)
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def decompose(literal: str) -> tuple[str, int]:
    """`(digits, point)` of a number as JSON, `repr` or `Decimal` write it; the sign is dropped.

    An exponent that no computer could write out is reduced to one that is still far above MAX_DIGITS.

    >>> decompose("-12.50"), decompose("1E+22"), decompose("0.0"), decompose("0.001")
    (('125', 2), ('1', 23), ('', 0), ('1', -2))
    """
    mantissa, _, exponent = literal.lstrip("-").lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) - (len(whole) + len(fraction) - len(digits))
    digits = digits.rstrip("0")
    return (digits, point + _exponent(exponent)) if digits else ("", 0)


def written_digits(digits: str, point: int) -> int:
    """How many digits the number has without an exponent."""
    return max(point, 1) + max(len(digits) - point, 0)


def _literal(value: int | float | Decimal, path: Path) -> str:
    # The base type's own method: a subclass (an IntEnum, numpy's float64) may have another repr.
    if isinstance(value, int):
        if not -_INT_LIMIT < value < _INT_LIMIT:
            raise too_long(path)
        return int.__repr__(value)
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise refusal(path, "NaN and infinities have no form in JSON; send null or a string")
    return float.__repr__(value) if isinstance(value, float) else Decimal.__str__(value)


def _exponent(text: str) -> int:
    size = text.lstrip("+-").lstrip("0")
    if len(size) > _MAX_EXPONENT_DIGITS:
        size = "9" * _MAX_EXPONENT_DIGITS
    return -int(size or "0") if text.startswith("-") else int(size or "0")


def _is_shortest_of_a_double(digits: str, point: int) -> bool:
    # Python's repr and ECMAScript agree on the digits: the fewest that read back, and the nearest of those.
    nearest = float(f"0.{digits}e{point}")
    return math.isfinite(nearest) and decompose(repr(nearest)) == (digits, point)


def _written_out(digits: str, point: int) -> str:
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"
