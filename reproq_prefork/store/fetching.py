"""Sends a statement on one of our connections and reads its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import RowFactory, namedtuple_row, tuple_row

from reproq_prefork.store.deadline import DeadlineConnection, FirstStatements
from reproq_prefork.store.odd_sessions import fetch_binary, writes_iso
from reproq_prefork.store.outcomes import translated_errors
from reproq_prefork.store.row_by_row import all_rows
from reproq_prefork.store.statements import numbered, statement


def fetch(
    connection: psycopg.Connection[Any], statement: str, parameters: Mapping[str, Any]
) -> Sequence[Any]:
    """Run one statement and fetch all its rows, as named tuples. Errors are translated. Any connection will do."""
    if isinstance(connection, DeadlineConnection) and connection.first is not None:
        return _fetch_after(connection, connection.first, statement, parameters, namedtuple_row, _rows_of)
    if not isinstance(connection, DeadlineConnection) and not writes_iso(connection):
        with translated_errors():
            return fetch_binary(connection, statement, parameters)
    # A cursor of our own: a foreign connection may make cursors with other rows and other placeholders.
    with translated_errors(), psycopg.Cursor(connection, row_factory=namedtuple_row) as cursor:
        cursor.execute(statement, parameters)
        return _rows_of(cursor)


def fetch_tuples(
    connection: DeadlineConnection, name: str, parameters: Mapping[str, Any]
) -> Sequence[tuple[Any, ...]]:
    """Run the statement `name` as fast as possible and fetch all its rows. It must return at least one.

    Returns a RowByRow if a value cannot be read.
    """
    if connection.first is not None:
        return _fetch_after(connection, connection.first, statement(name), parameters, tuple_row, all_rows)
    text, names = numbered(name)
    with translated_errors(), psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        return all_rows(cursor.execute(text, [parameters[each] for each in names]))


def _fetch_after(
    connection: DeadlineConnection,
    first: FirstStatements,
    statement: str,
    parameters: Mapping[str, Any],
    row_factory: RowFactory[Any],
    read: Callable[[psycopg.Cursor[Any]], Sequence[Any]],
) -> Sequence[Any]:
    """All in one message of the simple protocol: its statements are one transaction, in one server process."""
    text = f"{first.text};\n{statement}".encode()
    with translated_errors(), psycopg.ClientCursor(connection, row_factory=row_factory) as cursor:
        cursor.execute(text, parameters)
        for _ in range(first.count):
            cursor.nextset()
        return read(cursor)


def _rows_of(cursor: psycopg.Cursor[Any]) -> Sequence[Any]:
    # Not `description`: it makes an object for each column.
    has_rows = cursor.pgresult is not None and cursor.pgresult.nfields > 0
    return cursor.fetchall() if has_rows else ()
