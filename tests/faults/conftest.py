"""One supervisor for tests that only put runs into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres.databases import new_database
from tests.support.postgres.servers import Server
from tests.support.supervisor.supervisor import Connection, Supervisor


@pytest.fixture(scope="module")
def shared_database_url(server: Server, template_url: str) -> Iterator[str]:
    with new_database(server.url, template_url) as url:
        yield url


@pytest.fixture(scope="module")
def shared_supervisor(
    shared_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Supervisor]:
    directory: Path = tmp_path_factory.mktemp("supervisor")
    with Supervisor(shared_database_url, directory, workers=2) as supervisor:
        yield supervisor


@pytest.fixture(scope="module")
def shared_connection(shared_database_url: str) -> Iterator[Connection]:
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        yield connection
