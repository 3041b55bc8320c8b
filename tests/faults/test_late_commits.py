"""Row 42 of the fault list: a claim is committed after its worker has asked what it holds."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.postgres.pgbouncer import pooler
from tests.support.postgres.stalls import (
    backend_of_worker,
    server_with_slow_commits,
    stopped_in_its_next_claim,
)
from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    TASK_PROGRAM,
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def slow_server() -> Iterator[EmbeddedPostgres]:
    with server_with_slow_commits() as server:
        yield server


@pytest.mark.parametrize("stall_s", [9, 11, 20])
@pytest.mark.parametrize("max_attempts", [1, 3])
def test_42_a_claim_that_is_committed_late_is_handed_back_within_the_lease_and_charged_to_nobody(
    slow_server: EmbeddedPostgres, tmp_path: Path, stall_s: float, max_attempts: int
) -> None:
    pages = tmp_path / "diary"
    with (
        psycopg.connect(slow_server.url, autocommit=True) as connection,
        Supervisor(slow_server.url, tmp_path, workers=1) as supervisor,
    ):
        run_id = add_run(connection, {"diary": str(pages)}, max_attempts=max_attempts)
        with stopped_in_its_next_claim(connection, stall_s):
            supervisor.wait_for_log("the connection is lost", timeout_s=stall_s)
        row = wait_for_status(connection, run_id, "SUCCESSFUL", "FAILED", timeout_s=10)
        assert (row["status"], row["attempts"], row["errors"]) == ("SUCCESSFUL", 1, [])
        assert row["claims"] == 2, "the late one was committed"
        assert supervisor.stop() == 0
    assert [what for what, *_ in diary(pages)] == ["start", "end"]


def test_42_an_end_and_a_claim_that_are_committed_late_are_recorded_once_and_handed_back(
    slow_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Both are in one statement."""
    pages = tmp_path / "diary"
    with (
        psycopg.connect(slow_server.url, autocommit=True) as connection,
        Supervisor(slow_server.url, tmp_path, workers=1) as supervisor,
    ):
        first = add_run(connection, {"diary": str(pages), "wait_for": str(tmp_path / "go")}, max_attempts=1)
        wait_for_start(pages)
        second = add_run(connection, {"diary": str(pages)}, max_attempts=1)
        (tmp_path / "go").touch()
        with stopped_in_its_next_claim(connection, 11):
            supervisor.wait_for_log("the connection is lost", timeout_s=11)
        for run_id, claims in ((first, 1), (second, 2)):
            row = wait_for_status(connection, run_id, "SUCCESSFUL", "FAILED", timeout_s=10)
            assert (row["status"], row["attempts"], row["claims"]) == ("SUCCESSFUL", 1, claims)
        assert supervisor.stop() == 0
        assert "came too late" not in supervisor.log()
    assert [what for what, *_ in diary(pages)] == ["start", "end"] * 2


