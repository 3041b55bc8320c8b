"""Behind PgBouncer in transaction mode: all works but LISTEN and session locks, and nothing relies on those."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reproq_prefork import NewRun, cancel, enqueue, enqueue_many, get_run
from reproq_prefork.store.migrate import migrate
from reproq_prefork.store.migration_files import known_migrations
from tests.support.postgres.pgbouncer import pooler
from tests.support.rows import audit
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_status,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(90)

CONNECTIONS = 2  # to the server, for a steward and four workers


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    with pooler(database_url, connections=CONNECTIONS) as url:
        yield url


def test_runs_succeed_are_retried_time_out_and_are_cancelled(
    pooled_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(pooled_url, tmp_path, workers=4) as supervisor:
        supervisor.wait_for_log("behind a transaction pooler: polling only")
        plain = [add_run(connection, {"value": number}) for number in range(60)]
        retried = add_run(connection, {"exit": 1, "fail_attempts": 2})
        late = add_run(connection, {"sleep": 60}, timeout_seconds=0.3, max_attempts=1)
        endless = add_run(connection, {"sleep": 60}, priority=1)
        wait_for_status(connection, endless, "RUNNING")
        with psycopg.connect(pooled_url, autocommit=True) as producer:
            producer.prepare_threshold = None
            cancel(producer, endless)
        for run_id in plain:
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
        assert wait_for_status(connection, retried, "SUCCESSFUL")["attempts"] == 3
        assert wait_for_status(connection, late, "FAILED")["errors"][0]["kind"] == "timeout"
        wait_for_status(connection, endless, "CANCELLED")
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloaded: 4 new workers are ready")
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.stop() == 0
    assert connection.execute("select count(*) from reproq_workers").fetchone() == (0,)
    _nothing_is_left_on_the_servers_connections(connection)


def _nothing_is_left_on_the_servers_connections(connection: Connection) -> None:
    """They are everybody's: a session's lock or LISTEN would stay for whoever comes next."""
    locks = connection.execute(
        "select count(*) from pg_locks join pg_database on pg_database.oid = database"
        " where locktype = 'advisory' and datname = current_database()"
    ).fetchone()
    assert locks == (0,)


def test_killed_workers_lose_nothing_and_nobody_elses_connection_is_ended(
    pooled_url: str, connection: Connection, tmp_path: Path
) -> None:
    audit.install(connection)
    pages = tmp_path / "diary"
    with Supervisor(pooled_url, tmp_path, workers=4, environ=SHORT_LEASE) as supervisor:
        runs = [
            add_run(connection, {"diary": str(pages), "sleep": 0.02}, max_attempts=100) for _ in range(300)
        ]
        for kill in range(10):
            wait_until(lambda kill=kill: len(list(diary(pages))) > 20 * kill, 20, "work to go on")  # type: ignore[misc]
            victim = wait_until(supervisor.booted_worker_pids, 20, "a worker")[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda pid=victim: pid not in supervisor.worker_pids(), 20, "the death")  # type: ignore[misc]
        for run_id in runs:
            wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=40)
        assert "terminating connection" not in supervisor.log()
        assert supervisor.stop() == 0
    assert audit.final_transitions(connection) == dict.fromkeys(runs, 1)


def test_runs_of_a_host_whose_processes_are_all_killed_are_executed_by_the_next(
    pooled_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(pooled_url, tmp_path, workers=2, environ=SHORT_LEASE) as first:
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go")})
        wait_for_status(connection, run_id, "RUNNING")
        first.kill_all()
    (tmp_path / "go").touch()
    with Supervisor(pooled_url, tmp_path, workers=2, environ=SHORT_LEASE):
        assert wait_for_status(connection, run_id, "SUCCESSFUL")["claims"] == 2


def test_the_schema_is_made_and_runs_are_enqueued_and_read(pooled_url: str, connection: Connection) -> None:
    migrate(pooled_url, known_migrations(), to=0)
    migrate(pooled_url, known_migrations())
    with psycopg.connect(pooled_url, autocommit=True) as producer:
        producer.prepare_threshold = None
        run = enqueue(producer, {"n": 1}, unique_key="one")
        many = enqueue_many(producer, [NewRun.of({"n": n}) for n in range(2_000)])
        assert get_run(producer, many[-1].id).payload == {"n": 1_999}
    assert run_row(connection, run.id)["status"] == "PENDING"


def test_behind_a_session_pooler_new_runs_are_picked_up_at_once(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    patient = {"POLL_INTERVAL": "30s"}
    with (
        pooler(database_url, connections=10, mode="session") as url,
        Supervisor(url, tmp_path, workers=2, environ=patient) as supervisor,
    ):
        for _ in range(5):
            wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL", timeout_s=10)
        assert "polling only" not in supervisor.log()
        assert supervisor.stop() == 0
