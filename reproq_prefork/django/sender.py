"""Sends the store's statements on Django's own connection.

They use Django's own cursors, so they are in its transactions, its query log and its error classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, tzinfo
from typing import Any, TypeVar

import psycopg
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.connection import ConnectionProxy

from reproq_prefork.store.odd_sessions import fetch_binary, writes_iso
from reproq_prefork.store.psycopg_senders import copy_runs
from reproq_prefork.store.refused_callers import refusal
from reproq_prefork.store.script import Script, play
from reproq_prefork.store.sender import Session, named_rows
from reproq_prefork.store.statements import statement

T = TypeVar("T")

# Parameters that Django passes to psycopg, and that a connection which only listens does not need.
_DJANGOS_OWN = ("context", "cursor_factory", "prepare_threshold", "server_side_binding")


class DjangoSender:
    """Sends on Django's connection `alias`. See `store.sender.Sender`."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @property
    def zone(self) -> tzinfo | None:
        zone: tzinfo | None = connections[self.alias].timezone
        return zone

    def fetch(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        connection = connections[self.alias]
        if connection.vendor != "postgresql":
            raise ImproperlyConfigured(
                f'Tasks are kept in PostgreSQL, and DATABASES["{self.alias}"] is {connection.display_name}: name'
                ' another database in OPTIONS["database"] of the TASKS backend.'
            )
        with connection.cursor() as cursor:
            if isinstance(connection.connection, psycopg.Connection) and not writes_iso(
                connection.connection
            ):
                with connection.wrap_database_errors:
                    rows = fetch_binary(connection.connection, statement(name), parameters)
                return [_with_djangos_times(row, connection.timezone) for row in rows]
            cursor.execute(statement(name), parameters)
            return named_rows(cursor) if cursor.description else ()

    def all_or_nothing(self) -> AbstractContextManager[object]:
        return transaction.atomic(using=self.alias)

    def copy(self, rows: Iterable[tuple[Any, ...]]) -> None:
        connection = self.psycopg_connection()
        assert connection is not None
        copy_runs(connection, rows)

    def psycopg_connection(self) -> psycopg.Connection[Any] | None:
        connection = connections[self.alias]
        connection.ensure_connection()
        return connection.connection if isinstance(connection.connection, psycopg.Connection) else None

    def connection_parameters(self) -> Mapping[str, Any]:
        given = connections[self.alias].get_connection_params()
        return {name: value for name, value in given.items() if name not in _DJANGOS_OWN}


def send(call: str, given: Any, make_script: Callable[[Session], Script[T]]) -> T:
    """For `store.callers`: play a script on a connection of Django, the argument of `enqueue` and others."""
    alias = _alias_of(call, given)
    if isinstance(given, BaseDatabaseWrapper) and connections[alias] is not given:
        raise refusal(call, given, "it belongs to another thread, so give it the connection of this one")
    sender = DjangoSender(alias)
    with connections[alias].wrap_database_errors:  # a COPY does not use a cursor of Django
        return play(sender, make_script(sender))


async def asend(call: str, given: Any, make_script: Callable[[Session], Script[T]]) -> T:
    """The same, in the thread in which Django's own async methods use their connections: in one go, so that nobody
    else gets into its transaction."""
    alias = _alias_of(call, given)
    in_thread = sync_to_async(send, thread_sensitive=True)
    return await in_thread(call, ConnectionProxy(connections, alias), make_script)


def _alias_of(call: str, given: Any) -> str:
    if not isinstance(given, ConnectionProxy | BaseDatabaseWrapper):
        raise refusal(call, given, f"of Django it takes a connection, {call}(django.db.connection, …)")
    if given.vendor != "postgresql":
        raise refusal(
            call, given, f"it leads to {given.display_name}, so give it the one of a PostgreSQL database"
        )
    return str(given.alias)


def _with_djangos_times(row: Any, zone: tzinfo | None) -> Any:
    """The row with its times in the form of Django's own cursors: in its zone, or (`zone` None) without one."""
    times = {name: value for name, value in row._asdict().items() if isinstance(value, datetime)}
    if zone is None:
        return row._replace(**{name: value.replace(tzinfo=None) for name, value in times.items()})
    return row._replace(**{name: value.astimezone(zone) for name, value in times.items()})
