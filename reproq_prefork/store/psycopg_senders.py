"""Sends on a psycopg connection of the caller, in its transaction and without changing it.

Nothing here commits, rolls back or changes a setting of the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import tzinfo
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row

from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.odd_sessions import fetch_binary, fetch_binary_async, writes_iso
from reproq_prefork.store.statements import statement


class PsycopgSender:
    """Sends on a psycopg connection. See `sender.Sender`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @property
    def zone(self) -> tzinfo:
        return self._connection.info.timezone

    def fetch(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        if isinstance(self._connection, DeadlineConnection) and self._connection.first is not None:
            # A command's own connection, behind a pooler.
            return fetch(self._connection, statement(name), parameters)
        if not writes_iso(self._connection):
            return fetch_binary(self._connection, statement(name), parameters)
        # A cursor of our own: the connection's cursor factory may use other placeholders.
        with psycopg.Cursor(self._connection, row_factory=namedtuple_row) as cursor:
            return cursor.execute(statement(name), parameters).fetchall()

    def all_or_nothing(self) -> AbstractContextManager[object]:
        if _has_to_begin(self._connection):
            self.fetch("backend_pid", {})
        return self._connection.transaction()

    def copy(self, rows: Iterable[tuple[Any, ...]]) -> None:
        copy_runs(self._connection, rows)

    def psycopg_connection(self) -> psycopg.Connection[Any]:
        return self._connection

    def connection_parameters(self) -> Mapping[str, Any]:
        return _parameters(self._connection)


class AsyncPsycopgSender:
    """Sends on a psycopg AsyncConnection. See `sender.AsyncSender`."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    @property
    def zone(self) -> tzinfo:
        return self._connection.info.timezone

    async def fetch(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        if not writes_iso(self._connection):
            return await fetch_binary_async(self._connection, statement(name), parameters)
        async with psycopg.AsyncCursor(self._connection, row_factory=namedtuple_row) as cursor:
            await cursor.execute(statement(name), parameters)
            return await cursor.fetchall()

    @asynccontextmanager
    async def all_or_nothing(self) -> AsyncIterator[None]:
        if _has_to_begin(self._connection):
            await self.fetch("backend_pid", {})
        async with self._connection.transaction():
            yield

    async def copy(self, rows: Iterable[tuple[Any, ...]]) -> None:
        async with (
            psycopg.AsyncCursor(self._connection) as cursor,
            cursor.copy(statement("copy_runs")) as copy,
        ):
            for row in rows:
                await copy.write_row(row)

    def psycopg_connection(self) -> psycopg.AsyncConnection[Any]:
        return self._connection

    def connection_parameters(self) -> Mapping[str, Any]:
        return _parameters(self._connection)


def copy_runs(connection: psycopg.Connection[Any], rows: Iterable[tuple[Any, ...]]) -> None:
    with psycopg.Cursor(connection) as cursor, cursor.copy(statement("copy_runs")) as copy:
        for row in rows:
            copy.write_row(row)


def _has_to_begin(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Whether the caller's transaction has to be begun, by any statement, before `transaction` is used. Otherwise
    `transaction` would begin one and commit it."""
    return not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE


def _parameters(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> Mapping[str, Any]:
    password = {"password": connection.info.password} if connection.info.password else {}
    return {**connection.info.get_parameters(), **password}
