"""The fixtures that every other test relies on."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.postgres.databases import MIGRATIONS, new_database
from tests.support.postgres.servers import Server

TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"


def test_the_server_is_one_that_is_supported(server: Server) -> None:
    assert int(server.version.split(".")[0]) >= 14


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_its_own_database(turn: int, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute("CREATE TABLE only_here ()")  # the second turn would fail in the same database


def test_a_new_database_has_the_schema_of_the_migrations(
    database_url: str, empty_database_url: str, private_server: EmbeddedPostgres
) -> None:
    def tables(url: str) -> list[tuple[str]]:
        with psycopg.connect(url) as connection:
            return connection.execute(TABLES).fetchall()

    assert tables(database_url) == tables(private_server.url)
    assert tables(empty_database_url) == []
    assert bool(tables(database_url)) == MIGRATIONS.is_dir()


def test_a_database_is_dropped_even_while_somebody_uses_it(server: Server) -> None:
    with new_database(server.url) as url:
        left_open = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        left_open.execute("SELECT 1")
    left_open.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)
