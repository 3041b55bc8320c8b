"""Rows 16 to 19, 21, 23 and 34 of the fault list: the server crashes, is absent, deaf, locked or read-only."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
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


@pytest.mark.timeout(120)
def test_16_after_a_crash_of_the_server_work_goes_on_and_nothing_is_lost_or_done_twice(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(private_server.url, tmp_path, workers=2) as supervisor:
        with psycopg.connect(private_server.url, autocommit=True) as connection:
            runs = [add_run(connection, {"sleep": 0.02, "diary": str(pages)}) for _ in range(120)]
            running = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(pages)}, priority=1)
            wait_for_status(connection, running, "RUNNING")
            wait_until(
                lambda: sum(what == "end" for what, *_ in diary(pages)) > 10, 20, "ten tasks to be done"
            )
        private_server.stop("immediate")
        supervisor.wait_for_log("the connection is lost")
        private_server.start()
        (tmp_path / "go").touch()
        with psycopg.connect(private_server.url, autocommit=True) as connection:
            for run_id in (*runs, running):
                row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=40)
                assert row["attempts"] == len(row["errors"]) + 1
            assert run_row(connection, running)["attempts"] == 1
        assert supervisor.stop() == 0
    ends = [run_id for what, run_id, *_ in diary(pages) if what == "end"]
    assert len(ends) == len(set(ends)) == 121


def test_16_a_server_that_stays_away_does_not_keep_the_master_from_stopping(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with Supervisor(private_server.url, tmp_path, workers=2) as supervisor:
        with psycopg.connect(private_server.url, autocommit=True) as connection:
            run_id = add_run(connection, {"sleep": 60})
            wait_for_status(connection, run_id, "RUNNING")
        private_server.stop("immediate")
        assert supervisor.stop(signal.SIGQUIT) == 0
        private_server.start()
        with psycopg.connect(private_server.url, autocommit=True) as connection:
            assert run_row(connection, run_id)["status"] == "RUNNING"  # left to its lease


def test_17_a_server_that_is_absent_at_the_start_is_waited_for(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    private_server.stop()
    with Supervisor(private_server.url, tmp_path).starting() as supervisor:
        supervisor.wait_for_log("cannot be used")
        private_server.start()
        with psycopg.connect(private_server.url, autocommit=True) as connection:
            wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")


def test_17_a_server_that_stays_absent_is_an_error_with_its_own_exit_status(tmp_path: Path) -> None:
    url = "postgresql://app:secret-word@127.0.0.1:9/app"
    supervisor = Supervisor(url, tmp_path, environ={"REPROQ_BOOT_TIMEOUT": "1s"}, least_privilege=False)
    with supervisor.starting():
        assert supervisor.wait() == 6
        assert "127.0.0.1" in supervisor.log()
        assert "secret-word" not in supervisor.log()


def test_18_server_processes_killed_again_and_again_cause_no_second_execution(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        runs = [add_run(connection, {"diary": str(pages)}) for _ in range(60)]
        for _ in range(15):
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name like 'reproq-prefork%'"
            )
            wait_until(partial(_has_gone_on, pages, len(list(diary(pages)))), 20, "work to go on")
        for run_id in runs:
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
        assert supervisor.stop() == 0
    assert sorted(run_id for what, run_id, *_ in diary(pages) if what == "start") == sorted(runs)


@pytest.mark.timeout(120)
def test_21_a_server_process_that_does_not_answer_is_given_up_and_replaced(
    private_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        psycopg.connect(private_server.url, autocommit=True) as connection,
        Supervisor(private_server.url, tmp_path, workers=1) as supervisor,
    ):
        backend = connection.execute("select backend_pid from reproq_workers").fetchone()
        assert backend is not None
        os.kill(backend[0], signal.SIGSTOP)
        try:
            run_id = add_run(connection, {})
            supervisor.wait_for_log("no answer from the server", timeout_s=30)
        finally:
            os.kill(backend[0], signal.SIGCONT)
        row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=30)
        assert row["attempts"] == 1


@pytest.mark.timeout(90)
def test_23_a_locked_table_is_waited_out_and_no_attempt_is_charged(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        run_id = add_run(connection, {"sleep": 0.5})
        wait_for_status(connection, run_id, "RUNNING")
        with psycopg.connect(database_url) as locker:
            locker.execute("lock table task_runs in access exclusive mode")
            supervisor.wait_for_log("trying again", timeout_s=20)
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["attempts"], row["claims"]) == (1, 1)


@pytest.mark.timeout(90)
def test_23_a_lock_that_lasts_longer_than_the_lease_expires_no_lease(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Renewals go on while other statements wait for the table."""
    with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE) as supervisor:
        run_id = add_run(connection, {"sleep": 5})
        wait_for_status(connection, run_id, "RUNNING")
        with psycopg.connect(database_url) as locker:
            locker.execute("lock table task_runs in access exclusive mode")
            supervisor.wait_for_log("a duty could not be done", times=6, timeout_s=20)
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["attempts"], row["claims"]) == (1, 1)


def _has_gone_on(pages: Path, lines_before: int) -> bool:
    lines = len(list(diary(pages)))
    return lines > lines_before or lines == 120


def test_34_a_read_only_server_is_refused_at_the_start(database_url: str, tmp_path: Path) -> None:
    read_only = (
        f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20default_transaction_read_only%3Don"
    )
    with Supervisor(read_only, tmp_path, environ={"REPROQ_BOOT_TIMEOUT": "1s"}).starting() as supervisor:
        assert supervisor.wait() == 6
        assert "default_transaction_read_only is on" in supervisor.log()


def test_35_a_database_without_the_schema_is_refused_at_the_start(
    empty_database_url: str, tmp_path: Path
) -> None:
    with Supervisor(empty_database_url, tmp_path).starting() as supervisor:
        assert supervisor.wait() == 7
        assert "reproq-prefork migrate" in supervisor.log()
