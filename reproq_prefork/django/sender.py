"""The store's statements, sent on the connections that Django has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from django.db import connections, transaction

from reproq_prefork.store.statements import statement
from reproq_prefork.store.task_runs import named_rows


class DjangoSender:
    """Sends the statements of the store on Django's connection, and so in its transaction."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def fetch(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(statement(name), parameters)
            return named_rows(cursor)

    def all_or_nothing(self) -> AbstractContextManager[object]:
        return transaction.atomic(using=self.alias)

    def psycopg_connection(self) -> psycopg.Connection[Any] | None:
        connection = connections[self.alias]
        connection.ensure_connection()
        return connection.connection if isinstance(connection.connection, psycopg.Connection) else None
