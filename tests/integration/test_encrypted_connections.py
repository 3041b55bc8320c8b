"""A server that is reached by TLS only: each process has a connection of its own, made after it was forked."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from reproq_prefork import cancel
from reproq_prefork.errors import ExitStatus
from tests.support.postgres.tls import Certificate, encrypted, self_signed
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, wait_for_status
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, Certificate]:
    """The server's, and a stranger's."""
    directory = tmp_path_factory.mktemp("certificates")
    return self_signed(directory), self_signed(directory, "stranger")


@pytest.fixture
def encrypted_url(database_url: str, certificates: tuple[Certificate, Certificate]) -> Iterator[str]:
    with encrypted(database_url, certificates[0], certificates[0]) as url:
        yield url


def test_supervision_works_over_tls(encrypted_url: str, connection: Connection, tmp_path: Path) -> None:
    with Supervisor(encrypted_url, tmp_path, workers=2, environ={"POLL_INTERVAL": "30s"}) as supervisor:
        for run_id in [add_run(connection, {}) for _ in range(20)]:
            wait_for_status(connection, run_id, "SUCCESSFUL")
        cancelled = add_run(connection, {"sleep": 60})
        wait_for_status(connection, cancelled, "RUNNING")
        cancel(connection, cancelled)
        wait_for_status(connection, cancelled, "CANCELLED")
        before = supervisor.worker_pids()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(set(supervisor.booted_worker_pids()) - set(before)) == 2, 20, "new workers")
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("reloaded: 2 new workers")
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert supervisor.stop() == 0


def test_a_lost_connection_is_made_again_over_tls(
    encrypted_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(encrypted_url, tmp_path, workers=2) as supervisor:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'reproq-prefork%'"
        )
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        supervisor.wait_for_log("connected again")


def test_a_server_with_an_unknown_certificate_is_refused_in_a_sentence(
    database_url: str, certificates: tuple[Certificate, Certificate], tmp_path: Path
) -> None:
    own, stranger = certificates
    with encrypted(database_url, own, stranger) as url:
        result = CommandLine(tmp_path, url).run("status")
    assert result.returncode == ExitStatus.DATABASE_UNAVAILABLE
    assert "certificate verify failed" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 1
