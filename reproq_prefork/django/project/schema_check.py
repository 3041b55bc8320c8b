"""Is the schema the one that this release needs, is the database a copy? Only where Django checks databases."""

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
    """Warnings, no errors: `manage.py migrate` itself does this check first, and stops at an error.

    Of what it is about to do itself it is not told at all: that would be the first that a new user sees.
    """
    is_migrating = sys.argv[1:2] == ["migrate"]
    return [] if is_migrating else list(_check_schema(databases or ()))


def _check_schema(databases: Collection[str]) -> Iterator[CheckMessage]:
    # These import psycopg, which may be missing: then another check says so.
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
        f"Run `manage.py migrate reproq_prefork{option}`. If it has nothing to do there, it ran before OPTIONS "
        f'named "{alias}": run `manage.py migrate reproq_prefork zero --fake{option}` first.'
    )
