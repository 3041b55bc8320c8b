"""Addresses before the server's own that take a connection and never answer: each costs its whole time limit."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.postgres.databases import as_login
from tests.support.postgres.deaf import deaf_ports
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, is_running, wait_for_status
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

FIRST_TIME_S = 90.0  # the check's own connect, and then the steward's and the workers'


@contextmanager
def _behind_deaf_addresses(url: str, count: int, query: str = "") -> Iterator[str]:
    """The URL of a worker's login, with so many deaf addresses before that of the server."""
    parts = urlsplit(as_login(url, "worker"))
    login = parts.netloc.rpartition("@")[0]
    with deaf_ports(count) as ports:
        places = ",".join(f"127.0.0.1:{port}" for port in [*ports, parts.port])
        yield parts._replace(netloc=f"{login}@{places}", query=query).geturl()


@pytest.mark.parametrize(
    ("count", "query"), [(4, ""), (1, "connect_timeout=21")], ids=["four addresses", "a long time limit"]
)
def test_a_process_that_connects_for_long_does_not_count_as_dead(
    database_url: str, connection: Connection, tmp_path: Path, count: int, query: str
) -> None:
    with (
        _behind_deaf_addresses(database_url, count, query) as url,
        Supervisor(url, tmp_path, workers=1, least_privilege=False).starting() as supervisor,
    ):
        supervisor.wait_for_log("ready: 1 worker,", timeout_s=FIRST_TIME_S)
        run_id = add_run(connection, {})
        wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=30)
        steward = supervisor.steward_pid()
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'reproq-prefork steward%'"
        )
        supervisor.wait_for_log("steward: connected again", timeout_s=60)
        assert supervisor.steward_pid() == steward
        assert "no sign of life" not in supervisor.log()
        assert "killing" not in supervisor.log()
        assert supervisor.stop() == 0


def test_a_worker_may_boot_for_as_long_as_the_address_takes(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with (
        _behind_deaf_addresses(database_url, 1, "connect_timeout=12") as url,
        Supervisor(
            url, tmp_path, workers=1, environ={"REPROQ_BOOT_TIMEOUT": "6s"}, least_privilege=False
        ).starting() as supervisor,
    ):
        supervisor.wait_for_log("ready: 1 worker,", timeout_s=FIRST_TIME_S)
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert "it was not ready" not in supervisor.log()


def test_a_steward_that_is_connecting_exits_when_its_master_is_gone(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with (
        _behind_deaf_addresses(database_url, 1, "connect_timeout=10") as url,
        Supervisor(url, tmp_path, workers=1, least_privilege=False).starting() as supervisor,
    ):
        supervisor.wait_for_log("ready: 1 worker,", timeout_s=FIRST_TIME_S)
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and application_name like 'reproq-prefork steward%'"
        )
        supervisor.wait_for_log("steward: the connection is lost")
        steward = psutil.Process(supervisor.steward_pid())
        supervisor.send(signal.SIGKILL)
        began_at = time.monotonic()
        wait_until(lambda: "the master is gone" in supervisor.log(), 5, "the steward to notice")
        wait_until(lambda: not is_running(steward), 60, "the steward to end")
        assert time.monotonic() - began_at < 30
