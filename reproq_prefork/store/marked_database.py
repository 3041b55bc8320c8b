"""Do other connections lead to the same database as ours? This asks the servers, and does not compare addresses.

Two addresses of one database may differ in every word (a pooler, another role, another name of the server), and
two equal ones may lead to different schemas.
"""

from __future__ import annotations

import enum
import secrets
from collections.abc import Mapping
from contextlib import closing

from reproq_prefork.errors import DatabaseUnavailable, ReproqError
from reproq_prefork.store.connection import connect
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.outcomes import translated_errors
from reproq_prefork.store.sender import Fetch
from reproq_prefork.store.statements import statement

NUMBERS = 2**31  # each half of the lock's number is a positive integer of four bytes


class Where(enum.Enum):
    """Where a connection leads, as seen from the marked database."""

    SAME = "the same database"
    OTHER_SCHEMA = "another schema of the same database"
    OTHER_DATABASE = "another database"


def where_they_lead(database_url: str, others: Mapping[str, Fetch]) -> dict[str, Where | Exception]:
    """Where each of `others` leads, compared with `database_url`; an exception if it could not be asked.

    Each of `others` sends the statement of the given name on its connection. Raises DatabaseUnavailable.
    """
    numbers = {"first": secrets.randbelow(NUMBERS), "second": secrets.randbelow(NUMBERS)}
    with closing(connect(database_url, application_name="reproq-prefork check")) as connection:
        info = connection.info
        try:
            with translated_errors(), connection.transaction():
                (mark,) = fetch(connection, statement("mark_database"), numbers)
                return {name: _where(other, numbers, mark.task_runs) for name, other in others.items()}
        except ReproqError as error:
            raise DatabaseUnavailable(f"{info.dbname} at {info.host}:{info.port}", str(error)) from error


def _where(other: Fetch, numbers: Mapping[str, int], task_runs: int | None) -> Where | Exception:
    try:
        (row,) = other("finds_mark", numbers)
    except Exception as error:
        return error
    if not row.is_marked:
        return Where.OTHER_DATABASE
    return Where.SAME if row.task_runs == task_runs else Where.OTHER_SCHEMA
