"""Row 44 of the fault list: what is set for a role, a database or the server, at the start and while all runs."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.postgres.odd_settings import FORMATS, MEANINGS, ODD, set_for_database
from tests.support.postgres.pgbouncer import pooler
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, diary, wait_for_status
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

WORKERS = 3
LOGIN = "reproq_test_worker"
EXPECTED_WARNINGS = ("will be retried", " failed ")  # of the runs that are meant to


def _do_some_work(connection: Connection, directory: Path) -> None:
    """Runs that succeed, fail, are retried, take too long and are cancelled, and what their rows say of it."""
    pages = directory / f"diary-{len(list(directory.iterdir()))}"
    plain = [add_run(connection, {"text": "9 € \\ 'x'", "diary": str(pages)}) for _ in range(60)]
    retried = add_run(connection, {"exit": 1, "fail_attempts": 2})
    failed = add_run(connection, {"exit": 3}, max_attempts=1)
    late = add_run(connection, {"sleep": 60}, timeout_seconds=0.3, max_attempts=1)
    endless = add_run(connection, {"sleep": 60}, priority=1)
    wait_for_status(connection, endless, "RUNNING")
    connection.execute(
        "update task_runs set cancel_requested_at = now() where id = %s and status = 'RUNNING'", [endless]
    )
    for run_id in plain:
        assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
    assert wait_for_status(connection, retried, "SUCCESSFUL")["attempts"] == 3
    assert wait_for_status(connection, failed, "FAILED")["errors"][0]["kind"] == "failed"
    (entry,) = wait_for_status(connection, late, "FAILED")["errors"]
    assert entry["kind"] == "timeout"
    assert entry["ended_at"].endswith("+00:00")
    wait_for_status(connection, endless, "CANCELLED")
    starts = [run_id for what, run_id, *_ in diary(pages) if what == "start"]
    assert sorted(starts) == plain


def _unexpected(supervisor: Supervisor) -> list[str]:
    return [
        line
        for line in supervisor.log().splitlines()
        if (" WARN " in line or " ERROR" in line) and not any(each in line for each in EXPECTED_WARNINGS)
    ]


@pytest.mark.parametrize("whose", ["role", "database"])
@pytest.mark.parametrize("odd", [FORMATS, MEANINGS], ids=["formats", "meanings"])
def test_44_server_settings_from_before_the_start_have_no_effect(
    database_url: str, connection: Connection, tmp_path: Path, whose: str, odd: dict[str, str]
) -> None:
    for name, value in odd.items():
        set_for_database(connection, name, value, role=LOGIN if whose == "role" else "")
    with Supervisor(database_url, tmp_path, workers=WORKERS) as supervisor:
        _do_some_work(connection, tmp_path)
        assert supervisor.stop() == 0
    assert _unexpected(supervisor) == []


@pytest.mark.parametrize("whose", ["role", "database"])
def test_44_server_settings_changed_later_have_no_effect_on_new_connections(
    database_url: str, connection: Connection, tmp_path: Path, whose: str
) -> None:
    with Supervisor(database_url, tmp_path, workers=WORKERS) as supervisor:
        _do_some_work(connection, tmp_path)
        for name, value in ODD.items():
            set_for_database(connection, name, value, role=LOGIN if whose == "role" else "")
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'reproq-prefork%'"
        )
        _do_some_work(connection, tmp_path)
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log(f"reloaded: {WORKERS} new workers are ready")
        _do_some_work(connection, tmp_path)
        assert supervisor.stop() == 0
    assert all("the connection is lost" in line for line in _unexpected(supervisor))
    assert len(_unexpected(supervisor)) <= WORKERS + 1


def test_44_a_reload_of_the_server_has_no_effect_on_the_connections_that_are_open(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        psycopg.connect(private_server.url, autocommit=True, options="-c datestyle=ISO") as connection,
        Supervisor(private_server.url, tmp_path, workers=WORKERS) as supervisor,
    ):
        _do_some_work(connection, tmp_path)
        connection.execute("set statement_timeout = 0; set lock_timeout = 0; set client_encoding = 'UTF8'")
        connection.execute(
            "set idle_session_timeout = 0; set transaction_timeout = 0; set search_path = public"
        )
        for name, value in ODD.items():
            if name not in ("search_path", "client_encoding"):
                statement = sql.SQL("alter system set {} = {}")
                connection.execute(statement.format(sql.Identifier(name), sql.Literal(value)))
        connection.execute("select pg_reload_conf()")
        with psycopg.connect(private_server.url, autocommit=True) as other:
            wait_until(lambda: _shows(other, "DateStyle") == "SQL, DMY", 10, "the server to have reloaded")
        _do_some_work(connection, tmp_path)
        assert supervisor.stop() == 0
    assert _unexpected(supervisor) == []


def _shows(connection: Connection, name: str) -> str:
    row = connection.execute("select current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("odd", [FORMATS, MEANINGS], ids=["formats", "meanings"])
def test_44_behind_a_transaction_pooler_server_settings_have_no_effect_either(
    database_url: str, connection: Connection, tmp_path: Path, odd: dict[str, str]
) -> None:
    for name, value in odd.items():
        set_for_database(connection, name, value)
    with (
        pooler(database_url, connections=2) as url,
        Supervisor(url, tmp_path, workers=WORKERS) as supervisor,
    ):
        _do_some_work(connection, tmp_path)
        assert supervisor.stop() == 0
    # A connection to the server that the pooler keeps idle ends by idle_session_timeout, which is its own affair.
    assert all("the connection is lost" in line for line in _unexpected(supervisor))


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_44_a_database_that_cannot_hold_all_text_is_refused(
    private_server: EmbeddedPostgres, tmp_path: Path, encoding: str
) -> None:
    with psycopg.connect(private_server.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database narrow encoding {} template template0 locale 'C'").format(
                sql.Literal(encoding)
            )
        )
    url = private_server.url.removesuffix("/postgres") + "/narrow"
    with Supervisor(
        url, tmp_path, environ={"REPROQ_BOOT_TIMEOUT": "1s"}, least_privilege=False
    ).starting() as supervisor:
        assert supervisor.wait() == 6
        assert f"its encoding is {encoding}, and UTF8 is needed" in supervisor.log()