def test_42_a_claim_of_a_killed_worker_that_is_committed_late_is_charged_to_nobody(
    slow_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """Its steward cannot see the server process gone, so it resets what the worker held again and again."""
    pages = tmp_path / "diary"
    with (
        psycopg.connect(slow_server.url, autocommit=True) as connection,
        Supervisor(slow_server.url, tmp_path, workers=1) as supervisor,
    ):
        run_id = add_run(connection, {"diary": str(pages)}, max_attempts=1)
        with stopped_in_its_next_claim(connection, 11):
            os.kill(supervisor.worker_pids()[0], signal.SIGKILL)
        row = wait_for_status(connection, run_id, "SUCCESSFUL", "FAILED", timeout_s=10)
        assert (row["status"], row["attempts"], row["errors"]) == ("SUCCESSFUL", 1, [])
        assert supervisor.stop() == 0
    assert [what for what, *_ in diary(pages)] == ["start", "end"]


def test_42_behind_a_pooler_held_runs_are_read_until_no_statement_can_be_running(
    slow_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    """No process can see the end of that server process: it belongs to the pooler."""
    pages = tmp_path / "diary"
    with (
        psycopg.connect(slow_server.url, autocommit=True) as connection,
        pooler(slow_server.url, connections=3) as url,
        Supervisor(url, tmp_path, workers=1) as supervisor,
    ):
        run_id = add_run(connection, {"diary": str(pages)}, max_attempts=1)
        with stopped_in_its_next_claim(connection, 12):
            supervisor.wait_for_log("the connection is lost", timeout_s=12)
        row = wait_for_status(connection, run_id, "SUCCESSFUL", "FAILED", timeout_s=10)
        assert (row["status"], row["attempts"], row["errors"]) == ("SUCCESSFUL", 1, [])
        assert row["claims"] == 2, "the late one was committed"
    assert [what for what, *_ in diary(pages)] == ["start", "end"]


# --- what a late commit leaves, written by the test ---

LATER = {"run_after": "2100-01-01"}  # nobody claims it but by such a statement


def claim_late(connection: Connection, run_id: int, worker_id: str) -> None:
    connection.execute(
        "update task_runs set status = 'RUNNING', claims = claims + 1, attempts = attempts + 1, leased_by = %s,"
        " lease_expires_at = now() + interval '30 s', worker_ids = worker_ids || %s::text,"
        " started_at = now(), last_attempted_at = now() where id = %s",
        [worker_id, worker_id, run_id],
    )


def worker_id_of(connection: Connection) -> str:
    row = connection.execute("select id from reproq_workers").fetchone()
    assert row is not None
    return str(row[0])


def wait_until_handed_back(connection: Connection, run_id: int, timeout_s: float) -> None:
    row = wait_for_status(connection, run_id, "PENDING", "FAILED", timeout_s=timeout_s)
    assert (row["status"], row["attempts"], row["worker_ids"], row["errors"]) == ("PENDING", 0, [], [])


def test_42_an_idle_worker_reads_its_held_runs_once_in_each_lease(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE) as supervisor:
        for _ in range(2):
            run_id = add_run(connection, {}, max_attempts=1, **LATER)
            claim_late(connection, run_id, worker_id_of(connection))
            wait_until_handed_back(connection, run_id, timeout_s=2)
        assert "the connection is lost" not in supervisor.log()


@pytest.mark.parametrize("executor", ["command", "fork", "inline"])
def test_42_a_worker_reads_its_held_runs_during_a_task_while_its_old_server_process_lives(
    private_server: EmbeddedPostgres, tmp_path: Path, executor: str
) -> None:
    with psycopg.connect(private_server.url, autocommit=True) as connection:
        _asks_in_the_middle_of_a_task(private_server.url, connection, tmp_path, executor)


def _asks_in_the_middle_of_a_task(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    shop = Shop(tmp_path)
    host = shop.supervisor(
        database_url, workers=1, executor=executor, environ={"EXECUTOR_COMMAND": TASK_PROGRAM}
    )
    late = add_run(connection, {}, max_attempts=1, **LATER)
    with host as supervisor:
        worker_id, old = worker_id_of(connection), backend_of_worker(connection)
        os.kill(old, signal.SIGSTOP)
        try:
            if executor == "command":
                busy = add_run(connection, {"sleep": 60})
            else:
                busy = shop.enqueue(connection, "sleep", 60)
            wait_for_status(connection, busy, "RUNNING", timeout_s=30)
            assert backend_of_worker(connection) == old, "it stays registered until it is seen gone"
            claim_late(connection, late, worker_id)
            wait_until_handed_back(connection, late, timeout_s=4)
        finally:
            os.kill(old, signal.SIGCONT)
        # Once it is gone, the new one is registered, and the worker asks once a lease.
        wait_until(
            lambda: backend_of_worker(connection) != old, 10, "the new server process to be registered"
        )
        assert run_row(connection, busy)["claims"] == 1
        supervisor.send(signal.SIGQUIT)
        assert supervisor.wait() == 0


def test_42_a_worker_that_leaves_hands_back_runs_that_it_does_not_know_of(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    late = add_run(connection, {}, max_attempts=1, **LATER)
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        claim_late(connection, late, worker_id_of(connection))
        assert supervisor.stop() == 0
    wait_until_handed_back(connection, late, timeout_s=0)
    assert connection.execute("select count(*) from reproq_workers").fetchone() == (0,)
