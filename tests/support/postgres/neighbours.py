"""Logins of the same database that mean no good: what they can send, and what they can lock."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from tests.support.postgres.databases import as_login
from tests.support.waiting import wait_until

FLOOD = """
import sys, psycopg
url, channel, payload, sent = sys.argv[1:]
statement = f"select pg_notify('{channel}', {payload}) from generate_series(1, 2000) g"
with psycopg.connect(url, autocommit=True) as connection:
    while True:
        connection.execute(statement)
        with open(sent, 'a') as file:
            file.write('x')
"""


@contextlib.contextmanager
def flood(
    database_url: str, directory: Path, channel: str, payload: str = "'default' || g", processes: int = 2
) -> Iterator[None]:
    """Notifications without end, by logins that may do no more than enqueue. `payload`: an expression with g."""
    url = as_login(database_url, "producer")
    paths = [directory / f"flood-{number}" for number in range(processes)]
    floods = [
        subprocess.Popen([sys.executable, "-c", FLOOD, url, channel, payload, str(path)]) for path in paths
    ]
    try:
        wait_until(lambda: all(path.exists() for path in paths), 20, "the flood")
        yield
    finally:
        for process in floods:
            process.kill()
            process.wait()


TABLES = ("task_runs", "reproq_workers", "reproq_waiters", "reproq_specs", "reproq_schema_migrations")
MODES = (
    "access exclusive",
    "exclusive",
    "share row exclusive",
    "share",
    "share update exclusive",
    "row exclusive",
    "row share",
    "access share",
)
STRENGTHS = ("update", "no key update", "share", "key share")
ADVISORY_LOCKS = (
    "select pg_advisory_lock(7238251, hashtext('default'))",
    "select pg_advisory_lock(7238251, hashtext(''))",
    "select pg_advisory_lock(7238251986031521)",
)


@contextlib.contextmanager
def every_lock(database_url: str, roles: Sequence[str]) -> Iterator[list[str]]:
    """All the locks that members of these roles can have, taken and kept; gives what was taken."""
    statements = [f"lock table {table} in {mode} mode" for table in TABLES for mode in MODES]
    statements += [f"select from {table} for {strength}" for table in TABLES for strength in STRENGTHS]
    taken: list[str] = []
    with contextlib.ExitStack() as stack:
        for role in roles:
            login = psycopg.connect(as_login(database_url, role))
            stack.callback(login.close)
            for statement in (*statements, *(ADVISORY_LOCKS if role == roles[0] else ())):
                try:
                    login.execute("savepoint before")
                    login.execute(statement.encode())
                except psycopg.errors.InsufficientPrivilege:
                    login.execute("rollback to savepoint before")
                else:
                    taken.append(f"{role}: {statement}")
        yield taken
