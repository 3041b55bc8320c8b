"""Is a database a copy of another one? The runs of a copy must not be executed until somebody adopts it.

A logical copy (a restored dump, `create database … template`) is recognised by what `reproq_database` says of the
original: the server's system identifier and the oid of the database. A physical copy (a snapshot of the whole
server, a promoted replica) cannot be told from the original. The migration `copies` has the rules.
"""

from __future__ import annotations

from typing import Any

import psycopg

from reproq_prefork.errors import DatabaseIsCopy, DatabaseUnavailable, ReproqError
from reproq_prefork.store.connection import ORDINARY_LIMITS, TimeLimits, connect
from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.opening import GoesOn, always
from reproq_prefork.store.statements import statement


def connect_unless_copy(
    database_url: str,
    *,
    application_name: str,
    limits: TimeLimits = ORDINARY_LIMITS,
    system: int | None = None,
    goes_on: GoesOn = always,
) -> DeadlineConnection:
    """As `connect`. Raises `DatabaseUnavailable`, which includes `DatabaseIsCopy`."""
    connection = connect(
        database_url, application_name=application_name, limits=limits, system=system, goes_on=goes_on
    )
    address = _address(connection)
    try:
        refuse_copy(connection)
    except DatabaseUnavailable:
        connection.close()
        raise
    except ReproqError as error:
        connection.close()
        raise DatabaseUnavailable(address, str(error)) from error
    return connection


def refuse_copy(connection: psycopg.Connection[Any]) -> None:
    """Raises DatabaseIsCopy if nobody has adopted the copy yet, and what `fetch` raises."""
    copy = copy_of(connection)
    if copy is not None:
        raise copy


def copy_of(connection: psycopg.Connection[Any]) -> DatabaseIsCopy | None:
    """The error for a copy that nobody has adopted; None: this is not one. Raises what `fetch` raises."""
    notes = fetch(connection, statement("foreign_notes"), {})
    if not notes:
        return None
    note = notes[0]
    return DatabaseIsCopy(
        _address(connection),
        _described(note.database_name, note.database_oid, note.system_identifier),
        _described(note.this_name, note.this_oid, note.this_system),
    )


def _address(connection: psycopg.Connection[Any]) -> str:
    info = connection.info
    return f"{info.dbname} at {info.host}:{info.port}"


def _described(name: str, oid: int, system_identifier: int | None) -> str:
    server = "" if system_identifier is None else f" of server {system_identifier}"
    return f"the database {name} (oid {oid}{server})"
