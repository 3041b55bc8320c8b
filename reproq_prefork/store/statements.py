"""The SQL files, read once: `statement("claim")` is the text of `sql/claim.sql`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> str:
    """The text of one statement, with psycopg's named placeholders.

    Comment lines are left out: the server would parse them at each call where nothing is prepared, and a
    percent sign in prose would be taken for a placeholder.
    """
    text = files("reproq_prefork").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
