"""The servers of a run: one PostgreSQL for us and all peers, and a Redis for those that need one.

Both with their default durability. A throw-away PostgreSQL turns fsync off by itself, so here it is turned on;
nothing else of its configuration is set.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from benchmarks.children import running
from benchmarks.waiting import wait_until
from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.store.migrate import migrate
from reproq_prefork.store.migration_files import known_migrations

SETTINGS = {"fsync": "on"}
REDIS = "redis-server"
REDIS_PORTS = range(56_100, 56_200)
START_DEADLINE_S = 10.0


def postgres() -> EmbeddedPostgres:
    return EmbeddedPostgres(settings=SETTINGS)


def version_of(url: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.info.parameter_status("server_version") or "unknown"


def new_database(server_url: str, name: str) -> str:
    """An empty database, in place of one of that name; gives its URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        identifier = sql.Identifier(name)
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(identifier))
        connection.execute(sql.SQL("create database {}").format(identifier))
    head, _, _ = server_url.rpartition("/")
    return f"{head}/{name}"


def new_queue(server_url: str, name: str) -> str:
    """A database with our schema."""
    url = new_database(server_url, name)
    migrate(url, known_migrations())
    return url


def drop_database(server_url: str, name: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def pg_environ(url: str) -> dict[str, str]:
    """The variables by which libpq's own programs find what `url` names; no password stands on a command line."""
    parts = conninfo_to_dict(url)
    return {
        "PGHOST": str(parts["host"]),
        "PGPORT": str(parts["port"]),
        "PGUSER": str(parts["user"]),
        "PGPASSWORD": str(parts["password"]),
        "PGDATABASE": str(parts["dbname"]),
    }


def redis_version() -> str | None:
    """None: there is no Redis on this machine."""
    if shutil.which(REDIS) is None:
        return None
    shown = subprocess.run([REDIS, "--version"], check=True, capture_output=True, text=True).stdout
    return next((word.removeprefix("v=") for word in shown.split() if word.startswith("v=")), "unknown")


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    """A Redis with its default configuration (snapshots from time to time, no append-only file); gives its URL."""
    port = next(port for port in REDIS_PORTS if _is_free(port))
    directory.mkdir(parents=True, exist_ok=True)
    command = [REDIS, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory)]
    with running(command, cwd=directory, environ={}, log=directory / "log"):
        wait_until(lambda: not _is_free(port), "the start of Redis", deadline_s=START_DEADLINE_S)
        yield f"redis://127.0.0.1:{port}/0"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
