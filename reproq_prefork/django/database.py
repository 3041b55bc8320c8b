"""Which of Django's databases holds the tasks, and the connection that Django has to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections, router

from reproq_prefork.django.tasks_setting import own_entries

if TYPE_CHECKING:
    from psycopg import Connection


def database_alias(options: Mapping[str, Any]) -> str:
    """The alias for a backend with these `OPTIONS`: `database` there, else what the routers say, else the default.

    Needs the models to be loaded. That there is such a database is not looked at.
    """
    named = options.get("database")
    return str(named) if named else str(router.db_for_write(apps.get_model("reproq_prefork", "TaskRun")))


def own_aliases() -> tuple[str, ...]:
    """The aliases of all our backends in `TASKS`, in that order; without any, that of one without options."""
    found = [database_alias(entry.options) for entry in own_entries()] or [database_alias({})]
    return tuple(dict.fromkeys(found))


def own_alias() -> str:
    """The first of them: what the models and the admin read."""
    return own_aliases()[0]


@contextlib.contextmanager
def psycopg_connection(alias: str = DEFAULT_DB_ALIAS) -> Iterator[Connection[Any]]:
    """Django's connection to that database, as psycopg's own, in the transaction that Django has open there.

    Errors of psycopg come out as Django's.
    """
    django_connection = connections[alias]
    with django_connection.wrap_database_errors:
        django_connection.ensure_connection()
        yield django_connection.connection
