"""Canonical JSON: RFC 8785 (JCS), extended to everything that PostgreSQL and Python can hold."""

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from reproq_prefork.spec.number import number_text
from reproq_prefork.spec.rules import MAX_DEPTH, Path, SpecError, check_string, refusal, too_deep

_PLAIN = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False, allow_nan=False
)
_PLAIN_SCALARS = frozenset({str, bool, type(None)})
_PLAIN_INT_LIMIT = 2**53
_NOT_PLAIN_CHARACTERS = re.compile("[\ud800-\udfff\U00010000-\U0010ffff]")


def canonical_json(value: object) -> str:
    """The one text for `value`: no spaces, keys by UTF-16 code unit, numbers by value (`number_text`).

    Takes None, bool, int, float, Decimal, str, list, tuple (an array), dict, and subclasses of them. The text can
    always be encoded as UTF-8. Raises SpecError, with the path, for a value that JSON cannot write or jsonb cannot
    keep: `docs/spec-hash.md` has the list.
    """
    try:
        return _plain_text(value) or _text(value)
    except RecursionError:
        # Made without further calls: there is little stack left.
        raise SpecError(
            "$", "Python's stack is too full to walk through it; enqueue from less deep"
        ) from None


def is_plain(value: object) -> bool:
    """Whether it consists of None and plain bool, str, int below 2**53, list, tuple, and dict with str keys."""
    return _is_plain([value], 0)


def _plain_text(value: object) -> str | None:
    """The text of a document on which the C encoder and RFC 8785 agree; None if they may differ."""
    if not is_plain(value):
        return None
    text = _PLAIN.encode(value)
    # One search of the text serves all strings. It may find a harmless `\\u0000`, or an emoji in a value, although
    # only keys matter: then the slow path gives the same text, only later.
    if "\\u0000" in text or (not text.isascii() and _NOT_PLAIN_CHARACTERS.search(text)):
        return None
    return text


def _is_plain(container: Iterable[Any], depth: int) -> bool:
    # Exact types only: a subclass may have its own repr.
    members = container
    if isinstance(container, dict):
        for key in container:
            if type(key) is not str:
                return False
        members = container.values()
    for member in members:
        kind = type(member)
        if kind in _PLAIN_SCALARS:
            continue
        if kind is int:
            if not -_PLAIN_INT_LIMIT < member < _PLAIN_INT_LIMIT:
                return False
        elif kind is dict or kind is list or kind is tuple:
            if depth == MAX_DEPTH or not _is_plain(member, depth + 1):
                return False
        else:
            return False
    return True


def _text(value: object) -> str:
    out: list[str] = []
    _write(value, (), out)
    return "".join(out)


def _write(value: object, path: Path, out: list[str]) -> None:
    if value is None or isinstance(value, bool):
        out.append("null" if value is None else "true" if value else "false")
    elif isinstance(value, str):
        check_string(value, path)
        out.append(_PLAIN.encode(value))
    elif isinstance(value, (int, float, Decimal)):
        out.append(number_text(value, path))
    elif isinstance(value, (list, tuple)):
        _write_array(value, path, out)
    elif isinstance(value, dict):
        _write_object(value, path, out)
    else:
        raise refusal(path, f"a {_type_name(value)} has no form in JSON; send a string, number, list or dict")


def _write_array(items: list[object] | tuple[object, ...], path: Path, out: list[str]) -> None:
    if len(path) >= MAX_DEPTH:
        raise too_deep(path)
    separator = "["
    for index, item in enumerate(items):
        out.append(separator)
        _write(item, (*path, index), out)
        separator = ","
    out.append("]" if items else "[]")


def _write_object(members: dict[object, object], path: Path, out: list[str]) -> None:
    if len(path) >= MAX_DEPTH:
        raise too_deep(path)
    separator = "{"
    for key in sorted(_checked_keys(members, path), key=_utf_16_code_units):
        out.append(f"{separator}{_PLAIN.encode(key)}:")
        _write(members[key], (*path, key), out)
        separator = ","
    out.append("}" if members else "{}")


def _checked_keys(members: dict[object, object], path: Path) -> list[str]:
    keys = []
    for key in members:
        if not isinstance(key, str):
            raise refusal(path, f"a key is of type {_type_name(key)}; JSON has only strings as keys")
        check_string(key, (*path, key))
        keys.append(key)
    return keys


def _type_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _utf_16_code_units(key: str) -> bytes:
    # Big-endian bytes sort as the code units do. Code points do not (U+FB33 comes after U+1F600 here).
    return key.encode("utf-16-be")
