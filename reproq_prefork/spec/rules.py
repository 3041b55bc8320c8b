"""What a spec may hold: JSON that Python, PostgreSQL and every other reader understand in the same way.

The parser (`parse`) and the writer (`canonical`) have the same rules, so that neither accepts what the other would
refuse. Design: `docs/spec-hash.md`.
"""

import json
import re
from decimal import Decimal
from typing import TypeAlias

from reproq_prefork.errors import ReproqError

Json: TypeAlias = (
    "bool | int | float | Decimal | str | list[Json] | tuple[Json, ...] | dict[str, Json] | None"
)
"""A JSON value. `parse_json` makes no floats and no tuples; `canonical_json` accepts both."""

Step: TypeAlias = str | int
Path: TypeAlias = tuple[Step, ...]
"""The keys and indexes that lead from the root to a value; `()` is the root."""

MAX_DEPTH = 100
"""The nesting of arrays and objects. Python's own stack fails at some hundreds."""

MAX_DIGITS = 400
"""Digits of a number without an exponent. Doubles need at most 325. jsonb would accept 147,455, and return all of
them for the eight characters of `1e131071`."""

_MAX_KEY_SHOWN = 60
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class SpecError(ReproqError, ValueError):
    """A value cannot be a spec. `path` says where it is (`args[0].name`, `$` for the root)."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path = path
        self.why = why

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def refusal(path: Path, why: str) -> SpecError:
    """The error for the value at `path`."""
    return SpecError(path_text(path), why)


def path_text(path: Path) -> str:
    r"""`path` as a person would write it. A quoted key is always in ASCII.

    >>> path_text(("args", 0, "name")), path_text(()), path_text((0, "a b", "\x00"))
    ('args[0].name', '$', '[0]["a b"]["\\u0000"]')
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier() and len(step) <= _MAX_KEY_SHOWN:
            text += f".{step}" if text else step
        else:
            shown = step if len(step) <= _MAX_KEY_SHOWN else step[:_MAX_KEY_SHOWN] + "..."
            text += f"[{json.dumps(shown)}]"
    return text or "$"


def check_string(text: str, path: Path) -> None:
    """Raise SpecError if jsonb cannot hold `text`, a string or a key at `path`."""
    if text.isascii() and "\x00" not in text:
        return
    found = _UNSTORABLE.search(text)
    if found is None:
        return
    if found[0] == "\x00":
        raise refusal(path, "U+0000 cannot be stored in PostgreSQL; remove it, or send the text as base64")
    raise refusal(
        path, f"the lone surrogate U+{ord(found[0]):04X} is half a character and has no UTF-8; mend the text"
    )


def too_deep(path: Path) -> SpecError:
    """The error for an array or object at `path` that is nested too deep."""
    return refusal(path, f"more than {MAX_DEPTH} arrays and objects are inside one another; flatten it")


def too_long(path: Path) -> SpecError:
    """The error for a number at `path` with too many digits."""
    return refusal(path, f"the number has more than {MAX_DIGITS} digits when written out; send a string")
