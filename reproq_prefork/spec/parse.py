"""Reads JSON exactly: no number is rounded, and nothing is dropped or repaired without an error.

`json.loads` alone turns `1e999` into infinity, keeps the last of two equal keys, accepts `NaN`, returns lone
surrogates, and raises RecursionError (not a ValueError) on deep nesting. Its C scanner still does the work. This
module adds the refusals, and computes a path only after something was refused.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NoReturn, cast

from reproq_prefork.spec.number import decompose, written_digits
from reproq_prefork.spec.rules import (
    MAX_DEPTH,
    MAX_DIGITS,
    Json,
    Path,
    SpecError,
    Step,
    check_string,
    refusal,
    too_deep,
    too_long,
)

_DOUBTFUL_ESCAPE = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Possessive, and with an optional last quote: an unclosed string must not be scanned again from each quote in it.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{},:]', re.DOTALL)


def parse_json(text: str | bytes) -> Json:
    """The value of a JSON text: dict, list, str, bool, None, int, and Decimal for all other numbers.

    Time and memory are bounded by the size of `text`, which the caller has limited. Raises SpecError, and nothing
    else, for text that is not JSON (bytes must be UTF-8) or holds more than a spec may. The error has the path of
    the wrong value, or `$` if the text as a whole cannot be read.
    """
    try:
        return _parsed(text if isinstance(text, str) else _decoded(text))
    except RecursionError:
        # Made without further calls: there is little stack left.
        raise SpecError("$", "Python's stack is too full to read it; parse from less deep") from None


def _parsed(text: str) -> Json:
    try:
        try:
            value = _STRICT.decode(text)
        except _Refused:
            value = _MARKING.decode(text)
            _check_values(value)
    except json.JSONDecodeError as error:
        why = f"not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        raise refusal((), why) from None
    except RecursionError:
        _refuse_deepest(text)
        raise
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        _refuse_deepest(text)
    if _may_hold_bad_strings(text):
        _check_values(value)
    return cast(Json, value)


class _Refused(Exception):
    """The hooks of the strict decoder raise it; those of the marking one put it in the place of the value."""

    def __init__(self, error: Callable[[Path], SpecError], below: Path = ()) -> None:
        super().__init__()
        self.error = error
        self.below = below


def _decoder(refuse: Callable[[_Refused], object]) -> json.JSONDecoder:
    def whole(literal: str) -> object:
        if len(literal) - literal.startswith("-") > MAX_DIGITS:
            return refuse(_Refused(too_long))
        return int(literal)

    def real(literal: str) -> object:
        digits, point = decompose(literal)
        if written_digits(digits, point) > MAX_DIGITS:
            return refuse(_Refused(too_long))
        # A zero may have an exponent that Decimal cannot hold.
        return Decimal(literal) if digits else Decimal(0)

    def constant(name: str) -> object:
        return refuse(_Refused(lambda path: refusal(path, f"{name} is not JSON; send null or a string")))

    def members(pairs: list[tuple[str, object]]) -> object:
        unique = dict(pairs)
        if len(unique) == len(pairs):
            return unique
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return refuse(_Refused(lambda path: refusal(path, "the key is there more than once"), (twice,)))

    return json.JSONDecoder(
        parse_int=whole, parse_float=real, parse_constant=constant, object_pairs_hook=members
    )


def _raise(refused: _Refused) -> NoReturn:
    raise refused


def _mark(refused: _Refused) -> object:
    return refused


_STRICT = _decoder(_raise)
_MARKING = _decoder(_mark)


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal((), f"not UTF-8: {error.reason} at byte {error.start}") from None


def _may_hold_bad_strings(text: str) -> bool:
    if "\\u" in text and _DOUBTFUL_ESCAPE.search(text):
        return True
    return not text.isascii() and _SURROGATE.search(text) is not None


def _check_values(root: object) -> None:
    """Raise the error of the first refused value, in the order of the document."""
    pending: list[tuple[Path, object]] = [((), root)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, _Refused):
            raise value.error((*path, *value.below))
        if isinstance(value, str):
            check_string(value, path)
        elif isinstance(value, list):
            pending.extend(((*path, index), item) for index, item in reversed(list(enumerate(value))))
        elif isinstance(value, dict):
            for key in value:
                check_string(key, (*path, key))
            pending.extend(((*path, key), item) for key, item in reversed(value.items()))


def _is_too_deep(value: object) -> bool:
    # Level by level: a parsed value is a tree, so this visits each member once, and does not recurse.
    containers: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        members = (each.values() if isinstance(each, dict) else each for each in containers)
        containers = [each for inner in members for each in inner if isinstance(each, (dict, list))]
    return bool(containers)


def _refuse_deepest(text: str) -> None:
    """Raise SpecError at the first array or object that is too deep. It reads the text, so it cannot recurse."""
    path: list[Step] = []
    string = ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in ("[", "{"):
            if len(path) == MAX_DEPTH:
                raise too_deep(tuple(map(_unquoted, path)))
            path.append(0 if token == "[" else "")
        elif token in ("]", "}"):
            # The parser refuses a text that closes more than it opens.
            del path[-1:]
        elif token == ":" and path:
            path[-1] = string
        elif token == "," and path and isinstance(path[-1], int):
            path[-1] += 1
        else:
            string = token


def _unquoted(step: Step) -> Step:
    try:
        return step if isinstance(step, int) else str(json.loads(step))
    except ValueError:
        return step
