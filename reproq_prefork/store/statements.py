"""The SQL files, read once: `statement("look")` is the text of `sql/steward/look.sql`.

The folders of `sql` say who sends a statement; no two files have the same name. `{{name}}` in a statement is
replaced by `sql/parts/name.sql`: a list of columns, or a condition, that several statements share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

_PART = re.compile(r"\{\{(\w+)\}\}")
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


@cache
def statement(name: str) -> str:
    """The text of one statement, with psycopg's named placeholders.

    Comment lines are left out: the server would parse them at each call of an unprepared statement, and a percent
    sign in a comment would be read as a placeholder.
    """
    return _PART.sub(lambda part: _text(part[1]), _text(name))


def read_statements() -> None:
    """Read all of them now, for processes that are forked later."""
    for name in _files():
        statement(name)


@cache
def _files() -> Mapping[str, Traversable]:
    folders = [each for each in files("reproq_prefork.store").joinpath("sql").iterdir() if each.is_dir()]
    return {
        file.name.removesuffix(".sql"): file
        for folder in folders
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }


def _text(name: str) -> str:
    text = _files()[name].read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


@cache
def numbered(name: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with the server's own placeholders ($1, $2, …), and the names for them, in that order.

    psycopg parses a statement of more than 4 KiB at each call, to find its named placeholders.
    """
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return _PLACEHOLDER.sub(number, statement(name)).replace("%%", "%").encode(), tuple(names)
