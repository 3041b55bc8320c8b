"""Is the schema the one that this release needs? Is the database a copy? Only when Django checks databases."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import Any

from django.core.checks import CheckMessage, Warning
from django.db import connections

from reproq_prefork.django.project.database import own_aliases
from reproq_prefork.errors import SchemaMismatch


def check_schema(
    app_configs: object, databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Warnings, no errors: `manage.py migrate` runs this check first, and stops at an error.

    `migrate` gets no warnings: they would be about its own next steps, and the first thing that a new user sees.
    """
    is_migrating = sys.argv[1:2] == ["migrate"]
    return [] if is_migrating else list(_check_schema(databases or ()))


def _check_schema(databases: Collection[str]) -> Iterator[CheckMessage]:
    # These import psycopg. If it is missing, another check says so.
    from reproq_prefork.django.sender import DjangoSender
    from reproq_prefork.store import migrate
    from reproq_prefork.store.copies import copy_of

    for alias in own_aliases():
        if alias not in databases or connections[alias].vendor != "postgresql":
            continue
        try:
            connection = DjangoSender(alias).psycopg_connection()
            if connection is not None:
                migrate.check_schema(connection)
                copy = copy_of(connection)
                if copy is not None:
                    said = str(copy).replace("reproq-prefork adopt", "manage.py reproq_worker adopt")
                    yield Warning(said, id="reproq_prefork.W005")
        except SchemaMismatch as mismatch:
            said = str(mismatch).replace(" Run `reproq-prefork migrate`.", "")
            yield Warning(said, hint=_hint(alias), id="reproq_prefork.W004")


def _hint(alias: str) -> str:
    option = "" if alias == "default" else f" --database {alias}"
    return (
        f"Run `manage.py migrate reproq_prefork{option}`. If that has nothing to do, it ran before OPTIONS "
        f'named "{alias}": run `manage.py migrate reproq_prefork zero --fake{option}` first.'
    )
