"""A database that cannot hold every text is refused before anything is written there, with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from tests.support.postgres.databases import apply_migrations
from tests.support.postgres.servers import Server
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import TASK_PROGRAM, add_run


@pytest.fixture(params=["SQL_ASCII", "LATIN1", "EUC_JP"])
def narrow(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[str, str]]:
    """An encoding, and the URL of a database that has it."""
    encoding = str(request.param)
    name = sql.Identifier(f"reproq_test_narrow_{encoding.lower()}")
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        connection.execute(
            sql.SQL("create database {} encoding {} template template0 locale 'C'").format(
                name, sql.Literal(encoding)
            )
        )
        try:
            yield encoding, urlsplit(server.url)._replace(path=f"/{name.as_string()[1:-1]}").geturl()
        finally:
            connection.execute(sql.SQL("drop database {} with (force)").format(name))


# Python cannot read EUC_TW, and the server cannot make UTF8 of MULE_INTERNAL.
@pytest.mark.parametrize("narrow", ["SQL_ASCII", "LATIN1", "EUC_TW", "MULE_INTERNAL"], indirect=True)
def test_migrate_and_check_refuse_an_encoding_that_cannot_hold_all_text(
    narrow: tuple[str, str], tmp_path: Path
) -> None:
    encoding, url = narrow
    command = CommandLine(tmp_path, url)
    said = command.run("migrate", status=6).stderr
    if encoding == "MULE_INTERNAL":
        assert "conversion between UTF8 and MULE_INTERNAL is not supported" in said
        return
    assert f"its encoding is {encoding}, and UTF8 is needed" in said
    assert "create a database with ENCODING 'UTF8' TEMPLATE template0" in said
    checked = command.run("check", environ={"EXECUTOR_COMMAND": TASK_PROGRAM}, status=6).stdout
    assert f"its encoding is {encoding}, and UTF8 is needed" in checked


def test_a_migrated_database_with_such_an_encoding_is_read_but_not_written(
    narrow: tuple[str, str], tmp_path: Path
) -> None:
    encoding, url = narrow
    apply_migrations(url)
    with psycopg.connect(url, autocommit=True, client_encoding="UTF8") as connection:
        run_id = add_run(connection, {"text": "plain"})
    command = CommandLine(tmp_path, url)
    assert "default" in command.output("status")
    assert "plain" in command.output("show", str(run_id))
    for writes in (["enqueue", "{}"], ["cancel", str(run_id)], ["prune", "--older-than", "1d"]):
        assert f"its encoding is {encoding}" in command.run(*writes, status=6).stderr
