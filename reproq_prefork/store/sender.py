"""How a statement is sent: this separates what is asked from the connection that is used."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import tzinfo
from functools import cache
from typing import Any, Protocol

import psycopg

# `Sender.fetch` alone, for code that needs no more: the name of a statement and its parameters in, its rows
# out.
Fetch = Callable[[str, Mapping[str, Any]], Sequence[Any]]


class Session(Protocol):
    """A connection that belongs to the caller. Nothing here is asked of the server."""

    @property
    def zone(self) -> tzinfo | None:
        """The time zone in which this connection returns times; None: without a zone, in the session's time."""

    def psycopg_connection(self) -> psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None:
        """The same connection for a COPY; None: it does not belong to psycopg 3."""

    def connection_parameters(self) -> Mapping[str, Any]:
        """Those of psycopg for one more connection to the same database, with its password."""


class Sender(Session, Protocol):
    """Sends statements on a session, and waits for their answers."""

    def fetch(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        """Send `statements.statement(name)`, which has placeholders like %(run_id)s and returns rows. Returns all
        rows, with columns as attributes (`named_rows`)."""

    def all_or_nothing(self) -> AbstractContextManager[object]:
        """What is sent inside takes effect as a whole: a transaction, or a savepoint inside the caller's."""

    def copy(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Send rows with `copy_runs`, inside `all_or_nothing`, if there is a `psycopg_connection`."""


class AsyncSender(Session, Protocol):
    """A `Sender` for asyncio."""

    async def fetch(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]: ...

    def all_or_nothing(self) -> AbstractAsyncContextManager[object]: ...

    async def copy(self, rows: Iterable[tuple[Any, ...]]) -> None: ...


def named_rows(cursor: Any) -> list[Any]:
    """All rows of a DB-API cursor, with columns as attributes."""
    row_of = _row_type(tuple(column[0] for column in cursor.description))._make
    return [row_of(row) for row in cursor.fetchall()]


@cache
def _row_type(columns: tuple[str, ...]) -> Any:
    return namedtuple("Row", columns)
