"""Whoever holds back the removal of dead rows is named: sessions here, others in tests/faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork.cli import entry
from reproq_prefork.store import horizon
from reproq_prefork.store.horizon import HorizonHolder, horizon_holders
from tests.support.postgres.databases import as_login, new_database
from tests.support.postgres.servers import Server
from tests.support.supervisor.supervisor import Connection
from tests.support.waiting import wait_until


def holders(connection: Connection, pid: int, **bounds: Any) -> list[HorizonHolder]:
    """What is said of this process: others, of other tests, may be named too."""
    found = horizon_holders(connection, **{"min_held_s": 0.0, "min_transactions": 1, **bounds})
    return [holder for holder in found if holder.pid == pid]


@contextmanager
def snapshot(url: str, application: str = "report") -> Iterator[Connection]:
    """A session that holds one, and does nothing."""
    with psycopg.connect(url, application_name=application) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.execute("select 1")
        yield session


def test_a_session_with_an_old_snapshot_is_named(database_url: str, connection: Connection) -> None:
    with snapshot(as_login(database_url, "observer")) as session:
        pid = session.info.backend_pid
        (holder,) = holders(connection, pid)
        assert (holder.kind, holder.name, holder.login, holder.state) == (
            "session",
            "report",
            "reproq_test_observer",
            "idle in transaction",
        )
        assert holder.database == session.info.dbname
        assert holder.held_s is not None
        assert 0 <= holder.held_s < 60
        assert holders(connection, pid, min_held_s=60.0) == []
        wait_until(lambda: holders(connection, pid, min_held_s=0.2), 10, "it to be old enough")
    assert holders(connection, pid) == []


def test_a_session_that_has_written_is_reported_even_without_a_snapshot(
    database_url: str, connection: Connection
) -> None:
    with psycopg.connect(database_url) as session:
        session.execute("select pg_current_xact_id()")
        connection.execute("create table more (n integer)")
        (holder,) = holders(connection, session.info.backend_pid)
        assert holder.transactions >= 1


def test_a_session_that_holds_nothing_is_not_named(database_url: str, connection: Connection) -> None:
    """It is idle in a transaction, after its statements have ended, so it has no snapshot."""
    with psycopg.connect(database_url) as session:
        session.execute("select 1")
        assert holders(connection, session.info.backend_pid) == []


def test_a_session_in_another_database_counts_only_if_it_writes(
    server: Server, connection: Connection
) -> None:
    with new_database(server.url) as url, snapshot(url) as session:
        assert holders(connection, session.info.backend_pid) == []
        session.execute("select pg_current_xact_id()")
        connection.execute("create table more (n integer)")
        (holder,) = holders(connection, session.info.backend_pid)
        assert holder.database == session.info.dbname


def test_without_rights_the_number_of_transactions_is_reported(
    database_url: str, connection: Connection
) -> None:
    with snapshot(database_url) as session, psycopg.connect(as_login(database_url, "worker")) as worker:
        pid = session.info.backend_pid
        for number in range(3):
            connection.execute(f"create table more_{number} (n integer)".encode())
        (holder,) = holders(worker, pid, min_transactions=3)
        assert (holder.name, holder.held_s, holder.state) == ("report", None, None)
        assert holder.transactions >= 3
        assert holders(worker, pid, min_transactions=100_000) == []


def test_status_and_check_report_such_a_session_and_what_to_do(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = horizon_holders.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "min_held_s", 0.0)
    monkeypatch.setattr(horizon, "MAX_HOLDERS", 1_000)
    monkeypatch.chdir(tmp_path)
    environ = {"DATABASE_URL": database_url, "EXECUTOR_COMMAND": "true"}

    def output(*arguments: str) -> str:
        assert entry.run(arguments, environ) == 0
        return capsys.readouterr().out

    with snapshot(database_url, "nightly report") as session:
        pid, login, database = session.info.backend_pid, session.info.user, session.info.dbname
        who = f"Process {pid} (nightly report, login {login}, database {database}, idle in transaction)"
        for said in (output("status"), output("check")):
            (line,) = [line for line in said.splitlines() if f"Process {pid} " in line]
            assert who in line
            assert "holds back vacuum for 0." in line
            assert f"select pg_terminate_backend({pid})" in line
        assert "snapshots warning: Process " in said
        (told,) = [
            each
            for each in json.loads(output("status", "--json"))["holding_back_vacuum"]
            if each["pid"] == pid
        ]
        assert (told["kind"], told["state"]) == ("session", "idle in transaction")
    assert f"Process {pid} " not in output("status")
