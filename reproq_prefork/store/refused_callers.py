"""The sentence for an object that is not a connection on which we can send."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import psycopg

_OTHER_DRIVERS = ("aiopg", "asyncpg", "pg8000", "psycopg2", "psycopg2cffi")


def refusal(call: str, given: object, right: str | None = None) -> TypeError:
    """`call`: the function that was called. `right`: what to do instead, if the caller of this knows it.

    The sentence names the type of the object, and never shows the object: a URL may hold a password.
    """
    name = _name_of_type(given.__class__)
    article = "an" if name[0].lower() in "aeiou" else "a"
    return TypeError(f"{call}() cannot use {article} {name}: {right or _right_call(call, given)}.")


def counterpart(call: str) -> str:
    """The function that does the same for the other kind of connections."""
    special: Mapping[str, str] = {"wait": "await_", "await_": "wait"}
    return special.get(call) or (call.removeprefix("a") if is_async(call) else f"a{call}")


def is_async(call: str) -> bool:
    return call.startswith("a")


def other_kind(call: str) -> str:
    """What to do with a connection for asyncio in a blocking call, and the other way round."""
    if is_async(call):
        return f"it blocks, so call {counterpart(call)}(connection, …) without await"
    return f"it is for asyncio, so call `await {counterpart(call)}(connection, …)`"


def _right_call(call: str, given: object) -> str:
    if isinstance(given, psycopg.Connection | psycopg.AsyncConnection):
        return other_kind(call)
    if isinstance(given, psycopg.Cursor | psycopg.AsyncCursor):
        return f"give it the connection of the cursor, {call}(cursor.connection, …)"
    if given.__class__.__module__.partition(".")[0] in _OTHER_DRIVERS:
        of_psycopg = f"{call}(connection, …) with a connection of {_opened_by(call)}"
        return (
            f"only psycopg 3 is supported, so call {of_psycopg}, "
            "or use the SQL function reproq_enqueue() on yours"
        )
    if isinstance(given, Coroutine):
        return f"await it first, and call {call}(connection, …) with what it returns"
    if isinstance(given, AbstractContextManager | AbstractAsyncContextManager):
        entered = "async with" if is_async(call) else "with"
        return f"enter it first, `{entered} … as connection`, and call {call}(connection, …) inside"
    if isinstance(given, str | bytes):
        return f"open a connection first, and call {call}(connection, …) with that of {_opened_by(call)}"
    return f"the first argument is the database connection, {call}(connection, …)"


def _opened_by(call: str) -> str:
    return "`await psycopg.AsyncConnection.connect(…)`" if is_async(call) else "`psycopg.connect(…)`"


def _name_of_type(kind: type) -> str:
    package = kind.__module__.partition(".")[0]
    return kind.__qualname__ if package == "builtins" else f"{package}.{kind.__qualname__}"
