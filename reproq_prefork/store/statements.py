"""The SQL files, read once: `statement("claim")` is the text of `sql/claim.sql`.

Where `{{name}}` stands in a statement, `sql/parts/name.sql` is put: a list of columns that several of them have.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_PART = re.compile(r"\{\{(\w+)\}\}")
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


@cache
def statement(name: str) -> str:
    """The text of one statement, with psycopg's named placeholders.

    Comment lines are left out: the server would parse them at each call where nothing is prepared, and a
    percent sign in prose would be taken for a placeholder.
    """
    return _PART.sub(lambda part: _text("sql", "parts", f"{part[1]}.sql"), _text("sql", f"{name}.sql"))


def _text(*path: str) -> str:
    text = files("reproq_prefork").joinpath(*path).read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


@cache
def numbered(name: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with the server's own placeholders ($1, $2, …), and the names for them, in that order.

    psycopg reads a statement of more than 4 KiB anew at each call, to find its named placeholders.
    """
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _PLACEHOLDER.sub(number, statement(name)).replace("%%", "%").encode(), tuple(names)
